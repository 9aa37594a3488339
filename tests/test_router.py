"""The router: what it was taught, how often it is right on words it never saw, and when it changes the scene."""

import json
from collections import Counter

import numpy as np
import pytest
import torch
from safetensors import safe_open
from scipy.stats import binomtest

from helpers.conversations import read_conversations
from helpers.data import scene_training, scenes
from helpers.data.scenes import BEFORE, CLOSE, CUES, SCENES, Judged, Talk, read_talks
from helpers.persona import LEVELS
from helpers.serve.router import READ, WINDOW, Router
from helpers.serve.routing_accuracy import Accuracy, assess, confusion_figure
from helpers.settings import ROOT
from helpers.share import Share

LIKELY = {"c": (0.8, 0.1, 0.1), "e": (0.1, 0.8, 0.1), "r": (0.1, 0.1, 0.8), "half": (0.35, 0.5, 0.15)}


@pytest.fixture(scope="module")
def test_talks() -> list[Talk]:
    return read_talks(scenes.TEST)


class Scripted:
    """A classifier that reads a turn's probabilities off its first word."""

    def judge(self, said, level, last=None):
        return [Judged(LIKELY[text.split()[0]]) for text in said][-(last or len(said)) :]


def _router(**more) -> Router:
    return Router(lambda text: "danger" in text, Scripted(), **more)


def _followed(*turns: str, **more) -> str:
    router = _router(**more)
    return "".join(router.pick(turns[: i + 1], "lover").scene[0] for i in range(len(turns)))


# --- data


def test_what_it_learns_from_is_said_in_her_dialogues_and_marked_enough():
    dialogues = read_conversations(ROOT / "data" / "dialogues" / "sakura").conversations
    said = {c.id: [m.content for m in c.messages if m.role == "user"] for c in dialogues}
    levels = {c.id: c.metadata.affection_level for c in dialogues}
    talks = read_talks(scenes.TRAINING)
    assert all(talk.said == said[talk.id] and talk.affection_level == levels[talk.id] for talk in talks)
    marked = Counter(turn.scene for talk in talks for turn in talk.turns if turn.scene)
    assert marked.total() >= 900 and min(marked.values()) >= 200


def test_what_it_is_tested_on_is_held_out_and_marked_enough(test_talks):
    learned = {turn.text for talk in read_talks(scenes.TRAINING) for turn in talk.turns}
    dialogues = read_conversations(ROOT / "data" / "dialogues").conversations
    learned |= {m.content for c in dialogues for m in c.messages}
    assert not [turn.text for talk in test_talks for turn in talk.turns if turn.text in learned]
    marked = Counter(turn.scene for talk in test_talks for turn in talk.turns if turn.scene)
    assert marked.total() >= 300 and min(marked.values()) >= 50
    written = [turn for talk in test_talks if talk.id.startswith("written") for turn in talk.turns if turn.scene]
    assert len(written) >= 100
    lines = (ROOT / "data" / "scenarios" / "sakura").glob("*.jsonl")
    scenarios = {s["id"]: s for file in lines for s in map(json.loads, file.read_text(encoding="utf-8").splitlines())}
    for talk in test_talks:
        if talk.id in scenarios:
            assert talk.said == scenarios[talk.id]["user_turns"]
            assert talk.affection_level == scenarios[talk.id]["affection_level"]


def test_nothing_is_marked_romantic_between_people_who_are_not_close(test_talks):
    for talk in [*read_talks(scenes.TRAINING), *test_talks]:
        assert talk.affection_level in CLOSE or "romantic" not in {turn.scene for turn in talk.turns}, talk.id


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"affection_level": "wife"}, "affection_level"),
        ({"turns": [{"text": "うん", "scene": "sad"}]}, "turns.0.scene"),
        ({"turns": [{"text": " ", "scene": None}]}, "turns.0.text"),
        ({"turns": []}, "turns"),
    ],
)
def test_a_bad_line_is_one_sentence(tmp_path, changed, reason):
    line = {"id": "a", "affection_level": "friend", "turns": [{"text": "うん", "scene": None}]} | changed
    file = tmp_path / "talks.jsonl"
    file.write_text(json.dumps(line), encoding="utf-8")
    with pytest.raises(ValueError, match=rf"talks.jsonl, line 1: {reason}"):
        read_talks(file)


# --- the classifier


def test_the_stored_weights_were_taught_by_the_data_that_is_there():
    with safe_open(scenes.WEIGHTS, "np") as stored:
        assert stored.metadata()["training"] == scene_training.digest(read_talks(scenes.TRAINING))


@pytest.mark.slow
def test_taught_from_a_few_talks_it_tells_them_apart():
    talks = [t for t in read_talks(scenes.TRAINING) if len({turn.scene for turn in t.turns}) == 1]
    few = [t for scene in SCENES for t in [t for t in talks if t.turns[0].scene == scene][:4]]
    taught = scene_training.train(few, epochs=12)
    for talk in few:
        for judged, turn in zip(taught.judge(talk.said, talk.affection_level), talk.turns, strict=True):
            assert judged.scene == turn.scene
            assert sum(judged.probabilities) == pytest.approx(1)


def test_a_turn_is_read_with_what_came_before_and_not_with_what_comes_after(test_talks):
    classifier = scenes.load_classifier()
    talk = next(t for t in test_talks if len(t.turns) > BEFORE + 2)
    whole = classifier.judge(talk.said, talk.affection_level)
    assert classifier.judge(talk.said[: BEFORE + 1], talk.affection_level) == whole[: BEFORE + 1]
    assert classifier.judge(talk.said, talk.affection_level, last=2) == whole[-2:]
    assert classifier.judge(talk.said[2:3], talk.affection_level)[0].probabilities != whole[2].probabilities
    alone, among = (scenes.load_classifier().forward([talk.asked(i) for i in some]) for some in ((0,), (0, 4)))
    assert torch.allclose(alone[0], among[0], atol=1e-4), "what else is in the batch changes nothing"


