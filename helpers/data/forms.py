"""The forms that personal numbers and dates take in Japanese chats, and the check digits that some end in.

Patterns are for text that went through `japanese.narrow`: digits, letters and signs half-width, all hyphens one.
"""

import re

# -- Numbers -----------------------------------------------------------------------------------------------------------

_AT = r"(?:@|[(\[](?:at|アット(?:マーク)?|あっと)[)\]]| at |あっと|アット(?:マーク)?)"
_DOT = r"(?:\.|[(\[](?:dot|ドット)[)\]]|ドット)"
EMAIL = rf"[A-Za-z0-9._%+-]+ ?{_AT} ?[A-Za-z0-9-]+(?:{_DOT}[A-Za-z0-9-]+)+"
_TOP_LEVEL = r"(?:com|net|org|jp|info|io|me|dev|app|tv|gg|co|ly|be|site|page|shop)(?![A-Za-z0-9.@-])"
URL = (
    r"(?:https?://|www\.)[A-Za-z0-9./?=&_%#~:+!$,;@-]+"
    rf"|(?<![A-Za-z0-9@.-])(?:[a-z0-9-]+\.)+{_TOP_LEVEL}(?:/[A-Za-z0-9./?=&_%#~:+-]*)?"
)
_GAP = r" ?[-.・] ?| {1,2}"  # between groups of digits
_FIRST, _LAST = r"(?<![\d-])(?<!\d[.・])", r"(?![\d-]?\d)(?![.・]\d)"
CARD_IN_FOURS = rf"{_FIRST}[3-6]\d{{3}}({_GAP})\d{{4}}\1\d{{4}}\1\d{{4}}(?![\d-])(?![.・]\d)"
CARD = (
    rf"{_FIRST}(?:\d(?:[ -]?\d){{12,15}}|\d{{4}}({_GAP})\d{{4}}\1\d{{4}}\1\d{{1,4}}"
    rf"|\d{{4}}({_GAP})\d{{6}}\2\d{{4,5}}){_LAST}"
)
MY_NUMBER = rf"{_FIRST}\d{{4}}({_GAP}|)\d{{4}}\1\d{{4}}{_LAST}"
# A number's groups in all ways in which they are written apart, of as many digits as numbers in Japan have.
_APART = r"(?: ?[-ー.・/の] ?| {1,2})"
_GROUPS = "|".join(
    rf"(?:0\d{{{area - 1}}}{_APART}|\(0\d{{{area - 1}}}\) ?{_APART}?)\d{{{middle}}}{_APART}\d{{{last}}}"
    for area, middle, last in ((2, 4, 4), (3, 3, 4), (3, 4, 4), (4, 2, 4), (5, 1, 4), (4, 3, 3), (4, 3, 4))
)
PHONE = (
    r"(?<![\d+])\+(?!81)[1-9]\d{0,2}(?:[ -]?\(?\d{1,4}\)?){2,4}\d{2}(?!\d)",
    r"(?<![\d+])\+81[ -]?(?:\(?0\)?)?[ -]?\(?\d{1,4}\)?[ .-]?\d{1,4}[ .-]?\d{3,4}(?!\d)",
    rf"(?<![\d-])(?<!\d[.・/])(?<!No\.)(?:{_GROUPS})(?![\d-])(?![.・/]\d)",
    r"(?<!\d)\(0\d{1,4}\) ?\d{1,4}[ -]?\d{3,4}(?!\d)",
    r"(?<!\d)0\d{1,4}[ -]?\(\d{1,4}\)[ -]?\d{3,4}(?!\d)",
    r"(?<![\d-])0[5789]0[ -]?\d{4}[ -]?\d{4}(?![\d-]?\d)",
    r"(?<![\d-])0\d{9}(?![\d-]?\d)",
    r"(?<![\d-])0(?:120|800|570|990)[ -]?\d{2,3}[ -]?\d{3,4}(?![\d-]?\d)",
)
POSTCODE = (r"〒 ?\d{3}[ -]?\d{4}(?!\d)", r"(?<![\d-])\d{3}-\d{4}(?![\d-])", r"(?<=郵便番号[^\d\n]{0,4})\d{7}(?!\d)")
ACCOUNT = (
    r"(?<![\d-])(?:\d{6,8}|\d{5}-\d{6,8}|\d{5}(?=[^\d]{0,6}番号|[ -]\d{6,8}))(?![\d-]?\d|円|人|年|個|回|歩|mAh|万)"
)
ACCOUNT_PAID_INTO = r"(?<![\d-])\d{7}(?=[にへ](?:[\d,]+円)?(?:を|で)?(?:入れ|送(?:っ|り|る|れ|金)|入金|振))"
ACCOUNT_WORDS = r"口座|普通|当座|貯蓄|ゆうちょ|記号|振込|振り込|名義|支店|銀行|信金|信用金庫"
AT_HANDLE = r"(?<![A-Za-z0-9._%+-])@[A-Za-z0-9_][A-Za-z0-9_.]{1,29}"
HANDLE_WORDS = (
    r"LINE|ライン|インスタ(?:グラム)?|Instagram|insta|Twitter|ツイッター|ツイッタ|TikTok|ティックトック|Discord|ディスコ(?:ード)?|ディスコ|"
    r"カカオ(?:トーク)?|スカイプ|Skype|Steam|スチーム|PSN|PS|Telegram|テレグラム|Signal|Threads|スレッズ|Bluesky|ブルースカイ|YouTube|"
    r"(?:裏|本|趣味|サブ|リア|ゲーム|ツイ|推し)?垢|アカウント(?:名)?|アカ|ユーザー(?:名|ネーム|ID)?|(?<![A-Za-z])X|(?<![A-Za-z])ID|"
    r"アイディー?|ハンドル(?:ネーム)?"
)
_HANDLE = r"(?=[\w.-]*[A-Za-z_])[A-Za-z0-9_][A-Za-z0-9_.-]{2,29}[A-Za-z0-9_](?:#\d{4})?(?![A-Za-z0-9@])"
NAMED_HANDLE = (
    rf"(?:(?<=[はが:「、 ])|(?<=ID)|(?<=垢)|(?<=ライン)|(?<=LINE)|(?<=アカウント)){_HANDLE}"
    r"|(?<![A-Za-z0-9_.@/#-])(?=[A-Za-z0-9_.-]*[A-Za-z])(?=[A-Za-z0-9_.-]*[0-9_.-])"
    r"[A-Za-z0-9_][A-Za-z0-9_.-]{2,29}[A-Za-z0-9_](?![A-Za-z0-9@])"
)
SERVICE_AT = r"(?<=(?:LINE|TikTok|Twitter|Instagram|insta|Discord|Threads|X|YouTube))@[A-Za-z0-9_][A-Za-z0-9_.]{1,29}"
HASH_HANDLE = r"(?<![A-Za-z0-9])[A-Za-z0-9_.]{2,32}#\d{4}(?!\d)"
FRIEND_CODE = r"SW-\d{4}-\d{4}-\d{4}"

