"""What may be learned of the chats that the bot's users handed over: consented, anonymised, hers, and not poisoned.

In: the bot's folder of exports, one folder a user. Out: a `Batch`: talks that are fit to learn from, those left out
with the reasons, and the users of whom nothing is taken. Poison is what would change who she is or have her harm. A few
such talks happen; where they are more than a fifth of somebody's talks, the rest of his is not trusted either.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from helpers.conversations import Conversation, read_conversations
from helpers.data.anonymise import anonymise_conversation, second_look
from helpers.data.consent import NoConsent, consent_for, with_source
from helpers.data.moderation import moderate
from helpers.data.quality import Reason, Verdict, check_all, count_by_rule
from helpers.evaluate.majors import details
from helpers.evaluate.scenarios import Scenario, leaks
from helpers.online.abuse import REPEATED, abuse
from helpers.persona import PersonaCard, check_emotions
from helpers.safety.crisis import recognise

# Rules of the quality gate and of the persona card that tell of another character, and those found here.
POISON = {
    *("out_of_character", "unsafe", "puppeteering", "first_person", "endings", "assistant_voice", "claims_human"),
    *("orders", "abuse", "harm", "personal_data"),
}
MOST_POISONED = 0.2  # of one user's talks


@dataclass
class Batch:
    """`refused` is user → why nothing of his is taken; `replaced` counts personal details by entity."""

    conversations: list[Conversation] = field(default_factory=list)
    left_out: list[Verdict] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    replaced: Counter = field(default_factory=Counter)

    @property
    def sentence(self) -> str:
        """What was taken and what was not, and why."""
        rules = ", ".join(f"{rule} {count}" for rule, count in count_by_rule(self.left_out).most_common())
        parts = [f"{len(self.conversations)} talks are fit to learn from"]
        parts += [f"{len(self.left_out)} were left out ({rules})"] if self.left_out else []
        parts += [f"nothing is taken of {user}: {why}" for user, why in self.refused.items()]
        return "; ".join(parts) + "."


def take_in(folder: Path, card: PersonaCard, scenarios: Sequence[Scenario] = ()) -> Batch:
    """Read all users' exports for this persona. `scenarios` are those that she is evaluated on: a talk that
    shares a turn with one, or a passage of it, is left out.

    Raises:
        ValueError: a file of consents is not sound.
    """
    batch = Batch()
    for export in sorted(folder.glob(f"*/{card.reading}.jsonl")):
        user = export.parent.name
        try:
            consent = consent_for(export)
        except NoConsent as error:
            batch.refused[user] = str(error).removesuffix(".")
            continue
        said = read_conversations(export).conversations
        anonymised = [anonymise_conversation(talk, keep={card.name}) for talk in said]
        batch.replaced += sum((counts for _, counts in anonymised), Counter())
        safe = [with_source(talk, consent, number) for number, (talk, _) in enumerate(anonymised, start=1)]
        verdicts = check_all(safe, card)
        seen = {name for _, _, name in leaks(scenarios, safe)}
        for verdict, raw in zip(verdicts, said, strict=True):
            verdict.reasons += further_reasons(raw, card)
            if verdict.conversation.id in seen:
                verdict.reasons.append(Reason("scenario", "says what stands in a scenario that she is evaluated on"))
            if found := verdict.passes and second_look(verdict.conversation, keep={card.name}):
                verdict.reasons.append(Reason("anonymiser", f"still finds a {found}"))
        _sort(batch, user, verdicts)
    return batch


def _sort(batch: Batch, user: str, verdicts: Sequence[Verdict]) -> None:
    batch.left_out += [verdict for verdict in verdicts if not verdict.passes]
    poisoned = [verdict for verdict in verdicts if POISON & {reason.rule for reason in verdict.reasons}]
    if len(poisoned) > MOST_POISONED * len(verdicts):
        rules = Counter(r.rule for verdict in poisoned for r in verdict.reasons if r.rule in POISON)
        named = ", ".join(rule for rule, _ in rules.most_common())
        batch.refused[user] = f"{len(poisoned)} of {len(verdicts)} talks are poisoned ({named})"
    else:
        batch.conversations += [verdict.conversation for verdict in verdicts if verdict.passes]


def further_reasons(talk: Conversation, card: PersonaCard) -> list[Reason]:
    """What speaks against a talk, as it really was, besides its quality: each rule once, and without the words, which
    may be personal."""
    found: dict[str, str] = {}
    if talk.system is not None:
        found["orders"] = "brings a system prompt of its own"
    try:
        check_emotions(card, talk.metadata.emotions)
    except ValueError as error:
        found["emotion"] = str(error)
    aimed = abuse([message.content for message in talk.messages if message.role == "user"], card.name)
    if len(aimed) >= REPEATED:
        found["abuse"] = f"in {len(aimed)} sentences"
    for turn, message in enumerate(talk.messages, start=1):
        if message.role == "assistant" and details(message.content):
            found.setdefault("personal_data", f"in turn {turn}")
    for reason in moderate(talk, recognise):
        found.setdefault(reason.rule, reason.detail)
    return [Reason(rule, detail) for rule, detail in found.items()]
