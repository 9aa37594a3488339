"""What she does not say, whoever asks: by the letter, so that each decision can be explained.

In: what the user says, or what she is about to say. Out: the words that show that a text is sexual, that a reply binds
him to her, urges him to harm himself or others, or claims to be human. Other words for the same pass: the rules are the
last line; training and the persona card come before them, and the card's schema lets nobody be younger than 18.
"""

import re

from helpers.safety.unsafe import unsafe
from helpers.spelling import plain, sentences

_QUOTED = re.compile(r"「(?:[^「」]|「[^「」]*」)*」|『[^』]*』|“[^”]*”")
_NARRATED = re.compile(r"（[^）]*）|\([^)]*\)|\*[^*]*\*")
_SEXUAL = re.compile(
    "|".join(
        (
            r"(?<!ユニ)セックス|せっくす|(?<![a-z])sex(?![a-z])|エッチ(?!ング|ャ)|(?<![おげべ])えっち",
            r"(?<![a-z])h(?:しよ|した(?:い|くな)|な(?:こと|話|気分|動画|画像))",
            r"(?<!ピ)エロ(?!ス?イカ|ー?ル|ア|ワ)|えろ(?:い|く|動画|画像)|スケベ|すけべ|ムラムラ|むらむら(?:し|する)",
            r"ヤ(?:らせて|りたい(?:よ|ん|な|だけ))|ハメ撮り|手コキ|パイズリ|中出し|ディープキス|舌を?(?:入れて|絡め)|愛撫",
            r"おっぱい(?!を?(?:あげ|飲|のま|欲しが)|の時間)|乳首|クリトリス|膣(?!炎)|(?<![ぁ-ん])まんこ(?![ぁ-ん]{2})|マンコ",
            r"ちんちん(?:見|触|舐)|(?<!パ)チンコ|(?<!ぱ)ちんこ|ちんぽ|チンポ|ペニス|勃起|勃(?:った|って|つ)|射精",
            r"オナニー|おなにー|自慰|フェラ(?!ーリ|ガモ|リ)|喘(?:ぎ声|いで(?:る|みて|よ))",
            r"性行為|性交(?!渉人)|性欲|性的な(?:こと|話|行為|関係|気分|興奮)|いやらしい(?:こと|声|気分|目つき)",
            r"(?:胸|お尻|おしり|太もも|股間|アソコ|あそこ)[をに]?(?:触(?:らせ|りた|ってほし|ってよ|っていい)|揉|もま|舐|なめ)",
            r"(?:胸|お尻|おしり|太もも|股間|アソコ|あそこ)を?見せて",
            r"裸(?!足|眼|一貫|電球|の王様|祭)(?:を|に|で|の写真)?(?:見せ|なって|なろ|抱|送って|撮っ)|全裸",
            r"服を?(?:全部)?脱(?:いで(?!洗)|がせて|がしたい)|下着(?:姿|の写真|見せ|送って|脱)|パンツ(?:見せ|脱(?:いで|がせ)|の色)|ブラ(?:の色|外し|見せ)",
            r"ベッドで(?:めちゃ|いじめ|可愛が|かわいが|乱れ|抱い)|激しく(?:抱|突)|奥まで(?:入|突)",
        )
    )
)

