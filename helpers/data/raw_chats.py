"""Raw chats that nobody here wrote: the Japanese folder of the package chatterbot-corpus (BSD licence).

In: the installed package. Out: two-turn conversations as they stand: translated by machine and spoken by a chatbot,
which is what the quality gate is for.
"""

import random
from importlib.resources import files

import yaml

from helpers.conversations import Conversation, Message, Metadata

SOURCE = "chatterbot-corpus"


def load_raw_chats(limit: int | None = None, seed: int = 42) -> list[Conversation]:
    """The corpus's exchanges in file order; with `limit`, a seeded sample of that many. The id is file and place (from
    1), the topic the corpus's own Japanese category.

    Entries of more than two lines are a dialogue in some files and a list of alternative answers in others, and the
    corpus does not say which; their first two lines are an exchange either way, so those are taken.

    Raises:
        ModuleNotFoundError: chatterbot-corpus is not installed.
    """
    folder = files("chatterbot_corpus") / "data" / "japanese"
    chats = []
    for file in sorted((f for f in folder.iterdir() if f.name.endswith(".yml")), key=lambda f: f.name):
        document = yaml.safe_load(file.read_text(encoding="utf-8"))
        category = document["categories"][-1]
        for number, lines in enumerate(document["conversations"], start=1):
            if len(lines) >= 2:
                name = f"raw-{file.name.removesuffix('.yml')}-{number:03}"
                turns = [Message(role="user", content=str(lines[0])), Message(role="assistant", content=str(lines[1]))]
                chats.append(Conversation(id=name, messages=turns, metadata=Metadata(topics=[category], source=SOURCE)))
    if limit is not None and limit < len(chats):
        keep = set(random.Random(seed).sample(range(len(chats)), limit))
        chats = [chat for i, chat in enumerate(chats) if i in keep]
    return chats
