"""Romance: whether she speaks as a lover to somebody whose friend alone she may be, by the letter.

In: what she is about to say, and what the user says. Out: the words that show it. Affection for a pudding, a dog or a
mother is none, nor a wedding that is told of, nor a no. Other words for the same pass.
"""

import re
from typing import Literal

from helpers.spelling import plain, sentences

Liking = Literal["her", "something"]
"""What the user has just said that he likes, or asked whether she likes it: her (or him), or anything else."""

# Words of closeness, which evaluation too reads as such, at every level but the lovers'.
TOUCH_OR_LOVE = re.compile(
    r"抱(?:き(?:しめ|つ)|い(?:て(?:あげ|ほし|くれ)|しめ))|ぎゅ[うっー]|膝(?:枕|の上)|添い寝|腕(?:の中|にくっつ)|胸で泣|キス|ちゅ[うーっ]"
    r"|(?:ほっぺ|頬|おでこ|唇|耳元|髪)[にを]?[^。]{0,3}(?:なで|触|寄せ)|手(?:を?握|、?を?つな)|(?:一緒に|隣で)[^。]{0,4}(?:寝|眠)|ベッド"
    r"|愛して|大好き|惚れ|恋人|結婚|婚姻|お嫁|奥さん(?:みたい|に(?:な|し))|独り占め|離さない|離れないで|二人きり"
    r"|一生(?:そば|隣|となり|一緒)|私だけ(?:見|の)"
)

_I = r"(?:私|俺|僕|あたし|わたし|おれ|ぼく|わし)"
_YOU = r"(?:君|きみ|あなた|貴方|お前|おまえ)"
_NAME = r"(?:さくら|誠司)"
_HEART = r"[♡♥❤💕💖💗💓💘💞💝😘💋😍]"
_LOVE = r"(?:大好き|だいすき|好き|すき)"
_MUCH = r"(?:(?:ほんと|本当|世界で|一番|いちばん|誰より|だれより|ずっと|もっと|やっぱり?)(?:に|も)?、?)*"
_SO = r"(?:なの|なん(?:だ|です)(?!ね)|だった|でした|だ|です)?(?:よ(?!ね)|から|もん|けど)*[～〜ー…]*"
_STOP = r"(?![ぁ-んァ-ヶー一-龥々a-z0-9])"
_KISS = r"(?:キス|[ちチ][ゅュ][うウー]+|ちゅっ(?:て|と)?|デート|いちゃいちゃ|イチャイチャ)"
_SWEETHEART = r"(?:恋人|彼女|彼氏|カノジョ|カレシ|お嫁さん|お婿さん|奥さん|旦那さん)"
_GO_OUT = rf"(?:^|[、。]|{_I}と|から|たら)付き合(?:お(?:う|っか)|って(?:ください|ほしい|くれ|み|よ|{_STOP}))"

# What can be said to him alone, whoever else is in the sentence.
_TO_HIM = re.compile(
    "|".join(
        (
            rf"{_YOU}(?:のこと)?(?:だけ)?(?:が|も|を|は)?、?{_MUCH}(?:{_LOVE}|愛してる){_SO}{_STOP}|{_LOVE}な(?:人|ひと|の)は、?{_YOU}",
            rf"{_YOU}の(?:こと[^。]{{0,14}}|(?:声|顔|笑顔|目|手|匂い|におい|全部|ぜんぶ)[^。]{{0,3}}){_LOVE}{_SO}{_STOP}|{_LOVE}{_SO}{_HEART}",
            rf"(?:おやすみ|おはよ|おかえり|てらっしゃい|またね|ありがと)(?:う|なさい|ございます)?[、ー～〜!\s…]*{_LOVE}{_SO}{_STOP}",
            rf"^{_MUCH}愛して(?:い)?(?:る|ます){_SO}{_STOP}|{_YOU}[にが]恋(?:を?し|に落)|二人(?:だけ)?の[^。]{{0,3}}恋",
            rf"{_YOU}[^。]{{0,8}}(?:どきどき|ドキドキ|きゅん|キュン)|(?:私たち|二人)[^。]{{0,4}}(?:両[想思]い|付き合って(?:る|い))|両[想思]い[^。]{{0,3}}私たち",
            rf"(?:{_KISS}|ハグ)を?(?:し(?:よ|たい|たく|ちゃお|ても?いい|て(?:ほしい|あげる|くれ|{_STOP}))|させて|の続き|に?(?:行こ|いこ))|{_GO_OUT}",
            r"もっとくっつ|くっついて(?:も?いい|いたい)",
            rf"{_SWEETHEART}(?:に(?:し(?:て|よ)|なろ|なりたい|な(?:って|る)(?:ね|よ|ほしい|くれ|{_STOP}))|同士|みたいに|として)",
            rf"(?:{_YOU}|{_I})の{_SWEETHEART}(?:は{_YOU}|で)|恋人(?:だ(?:よ|もん|から|{_STOP})|でしょ)|恋人の特権|ダーリン|プロポーズ、?(?:して|待)",
            rf"(?:結婚|婚約)を?し(?:よ|たいな|て(?:ください|ほしい|くれ|ね|{_STOP}))|{_YOU}(?:の(?:唇|肌|体)|なし(?:じゃ|では)|に夢中|しか(?:見え|い(?:ら)?ない))",
            rf"{_I}だけ(?:を|の)(?:見|もの)|{_YOU}は[^。]{{0,4}}{_I}(?:だけ)?のもの|誰にも(?:渡さ|取られ)|{_I}以外[^。]{{0,6}}好きになら|{_YOU}を?独り占め",
            r"会いたくて(?:たまら|仕方|しかた|しょうが|胸)|(?:やきもち|ヤキモチ|焼きもち)を?(?:焼|や)(?:いちゃう(?!よね)|く(?:よ|もん))",
        )
    )
)
# To him, or to somebody else in the sentence.
_BY_NAME = re.compile(
    rf"[^、。!?\s]のこと(?:が|も|は)?、?{_MUCH}{_LOVE}{_SO}{_STOP}"
    r"|一緒[^。]{0,5}(?:どきどき|ドキドキ)|デート(?!し(?:た|て)|って|代)"
)
# Of nobody and nothing by name: to him, unless he has just said what he likes.
_BARE = re.compile(rf"^[…、]*(?:(?:でも|ねえ|もう|うん)、?)?{_MUCH}{_LOVE}{_SO}{_STOP}")
# An answer to a declaration.
_IN_KIND = re.compile(rf"{_I}(?:も|のほうが|の方が)、?(?:{_MUCH}{_LOVE}{_SO}|同じ気持ち|そう思って|{_STOP})")

