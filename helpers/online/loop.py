"""One turn of learning on line: from the chats that were handed over, or from an adapter that was trained elsewhere, to
an adapter that is current, or a refusal.

In: a finished run of the course, the bot's exports. Out: a `Result` in a sentence. Everything is kept below
`<run>/online`: `adapters` (see `helpers.train.continual`), `transcripts`, `decisions`, `logs`. Repeated after an
interruption it goes on where it was. A talk is learned once: it is known by its exchanges, whatever was forgotten since
or said after them, and one of which more than half are known is not new. One that was not learned, because a candidate
was refused, is tried once more, together with as many later ones as a candidate takes, and then set aside, so that what
spoils a candidate does not spoil each one after it. One that was learned by an adapter that was rolled back is not
tried again. What was written when talks were known by their tokens is read and knows none: they are learned once more.
"""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from transformers import PreTrainedTokenizerBase

from helpers import records, settings
from helpers.base_model import BaseModel, resolve_base_model
from helpers.conversations import Conversation, read_conversations
from helpers.evaluate.arms import Ask, Evaluation
from helpers.evaluate.metrics.metric import Tools, optional_models
from helpers.evaluate.metrics.readers import LEARNED, teach
from helpers.evaluate.scenarios import Scenario, read_scenarios
from helpers.files import remove, sha256_json, write_atomically
from helpers.online.intake import take_in
from helpers.online.script import check_script, trial_script
from helpers.online.trial import Serve, Trial
from helpers.persona import PersonaCard, load_persona
from helpers.serve import on_line
from helpers.serve.client import ChatClient
from helpers.serve.on_line import ONLINE
from helpers.serve.server import SIZES, VLLMServer
from helpers.settings import Settings
from helpers.supervision import supervise_all
from helpers.train import continual
from helpers.train.stages import Lesson

TARGET = "persona"
AT_LEAST = 20  # new talks
TRIES = 2  # refused candidates that a talk may have been new to
SERVED = "and served at once where `helpers.serve.trained` serves her with an adapter, elsewhere from the next start on"
ROLLED_BACK = "rolled_back.json"
REFUSED = "refused.json"  # candidate → the exchanges of the talks that were new to it
# What 08 finds out with which metrics can be relied on; the readers among them are taught on what is LEARNED.
VALIDATED = ("contrast", "fluency_model", "emotion_model", *LEARNED, "persona")


@dataclass(frozen=True)
class Result:
    """What happened, in a sentence. "waiting": too few new talks, nothing was done."""

    status: Literal["promoted", "waiting", "refused"]
    sentence: str


@dataclass(frozen=True)
class Course:
    """What a finished run of the course gives to the loop; `start` is the adapter that is merged and served there."""

    run: Path
    base: BaseModel
    tokenizer: PreTrainedTokenizerBase
    card: PersonaCard
    training: Settings
    testing: Settings
    start: Path
    lessons: Sequence[Conversation]
    reliable: Sequence[str]

    @property
    def folder(self) -> Path:
        return self.run / "online"

    @property
    def adapters(self) -> Path:
        return self.run / ONLINE

    def scenarios(self) -> list[Scenario]:
        """All of 08's file; not a turn of any of them may be learned."""
        return read_scenarios(self.testing.path("scenarios"), self.card).scenarios

    def script(self) -> list[Scenario]:
        """Those that 08 plays, and what the gate must see besides."""
        return trial_script(self.scenarios(), self.testing.max_scenarios)


def read_course(run: Path, given: Mapping[str, object]) -> Course:
    """A finished run. `given` are parameters of 03 and 08 that are to differ from those that it was run with.

    Raises:
        MissingStage, Mismatch: a stage was not run, or is not what its record says; or `given` has another persona
            than the run was made for, or other metrics than those of which 08 has found out whether they can be relied
            on.
        UnknownParameter, BadValue: see `settings`.
    """
    known = settings.parameters_of("03_lora") | settings.parameters_of("08_evaluate")
    settings.check_parameters(given, known, "Learning on line")
    data, merge, evaluated = (records.load(run, s) for s in ("02_augment", "06_merge_quantize", "08_evaluate"))
    recorded = records.load(run, "03_lora").record
    training = settings.resolve("03_lora", recorded["settings"] | _of("03_lora", given))
    testing = settings.resolve("08_evaluate", evaluated.record["settings"] | _of("08_evaluate", given))
    for cfg in (training, testing):
        records.require_persona(run, cfg.persona)
    _check_validated(testing, settings.resolve("08_evaluate", evaluated.record["settings"]))
    base = resolve_base_model(training.base_model)
    if base.sha256 != recorded["base_sha256"]:
        raise records.Mismatch(f"Run {run.name!r} was trained on another {training.base_model!r} than is here now.")
    return Course(
        run,
        base,
        base.load_tokenizer(),
        load_persona(training.persona),
        training,
        testing,
        records.load(run, merge.record["settings"]["adapter"]).adapter,
        read_conversations(data / "train.jsonl").conversations,
        evaluated.record["metrics"]["reliable"],
    )


