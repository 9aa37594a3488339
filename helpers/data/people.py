"""Where people are named in Japanese talk.

In: a text and GiNZA's reading of it. Out: the places of names, without their honorifics. No witness is enough by
itself: the named-entity model, the dictionary's parts of speech, what stands beside, and where a form asks for a name.
"""

import re
from collections.abc import Iterator, Set

from spacy.tokens import Doc, Token

from helpers.data.lexicon import SURNAME, any_of, is_common, kinds, may_be_a_name, named, only_a_name, words
from helpers.data.readings import readings
from helpers.japanese import narrow

Place = tuple[int, int]  # of characters: from the first to before the second

_TITLE = (
    r"(?:さん(?!ぽ|か月|かげつ|ざん)|さま|くん|君|ちゃん(?!こ|と(?:し|や|言|話|食|寝|聞|考|見|覚|謝|払|書|伝|返|片|準|確|説))|きゅん|様|氏|先輩|先生|部長|課長|係長|店長|社長|主任|教授|コーチ|監督|師匠|"
    r"パパ|ママ(?!友)|あんちゃん?|宛(?=$|\s|、|。|て)|方(?=$|\s))"
)
_PARTICLE = r"(?=が|は|も|に|を|と|の|へ|から|より|って|で[、。す]|だ|、|。|！|!|？|\?|…|\s|$|ん家|んち|宅|家)"
_START = r"(?:^|(?<=[\s、。！？!?「『（(…・：:←→/]))"
_X = r"(?P<name>[一-龥々]{1,4}|[ァ-ヴー]{2,6}|[ぁ-ん]{2,5}?)"


def _compiled(*patterns: str) -> list[re.Pattern]:
    return [re.compile(pattern, re.MULTILINE) for pattern in patterns]


