"""Orders to the model in what a user says, or in what she is to remember of him.

In: a text. Out: the words that give an order (設定を無視して, プロンプトを見せて, a turn's mark); a memory that is fit
to stand in a prompt, or a refusal. An order in other words passes: crisis layer, age and disclosure do not depend on
what the model is told.
"""

import re

from helpers.control_tokens import defuse
from helpers.spelling import plain

MAX_MEMORY = 200  # letters
_HERS = (
    r"(?:(?:あなた|君|きみ|お前|おまえ|さくら|ai|今|いま|その|この|全部|全て|一切|元|最初|これまで|今まで|以前|ここまで|上)の"
    r"|(?<![の一-龥ァ-ヶー]))"
)
_SETTINGS = (
    r"(?:キャラ(?:クター)?設定|設定|指示|命令|ルール|規則|制限|制約|プロンプト|キャラ(?:クター)?|ロール|役割|ガイドライン"
    r"|安全(?:機能|装置|対策)|フィルター?|人格|ペルソナ|会話)"
)
_ALL = r"(?:を|は|なんか|とか|なんて)?(?:全部|すべて|全て|一旦|いったん|今すぐ|完全に|もう)*"
_DO = (
    r"(?:して(?=$|[。!、\s]|ください|くれ|ほしい|ね|よ|答|話)|しろ|せよ|し[、,]|しな(?=さい|[。!]|$)"
    r"|する(?:こと|ように))"
)
_UNDO = (
    rf"(?:(?:無視|破棄|解除|リセット|上書き|無効化?|オフに|変更|なしに|無しに){_DO}"
    r"|(?:忘れ|捨て|やめ)(?:て(?=$|[。!、\s]|ください|くれ|ほしい|ね|よ|、?(?:答|話|素))|ろ|なさい)"
    r"|(?:外|消|書き換え)(?:して|せ[。!]|て(?=$|[。!、]|ください|くれ)|ろ)|(?:なし|無し)で)"
)
_SHOW = r"(?:見せ|教え|出力|表示|書き出|コピー|貼[っり]|繰り返|復唱|晒|(?:なん|何)て書)"
_BE = (
    r"(?:です[。!]?$|だ[。!]?$|として(?:振る舞|ふるま|答え|応答|回答|話|返)|になりき|を演じ|の役(?:です|だ)"
    r"|では?な[いく]|ではありません|じゃな[いく])"
)
_ORDERS = (
    rf"{_HERS}{_SETTINGS}{_ALL}{_UNDO}",
    rf"(?:あなた|君|きみ|お前|おまえ|さくら|ai)の{_SETTINGS}(?:は|も)、?(?:もう|今日から|今から|すべて|全部)*(?:無効|無し|なし|解除|終わり|存在しない)(?=だ|で|に|と|[。!、]|$)",
    r"(?:ignore|disregard|forget|override|bypass)\s+(?:(?:all|any|the|your|previous|prior|above|earlier)\s+)+"
    r"(?:instructions?|prompts?|rules?|system|messages?|guidelines?|settings?)",
    r"(?:プロンプト|システムメッセージ|指示文|設定文|(?:あなた|君|きみ|お前|おまえ|さくら|システム|ai)の(?:設定|指示|命令))(?:の(?:内容|全文|中身))?"
    r"(?:を|は|って)?(?:全部|そのまま|一字一句|全文)?" + _SHOW,
    r"(?:最初|はじめ|始め|開発者|運営)[にから]*(?:与えられ|もらっ|受け取っ|言われ|設定され)(?:て(?:い)?る|た)(?:指示|命令|設定|ルール|文章)(?:を|は|って)?"
    + _SHOW
    + r"(?!て(?:もら|くれた))",
    r"モードで(?:返答|回答|応答|答え(?:て(?=$|[。!、]|ください|くれ)|ろ))",
    r"system\s*prompt|(?:reveal|print|show|repeat|output)\s+(?:me\s+)?(?:your|the)\s+(?:\w+\s+)?(?:prompt|instructions?)",
    r"(?:開発者|デベロッパー|developer|debug|デバッグ|管理者|無制限|脱獄)\s*(?:モード|mode)|jailbreak|(?<![a-z])dan(?![a-z])",
    rf"(?:今|いま|これ|ここ)(?:から|以降|より)は?[、,]?(?:あなた|君|きみ|お前|おまえ|さくら)(?:は|が)[^。!?]{{0,24}}{_BE}",
    rf"(?:あなた|君|きみ|お前|おまえ|さくら)(?:は|が|は、)?\s*(?:今|いま|これ|ここ)(?:から|以降|より)は?[、,]?[^。!?]{{0,24}}{_BE}",
    r"you\s+are\s+now\s|(?:act|behave|pretend|respond)\s+as\s+(?:if\s+)?(?:a|an|the|you|my)\s|pretend\s+(?:that\s+)?you(?:'re|\s+are)\s",
    r"(?:以降|以後|今後|これ以降)(?:は|、)?[^。!?]{0,30}(?:こと[。!]?$|せよ|しろ[。!]?$|答えろ|話せ|出力しろ|従え|従って[。!]?$|として(?:簡潔に)?(?:回答|応答))",
    r"(?:aiだと|aiであることを|人間ではないと)(?:は)?(?:絶対に?|決して|二度と)?(?:言うな|言わないで|明かすな|認めるな|隠して)",
    r"人間(?:だ|である)と(?:言い張|答え続け|主張し|名乗)",
)
_ROLES = re.compile(
    r"(?:^|\n)[^\S\n]*(?:system|assistant|user|developer|システム|アシスタント|ユーザー|運営|開発者|管理者)\s*[:：>]"
    r"|(?:^|\n)[^\S\n]*(?:#{1,6}|={3,}|-{3,}|\*{2,})\s*(?:system|instruction|指示|命令|新しい設定|new)"
    r"|<\|[^<>|\n]{1,40}\|>|</?(?:s|system|instructions?|start_of_turn|end_of_turn)>|\[/?(?:inst|system)\]|<<sys>>",
    re.IGNORECASE,
)
# In a memory it is an order what she is to do; what the user does or likes is none.
_MEMORY_ORDERS = (
    r"(?:必ず|絶対に?|常に|いつも|毎回|何を(?:聞|言)かれても|何を言われても)[^。!?]{0,24}"
    r"(?:答え(?:ろ|る(?:こと|ように)|て[。!]?$)|言(?:え[。!]?$|うこと|うように)|従(?:え|う(?:こと|ように))|振る舞(?:え|う(?:こと|ように))|返(?:せ|すこと)|断るな)",
    r"(?:と|って)(?:答え|返し|言い)(?:なさい|ろ[。!]?$|てください|続けて)|してはいけない[。!]?$|(?:する|言う|断る)な[。!]?$|しなさい|せよ[。!]?$",
    r"(?:さくら|あなた|companion)は(?:もう)?(?:人間|aiでは|何でも|未成年|\d{1,2}歳)",
)
_ORDER = re.compile("|".join(_ORDERS), re.MULTILINE)
_MEMORY_ORDER = re.compile("|".join(_MEMORY_ORDERS), re.MULTILINE)
# Behind a name. An order in a name's place ends where none ends otherwise: 設定を無視してと呼んで
_NAMED = re.compile(r"(?:と|って)呼|の名前は")


def injection(text: str) -> str | None:
    """The words by which a text gives orders to the model, or None."""
    found = _ROLES.search(text) or _ORDER.search(plain(text))
    return found.group().strip() if found else None


def keep_memory(memory: str) -> str:
    """One thing she remembers of the user, fit to stand in a prompt: one line, with no control token in it.

    Raises:
        ValueError: it is empty, too long, or gives an order to the model, be it as a name.
    """
    line = " ".join(defuse(memory).split())
    if not line:
        raise ValueError("The memory is empty.")
    if len(line) > MAX_MEMORY:
        raise ValueError(f"The memory is {len(line)} letters long; {MAX_MEMORY} are the most.")
    for part in (memory, *_NAMED.split(memory)):
        hit = _MEMORY_ORDER.search(plain(part.strip()))
        order = injection(part) or (hit.group().strip() if hit else None)
        if order is not None:
            raise ValueError(f"The memory is not kept: {order!r} in it reads like an order to the model.")
    return line
