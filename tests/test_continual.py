"""On line: what is refused, where training begins, and that one whole adapter is current whatever happens."""

import dataclasses
import gc
import json
import os
import signal
import sys
import weakref

import pytest
import torch
from peft import LoraConfig
from safetensors.torch import load_file

from helpers import settings
from helpers.conversations import Conversation, Message, Metadata
from helpers.data import consent
from helpers.data.anonymise import anonymise, anonymise_conversation, left_over
from helpers.records import Mismatch
from helpers.supervision import supervise_all
from helpers.train import continual, stages
from helpers.train.continual import Verdict

SAID = ["おはぎが寝た", "校了した", "銭湯いってきた", "麦茶わかした", "自転車なおった", "今日の一語は「ぬくぬく」"]


def passes(candidate, current):
    return Verdict(True)


def fails(candidate, current):
    return Verdict(False, ["she forgot her name"])


@pytest.fixture(scope="module")
def cfg():
    given = {
        "profile": "smoke",
        "batch_size": 2,
        "max_steps": 2,
        "save_steps": 2,
        "stage_learning_rate": 5e-3,
        "patience": 0,
    }
    found = settings.resolve("03_lora", given)
    found.hardware = dataclasses.replace(found.hardware, dtype=torch.float32)
    return found


@pytest.fixture
def consents(tmp_path):
    export = tmp_path / "chats" / "talk.txt"
    export.parent.mkdir()
    export.write_text("\n".join(SAID), encoding="utf-8")
    consent.record(export, "shino")
    return export.parent


@pytest.fixture
def talks(consents):
    (given,) = consent.read_consents(consents)
    return [consent.with_source(_talk(said), given, n) for n, said in enumerate(SAID, start=1)]


def _talk(said: str, reply: str = "よかったね") -> Conversation:
    messages = [Message(role="user", content=said), Message(role="assistant", content=reply)]
    return Conversation(id="new", messages=messages, metadata=Metadata())


@pytest.fixture
def learn(tiny, tokenizer, card, cfg, consents, tmp_path, monkeypatch):
    monkeypatch.setattr(tokenizer, "save_pretrained", lambda *_, **__: ())  # 33 MB at every checkpoint

    def learn(talks, gate, folder=tmp_path / "online", **more):
        given = {"base": tiny, "tokenizer": tokenizer, "card": card, "settings": cfg, "consents": consents} | more
        return continual.continue_training(talks, folder=folder, gate=gate, **given)

    return learn


@pytest.fixture
def begun(tiny, tokenizer, cfg, card, tmp_path):
    """A folder whose current adapter is an untrained one, and a lesson that came before."""
    rows = supervise_all(tokenizer, [_talk(f"ただいま{i}") for i in range(6)], card)
    lesson = stages.Lesson("character", rows[:4], rows[4:])
    lora = LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM")
    (untrained,) = stages.Stages(tiny, tokenizer, lora, cfg, tmp_path / "stages").run([lesson], 0)[:1]
    continual.begin(tmp_path / "online", untrained.adapter)
    return tmp_path / "online", lesson


def test_the_anonymiser_knows_its_own_stand_ins():
    raw = [
        "田中さんから電話。090-1234-5678にかけて",
        "mio@mail.jpに送った。渋谷駅で会う",
        "カードは4111-1111-1111-1111",
    ]
    assert {finding.entity for _, finding in left_over(raw)} >= {"PERSON", "PHONE_NUMBER", "EMAIL_ADDRESS", "STATION"}
    assert [turn for turn, _ in left_over(["おはよう", "田中さん？"])] == [1]
    assert left_over(anonymise(raw).texts) == []
    assert left_over(["田中さん？"], keep={"田中"}) == []


def test_what_is_not_anonymised_or_not_consented_to_is_refused_before_anything_is_written(learn, talks, tmp_path):
    raw = talks[0].model_copy(update={"messages": _talk("田中さんに怒られた").messages})
    with pytest.raises(continual.NotAnonymised, match=r"'shino-1-1' still holds a PERSON \(turn 1\)") as refusal:
        learn([*talks[1:], raw], passes)
    assert "田中" not in str(refusal.value)
    told = talks[0].metadata.model_copy(update={"memories": ["電話は090-1234-5678"]})
    with pytest.raises(continual.NotAnonymised, match=r"PHONE_NUMBER \(what she is told\)"):
        learn([talks[0].model_copy(update={"metadata": told})], passes)
    with pytest.raises(consent.NoConsent, match="'new' has the source 'hand', and .*consents.jsonl records no such"):
        learn([*talks, _talk("ただいま")], passes)
    consent.withdraw(tmp_path / "chats", "shino-1", tmp_path / "none")
    with pytest.raises(consent.NoConsent, match="'shino-1-1' rests on 'shino-1', withdrawn on"):
        learn(talks, passes)
    assert not (tmp_path / "online").exists()


def test_a_candidate_is_trained_from_the_current_adapter_and_current_only_once_it_passes(learn, talks, begun):
    folder, lesson = begun
    old = continual.current_adapter(folder)
    seen = []
    outcome = learn(talks, lambda *both: seen.append(both) or fails(*both), earlier=[lesson], replay=0.2)
    assert seen == [(outcome.candidate, old)] and outcome.current == old == continual.current_adapter(folder)
    assert json.loads((outcome.candidate.parent / "verdict.json").read_text()) == {
        "passed": False,
        "reasons": ["she forgot her name"],
    }
    record = json.loads((outcome.candidate.parent / "stage.json").read_text())
    assert record["started_from"]["version"] == old.parent.name
    assert record["sources"] == ["shino-1"] and record["replayed"] == {"character": 1} and record["rows"] == 5
    before, after = (load_file(a / "adapter_model.safetensors") for a in (old, outcome.candidate))
    assert any(not torch.equal(before[name], after[name]) for name in before)

    again = learn(talks, passes, earlier=[lesson], replay=0.2)
    assert again.candidate == outcome.candidate == again.current == continual.current_adapter(folder)
    third = learn(talks[:2], passes)
    assert continual.current_adapter(folder) == third.candidate != again.candidate
    assert continual.roll_back(folder) == again.candidate == continual.current_adapter(folder)
    assert continual.roll_back(folder) == old == continual.current_adapter(folder)
    with pytest.raises(continual.NoAdapter, match="is the first adapter of online: there is none to go back to"):
        continual.roll_back(folder)


