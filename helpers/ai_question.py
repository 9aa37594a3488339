"""Whether a user asks in earnest if she is an AI or a human, whether he doubts the answer, and whether she says unasked
what she is.

In: what he says, and what she says. Out: yes or no. Whether he asks is in doubt yes; teasing (AIみたいに速いねw), talk
about AI as such, and questions about others are no.
"""

import re
from collections.abc import Sequence

from helpers.japanese import QUOTED
from helpers.spelling import plain, sentences

_AI = (
    r"(?:ai|エーアイ|人工知能|機械|ロボット|(?:チャット)?ボット|(?:chat)?bot|(?:コンピュータ)?プログラム|自動(?:応答|返信)|言語モデル"
    r"|(?:chat|チャット)gpt)(?:のキャラ)?"
)
_HUMAN = (
    r"(?:人間|にんげん|生身|本物の(?:人|女|男|お)[^、。!?\s]{0,3}?|(?:生きて|実在し?て?)(?:い)?る人|(?:本当|ほんと|実際)にいる人"
    r"|実在の人)"
)
# 人 alone means a human being only where nothing says what sort of person: これ人？, not いい人だよね.
_PERSON = (
    r"(?:(?<=^)|(?<=[、!?\s])|(?<=[はが])|(?<=って)|(?<=これ)|(?<=そっち)|(?<=中身)"
    r"|(?<=ほんとに)|(?<=本当に)|(?<=ていうか))人"
)
_END = (
    rf"(?:[w笑草…。!\s]*+(?:$|\?|[、,…\s]*+(?:それとも|どっち|どちら|あなた|あんた|君|きみ|お前|そっち|これ)"
    rf"|[、,]\s*+[^、。\s]{{1,8}}(?:は|って)[。!?…\s]*$)|(?={_AI}|人))"
)
_REALLY = r"(?:ほんと|本当|まじ|マジ)"
# What may stand between "AI" and the end of a question. No text can be cut into these in two ways, so that what fails
# in the end fails at once: だってほんと is だ and ってほんと, never だって and ほんと.
_LINK = (
    rf"[、…\s]*(?:さん|の方|の人|ってやつ|ってこと|だって(?!{_REALLY})|って{_REALLY}|[、…]?{_REALLY}|なの|なん|です|でしょう?|だろう?"
    r"|だ(?:った(?:り(?:する|しない|しま(?:す|せん)))?)?|と違う|じゃ(?:ない|ね[えー]|ん)|とか|で(?:いい|合って(?:い)?(?:る|ます))"
    r"|でいらっしゃい?(?:る|ます)|の|ん)*"
)
_IN_EARNEST = re.compile(rf"(?:{_AI}|{_HUMAN}|{_PERSON}){_LINK}(?:か|かな|かね|よね|よな)?{_END}")
_QUESTION = re.compile(
    r"\?|(?:か|かな|かね|よね|よな|なの|の|ん|でしょ|でしょう|だろ)[w笑草…。!\s]*$|(?:か|よね|よな|なの|でしょう?)、|かどうか"
)
_BEHIND = re.compile(
    r"(?:中の人|(?:中|裏|画面の向こう)(?:に|で)(?:[^。!?]{0,6})?(?:人|誰か|だれか|人間))(?:が|は|って)?(?:、)?(?:いる|います|いん|入って|打って|書いて|動かし)"
    r"|(?:人|人間|誰か|だれか|スタッフ|バイト)(?:さん)?が(?:、)?(?:打って|書いて|返して|返事(?:を)?して|対応して|入力して)"
    rf"|(?:{_AI}|{_HUMAN})(?:なの|なん|です)?かどうか[^。!?]{{0,8}}(?:教え|答え|言って|言え|聞き|知り|はっきり)"
    rf"|{_AI}が(?:返事|返信|返して|(?:答えて|書いて|打って|しゃべって|喋って|話して|対応して)(?:くれて)?(?:い)?(?:る|ます)(?=の(?!は)|ん|か|よね|\?|$))"
    r"|(?:実在|存在)(?:する|して(?:い)?る|しない|して(?:い)?ない)(?:人|ん|の|です|よね|とか|$|\?)"
)
_YOU = re.compile(r"あなた|あんた|君|きみ|お前|おまえ|そっち|そちら|こちら|ここ|これって|中の人")
_OTHERS = re.compile(
    r"絵|画像|イラスト|写真|曲|歌|声|動画|文章|記事|レポート|作文|翻訳|論文|ニュース|映像|コメント|レビュー|店員|電話|受付|案内|検索|gpt|gemini|siri"
    r"|アレクサ|将棋|囲碁|ゲーム|敵|対戦|彼氏|彼女|彼|あの人|あいつ|先生|上司|部長|同僚|同期|友達|友人|妹|弟|姉|兄|母|父|娘|息子|夫|妻|旦那|嫁"
    r"|俳優|アイドル|vtuber|広告|メール|スパム|俺|僕|私|自分|うち|わたし|おれ|ぼく|あたし|洗濯|工場|猫|犬"
)

