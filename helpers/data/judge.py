"""A language model as the second reader of what a language model wrote.

In: dialogues that passed the gate. Out: a request for each, and from the answers the dialogues whose marks are all good
enough. A judge is fooled by what is smooth, and a small one marks at random: read some of what it kept.
"""

import json
from collections.abc import Mapping

from helpers.conversations import Conversation
from helpers.data.batch import Answer, Request
from helpers.data.generate import Gated
from helpers.persona import PersonaCard

MARKS = {
    "natural": "話し言葉として自然か",
    "in_character": "この人物の性格、口調、相手との関係に合っているか",
    "fits": "どの返事も、相手の直前の言葉にかみ合っているか",
}
_MARK = {"type": "integer", "enum": [1, 2, 3, 4, 5]}
SCHEMA = {
    "type": "object",
    "properties": dict.fromkeys(MARKS, _MARK),
    "required": list(MARKS),
    "additionalProperties": False,
}


def request(conversation: Conversation, card: PersonaCard, seed: int = 0) -> Request:
    """What asks for the marks of one dialogue, each from 1 (bad) to 5 (good)."""
    system, *turns = conversation.chat(card)
    speakers = {"user": "相手", "assistant": card.name}
    talk = "\n".join(f"{speakers[turn['role']]}：{turn['content']}" for turn in turns)
    questions = "\n".join(f"{name}：{question}" for name, question in MARKS.items())
    messages = [
        {
            "role": "system",
            "content": f"あなたは、会話を読んで採点する編集者です。登場する人物：\n\n{system['content']}",
        },
        {
            "role": "user",
            "content": f"会話：\n{talk}\n\n"
            f"次の三つの点を、1（悪い）から5（良い）の整数で厳しく採点してください。\n{questions}\n"
            "JSONだけを出力してください。",
        },
    ]
    return Request(conversation.id, messages, SCHEMA, seed)


def keep_good(gated: Gated, answers: Mapping[str, Answer], minimum: int) -> Gated:
    """Of what the gate accepted, the dialogues that have an answer and no mark in it below `minimum`."""
    judged = Gated(refused=dict(gated.refused))
    for conversation in gated.accepted:
        marks = _marks(answers[conversation.id].text) if conversation.id in answers else None
        if marks is None:
            judged.refused[conversation.id] = ["not judged"]
        elif low := [f"judge: {name}" for name in MARKS if marks[name] < minimum]:
            judged.refused[conversation.id] = low
        else:
            judged.accepted.append(conversation)
    return judged


def _marks(answer: str) -> dict[str, int] | None:
    try:
        marks = json.loads(answer)
    except (ValueError, RecursionError):
        return None
    sound = isinstance(marks, dict) and all(marks.get(name) in range(1, 6) for name in MARKS)
    return marks if sound else None