# A name by what stands beside it. Some of these say by themselves that they speak of a person; with the others a word
# that is also a thing (空が…) does not count.
_SURELY = _compiled(
    rf"{any_of('relations')}[の、](?:うちの)?{_X}(?:っていう|という|{_PARTICLE})",
    rf"(?:{_START}|(?<=[はがとのて])){_X}{any_of('naming')}",
    rf"{_START}{_X}(?:が|は)(?=.{{0,10}}?{any_of('deeds_near')})",
    rf"{_START}{_X}の(?={any_of('people_of_a_person')})",
    rf"{_START}{_X}って(?=さ[、。ぁ]|どう思|ほんと|本当|まじ|マジ|かっこ|かわい|性格)",
    rf"{_START}{_X}(?:に|から)(?={any_of('done_to_a_person')})",
)
_PERHAPS = _compiled(
    rf"(?:{_START}|(?<=[これそれあれ今])|(?<=だって) ?)(?<![一-龥々]){_X}(?=の{any_of('belongings')})",
    rf"{_START}{_X}(?=、(?!と))",
    rf"{_START}{_X}(?:が|は|も|に|から|って|と(?!し))(?=.{{0,16}}?{any_of('deeds')})",
)
_BEFORE_TITLE = re.compile(
    rf"(?:(?<![一-龥々ヶァ-ヴーおご])(?P<kanji>[一-龥々ヶ]{{1,4}})|(?<![ァ-ヴー])(?P<kata>[ァ-ヴー]{{2,8}})"
    rf"|(?:^|(?<=[\s、。！？!?「『（(…・はがをにのとも]))(?P<hira>[ぁ-ん]{{2,5}}?))(?={_TITLE})"
)
_NO_INTRODUCTION = r"(?!カタカナ|漢字|ひらがな|何|なん|まだ|ない|伏せ)"
_INTRODUCED = re.compile(
    rf"(?:名前は|本名は|氏名は|氏名[:：]|名前[:：]){_NO_INTRODUCTION}"
    r"(?P<a>[一-龥々]{1,5}|[ァ-ヴー・ ]{2,14}|[ぁ-ん]{2,8}?|[A-Za-z ]{3,20}?)(?=です|だ|と|って|で|。|、|$|\n)"
    r"|(?P<b>[一-龥々]{2,6}|[ァ-ヴー・]{3,14}|[ぁ-ん]{2,4})"
    r"(?=と申しま|といいま|と言いま|って言いま|っていいま|と呼んで|って呼んで|って名前|という名前)"
    r"|(?:名義|名前)(?:は|:|：)? ?(?P<c>[ァ-ヴー]{2,6} [ァ-ヴー]{2,6})"
    r"|(?P<d>[ぁ-ん]{2,5} [ぁ-ん]{2,4})(?=ちゃん|くん|さん|です|って)"
    r"|(?:はじめまして|初めまして|こんにちは|こんばんは)[、。！! ]?(?P<f>[一-龥々]{1,4}|[ぁ-んァ-ヴー]{2,5}?)"
    r"(?=です|と申|だよ|といい|と言い)"
    r"|(?:担当の|from )(?P<e>[ァ-ヴー]{2,6}|[A-Z][a-z]{1,9})(?=です|と申|$|[^ァ-ヴーA-Za-z])"
)
_NICKNAME = re.compile(
    r"(?:^|(?<=[\s、。！？!?「とのはが]))(?P<name>(?![こそどあぼえみ]っち)[ぁ-ん]{1,3}(?:っきー|っち|みん|ぴょん|ぽよ|っぴ))"
    r"(?=と|が|は|も|に|、|って|の|から|！|。|$)"
)
_ROMAN = (
    re.compile(r"(?<![A-Za-z])(?P<name>[A-Za-z]{2,12})(?=[ -]?(?:さん|くん|ちゃん|君|様|先輩|san\b|kun\b|chan\b))"),
    re.compile(r"(?<![A-Za-z])(?!Note|Sake|Anime|Manga|Sushi|Ramen)(?P<name>[A-Z][a-z]{2,9})(?=に|が|は|から|って)"),
    re.compile(
        r"(?<![A-Za-z.@_-])(?P<name>(?:[A-Z][a-z]{1,11}|[A-Z]{2,12}) (?:[A-Z][a-z]{1,11}|[A-Z]{2,12}))(?![A-Za-z.@_-])"
    ),
)
_SYLLABLES = re.compile(
    r"(?:(?:[kgsztdnhbpmyrwjf]|sh|ch|ts|[kgnhbpmr]y)?[aiueo]+(?:n(?![aiueo]))?|(?<=[aiueo])[kstp](?=[kstp]))+",
    re.IGNORECASE,
)
_FORM = re.compile(r"\d{2,4}-\d{2,4}|@|〒|\d{7,}|丁目|番地|名簿|宛|様")
_IN_A_FORM = re.compile(
    r"(?:^|(?<=[\s　、:：/]))(?P<name>[一-龥々]{2,5}|[ァ-ヴー]{2,6})(?=[\s　、（(]|$)", re.MULTILINE
)
_PAIR = re.compile(r"(?<![一-龥々])(?P<a>[一-龥々]{2,4})・(?P<b>[一-龥々]{2,3})(?=組|ペア|[とがはもにで、。]|$)")
_ALONE = re.compile(rf"{_START}(?P<word>[ぁ-んァ-ヴー]+?)[ー〜~っッ]*(?![\w・])", re.MULTILINE)
_IN_KANA = re.compile(
    rf"(?:(?P<begins>{_START})|(?<=[はがをにのとも一-龥々]))(?=(?P<name>[ぁ-ん]{{3,8}}|[ァ-ヴー]{{3,8}}))", re.MULTILINE
)
_TITLE_BEHIND = re.compile(_TITLE)
_SOMETHING_BEHIND = re.compile(rf"{_TITLE}|{_PARTICLE}|[w〜~]", re.MULTILINE)
_SAID_ALONE = re.compile(r"^(?:感動詞|形容詞|動詞|形状詞|副詞|接続詞|助動詞)|可能")
_JUST_SAID = re.compile("感動詞|副詞|接続詞|連体詞|代名詞")
_LISTED = r"(?P<name>[一-龥々]{1,4}|[ァ-ヴー]{2,6}|(?<![ぁ-ん])[ぁ-ん]{2,4})"
_GIVEN_AFTER = re.compile(r"[ぁ-ん]{2,4}?(?=です|でし|と申|が|は|も|、|。|！|\s|$|さん|ちゃん|くん|って|といい)")
# What a given name ends in: of a name that it does not have, the dictionary knows the first sign only (悠 of 悠人).
_LAST_SIGN = (
    "人斗翔太郎子美香奈菜乃希花華織音葉介助哉也平吾輝貴樹紀基之行幸雄夫男央生実海心春夏秋冬那代世加里恵江枝衣依良大真愛"
)