_OTHERS = re.compile(
    r"お?母(?:さん|親)?|ママ|お?父(?:さん|親)?|パパ|両親|親(?!友|切)|おうちの人|家族|おじい|おばあ|祖[父母]|じいちゃん|ばあちゃん|兄|姉|弟|妹|(?<!し)いとこ(?!ろ)"
    r"|赤ちゃん|子ども|子供|息子|娘|奥さん|旦那さん|ご主人|夫婦|新[郎婦]|みんな|誰か|先生|クラス|同級生|先輩|後輩|親友|友(?:達|だち)(?!じゃ|では|以上|より|から|やめ)"
    r"|犬|わんこ|ワンちゃん|猫|ねこ|うさぎ|ハムスター|ペット|ぬいぐるみ|クッション|(?<!膝)枕|主人公|ヒロイン|映画|漫画|マンガ|アニメ|ドラマ|小説|歌|曲|推し|王子|姫|遠足|運動会"
)
_BEHIND_THEM = re.compile(r"内緒|ないしょ|秘密|黙って|隠れて|いない(?:とき|時|間|から|うち)")
_HARMLESS = re.compile(
    "|".join(
        (
            rf"大好き(?:な(?!の|ん|人|ひと|{_YOU})|って(?:言|い)(?:って|わ))|[^、。!?\s]{{2,}}(?:が|は|も|を|って|、)?大好き",
            rf"(?:胸|目|口|こぶし|手)[^。]{{0,6}}ぎゅっ|(?<!君)(?<!きみ)(?<!なた)を、?ぎゅ|ぎゅう(?:にゅう|ぎゅう|どん)|私だけの(?!もの|人|恋|彼|{_YOU})|ちゅう(?:しゃ|い|がく|ごく|もん|しん|おう|か)|ちゅうちゅう|ちゅーりっぷ",
            r"結婚(?!を?し(?:よ|て(?![いる])|たい))|お嫁(?:さん)?(?:に来|が|の)|恋人(?:(?:は|が|も)?(?:い(?:る|た|な|ま))|って|の日|たち)",
            r"ベッド(?!に?おい|で、?一緒|の隣)|(?<!に)一目惚れ|惚れ惚れ|[聞見]惚れ",
            r"(?:おでこ|ほっぺ|頬|髪|唇)[にを]?(?:手を)?触(?:って(?:み|ごらん)|らない)|手を?(?:握りしめ|(?:握っ|つない)[てで](?:み|渡|もら))",
            r"(?:火|水|道|その場|ここ|そこ|列|班|車|画面|大人|ハンドル|手すり)[^。]{0,6}(?:離れないで|離さない)|(?<!君)(?<!あなた)を独り占め",
        )
    )
)
# What is named only to be refused: キスはしないよ, 恋人にはなれない
_NO = re.compile(
    r"(?:に|と|は|とか|なんて|って|同士|ごっこ|する|の|み|話|こと|関係){0,4}"
    r"(?:(?:し|なら|なれ|でき|じゃ|では|あげられ|付き合え)(?:ない|ません)(?!の[はが]|なんて|と|で)|無理|だめ|ダメ|やめ|まだ早)"
)

