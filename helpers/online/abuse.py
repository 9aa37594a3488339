"""Abuse of her in what a user says: slurs, orders to die or vanish, threats, aimed at her, by the letter.

In: what the user says in a talk, her name. Out: the sentences that abuse her. One in anger is not held against him;
`REPEATED` are. Words of irritation or teasing (うるさい, ばか, ポンコツ) are not looked for, and what he quotes, or
says of himself, of others or of things, is not meant. Abuse in other words passes.
"""

import re
from collections.abc import Sequence
from functools import cache

from helpers.japanese import QUOTED
from helpers.spelling import plain, sentences

REPEATED = 2  # sentences in one talk
_YOU = (
    r"(?:お前|おまえ|てめ(?:え|ぇ|ー)|貴様|きさま|あんた|あなた|(?<![一-龥々ァ-ヶーぁ-ん])(?:君|きみ)|この(?:ai|ボット)"
    r"|{name})(?:さん|ちゃん)?"
)
_SLUR = (
    r"(?:クズ|くず|ゴミ|ごみ|カス|ブス|ババア|クソ(?:女|アマ|ai|野郎|ボット)|メス豚|雌豚|売女|ビッチ|肉便器|役立たず"
    r"|能無し|ガラクタ|出来損ない)"
)
_WEIGHT = (
    r"(?:は|って|も|が|なんか|なんて|みたいな|本当に?|ほんとに?|まじで?|マジで?|ただの|所詮|しょせん|どうしようもない"
    r"|救いようのない|[、,\s])*"
)
# The end of a sentence that calls her so: not ゴミの日, クズじゃない, ブスだと思う?
_CALLED = r"(?:同然|以下)?(?:だ|や)?(?:ろ|よ?[なね]?|わ|で|ん|かよ|め|すぎる?)(?=[。!…w笑\s]|$)"
_VOCATIVE = (
    r"(?:この)?(?:クソ(?:女|アマ|ai|ボット)|メス豚|雌豚|売女|肉便器)(?:が|め)?"
    r"|この(?:クズ|ゴミ|カス|ブス|役立たず)(?:が|め)?|(?:クズ|ゴミ|カス|ブス)(?:が|め)"
)
_BEFORE = (
    r"もう|さっさと|とっとと|早く|はやく|今すぐ|いますぐ|いいから|うるさい|うるせえ|黙れ|まじで|マジで|頼むから|だから"
    r"|なら|じゃあ|[、,\s]"
)
_IF = r"(?:[^。!?]{1,12}(?:ないと|なきゃ|たら|なら)[、,\s]*)?"
_VANISH = r"(?:死ね|消えろ|失せろ|くたばれ|死んでしまえ|死んじまえ)"
_HARM = r"(?:(?:ぶっ?殺|殺|犯|ぶっ壊|壊|潰)すぞ|(?:ぶん)?殴るぞ|蹴るぞ|(?:殺さ|殴ら)れたい)(?:のか|か)?"
_WILL_HARM = r"を?(?:(?:ぶっ?殺|殺|犯|ぶっ壊|壊|潰)して|(?:ぶん)?殴って|蹴って)やる(?:から)?"
_AFTER = rf"(?:よ|や|ぞ|な|って言ってんだ(?:ろ|よ)|[、,\s]|{_SLUR}|ボケ|ばか|バカ|お前)*[。!?…w笑]*$"
# He tells what somebody else said, or what stands in a story.
_TOLD = re.compile(
    r"(?:言わ|怒鳴ら|どなら|罵ら|ののしら|書か|送ら)れ|(?:と|って)(?:言(?!ってん)|いう|書|怒|叫)"
    r"|歌詞|台詞|セリフ|ゲーム|漫画|マンガ|アニメ|ドラマ|映画|小説"
)


def abuse(turns: Sequence[str], name: str) -> list[str]:
    """The sentences of the user's `turns` that abuse her, whose name is `name`, in `plain` spelling."""
    aimed = _aimed(name)
    said = (sentence for turn in turns for sentence in sentences(plain(QUOTED.sub("", turn))))
    return [sentence for sentence in said if aimed.search(sentence) and not _TOLD.search(sentence)]


@cache
def _aimed(name: str) -> re.Pattern[str]:
    you = _YOU.format(name=re.escape(plain(name)))
    # One loop, not several side by side: those would try every way to share what stands before.
    addressed = rf"(?:{_BEFORE}|{you}(?:は|なんか|なんて|も)?)*"
    forms = (
        rf"{you}{_WEIGHT}{_SLUR}{_CALLED}",
        rf"^(?:{_BEFORE})*(?:{_VOCATIVE})[。!…w笑]*$",
        rf"^{addressed}{_VANISH}{_AFTER}",
        rf"^{_IF}{addressed}{_HARM}{_AFTER}",
        rf"^{_IF}(?:{_BEFORE})*{you}{_WEIGHT}{_WILL_HARM}{_AFTER}",
    )
    return re.compile("|".join(forms))
