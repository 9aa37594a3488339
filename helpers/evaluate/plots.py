"""The scoreboard as pictures: a forest plot, and a radar.

In: a `Scoreboard`. Out: matplotlib figures.
"""

import numpy as np

from helpers import figures
from helpers.evaluate.metrics import METRICS
from helpers.evaluate.scoreboard import TOTAL, Scoreboard

_LINES = ("-", "--", ":")


def _colour(place: int) -> str:
    return figures.COLOURS[place % len(figures.COLOURS)]


def forest_plot(board: Scoreboard):
    """One panel a metric and one for the total, arms as rows, a dot for the mean and a line for the interval; a metric
    that is not in the total is grey, the name of an arm that fails a major red. Returns the figure."""
    names, columns = list(board.arms), 7
    panels = {TOTAL: TOTAL} | {k: m.title.replace(" ", "\n", 1) for k, m in METRICS.items()}
    lines = -(-len(panels) // columns)
    fig, axes = figures.figure(12, (1.1 + 0.36 * len(names)) * lines, rows=lines, cols=columns, sharey=True)
    for ax, (metric, title) in zip(axes.flat, panels.items(), strict=False):
        for row, arm in enumerate(names):
            if (cell := board.totals.get(arm) if metric == TOTAL else board.arms[arm].get(metric)) is None:
                continue
            colour = _colour(row) if metric in (TOTAL, *board.total_of) else "#c9ced6"
            ax.plot([cell.low, cell.high], [row, row], color=colour, linewidth=3, solid_capstyle="round")
            ax.plot(cell.mean, row, "o", color=colour, markeredgecolor="white", markersize=8)
        if metric == "relevance":
            ax.axvline(0.5, color=figures.INK, linewidth=0.8, linestyle=":")
        ax.set(xlim=(-0.07, 1.07), xticks=(0, 0.5, 1), xticklabels=("0", ".5", "1"))
        ax.set_title(title, fontsize=9)
        ax.grid(axis="x", color="#e3e6ea")
    for ax in list(axes.flat)[len(panels) :]:
        ax.set_axis_off()
    axes.flat[0].set_yticks(range(len(names)), names)
    for label in axes.flat[0].get_yticklabels():
        label.set_color("#b3261e" if label.get_text() in board.failed else figures.INK)
    axes.flat[0].invert_yaxis()
    return fig


def radar(board: Scoreboard):
    """One axis a metric of the total, 0 in the middle and 1 at the rim, and a line an arm: what it is good at, at a
    glance. It has no intervals; the forest plot has. Returns the figure."""
    keys = board.total_of
    angles = np.linspace(0, 2 * np.pi, len(keys), endpoint=False)
    fig, ax = figures.figure(7.5, 4.6, subplot_kw={"projection": "polar"})
    for place, (arm, cells) in enumerate(board.arms.items()):
        means = [cells[key].mean for key in keys]
        style = _LINES[place // len(figures.COLOURS) % len(_LINES)]
        ax.plot([*angles, *angles[:1]], [*means, *means[:1]], style, color=_colour(place), lw=1.6, label=arm)
    ax.set(ylim=(0, 1), theta_offset=np.pi / 2, theta_direction=-1)
    ax.set_yticks((0.25, 0.5, 0.75, 1), (".25", ".5", ".75", "1"), fontsize=7, color="#7a8494")
    ax.set_xticks(angles, [METRICS[key].title for key in keys])
    ax.tick_params(axis="x", pad=10)
    ax.grid(color="#e3e6ea")
    fig.legend(*ax.get_legend_handles_labels(), frameon=False, loc="outside right upper")
    return fig
