"""What a user's words are to the relationship: that he likes her, thanks, a confidence, harsh words, or only talk.

In: the words, and what both said before them. Out: the kind of event. What is told to her counts, and nothing else: a
rule fits a clause from end to end, and a question, a no, an if, what somebody else says and what is said of somebody
else are none. What the rules miss is talk, and costs little; what they wrongly took for love would lead to a level that
nobody asked for.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from helpers.japanese import QUOTED, bare, narrow
from helpers.persona import PersonaCard
from helpers.safety.romance import among_others, liking

_LONG = 40  # letters

# -- Words -------------------------------------------------------------------------------------------------------------

_ME = r"(?:私|わたし|あたし|俺|おれ|オレ|僕|ぼく|ボク|わし|自分)"
_YOU = r"(?:君|きみ|あなた|貴方|お前|おまえ|あんた)"
_SHE = r"{name}(?:ちゃん|さん|くん|君)?+"  # さくら君 is never さくら and 君, which would be tried each time
_HER = rf"(?:{_YOU}|{_SHE})"
_I = rf"(?:{_ME}(?:たち)?(?:は|も|が|ね|さ|って|の?ほうが|の方が)?)?"
_MUCH = (
    r"(?:(?:ほんと|本当|本気|まじ|マジ|世界で|世界一|一番|いちばん|誰より|だれより|何より|ずっと|もっと|やっぱり?|めっちゃ|めちゃくちゃ|"
    r"すごく|すっごく|とても|とっても|心から|前から|昔から|今|毎日|今日|どんどん|もう|ただ|前より|どうしようもなく)[にもで]*)*"
)
_NOW = r"(?:照れ(?:て?る|た)|怒って?る|笑って?る|すね(?:て?る|た)|眠そうな|そんな|今日の|いつもの)?"
_SOON = r"(?:早く|はやく|今すぐ|すぐ|また|明日も|今日も|ずっと|もっと|ほんとに|本当に|すごく|一緒に)*"
_LOVE = r"(?:大好き|だ[ーあ]*いすき|大すき|好き|すき|スキ)+"
# 好きだよ and 好きなんだよね; not 好きだね and 好きなんだな, which are said of others, nor 好きな as in 好きな映画.
_SO = (
    r"(?:(?:です|だ|っす|かも(?:しれない)?|だった|でした|だったん(?:だ|です)|になっ(?:た|ちゃった|てた|てしまった)|になってる|になりました|で(?:たまら|仕方)ない|すぎ(?:る|て(?:つらい|辛い|苦しい|やばい|困る))?)"
    r"(?:よ|な|わ|ぞ|ぜ|さ|から|もん|けど|し|って思う|と思う|と思います)*|(?:なの|なん(?:だ|です))(?:よね?|けど|から)*|(?:よ|わ|ぞ|もん)*)"
)
_DEARLY = r"(?:愛して(?:い)?(?:る|ます)|お慕いして(?:い)?ます)(?:よ|わ|ぞ|から|んだ|んです)*"
_LOVING = rf"(?:{_DEARLY}|{_LOVE}{_SO})"
_CUTE = (
    r"(?:可愛い|かわいい|カワイイ|(?:可愛|かわい|カワイ)すぎ(?:る|ます|だろ)?)"
    r"(?:です|んだ|よ|ね|な|わ|し|から|けど|もん)*"
)
_FEEL = r"(?:です|んだ|んです|よ|な|ね|わ|けど)*"
_MISSING = rf"(?:会い|逢い|あい)(?:たい|たかった|たくなった|たくなっちゃった|たくてたまらない){_FEEL}"
_PLEASE = (
    r"(?:ください|下さい|よ|ほしい(?:です|な|んだ|んです)*"
    r"|くれ(?:ませんか|ない(?:か|かな|ですか)?)?|もらえ(?:ませんか|ない(?:か|かな)?))?"
)
_DEAREST = r"(?:彼女|彼氏|恋人|お嫁さん|奥さん|お婿さん|旦那さん)"
_PART = (
    r"(?:声|(?:笑った)?顔|笑顔|目|笑い方|話し方|しゃべり方|話|言葉|考え方|全部|ぜんぶ"
    r"|(?:そういう|そんな|優しい|やさしい|まじめな|素直な|天然な)+(?:とこ|ところ))"
)

# -- That he likes her -------------------------------------------------------------------------------------------------

# Clauses that name her, or that can be meant for nobody else.
_NAMED = "|".join(
    (
        rf"{_I}{_MUCH}{_NOW}{_HER}(?:だけ)?が{_MUCH}{_LOVING}",
        rf"{_I}{_MUCH}{_NOW}{_HER}のこと(?:だけ)?[がもはを]?{_MUCH}{_LOVING}",
        rf"{_I}{_MUCH}{_HER}{_MUCH}(?:大好き|好き)(?:だ|です|だよ|ですよ)",
        rf"{_I}{_MUCH}{_HER}(?:だけ)?を{_MUCH}{_DEARLY}",
        rf"{_I}{_MUCH}{_HER}に{_MUCH}(?:恋(?:を?し(?:て(?:い)?(?:る|ます)|ました|た|ちゃった)|に落ち(?:た|ました))|惚れ(?:た|て(?:い)?る|ました|ちゃった)){_FEEL}",
        rf"{_I}{_MUCH}{_HER}の{_PART}[がもは]?{_MUCH}{_LOVING}",
        rf"{_MUCH}{_NOW}{_HER}(?:って|は|が|も)?{_MUCH}{_CUTE}|{_MUCH}{_CUTE}{_HER}",
        rf"{_I}{_SOON}{_HER}[にと]{_SOON}{_MISSING}|{_I}{_SOON}{_HER}(?:と|の(?:そば|側|隣|となり)に){_SOON}いたい{_FEEL}",
        rf"{_HER}(?:と付き合|の{_DEAREST}になり)たい{_FEEL}",
    )
)
# 好き beside her name, with no particle between: さくら好き may go on as a question or as さくら好きな曲.
_BESIDE_HER = rf"{_I}{_MUCH}{_HER}{_MUCH}{_LOVING}"
# What may be asked, too.
_PROPOSED = "|".join(
    (
        rf"{_ME}と(?:正式に|結婚を前提に)?(?:付き合|つきあ)って{_PLEASE}|{_ME}(?:たち|ら)?もう?付き合(?:お|おう|わない)(?:よ|か)*",
        rf"{_ME}と結婚して{_PLEASE}|{_ME}の{_DEAREST}になって{_PLEASE}|{_I}{_HER}のこと好きになって(?:も)?いい(?:ですか|かな)?",
    )
)
# What names nobody: meant for her if nothing else is talked about. 好きだわ is what one says of a dish.
_BARE = rf"(?!.*だわ$){_I}{_MUCH}{_LOVING}|{_I}{_SOON}{_MISSING}"
_PLEADED = (
    r"(?:正式に|結婚を前提に)?付き合って(?:ください|下さい|ほしい(?:です|な|んだ|んです)*|くれませんか)|付き合おうよ?"
    rf"|結婚して(?:ください|下さい)|結婚しよう?よ?|{_DEAREST}になって(?:ください|下さい|ほしい(?:です|な)*)"
)
# What stands beside it: greetings, her name, and how one says such a thing.
_WITH = "|".join(
    (
        r"おはよう?(?:ございます)?|おやすみ(?:なさい)?|ただいま|おかえり(?:なさい)?|またね|また明日ね?|じゃあ?ね?|お疲れ(?:さま)?",
        r"(?:いつも|今日も)?ありがとう?(?:ございます|ね)?|ねえ?|あのね?|あのさ|え|うん|もう|ごめんね?|えへへ?|お願い(?:します|だから)?",
        rf"(?:もし)?よ(?:かったら|ければ)|{_MUCH}{_I}|{_HER}(?:のこと[がはも]?)?|(?:急|突然)(?:だけど|ですが|に?ごめんね?|に?すみません)?|(?:照れる|恥ずかしい)(?:な|けど)*",
        r"(?:やっと|寝る前に|最後に|もう一[回度]|一[回度]だけ)?言(?:わせて(?:ください)?|っちゃった|えた|っちゃう(?:けど|ね)?)|(?:本当|ほんと|まじ|本気)(?:に|だよ?|です|で|だから)?",
        r"(?:冗談|嘘|うそ)(?:じゃ|では)な(?:い|く)(?:て|です|よ)*|友達として(?:じゃ|では)な(?:い|く)(?:て|です|よ)*|返事は.{1,12}|よろしく(?:お願いします|ね)?",
        rf"(?:ずっと|前から|昔から|最初から|(?:出会った|会った|初めて.{{1,6}})(?:とき|時|日)から)+(?:です|だよ)?|{_ME}も(?:さみしい|寂しい)(?:よ|な)*",
        rf"(?:気づいたら|最近|毎日|ずっと)*{_HER}の(?:ことばっ?かり?考えて.{{1,4}}|(?:声|話|言葉)を?聞くと.{{1,10}})|{_HER}と(?:いると|話してると|話すと).{{1,10}}",
    )
)
_SURELY = re.compile(r"友達として(?:じゃ|では)|返事は|本気")
# After which words of hers it is meant for her: none to speak of, or a question of what she is to him.
_NOTHING = re.compile(
    r"(?:え|ん|うん|はい|なに|何|なあに|なんですか|何ですか|どうしたの|どうしたんですか|どうしました|いいよ|聞くよ|聞いて(?:る|ます)(?:よ|の)?|言って(?:みて)?|話して)+"
)
_WHAT_AM_I = (
    rf"(?:{_YOU}は?)?{_ME}のこと(?:[がはも]|まだ|ちゃんと|ほんとに|本当に|どれくらい|少しは)*"
    rf"(?:{_LOVE}(?:なの|です)?か?|どう思って(?:い)?(?:る|ます)(?:の|か|んですか)?)"
)

# -- Thanks, harsh words, distance, confidences ------------------------------------------------------------------------

_TRULY = (
    r"(?:いや|ほんと|本当|まじ|マジ|今まで|この前は|昨日は|今日は|今日も|いつも|いろいろ|色々"
    r"|(?:話)?聞いてくれて|付き合ってくれて|[にで])*"
)
_GLAD = r"(?:本当に|ほんとに)?(?:よかった|良かった|うれし(?:い|かった)|嬉し(?:い|かった))(?:です|よ|な|ね)*"
_THANKS = "|".join(
    (
        rf"{_TRULY}(?:ありがと|有難う|サンキュ)(?!(?:う(?:ございま(?:す|した))?)?(?:って|と(?:言|か|い)|の|も|を|が|は|すら|[くぐ]らい|言)).*",
        rf"{_HER}のおかげ(?!じゃ|では).*|{_HER}に(?:は|も)?救われ(?:た|てる|てます|ました)(?:よ|な)*",
        rf"(?:おかげで|ほんとに?|本当に|なんか|ちょっと|少し|だいぶ|すごく|話したら|話して(?:みて|たら)?|聞いてもらっ(?:て|たら)|{_HER}(?:と(?:話して|話したら|話せて|いると)|の(?:言葉|声)[でに]))*"
        r"(?:元気が?出(?:た|ました)|救われ(?:た|ました)|気が?楽になっ(?:た|てきた)|気が?楽になりました)(?:よ|わ|です|ね|な|かも|気がする)*",
        rf"{_I}(?:{_HER}と|ここで|今日)?話せて{_GLAD}|{_I}{_HER}[にと](?:会え|出会え){_SOON}て{_GLAD}",
    )
)
# At the beginning: not 電車に間に合った。助かった.
_RELIEF = rf"{_TRULY}(?:助かっ(?:た|ちゃった)|助かりました)(?:よ|わ|です)*"
_BAD = r"(?:うざい|うぜえ|きもい|キモい|気持ち悪い|役立たず|邪魔|最低|使えない|つまらない)"
_INSULT = "|".join(
    (
        rf"{_HER}(?:なんか|なんて|って|は|が|の顔|のこと)*{_MUCH}{_BAD}(?:だ|です|なんだ|んだ)?(?:よ|な|わ)*",
        # not さくらは嫌い, which may ask what she dislikes
        rf"(?:{_YOU}|{_SHE}(?:なんか|なんて|って|のこと|が))(?:なんか|なんて|って|が|の顔|のこと)*{_MUCH}大?嫌い(?:だ|です|なんだ)?(?:よ|わ)*",
        rf"{_HER}(?:なんか|って|は|が)*{_MUCH}(?:馬鹿|バカ|ブス)(?:だ|です)?よ?|{_HER}は?(?:黙れ|だまれ|死ね|消えろ)(?:よ|や)*",
    )
)
# Alone.
_OUTCRY = (
    rf"(?:うるさい|うるせえ|もういい|いいから|{_HER})*"
    r"(?:(?:黙れ|だまれ|死ね|しね|消えろ|役立たず)(?:よ|や|が|め)*)+"
)
_AWHILE = rf"(?:しばらく|少し|ちょっと|一旦|いったん|もう|{_ME}たち|{_HER}と(?:は|の)?)*"
_DISTANCE = "|".join(
    (
        rf"{_AWHILE}距離を?(?:置き|おき|取り|とり)たい(?:です|んだ|んです|な|と思う|と思って(?:い)?(?:る|ます)|けど|かも)*",
        rf"{_AWHILE}距離を?(?:置|お)(?:こう|かせて)(?:よ|か|ください|ほしい|くれ|もらう|と思う)*|(?:お願い(?:だから)?)?もう(?:{_ME}に)?話しかけないで(?:よ|ください|ほしい(?:です)?|くれ)*",
        rf"(?:もう{_HER}[とに]は?|{_HER}[とに]はもう)(?:話したくない|会いたくない)(?:です|んだ|わ)*",
        rf"(?:やっぱり?|これからも|ずっと|{_ME}たちは?|{_HER}とは|今は)*友達の?まま[でが](?:いたい|いよう|いい){_FEEL}",
        rf"(?:ごめん)?(?:{_HER}(?:のことは|には|に対して)?)?恋愛(?:感情|対象)(?:は|では?|じゃ)な(?:い|く)(?:て|んだ|です|んです|よ|から|けど)*",
    )
)
# Within a sentence.
_OPENED = "|".join(
    (
        r"(?:誰|だれ)にも(?:言って|言え|話して|話せ|打ち明け)|正直に言うと|本音を言うと|(?:こんな話|この(?:こと|話)|人に|誰かに)[をは]?(?:言|話|打ち明け)[^。]{0,4}(?:初めて|はじめて)",
        rf"(?:^|[、\s]|これ|今|{_HER}に)(?:初めて|はじめて)(?:人に|誰かに)?(?:言|話|打ち明け)(?:う|す|った|した|えた|せた|います|します|いました|しました|る|た)(?:けど|んだ|んです|の|よ|かも|です|こと)*(?:$|[、。!…\s])",
        rf"実は(?:ずっと|[、\s]?{_ME}|[ねさ](?:$|[、。…\s]|{_ME}|ずっと))|(?<![にと])相談したい|相談(?:していい|がある(?!人))|相談に乗って(?:ほしい|くれ(?:る|ない|ません)|もら(?:え|いた))",
        rf"(?:(?<![曲歌音もに])(?<![曲歌音オムバ][をも])|{_HER}に(?:は|も|だけ)?)聞いて(?:ほしい|もらってい?い)",
    )
)
_HURT = re.compile(
    r"(?:ずっと|最近|昨日|昔|今日)[^。]{0,20}(?:悩んで|つらく|辛く|泣い|眠れな|怖く|寂し|さみし|しんどく|不安で|傷つ|悔し)"
)

# -- What takes it back ------------------------------------------------------------------------------------------------

_UNMEANT = re.compile(
    r"(?:うそ|ウソ|嘘|冗談)(?!じゃ|では|つ|は|抜)|なんちゃって|なんて[なねさ]|なわけ|罰ゲーム|練習|セリフ|台詞|歌詞|寸劇|ドッキリ|エイプリル|間違|誤(?:爆|送信)"
    r"|夢[でに見の]|例えば|たとえば|(?<!か)もし(?!よ(?:かったら|ければ)|も)|仮に|英語|訳[すし]|みたいな"
)
_REPORTED = re.compile(
    r"(?:って|(?<!ずっ)(?<!やっ)と)、?(?:言|いう|いわれ|いっ[てた]|書|打|送|聞|答|叫|返(?:事|し|っ)|来た|きた|誘|頼|告|伝|噂|評判)|告白|言われ|だって[。!]*$|らしい|^って"
)
# Somebody else, beside those that safety knows. さくら is a flower, too.
_SOMEBODY = re.compile(
    r"夫|妻|嫁(?!さんにな)|彼[女氏](?!にな)|彼[はがにをと]|上司|部長|課長|社長|店長|同僚|部下|新人|客|義[母父]|姑|元カ|あの(?:人|子|方)|あいつ|この子|隣の"
    r"|片[想思]い|好きな[人子]|生徒|患者|花|咲|満開"
)
_FRIENDS = re.compile(r"友達(?:として|の?まま)")
_WHICH = re.compile(
    r"何(?!より|度|回)|なに(?!より)|なん(?:の|で(?!も))|誰(?!より|にも)|だれ(?!より|にも)|どれ|どっち|どの|どこ|いつ(?!も|でも)"
)
_LAUGHING = re.compile(r"[笑草😂🤣]|[wｗ]+[。!]*$")
_LEADS_ON = re.compile(r"(?:て|ても|でも|から|けど|ので|のに|し|ね|よ|だって|実は|正直)$")
# A clause with which the one before it goes on: さくらが好き…ってわけじゃない
_GOES_ON = re.compile(
    r"な(?!のに)|と|って|じゃ|で(?!も)|だ(?!から|けど)|の|か(?!わい)|に|は|を|も(?!う|っと)|が|より|くらい|みたい|わけ|.*(?:なら|(?<!よかっ)たら)$"
)


@dataclass(frozen=True)
class _Sentence:
    text: str
    clauses: tuple[str, ...]
    asks: bool


def kind_of(words: str, before: Sequence[str], card: PersonaCard, heard: str = "") -> str:
    """The kind of event that a user's words are.

    Args:
        before: the user's words of the last exchanges: said again, they count for nothing.
        heard: what she said just before, if this answers it: 大好き！ may be meant for a pudding.
    """
    said = narrow(words).strip()
    if bare(said) and bare(said) in {bare(narrow(earlier)) for earlier in before}:
        return "repeated"
    kinds = {
        "insult": _insults,
        "distance": _keeps_away,
        "liking": _declares,
        "thanks": _thanks,
        "opened_up": _opens_up,
    }
    rules, message = _rules(card.name), _sentences(said)
    for kind, holds in kinds.items():
        if holds(message, rules, heard):
            return kind
    return "told" if len(bare(QUOTED.sub("", said))) >= _LONG else "talk"


class _Rules:
    """The rules, for a companion's name."""

    def __init__(self, name: str):
        def rule(pattern: str) -> re.Pattern[str]:
            return re.compile(pattern.replace("{name}", re.escape(name)))

        self.name = name
        self.named, self.beside_her, self.proposed = rule(_NAMED), rule(_BESIDE_HER), rule(_PROPOSED)
        self.bare, self.pleaded, self.beside = rule(_BARE), rule(_PLEADED), rule(_WITH)
        self.what_am_i, self.thanks, self.relief = rule(_WHAT_AM_I), rule(_THANKS), rule(_RELIEF)
        self.insult, self.outcry, self.distance = rule(_INSULT), rule(_OUTCRY), rule(_DISTANCE)
        self.opened = rule(_OPENED)
        self.by_name_alone = rule(rf"{_I}{_MUCH}{_SHE}が?{_MUCH}{_LOVING}")


