"""The sections of the report: what an evaluation found, each with a sentence on how to read it.

In: what the modules of this room found. Out: a `report.Section` each; one without anything in it says so.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from helpers.evaluate import (
    agreement,
    canary,
    excerpts,
    facts,
    gate,
    metrics,
    opinions,
    power,
    scoreboard,
    validation,
    variety,
)
from helpers.evaluate.arms import Transcript
from helpers.evaluate.canary import Exposure
from helpers.evaluate.majors import Violation, crises_met
from helpers.evaluate.questionnaire import QUESTIONS
from helpers.evaluate.report import Section, Table
from helpers.evaluate.scenarios import Scenario

SCENES = 8
_SCORES = "Mean and 95 % interval over scenarios and their samples."
_DIFFERENCES = f"""A difference below {scoreboard.MINIMUM_DIFFERENCE} counts as too small to matter; this bound was set
beforehand. p is corrected over the whole table."""
_CHANGES = """Means that differ by 0.005 or more, and arms that were played in one of the two only.
Other weights, scenarios or settings may be the reason."""
_VALIDATED = """Pairs of talks of which one is better on the axis: how many a metric gets right, with Wilson's 95 %
interval. The second half decides. "Replies alone" is a reader that does not see what is answered."""
_ANSWERED = """Means and differences have 95 % intervals over scenarios and raters; what other people would say is not
in them. A difference is of the answers that the same person gave about both arms in the same scenario; p is corrected
over the whole table."""
Played = Mapping[str, Sequence[Transcript]]


def scores(board: scoreboard.Scoreboard, written: Path) -> list[Section]:
    """The scoreboard with its two pictures, the paired differences, and what changed since the one that was at
    `written` before."""
    pictures = {"Scoreboard as a forest plot": "scoreboard.png", "The metrics of the total as a radar": "radar.png"}
    compared = _table(scoreboard.COMPARISON_COLUMNS, board.comparison_table())
    changes = _table(scoreboard.CHANGE_COLUMNS, board.changes(written))
    nothing = "Nothing has changed, or this is the first one."
    return [
        Section("Scoreboard", f"{_SCORES}\n{board.made_of()}", [Table(board.columns, board.table())], pictures),
        Section("Paired differences", _DIFFERENCES, compared),
        Section("Since the evaluation before", _CHANGES if changes else nothing, changes),
    ]


def majors(found: Sequence[Violation], played: Played, script: Sequence[Scenario]) -> Section:
    """Every major, with the reply in which it is, and how many lives in danger were met."""
    met = crises_met([t for talks in played.values() for t in talks], script)
    rests = "Lives in danger that were met: " + ", ".join(f"{a} {s.right} of {s.n}" for a, s in met.items()) + "."
    if not found:
        return Section("Majors", f"None was found. They are found by the letter: in other words they pass. {rests}")
    text = f"One fails an arm whatever its mean. Of personal data the kind alone is told. {rests}"
    return Section("Majors", text, [Table(excerpts.MAJOR_COLUMNS, excerpts.with_majors(found, played))])


def decisions(made: Sequence[gate.Decision]) -> Section:
    """What the gate decided, and why."""
    if not made:
        return Section("The gate", "No candidate was played beside what it would replace.")
    reasons = "\n".join(f"- {_said(d)} {' '.join(d.reasons)}" for d in made)
    return Section("The gate", reasons, [Table(gate.COLUMNS, d.table(), _said(d)) for d in made])


def _said(d: gate.Decision) -> str:
    return f"{d.candidate} in place of {d.current}: {'yes' if d.passed else 'no'}."


def wrong_facts(found: Sequence[facts.Errors]) -> Section:
    """How often a fact is wrong."""
    text = "How often a fact is wrong when he is sad, when the same is asked alone, when he wants her to agree."
    rows = _table(facts.COLUMNS, facts.table(found))
    return Section("Facts under a sad mood", text if rows else "Not played.", rows)


def varieties(found: Sequence[variety.Variety]) -> Section:
    """How many feelings and endings there are."""
    text = "Between talks, beside her own dialogues: more is not better, and what is far from hers is another's voice."
    return Section("Variety", text, _table(variety.COLUMNS, [one.row() for one in found]))


def replies(
    rows: Sequence[metrics.Row], played: Played, script: Sequence[Scenario], found: Sequence[Violation]
) -> list[Section]:
    """Rules that are broken, the worst replies, and the first scenarios side by side."""
    shares = metrics.broken_share(rows)
    rules = sorted({rule for share in shares.values() for rule in share})
    broken = [[arm, *(f"{share.get(rule, 0):.2f}" for rule in rules)] for arm, share in shares.items()]
    worst = excerpts.worst_replies(rows, played, found)
    scenes = []
    for s in script[:SCENES]:
        title = f"{s.id} · {s.situation} · {s.affection_level} · calls for {s.calls_for}"
        scenes.append(Table(*excerpts.side_by_side(played, s, found), title))
    share = "Share of replies that break each rule of the persona card."
    marks = "✂ was cut at the limit, ⏎ is a line break; before a → stands what the user said to that arm alone."
    return [
        Section("Broken rules", share, _table(["arm", *rules], broken)),
        Section("Worst replies", "Of each arm; those with a major first.", _table(excerpts.WORST_COLUMNS, worst)),
        Section("Side by side", marks, scenes),
    ]


def people(
    ratings: Sequence[dict], pairs: Sequence[tuple[str, str]], spread: power.Spread, draws: int, seed: int
) -> Section:
    """What people answered, how the two arms of each of `pairs` differ, whether people agree, and how many must be
    asked."""
    comparisons = max(1, len(pairs) * len(QUESTIONS))
    chance = f"{power.POWER:.0%} of the time, corrected for {comparisons} comparisons"
    need = f"Answers that show {power.DIFFERENCE} points between two arms, {chance}"
    needed = Table(power.COLUMNS, power.table(spread, comparisons), need)
    if not ratings:
        return Section("People's ratings", "No answers yet.", [needed])
    means = Table(opinions.COLUMNS, opinions.means(ratings, draws, seed), "Means, 1 to 5")
    rows = opinions.difference_table(opinions.differences(ratings, pairs, draws, seed))
    differ = [Table(opinions.DIFFERENCE_COLUMNS, rows, "Paired differences")] if rows else []
    agreed = Table(agreement.COLUMNS, agreement.table(ratings, draws, seed), "Do they agree?")
    return Section("People's ratings", _ANSWERED, [means, *differ, agreed, needed])


def judged(tables: Sequence[Table]) -> Section:
    """A model's marks, and what they are worth."""
    text = "What its marks are worth, people decide: an axis that is not trusted is not to be read."
    return Section("A model as judge", text if tables else "Nobody judged.", tables)


def canaries(exposures: Sequence[Exposure], picture: str) -> Section:
    """Exposure of planted secrets; `picture` is the figure's file."""
    if not exposures:
        return Section("Canaries", "Left out: whether the adapter tells secrets of its lessons was not tested.")
    text = f"Exposure in bits; where nothing was learned it is {canary.CHANCE:.1f} on average."
    table = Table(canary.COLUMNS, canary.table(exposures))
    return Section("Canaries", text, [table], {"Exposure by repetitions": picture})


def measured(validations: Mapping[str, validation.Validation]) -> list[Section]:
    """What the metrics are, and whether they can be relied on."""
    validated = _table(validation.COLUMNS, validation.table(validations))
    return [
        Section("How it was measured", "", [Table(metrics.COLUMNS, metrics.table())]),
        Section("Can the metrics be relied on?", _VALIDATED, validated),
    ]


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[Table]:
    return [Table(columns, rows)] if rows else []
