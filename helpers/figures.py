"""One look for all figures and tables.

In: matplotlib figures, rows. Out: PNG files beside the stage's record, and HTML to display.
"""

import html
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
from IPython.display import HTML

INK, ACCENT, SOFT, WARN = "#27313f", "#c2577b", "#7d9bc1", "#d98a3d"
COLOURS = (SOFT, ACCENT, "#6aa583", WARN, "#8d7bb5", "#a7a7a7")


def figure(width: float = 8, height: float = 3.5, rows: int = 1, cols: int = 1, **subplot_options):
    """A figure of `width` × `height` inches and its axes (one, or an array of rows × cols)."""
    style = {
        "axes.prop_cycle": plt.cycler(color=COLOURS),
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": INK,
        "axes.titlesize": 11,
        "axes.titleweight": "bold",
        "font.size": 9,
    }
    with plt.rc_context(style):
        return plt.subplots(rows, cols, figsize=(width, height), layout="constrained", **subplot_options)


def save(fig, path: Path):
    """Write `fig` as PNG (150 dots an inch) and return it, closed, so that it displays once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fig.savefig(path, dpi=150)
    plt.close(fig)
    return fig


def show_html(text: str) -> HTML:
    """`text` as an HTML output; the caller has escaped what came from data."""
    return HTML(text)


def table(rows: Sequence[Sequence[object]], columns: Sequence[str]) -> HTML:
    """An HTML table; every value is escaped and line breaks are kept."""
    cell = (
        'style="text-align:left;vertical-align:top;padding:4px 10px;border-bottom:1px solid #ddd;white-space:pre-wrap"'
    )
    head = "".join(f"<th {cell}>{html.escape(c)}</th>" for c in columns)
    body = "".join(
        "<tr>" + "".join(f"<td {cell}>{html.escape(str(value))}</td>" for value in row) + "</tr>" for row in rows
    )
    return HTML(f'<table style="font-size:13px"><tr>{head}</tr>{body}</table>')
