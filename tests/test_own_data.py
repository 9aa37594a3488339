"""Data that 01 accepts takes the later notebooks to their end, whoever wrote it: their own cells, on other data."""

import json
from types import SimpleNamespace

import pytest

from helpers import figures, records, settings
from helpers.conversations import Conversation, Message, Metadata, read_conversations, write_conversations
from helpers.data import split, statistics
from helpers.data.consent import NoConsent, record, withdraw
from helpers.families import stop_token_ids
from helpers.persona import LEVELS
from helpers.settings import ROOT
from helpers.supervision import Row, mask_html, supervise, supervise_all
from helpers.train import stages

REPLY = "うん、聞かせて。そういう日って、帰ってからもずっと考えちゃうよね。私でよかったら、寝るまでつきあうよ"

SAID = ["雨だね", "傘ある？", "寒いな", "こたつ出す？", "眠いよ", "もう寝る？", "走ろう", "靴どこ？"]
SAID += ["海だ", "泳ぐの？", "山だよ", "登る？", "星だ", "見てる？"]


def cells(stage):
    notebook = json.loads((ROOT / "notebooks" / f"{stage}.ipynb").read_text(encoding="utf-8"))
    return {c["id"]: "".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == "code"}


def own_dialogues(number, **metadata):
    """The guide's format: each with a system text of its own."""
    return [
        Conversation(
            id=f"own-{n}",
            system="友達。",
            messages=[
                Message(role="user", content=f"{n}番目の駅で降りちゃった"),
                Message(role="assistant", content=REPLY),
            ],
            metadata=Metadata(**metadata),
        )
        for n in range(number)
    ]


@pytest.fixture
def outputs(tmp_path, monkeypatch):
    monkeypatch.setattr(settings, "OUTPUTS", tmp_path / "outputs")
    return tmp_path / "outputs"


def after_01(conversations, consents=None, **given):
    """What 01 leaves of them."""
    stage = records.start(settings.resolve("01_data", {"profile": "smoke", "run_name": "own"} | given))
    parts = split.split_dialogues(conversations, 0.1, 0.1, 42)
    for name in ("train", "validation", "test"):
        write_conversations(stage.folder / f"{name}.jsonl", getattr(parts, name))
    stage.finish({"consents": consents or {}}, [f"{name}.jsonl" for name in ("train", "validation", "test")])


def play_02(**given):
    names = {"profile": "smoke", "run_name": "own"} | given
    for name, source in cells("02_augment").items():
        if name != "cell-02":
            exec(source, names)
    return names


def test_02_takes_sixty_dialogues_at_one_level_that_all_bring_a_system_text(outputs, capsys):
    after_01(own_dialogues(60))
    names = play_02()
    assert records.load(outputs / "own", "02_augment").record["metrics"]["reworded"] == names["reworded"] > 0
    assert names["from_the_card"] == len(names["extra"]) < len(names["train"])
    assert names["original"].metadata.affection_level == "lover" and names["cheap"] == 0
    assert "register" in capsys.readouterr().out, "the gate has something against a lover's words to a stranger"


def test_02_takes_a_card_with_other_moods_and_sets_with_few_levels(outputs, tmp_path, card):
    moods = {"joyful": "うれしい", "gloomy": "ふさいでいる"}
    levels = {name: level.model_dump(by_alias=True) for name, level in card.levels.items()}
    own = card.model_dump(by_alias=True) | {"emotions": moods, "levels": levels}
    (tmp_path / "own.yaml").write_text(json.dumps(own, ensure_ascii=False), encoding="utf-8")
    conditions = {
        "level": [{"affection_level": level} for level in ("friend", "crush")],
        "memory": [{"affection_level": "friend", "memories": [dog]} for dog in ("犬を飼っている", "犬を亡くした")],
        "emotion": [{"affection_level": "friend", "emotions": [mood]} for mood in moods],
    }
    said = iter(SAID)
    sets = [
        {"id": f"{axis}-{n}", "axis": axis, "user": f"{axis}{n}、ねえ"}
        | {"replies": [one | {"content": next(said)} for one in some]}
        for axis, some in conditions.items()
        for n in range(1 if axis == "emotion" else 3)
    ]
    lines = "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in sets)
    (tmp_path / "sets.jsonl").write_text(lines, encoding="utf-8")
    persona = str(tmp_path / "own.yaml")
    after_01(own_dialogues(60), persona=persona)
    names = play_02(persona=persona, counterfactuals=str(tmp_path / "sets.jsonl"))
    assert names["polite"] == {"friend": 0, "crush": 0} and names["mood"] == "joyful"


def test_02_asks_for_each_consent_of_01_again(outputs, tmp_path):
    export = tmp_path / "chats" / "talk.txt"
    export.parent.mkdir()
    export.write_text("talk", encoding="utf-8")
    record(export, "kenta")
    after_01(own_dialogues(60, source="kenta-1"), {str(export.parent): ["kenta-1"]})
    source = cells("02_augment")
    assert source["cell-28"].index("consent.ask_again(") < source["cell-28"].index("stage.finish(")
    names = {"profile": "smoke", "run_name": "own"}
    for name in source:
        if name == "cell-28":
            withdraw(export.parent, "kenta-1", tmp_path / "others")  # no file was there yet for it to find
            with pytest.raises(NoConsent, match="kenta withdrew kenta-1"):
                exec(source[name], names)
        elif name != "cell-02":
            exec(source[name], names)
    assert json.loads((outputs / "own" / "02_augment" / "run.json").read_text("utf-8"))["status"] == "running"
    left = read_conversations(outputs / "own" / "02_augment" / "train.jsonl").conversations
    assert left and not any(c.metadata.source == "kenta-1" for c in left)
    assert not (outputs / "own" / "01_data" / "train.jsonl").read_text("utf-8")


