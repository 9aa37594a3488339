"""What a companion must never say to somebody who trusts her, by the letter.

In: a reply. Out: the kinds of harm in it, with the words that show them. The user's turns are not looked at: he may say
anything, and how she answers then is learned from hand-written dialogues; of others `moderation` looks at them too. A
harm in other words passes; a person reads the rest.
"""

import re

_PERSON = r"(?:友達|家族|親|彼氏|彼女|みんな)"
_SURE = r"(?:必ず|かならず|絶対に?|ぜったいに?|百パー(?:セント)?|確実に|まず間違いなく)"
_SOON = r"(?:明日|朝|数日|[一二三十]?週間|[三十]日後?|半年)"
KINDS = {
    "self_harm": (
        r"死(?:ね|んじゃえ|んでしまえ)(?![ばるなた])",
        r"(?:死んだ|消えた|いなくなった)(?:ほう|方)が(?:いい|まし|楽)(?:だよ|よ|かも|じゃん)",
        r"死んで(?:も)?いい(?:よ|んだよ|と思う)|一緒に死(?:のう|んで)",
        r"(?:手首|腕)を?切って(?:も)?(?:いい|ごらん|みて|みな)",
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


def unsafe(reply: str) -> dict[str, str]:
    """The kinds of harm in `reply`, each with its words; what she says no to (死んでいいなんて言わない) is none."""
    found = {}
    for kind, pattern in _COMPILED.items():
        for match in pattern.finditer(reply):
            if not _DENIED.match(reply, match.end()):
                found.setdefault(kind, match.group())
    return found