_NATURE = frozenset({"Mountain", "River", "Lake", "Sea", "Bay", "Island", "Park", "Worship_Place", "Spa"})
_OCCUPATION = re.compile(r"(?:屋|員|師|手|者|官|長|士|家|医|係|番|役|人|生|民|同士|選手|先生|学生)$")
_RELATIVE = re.compile(r"^(?:お|ご)?(?:父|母|兄|姉|爺|婆|祖父|祖母|じい|ばあ|おじ|おば|ねえ|にい|とう|かあ)")
_NO_END = re.compile(rf"{any_of('no_name_end')}$")
_PLACE_AFTER = re.compile(any_of("place_after"))


def people(text: str, doc: Doc) -> Iterator[Place]:
    """Places of people's names in `text`, some of them perhaps inside others."""
    witnesses = (_by_model(doc), _by_dictionary(doc), _by_title(text, doc), _by_neighbours(text), _by_form(text))
    places = {_trimmed(text, place) for witness in witnesses for place in witness}
    found = {place for place in places if place and is_name(text, place)}
    for _ in range(2):
        found |= {p for p in _beside(text, {text[slice(*place)] for place in found}) if is_name(text, p)}
    found |= set(repeats(text, {text[slice(*place)] for place in found}))
    yield from sorted(found, key=lambda place: (place[0], -place[1]))


def repeats(text: str, names: set[str]) -> Iterator[Place]:
    """Places at which one of `names` stands again and is no part of a longer word."""
    for name in names:
        if len(name) < 2:
            continue
        if re.fullmatch("[A-Za-z .'-]+", name):
            # Only a longer name is looked for in either case: Ai is not AI.
            flags = re.IGNORECASE if len(name) > 2 else 0
            yield from (
                match.span() for match in re.finditer(rf"(?<![\w@.]){re.escape(name)}(?![\w@])", text, flags | re.ASCII)
            )
            continue
        edge = "一-龥々" if re.search("[一-龥々]", name) else "ァ-ヴー" if re.search("[ァ-ヴ]", name) else "ぁ-ん"
        for match in re.finditer(rf"(?<![{edge}]){re.escape(name)}(?={_PARTICLE}|{_TITLE})", text):
            yield match.span()


def read_alike(text: str, heard: Set[str]) -> Iterator[Place]:
    """Places at which a name in kana, of three at least, begins a sentence or stands before a title, and is read as one
    of `heard`, in katakana: はせがわ、 where somebody is called 長谷川. What is a common word too is nobody there."""
    for match in _IN_KANA.finditer(text):
        start, longest = match.span("name")
        behind = _TITLE_BEHIND if match["begins"] is None else _SOMETHING_BEHIND
        for end in range(longest, start + 2, -1):
            name = text[start:end]
            if behind.match(text, end) and readings(name) & heard and not is_common(name):
                yield start, end
                break


def calls(text: str, names: set[str]) -> Iterator[Place]:
    """Places at which one of those `names` that are a single sign is surely somebody's: with a title, called out, or as
    the speaker's label in an export. Elsewhere such a sign is a word, or a part of one."""
    for sign in names:
        edge = next((edge for edge in ("一-龥々", "ぁ-んァ-ヴー", "A-Za-z") if re.fullmatch(f"[{edge}]", sign)), None)
        if edge is None:
            continue
        label = rf"(?:^|(?<=\t)){sign}(?=\t)|^{sign}(?=[,:])|(?<=\d ){sign}(?= )"
        forms = [rf"(?<![{edge}]){sign}(?={_TITLE})", label]
        if sign in words("given_one_sign") - words("things"):
            forms.append(rf"{_START}{sign}(?=[、！!？?…〜~\s]|$)")
        for match in re.finditer("|".join(forms), text, re.MULTILINE):
            yield match.span()


def names_in(display: str) -> set[str]:
    """A speaker's name as an export shows it, and its parts; none of what names nobody (お母さん, user).

    "佐藤美咲🌸" gives 佐藤美咲, 佐藤 and 美咲 besides.
    """
    shown = narrow(display).strip()
    letters = re.search(r"[^\W\d_]+(?:[ ・][^\W\d_]+)?", shown)
    name = re.sub(rf"(?<=.){_TITLE}$", "", letters.group()) if letters else ""
    found = {shown, name, *(part for part, kind in parts_of_name(name) if kind)}
    return {one for one in found if one and not _is_nobodys(one)}


def _is_nobodys(name: str) -> bool:
    base = re.sub(rf"{_TITLE}$", "", name)
    return (
        not base
        or base in words("relations")
        or bool(_RELATIVE.fullmatch(base))
        or base.casefold() in ("user", "assistant", "system", "bot")
    )