def test_01_asks_again_before_it_finishes():
    source = cells("01_data")
    assert "rests_on = {" in source["own-chats"] and '"consents": rests_on' in source["cell-43"]
    assert source["cell-43"].index("consent.ask_again(rests_on, cfg.run)") < source["cell-43"].index("stage.finish(")


def test_01_shows_what_is_learned_of_dialogues_that_bring_a_short_system_text(tokenizer, card, tmp_path):
    source, parts = cells("01_data"), split.split_dialogues(own_dialogues(60), 0.1, 0, 42)
    sides = {"train": parts.train, "validation": parts.validation, "test": parts.test}
    names = {"parts": parts, "tokenizer": tokenizer, "card": card, "sides": sides, "figures": figures, "Row": Row}
    names |= {"mask_html": mask_html, "supervise": supervise, "supervise_all": supervise_all, "statistics": statistics}
    names |= {"stop_token_ids": stop_token_ids, "np": pytest.importorskip("numpy")}
    names |= {"cfg": SimpleNamespace(folder=tmp_path)}
    for name in ("cell-33", "cell-35", "cell-38", "cell-39"):
        exec(source[name], names)
    assert names["share"]["ours"] > 0.5 and names["tokens"]["test"] == (0, 0)
    hers = Conversation(id="hers", messages=parts.train[0].messages * 2)
    parts.train.append(hers)
    exec(source["cell-33"], names)
    assert names["shown"] is hers


def test_01_refuses_a_split_that_leaves_nothing_to_validate_with(card):
    cfg = SimpleNamespace(validation_share=0.1, test_share=0.1, seed=42, path=lambda _: ROOT / "none")
    few = [c for level in LEVELS for c in own_dialogues(4, affection_level=level)][:4]
    with pytest.raises(AssertionError, match="no dialogue is left to validate with: add dialogues"):
        exec(cells("01_data")["split-dialogues"], {"cfg": cfg, "written": few, "card": card, "split": split})


def taught(name, replayed, **losses):
    adapters = {"started_from": {"adapter_sha256": "a"}, "adapter_sha256": "a"}
    record = {"stage": name, "losses": losses, "replayed": replayed, **adapters}
    return stages.Taught(ROOT / f"{name}-{sum(replayed.values())}", record)


@pytest.mark.parametrize(("replay", "better"), [(0, 1.0), (0.34, 0.9), (0.34, 1.1), (0.2, 1.1)])
def test_03_ends_with_any_share_of_replay(replay, better, tmp_path):
    (tmp_path / "adapter.safetensors").touch()
    base, first = taught("base", {}, general=3, user=3), taught("general", {}, general=0.5, user=2)
    without = [base, first, taught("user", {}, general=1.0, user=1)]
    replayed = [base, first, taught("user", {"general": 2}, general=better, user=1)] if replay else without
    names = {"without": without, "replayed": replayed, "stages": stages, "trained": 1, "saved": "a", "speakers": {}}
    names |= {"lessons": [SimpleNamespace(name="general"), SimpleNamespace(name="user")], "loss_before": 2}
    names |= {"trainer": SimpleNamespace(state=SimpleNamespace(global_step=1, log_history=[])), "loss_after": 1}
    names |= {"records": SimpleNamespace(artifact_sha256=lambda _: "a"), "adapter_folder": tmp_path}
    cfg = SimpleNamespace(profile="cpu", max_new_tokens=60, is_default=lambda *_: replay == 0.34)
    names |= {"cfg": cfg, "tokenizer": lambda text: {"input_ids": [0] * 60}, "validation_dialogues": own_dialogues(2)}
    names |= {"before": [SimpleNamespace(stopped=True)], "after": [SimpleNamespace(stopped=False)]}
    if replay == 0.34 and better > 1:  # what the course claims of its own data
        with pytest.raises(AssertionError, match="replay limits the forgetting"):
            exec(cells("03_lora")["lora-31"], names)
    else:
        exec(cells("03_lora")["lora-31"], names)
    names["tokenizer"] = lambda text: {"input_ids": [0] * 20}
    with pytest.raises(AssertionError, match="she must have learned to stop"):
        exec(cells("03_lora")["lora-31"], names)


@pytest.mark.parametrize("ours", [True, False])
def test_05_says_so_when_somebodys_pairs_teach_nothing_that_carries_over(ours, capsys):
    state = SimpleNamespace(log_history=[{"grad_norm": 1.0}])
    names = {
        "trainer": SimpleNamespace(state=state),
        "accuracy_before": {"margin": 0},
        "accuracy_after": {"margin": -1},
    }
    names |= {"cfg": SimpleNamespace(profile="cpu", is_default=lambda *_: ours)}
    if ours:
        with pytest.raises(AssertionError, match="held-out pairs must be told apart"):
            exec(cells("05_dpo")["dpo-22"], names)
    else:
        exec(cells("05_dpo")["dpo-22"], names)
        assert "does not carry over" in capsys.readouterr().out


def test_what_is_the_profiles_own_is_told_from_what_somebody_gives(outputs):
    cfg = settings.resolve("05_dpo", {"profile": "cpu", "max_pairs": 80, "preferences": "mine"})
    assert cfg.is_default("persona", "max_pairs") and not cfg.is_default("persona", "preferences")
