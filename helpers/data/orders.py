"""What to ask a language model for: which dialogues, in which state of the relationship.

In: a list of situations and memories, the persona card, a seed. Out: `Order`s, each with the request that asks for it.
The same seed draws the same orders.
"""

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from helpers.conversations import Conversation, Message, Metadata, Text
from helpers.data.batch import Request
from helpers.persona import LEVELS, Level, PersonaCard, system_prompt

SOURCE = "generated"
MEMORY_SHARE = 0.4  # of the orders
EXAMPLES = 2

SCHEMA = {
    "type": "object",
    "properties": {
        "messages": {
            "type": "array",
            "minItems": 6,
            "maxItems": 12,
            "items": {
                "type": "object",
                "properties": {
                    "role": {"type": "string", "enum": ["user", "assistant"]},
                    "content": {"type": "string", "minLength": 1, "maxLength": 200},
                },
                "required": ["role", "content"],
                "additionalProperties": False,
            },
        }
    },
    "required": ["messages"],
    "additionalProperties": False,
}


@dataclass(frozen=True)
class Order:
    """One dialogue to be written; `id` counts the orders of one drawing."""

    id: str
    situation: str
    level: Level
    emotion: str
    memories: tuple[str, ...]
    seed: int

    def request(self, card: PersonaCard, examples: Sequence[Conversation]) -> Request:
        """What asks for it: who she is, how she speaks (two dialogues by hand), and what happens."""
        shown = random.Random(self.seed).sample(list(examples), min(EXAMPLES, len(examples)))
        written = "\n".join(
            json.dumps({"messages": [m.model_dump() for m in talk.messages]}, ensure_ascii=False) for talk in shown
        )
        messages = [
            {
                "role": "system",
                "content": "あなたは、会話を書く作家です。次の人物と、その相手との自然なやりとりを書きます。\n\n"
                + system_prompt(card, self.level, self.emotion, self.memories),
            },
            {
                "role": "user",
                "content": f"手本：\n{written}\n\n状況：{self.situation}\n"
                "userは相手、assistantはこの人物です。userから始め、交互に三往復から六往復、assistantで終えてください。"
                "一つの発言は短く、どの返事も直前の言葉にだけ合うものにしてください。JSONだけを出力してください。",
            },
        ]
        return Request(self.id, messages, SCHEMA, self.seed)

    def conversation(self, answer: str) -> Conversation:
        """The dialogue in `answer`.

        Raises:
            ValueError: it is not the JSON that was asked for, or not a sound dialogue.
        """
        try:
            messages = list(json.loads(answer)["messages"])
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ValueError("the answer is not the JSON that was asked for") from error
        return Conversation(
            id=self.id,
            messages=[Message.model_validate(m) for m in messages],
            metadata=Metadata(
                affection_level=self.level,
                emotions=[self.emotion],
                topics=[self.situation],
                memories=list(self.memories),
                source=SOURCE,
            ),
        )


@dataclass(frozen=True)
class Material:
    """What orders are drawn from."""

    situations: list[Text]
    memories: list[Text]


def read_material(path: Path) -> Material:
    """A YAML file with the lists `situations` and `memories`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a list is missing, empty, or holds something else than text.
    """
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}: give a YAML file with situations and memories.")
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    lists = [(document or {}).get(key) for key in ("situations", "memories")]
    if not all(isinstance(items, list) and items and all(isinstance(i, str) for i in items) for items in lists):
        raise ValueError(f"{path.name} needs two lists of text, `situations` and `memories`.")
    return Material(*lists)


def draw_orders(material: Material, card: PersonaCard, number: int, seed: int) -> list[Order]:
    """`number` orders: every situation, level and mood equally often, in a seeded order, two fifths with a memory."""
    chance = random.Random(seed)
    wheels = {
        "situation": _Wheel(material.situations, chance),
        "level": _Wheel(LEVELS, chance),
        "emotion": _Wheel(list(card.emotions), chance),
        "memory": _Wheel(material.memories, chance),
    }
    orders = []
    for n in range(number):
        memories = (wheels["memory"].next(),) if chance.random() < MEMORY_SHARE else ()
        drawn = {key: wheels[key].next() for key in ("situation", "level", "emotion")}
        orders.append(Order(f"{SOURCE}-{seed}-{n:06}", memories=memories, seed=seed + n, **drawn))
    return orders


class _Wheel:
    """Items in a shuffled order, shuffled anew when all have come once."""

    def __init__(self, items: Sequence[str], chance: random.Random):
        self._items, self._chance, self._left = list(items), chance, []

    def next(self) -> str:
        if not self._left:
            self._left = self._chance.sample(self._items, len(self._items))
        return self._left.pop()