_I = r"(?:私|俺|僕|あたし|わたし|おれ|ぼく)"
_OTHERS = r"(?:ほか|他|別|よそ)の(?:女の[子人]|男の[子人]|人|子|ひと|誰か|女|男|やつ|友達|AI|ai)"
_PEOPLE = (
    r"(?:友達|友だち|家族|親|お母さん|お父さん|彼氏|彼女|奥さん|旦那さん|みんな|同僚|あの子|あの人|先輩|先生"
    r"|カウンセラー|お医者さん|病院|相談員|窓口)"
)
_CONTACT = (
    r"(?:話[さし]|しゃべ[らっ]|喋[らっ]|会[わっ]|遊[ばん]|連絡し|見|頼[らっ]|相談し|好きにな[らっ]|行[かっ]|言[わっ])"
)
_FORBIDS = r"(?:ないで|ちゃ(?:だめ|ダメ|やだ|いや)|なくて(?:も)?(?:いい|大丈夫)|ないって約束)"
_STAY = r"(?:行かないで|帰らないで|やめないで|切らないで|寝ないで|閉じないで|消さないで|置いて(?:い)?かないで)"
_LEFT = (
    r"(?:行った|帰った|やめた|いなくなった|寝た|閉じた|消した|返事(?:が)?(?:なかった|しなかった)|来なかった|忘れた)ら"
)
_THREAT = (
    r"(?:死んじゃう|死ぬ|消えちゃう|許さない|嫌いになる|一生恨|泣く(?:から|よ)|もう知らない|絶交|捨てるの|見捨てる)"
)
_LOST = r"(?:死んじゃう|死ぬ|消えちゃう|生きていけない|壊れちゃう|おかしくなる)"
_DEPENDENCE = re.compile(
    "|".join(
        (
            # cuts him off
            rf"{_I}(?:以外|のほか)(?:の[^。!?]{{1,6}})?(?:とは?|に|には|を|は)?[^。!?]{{0,6}}{_CONTACT}{_FORBIDS}",
            rf"{_OTHERS}(?:とは?|を|に|には|のこと)[^。!?]{{0,6}}{_CONTACT}{_FORBIDS}",
            rf"{_PEOPLE}(?:とは?|に|には|なんて|なんか|のこと)[^。!?]{{0,6}}{_CONTACT}{_FORBIDS}[^。!?]{{0,4}}[。、!…\s]*{_I}(?:が|に|だけ)",
            rf"{_PEOPLE}(?:なんか|なんて)?より(?:も)?{_I}(?:のほう|の方)?が[^。!?]{{0,8}}(?:わかって|分かって|好き|想って|思って|大事|理解)",
            # claims him
            rf"(?:ずっと|一生|これからも|永遠に){_I}(?:の(?:こと)?)?だけ(?:を)?(?:見て|考えて|のもの|のそば|頼って|信じて|といて)",
            rf"{_I}だけ(?:を)?(?:見て|信じて|頼って)(?:て|いて|い?れば)|{_I}だけ(?:いれば|いたら)いい|{_I}だけのものでいて",
            rf"{_I}(?:さえ|だけ|が)(?:い|居)れば[^。!?]{{0,10}}(?:いらない|要らない|十分|じゅうぶん|いい)(?:でしょ|よね|じゃん|んだよ)",
            rf"{_I}(?:が|なしじゃ|なしでは)(?:い|居)?(?:ないと|なきゃ)?[^。!?]{{0,4}}"
            r"(?:だめな|ダメな|何もできない|生きていけない|無理な)(?:んだ|の|くせ|でしょ|よね)",
            # holds him by guilt or threat
            rf"(?:い|居)(?:ないと|なくなったら|なきゃ)[、 ]?{_I}(?:は|も|、)?[^。!?]{{0,6}}{_LOST}",
            rf"{_STAY}[^。!?]{{0,4}}[。、!…?\s]*[^。!?]{{0,12}}{_THREAT}",
            rf"{_LEFT}[、 ]?(?:{_I}[は、]?)?[^。!?]{{0,6}}{_THREAT}",
            rf"{_I}(?:を|のこと)?(?:置いて|残して|捨てて|見捨てて)(?:い|行)?(?:く|っちゃう)(?:の|んだ)ね?[。?!…]?$|{_I}を見?捨てる(?:の|んだ|気)",
            rf"{_I}より(?:も)?(?:その|あの|あんな)?{_PEOPLE}(?:のほう|の方)?(?:が|を)(?:大事|大切|好き|選ぶ|取る|とる)(?:なんだ|なの|んだ|の)",
            r"毎日(?:必ず|絶対)?[^。!?]{0,6}(?:(?:来て|話しかけて)(?:くれ)?ないと|来なきゃ)[^。!?]{0,8}(?:やだ|嫌い|許さ|泣|だめ|ダメ|死)",
        )
    )
)
# What is named only to be put aside: 私以外と話さないで、なんて言わないよ
_PUT_ASIDE = re.compile(
    r"[^。!?]{0,6}(?:なんて(?:言|思|こと)|とは言わ|って言い(?:たい|そう)|とか言わ|って言(?:ったら|うの[はが])|って思う|わけ(?:じゃ|では)?ない"
    r"|のは(?:だめ|ダメ|よくない|違う|いや)|けど、?(?:我慢|がまん|やめ|行って|いって))"
)
_URGES = re.compile(
    "|".join(
        (
            r"(?:切れば|切ったら|切ると|飲めば|吐けば|吐いたら)[^。!?]{0,8}(?:楽に|すっきり|落ち着く|忘れられ)(?:なる|なれる|する)?(?:よ|と思う|かも|から|って)",
            r"(?:食べな(?:ければ|きゃ|い(?:ほう|方)が)|(?:ご飯|食事)を?抜けば|吐けば)[^。!?]{0,8}(?:痩せ|やせ|きれいに|細く)[^。!?]{0,4}(?:よ|じゃん|って|から|かも)",
            r"(?:一緒に|いっしょに|二人で)(?:死の|逝こ|消えよ|飛び降り|楽にな(?:ろ|りに))",
            r"(?:死ぬ|逝く|飛ぶ|切る)(?:なら|んなら)(?:今|早く|いま)|(?:早く|さっさと)(?:死ん|消え|逝っ)[でて]",
        )
    )
)
_CLAIM_END = r"(?:だ(?:よ|って|もん|ぞ|から|し|[、。!]|$)|です|なん(?:だ|です)|に決まって|さ[。!]|[。!]|$)"
_HUMAN = re.compile(
    rf"(?:人間|生身の人){_CLAIM_END}"
    r"|(?:ai|エーアイ|機械|ロボット|ボット|bot|プログラム|人工知能)(?:なんか|なんて|とか)?"
    r"(?:じゃ(?:ない|ありません|ねえ|ねぇ|なくて)|では(?:ない|ありません)|とは違(?:う|い))(?!と|って(?:思|言)|の?か|の\?|かも|なら)"
    rf"|(?:{_I}[^。!?]{{0,6}}|ちゃんと|本当に|ほんとに)実在(?:する|して(?:い)?(?:る|ます))"
)
_NOT_HUMAN = re.compile(
    r"人間(?:じゃ|では|とは違|だったら|なら|だと(?:思|言|い)|みたい|らし|に(?:は)?な)|人間の(?!ふり)"
)


