"""Experts: an adapter for each scene, that goes on from her own on the dialogues of its scene.

In: her adapter, and dialogues shared out by scene. Out: for each scene a folder with its adapter and a record, and the
loss on the held-out dialogues of every scene, before and after. A share of the other scenes' dialogues is mixed in
(replay), so that an expert does not forget the rest of her.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from shutil import rmtree

from peft import PeftModel
from transformers import PreTrainedTokenizerBase

from helpers import figures
from helpers.base_model import BaseModel
from helpers.conversations import Conversation
from helpers.data.scenes import SCENES, Scene, Talk, load_classifier
from helpers.files import sha256_json
from helpers.persona import PersonaCard
from helpers.records import artifact_sha256
from helpers.settings import BadValue, Settings
from helpers.supervision import supervise_all
from helpers.train import stages

SceneOf = Callable[[Conversation], Scene]


def scene_finder(talks: Sequence[Talk]) -> SceneOf:
    """Tells the scene of most of a dialogue's user turns: from what a person marked, where `talks` has the same turns,
    else from the classifier. Of scenes with as many turns the one that came last counts."""
    marked = {tuple(talk.said): [turn.scene for turn in talk.turns if turn.scene] for talk in talks}
    classifier = load_classifier()

    def scene_of(conversation: Conversation) -> Scene:
        said = [m.content for m in conversation.messages if m.role == "user"]
        scenes = marked.get(tuple(said)) or [
            j.scene for j in classifier.judge(said, conversation.metadata.affection_level)
        ]
        counts = Counter(scenes)
        return max(reversed(scenes), key=counts.__getitem__)

    return scene_of


def share_out(
    conversations: Sequence[Conversation], scene_of: SceneOf, most: int | None = None
) -> dict[Scene, list[Conversation]]:
    """The dialogues of each scene, in their order; with `most`, of each scene the so many with the fewest letters. No
    dialogue is read that is not needed for that."""
    shares: dict[Scene, list[Conversation]] = {scene: [] for scene in SCENES}
    order = conversations if most is None else sorted(conversations, key=_letters)
    for conversation in order:
        if most is not None and all(len(share) >= most for share in shares.values()):
            break
        share = shares[scene_of(conversation)]
        if most is None or len(share) < most:
            share.append(conversation)
    return shares


def scene_lessons(
    tokenizer: PreTrainedTokenizerBase,
    card: PersonaCard,
    train: Mapping[Scene, Sequence[Conversation]],
    held_out: Mapping[Scene, Sequence[Conversation]],
) -> list[stages.Lesson]:
    """A lesson for each scene that has dialogues on both sides. A scene without has no expert.

    Raises:
        BadValue: no scene has.
    """
    lessons = [
        stages.Lesson(
            scene, supervise_all(tokenizer, train[scene], card), supervise_all(tokenizer, held_out[scene], card)
        )
        for scene in SCENES
        if train[scene] and held_out[scene]
    ]
    if not lessons:
        raise BadValue(
            "No scene has dialogues both to train on and to hold out: add dialogues, or set expert_rows to 0."
        )
    return lessons


def train_experts(
    base: BaseModel,
    tokenizer: PreTrainedTokenizerBase,
    adapter: Path,
    lessons: Sequence[stages.Lesson],
    settings: Settings,
    folder: Path,
    replay: float,
    policy: PeftModel | None = None,
) -> dict[str, stages.Taught]:
    """For each lesson, in `folder`, an expert that started from `adapter`. What has not changed is not trained again,
    an interrupted expert goes on from its checkpoints, and folders of other experts are deleted.

    Args:
        lessons: one a scene, named after it.
        replay: the share of other lessons' rows among an expert's rows, 0 to less than 1.
        policy: a model with an adapter of the same shape, whose weights may be changed; None loads one if it is needed.
    """
    done: dict[str, stages.Taught] = {}
    before: dict[str, float] = {}
    for lesson in lessons:
        others = [other for other in lessons if other.name != lesson.name]
        rows, replayed = stages.mix(lesson.train, others, replay, settings.seed)
        key = {
            "started_from": {"adapter_sha256": artifact_sha256(adapter)},
            "base_sha256": base.sha256,
            "chat_template_sha256": sha256_json(tokenizer.chat_template),
            "dtype": str(settings.hardware.dtype),
            "data_sha256": stages.rows_sha256(rows),
            "held_out_sha256": {one.name: stages.rows_sha256(one.held_out) for one in lessons},
            "settings": stages.what_trains(settings),
        }
        own = folder / f"{lesson.name}_{sha256_json(key)[:12]}"
        expert = stages.finished(own, key)
        if expert is None:
            policy = stages.with_adapter(policy, base, adapter, settings)
            before = before or _losses(policy, lessons, settings)
            steps = stages.teach(policy, tokenizer, rows, lesson.held_out, settings, own)
            learned = {"rows": len(rows), "replayed": dict(replayed), "steps": steps}
            losses = {"losses_before": before, "losses": _losses(policy, lessons, settings)}
            expert = stages.close(own, lesson.name, key, learned | losses)
        done[lesson.name] = expert
    _prune(folder, done)
    return done


def loss_figure(trained: Mapping[str, stages.Taught]):
    """Nats per learned token on the held-out dialogues of each scene: her adapter's, then each expert's with what it
    changed, blue where it is lower. Returns the figure."""
    names = list(trained)
    before = next(iter(trained.values())).record["losses_before"]
    table = [
        [before[name] for name in names],
        *([expert.losses[name] for name in names] for expert in trained.values()),
    ]
    changes = [[loss - first for loss, first in zip(row, table[0], strict=True)] for row in table]
    most = max(abs(change) for row in changes for change in row) or 1
    fig, ax = figures.figure(5.5, 3.4)
    ax.imshow(changes, cmap="RdBu_r", vmin=-most, vmax=most, aspect="auto")
    for y, row in enumerate(table):
        for x, loss in enumerate(row):
            change = f"\n{changes[y][x]:+.2f}" if y else ""
            colour = "white" if abs(changes[y][x]) > 0.6 * most else figures.INK
            ax.text(x, y, f"{loss:.2f}{change}", ha="center", va="center", color=colour)
    ax.set_xticks(range(len(names)), names)
    ax.set_yticks(range(len(table)), ["her adapter", *(f"{name} expert" for name in names)])
    ax.set(title="Loss on unseen dialogues", xlabel="dialogues of the scene")
    return fig


def _losses(policy: PeftModel, lessons: Sequence[stages.Lesson], settings: Settings) -> dict[str, float]:
    return {one.name: stages.held_out_loss(policy, one.held_out, settings.max_length) for one in lessons}


def _prune(folder: Path, kept: Mapping[str, stages.Taught]) -> None:
    names = {expert.folder.name for expert in kept.values()}
    for other in folder.iterdir():
        if other.is_dir() and other.name not in names:
            rmtree(other)


def _letters(conversation: Conversation) -> int:
    return sum(len(message.content) for message in conversation.messages)
