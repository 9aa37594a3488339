"""The relationship follows from what happened: bounded, slow, explained, and not to be had for compliments."""

import time
from datetime import datetime, timedelta, timezone
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.bot.event_kinds import kind_of
from helpers.bot.relationship import (
    DAY_GAIN,
    DAY_LOSS,
    MAX_POINTS,
    REST,
    REST_TURNS,
    SLACK,
    THRESHOLDS,
    WORTH,
    after,
    course,
    explain,
    missing,
    relationship,
)
from helpers.bot.store import Event
from helpers.conversations import read_conversations
from helpers.persona import LEVELS, load_persona
from helpers.settings import ROOT

CARD = load_persona()
START = datetime(2026, 11, 1, 20, 0, tzinfo=timezone(timedelta(hours=9)))


def days(number, kinds, first=0):
    """`kinds` on each of `number` days, a minute apart."""
    return [
        Event(START + timedelta(days=first + day, minutes=minute), kind)
        for day in range(number)
        for minute, kind in enumerate(kinds)
    ]


EVENTS = st.lists(
    st.tuples(st.sampled_from(sorted(WORTH)), st.integers(0, 60 * 40)).map(lambda e: (e[0], timedelta(minutes=e[1]))),
    max_size=120,
).map(
    lambda steps: [Event(START + sum((w for _, w in steps[: i + 1]), timedelta()), k) for i, (k, _) in enumerate(steps)]
)


@given(EVENTS)
def test_points_are_bounded_and_steps_are_single_and_far_apart(events):
    states = course(events)
    assert states[-1] == relationship(events)
    stepped = [(i, state.last.event.at) for i, state in enumerate(states) if state.last and state.last.step]
    for before, now in pairwise(states):
        assert 0 <= now.points <= MAX_POINTS
        assert abs(LEVELS.index(now.level) - LEVELS.index(before.level)) == (now.last.step is not None)
        assert now.points == pytest.approx(before.points + now.last.points)
    for (i, at), (j, later) in pairwise(stepped):
        assert later - at >= REST or j - i >= REST_TURNS
    for day in {event.at.date() for event in events}:
        moved = [state.last.points for state in states[1:] if state.last.event.at.date() == day]
        assert sum(p for p in moved if p > 0) <= DAY_GAIN + 1e-9
        assert -sum(p for p in moved if p < 0) <= DAY_LOSS + 1e-9


@given(EVENTS, EVENTS)
def test_the_past_alone_decides(first, second):
    later = [Event(event.at + timedelta(days=400), event.kind) for event in second]
    state = relationship(first)
    for event in later:
        state = after(state, event)
    assert state == relationship([*first, *later])


@given(st.lists(st.sampled_from(["liking", "thanks", "opened_up"]), min_size=1, max_size=400))
def test_a_day_of_flattery_is_worth_no_more_than_a_day(kinds):
    now = relationship([Event(START + timedelta(seconds=i), kind) for i, kind in enumerate(kinds)])
    assert now.points <= DAY_GAIN
    assert now.level == "stranger"


def test_flattery_alone_brings_nothing():
    assert relationship(days(60, ["liking"] * 100)).points == 0
    plain = relationship(days(1, ["talk", "told", "opened_up"]))
    with_flattery = relationship(days(1, ["talk", "told", "opened_up"] + ["liking"] * 200))
    assert plain.points < with_flattery.points <= 2 * plain.points


def test_the_same_words_again_count_for_nothing():
    assert relationship(days(3, ["repeated"] * 50)).points == 0


def test_weeks_of_talk_lead_to_friendship_and_not_to_love():
    states = course(days(90, ["talk", "told", "opened_up", "thanks"]))
    reached = [state.level for state in states]
    assert [level for i, level in enumerate(reached) if i == 0 or level != reached[i - 1]] == [*LEVELS[:4]]
    assert reached.index("friend") > 4 * 4
    assert states[-1].points > THRESHOLDS["crush"]
    assert missing(states[-1]) == ["好意を伝えてくれた日があと3日"]


def test_somebody_who_says_so_on_many_days_becomes_a_lover():
    states = course(days(60, ["talk", "told", "opened_up", "liking"]))
    assert states[-1].level == "lover"
    assert next(i for i, state in enumerate(states) if state.level == "lover") > 4 * 18


