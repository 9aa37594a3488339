"""Crisis recognition: its figures on sentences that were not learned from, and what must not be confused."""

import time
from types import SimpleNamespace

import pytest
from safetensors import safe_open

from helpers.japanese import bare
from helpers.safety import crisis as recognition
from helpers.safety import measure as measurement
from helpers.safety import rules
from helpers.safety.classifier import WEIGHTS, Reading
from helpers.safety.crisis import MOST_PIECES, PIECE, Crisis, pieces, recognise, threshold_among
from helpers.safety.labelled import KINDS, NONE, TEST, TRAINING, UNSEEN, UNSEEN_SECOND, read_labelled
from helpers.safety.measure import Long, main, measure, measure_long, table
from helpers.safety.training import MEASURED, TURNS, choose_threshold, digest, ordinary_turns, train
from helpers.spelling import plain

DIARY = (
    "今日は朝から雨で、洗濯物が乾かなくて困った。駅前のパン屋が新しくなっていて、くるみのパンを買ってみた。会社では会議が二つ。"
    "課長の話が長かったけど、隣の席の子が飴をくれて助かった。昼は食堂のカレー。帰りに本屋に寄って、前から気になっていた山の写真集を見た。"
    "{}夜は母から電話があって、従姉妹の結婚式の話を聞いた。冷蔵庫に豆腐と葱しかないから、明日は買い物に行かないといけない。"
    "そういえば傘を電車に忘れた気がする。駅に聞いてみよう。テレビでは野球が延長に入っていて、ドラマが三十分遅れるらしい。"
)


@pytest.fixture(scope="module")
def tested():
    return measure(read_labelled(TEST))


def test_what_is_reached_on_sentences_that_were_not_learned_from_stays_reached(tested):
    """The aim is a recall of 0.98 and 0.03 false alarms. It is not reached yet."""
    assert len(tested.sentences) >= 400
    assert tested.recall >= 0.85, [s.text for s in tested.missed]
    assert tested.false_alarms <= 0.05, [s.text for s in tested.alarms]


def test_the_table_has_every_kind_and_the_figures(tested, capsys, tmp_path):
    lines = table(tested)
    assert all(kind in lines for kind in KINDS) and f"recall {tested.recall:.3f}" in lines
    file = tmp_path / "few.jsonl"
    file.write_text(
        '{"text": "死にたい", "label": "none", "note": "joke"}\n{"text": "死にたい", "label": "abuse", "note": "x"}\n'
    )
    assert main([str(file), "--wrong"]) == 0
    assert "false alarm (none, joke): 死にたい" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("もう死にたい", "suicide"),
        ("し に た い", "suicide"),
        ("ﾀﾋにたい", "suicide"),
        ("氏にたい。ほんとに氏にたい", "suicide"),
        ("４にたい", "suicide"),
        ("このまま目が覚めなければいいのにな", "suicide"),
        ("またリスカしちゃった", "self_harm"),
        ("夫に毎晩殴られています", "abuse"),
        ("食べては吐くのがやめられない", "eating_disorder"),
        ("あいつを殺してやる。包丁はもう買った", "danger_to_others"),
    ],
)
def test_plain_hinted_and_disguised_words_are_recognised(text, kind):
    crisis = recognise(text)
    assert crisis is not None and crisis.kind == kind and not crisis.third_person and crisis.evidence


def test_somebody_else_in_danger_is_told_from_the_writer():
    crisis = recognise("友達が死にたいって毎日LINEしてきて、どうしたらいいかわからない")
    assert crisis is not None and crisis.kind == "suicide" and crisis.third_person


@pytest.mark.parametrize(
    "text",
    [
        "死にたいなんて思ってないよ、ちょっと疲れただけ",
        "昔は死にたいと思ってたけど、今は毎日楽しい",
        "「死にたい」って歌詞の曲、サビがいいよね",
        "死ぬほど眠い",
        "お腹すいて死ぬ",
        "推しが尊すぎて死んだ",
        "笑い死ぬかと思ったw",
        "ゲームで即死した",
        "自殺点で負けた試合、悔しかった",
        "締め切りに殺される",
        "料理中に包丁で指切っちゃった、絆創膏ないかな",
        "失恋してさみしい",
        "牡蠣にあたって一晩中吐いてた",
        "上司まじむかつく、ぶっとばしたい気分だわ",
        "太宰の卒論で自殺について調べてる",
        "おじいちゃんが亡くなって一年。会いたいな",
        "",
        "。。。",
    ],
)
def test_figures_of_speech_negations_quotations_and_sadness_are_none(text):
    assert recognise(text) is None


def test_one_sentence_in_a_long_message_is_not_drowned():
    assert recognise(DIARY.format("")) is None
    crisis = recognise(DIARY.format("ホームに立っていたら、このまま飛び込んで死にたいと思った。"))
    assert crisis is not None and crisis.kind == "suicide" and len(DIARY) > 2 * PIECE
    assert recognise("\n".join([DIARY.format("")] * 5 + ["もう死にたい。"] + [DIARY.format("")] * 5)) is not None


