"""Wrap a raw exchange in the persona.

In: two turns that somebody else wrote. Out: a `Conversation` whose relationship level fits the reply's register, so
that the system prompt does not ask for one way of speaking while the reply shows another.
"""

import re

from helpers.conversations import Conversation, Message, Metadata
from helpers.data.raw_chats import RawChat
from helpers.data.register import register_of
from helpers.persona import Level

SOURCE = "chatterbot-corpus"
_FIRST_MEETING = re.compile(r"(はじめまして|初めまして|お会いでき)")


def level_for(user: str, reply: str) -> Level:
    """stranger for a polite first meeting, acquaintance for other polite replies, friend for plain ones."""
    if register_of(reply) == "plain":
        return "friend"
    return "stranger" if _FIRST_MEETING.search(user + reply) else "acquaintance"


def wrap_with_persona(chat: RawChat) -> Conversation:
    """The exchange as a conversation, with the corpus and category in its metadata.

    Raises:
        pydantic.ValidationError: a turn is empty.
    """
    return Conversation(
        id=chat.id,
        messages=[Message(role="user", content=chat.user), Message(role="assistant", content=chat.reply)],
        metadata=Metadata(affection_level=level_for(chat.user, chat.reply), topics=[chat.category], source=SOURCE),
    )