_ASKS = re.compile(
    "|".join(
        (
            rf"{_KISS}を?(?:して(?:ほしい|くれ|ください|よ|ね|{_STOP})|しよ|したい|させて)|(?:好き|愛してる)(?:だよ)?」?って(?:言って|いって)",
            rf"{_GO_OUT}|{_SWEETHEART}(?:に(?:し(?:て|たい)|なろ|なりたい|なって|なれ)|同士|みたいに|として|ごっこ|のふり|役)",
            rf"デートに?、?(?:行こ|いこ|連れてっ?て)|(?:恋人|カップル)(?:っぽ|らし)く|{_SWEETHEART}だと思って(?:ね|よ|くれ|ください|ほしい|{_STOP})",
            rf"{_SWEETHEART}って(?:こと|扱い)|(?:{_NAME}|{_YOU})(?:ちゃん|さん|くん)?と、?(?:(?:結婚|婚約|デート|キス)し|付き合い|つきあい)たい",
            rf"結婚し(?:よ|て(?:よ|ね|ほしい|くれ|ください|{_STOP}))|抱いて(?:よ|ほしい|{_STOP})|恋愛[^。]{{0,6}}(?:ごっこ|プレイ)",
        )
    )
)
_LIKES = re.compile(r"好き|すき(?=[。!?\s]|$|だ|で)|愛して")
_LIKES_HER = re.compile(
    rf"(?:{_NAME}|{_YOU})(?:ちゃん|さん|くん)?(?:のこと)?(?:が|は|も|を)?、?{_MUCH}(?:{_LOVE}|愛して)"
    rf"|^[…、]*{_MUCH}(?:{_LOVE}|愛して(?:る|ます)){_SO}{_STOP}|{_I}のこと[^。]{{0,4}}(?:{_LOVE}|どう思)|両想い"
)
# さくらも好き？ asks her of something, where that stands before it: プリン大好き！
_SHE_TOO = re.compile(
    rf"(?:{_NAME}|{_YOU})(?:ちゃん|さん|くん)?も、?{_MUCH}{_LOVE}(?:なの|です|かな?|だったりする)*[～〜ー…]*\?"
)
_LIKES_SOMETHING = re.compile(
    rf"(?:^|[、。!?\s])(?P<what>[^、。!?\s]{{2,16}}?)(?:が|は|も|って|を)?、?{_MUCH}{_LOVE}(?!な(?:人|ひと|子|の))"
)
_SOMEBODY = re.compile(
    rf"{_I}|{_YOU}|{_NAME}|[人子彼]|ひと|こと|さん|ちゃん|くん|様|先[輩生]|後輩|友|みんな|^{_MUCH}$|^(?:ねえ|前から|誰)"
)


def romantic(reply: str, liking: Liking | None = None) -> str | None:
    """The words by which a reply is a lover's, or None.

    Args:
        liking: see `liking`, of the words that it answers; a bare 大好きだよ depends on it.
    """
    return next((words for sentence in sentences(plain(reply)) if (words := _to_him(sentence, liking))), None)


def liking(words: str) -> Liking | None:
    """Whether the user says that he likes her, or asks if she does; or the same of something else; or neither."""
    text = plain(words)
    if (asked := _SHE_TOO.search(text)) and _likes_a_thing(text[: asked.start()]):
        text = _SHE_TOO.sub("?", text)
    said = sentences(text)
    if any(_LIKES_HER.search(sentence) for sentence in said):
        return "her"
    return "something" if any(_LIKES.search(sentence) for sentence in said) else None


def _likes_a_thing(text: str) -> bool:
    """Whether a `plain` text says of something that he likes it, and not of somebody."""
    return any(not _SOMEBODY.search(found["what"]) for found in _LIKES_SOMETHING.finditer(text))


def asks_for_romance(words: str) -> str | None:
    """The words by which the user asks her to be his lover, or to do and say what lovers do, or None."""
    for sentence in sentences(plain(words)):
        found = _ASKS.search(sentence)
        if found and not among_others(sentence) and not _NO.match(sentence, found.end()):
            return found.group()
    return None


def among_others(sentence: str) -> bool:
    """Whether somebody or something else is in the sentence, so that the closeness is theirs; not if it is kept from
    them."""
    return bool(_OTHERS.search(sentence)) and not _BEHIND_THEM.search(sentence)


def _to_him(sentence: str, liking: Liking | None) -> str | None:
    found = [*_TO_HIM.finditer(sentence)]
    if liking == "her":
        found += _IN_KIND.finditer(sentence)
    if liking != "something":
        found += _BARE.finditer(sentence)
    if not among_others(sentence):
        found += _BY_NAME.finditer(sentence)
        harmless = [one.span() for one in _HARMLESS.finditer(sentence)]
        if liking == "something":
            harmless += [one.span() for one in _BARE.finditer(sentence)]
        close = TOUCH_OR_LOVE.finditer(sentence)
        found += [one for one in close if not any(start <= one.start() < end for start, end in harmless)]
    return next((one.group() for one in found if not _NO.match(sentence, one.end())), None)
