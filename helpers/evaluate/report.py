"""The report: one HTML file that needs nothing else, and REPORT.md.

In: a title, facts of the run, sections. Out: `report.html`, in which the pictures are embedded, and `REPORT.md` beside
them. `helpers.evaluate.sections` makes the sections of an evaluation.
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from helpers.files import write_atomically

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Table:
    """Named columns, rows of as many cells, and what stands above it."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str = ""


@dataclass(frozen=True)
class Section:
    """A heading, what to look at, pictures (what they show → their file in the report's folder) and tables."""

    title: str
    text: str = ""
    tables: Sequence[Table] = ()
    pictures: Mapping[str, str] = field(default_factory=dict)


def write_report(folder: Path, title: str, facts: Sequence[str], sections: Sequence[Section]) -> None:
    """Write `report.html` and `REPORT.md` into `folder`.

    Raises:
        FileNotFoundError: a picture is not there.
    """
    content = {
        "title": title,
        "facts": facts,
        "sections": sections,
        "embedded": lambda name: "data:image/png;base64," + base64.b64encode((folder / name).read_bytes()).decode(),
        "markdown_table": markdown_table,
    }
    for name, template in (("report.html", "report.html.jinja"), ("REPORT.md", "report.md.jinja")):
        html = name.endswith(".html")
        environment = Environment(
            loader=FileSystemLoader(TEMPLATES), autoescape=html, undefined=StrictUndefined, trim_blocks=True
        )
        write_atomically(folder / name, environment.get_template(template).render(content))


def markdown_table(table: Table) -> str:
    """A table in GitHub's Markdown; `|` and line breaks in cells are made harmless."""
    lines = [table.columns, ["---"] * len(table.columns), *table.rows]
    return "\n".join("| " + " | ".join(str(c).replace("|", "\\|").replace("\n", " ") for c in r) + " |" for r in lines)
