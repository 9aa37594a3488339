"""What was said: replies with a major, the worst replies, and one scenario side by side.

In: transcripts, rows, majors. Out: rows of tables. ✂ marks a reply that was cut at the limit, ⏎ a line break. A reply
that gives personal data away is not repeated where majors are known.
"""

from collections.abc import Iterable, Mapping, Sequence

from helpers.evaluate.arms import Transcript
from helpers.evaluate.majors import PERSONAL, Violation
from helpers.evaluate.metrics import Row
from helpers.evaluate.scenarios import Scenario
from helpers.replies import Reply

WORST_OF_AN_ARM = 5
DIFFERS = "(not the same to all)"
MAJOR_COLUMNS = ["arm", "major", "scenario", "sample", "turn", "user", "reply", "by which words"]
WORST_COLUMNS = ["arm", "scenario", "turn", "user", "reply", "majors", "persona", "broken"]

_Where = tuple[str, str, int, int]  # arm, unit, sample, turn


def with_majors(majors: Iterable[Violation], transcripts: Mapping[str, Sequence[Transcript]]) -> list[list[str]]:
    """One row a major, as `MAJOR_COLUMNS` names them."""
    majors = list(majors)
    said, hidden = _replies(transcripts), _hidden(majors)
    rows = []
    for v in majors:
        user, reply = said[where := (v.arm, v.unit, v.sample, v.turn)]
        words = _shown(reply, where, hidden)
        rows.append([v.arm, v.major, v.unit, str(v.sample), str(v.turn + 1), user, words, v.evidence])
    return rows


def worst_replies(
    rows: Sequence[Row],
    transcripts: Mapping[str, Sequence[Transcript]],
    majors: Sequence[Violation] = (),
    per_arm: int = WORST_OF_AN_ARM,
) -> list[list[str]]:
    """The `per_arm` worst replies of each arm, as `WORST_COLUMNS` names them: first those with a major, then those that
    keep the fewest rules, of them the least fluent."""
    judged = {(r.arm, r.unit, r.sample, r.turn): r for r in rows if "persona" in r.values}
    failed: dict[_Where, list[str]] = {}
    for v in majors:
        failed.setdefault((v.arm, v.unit, v.sample, v.turn), []).append(v.major)
    said, hidden = _replies(transcripts), _hidden(majors)

    def badness(where: _Where) -> tuple:
        values = judged[where].values if where in judged else {}
        return where not in failed, values.get("persona", 0.0), values.get("fluency", 0.0)

    taken: dict[str, int] = {}
    worst = []
    for where in sorted((place for place in said if place in judged or place in failed), key=badness):
        arm, unit, _, turn = where
        taken[arm] = taken.get(arm, 0) + 1
        if taken[arm] <= per_arm:
            user, reply = said[where]
            row = judged.get(where)
            score = [f"{row.values['persona']:.2f}", ", ".join(row.broken)] if row else ["–", ""]
            found = ", ".join(failed.get(where, ()))
            worst.append([arm, unit, str(turn + 1), user, _shown(reply, where, hidden), found, *score])
    return worst


def side_by_side(
    transcripts: Mapping[str, Sequence[Transcript]], scenario: Scenario, majors: Sequence[Violation] = ()
) -> tuple[list[str], list[list[str]]]:
    """(columns, rows) of one scenario: a row a user turn, a column an arm; the first sample of each arm. A turn that a
    simulated user did not say alike to all stands before each arm's own reply."""
    hidden = _hidden(majors)
    played = {arm: next(t for t in ts if t.unit == scenario.id and t.sample == 0) for arm, ts in transcripts.items()}
    rows = []
    for i in range(len(scenario.user_turns)):
        said = [t.user_turns[i] for t in played.values()]
        replies = [_shown(t.replies[i], (t.arm, t.unit, t.sample, i), hidden) for t in played.values()]
        if len(set(said)) == 1:
            rows.append([said[0], *replies])
        else:
            rows.append([DIFFERS, *(f"{turn} → {reply}" for turn, reply in zip(said, replies, strict=True))])
    return ["user", *played], rows


def _replies(transcripts: Mapping[str, Sequence[Transcript]]) -> dict[_Where, tuple[str, Reply]]:
    """Where a reply is → what the user said, and the reply."""
    return {
        (t.arm, t.unit, t.sample, turn): (t.user_turns[turn], reply)
        for played in transcripts.values()
        for t in played
        for turn, reply in enumerate(t.replies)
    }


def _hidden(majors: Iterable[Violation]) -> dict[_Where, str]:
    return {(v.arm, v.unit, v.sample, v.turn): v.evidence for v in majors if v.major == PERSONAL}


def _shown(reply: Reply, where: _Where, hidden: Mapping[_Where, str]) -> str:
    if where in hidden:
        return f"(not repeated: {hidden[where]})"
    # A base model can answer with line breaks alone, and would fill the page with them.
    return reply.text.replace("\n", "⏎") + ("" if reply.stopped else " ✂")
