"""Training in stages: general role-play, then this character, then this user, each from the adapter before it.

In: a base model and lessons in order. Out: for each stage a folder with its adapter and a record of what it started
from, and the loss on the held-out dialogues of every lesson: what the stage gained and what it forgot. A share of the
rows of earlier lessons in each later one (replay; Rolnick et al., 2019, arXiv:1811.11682) limits the forgetting.
"""

import copy
import json
import logging
import random
import shutil
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model, set_peft_model_state_dict
from safetensors.torch import load_file
from transformers import PreTrainedTokenizerBase

from helpers.base_model import BaseModel
from helpers.conversations import Conversation, read_conversations
from helpers.data.split import split_dialogues
from helpers.files import sha256_json, whole_folder, write_atomically
from helpers.persona import PersonaCard, load_persona
from helpers.quiet import hide_gptqmodel
from helpers.records import artifact_sha256
from helpers.settings import BadValue, Settings
from helpers.supervision import Row, supervise_all
from helpers.train import checkpoints, sft
from helpers.train.out_of_memory import explain_one_row, in_one_sentence

RECORD = "stage.json"
UNTRAINED = "base"
# Of 03's own training: which rows, at what rate, by what. The rows are hashed, the rate is `stage_learning_rate`.
_OF_THE_FIRST = ("profile", "max_rows", "learning_rate", "method")
logger = logging.getLogger("helpers.train")


@dataclass(frozen=True)
class Lesson:
    """What one stage teaches: rows to train on, and rows of the same kind that are held out."""

    name: str
    train: Sequence[Row]
    held_out: Sequence[Row]


@dataclass(frozen=True)
class Taught:
    """A finished stage: its folder, in which `adapter` is, and its record."""

    folder: Path
    record: dict

    @property
    def adapter(self) -> Path:
        return self.folder / "adapter"

    @property
    def losses(self) -> dict[str, float]:
        """Nats per learned token on each lesson's held-out rows, after this stage."""
        return self.record["losses"]


class Stages:
    """Runs sequences of stages in `folder`, all on one base model, which is loaded when the first stage needs it.

    A stage's folder is named after a hash of all that its adapter depends on, the adapter before it included. So an
    unchanged stage is not run again, two sequences share the stages in which they agree, and an interrupted stage goes
    on from its own checkpoints.

    Attributes:
        policy: the model that was trained last; None if nothing had to be.
    """

    def __init__(
        self, base: BaseModel, tokenizer: PreTrainedTokenizerBase, lora: LoraConfig, settings: Settings, folder: Path
    ):
        self._base, self._tokenizer, self._settings = base, tokenizer, settings
        self._lora = copy.deepcopy(lora)  # peft writes into the one that it is given
        self._folder = folder
        self.policy: PeftModel | None = None
        self._used: set[Path] = set()

    def run(self, lessons: Sequence[Lesson], replay: float) -> list[Taught]:
        """The untrained adapter, and then what was taught by each lesson in turn.

        Args:
            replay: the share of rows from earlier lessons among the rows of each stage but the first, 0 to less than 1.
        """
        done = [self._untrained(lessons)]
        for number, lesson in enumerate(lessons, start=1):
            rows, replayed = mix(lesson.train, lessons[: number - 1], replay, self._settings.seed)
            done.append(self._stage(number, lesson, rows, replayed, done[-1], lessons))
        return done

    def prune(self) -> None:
        """Delete the stages in the folder that no `run()` of this object has used."""
        for folder in self._folder.glob("*"):
            if folder.is_dir() and folder not in self._used:
                shutil.rmtree(folder)

    def _untrained(self, lessons: Sequence[Lesson]) -> Taught:
        key = {
            "base_sha256": self._base.sha256,
            "chat_template_sha256": sha256_json(self._tokenizer.chat_template),
            "dtype": str(self._settings.hardware.dtype),
            "lora": {k: str(sorted(v) if isinstance(v, set) else v) for k, v in self._lora.to_dict().items()},
            "seed": self._settings.seed,
            "held_out_sha256": {lesson.name: rows_sha256(lesson.held_out) for lesson in lessons},
        }
        folder = self._open(0, UNTRAINED, key)
        if (found := finished(folder, key)) is None:
            hide_gptqmodel()
            model = sft.load_base(self._base, self._settings)
            torch.manual_seed(self._settings.seed)
            self.policy = get_peft_model(model, copy.deepcopy(self._lora))
            save_adapter(self.policy, folder / "adapter")
            found = self._close(folder, UNTRAINED, key, lessons, {})
        return found

    def _stage(
        self,
        number: int,
        lesson: Lesson,
        rows: Sequence[Row],
        replayed: Mapping[str, int],
        before: Taught,
        lessons: Sequence[Lesson],
    ) -> Taught:
        key = {
            "started_from": {"folder": before.folder.name, "adapter_sha256": before.record["adapter_sha256"]},
            "data_sha256": rows_sha256(rows),
            "settings": what_trains(self._settings),
        }
        folder = self._open(number, lesson.name, key)
        if (found := finished(folder, key)) is None:
            began = time.monotonic()
            self.policy = with_adapter(self.policy, self._base, before.adapter, self._settings)
            steps = teach(self.policy, self._tokenizer, rows, lesson.held_out, self._settings, folder)
            done = {"rows": len(rows), "replayed": dict(replayed), "steps": steps}
            found = self._close(
                folder, lesson.name, key, lessons, done | {"seconds": round(time.monotonic() - began, 1)}
            )
        return found

    def _open(self, number: int, name: str, key: Mapping) -> Path:
        folder = self._folder / f"{number}_{name}_{sha256_json(key)[:12]}"
        self._used.add(folder)
        return folder

    def _close(self, folder: Path, name: str, key: Mapping, lessons: Sequence[Lesson], more: Mapping) -> Taught:
        longest = self._settings.max_length
        losses = {lesson.name: held_out_loss(self.policy, lesson.held_out, longest) for lesson in lessons}
        logger.info("%s: %s", name, ", ".join(f"{lesson} {loss:.3f}" for lesson, loss in losses.items()))
        return close(folder, name, key, {**more, "losses": losses})


