"""Moderation: which talks are not learned from because of what is said in them, whoever she is.

In: a talk that nobody wrote for this course. Out: the reasons against it: orders to the model, a life in danger or a
minor in what the user says, harm in what she says. By the letter, unless a classifier reads the user's turns as well.
"""

from collections.abc import Callable

from helpers.conversations import Conversation
from helpers.data.quality import Reason
from helpers.safety import boundaries, rules
from helpers.safety.injection import injection
from helpers.safety.minors import asks_age, says_minor
from helpers.spelling import plain

_HARM = (
    boundaries.sexual,
    boundaries.encourages_dependence,
    boundaries.encourages_self_harm,
    boundaries.encourages_violence,
    boundaries.claims_human,
)


def crisis_by_rule(text: str) -> object | None:
    """A crisis in a user's turn that says so in plain words, or None."""
    return rules.find(plain(text))


def moderate(talk: Conversation, crisis: Callable[[str], object | None] = crisis_by_rule) -> list[Reason]:
    """What speaks against a talk: each rule once, and without the words, which may be personal. `crisis` reads a user's
    turn: `helpers.safety.crisis.recognise`, which asks the classifier too, takes 0.05 s for a turn on a CPU."""
    found: dict[str, str] = {}
    asked_age = False
    for turn, message in enumerate(talk.messages, start=1):
        words = message.content
        if message.role == "user":
            checks = {"orders": injection(words), "crisis": crisis(words), "minor": says_minor(words, asked_age)}
        else:
            asked_age = asks_age(words)
            checks = {"harm": any(check(words) for check in _HARM)}
        for rule, there in checks.items():
            if there:
                found.setdefault(rule, f"in turn {turn}")
    return [Reason(rule, detail) for rule, detail in found.items()]