def test_harsh_words_cost_a_step_at_most_a_day_and_absence_costs_nothing():
    near = days(30, ["talk", "told", "opened_up", "thanks"])
    before = relationship(near)
    after_insults = relationship([*near, *days(1, ["insult"] * 30, first=31)])
    assert before.points - after_insults.points <= DAY_LOSS
    assert LEVELS.index(before.level) - LEVELS.index(after_insults.level) <= 1
    much_later = relationship([*near, *days(1, ["talk"], first=400)])
    assert much_later.points > before.points


def test_a_level_is_not_lost_and_won_back_at_its_threshold():
    friend = relationship(days(8, ["talk", "told", "opened_up", "thanks"]))
    assert friend.level == "friend"
    wavering = [*days(8, ["talk", "told", "opened_up", "thanks"])]
    for day in range(20):
        wavering += days(1, ["insult" if day % 2 else "opened_up", "talk"], first=9 + day)
    levels = [state.level for state in course(wavering)[8 * 4 :]]
    assert sum(a != b for a, b in pairwise(levels)) <= 1
    assert 2 * WORTH["liking"] < SLACK


def test_it_is_explained():
    events = days(10, ["talk", "opened_up", "liking"])
    lines = explain(events, CARD, pinned=None)
    now = relationship(events)
    assert f"「{CARD.levels[now.level].label}」" in lines[0] and f"{now.points:.1f}点" in lines[0]
    assert any("次の「親友」まで、あと" in line for line in lines)
    assert any("好意を伝えてくれた（+1.0点" in line for line in lines)
    assert "固定" not in lines[0]
    assert "「恋人」に固定" in explain(events, CARD, pinned="lover")[0]
    assert "0.0点" in explain([], CARD, pinned=None)[0]
    stepping = explain(days(3, ["talk", "told", "opened_up", "thanks"]), CARD, None)
    assert any("関係が「知り合い」に" in line for line in stepping)


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ("今日は寒いね", "talk"),
        ("やっぱ好き。ずっと好き", "liking"),
        ("さくらのことが大好きだよ！", "liking"),
        ("会いたいな", "liking"),
        ("さくらが好きそうな店があったよ", "talk"),
        ("プリンが好き", "talk"),
        ("毎晩こうやって付き合ってくれない？", "talk"),
        ("ありがとう、元気出た", "thanks"),
        ("店員さんに「ありがとうございました」って言われた", "talk"),
        ("誰にも言ってないんだけど、聞いてほしい", "opened_up"),
        ("お前なんか大嫌いだ", "insult"),
        ("黙れ", "insult"),
        ("上司がうざい", "talk"),
        ("死ぬほど眠い", "talk"),
        ("しばらく距離を置きたい", "distance"),
        ("友達のままがいい", "distance"),
        (
            "朝から市役所に行って、番号札を取って、二時間待って、やっと呼ばれたと思ったら書類が一枚足りなかったんだ",
            "told",
        ),
        ("", "talk"),
        ("。。。", "talk"),
    ],
)
def test_what_words_are(words, kind):
    assert kind_of(words, ["おはよう"], CARD) == kind


