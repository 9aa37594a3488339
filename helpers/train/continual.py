"""On line: new conversations are learned on top of the current adapter, which stays until the new one has passed.

In: conversations that are anonymised and consented to, a gate. Out: a candidate, trained from the current adapter with
replay of earlier lessons, and the gate's verdict. `current.json` alone says which adapter is current. It is replaced in
one atomic write, so whatever is interrupted, one whole adapter is current.
"""

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from helpers.base_model import BaseModel
from helpers.conversations import Conversation
from helpers.data.anonymise import second_look
from helpers.data.consent import require_consents
from helpers.files import locked, sha256_json, whole_folder, write_atomically
from helpers.persona import PersonaCard
from helpers.records import Mismatch, artifact_sha256
from helpers.settings import Settings
from helpers.supervision import Row, supervise_all
from helpers.train import stages

CURRENT = "current.json"
GIVEN = "given"  # begins the name of a version that was trained elsewhere
VERDICT = "verdict.json"


class NotAnonymised(ValueError):
    """A conversation still holds what the anonymiser finds."""


class NoAdapter(FileNotFoundError):
    """There is no adapter to go on from, or to go back to."""


class Busy(RuntimeError):
    """Another process trains in this folder, or has changed the current adapter meanwhile."""


@dataclass(frozen=True)
class Verdict:
    """What a gate says of a candidate, and why."""

    passed: bool
    reasons: Sequence[str] = ()


Gate = Callable[[Path, Path], Verdict]
"""Compares the folders of two adapters, candidate and current."""


@dataclass(frozen=True)
class Outcome:
    """The candidate's folder, what the gate said of it, and the adapter that is current now."""

    candidate: Path
    verdict: Verdict
    current: Path


def begin(folder: Path, adapter: Path) -> Path:
    """Make a copy of a trained adapter the current one in `folder`, with none before it. Returns the copy."""
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / ".lock"):
        version, digest = _copy(folder, adapter, "start")
        _write(folder, {"version": version.name, "sha256": digest, "before": []})
    return version / "adapter"


def current_adapter(folder: Path) -> Path:
    """The adapter that is current in `folder`.

    Raises:
        NoAdapter: `begin` was never called.
        Mismatch: it is not what it was when it became current.
    """
    return _adapter(folder, _read(folder))


def exchanges(conversation: Conversation) -> list[str]:
    """A hash of each exchange: of the user's words and her reply alone, so that it is the same whatever else she is
    told, and however the talk goes on."""
    said = [message.content for message in conversation.messages]
    return [sha256_json(exchange) for exchange in zip(said[::2], said[1::2], strict=True)]


def learned_exchanges(folder: Path) -> list[list[str]]:
    """The `exchanges` that were new to the current adapter, to the one before it, and so on to the first: what the
    current one has learned, so none of those before an adapter that was trained elsewhere, which never saw them. Of a
    version whose record knew them by other hashes, none."""
    state = _read(folder)
    learned, elsewhere = [], False
    for version in (state["version"], *(entry["version"] for entry in reversed(state["before"]))):
        elsewhere |= version.startswith(GIVEN)
        record = folder / version / stages.RECORD
        seen = not elsewhere and record.exists()
        learned.append(json.loads(record.read_text(encoding="utf-8")).get("new_exchanges", []) if seen else [])
    return learned


def roll_back(folder: Path) -> Path:
    """Make the adapter before the current one current again, and return it.

    Raises:
        NoAdapter: there is none before it.
        Mismatch: it is not what it was.
    """
    with locked(folder / ".lock"):
        state = _read(folder)
        if not state["before"]:
            raise NoAdapter(f"{state['version']} is the first adapter of {folder.name}: there is none to go back to.")
        before = {**state["before"][-1], "before": state["before"][:-1]}
        adapter = _adapter(folder, before)
        _write(folder, before)
    return adapter


def promote(candidate: Path, folder: Path, gate: Gate) -> Outcome:
    """Make a copy of `candidate`, an adapter trained elsewhere, the current one in `folder`, if `gate` lets it pass.

    Raises:
        NoAdapter, Mismatch: see `current_adapter`.
        Busy: another call is at work in `folder`, or has changed the current adapter meanwhile.
    """
    state = _read(folder)
    current = _adapter(folder, state)
    with _training(folder):
        version, digest = _copy(folder, candidate, GIVEN)
        _prune(folder, state, version)
        verdict = gate(version / "adapter", current)
        _close(folder, state, version, digest, verdict)
    return Outcome(version / "adapter", verdict, current_adapter(folder))


