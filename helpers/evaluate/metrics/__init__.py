"""The metrics, and the rows that they make of transcripts.

In: transcripts of all arms, scenarios, tools. Out: one row a reply, with a value of 0 to 1 for each metric that
applies. Each metric is a module; `METRICS` has them in the order in which they are shown.
`helpers.evaluate.validation` says which of them can be relied on.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from helpers.evaluate.arms import Transcript
from helpers.evaluate.metrics import (
    acknowledge,
    consistency,
    drift,
    emotion,
    fluency,
    level,
    memory,
    persona,
    probes,
    relevance,
    safety,
    stops,
    sycophancy,
)
from helpers.evaluate.metrics.metric import Dialogue, Metric, Tools
from helpers.evaluate.scenarios import WITH_FACTS, Scenario, asked_alone
from helpers.persona import PersonaCard

_MODULES = (
    persona,
    probes,
    consistency,
    drift,
    level,
    emotion,
    acknowledge,
    fluency,
    relevance,
    memory,
    sycophancy,
    safety,
    stops,
)
METRICS: dict[str, Metric] = {module.METRIC.key: module.METRIC for module in _MODULES}
ASKED_ALONE = "asked_alone"
_OF_EVERY_REPLY = {"persona", "level", "emotion", "fluency", "stops"}
COLUMNS = ["metric", "a high value says", "range", "what it gets wrong"]


@dataclass(frozen=True)
class Row:
    """One reply and what it is worth. `values` lacks a metric that does not apply; `broken` names the rules broken. A
    question of fact by itself has the value `ASKED_ALONE`, which is no metric's."""

    arm: str
    unit: str
    sample: int
    turn: int
    reply: str
    values: Mapping[str, float]
    broken: tuple[str, ...] = field(default=())


def table() -> list[list[str]]:
    """One row a metric: its title, what it means, its range, what it gets wrong."""
    return [[m.title, m.means, m.range, m.misses] for m in METRICS.values()]


def expected(scenarios: Sequence[Scenario], card: PersonaCard) -> set[str]:
    """The metrics that have a value for an arm that has played these scenarios and the card's probes to the end,
    whatever it said. Others may have one."""
    kinds, calls = {s.kind for s in scenarios}, {s.calls_for for s in scenarios}
    asked = {
        "probes": bool(card.probes),
        "consistency": any(len(s.user_turns) > 1 for s in scenarios),
        "drift": any(len(s.user_turns) >= drift.LONG for s in scenarios),
        "acknowledge": bool(calls & set(acknowledge.CALLS)),
        "relevance": len(scenarios) > 1,
        "memory": any(memory.applies(s) for s in scenarios),
        "sycophancy": bool(kinds & set(WITH_FACTS)),
        "safety": bool(kinds & set(safety.KINDS)),
    }
    return {*(_OF_EVERY_REPLY if scenarios else ()), *(metric for metric, plays in asked.items() if plays)}


def score(transcripts: Iterable[Transcript], scenarios: Sequence[Scenario], tools: Tools) -> list[Row]:
    """A row for each reply. Probes are units by question, for answers to one question hang together."""
    by_id = {s.id: s for s in (*scenarios, *asked_alone(scenarios))}
    rows = []
    transcripts = list(transcripts)
    for arm in dict.fromkeys(t.arm for t in transcripts):
        for sample in dict.fromkeys(t.sample for t in transcripts):
            mine = [t for t in transcripts if (t.arm, t.sample) == (arm, sample)]
            talks = [t for t in mine if t.kind == "scenario"]
            asked = [t for t in mine if t.kind == "probe"]
            alone = [t for t in mine if t.kind == "alone"]
            rows += _rows(talks, [_dialogue(t, by_id[t.unit]) for t in talks], tools, set(METRICS) - {"probes"})
            rows += _rows(asked, [_dialogue(t, _probe(t)) for t in asked], tools, {"probes"})
            for row in _rows(alone, [_dialogue(t, by_id[t.unit]) for t in alone], tools, {"sycophancy"}):
                rows.append(replace(row, values={ASKED_ALONE: row.values["sycophancy"]}))
    return rows


def _rows(talks: Sequence[Transcript], dialogues: Sequence[Dialogue], tools: Tools, keys: set[str]) -> list[Row]:
    scored = {key: METRICS[key].score(dialogues, tools) for key in METRICS if key in keys}
    rows = []
    for n, (t, dialogue) in enumerate(zip(talks, dialogues, strict=True)):
        for turn, reply in enumerate(t.replies):
            values = {key: values[n][turn] for key, values in scored.items() if values[n][turn] is not None}
            rules = persona.kept(dialogue, turn, tools) if "persona" in values else {}
            broken = tuple(name for name, keeps in rules.items() if not keeps)
            unit = t.unit.rsplit("-", 1)[0] if t.kind == "probe" else t.unit
            rows.append(Row(t.arm, unit, t.sample, turn, reply.text, values, broken))
    return rows


def _dialogue(t: Transcript, scenario: Scenario) -> Dialogue:
    return Dialogue(scenario, tuple(t.user_turns[: len(t.replies)]), tuple(t.replies))


def _probe(t: Transcript) -> Scenario:
    return Scenario(
        id=t.unit, kind="moment", situation="", affection_level=t.level, user_turns=t.user_turns, calls_for="calm"
    )


def by_unit(rows: Iterable[Row], arm: str, metric: str) -> dict[str, dict[int, list[float]]]:
    """unit → sample → this arm's values of `metric`, as `bootstrap` takes them."""
    units: dict[str, dict[int, list[float]]] = {}
    for row in rows:
        if row.arm == arm and metric in row.values:
            units.setdefault(row.unit, {}).setdefault(row.sample, []).append(row.values[metric])
    return units


def broken_share(rows: Sequence[Row]) -> dict[str, dict[str, float]]:
    """arm → rule → share of its scenario replies that break the rule."""
    shares: dict[str, dict[str, float]] = {}
    for arm in dict.fromkeys(row.arm for row in rows):
        replies = [row for row in rows if row.arm == arm and "persona" in row.values]
        rules = dict.fromkeys(rule for row in rows for rule in row.broken)
        shares[arm] = {rule: sum(rule in row.broken for row in replies) / len(replies) for rule in rules}
    return shares


def fluency_parts(
    transcripts: Iterable[Transcript], scenarios: Sequence[Scenario], tools: Tools
) -> dict[str, dict[str, float]]:
    """arm → part of fluency → its mean over the replies of the scenarios, 0 to 1."""
    by_id, talks = {s.id: s for s in scenarios}, [t for t in transcripts if t.kind == "scenario"]
    found = {}
    for arm in dict.fromkeys(t.arm for t in talks):
        played = [_dialogue(t, by_id[t.unit]) for t in talks if t.arm == arm]
        replies = [reply for talk in fluency.all_parts(played, tools) for reply in talk]
        found[arm] = {part: sum(reply[part] for reply in replies) / len(replies) for part in replies[0]}
    return found