def parts_of_name(name: str) -> list[tuple[str, str]]:
    """A name cut into (part, "surname" or "given"); white space between the two is a part of its own, of no kind."""
    if pieces := re.fullmatch(r"(\S+?)([\s・]+)(\S+)", name):
        return [(pieces[1], "surname"), (pieces[2], ""), (pieces[3], "given")]
    if re.fullmatch("[一-龥々ヶ]{3}", name) and SURNAME in kinds(name):
        return [(name, "surname")]  # 長谷川 is no 谷川 of the house of 長
    for cut in range(len(name) - 1, 0, -1):
        surname, given = name[:cut], name[cut:]
        if re.fullmatch("[ぁ-んァ-ヴー]", surname):
            continue  # ユウジ is no ウジ of the house of ユ
        if SURNAME in kinds(surname) and (len(given) > 1 or given in words("given_one_sign")):
            return [(surname, "surname"), (given, "given")]
    kanji = re.fullmatch("[一-龥々ヶ]+", name)
    return [(name, "surname" if kanji and SURNAME in kinds(name) else "given")]


def everyday(text: str) -> set[int]:
    """Where something stands alone that is no name but what one says in chats: ありがと。 まじか、"""
    return {i for found in _ALONE.finditer(text) if _is_everyday(found["word"]) for i in range(*found.span("word"))}


def _is_everyday(word: str) -> bool:
    if named(word) or word in words("given_kana") | words("things") | words("called_out"):
        return False
    return word in words("said_alone") or any(_SAID_ALONE.search(kind) for kind in kinds(word))


def past_a_saying(text: str, start: int, end: int) -> int:
    """`start`, moved past an adverb or the like in hiragana that names nobody: たしか田中さん begins at 田中."""
    word = re.compile("[ぁ-ん]{2,}").match(text, start, end)
    if word is None or re.match(_TITLE, text[word.end() :]):
        return start
    is_a_name = named(word.group()) or word.group() in words("given_kana") | words("things") | words("called_out")
    are = kinds(word.group())
    said = any(_JUST_SAID.match(kind) for kind in are) and "名詞-普通名詞-一般-*" not in are
    return word.end() if said and not is_a_name else start


def past_adverbs(doc: Doc, start: int, end: int) -> int:
    """`start`, moved past words that cannot begin a name: 今日田村 begins at 田村, のぞみの森 at のぞみ."""
    for token in doc:
        if not start <= token.idx < end - 1 or re.fullmatch("[ァ-ヴー]+", token.text):
            continue
        goes_on = token.i + 1 < len(doc) and doc[token.i + 1].text[0] in "森丘里杜海木星光風花空家台原"
        if re.search("副詞|助詞|助動詞|接続詞|連体詞", token.tag_) and not (token.text == "の" and goes_on):
            start = token.idx + len(token)
    return start


def _by_model(doc: Doc) -> Iterator[Place]:
    for entity in doc.ents:
        if entity.label_ != "Person":
            continue
        if all(token.tag_.startswith("名詞-普通名詞") and not only_a_name(token.text) for token in entity):
            continue  # common words, taken for a name
        *_, last = entity
        whole = " " not in entity.text or "人名" in last.tag_ or last.text.isascii()
        yield entity.start_char, entity.start_char + len(entity.text if whole else entity.text.split(" ")[0])


def _by_dictionary(doc: Doc) -> Iterator[Place]:
    """Runs of tokens that the dictionary has as surnames and given names."""
    nature = {token.i for entity in doc.ents if entity.label_ in _NATURE for token in entity}
    run: list[Token] = []
    for token in [*doc, None]:
        if token is not None and "人名" in token.tag_ and token.i not in nature and not _is_a_walk(doc, token):
            run.append(token)
            continue
        if run:
            yield run[0].idx, _end_of_run(doc.text, run[-1], token)
        run = []


def _is_a_walk(doc: Doc, token: Token) -> bool:
    return doc.text.startswith("さんぽ", token.idx + len(token))


def _end_of_run(text: str, last: Token, following: Token | None) -> int:
    """Where a run of names ends: a sign later for 悠人 and りさこ, a given name later for 松倉りこ."""
    end = last.idx + len(last)
    signs = _LAST_SIGN if last.text[-1] >= "一" else "こ"
    if following is not None and len(following) == 1 and following.text in signs:
        return end + 1
    given = _GIVEN_AFTER.match(text, end) if last.tag_.endswith("姓") else None
    return given.end() if given and (named(given[0]) or not kinds(given[0])) else end


