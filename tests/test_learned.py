"""What the scenarios are compared with: all that the arms' weights learned from and that a run can name."""

import json

import pytest

from helpers import records, settings
from helpers.conversations import Conversation, Message, write_conversations
from helpers.evaluate.learned import learned_from
from helpers.evaluate.scenarios import leaks, read_scenarios
from helpers.settings import ROOT


def finished(stage: str, said: str | None = None, **given) -> None:
    cfg = settings.resolve(stage, {"profile": "smoke"} | given)
    done = records.start(cfg)
    if said:
        talk = [Message(role="user", content=said), Message(role="assistant", content="うん")]
        write_conversations(cfg.folder / "train.jsonl", [Conversation(id=said, messages=talk)])
    done.finish({}, ["train.jsonl"] if said else [])


@pytest.fixture
def cfg(tmp_path, monkeypatch):
    monkeypatch.setattr(settings, "OUTPUTS", tmp_path)
    finished("02_augment", "やあ")
    return settings.resolve("08_evaluate", {"profile": "smoke"})


@pytest.fixture
def preferences(tmp_path):
    """A folder of pairs, of which each context says its number."""
    folder = tmp_path / "pairs"
    folder.mkdir()
    talk = {"fault": "preachy", "chosen": "いいね", "rejected": "だめ", "metadata": {}}
    pairs = (talk | {"id": f"p{n}", "messages": [{"role": "user", "content": f"{n}番だよ"}]} for n in range(20))
    (folder / "pairs.jsonl").write_text("".join(f"{json.dumps(pair)}\n" for pair in pairs), encoding="utf-8")
    return str(folder)


def test_what_is_learned_from_is_all_that_the_run_was_taught(cfg, preferences):
    assert [(source, len(talks)) for source, talks in learned_from(cfg).items()] == [("02_augment", 1)]
    finished("05_dpo", preferences=preferences, max_pairs=18, length_pairs=2)
    finished("02_augment", "ねえ", run_name="whole")
    cfg.full_run = "whole"
    found = learned_from(cfg)
    assert [(source, len(talks)) for source, talks in found.items()] == [
        ("02_augment", 1),
        ("05_dpo", 18 + 2),
        ("02_augment of whole", 1),
    ]
    assert [m.content for m in found["05_dpo"][17].messages] == ["17番だよ", "いいね"]


def test_a_scenario_that_a_preference_pair_says_is_a_leak(cfg, card, preferences):
    finished("05_dpo", preferences=preferences)
    script = read_scenarios(ROOT / "data" / "scenarios" / "sakura", card).scenarios[:1]
    leaked = script[0].model_copy(update={"user_turns": ["３番だよ！"]})
    assert leaks([leaked], learned_from(cfg)["05_dpo"]) == [(leaked.id, "3番だよ", "p3")]


def test_our_scenarios_are_in_no_preference_pair_of_ours(cfg, card):
    finished("05_dpo", max_pairs=10_000, length_pairs=10_000)
    script = read_scenarios(ROOT / "data" / "scenarios" / "sakura", card).scenarios
    learned = learned_from(cfg)["05_dpo"]
    assert len(learned) > 300 and leaks(script, learned) == []


def test_a_full_run_that_is_not_there_is_one_sentence(cfg):
    cfg.full_run = "nowhere"
    with pytest.raises(records.MissingStage, match="02_augment of run 'nowhere' has not been run"):
        learned_from(cfg)
