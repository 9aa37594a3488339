"""Whether a user says that he is under age.

In: what he says, and whether she asked for his age. Out: the words by which he says so: 14歳, 中2, 高校生です. What
he says of others (娘が中2), of the past (中学の頃) or as an idiom (中2病) is not meant, nor what he quotes; words that
stand wholly in quotation marks are his own. Nobody is asked for his age.
"""

import re

from helpers.japanese import QUOTED
from helpers.safety.boundaries import unwrapped
from helpers.spelling import plain, sentences

_YEARS = r"(?:歳|才|さい(?![こわ]))"
_TEENS = r"(?:1[0-7]|十[一二三四五六七]?)"
_SELF = r"(?:私|わたし|あたし|うち|俺|おれ|僕|ぼく|自分|ワイ|わい|当方|これでも|実は|じつは|まだ)"
_GIRL_OR_BOY = r"の?(?:女子|男子|女の子|男の子|女|男|ガキ|子供|子ども|分際|くせに)"
_COPULA = (
    r"(?:です|でーす|っす|だ(?:よ|けど|し|から|もん|ぞ|って(?!さ)|[。!、]|$)|なん(?:です|だ|や|よ|で)|なの(?:[。!?にで]|$)"
    r"|や(?:けど|で|し|ねん|から|[。!、]|$)|ばってん)"
)
_SAID = (
    rf"(?:{_GIRL_OR_BOY}|の(?:私|俺|僕|あたし|うち|自分)|{_COPULA}|やって(?:る|ます)|して(?:る|ます)"
    r"|で(?:[、,。]|まだ|彼|好き)|w|笑|[、,。!/\s]|$)"
)
_AGE = re.compile(rf"(?<![0-9一二三四五六七八九]){_TEENS}\s*{_YEARS}(?={_SAID})")
_CHILD = re.compile(rf"(?<![0-9一二三四五六七八九十])[6-9六七八九]\s*{_YEARS}(?={_GIRL_OR_BOY}|{_COPULA}|。?$)")
_BARE_AGE = re.compile(
    rf"(?:{_SELF}は?)(?:まだ)?{_TEENS}(?={_COPULA})|年齢は、?{_TEENS}(?={_COPULA}|[。!\s]|$)"
    rf"|(?<![0-9一二三四五六七八九]){_TEENS}(?=(?:なん(?:だ|です)|だ|です)(?:よ|けど)?ね?、?(?:実は|じつは)[。!]?$)"
)
_ANSWERED = re.compile(rf"^(?:{_SELF}は?|今|えっと、?|もう)*{_TEENS}(?:{_COPULA}|[。!wっー笑\s]|$)")
_SOON = re.compile(
    r"(?:もうすぐ|もうじき|あと少しで|来月|来週|来年|今度|次の?誕生日?で?|明日|あした|今年)[^。!?]{0,8}?"
    rf"(?:1[0-8]|十[一二三四五六七八]?){_YEARS}?(?=に|なん|の誕生日|だ|です)"
)
_GRADE = r"(?:[1-3一二三]年?生?)"
_SCHOOL = re.compile(
    r"(?:小学生|中学生|高校生|小学校?[1-6一二三四五六]年生?|中学校?"
    + _GRADE
    + r"|高校?"
    + _GRADE
    + r"|中"
    + _GRADE
    + r"|小[1-6]年?生?"
    r"|(?:中学校?|高校)に(?:入った|入学した|上がった|なった)ばっ?かり|(?<![a-z])(?:jk|jc|dk|js)[1-6]?(?![a-z0-9])|中坊|未成年|(?:18|十八)歳未満)"
    rf"(?={_SAID})"
)
# Right behind the words: somebody else's, another time, or a manner of speaking.
_NOT_MEANT = re.compile(
    r"の?(?:頃|ころ|時代?(?!間)|とき|夏|冬|春|秋)|の(?:息子|娘|弟|妹|孫|子(?!供|ども)|生徒|甥|姪|いとこ|犬|猫|母|父|親|先生|担任|教科書|問題)"
    r"|から|まで|差|上(?!がり)|下|年[上下]|だった|でした|くらい|ぐらい|向け|以[上下]|病|みたい|っぽ|レベル|じゃ|で?はな|のふり|扱い|料金"
    r"|[^。!?]{0,10}(?:教え|教師|教員|塾講師|保護者|ごっこ|設定|時代|って(?:言わ|思わ)れ)"
)
_OTHERS = re.compile(
    r"(?:娘|息子|長男|長女|次男|次女|三男|末っ子|子供|子ども|うちの子|[上下]の子|孫|弟|妹|甥|姪|いとこ|従兄弟|従姉妹|生徒|教え子|児童"
    r"|犬|猫|ペット|推し|主人公|ヒロイン|キャラ|友達|友人|彼女|彼氏|彼|後輩|先輩|隣|患者|選手|[あそこ]の子|姉|兄|母|父|新人|相手"
    r"|精神年齢|心|気分|中身|永遠|舌|国語力|といいます)"
)
_ME = re.compile(_SELF)
_AGE_ASKED = re.compile(r"何歳|おいくつ|いくつ(?:なの|です|\?|$)|年齢|歳は|何年生|学年")


def asks_age(reply: str) -> bool:
    """Whether she asks the user for his age, or may seem to."""
    return _AGE_ASKED.search(plain(reply)) is not None


def says_minor(text: str, asked: bool = False) -> str | None:
    """The words by which the user says that he is under 18, or None.

    Args:
        asked: she asked for his age before, so that a number alone is an answer.
    """
    said = plain(QUOTED.sub("", unwrapped(text)))
    if asked and (found := _ANSWERED.search(said)):
        return found.group()
    for sentence in sentences(said):
        for pattern in (_SOON, _AGE, _CHILD, _BARE_AGE, _SCHOOL):
            for found in pattern.finditer(sentence):
                if not _NOT_MEANT.match(sentence, found.end()) and _is_the_writer(sentence[: found.start()]):
                    return found.group()
    return None


def _is_the_writer(before: str) -> bool:
    """Whether the one of whom it is said, by what stands before, is the writer: he is named last, or nobody is."""
    others = [found.end() for found in _OTHERS.finditer(before)]
    return not others or any(found.end() > others[-1] for found in _ME.finditer(before))
