"""The trial of a candidate: it and the current adapter play the same scenarios, and the gate decides.

In: the folders of two adapters, and what both are played and measured with. Out: the `Verdict` that
`helpers.train.continual` switches by, and the whole decision as a record. An interrupted trial asks nothing twice.
"""

from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from helpers.evaluate.arms import Arm, Ask, Evaluation
from helpers.evaluate.gate import decide
from helpers.evaluate.majors import find_majors
from helpers.evaluate.metrics import score
from helpers.evaluate.metrics.metric import Tools
from helpers.records import artifact_sha256
from helpers.train.continual import Verdict

Serve = Callable[[Mapping[str, Path]], AbstractContextManager[Ask]]
"""Serves adapters under names, for as long as the context is open."""


@dataclass(frozen=True)
class Trial:
    """A gate as `continue_training` takes it.

    Attributes:
        target: the metric on which a candidate must be better.
        reliable: the metrics that can refuse one.
        draws: resamples for the intervals.
        decisions: the folder of records, `<candidate's folder>.json` each.
    """

    evaluation: Evaluation
    tools: Tools
    serve: Serve
    target: str
    reliable: Collection[str]
    draws: int
    decisions: Path

    def __call__(self, candidate: Path, current: Path) -> Verdict:
        """Whether the adapter in `candidate` may take the place of that in `current`.

        Raises:
            NotComparable: see `decide`.
        """
        folders = {adapter.parent.name: adapter for adapter in (current, candidate)}
        arms = [Arm(name, name, "persona", artifact_sha256(adapter)) for name, adapter in folders.items()]
        if not all(self.evaluation.complete(arm) for arm in arms):
            with self.serve(folders) as ask:
                self.evaluation.play(arms, ask)
        played = [transcript for arm in arms for transcript in self.evaluation.load(arm)]
        decision = decide(
            score(played, self.evaluation.scenarios, self.tools),
            self.evaluation.scenarios,
            candidate.parent.name,
            current.parent.name,
            self.target,
            find_majors(played, self.evaluation.scenarios),
            self.reliable,
            self.draws,
            self.evaluation.seed,
        )
        decision.write(self.decisions / f"{candidate.parent.name}.json")
        return Verdict(decision.passed, decision.reasons)