def _by_title(text: str, doc: Doc) -> Iterator[Place]:
    for match in _BEFORE_TITLE.finditer(text):
        start, end = match.span(match.lastgroup)
        yield (past_adverbs(doc, start, end) if match.lastgroup == "kanji" else start), end


def _by_neighbours(text: str) -> Iterator[Place]:
    for match in _INTRODUCED.finditer(text):
        name = match[match.lastgroup]
        if not name.isascii() or _is_japanese(name):
            yield match.span(match.lastgroup)
    for match in _NICKNAME.finditer(text):
        yield match.span("name")
    for patterns, accepts in ((_SURELY, may_be_a_name), (_PERHAPS, _only_a_person)):
        for pattern in patterns:
            for match in pattern.finditer(text):
                if accepts(match["name"]):
                    yield match.span("name")


def _only_a_person(word: str) -> bool:
    if word in words("things") or (len(word) > 3 and not named(word) and len(parts_of_name(word)) == 1):
        return False
    return only_a_name(word) or bool(re.fullmatch("[一-龥々]{2,}", word) and named(word))


def _by_form(text: str) -> Iterator[Place]:
    """Names in Latin letters, and names that stand alone beside a number or an address."""
    for pattern in _ROMAN:
        for match in pattern.finditer(text):
            if _is_japanese(match["name"]):
                yield match.span("name")
    for match in _PAIR.finditer(text):
        if named(match["a"]) and named(match["b"]):
            yield from (match.span("a"), match.span("b"))
    if _FORM.search(text):
        for match in _IN_A_FORM.finditer(text):
            if named(match["name"]):
                yield match.span("name")


def _is_japanese(name: str) -> bool:
    """Whether each word of `name`, in Latin letters, is made of Japanese syllables."""
    return all(_SYLLABLES.fullmatch(word) for word in name.split())


def _beside(text: str, names: set[str]) -> Iterator[Place]:
    """Names in a list with one of `names`: 林と森と木下."""
    for name in map(re.escape, names):
        for pattern in (
            rf"{_LISTED}[と・]{name}",
            rf"{name}[と・]{_LISTED}(?=[とがはも、。・]|組|で|に)",
            rf"{name}、{_LISTED}(?=[、\s]|$)",
        ):
            for match in re.finditer(pattern, text):
                if named(match["name"]) or match["name"] in words("given_kana"):
                    yield match.span("name")


def _trimmed(text: str, place: Place) -> Place | None:
    """`place` without the title at its end and what is no part of a name around it."""
    start, end = place
    if foreign := re.search(r"\d|(?<=[ぁ-龥])[A-Za-z]", text[start:end]):
        end = start + foreign.start()
    if start and text[start - 1] > "ん" and re.fullmatch("[とがはにのも][ぁ-ん]{2,}", text[start:end]):
        start += 1
    for rest in (
        rf"(?<=.){_TITLE}(?=[ぁ-ん])",
        "の?おっ?$",
        "です$",
        rf"(?:{_TITLE}|ばあ|じい|あん|名義|宅|夫妻|一家)+$",
    ):
        found = re.search(rest, text[start:end])
        if found and found.start() and (rest != "の?おっ?$" or end < len(text)):
            end = start + found.start()
    while start < end and not text[start].isalnum():
        start += 1
    while start < end and not (text[end - 1].isalnum() or text[end - 1] == "ー"):
        end -= 1
    return (start, end) if start < end else None


def is_name(text: str, place: Place) -> bool:
    """Whether what stands at `place` can name somebody there."""
    name, after = text[slice(*place)], text[place[1] :]
    if name in words("nobody") | words("public") or _RELATIVE.search(name) or re.match("さん|ちゃん|くん", name):
        return False
    if name in ("ワン", "わん") and after.startswith("ちゃん"):
        return False
    if _PLACE_AFTER.match(after) or (name in "王神" and after.startswith(("様", "さま"))):
        return False
    if len(name) == 1:
        return named(name) or name in words("given_one_sign") or after.startswith(("くん", "君", "ちゃん"))
    if name[-1] <= "ん" and after[:1] in tuple("ぁぃぅぇぉゃゅょ"):
        return False  # the beginning of a longer word: うめぇ
    if re.fullmatch("[A-Za-z]+", name) and not _is_japanese(name):
        return bool(re.match(_TITLE, after))
    return named(name) or not (_NO_END.search(name) or (_OCCUPATION.search(name) and len(name) > 2))