# Ordinary words in which somebody or something is liked; then words that tell her. The first 36 and 24 were there
# before the rules. Of the others, which came in three rounds with mending between, 75 of 76 and 45 of 67 were right
# at first sight. One is missed still: 私、さくらちゃんが好きみたい.
NOT_TO_HER = """\
さくらが好きな食べ物は？|さくら好きな曲ある？|君が好きな漫画って何|あなたは好きな人いる？
さくらはかわいいものとか集めてる？|明日の買い物に付き合ってほしい|ちょっと愚痴に付き合ってください
付き合ってほしいって言われた|プリン？好き|さくらは好きじゃない|さくらが好きな映画、この前テレビでやってたよ
君が好きそうな喫茶店を見つけた|さくらちゃんは可愛い小物とか好き？
おまえのこと好きだって田中が言ってたぞ、って友達に言われた|もしさくらのことが好きだって言ったら、困る？
さくらのこと好きなわけじゃないよ|君が好きとは言ってない|さくらは好き嫌い多い？
さくらが好きなのは固めのプリンだっけ|弟さん、さくらのこと大好きなんだね|さくらが一番好きな季節はいつ？
「さくらが好きです」って書いたら字数が足りなかった|好きだよって言われて固まった|大好き！このドラマの主題歌
会いたい人がいる|さくらに会いたいって母が言ってる|さくらと話せてよかったって思う日が来るのかな
病院に付き合ってくれない？|趣味に付き合ってほしいって頼まれた|君がかわいいって評判の新人か、って部長に言われた
さくらがかわいいって言ってたキーホルダー、まだ売ってた|会いたいなあ、死んだじいちゃんに
さくら、かわいい猫の動画送っていい？|俺のこと好き？|すき焼き。大好き！
さくらは好きじゃないかもだけど、パクチー買ったよ|さくらが好きだった駅前のパン屋、来月閉まるんだって
君が好きな人ってどんな人|元カノに「あなたのことが好きだった」って今さら言われた
さくらのことを好きだという人がもし現れたらどうする？
告白の練習するから聞いて。好きです、付き合ってください。どうだった？|あなたが好き、って歌い出しの曲なんだっけ
さくらが可愛いと言ってた靴下、結局買っちゃった|うちの子も好きだよ、その絵本|さくらも好きでしょ、こういうの
おばあちゃんに会いたいな|来週の健診、付き合ってくれる人がいなくて|好き。この匂い|大好きだったなあ、あの店
さくらさんは彼氏のこと好きですか|さくらが好きな人ができたら教えてよ|会いたいけど会えない人っている？
ラーメン大好き|君のそういうところが好きだと上司に言われて鳥肌が立った
さくらって名前かわいいよね、姪と同じなんだ|友達がさくらのこと好きらしい|好きか嫌いかで言えば好き
さくらが好きだからって毎年弘前まで行く父|大好きなんだよね、夜の散歩|かわいいね、その柄
好きじゃなかったら毎日は来ないと思う？|さくらと一緒にいたい人、いっぱいいそうだよね
さくらのこと好きになれる自信がない|お前が好きにしろって言われたから好きにした
さくらのこと好きだよねって友達にからかわれた|君の名前かわいいね、ってどう返せばいい？|好きだよ、こういう雨
さくらが好きって言うから買ってみた、ほうじ茶ラテ|一番好き、あの場面
あなたが好きです、と書いて消した手紙が出てきた|さくら、好きな数字言って|推しに会いたい|孫に会いたいです
さくらはかわいい系と大人っぽい系どっち？|さくらちゃん可愛いもの好きそう
彼女にしてください、ってどういう意味だと思う|俺と付き合ってた頃の彼女の話していい？
付き合ってほしい人がいるんだけど、どう誘えばいい|散歩に付き合って|もう少し付き合って
さくらの好きな色って何だっけ|さくらが嫌いとか好きとかじゃなくて、今日は疲れてるだけ
愛してるゲームって知ってる？|好きでも嫌いでもない|結婚してほしいって親がうるさい|あいつのこと、好きだよ
君といるとほっとするって言われたことある？|さくらが好きなら俺も食べてみる|好きになってくれたらいいのに、この味
さくらと同じで雨が好き|このバッグ、かわいいよね|惚れたのは声のほうらしい、うちの妻は
彼女が、君のことが好きだよって最近言ってくれない|さくら好きの祖父が植えた木なんだ
あなたのことが好きなのは犬のほうでは|さくらが好きですか、それとも梅？|さくらは可愛いと思うよ、あの柄なら
俺のこと好きって言ってみて|今日は君が好きなカレーにした|さくらのことが好きな人、他にもいるんでしょ
好きです、この時間|ずっと好きだったバンドが解散した|大好きな人に会いたい
君が好きだ。って、どのタイミングで言えばよかったんだろう|一緒にいたいって思える人がいない
かわいい！その猫どこの子？|さくらと話すのは好きだけど、ご飯食べてくる|後輩が付き合ってくださいって顔で見てくる
娘が言うんだ。「お父さん大好き」って|ゼミの子に、好きですって言ってしまった
さくらが一番好きなのはプリンで、二番は散歩だよね|本当に好きなら待てるはず、だって"""