def continue_training(
    conversations: Sequence[Conversation],
    *,
    folder: Path,
    consents: Path,
    base: BaseModel,
    tokenizer: PreTrainedTokenizerBase,
    card: PersonaCard,
    settings: Settings,
    gate: Gate,
    earlier: Sequence[stages.Lesson] = (),
    replay: float = 0.0,
) -> Outcome:
    """Train a candidate from the current adapter, and make it current if `gate` lets it pass.

    An interrupted call is repeated: it goes on from its last checkpoint, and what the current adapter has learned
    last is not learned again. Of five or more conversations each fifth is held out, for `patience`.

    Args:
        consents: the folder with `consents.jsonl`, in which each conversation's source is recorded.
        earlier: lessons whose rows are replayed, so that they make up `replay` of all rows.

    Raises:
        NoConsent: see `consent.require_consents`.
        NotAnonymised: the anonymiser still finds something.
        NoAdapter, Mismatch: see `current_adapter`.
        Busy: another call is at work in `folder`, or has changed the current adapter meanwhile, as `roll_back` and
            `begin` do.
    """
    sources = require_consents(conversations, consents)
    require_anonymised(conversations, card)
    state = _read(folder)
    current = _adapter(folder, state)
    rows = supervise_all(tokenizer, conversations, card)
    if (done := _last_learned(folder, state, rows)) is not None:
        return done
    held_out = rows[::5] if len(rows) >= 5 else rows
    new = [row for i, row in enumerate(rows) if i % 5] if len(rows) >= 5 else rows
    mixed, replayed = stages.mix(new, earlier, replay, settings.seed)
    key = {
        "started_from": {"version": state["version"], "adapter_sha256": state["sha256"]},
        "base_sha256": base.sha256,
        "chat_template_sha256": sha256_json(tokenizer.chat_template),
        "data_sha256": stages.rows_sha256([*mixed, *held_out]),
        "settings": stages.what_trains(settings),
    }
    version = folder / f"learned_{sha256_json(key)[:12]}"
    with _training(folder):
        _prune(folder, state, version)
        candidate = stages.finished(version, key)
        if candidate is None:
            policy = stages.with_adapter(None, base, current, settings)
            steps = stages.teach(policy, tokenizer, mixed, held_out, settings, version)
            learned = {"rows": len(mixed), "replayed": dict(replayed), "steps": steps, "sources": sources}
            learned["new_sha256"] = stages.rows_sha256(rows)
            learned["new_exchanges"] = [one for talk in conversations for one in exchanges(talk)]
            candidate = stages.close(version, version.name, key, learned)
            del policy  # the gate serves both adapters by vLLM, for which a GPU has no room beside it
        verdict = gate(candidate.adapter, current)
        _close(folder, state, version, candidate.record["adapter_sha256"], verdict)
    return Outcome(candidate.adapter, verdict, current_adapter(folder))


def require_anonymised(conversations: Sequence[Conversation], card: PersonaCard) -> None:
    """The sentence says what kind of detail is where, not the detail.

    Raises:
        NotAnonymised: the anonymiser finds something in a turn, a memory, a topic or a system prompt.
    """
    for conversation in conversations:
        if found := second_look(conversation, keep={card.name}):
            raise NotAnonymised(
                f"Conversation {conversation.id!r} still holds a {found}: pass it through `anonymise_conversation`, "
                "and take details out of its memories."
            )


def _copy(folder: Path, adapter: Path, kind: str) -> tuple[Path, str]:
    """Its version's folder in `folder`, and the hash of its content."""
    digest = artifact_sha256(adapter)
    version = folder / f"{kind}_{digest[:12]}"
    if not (version / "adapter").is_dir() or artifact_sha256(version / "adapter") != digest:
        with whole_folder(version / "adapter") as part:
            shutil.copytree(adapter, part, dirs_exist_ok=True)
    return version, digest


def _close(folder: Path, state: dict, version: Path, sha256: str, verdict: Verdict) -> None:
    write_atomically(version / VERDICT, json.dumps(asdict(verdict), indent=1, ensure_ascii=False))
    if verdict.passed:
        _switch(folder, state, {"version": version.name, "sha256": sha256})


def _adapter(folder: Path, state: dict) -> Path:
    adapter = folder / state["version"] / "adapter"
    if not adapter.is_dir() or artifact_sha256(adapter) != state["sha256"]:
        raise Mismatch(
            f"{state['version']} in {folder.name} is not what it was when it became current (changed or deleted): "
            "`roll_back` to the one before, or `begin` with another."
        )
    return adapter


def _last_learned(folder: Path, state: dict, rows: Sequence[Row]) -> Outcome | None:
    version = folder / state["version"]
    if not (version / stages.RECORD).exists():
        return None
    record, verdict = (json.loads((version / name).read_text(encoding="utf-8")) for name in (stages.RECORD, VERDICT))
    if record["new_sha256"] != stages.rows_sha256(rows):
        return None
    return Outcome(version / "adapter", Verdict(**verdict), version / "adapter")


def _switch(folder: Path, expected: dict, new: dict) -> None:
    with _unchanged(folder, expected):
        before = [*expected["before"], {"version": expected["version"], "sha256": expected["sha256"]}]
        if new["version"] != expected["version"]:
            _write(folder, {**new, "before": before})


def _prune(folder: Path, state: dict, version: Path) -> None:
    """Delete candidates that never became current, and adapters that were rolled back."""
    kept = {version.name, state["version"], *(entry["version"] for entry in state["before"])}
    with _unchanged(folder, state):
        for other in folder.iterdir():
            if other.is_dir() and other.name not in kept:
                shutil.rmtree(other)


def _training(folder: Path) -> AbstractContextManager[None]:
    return locked(folder / ".training", Busy(f"Another process trains in {folder.name}: wait for it."))


@contextmanager
def _unchanged(folder: Path, expected: dict) -> Iterator[None]:
    """No other adapter has become current than `expected` says, and none becomes so meanwhile.

    Raises:
        Busy: one has.
    """
    with locked(folder / ".lock"):
        state = _read(folder)
        if state != expected:
            raise Busy(
                f"{state['version']} became current in {folder.name} meanwhile, in place of {expected['version']}: "
                "call this again, to start from it."
            )
        yield


def _read(folder: Path) -> dict:
    if not (folder / CURRENT).exists():
        raise NoAdapter(f"No adapter is current in {folder.name}: `begin` with a trained one.")
    return json.loads((folder / CURRENT).read_text(encoding="utf-8"))


def _write(folder: Path, state: dict) -> None:
    write_atomically(folder / CURRENT, json.dumps(state, indent=1))