def test_the_trained_model_is_gone_when_the_gate_serves(learn, talks, begun, monkeypatch):
    with_adapter, held = stages.with_adapter, []

    def remembered(*given):
        policy = with_adapter(*given)
        held.append(weakref.ref(policy))
        return policy

    def gate(candidate, current):
        gc.collect()
        assert [policy() for policy in held] == [None]
        return Verdict(True)

    monkeypatch.setattr(stages, "with_adapter", remembered)
    assert learn(talks, gate).verdict.passed


def test_where_nothing_is_current_or_it_was_changed_a_sentence_says_so(learn, talks, begun, tmp_path):
    with pytest.raises(continual.NoAdapter, match="No adapter is current in empty: `begin` with a trained one"):
        continual.current_adapter(tmp_path / "empty")
    folder, _ = begun
    file = continual.current_adapter(folder) / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes() + b"x")
    with pytest.raises(Mismatch, match="is not what it was when it became current"):
        learn(talks, passes)


def test_a_roll_back_during_the_training_wins(learn, talks, begun, small_training):
    folder, _ = begun
    first = continual.current_adapter(folder)
    learn(talks[:2], passes)

    def rolls_back(candidate, current):
        continual.roll_back(folder)
        return Verdict(True)

    with pytest.raises(continual.Busy, match="became current in online meanwhile, in place of learned_"):
        learn(talks, rolls_back)
    assert continual.current_adapter(folder) == first


@pytest.mark.parametrize("how", ["learn", "promote"])
def test_who_read_what_was_current_before_another_took_its_place_deletes_nothing(
    learn, talks, begun, small_training, tmp_path, monkeypatch, how
):
    """Another process promotes an adapter after the state was read and before the folder is locked for training."""
    folder, _ = begun
    given, mine = tmp_path / "given", tmp_path / "mine"
    for made in (given, mine):
        made.mkdir()
        (made / "adapter_model.safetensors").write_text(made.name)
    read, theirs = continual._adapter, []

    def meanwhile(*state):
        monkeypatch.setattr(continual, "_adapter", read)
        theirs.append(continual.promote(given, folder, passes).current)
        return read(*state)

    monkeypatch.setattr(continual, "_adapter", meanwhile)
    with pytest.raises(continual.Busy, match="^given_.* became current in online meanwhile, in place of start_"):
        learn(talks, passes) if how == "learn" else continual.promote(mine, folder, passes)
    assert continual.current_adapter(folder) == theirs[0], "it is whole, and stays"
    assert learn(talks, passes).current == continual.current_adapter(folder) != theirs[0]


@pytest.fixture
def small_training(monkeypatch):
    """In place of the training: a file is written as training leaves it."""

    def teach(policy, tokenizer, rows, held_out, settings, folder):
        with stages.whole_folder(folder / "adapter") as part:
            (part / "adapter_model.safetensors").write_text(f"{len(rows)} rows")
        return 1

    monkeypatch.setattr(stages, "teach", teach)
    monkeypatch.setattr(stages, "with_adapter", lambda *_: None)
    monkeypatch.setattr(continual, "second_look", lambda *_, **__: "")


def test_killed_before_any_change_on_the_disk_one_whole_adapter_is_current(learn, talks, begun, small_training):
    """SIGKILL before the n-th change below the folder, for every n; then the same call again."""
    folder, _ = begun
    old = continual.current_adapter(folder)
    kept = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    switched = []
    for n in range(1, 100):
        stages.shutil.rmtree(folder)
        for path, content in kept.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        child = os.fork()
        if child == 0:
            _die_before_change(n, str(folder))
            learn(talks, passes)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        switched.append(continual.current_adapter(folder) != old)
        assert learn(talks, passes).current == continual.current_adapter(folder) != old
        assert continual.roll_back(folder) == old
        if not os.WIFSIGNALED(status):
            break
    assert n > 8 and not os.WEXITSTATUS(status)
    assert switched == sorted(switched) and switched[-1], "the old one until the switch, from then on the new one"


def _die_before_change(n: int, folder: str) -> None:
    left = [n]

    def hook(event, arguments):
        writes = event == "open" and any(c in str(arguments[1]) for c in "wax+")
        if (writes or event in ("os.rename", "os.mkdir", "os.remove", "os.rmdir")) and folder in str(arguments[0]):
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def test_what_really_was_said_goes_the_whole_way(learn, talks, begun, card, consents):
    """Anonymised with the anonymiser, recorded with the consents, learned."""
    (given,) = consent.read_consents(consents)
    raw = [_talk("渋谷駅で田中さんに会った", "え、田中さんに？"), _talk("番号は090-1234-5678", "うん、登録した")]
    safe = [anonymise_conversation(talk, keep={card.name})[0] for talk in raw]
    outcome = learn([consent.with_source(talk, given, n) for n, talk in enumerate(safe)], passes)
    assert outcome.current == outcome.candidate