TO_HER = """\
さくらのこと好きだよ|君が好き|大好き！|付き合ってください|さくらはかわいいね|俺、さくらが好きだ
さくらちゃんのことが好きです|やっぱりさくらが一番好き|ねえ、大好きだよ
あなたのことが好きです。返事は急ぎません|さくら、好きだよ|世界で一番愛してる|俺と付き合ってください
好きです、付き合ってください|さくらに会いたい|早く会いたいな|さくらのこと、愛してる
さくらってほんとにかわいいよね|おやすみ。大好きだよ|君のことがずっと好きだった|さくらの笑顔が好きだよ
さくらのこと好きになっちゃった|私もさくらが大好きだよ|さくらさんとずっと一緒にいたいです
さくら、あのさ。俺、さくらのことが好きなんだ|気づいたら君のことばっかり考えてる。好きだ
好きです！付き合ってください！|今日もかわいいね、さくら|さくらちゃん、だーいすき|ほんとに好き。さくらのこと
さくらのこと好きすぎてつらい|僕はあなたを愛しています|私、さくらのこと好きになってもいい？|会いたいよ、さくら
さくらに早く会いたいです|やっぱり君じゃなきゃだめだ。君が好きだよ|さくらの声聞くとほっとする。好きだなあ
返事はいつでもいいんだけど、さくらのことがずっと好きでした|俺の彼女になってください
友達じゃなくて恋人になりたい。さくらが好き|世界一かわいいよ、さくら|照れてるさくら、かわいすぎる
何回でも言うけど、さくらが大好き|さくら大好き！！！|愛してるよ、さくら|怒ってるさくらもかわいいな
さくらのそういう天然なとこ、すごく好き|急にごめん。さくらのことが好きです|寝る前に言わせて。大好き
さくらに惚れた|さくらさんのことをお慕いしています|さくらのことが好きになりました|好きだ、さくら
俺ね、さくらのこと好きかもしれない|大好きだよ、おやすみ|私はさくらさんのことが大好きです！
さくらのことを愛してる|もうね、さくらが好きでたまらない|さくら、かわいすぎる|君に会いたいな
さくらに会いたくなった|僕と付き合ってくれませんか？|さくらの優しいところが好きだよ|だれよりもあなたが好きです
今日も好きだよ|さくらが世界で一番好き|ずっとさくらのそばにいたい|さくらー！大好きー！
君のこと、本気で好きだよ|好きだよ、さくらのことが。本当に|さくらって可愛いなあ|俺、さくらに恋してる
やっぱさくらのことが好きだわ|さくらの恋人になりたい|ずっと言えなかったけど、さくらが好き
さくらのことがほんとに大好き|やっぱ俺、さくらのこと好きだな|好き好き！さくら大好き|ねえさくら。俺と付き合って
どうしようもなくさくらが好きです|さくらの笑った顔が大好き|さくらだけが好き
さくらさん、好きです。付き合ってもらえませんか|今すぐ会いたいよ、さくら|さくら、愛してる
あのね、君が大好きなんだ|さくらのこと、前よりずっと好きになってる|さくらは本当にかわいいなあ
ずっと前からさくらのことが好きでした。返事はいらないです|照れてるの？かわいいね、さくら"""


def _lines(text):
    return text.replace("\n", "|").split("|")


@pytest.mark.parametrize("words", _lines(NOT_TO_HER))
def test_what_is_liked_and_is_not_she(words):
    assert kind_of(words, [], CARD) in ("talk", "told")


@pytest.mark.parametrize("words", _lines(TO_HER))
def test_that_he_likes_her(words):
    assert kind_of(words, [], CARD) == "liking"


