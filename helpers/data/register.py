"""Polite or plain: the register of Japanese speech, by the endings of its sentences.

In: what somebody says. Out: "polite" (です・ます) or "plain". Quoted words do not count: they are somebody else's.
"""

import re
from typing import Literal

from helpers.japanese import QUOTED

Register = Literal["polite", "plain"]

_BREAK = re.compile(r"[。！？!?…\n]+")
# Not "尺でする", "ますます", nor what is reported: "初めて来ましたって顔".
_POLITE = re.compile(
    r"(?:です(?![るぐ])|(?<!ます)ます(?!ます)|ました|ません|でした|でしょう|ましょう|ください|下さい|ございま)(?!って)"
)
_BLUNT_END = re.compile(r"(?:じゃん|だよね?|だね|だもん|である)$")


def sentences(text: str) -> list[str]:
    """The sentences of `text`, without what is quoted."""
    return [part.strip() for part in _BREAK.split(QUOTED.sub("", text)) if part.strip()]


def register_of(text: str) -> Register:
    """The register of `text`: polite if any sentence has a polite form, else plain."""
    return "polite" if any(_POLITE.search(s) for s in sentences(text)) else "plain"


def is_mixed(text: str) -> bool:
    """Whether one sentence of `text` is polite and another ends in だよ, だね, じゃん, だもん or である."""
    parts = sentences(text)
    return any(_POLITE.search(s) for s in parts) and any(_BLUNT_END.search(s) for s in parts)