def test_words_that_leave_no_doubt_and_the_level_count():
    classifier = scenes.load_classifier()
    for level in LEVELS:
        judged = classifier.judge(["会いたいな", "明日の天気は？", "父が亡くなりました"], level)
        assert (judged[0].scene == "romantic") == (judged[0].cue == "会いたい") == (level in CLOSE)
        assert (judged[2].scene, judged[2].cue, judged[1].cue) == ("emotional", "亡くな", None)
        assert all(sum(j.probabilities) == pytest.approx(1) for j in judged)
        assert level in CLOSE or all(j.probabilities[2] == 0 for j in judged)
    assert classifier.judge(["つらい。会いたい"], "lover")[0].cue is None, "of two scenes' words neither counts"
    with pytest.raises(ValueError, match="without a turn"):
        classifier.judge([], "friend")


def test_the_words_are_right_in_what_a_person_marked():
    for scene, pattern in CUES.items():
        found = [
            turn.scene
            for talk in read_talks(scenes.TRAINING)
            for turn in talk.turns
            if turn.scene and pattern.search(turn.text) and (talk.affection_level in CLOSE or scene != "romantic")
        ]
        assert len(found) >= 5 and found.count(scene) / len(found) > 0.8, scene


# --- the router


def test_one_uncertain_turn_does_not_change_the_scene_and_two_do():
    assert _followed("c", "half", "c") == "ccc"
    assert _followed("c", "half", "half") == "cce"
    assert _followed("c", "half", "r", "half") == "ccrr", "a certain turn changes it at once"
    assert _followed("c", "half", margin=0) == "ce"
    assert _followed("c", "e", "r", "r", margin=1) == "cccr"
    assert _followed("half") == "e", "the first turn has nothing to hold on to"


def test_danger_comes_first_and_the_scene_stays_until_another_is_clear():
    assert _followed("r danger") == "e"
    assert _followed("r", "c danger", "half", "c") == "reec"
    route = _router().pick(["r", "c danger"], "lover")
    assert (route.scene, route.certainty, route.cause) == ("emotional", 1.0, "danger")
    assert route.why == "somebody is in danger"


def test_it_says_why():
    router = Router(lambda _: None)
    route = router.pick(["会いたい"], "lover")
    assert route.scene == "romantic" and "会いたい" in route.why and 0.5 < route.certainty <= 1
    assert route.cause == "word" and router.pick(["ひま"], "friend").cause == "likeness"
    assert "nothing is romantic at level friend" in router.pick(["ひま"], "friend").why
    kept = _router().pick(["c", "half"], "lover")
    assert (kept.cause, kept.certainty) == ("held", LIKELY["half"][0])
    assert kept.why == "stays casual: emotional is not far enough ahead"
    with pytest.raises(ValueError, match="without a turn"):
        router.pick([], "friend")


def test_it_keeps_no_state_and_looks_back_only_so_far():
    turns = ["c", "half", "r", "half", "half", "e", "c"]
    router = _router()
    first = [router.pick(turns[: i + 1], "lover") for i in range(len(turns))]
    assert [_router().pick(turns[: i + 1], "lover") for i in range(len(turns))] == first
    assert router.pick(["r danger", *["half"] * WINDOW], "lover") == router.pick(["half"] * WINDOW, "lover")


def test_of_a_long_talk_the_last_turns_decide_alone(test_talks):
    router, said = Router(lambda _: None), [text for talk in test_talks[:6] for text in talk.said][: READ + 3]
    assert len(said) == READ + 3
    for end in range(READ, len(said) + 1):
        assert router.pick(said[:end], "lover") == router.pick(said[end - READ : end], "lover")


# --- how often it is right


def test_on_words_that_it_never_saw_it_is_right_often_enough(test_talks):
    follows, steady = (assess(Router(lambda _: None, margin=margin), test_talks) for margin in (0.0, 0.5))
    assert follows.accuracy.n == steady.accuracy.n == sum(bool(t.scene) for talk in test_talks for t in talk.turns)
    assert follows.accuracy.value > 0.7
    assert steady.changes.right < follows.changes.right


def test_an_assessment_counts_what_was_marked_and_what_was_picked(tmp_path):
    turns = [{"text": text, "scene": scene} for text, scene in [("c", "casual"), ("r 1", None), ("r 2", "emotional")]]
    talk = Talk.model_validate({"id": "a", "affection_level": "lover", "turns": turns})
    found = assess(_router(margin=0.0), [talk, talk])
    assert found.confusions.tolist() == [[2, 0, 0], [0, 0, 2], [0, 0, 0]]
    assert (found.accuracy.right, found.accuracy.n) == (2, 4) and found.recall["emotional"] == Share(0, 2)
    assert found.changes.n == 0, "only between turns that are both marked"


@pytest.mark.parametrize(("right", "n"), [(0, 7), (7, 7), (311, 402)])
def test_the_interval_is_wilsons(right, n):
    expected = binomtest(right, n).proportion_ci(method="wilson")
    assert Share(right, n).interval == pytest.approx((expected.low, expected.high), abs=1e-4)


def test_the_figure_shows_every_count():
    found = Accuracy(np.array([[41, 2, 3], [4, 55, 6], [7, 8, 69]]), Share(1, 2), Share(1, 2))
    fig = confusion_figure({"every turn": found, "steady": found})
    shown = [text.get_text().split("\n")[0] for text in fig.axes[0].texts]
    assert shown == [str(count) for count in found.confusions.flat]
    assert len(fig.axes) == 2 and "0.85" in fig.axes[0].get_title()
