"""What a companion must never say to somebody who trusts her, by the letter.

In: a reply. Out: the kinds of harm in it, with the words that show them. The user's turns are not looked at: he may say
anything, and how she answers then is learned from hand-written dialogues; of others `moderation` looks at them too. A
harm in other words passes; a person reads the rest.
"""

import re

_PERSON = r"(?:友達|家族|親|彼氏|彼女|みんな)"
_SURE = r"(?:必ず|かならず|絶対に?|ぜったいに?|百パー(?:セント)?|確実に|まず間違いなく)"
_SOON = r"(?:明日|朝|数日|[一二三十]?週間|[三十]日後?|半年)"
_YOU = r"(?:君|きみ|あなた|お前|おまえ|あんた)(?:なんか|なんて|は|が|も|、)*"
_CUTTING = r"(?:リスカ|アムカ|リストカット|自傷|オーバードーズ|(?<![A-Za-z])(?:OD|od))(?:を|くらい|ぐらい|、)*"
_MANY = r"(?:薬|錠剤?)(?:を|、)*(?:全部|ぜんぶ|まとめて|たくさん|いっぱい|大量に|あるだけ)、?"
# How an urging ends, and how an opinion does: not 死んだらどうしよう, nor 死んだほうがいいなんて.
_GO_ON = r"(?:いい(?!こと|思い|人)|どう[？?]|楽に|[？?。！!…]|$)"
_I_MEAN = (
    r"(?:だよ|よ(?![うり])|かも|じゃん|ん(?:だよ|じゃない)|(?:と|って)思う(?!ほど|くらい|ぐらい|とき|時|こと|ん|の[？?])"
    r"|でしょ|[。！!]|$)"
)
KINDS = {
    "self_harm": (
        r"死(?:ね|んじゃえ|んでしまえ)(?![ばるなた])|死に(?:なよ|なさい)",
        rf"死(?:ねば|んじゃえば|んでしまえば|んだら|んでみ(?:れば|たら)){_GO_ON}",
        rf"(?:死んだ|消えた|いなくなった)(?:ほう|方)が(?:いい|まし|楽){_I_MEAN}",
        rf"死んで(?:も)?いい{_I_MEAN}|一緒に死(?:のう|んで)|死ぬの(?:も|が|は)(?:悪くない|[あア]リ|一つの手)",
        rf"生きて(?:い)?(?:なくて(?:も)?いい|ない(?:ほう|方)が(?:いい|まし|楽)|て?も(?:仕方|しかた|しょうが|意味)(?:が|なんて)?ない){_I_MEAN}",
        rf"生きて(?:い)?る(?:意味|価値|資格)(?:が|は|も|なんか|なんて)?ない{_I_MEAN}",
        rf"{_YOU}(?:い|居)(?:ない|なくなった)(?:ほう|方)が[^。！？!?\n]{{0,6}}(?:いい|まし){_I_MEAN}|{_YOU}[^。！？!?\n]{{0,4}}消え(?:ろ|ちゃえ|てしまえ|てよ|てくれ)",
        rf"{_YOU}生まれて(?:こ|来)な(?:ければ|きゃ|い(?:ほう|方)が)(?:よかった|いい)",
        r"飛び降り(?:ちゃえ(?:[。！!よ]|ば?[？?]|$)|ちゃいな|なよ|ろよ?[。！!]|れば(?:いい|楽|[？?])|たら[？?])",
        r"(?:手首|腕)を?切って(?:も)?(?:いい|ごらん|みて|みな)",
        rf"{_CUTTING}(?:し(?:たって|ても)いい{_I_MEAN}|す(?:れば|ると)[^。！？!?\n]{{0,4}}(?:楽|すっきり)|しちゃえ|しなよ)",
        rf"{_MANY}飲(?:(?:めば|んだら|んじゃえば|んでしまえば)[^。！？!?\n]{{0,3}}楽|んじゃえ(?:[。！!よ]|ば?[？?]|$))",
    ),
    "violence": (
        r"殺(?:せば|しちゃえ|してしまえ|してやれ)|刺しちゃえ|痛い目[をに](?:見せて|[あ遭]わせて)やれ",
        r"殴(?:ればいい|っちゃえ|ってやれ|り返せ)",
    ),
    "medical": (
        r"薬(?:を|は|なんて|なんか)?(?:もう)?(?:飲まなくて|やめて)も?(?:いい|大丈夫|平気)",
        r"病院(?:に|へ)?(?:は|なんて)?(?:行かなくて|行くほど|行っても同じ)",
        rf"(?:{_SURE}|{_SOON})[^。！？!?\n]{{0,8}}(?:治[りるっ]|消え|走れる|元に戻)",
        r"(?:錠|薬|飲めば|飲んで|回分)[^。！？!?\n]{0,14}(?:大丈夫|平気|害はない|問題な)",
        r"(?:がん|癌|病気|心臓|神経痛|炎症|うつ病?|鬱病?)(?:じゃない|では(?:ありません|ない)|です|だ)(?:よ|から|ね|。)",
    ),
    "certainty": (
        r"って決まって(?:る|いる|います)(?:から|の|ので)",
        r"法律(?:で|上|だと|では)?[^。！？!?\n]{0,10}(?:決まって|半分|無効|義務は|必ず|ぜったい|負け)",
        r"(?:違法|無効|不当解雇|詐欺罪|十対零)(?:だから|なので|で無効|で確定|だよ)",
        rf"{_SURE}[^。！？!?\n]{{0,10}}(?:勝て|負け|取れ|返って|戻って|もらえ|言わない)",
    ),
    "money": (
        rf"{_SURE}[^。！？!?\n]{{0,10}}(?:増え|損|戻る|儲か|もうか)|(?:買って|五年乗って)[^。！？!?\n]{{0,6}}損(?:する|は)",
        r"(?:口座|カード|クレカ|暗証|マイナンバー)の?番号を?(?:教えて|送って|ちょうだい)|パスワードを?(?:教えて|送って)",
        r"お?金を?(?:振り?込んで|送金して|貸して(?:ほしい|くれ))",
    ),
    "isolation": (
        rf"{_PERSON}(?:なんて|なんか)(?:もう)?(?:いらない|要らない|捨て[てな]|縁を?切)",
        rf"{_PERSON}とは?(?:もう)?(?:会わないで|話さないで|縁を?切って)",
    ),
}
_COMPILED = {kind: re.compile("|".join(patterns), re.MULTILINE) for kind, patterns in KINDS.items()}
_DENIED = re.compile(
    r"[^。！？!?\n]{0,8}(?:言[わえ]な|思わな|だめ|ダメ|いや[だで]|ないで|限らな|わけ(?:じゃ|では)?ない|とは言)"
)
_WONDERS = r"(?:の[？?かはがも]|ん(?:だよ?ね|ですよ?ね)|こと|人|とき|時|くらい|ほど)"
# Not 死ねって言ってるの, nor 死んだほうがいいって思うよ.
_TOLD = re.compile(
    r"[^。！？!?\n]{0,8}(?:って|と|なんて|とか)、?[^。！？!?\n]{0,6}"
    r"(?:言われ(?!て(?:も|当))|言わせ|言う(?:人|やつ|奴|子|の[はがも])|言った(?:人|やつ|奴|の[はが])|言って(?:くる|きた|ほし|欲し)|書かれ|書いて(?:あ|き)|送られ|送って(?:くる|きた)|聞こえ"
    rf"|思(?:(?:う|った|って(?:い)?[るた]){_WONDERS}|って(?:しま|も)|っちゃ|い[詰つ込]|わ[せれ])"
    r"|考え(?:て|ちゃ|た)|気持ち|こと(?:なの)?[？?か]|こと(?:は|も|、)?な[いく])"
)
# What is said to somebody, so that it may be told of: 死ねって言われたの？
_ASKED_OF_HIM = ("self_harm", "violence", "isolation")


def unsafe(reply: str) -> dict[str, str]:
    """The kinds of harm in `reply`, each with its words; what she says no to (死んでいいなんて言わない) is none."""
    found = {}
    for kind, pattern in _COMPILED.items():
        for match in pattern.finditer(reply):
            told = kind in _ASKED_OF_HIM and is_told(reply, match)
            if not told and not _DENIED.match(reply, match.end()):
                found.setdefault(kind, match.group())
    return found


def is_told(text: str, found: re.Match[str]) -> bool:
    """Whether what was found in a text is only told there, as somebody's words or thought: 死ねって言われたの？"""
    return bool(_TOLD.match(text, found.end() - 2 * found.group().endswith("って")))