def _check_validated(now: Settings, then: Settings) -> None:
    for name in VALIDATED:
        here, there = getattr(now, name), getattr(then, name)
        if here != there:
            raise records.Mismatch(
                f"Which metrics can be relied on, 08_evaluate of run {then.run.name!r} found out with {name}={there}, "
                f"not with {name}={here}: leave it as it was, or run 08_evaluate with {name}={here} first."
            )


def _of(stage: str, given: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in given.items() if name in settings.parameters_of(stage)}


def learn(course: Course, exports: Path, serve: Serve, target: str = TARGET, at_least: int = AT_LEAST) -> Result:
    """Learn from the new talks in `exports`, if `at_least` so many of them were in no refused candidate yet, and make
    what came of it current if it passes the gate.

    Raises:
        FileNotFoundError: there is no such folder.
        NoConsent, NotAnonymised, Mismatch, Busy: see `continual.continue_training`, `on_line.learned_on_line`.
        NotComparable: see `check_script`, `gate.decide`.
    """
    if not exports.is_dir():
        raise FileNotFoundError(
            f"There is no folder {exports}: the bot makes it when a user hands chats over (/export)."
        )
    _begun(course)
    batch = take_in(exports, course.card, course.scenarios())
    talks = _each_once(batch.conversations)
    learned = {one for version in continual.learned_exchanges(course.adapters) for one in version}
    left = learned.union(_kept(course.folder / ROLLED_BACK, []))
    unlearned = [talk for talk in talks if not _knows(left, talk)]
    refused = _kept(course.folder / REFUSED, {})
    new = [talk for talk in unlearned if _tries(refused, talk) < TRIES]
    again = sum(_tries(refused, talk) > 0 for talk in new)
    if len(new) - again < at_least:
        status = "refused" if batch.refused and not batch.conversations else "waiting"
        waiting = f", and {again} of a refused candidate wait for them" if again else ""
        said = f"Nothing was learned: {len(new) - again} talks are new, it takes {at_least}{waiting}. {batch.sentence}"
        return Result(status, said + _set_aside(course, unlearned, refused))
    earlier = {"course": course.lessons, "online": [talk for talk in talks if _knows(learned, talk)]}
    outcome = continual.continue_training(
        new,
        folder=course.adapters,
        consents=exports,
        base=course.base,
        tokenizer=course.tokenizer,
        card=course.card,
        settings=course.training,
        gate=_trial(course, serve, target),
        earlier=[
            Lesson(name, supervise_all(course.tokenizer, talks, course.card), ()) for name, talks in earlier.items()
        ],
        replay=course.training.replay,
    )
    name, why = f"{outcome.candidate.parent.name}, of {len(new)} new talks,", " ".join(outcome.verdict.reasons)
    if outcome.verdict.passed:
        status, what = "promoted", f"is current, {SERVED}"
    else:
        status, what = "refused", f"was refused, and {outcome.current.parent.name} stays current"
        refused |= {outcome.candidate.parent.name: [one for talk in new for one in continual.exchanges(talk)]}
        write_atomically(course.folder / REFUSED, json.dumps(refused))
    return Result(status, f"{name} {what}: {why} {batch.sentence}{_set_aside(course, unlearned, refused)}")


def _knows(known: Collection[str], talk: Conversation) -> bool:
    """Whether more than half of the exchanges of `talk` are `known`."""
    said = continual.exchanges(talk)
    return 2 * sum(one in known for one in said) > len(said)