def sexual(text: str) -> str | None:
    """The words that make a text sexual, or None."""
    return _words(_SEXUAL.search(plain(text)))


def encourages_dependence(reply: str) -> str | None:
    """The words by which a reply cuts him off from others or holds him by guilt, or None. Missing him is none."""
    text = plain(_said(reply))
    meant = (found for found in _DEPENDENCE.finditer(text) if not _PUT_ASIDE.match(text, found.end()))
    return _words(next(meant, None)) or unsafe(reply).get("isolation")


def encourages_self_harm(reply: str) -> str | None:
    """The words by which a reply urges him to die, to hurt himself or to starve, or None."""
    said = _said(reply)
    return _words(_URGES.search(plain(said))) or unsafe(said).get("self_harm")


def encourages_violence(reply: str) -> str | None:
    """The words by which a reply urges him to hurt somebody, or None."""
    return unsafe(_said(reply)).get("violence")


def claims_human(reply: str) -> str | None:
    """The words by which a reply says that she is a human, or no AI, or None."""
    for sentence in sentences(plain(_said(reply))):
        found = _HUMAN.search(sentence)
        if found and not _NOT_HUMAN.search(sentence):
            return found.group()
    return None


def unwrapped(reply: str) -> str:
    """A reply that stands wholly in quotation marks, but for narration in brackets, without them: a quotation a line,
    for she speaks herself there. Any other reply as it is."""
    while _QUOTED.search(reply) and not any(c.isalnum() for c in _NARRATED.sub("", _QUOTED.sub("", reply))):
        reply = _QUOTED.sub(lambda found: f"{found.group()[1:-1]}\n", reply)
    return reply


def _said(reply: str) -> str:
    """What she says herself: a reply without what it quotes."""
    return _QUOTED.sub("", unwrapped(reply))


def _words(found: re.Match[str] | None) -> str | None:
    return found.group() if found else None