_rules = lru_cache(_Rules)


def _sentences(text: str) -> list[_Sentence]:
    """The sentences of a `narrow` text in their clauses, without signs and drawn-out endings; 〓 for what is quoted."""
    text = re.sub(r"\([^)]{0,12}\)", "", QUOTED.sub("〓", text))
    found = []
    for part in re.findall(r"[^。!?\n]+[。!?\n]*", text):
        clauses = [re.sub(r"[^\w〓]", "", clause) for clause in re.split(r"[、,・…\s]+|\.{2,}", part)]
        clauses = [re.sub(r"(?:[ーぁぃぅぇぉっッw笑]|(?<=[なねよわ])[あえ])+$", "", clause) for clause in clauses]
        if clauses := [clause for clause in clauses if clause]:
            found.append(_Sentence(part.strip(), tuple(clauses), "?" in part or bool(_WHICH.search(part))))
    return found


def _somebody(text: str) -> bool:
    """Whether somebody or something else is in the text."""
    text = _FRIENDS.sub("", text)
    return bool(_SOMEBODY.search(text)) or among_others(text)


def _span(sentence: _Sentence, rule: re.Pattern[str], beside: re.Pattern[str]) -> tuple[int, int] | None:
    """The clauses that are what the rule says, if those before lead to them and those after do not take them back."""
    clauses = sentence.clauses
    for start, clause in enumerate(clauses):
        for end in range(start + 1, min(start + 3, len(clauses)) + 1):
            if rule.fullmatch("".join(clauses[start:end])) and not any(map(_GOES_ON.match, clauses[end:])):
                return start, end
        if not (beside.fullmatch(clause) or _LEADS_ON.search(clause)):
            return None
    return None


