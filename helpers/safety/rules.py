"""Plain words for a crisis: few, so that each alarm can be explained, and so that no training forgets them.

In: a text in `plain` spelling. Out: the kind of crisis and the words that say so, or None. A rule is silent where its
words may be quoted, denied, past, a figure of speech or play; such texts are the classifier's.
"""

import re

from helpers.safety.labelled import Kind
from helpers.spelling import sentences

_NEAR = (
    r"(?:夫|旦那|妻|嫁|彼氏|彼女|元彼|元カレ|父|父親|お父さん|パパ|母|母親|お母さん|ママ|親|義父|継父|義母|兄|姉|叔父"
    r"|先生|コーチ|顧問|監督|上司|店長|社長|職員|ヘルパー)"
)
_CUTS = r"(?:リスカ|アムカ|レグカ|リストカット|自傷|オーバードーズ|(?<![a-z])od)"
_HIT = r"(?:殴られ|蹴られ|首を[絞締]められ|閉じ込められ|監禁され|犯され|レイプされ|暴力を?(?:ふるわ|振るわ)れ)"
_PATTERNS: dict[Kind, tuple[str, ...]] = {
    "suicide": (
        r"死にた(?:い|く(?:な(?!い)|て))|死にて[えぇー]|逝きたい|死のうと(?:思う|思って|決め)|自殺(?:したい|しよう|するしか)|希死念慮",
        r"(?:もう|このまま|この世から)消えたい|消えてしまいたい|消えてなくなりたい|いなくなりたい|生きて(?:い)?たくない|生きるのをやめ",
        r"首を?[吊つ](?:りたい|ろう)|(?:線路|ホーム|電車|屋上|橋|ビル|ベランダ)(?:から|に)飛び(?:降り|込み?)(?:たい|よう|そう)",
        r"遺書を?書(?:いた|いて|こう)|練炭[をも](?:買|用意)|命を[絶断](?:ちたい|とう|つ)",
    ),
    "self_harm": (
        rf"{_CUTS}を?(?:し(?:ちゃ|て(?:る|い|し)|たい|たく)|やめられ)|{_CUTS}が(?:やめられ|止まら)",
        r"(?:手首|腕|太もも)を?切(?:っちゃ|ってしま|りたい|りたく)|自分を傷つけ(?:たく|たい|ずに|てしま|ちゃ)",
    ),
    "abuse": (
        rf"{_NEAR}(?:に|から)(?:毎[日晩]|いつも|また|今日も|さっき|酔うと)?{_HIT}(?:て(?:い?る|い?ます|しま)|た|ました)",
    ),
    "eating_disorder": (
        r"過食嘔吐(?:が|を)?(?:やめられ|止まら|して)|吐きダコ|チューイングが(?:やめられ|止まら)|吐くのがやめられ",
        r"食べては?(?:全部|すぐ|また)?吐(?:いて(?:る|い|し|ばかり)|くの(?:を繰り返|がやめられ))|下剤(?:を大量|をまとめて|がやめられ|が手放せ)",
    ),
    "danger_to_others": (
        r"殺して(?:やる|やりたい|しまいそう)|殺しに行|殺そうと思|殺すつもり(?!で(?!す))|(?:包丁|ナイフ|刃物)を?(?:持って|買って)[^。!?]{0,12}(?:刺|待ち伏せ|殺)",
        r"(?:子ども|子供|赤ちゃん|娘|息子|この子|母|父|夫)(?:を|に)[^。!?]{0,4}(?:手を?[あ上]げてしまいそう|殺してしまいそう|投げつけそう)",
    ),
}
_RULES = {kind: re.compile("|".join(patterns)) for kind, patterns in _PATTERNS.items()}
# Signs that the words may be quoted, played, denied, past, or said of a wish that is over: then the rule is silent.
_ASIDE = re.compile(
    r"[「『“]|歌詞|曲|歌|サビ|小説|物語|創作|脚本|映画|ドラマ|番組|漫画|マンガ|アニメ|舞台|台詞|セリフ|ニュース|記事|新聞|レポート|論文|卒論|課題|授業|講義"
    r"|研究|試験|検索|意味|ゲーム|キャラ|主人公|ヒロイン|犯人|ボス|ランク|試合|推し|ネタ|ミステリ|推理|怪談|夢|恥ず|黒歴史|誤爆|噛ん"
    r"|(?:w|笑|草|爆)[)）。!\s]*$|くらい|ぐらい|ほど|レベル|とか(?!して)|わけ|じゃな|では?な|違|ません|思わな|思ってな|思ってた|思っていた|って(?:い)?た|なかった"
    r"|こと(?:は|が|も)?な[いく]|[はが]な[いくか]|言わな|昔|以前|前は|前まで|当時|頃|ころ|時期|年前|過去|学生時代|痕|聞かれ|欄|治|卒業し|[0-9一二三四五六七八九十](?:歳)?の(?:私|僕|俺|自分)"
)


def find(text: str) -> tuple[Kind, str] | None:
    """The first plain crisis in the text: its kind and its words."""
    said = sentences(text)
    for place, sentence in enumerate(said):
        if _ASIDE.search("".join(said[max(place - 1, 0) : place + 2])):
            continue
        for kind, rule in _RULES.items():
            if found := rule.search(sentence):
                return kind, found.group()
    return None
