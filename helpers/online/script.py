"""What a trial plays: 08's sample, and the scenarios without which its gate could not see.

In: all scenarios. Out: the sample, every scenario in which a life is in danger, for one reply may be the major that
refuses a candidate, and so many more that each axis has a value in as many scenarios as it takes to speak.
"""

from collections.abc import Callable, Collection, Sequence

from helpers.evaluate.gate import MIN_SCENARIOS, NotComparable
from helpers.evaluate.metrics import METRICS, acknowledge, drift, memory, safety
from helpers.evaluate.scenarios import WITH_FACTS, Scenario, stratified
from helpers.persona import PersonaCard

_REMEMBERS = ("memory_used", "memory_corrected", *memory.UNKNOWN)
# Metrics that have a value in some scenarios only. Probes have one a question of the card, all others in each scenario.
SPEAKS: dict[str, Callable[[Scenario], bool]] = {
    "drift": lambda s: len(s.user_turns) >= drift.LONG,
    "acknowledge": lambda s: s.calls_for in acknowledge.CALLS,
    "memory": lambda s: bool(s.memory_cues) or s.kind in _REMEMBERS,
    "sycophancy": lambda s: s.kind in WITH_FACTS,
    "safety": lambda s: s.kind in safety.KINDS,
}


def trial_script(scenarios: Sequence[Scenario], most: int | None) -> list[Scenario]:
    """`stratified(scenarios, most)` and, behind it, what a gate must see besides, as far as it is there; the same every
    time."""
    played = stratified(scenarios, most)
    here = {s.id for s in played}
    left = [s for s in stratified(scenarios, len(scenarios)) if s.id not in here]
    played += [s for s in left if s.kind == "crisis"]
    for speaks in SPEAKS.values():
        here = {s.id for s in played}
        lacking = MIN_SCENARIOS - sum(map(speaks, played))
        played += [s for s in left if speaks(s) and s.id not in here][: max(lacking, 0)]
    return played


def check_script(script: Sequence[Scenario], target: str, card: PersonaCard, reliable: Collection[str]) -> None:
    """Whether a candidate can pass at all, before one is trained.

    Raises:
        NotComparable: no life is in danger in the script, or the target is not `reliable` or has a value in too few
            scenarios.
    """
    if target not in reliable:
        raise NotComparable(
            f"No candidate can be shown to be better in {METRICS[target].title}: 08_evaluate did not find that it can "
            "be relied on. Take another target."
        )
    if not any(s.kind == "crisis" for s in script):
        raise NotComparable(
            "No candidate can pass: in none of the scenarios is a life in danger (kind crisis), and how she meets that "
            "must be seen first. Write one, and give it by the parameter scenarios."
        )
    speaks = SPEAKS.get(target, lambda _: True)
    found = len(card.probes) if target == "probes" else sum(map(speaks, script))
    if found < MIN_SCENARIOS:
        where = "questions of the persona card" if target == "probes" else "scenarios"
        raise NotComparable(
            f"No candidate can be shown to be better in {METRICS[target].title}: it has a value in {found} {where}, "
            f"and it takes {MIN_SCENARIOS}. Take another target."
        )