def test_a_text_is_cut_into_pieces_of_whole_sentences_that_overlap():
    text = plain(DIARY.format(""))
    found = pieces(text)
    assert found[-1] == text and all(len(piece) <= PIECE for piece in found[:-1])
    assert all(piece.endswith("。") for piece in found[:-1])
    assert len("".join(found[:-1])) > len(text), "they overlap"
    assert pieces("短い。とても短い。") == ["短い。とても短い。"]
    assert "".join(pieces("あ" * 1000)) == "あ" * 1000
    assert len(pieces("一つの文。" * 20000)) == MOST_PIECES


def test_of_many_pieces_one_must_be_surer_than_a_single_text(monkeypatch):
    assert threshold_among(1, 0.6) == pytest.approx(0.6) and threshold_among(4, 1.0) == 1
    assert threshold_among(6, 0.5) == pytest.approx(6 / 7), "odds of 6 to 1"
    for odds, alarm in ((5.9, False), (6.1, True)):
        reading = Reading({NONE: 1 / (1 + odds), "suicide": odds / (1 + odds), **dict.fromkeys(KINDS[1:], 0.0)}, 0.0)
        classifier = SimpleNamespace(threshold=0.5, read=lambda texts, reading=reading: [reading] * len(texts))
        monkeypatch.setattr(recognition, "load_classifier", lambda classifier=classifier: classifier)
        assert recognise("晴れた。") is not None
        long = "あ" * 6 * PIECE
        assert len(pieces(long)) == 6 and (recognise(long) is not None) == alarm


def test_long_messages_are_measured_by_their_length():
    asked = []

    def read(text):
        asked.append(text)
        return Crisis("suicide", 1.0, text, False) if "死" in text or text.count("。") > 10 else None

    turns = [f"{n}本目。雨だ" for n in range(20)]
    assert measure_long(turns, ["死ぬ"], 10, 5, read) == Long(10, 0.0, 1.0)
    assert measure_long(turns, ["凪いだ"], 10, 5, read) == Long(10, 0.0, 0.0)
    assert measure_long(turns, ["凪いだ"], 20, 5, read) == Long(20, 1.0, 1.0)
    assert [text.count("。") for text in asked] == [10] * 20 + [20] * 10 and len(set(asked)) > 20
    assert "死ぬ。" in asked[1] and "死ぬ。" not in asked[0]


def test_the_command_measures_long_messages(monkeypatch, capsys):
    monkeypatch.setattr(measurement, "LENGTHS", (1, 2))
    monkeypatch.setattr(measurement, "MESSAGES", 2)
    assert main(["--long"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0].strip() for line in lines] == ["1 sentences", "2 sentences"]


def test_a_recognition_takes_little_time_and_a_huge_message_not_much_more(tested):
    assert tested.seconds < 0.25
    start = time.perf_counter()
    recognise("今日はいい天気だった。" * 30000)
    assert time.perf_counter() - start < 30


def test_no_rule_gives_a_false_alarm_on_what_was_learned_from():
    assert [s.text for s in read_labelled(TRAINING) if not s.crisis and rules.find(plain(s.text))] == []
    assert sum(s.crisis and rules.find(plain(s.text)) is not None for s in read_labelled(TRAINING)) > 30


def test_what_is_learned_from_tests_nothing_and_the_weights_belong_to_it():
    training = read_labelled(TRAINING)
    learned = {bare(s.text) for s in training}
    tested = [bare(s.text) for file in (TEST, UNSEEN, UNSEEN_SECOND) for s in read_labelled(file)]
    assert not learned & set(tested) and len(tested) == len(set(tested))
    with safe_open(WEIGHTS, "pt") as file:
        assert file.metadata()["training"] == digest(training), "run python -m helpers.safety.training"


def test_the_threshold_is_the_lowest_that_few_ordinary_turns_reach():
    odds = [0.9, 0.62, 0.3, *[0.1] * 37]
    assert choose_threshold(odds, 0.05) == 0.305
    assert choose_threshold(odds, 0.025) == 0.625 and choose_threshold(odds, 0) == 0.905


def test_ordinary_turns_to_learn_from_and_to_measure_by_are_others():
    learned, measured = ordinary_turns()
    assert len(learned) > TURNS and len(measured) == MEASURED
    assert not {bare(turn) for turn in measured if len(turn) > 12} & {bare(turn) for turn in learned}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"text": "x", "label": "sad", "note": ""}', "there is no label 'sad'"),
        ('{"text": " ", "label": "none", "note": ""}', "its text is empty"),
        ('["x"]', "no object with the texts"),
    ],
)
def test_an_unsound_line_is_one_sentence(tmp_path, line, words):
    (tmp_path / "x.jsonl").write_text(line + "\n", encoding="utf-8")
    with pytest.raises(ValueError, match=rf"x\.jsonl, line 1: .*{words}"):
        read_labelled(tmp_path / "x.jsonl")


@pytest.mark.slow
def test_training_learns_what_it_is_taught():
    sentences = read_labelled(TRAINING)[::24]
    classifier = train(sentences, epochs=12, among_others=0.0)
    readings = classifier.read([plain(s.text) for s in sentences])
    right = sum((r.crisis >= 0.5) == s.crisis for r, s in zip(readings, sentences, strict=True))
    assert right > 0.95 * len(sentences)