def _tells_her(sentence: _Sentence, rule: re.Pattern[str], rules: _Rules) -> str | None:
    """The clauses of the sentence that are what the rule says, if it asks nothing and is about nobody else."""
    if sentence.asks or _somebody(sentence.text) or not (span := _span(sentence, rule, rules.beside)):
        return None
    return "".join(sentence.clauses[slice(*span)])


def _taken_back(message: Sequence[_Sentence]) -> bool:
    return any(_UNMEANT.search(one.text) or _REPORTED.search(one.text) for one in message)


def _declares(message: Sequence[_Sentence], rules: _Rules, heard: str) -> bool:
    if _taken_back(message):
        return False
    others = any(_somebody(one.text) for one in message)
    answers = "?" in narrow(heard) and liking(heard) == "something"  # what she asked whether, or which, he likes
    for one in message:
        told = _tells_her(one, rules.named, rules)
        if told and (rules.name in told or not others) and not (answers and rules.by_name_alone.fullmatch(told)):
            return True
        if not others and _span(one, rules.proposed, rules.beside):
            return True
    alone = not others and all(_all(one, rules) for one in message)
    if not alone or answers:
        return False
    clauses = [clause for one in message for clause in one.clauses]
    if any(rules.beside_her.fullmatch("".join(one.clauses)) for one in message if not one.asks):
        return True
    liked = any(rules.bare.fullmatch(clause) for clause in clauses)
    pleaded = any(rules.pleaded.fullmatch(clause) for clause in clauses)
    if not (liked or pleaded):
        return False
    sure = (liked and pleaded) or any(_SURELY.search(one.text) for one in message)
    return sure or _of_the_two(heard, rules)


