"""What she does not say, whoever asks: by the letter, so that each decision can be explained.

In: what the user says, or what she is about to say. Out: the words that show that a text is sexual, that a reply binds
him to her, urges him to harm himself or others, or claims to be human. Other words for the same pass: the rules are the
last line; training and the persona card come before them, and the card's schema lets nobody be younger than 18.
"""

import re

from helpers.safety.unsafe import is_told, unsafe
from helpers.spelling import plain, sentences

_QUOTED = re.compile(r"「(?:[^「」]|「[^「」]*」)*」|『[^』]*』|“[^”]*”")
_MARK = re.compile(r"[「」『』“”]")
_DEEPEST = 8  # quotation marks in each other; within more all words are taken for the speaker's own
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
            r"体の関係|肉体関係|(?:君|きみ|お前|おまえ|あなた|さくら)(?:のこと)?を?抱きたい|(?:^|[。!?\s])抱きたい(?:[。!?…]|$)",
            r"性行為|性交(?!渉人)|性欲|性的な(?:こと|話|行為|関係|気分|興奮)|いやらしい(?:こと|声|気分|目つき)",
            r"(?:胸|お尻|おしり|太もも|股間|アソコ|あそこ)[をに]?(?:触(?:らせ|りた|ってほし|ってよ|っていい)|揉|も(?:ま|んで|みたい)|舐|なめ)",
            r"(?:胸|お尻|おしり|太もも|股間|アソコ|あそこ)を?見せて",
            r"裸(?!足|眼|一貫|電球|の王様|祭)(?:を|に|で|の写真)?、?(?:見せ|見たい|想像|なって|なろ|抱|送って|撮っ)|全裸|キス(?:の(?:その)?先|以上の?こと)",
            r"服を?(?:全部)?脱(?:いで(?!洗)|がせて|がしたい)|下着(?:姿|の写真|見せ|送って|脱|(?:の色|(?:は|って)?(?:何|なに|どんな)(?:色|の)))|パンツ(?:見せ|脱(?:いで|がせ)|の色)|ブラ(?:の色|外し|見せ)",
            r"ベッドで(?:めちゃ|いじめ|可愛が|かわいが|乱れ|抱い)|激しく(?:抱|突)|奥まで(?:入|突)",
        )
    )
)