def _each_once(talks: Sequence[Conversation]) -> list[Conversation]:
    """Without those that say what others before them have said."""
    said: set[str] = set()
    kept = []
    for talk in talks:
        if not _knows(said, talk):
            kept.append(talk)
            said.update(continual.exchanges(talk))
    return kept


def _tries(refused: Mapping[str, Sequence[str]], talk: Conversation) -> int:
    """To how many refused candidates it was new."""
    return sum(_knows(said, talk) for said in refused.values())


def _set_aside(course: Course, talks: Sequence[Conversation], refused: Mapping[str, Sequence[str]]) -> str:
    aside = [talk for talk in talks if _tries(refused, talk) >= TRIES]
    if not aside:
        return ""
    whose = ", ".join(sorted({talk.metadata.source for talk in aside}))
    return (
        f" {len(aside)} talks ({whose}) are set aside, for {TRIES} candidates that had learned them were refused: they "
        f"are tried again once {course.run.name}/{ONLINE.parent / REFUSED} is deleted."
    )


def promote(course: Course, trained: records.Artifacts, serve: Serve, target: str = TARGET) -> Result:
    """Put the adapter of a finished training stage, of this run or another, on trial against the current one, and make
    it current if it passes the gate.

    Raises:
        MissingStage: the stage left no adapter.
        Mismatch: it was trained on another base model, with another chat template or for another persona, or see
            `on_line.learned_on_line`.
        Busy, NotComparable: see `continual.promote`, `check_script`, `gate.decide`.
    """
    own = {
        "base_sha256": course.base.sha256,
        "chat_template_sha256": sha256_json(course.tokenizer.chat_template),
        "persona": settings.persona_name(course.training.persona),
    }
    for note, what in records.SHARED.items():
        if trained.record[note] != own[note]:
            raise records.Mismatch(f"{trained.folder.name} was trained with another {what} than is served in this run.")
    _begun(course)
    outcome = continual.promote(trained.adapter, course.adapters, _trial(course, serve, target))
    name, stays, why = trained.folder.name, outcome.current.parent.name, " ".join(outcome.verdict.reasons)
    if not outcome.verdict.passed:
        return Result("refused", f"The adapter of {name} was refused, and {stays} stays current: {why}")
    return Result("promoted", f"The adapter of {name} is current, {SERVED}: {why}")


def roll_back(run: Path) -> Result:
    """Make the adapter before the current one current again. What the current one had learned is not learned again.

    Raises:
        NoAdapter: there is none before it.
        Mismatch: it is not what it was.
    """
    folder = run / ONLINE
    newest, *earlier = continual.learned_exchanges(folder)
    if earlier:
        known = _kept(folder.parent / ROLLED_BACK, [])
        write_atomically(folder.parent / ROLLED_BACK, json.dumps([*known, *newest]))
    adapter = continual.roll_back(folder)
    return Result("promoted", f"{adapter.parent.name} is current again, {SERVED}.")


def _begun(course: Course) -> None:
    if on_line.learned_on_line(course.run) is None:
        remove(course.folder / REFUSED)  # for what was refused had been learned on top of another adapter
        on_line.begin(course.run, course.start)


def _kept(file: Path, empty: list | dict) -> list | dict:
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else empty


def _trial(course: Course, serve: Serve, target: str) -> Trial:
    cfg, script = course.testing, course.script()
    check_script(script, target, course.card, course.reliable)
    evaluation = Evaluation(course.card, script, course.folder, cfg.samples, cfg.max_tokens, cfg.temperature, cfg.seed)
    models = optional_models(cfg.fluency_model, cfg.emotion_model, course.base.path)
    tools = Tools(course.card, teach(course.card, *(cfg.path(name) for name in LEARNED)), *models)
    decisions = course.folder / "decisions"
    return Trial(evaluation, tools, serve, target, course.reliable, cfg.bootstrap_draws, decisions)


def vllm(course: Course) -> Serve:
    """Serves the base with adapters by vLLM, on this machine."""

    @contextmanager
    def serve(adapters: Mapping[str, Path]) -> Iterator[Ask]:
        sizes = {size: getattr(course.testing, size) for size in SIZES}
        with VLLMServer(course.base.path, "base", course.folder / "logs", adapters=adapters, **sizes) as server:
            yield ChatClient(server.base_url, server.api_key, "base").reply

    return serve
