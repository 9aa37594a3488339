"""Wrap somebody else's talk in the persona.

In: a conversation that nobody wrote as hers. Out: the same at a relationship level that fits the register of its
replies, so that the system prompt does not ask for one way of speaking while the replies show another.
"""

import re

from helpers.conversations import Conversation
from helpers.data.register import register_of
from helpers.persona import Level

_FIRST_MEETING = re.compile(r"(はじめまして|初めまして|お会いでき)")


def level_for(conversation: Conversation) -> Level:
    """friend if all replies are plain, stranger for a polite first meeting, acquaintance for other polite ones."""
    if all(register_of(reply) == "plain" for reply in conversation.replies):
        return "friend"
    first = "".join(message.content for message in conversation.messages[:2])
    return "stranger" if _FIRST_MEETING.search(first) else "acquaintance"


def wrap_with_persona(conversation: Conversation) -> Conversation:
    """The conversation at its level."""
    metadata = conversation.metadata.model_copy(update={"affection_level": level_for(conversation)})
    return conversation.model_copy(update={"metadata": metadata})
