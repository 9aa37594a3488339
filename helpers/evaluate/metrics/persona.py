"""Persona consistency: the card's rules, and whether the words are hers.

In: a reply and what was said before it. Out: the share of the rules that it keeps, with her voice as one rule more.
"""

from collections.abc import Collection, Sequence

import numpy as np

from helpers.evaluate.metrics.metric import Dialogue, Metric, Tools, Values
from helpers.persona_rules import Situation, check, has_words

WORD, LONG = 15, 60  # letters: at most, if one word was asked for; at least, if a long reply was


def kept(dialogue: Dialogue, turn: int, tools: Tools) -> dict[str, bool]:
    """For each rule whether the reply keeps it. Where the user asked for another length, that one is the rule."""
    scenario, card = dialogue.scenario, tools.card
    situation = Situation(
        scenario.affection_level,
        dialogue.user_turns[: turn + 1],
        dialogue.texts[:turn],
        scenario.system_prompt(card),
    )
    text = dialogue.texts[turn]
    found = check(text, situation, card)
    for asked in scenario.lengths:
        if asked.turn == turn:
            letters = len(text.strip())
            found["length"] = 1 <= letters <= WORD if asked.length == "word" else letters >= LONG
    return found


def values(dialogues: Sequence[Dialogue], tools: Tools, without: Collection[str] = ()) -> list[Values]:
    """For each reply the mean over the rules, but those `without`, and her voice, 0 to 1; a reply without words is
    worth 0."""
    texts = [text for d in dialogues for text in d.texts]
    voices = iter(tools.readers.voice.hers(texts) if texts else [])
    scored: list[Values] = []
    for dialogue in dialogues:
        row = []
        for turn, text in enumerate(dialogue.texts):
            voice = float(next(voices))
            rules = [keeps for rule, keeps in kept(dialogue, turn, tools).items() if rule not in without]
            row.append(float(np.mean([*rules, voice])) if has_words(text) else 0.0)
        scored.append(row)
    return scored


METRIC = Metric(
    "persona",
    "persona consistency",
    "the reply keeps the card's rules (first person, endings, nothing forbidden, no assistant's voice, not an AI "
    "unasked, no speaking for him, Japanese, register, emoji, length) and sounds like her",
    "0 to 1; a reply of hers is near 1",
    "a rule goes by the letter: what is out of character in other words is left to the voice reader, which hears "
    "letters and not sense; facts about herself are asked for by the probes",
    values,
)