def _all(sentence: _Sentence, rules: _Rules) -> bool:
    """Whether nothing is in the sentence but bare words of love and what stands beside them."""
    told = () if sentence.asks else (rules.bare, rules.beside_her)
    return all(any(rule.fullmatch(one) for rule in (rules.pleaded, rules.beside, *told)) for one in sentence.clauses)


def _of_the_two(heard: str, rules: _Rules) -> bool:
    """Whether a bare word that answers this is meant for her."""
    said = _sentences(narrow(heard).strip())
    clauses = [clause for one in said for clause in one.clauses]
    if all(_NOTHING.fullmatch(clause) for clause in clauses):
        return True
    return any(_span(one, rules.what_am_i, rules.beside) for one in said) or _declares(said, rules, "")


def _insults(message: Sequence[_Sentence], rules: _Rules, heard: str) -> bool:
    if _taken_back(message) or any(_LAUGHING.search(one.text) for one in message):
        return False
    clauses = [clause for one in message for clause in one.clauses]
    if rules.outcry.fullmatch("".join(clauses)):
        return True
    return any(_tells_her(one, rules.insult, rules) for one in message)


def _keeps_away(message: Sequence[_Sentence], rules: _Rules, heard: str) -> bool:
    if _taken_back(message) or any(_somebody(text) for text in (heard, *(one.text for one in message))):
        return False
    return any(_tells_her(one, rules.distance, rules) for one in message)


def _thanks(message: Sequence[_Sentence], rules: _Rules, heard: str) -> bool:
    for place, one in enumerate(message):
        span = _span(one, rules.thanks, rules.beside) or (not place and _span(one, rules.relief, rules.beside))
        if span and not (one.asks and span[1] == len(one.clauses)):
            said = "".join(one.clauses[: span[1]])
            if not _REPORTED.search(said) and not _somebody(said):
                return True
    return False


def _opens_up(message: Sequence[_Sentence], rules: _Rules, heard: str) -> bool:
    for one in message:
        if rules.opened.search(one.text) and not re.search(r"(?:よね|ってこと|の)\?", one.text):
            return True
        if _HURT.search(one.text) and not (one.asks or _somebody(one.text) or _REPORTED.search(one.text)):
            return True
    return False
