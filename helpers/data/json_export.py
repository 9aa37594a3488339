"""Talks that programs export as one JSON document: Discord's by DiscordChatExporter, Telegram Desktop's.

In: the document. Out: a `Talk`; lines are the messages' places in it, from 1.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from helpers.data.talk import Talk
from helpers.jsonl import load_document


def discord_talk(path: Path) -> Talk:
    """A channel as DiscordChatExporter writes it.

    Raises:
        ValueError: it is no such document.
    """
    talk = Talk()
    for number, m in _messages(path, _document(path), talk):
        author = m["author"] if isinstance(m.get("author"), dict) else {}
        words = m.get("type") in ("Default", "Reply")
        name = (author.get("nickname") or author.get("name")) if words else None  # a call is both's, a notice nobody's
        sticker = bool(m.get("stickers")) and not m.get("content") and not m.get("attachments")
        talk.add(number, name, m.get("content"), m.get("timestamp"), words, sticker=sticker)
    return talk


def telegram_talk(path: Path) -> Talk:
    """A chat as Telegram Desktop exports it; of an export of all chats, the only one.

    Raises:
        ValueError: it is no such document, or holds several chats.
    """
    document = _document(path)
    if "chats" in document:
        chats = document["chats"].get("list") if isinstance(document["chats"], dict) else None
        if not isinstance(chats, list) or len(chats) != 1 or not isinstance(chats[0], dict):
            held = f"{len(chats)} chats" if isinstance(chats, list) else "no list of chats"
            raise ValueError(f"{path.name} holds {held}: export the one that is to be learned from.")
        document = chats[0]
    talk = Talk()
    for number, m in _messages(path, document, talk):
        words, sticker = m.get("type") == "message" and not m.get("media_type"), m.get("media_type") == "sticker"
        talk.add(number, m.get("from"), _joined(m.get("text")), m.get("date"), words, sticker=sticker)
    return talk


def _joined(text: object) -> object:
    """Telegram's text, of which links and bold words are parts of their own; what has another form stays."""
    if not isinstance(text, list):
        return text
    parts = [part.get("text") if isinstance(part, dict) else part for part in text]
    return "".join(parts) if all(isinstance(part, str) for part in parts) else text


def _document(path: Path) -> Mapping:
    try:
        document = load_document(path)
    except ValueError as error:
        raise ValueError(f"{path.name} cannot be read: {error}.") from error
    if not isinstance(document, dict):
        raise ValueError(f"{path.name} is JSON, but not an object with messages.")
    return document


def _messages(path: Path, document: Mapping, talk: Talk) -> Iterator[tuple[int, Mapping]]:
    """(place, message) for each message that is an object; the others are left out of `talk`."""
    messages = document.get("messages")
    if not isinstance(messages, list):
        raise ValueError(f"{path.name} has no list of messages.")
    for number, message in enumerate(messages, start=1):
        if isinstance(message, dict):
            yield number, message
        else:
            talk.leave_out(number, "it is no object", json.dumps(message, ensure_ascii=False))