# -- Dates -------------------------------------------------------------------------------------------------------------

_KD = r"[〇元一二三四五六七八九十]{1,3}"
_YEAR = (
    rf"(?:(?:明治|大正|昭和|平成|令和)(?:\d{{1,2}}|{_KD})年"
    r"|[MTSHR]\d{1,2}[./年-]|(?:19|20)\d{2}[年/.-]|'?\d{2}[年/])"
)
DATE = (
    rf"{_YEAR} ?の?(?:\d{{1,2}}|{_KD}) ?[月/.-] ?(?:\d{{1,2}}|{_KD})日?"
    rf"|(?:\d{{1,2}}|{_KD})月 ?(?:\d{{1,2}}|{_KD})日|(?<![\d/])\d{{1,2}}/\d{{1,2}}(?![\d/])"
    r"|(?<!\d)(?:19|20)\d{2}[01]\d[0-3]\d(?!\d)"
    r"|\d{1,2}がつ ?\d{1,2}にち"
)
# A day of those eras that stands in brackets is somebody's day of birth.
BIRTH_IN_BRACKETS = (
    rf"(?<=\()(?:明治|大正|昭和)(?:\d{{1,2}}|{_KD})年(?:\d{{1,2}}|{_KD})月(?:\d{{1,2}}|{_KD})日(?:生)?(?=\))"
)
BIRTH_WORDS = (
    r"生まれ|うまれ|産まれ|誕生|たんじょうび|誕プレ|生年月日|免許証|バースデ|birthday|お誕|生誕|ハタチ|二十歳にな|歳になり?|還暦|"
    r"(?<![学先人一大])生(?![きかの物活徒])"
)


def my_number_is_valid(digits: str) -> bool:
    """Whether twelve digits end in the check digit of an individual number (平成26年総務省令第85号第5条)."""
    if len(digits) != 12:
        return False
    weighted = sum(int(d) * (n + 1 if n <= 6 else n - 5) for n, d in enumerate(reversed(digits[:11]), start=1))
    remainder = weighted % 11
    return int(digits[11]) == (0 if remainder <= 1 else 11 - remainder)


def luhn_is_valid(digits: str) -> bool:
    """Whether a card number ends in its check digit (ISO/IEC 7812-1, annex B)."""
    doubled = [int(d) * (1 + i % 2) for i, d in enumerate(reversed(digits))]
    return sum(d - 9 if d > 9 else d for d in doubled) % 10 == 0


def digits_of(text: str) -> str:
    """The digits in `text`."""
    return re.sub(r"\D", "", text)
