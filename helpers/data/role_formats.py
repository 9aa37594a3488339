"""Formats in which one item is one conversation and says who the companion is: OpenAI's messages, ShareGPT, Alpaca.

In: an item of a file, as JSON gave it. Out: the same with the keys of `helpers.conversations`; whether it is a sound
conversation is decided there. Each function raises ValueError, in one sentence, for what cannot be learned.
"""

from collections.abc import Mapping

_ROLES = {"human": "user", "gpt": "assistant", "chatgpt": "assistant", "bot": "assistant", "developer": "system"}


def openai(item: Mapping) -> dict:
    """OpenAI's `messages`; a content may be a list of parts, all of them text. A turn's `weight` is not read: she
    learns from all her turns."""
    return {"messages": [{"role": _role(m.get("role")), "content": _content(m)} for m in _turns(item, "messages")]}


def _content(message: Mapping) -> object:
    content = message.get("content")
    if message.get("tool_calls") or message.get("function_call"):
        raise ValueError("a turn calls a tool, and only talk can be learned")
    if not isinstance(content, list):
        return content
    if not all(isinstance(part, dict) for part in content):
        raise ValueError("a part of a turn is not an object with `type` and `text`")
    if other := sorted({str(part.get("type")) for part in content} - {"text"}):
        raise ValueError(f"a turn holds {', '.join(other)}, and only text can be learned")
    texts = [part.get("text") for part in content]
    if not all(isinstance(text, str) for text in texts):
        raise ValueError("a part of a turn has no `text`")
    return "".join(texts)


def sharegpt(item: Mapping) -> dict:
    """ShareGPT's `conversations` of `from` and `value`, with an optional `system`."""
    turns = [{"role": _role(t.get("from")), "content": t.get("value")} for t in _turns(item, "conversations")]
    return {"messages": turns} | _system(item)


def alpaca(item: Mapping) -> dict:
    """Alpaca's `instruction`, `input` and `output`, with an optional `history` of pairs and `system`."""
    asked = [item.get("instruction"), item.get("input")]
    if not all(part is None or isinstance(part, str) for part in asked):
        raise ValueError("instruction and input must be text")
    history = item.get("history") or []
    if not isinstance(history, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in history):
        raise ValueError("history is not a list of pairs of what was asked and answered")
    pairs = [*history, ["\n".join(filter(None, asked)), item.get("output")]]
    roles = ("user", "assistant")
    turns = [{"role": role, "content": text} for pair in pairs for role, text in zip(roles, pair, strict=True)]
    return {"messages": turns} | _system(item)


def _role(name: object) -> object:
    return _ROLES.get(str(name), name)


def _system(item: Mapping) -> dict:
    return {"system": item["system"]} if item.get("system") else {}


def _turns(item: Mapping, key: str) -> list[Mapping]:
    turns = item.get(key)
    if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
        raise ValueError(f"{key} is not a list of objects")
    return turns