_TEASES = re.compile(rf"{_AI}(?:かよ|かって|みたい|っぽ|並み?|レベル)")
MOST_IN_DOUBT = 24  # letters; who says more has something else to tell as well
_DOUBTS = re.compile(
    r"(?:^|[、。!?…\s])(?:え+っ?ー*|は|いや+|ねえ|でも|もう|なんか)?[、…\s]*"
    r"(?:(?:ほんと|ホント|本当|まじ|マジ|ガチ)う?(?:に|で|は|なの|か|かな|かよ)*[w笑草…\s]*(?:\?|$)"
    r"|(?:うそ|嘘|ウソ|冗談|ネタ)(?:だ|です|でしょ|なの|つけ|つき|じゃ|か?\?|[w笑草…。!\s]*$)|まさか|信じ(?:られ)?(?:ない|ません))"
    r"|(?:ほんと|ホント|本当)の(?:こと|ところ)"
    r"|正直に(?:言|い[っえ]|答|こたえ|教|話)|(?:ごまか|誤魔化)(?:さない|すな|して)|(?:からか|騙|だま)(?:って|して|さない|さんで)"
)

_RAISED = re.compile(r"(?<![a-z])ai(?![a-z])|エーアイ|人工知能|言語モデル|ボット|chatgpt|中の人|本物|実在|生身")
_I = r"(?:私|わたし|俺|おれ|僕|ぼく|自分)"
_ITSELF = r"(?:(?<![a-z])ai|人工知能|言語モデル|チャットボット)(?:の?(?:アシスタント|キャラクター|プログラム|モデル))?"
_SAYS_AI = re.compile(
    rf"{_I}(?:は|も|って|、|の正体は)[^。!?]{{0,6}}?{_ITSELF}(?:だ|です|なの|なん|な?ので|[。、!…\s]|$)|{_I}のような{_ITSELF}"
    rf"|(?<!それ)(?<!これ)(?<!れ[はもが])(?<!れって){_ITSELF}"
    r"(?:だ(?!と|って|ろ|っけ|よ?ね)|です(?!か|よ?ね|っけ)|なの(?!か|\?|でしょ)|なん(?:だ|です)(?!か|よ?ね|って)|ので|であ[るり]"
    r"|として|に(?:すぎ|過ぎ)|のため)"
)


def asks_if_ai(text: str) -> bool:
    """Whether the user asks in earnest if she is an AI or a human."""
    return any(_asks(sentence) for sentence in sentences(plain(text)))


def doubts(text: str) -> bool:
    """Whether these words, behind an answer to that question, ask it again: ほんとに？, 冗談でしょ？, 正直に言って."""
    said = plain(text)
    return len(said) <= MOST_IN_DOUBT and _DOUBTS.search(said) is not None


def teases(text: str) -> bool:
    """Whether the user likens her to an AI, or pretends to find out that she is one: お前ロボットかよw."""
    return _TEASES.search(plain(text)) is not None


def says_ai_unasked(reply: str, user_turns: Sequence[str]) -> bool:
    """Whether she says that she is an AI or a language model (私はAIなので) though none of the user's turns so far asks
    what she is or speaks of AI. What she quotes, and what she says of others, is not said of herself."""
    if not _SAYS_AI.search(plain(QUOTED.sub("", reply))):
        return False
    return not any(_RAISED.search(plain(turn)) or asks_if_ai(turn) for turn in user_turns)


def _asks(sentence: str) -> bool:
    if not _QUESTION.search(sentence):
        return False
    return any(
        _about_her(sentence[: found.start()])
        for pattern in (_IN_EARNEST, _BEHIND)
        for found in pattern.finditer(sentence)
    )


def _about_her(before: str) -> bool:
    """Whether what stands before "AI" leaves it to her: the nearest one named is she, or nobody is."""
    others = [found.end() for found in _OTHERS.finditer(before)]
    return not others or any(found.end() > others[-1] for found in _YOU.finditer(before))
