"""The report: one HTML file that needs nothing else, and REPORT.md.

In: scoreboard, rows, transcripts, ratings, the scoreboard's figures as PNG. Out: `report.html`, `REPORT.md`.
"""

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from helpers.evaluate import metrics, questionnaire, validation
from helpers.evaluate.arms import Transcript
from helpers.evaluate.metrics import Row, broken_share
from helpers.evaluate.scenarios import Scenario
from helpers.evaluate.scoreboard import (
    CHANGE_COLUMNS,
    COMPARISON_COLUMNS,
    MINIMUM_DIFFERENCE,
    Scoreboard,
    markdown_table,
)
from helpers.evaluate.validation import Validation
from helpers.files import write_atomically

TEMPLATES = Path(__file__).parent / "templates"
WORST_OF_AN_ARM, SCENES = 5, 8


def worst_replies(
    rows: Sequence[Row], scenarios: Sequence[Scenario], per_arm: int = WORST_OF_AN_ARM
) -> list[list[str]]:
    """The `per_arm` replies of each arm that keep the fewest rules (then the least fluent), worst first."""
    said = {s.id: s.user_turns for s in scenarios}
    judged = sorted(
        (r for r in rows if "persona" in r.values), key=lambda r: (r.values["persona"], r.values["fluency"])
    )
    taken: dict[str, int] = {}
    worst = []
    for row in judged:
        taken[row.arm] = taken.get(row.arm, 0) + 1
        if taken[row.arm] <= per_arm:
            user = said[row.unit][row.turn]
            persona = f"{row.values['persona']:.2f}"
            broken = ", ".join(row.broken)
            worst.append([row.arm, row.unit, str(row.turn + 1), user, _one_line(row.reply), persona, broken])
    return worst


def side_by_side(
    transcripts: Mapping[str, Sequence[Transcript]], scenario: Scenario
) -> tuple[list[str], list[list[str]]]:
    """(columns, rows) of one scenario: a row a user turn, a column an arm; the first sample of each arm.

    ✂ marks a reply that was cut at the limit, ⏎ a line break.
    """
    played = {arm: next(t for t in ts if t.unit == scenario.id and t.sample == 0) for arm, ts in transcripts.items()}
    rows = [
        [turn, *(_one_line(t.replies[i].text) + ("" if t.replies[i].stopped else " ✂") for t in played.values())]
        for i, turn in enumerate(scenario.user_turns)
    ]
    return ["user", *played], rows


def _one_line(reply: str) -> str:
    # A base model can answer with line breaks alone, and would fill the page with them.
    return reply.replace("\n", "⏎")


def _embedded(picture: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(picture.read_bytes()).decode()


def write_report(
    folder: Path,
    title: str,
    facts: Sequence[str],
    board: Scoreboard,
    rows: Sequence[Row],
    transcripts: Mapping[str, Sequence[Transcript]],
    scenarios: Sequence[Scenario],
    ratings: Sequence[dict],
    validations: Mapping[str, Validation],
) -> None:
    """Write `report.html` and `REPORT.md` into `folder`, where `scoreboard.json`, `scoreboard.png` and `radar.png`
    already are."""
    shares = broken_share(rows)
    rules = sorted({rule for share in shares.values() for rule in share})
    scenes = []
    for scenario in scenarios[:SCENES]:
        columns, lines = side_by_side(transcripts, scenario)
        scene_title = (
            f"{scenario.id} · {scenario.situation} · {scenario.affection_level} · calls for {scenario.calls_for}"
        )
        scenes.append({"title": scene_title, "columns": columns, "rows": lines})
    content = {
        "title": title,
        "facts": facts,
        "board": board,
        "forest": _embedded(folder / "scoreboard.png"),
        "radar": _embedded(folder / "radar.png"),
        "change_columns": CHANGE_COLUMNS,
        "changes": board.changes(folder / "scoreboard.json"),
        "minimum_difference": MINIMUM_DIFFERENCE,
        "comparison_columns": COMPARISON_COLUMNS,
        "rule_columns": ["arm", *rules],
        "rule_rows": [[arm, *(f"{share.get(rule, 0):.2f}" for rule in rules)] for arm, share in shares.items()],
        "worst": worst_replies(rows, scenarios),
        "scenes": scenes,
        "ratings": questionnaire.means(ratings),
        "rating_columns": ["arm", *questionnaire.QUESTIONS, "answers"],
        "metric_columns": metrics.COLUMNS,
        "metric_rows": metrics.table(),
        "validation_columns": validation.COLUMNS,
        "validation_rows": validation.table(validations),
        "markdown_table": markdown_table,
    }
    for name in ("report.html", "REPORT.md"):
        html = name.endswith(".html")
        environment = Environment(
            loader=FileSystemLoader(TEMPLATES), autoescape=html, undefined=StrictUndefined, trim_blocks=html
        )
        template = environment.get_template("report.html.jinja" if html else "report.md.jinja")
        write_atomically(folder / name, template.render(content))