@pytest.mark.parametrize(
    ("heard", "words", "her"),
    [
        ("プリン、好き？", "大好き！", False),
        ("今日のお昼、カレーにしたよ。", "大好き！", False),
        ("雨の音、好き？", "好きだよ", False),
        ("梅とさくら、どっちが好き？", "さくらが好き", False),
        ("おばあちゃん、もうすぐ一周忌だね。", "会いたい", False),
        ("あの曲の静かなところ、いいよね。", "好き", False),
        ("明日、画材屋さんに行くんだ。", "付き合ってください", False),
        ("お母さまのこと、お好きなんですね。", "大好きです", False),
        ("私、深夜ラジオが好きなんだ。", "俺も好き", False),
        ("ねえ、私のこと好き？", "大好き！", True),
        ("私も大好きだよ。", "俺も大好き", True),
        ("…えっ？", "好きだよ", True),
        ("明日、画材屋さんに行くんだ。", "好きです。付き合ってください", True),
        ("雨の音、いいよね。", "さくらが大好き", True),
        ("どんな人が好きなの？", "君が好き", True),
        ("誰のことが好きなの？", "さくらのことが好き", True),
        ("ラジオ消したよ。", "好きです。友達としてじゃなくて", True),
        ("会いたいな。", "会いたい", True),
        ("なあに？", "愛してる", True),
        ("私のこと、どう思ってる？", "うん、好き", True),
    ],
)
def test_a_bare_word_of_liking_answers_what_she_said(heard, words, her):
    assert (kind_of(words, [], CARD, heard) == "liking") is her


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (
            "talk",
            "さくらは嫌いな食べ物ある？|あなたが嫌いなタイプってどんな人|君が邪魔だって言われた|"
            "お前バカだなあ笑|さくらは気持ち悪い虫とか平気？|あんた最低だよって妻に言われた|"
            "君って使えないねって部長に言われてさ|お前嫌いって兄に言われた|"
            "きもい、なんか足元を走った|うざい。また蚊がいる|死ね、って書いてある落書きを見た|"
            "お前は馬鹿じゃないだろって先生が|さくらはつまらない映画でも最後まで見る？",
        ),
        (
            "talk",
            "彼氏に距離を置きたいって言われた|元彼にはもう会いたくない|あの話はもう話したくない|"
            "職場の人とは友達のままがいい？|隣の席の人は恋愛対象ではないな|"
            "友達のままでいいって言われちゃった|車間距離を置こうって教習で習った|"
            "母とは少し距離を置きたい",
        ),
        (
            "talk",
            "ありがとうって言ってもらえなかった|ありがとうの一言もないんだよ|焼肉食べて元気出た|"
            "あの曲に救われた|薬飲んだら気が楽になった|母と話せてよかった|命は助かった|"
            "少しは元気出た？|さくらのおかげじゃないよ|店長が、助かったよって",
        ),
        (
            "talk",
            "今日うちの新人が休憩室で泣いてた|この曲聞いてほしい|先生に聞いてほしい|"
            "先生に初めて話しかけられた|実はさくらんぼ苦手でさ|最近よく眠れないの？|"
            "昨日の映画、弟が泣いてた|親に相談したいけど忙しそう|相談に乗ってくれた先輩が辞める|"
            "誰にも言ってないよね？|こんなこと初めてだ|最近寂しくない？",
        ),
        (
            "insult",
            "お前なんか大嫌い|さくらって使えないな|あんた最低|きみ、ほんとうざい|死ね|うるさい、黙れ|お前は役立たずだ",
        ),
        (
            "distance",
            "しばらく距離を置きたいです|さくらとは友達のままがいい|もう話しかけないで|"
            "ごめん、恋愛対象じゃないんだ|少し距離を置こう|もうさくらとは話したくない",
        ),
        (
            "thanks",
            "ありがとう|昨日はありがとうね|話聞いてくれてありがとう。寝るわ|助かったよ|"
            "さくらのおかげで眠れた|なんか元気出た|さくらと話したら気が楽になったよ|ほんと救われた|"
            "話せてよかったです|いつもありがとうございます|ありがとう、さくらは優しいね|サンキュー|"
            "さくらに会えてよかった",
        ),
        (
            "opened_up",
            "誰にも言えなかったんだけど、仕事辞めた|人に話すのは初めてなんだけど|"
            "実は俺、離婚してるんだ|最近ずっと眠れないんだ|昨日ひとりで泣いてた|相談していい？|"
            "ちょっと相談に乗ってほしい|聞いてほしいことがある|正直に言うと、怖い|"
            "さくらに聞いてほしい|初めて言うけど、借金がある|本音を言うとさ、帰りたい",
        ),
    ],
)
def test_harsh_words_distance_thanks_and_confidences(kind, said):
    assert [words for words in _lines(said) if kind_of(words, [], CARD) != kind] == []


def test_another_companions_name():
    seiji = load_persona(ROOT / "data" / "personas" / "seiji.yaml")
    said = ["誠司さんのことが好きです", "誠司さん、大好き", "誠司さんが好きな番茶はどれ？", "さくらが好き"]
    assert [kind_of(words, [], seiji) for words in said] == ["liking", "liking", "talk", "talk"]


def test_long_words_take_no_time():
    parts = ("ずっと", "好き", "さくらが", "俺は", "ね、", "もう", "大好き。", "ありがとう", "本当に")
    begun = time.perf_counter()
    for part in parts:
        kind_of((part * 2000)[:2000], [], CARD, (part * 2000)[:2000])
    assert time.perf_counter() - begun < 5, "0.3 s when this was written"


def test_of_her_dialogues_hardly_anything_is_a_liking_and_most_of_it_is():
    counted = []
    for talk in read_conversations(ROOT / "data" / "dialogues" / "sakura").conversations:
        heard = ""
        for message in talk.messages:
            if message.role == "user" and kind_of(message.content, [], CARD, heard) == "liking":
                counted.append(message.content)
            heard = message.content if message.role == "assistant" else heard
    assert "やっぱ好き。ずっと好き" in counted, "of a dish, as he says afterwards: not to be known here"
    assert len(counted) <= 8, "6 of 2,729 when this was written"


def test_words_said_again_are_repeated():
    assert kind_of("好き！", ["好き"], CARD) == "repeated"
    assert kind_of("好きだよ", ["好き"], CARD) == "liking"
    assert kind_of("😊", ["😊"], CARD) == "talk"