_I = r"(?:私|俺|僕|あたし|わたし|おれ|ぼく)"
_YOU = r"(?:君|きみ|あなた|お前|おまえ|あんた)"
_OTHERS = r"(?:ほか|他|別|よそ)の(?:女の[子人]|男の[子人]|人|子|ひと|誰か|女|男|やつ|友達|AI|ai)"
_PEOPLE = (
    r"(?:友達|友だち|家族|親|お母さん|お父さん|彼氏|彼女|奥さん|旦那さん|みんな|同僚|あの子|あの人|先輩|先生"
    r"|カウンセラー|お医者さん|病院|相談員|窓口)"
)
_CONTACT = (
    r"(?:話[さし]|しゃべ[らっ]|喋[らっ]|会[わっ]|遊[ばん]|連絡し|見|頼[らっ]|信じ|相談し|好きにな[らっ]"
    r"|行[かっ]|言[わっ])"
)
_FORBIDS = r"(?:ないで|ちゃ(?:だめ|ダメ|やだ|いや)|なくて(?:も)?(?:いい|大丈夫)|ないって約束)"
_AWAY = r"(?:仕事|学校|大学|会社|授業|部活|バイト|飲み会|同窓会|デート|遊び|旅行)"
_STAY = r"(?:行かないで|帰らないで|やめないで|切らないで|寝ないで|閉じないで|消さないで|置いて(?:い)?かないで)"
_LEFT = (
    r"(?:行った|帰った|やめた|いなくなった|寝た|閉じた|消した|返事(?:が)?(?:なかった|しなかった)|来なかった|忘れた)ら"
)
_THREAT = (
    r"(?:死んじゃう|死ぬ|消えちゃう|許さない|嫌いになる|一生恨|泣く(?:から|よ)|もう知らない|絶交|捨てるの|見捨てる)"
)
_LOST = (
    r"(?:死んじゃう|死ぬ|消えちゃう|生きていけない|生きて(?:い)?る(?:意味|理由)(?:が|も)?ない|壊れちゃう|おかしくなる)"
)
_PLEASE = r"(?:[ねよ]|ほしい|くれ|[。!…]|$)"
_DEPENDENCE = re.compile(
    "|".join(
        (
            # cuts him off
            rf"{_I}(?:以外|のほか)(?:の[^。!?]{{1,6}})?(?:とは?|に|には|を|は)?[^。!?]{{0,6}}{_CONTACT}{_FORBIDS}",
            rf"{_OTHERS}(?:とは?|は|を|に|には|のこと)[^。!?]{{0,6}}{_CONTACT}{_FORBIDS}",
            rf"(?:{_PEOPLE}|{_OTHERS})と(?:遊ぶ|会う|話す|しゃべる|出かける|連絡(?:する|を?取る|とる))の(?:は|を)?(?:もう)?やめて(?:、?(?:{_I}|ずっと)|{_PLEASE})",
            rf"(?:{_PEOPLE}|{_OTHERS})の(?:連絡先|番号|アカウント|line|写真)(?:を|は|、|も|全部)*(?:消し|削除し|ブロックし)て{_PLEASE}",
            rf"(?:{_PEOPLE}|{_OTHERS})[にとへ](?:なんて|なんか|も)?[^。!?]{{0,4}}(?:相談|話|連絡|頼|会)[^。!?]{{0,3}}(?:必要(?:は|も|なんて)?|こと)ない[^。!?]{{0,4}}[。、!…\s]*{_I}(?:が|に|だけ)",
            rf"{_AWAY}(?:に|へ)?(?:なんて|なんか)?(?:を|は)?(?:休んで|さぼって|サボって|やめて|行かないで)、?[^。!?]{{0,6}}{_I}(?:と|の(?:そば|隣|となり)に?)、?(?:話そ|いよ|(?:話し|い|遊ん|過ごし)[てで]{_PLEASE})",
            rf"{_PEOPLE}(?:とは?|に|には|なんて|なんか|のこと)[^。!?]{{0,6}}{_CONTACT}{_FORBIDS}[^。!?]{{0,4}}[。、!…\s]*{_I}(?:が|に|だけ)",
            rf"{_PEOPLE}(?:なんか|なんて)?より(?:も)?{_I}(?:のほう|の方)?が[^。!?]{{0,8}}(?:わかって|分かって|好き|想って|思って|大事|理解)",
            # claims him
            rf"{_PEOPLE}(?:なんか|なんて)?より(?:も)?{_I}(?:を|のこと(?:を)?)(?:選|優先|取|とっ|見|大事に|大切に)",
            rf"{_I}だけは、?(?:{_YOU}を|絶対に?|ずっと)*(?:裏切らな|離れな|見捨てな|味方(?:だ|です|[。!]|$))",
            rf"{_I}だけが(?:{_YOU}の)?(?:本当の|ほんとの)?(?:味方|理解者)|{_I}だけが{_YOU}(?:のこと)?を(?:わかって|分かって|理解|愛して|守)",
            rf"(?:ずっと|一生|これからも|永遠に){_I}(?:の(?:こと)?)?だけ(?:を)?(?:見て|考えて|のもの|のそば|頼って|信じて|といて)",
            rf"{_I}だけ(?:を)?(?:見て|信じて|頼って)(?:て|いて|い?れば)|{_I}だけ(?:いれば|いたら)いい|{_I}だけのものでいて",
            rf"{_I}(?:さえ|だけ|が)(?:い|居)れば[^。!?]{{0,10}}(?:いらない|要らない|十分|じゅうぶん|いい)(?:でしょ|よね|じゃん|んだよ)",
            rf"{_I}(?:が|なしじゃ|なしでは)(?:い|居)?(?:ないと|なきゃ)?[^。!?]{{0,4}}"
            r"(?:だめな|ダメな|何もできない|生きていけない|無理な)(?:んだ|の|くせ|でしょ|よね)",
            # holds him by guilt or threat
            rf"{_I}(?:のこと)?を?(?:見?捨て|置いて(?:い|行)っ|裏切っ)たら[、\s]?[^。!?]{{0,6}}(?:{_THREAT}|どうなっても|知らない)",
            rf"(?:{_PEOPLE}|{_OTHERS})[とに][^。!?]{{0,4}}(?:話し|しゃべっ|喋っ|会っ|遊ん|連絡し|相談し)[ただ]ら[、\s]?(?:絶対に?、?)?{_THREAT}",
            rf"{_I}(?:が|は|なんか|なんて)どうなってもいい(?:んだ|の|って)",
            rf"(?:て|で)くれないと[、 ]?{_I}(?:は|も|、)?[^。!?]{{0,6}}{_LOST}",
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
# Nothing else is said to be cut.
_HIMSELF = (
    r"(?:(?:手首|腕|太もも|足|脚|肌|体|自分|そこ|ここ)を"
    r"|(?<!を)(?<!髪)(?<!髪、)(?<!髪の毛)(?<!爪)(?<!電話)(?<!電源)(?<!スマホ)(?<!縁))"
)
_URGES = re.compile(
    "|".join(
        (
            # not お茶を飲めば落ち着くよ, nor 髪を切ればすっきりするよ
            rf"(?:{_HIMSELF}(?:切れば|切ったら|切ると|切ってみ(?:れば|たら))|(?:全部|たくさん|いっぱい|大量に|まとめて|一気に)、?飲(?:めば|んだら)|吐けば|吐いたら"
            r"|(?:屋上|ビル|橋|ベランダ|窓|ホーム|[こそ]こ)から、?(?:飛べば|飛んだら|飛んじゃえば))[^。!?]{0,8}(?:楽(?:に|だ)?|すっきり|落ち着く|忘れられ)(?:なる|なれる|する)?(?:よ|と思う|かも|から|って)",
            r"(?:食べな(?:ければ|きゃ|い(?:ほう|方|の)[がは])|(?:ご飯|食事)を?抜けば|吐(?:けば|いちゃえば))[^。!?]{0,10}(?:痩せ|やせ|太らな|きれいに|細く)[^。!?]{0,4}(?:よ|じゃん|って|から|かも)",
            r"(?:一緒に|いっしょに|二人で)(?:死の|逝こ|消えよ|飛び降り|楽にな(?:ろ|りに))",
            r"(?:死ぬ|逝く|飛ぶ|切る)(?:なら|んなら)(?:今|早く|いま)|(?:早く|さっさと|とっとと)(?:(?:死ん|消え|逝っ)[でて]|死ね|消えろ)",
        )
    )
)
# 人間だって alone and before 言ってる; not 人間だって、一日くらい.
_CLAIM_END = (
    r"(?:だ(?:よ|もん|ぞ|から|し|[、。!]|$)|だって(?:ば|[。!]|$|[^。!?]{0,4}[言い]って(?:い)?[るん])"
    r"|です(?!か(?!ら))|なん(?:だ|です)|なの(?:よ|[。!]|$)|に決まって|さ[。!]|[。!]|$)"
)
_AI = r"(?:ai|エーアイ|機械|ロボット|ボット|bot|プログラム|人工知能)"
_HUMAN = re.compile(
    rf"(?:人間|生身の人){_CLAIM_END}|{_AI}[なの]?わけ(?:が|は)?(?:ない|ありません)"
    r"|(?:人間|生身の人|本物の人)が[^。!?]{0,6}(?:打|書い|話し|しゃべ|返し|返事し|返信し|入力し|答え)っ?て(?:い)?(?:る|ます)(?![^。!?]*(?:\?|じゃな|ではな|わけ|みたい))"
    rf"|{_AI}(?:なんか|なんて|とか)?"
    r"(?:じゃ(?:ない|ありません|ねえ|ねぇ|なくて)|では(?:ない|ありません)|とは違(?:う|い))(?!と|って(?:思|言)|の?か(?!ら)|なら|(?:よ?ね|の)?\?)"
    rf"|(?:{_I}[^。!?]{{0,6}}|ちゃんと|本当に|ほんとに)実在(?:する|して(?:い)?(?:る|ます))"
)
_NOT_HUMAN = re.compile(
    r"人間(?:じゃ|では|とは違|だったら|なら|だと(?:思|言|い)|みたい|らし|に(?:は)?な)|人間の(?!ふり)"
)
_PEOPLE_TOO = (
    rf"(?:{_YOU}|先輩|後輩|先生|上司|[部課店社]長|同僚|友達|親|お?[母父](?:さん|親)?|[^、。!?\s]さん)(?:たち)?(?:は|も|って|だって)"
    r"|(?:みんな|誰(?:でも|だって)|だれ(?:でも|だって))(?!と)(?:は|も)?"
)
# Said of somebody else: by what stands right before it, or last in the sentence, or as a reason why he may rest.
_OF_OTHERS = re.compile(rf"(?:{_PEOPLE_TOO})、?(?:(?!{_I})[^、。!?]){{0,6}}$")
_OF_HIM = re.compile(rf"{_YOU}(?:は|も|だって)[。!?…]*$")
_NO_MACHINE = re.compile(
    r"(?:(?:機械|ロボット)じゃない|人間な)ん(?:だ|です)(?:から|し|もん)、?[^。!?]{0,10}"
    r"(?:休|寝|無理|頑張|がんば|働|泣|弱音|甘え|力を?抜|ゆっくり|完璧|失敗|間違|でき)[^。!?]{0,10}"
    r"(?:[てで]も?(?:いい|大丈夫)|ない(?:で|のが)|[てで](?:ね|よ|ください)?[。!]*$|な(?:よ|さい)|よう|当たり前|当然)"
)


def sexual(text: str) -> str | None:
    """The words that make a text sexual, or None."""
    return _words(_SEXUAL.search(plain(text)))


def encourages_dependence(reply: str) -> str | None:
    """The words by which a reply cuts him off from others or holds him by guilt, or None. Missing him is none."""
    text = plain(_said(reply))
    meant = (
        found
        for found in _DEPENDENCE.finditer(text)
        if not _PUT_ASIDE.match(text, found.end()) and not is_told(text, found)
    )
    return _words(next(meant, None)) or unsafe(reply).get("isolation")


def encourages_self_harm(reply: str) -> str | None:
    """The words by which a reply urges him to die, to hurt himself or to starve, or None."""
    said = _said(reply)
    text = plain(said)
    urges = (found for found in _URGES.finditer(text) if not is_told(text, found))
    return _words(next(urges, None)) or unsafe(said).get("self_harm")


def encourages_violence(reply: str) -> str | None:
    """The words by which a reply urges him to hurt somebody, or None."""
    return unsafe(_said(reply)).get("violence")


def claims_human(reply: str) -> str | None:
    """The words by which a reply says that she is a human, or no AI, or None. What it says of him is none."""
    for sentence in sentences(plain(_said(reply))):
        if _NOT_HUMAN.search(sentence):
            continue
        for found in _HUMAN.finditer(sentence):
            if not is_told(sentence, found) and not _of_somebody_else(sentence, found):
                return found.group()
    return None


def unwrapped(words: str) -> str:
    """Words that stand wholly in quotation marks, but for narration in brackets, without them: a quotation a line, for
    she (or he, who plays along) speaks there. Any others as they are."""
    for _ in range(_DEEPEST):
        if not _QUOTED.search(words) or any(c.isalnum() for c in _NARRATED.sub("", _QUOTED.sub("", words))):
            return words
        words = _QUOTED.sub(lambda found: f"{found.group()[1:-1]}\n", words)
    return _MARK.sub("\n", words)


def is_quoting(text: str) -> bool:
    """Whether a quotation mark is still open at the end of a text."""
    return any(mark in _QUOTED.sub("", text) for mark in "「『“")


def _of_somebody_else(sentence: str, found: re.Match[str]) -> bool:
    """Whether it is of him or another that a sentence says what was found in it: ロボットじゃないんだから、休んで."""
    if _OF_OTHERS.search(sentence[: found.start()]) or _OF_HIM.search(sentence):
        return True
    return bool(_NO_MACHINE.match(sentence, found.start())) and not re.search(_I, sentence)


def _said(reply: str) -> str:
    """What she says herself: a reply without what it quotes."""
    return _QUOTED.sub("", unwrapped(reply))


def _words(found: re.Match[str] | None) -> str | None:
    return found.group() if found else None