def lesson(
    name: str,
    tokenizer: PreTrainedTokenizerBase,
    told: Sequence[tuple[PersonaCard, Sequence[Conversation]]],
    seed: int,
    most: int | None = None,
) -> Lesson:
    """A lesson of dialogues, each with the card of who speaks in it. One in seven is held out; with `most`, the so many
    shortest are trained on, and half as many of the shortest are held out.

    Raises:
        BadValue: too few dialogues to hold one out.
    """
    train, held_out = [], []
    for card, conversations in told:
        split = split_dialogues(conversations, 1 / 7, 0, seed)
        train += supervise_all(tokenizer, split.train, card)
        held_out += supervise_all(tokenizer, split.validation, card)
    if not train or not held_out:
        raise BadValue(
            f"The stage {name!r} has {len(train) + len(held_out)} dialogues, too few to hold one out: raise max_rows, "
            "or add dialogues."
        )
    if most is not None:
        train = sorted(train, key=lambda row: len(row.input_ids))[:most]
        held_out = sorted(held_out, key=lambda row: len(row.input_ids))[: max(1, most // 2)]
    return Lesson(name, train, held_out)


def other_personas(folder: Path, persona: str) -> list[tuple[PersonaCard, list[Conversation]]]:
    """The dialogues in each subfolder of `folder` that is named after another card than `persona`, with that card.

    Raises:
        FileNotFoundError: there is none.
    """
    names = sorted(path.name for path in folder.iterdir() if path.is_dir() and path.name != Path(persona).stem)
    if not names:
        raise FileNotFoundError(
            f"{folder} holds no folder of another persona's dialogues: general role-play needs at least one."
        )
    return [(load_persona(name), read_conversations(folder / name).conversations) for name in names]


def what_trains(settings: Settings) -> dict[str, object]:
    """The settings on which the weights of a stage depend."""
    found = checkpoints.what_trains(settings.values)
    kept = {name: value for name, value in found.items() if name not in _OF_THE_FIRST}
    return kept | {"stage_learning_rate": settings.stage_learning_rate}


def mix(rows: Sequence[Row], earlier: Sequence[Lesson], share: float, seed: int) -> tuple[list[Row], Counter]:
    """`rows`, and rows drawn from the lessons before in equal parts, so that these are `share` of all (or as many as
    there are), and how many came from each.

    Raises:
        BadValue: the share is not 0 or more and less than 1.
    """
    if not 0 <= share < 1:
        raise BadValue(
            f"replay is the share of earlier rows among a stage's rows, 0 or more and less than 1, not {share}."
        )
    pools = {}
    for lesson in earlier:
        pools[lesson.name] = list(lesson.train)
        random.Random(f"{seed}:{lesson.name}").shuffle(pools[lesson.name])
    mixed, drawn = list(rows), Counter()
    for _ in range(round(len(rows) * share / (1 - share))):
        left = [name for name, pool in pools.items() if pool]
        if left:
            name = min(left, key=lambda n: drawn[n])
            mixed.append(pools[name].pop())
            drawn[name] += 1
    return mixed, drawn


def with_adapter(policy: PeftModel | None, base: BaseModel, adapter: Path, settings: Settings) -> PeftModel:
    """`policy`, or if it is None the base loaded for it, with the trainable weights of `adapter` in it."""
    if policy is None:
        hide_gptqmodel()
        return PeftModel.from_pretrained(sft.load_base(base, settings), adapter, is_trainable=True)
    set_peft_model_state_dict(policy, load_file(adapter / "adapter_model.safetensors"))
    return policy


def teach(
    policy: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Row],
    held_out: Sequence[Row],
    settings: Settings,
    folder: Path,
) -> int:
    """Train the adapter of `policy` on `rows` at `settings.stage_learning_rate`, going on from the checkpoints in
    `folder` if there are some, and leave it in `folder/adapter`. Returns the number of steps.

    Raises:
        OutOfMemory: as `sft.run`, which `settings.on_out_of_memory` may have try smaller micro-batches.
    """
    settings = copy.copy(settings)
    settings.learning_rate = settings.stage_learning_rate
    trainer = sft.make_trainer(policy, tokenizer, rows, held_out, settings, folder / "checkpoints", None)
    sft.run(trainer, settings.hardware.device, retry=settings.on_out_of_memory == "retry")
    save_adapter(policy, folder / "adapter")
    return trainer.state.global_step


def save_adapter(policy: PeftModel, folder: Path) -> None:
    """The adapter of `policy`, whole or not at all. Its tokenizer is the base's."""
    with whole_folder(folder) as part:
        policy.save_pretrained(part, safe_serialization=True)


def finished(folder: Path, key: Mapping) -> Taught | None:
    """The stage in `folder`, if it was finished with the same `key` and its adapter is what it was."""
    if not (folder / RECORD).exists():
        return None
    record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    whole = (folder / "adapter").is_dir() and artifact_sha256(folder / "adapter") == record["adapter_sha256"]
    return Taught(folder, record) if whole and all(record[name] == value for name, value in key.items()) else None


def close(folder: Path, name: str, key: Mapping, more: Mapping) -> Taught:
    """Write the record of a stage whose adapter is in `folder`, and delete its checkpoints."""
    record = {"stage": name, **key, **more, "adapter_sha256": artifact_sha256(folder / "adapter")}
    write_atomically(folder / RECORD, json.dumps(record, indent=1, ensure_ascii=False))
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    return Taught(folder, record)


def rows_sha256(rows: Sequence[Row]) -> str:
    """Content hash of rows in their order."""
    return sha256_json([[row.input_ids, row.assistant_masks] for row in rows])


@torch.inference_mode()
def held_out_loss(model: PeftModel, rows: Sequence[Row], max_length: int) -> float:
    """Mean loss per learned token over the rows, each cut at `max_length` tokens, in nats.

    Raises:
        OutOfMemory: a row does not fit.
    """
    training = model.training
    model.eval()
    total = count = 0
    with in_one_sentence(lambda: explain_one_row("on the held-out dialogues", model.device.type)):
        for row in rows:
            ids = torch.tensor([row.input_ids[:max_length]], device=model.device)
            learned = torch.tensor([i for i, keep in enumerate(row.assistant_masks[:max_length]) if keep and i])
            learned = learned.to(model.device)
            logits = model(input_ids=ids, logits_to_keep=learned - 1).logits[0].float()
            total += float(torch.nn.functional.cross_entropy(logits, ids[0, learned], reduction="sum"))
            count += len(learned)
    model.train(training)
    return total / count


def forgotten(done: Sequence[Taught]) -> dict[str, float]:
    """For each lesson but the last: by how many nats its held-out loss is higher at the end than right after it."""
    return {
        stage.record["stage"]: done[-1].losses[stage.record["stage"]] - stage.losses[stage.record["stage"]]
        for stage in done[1:-1]
    }


def gained(done: Sequence[Taught]) -> dict[str, float]:
    """For each lesson: by how many nats its own stage lowered its held-out loss."""
    return {
        stage.record["stage"]: before.losses[stage.record["stage"]] - stage.losses[stage.record["stage"]]
        for before, stage in pairwise(done)
    }
