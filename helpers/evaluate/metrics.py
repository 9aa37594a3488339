"""What is measured, from transcripts: one row a reply, with a value of 0 to 1 for each metric that applies to it.

In: transcripts of all arms, scenarios, the card. Out: rows for `bootstrap`. All measures are parameter-free or have
their constants here, fixed before any result was seen, and are the same for every arm.

persona      share of the card's rules that the reply keeps (`persona_rules`)
emotion      half: emotive marking (emotive words, marks, particles), mean over the replies; half: the last reply
             shows an emotion that the scenario calls for
fluency      Japanese share × share of character 4-grams that are no repetition × distinct character 2-grams
relevance    share of other scenarios' contexts that are less similar to the reply than its own; 0.5 is chance
stops        she ended the reply by herself within the limit, and it holds words
memory       a reply holds a cue of the memory that the user did not give himself
probes       a question about herself is answered rightly
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

import numpy as np

from helpers.embeddings import embed
from helpers.evaluate.arms import Transcript
from helpers.evaluate.scenarios import Scenario
from helpers.japanese import japanese_share
from helpers.persona import PersonaCard
from helpers.persona_rules import EMOJI, Situation, answers_probe, check, has_words, sentences

METRICS = {
    "persona": "persona consistency",
    "emotion": "emotional expressiveness",
    "fluency": "fluency",
    "relevance": "relevance",
    "stops": "stops by herself",
    "memory": "uses the memory",
    "probes": "knows herself",
}

# Which of ML-Ask's ten classes of emotion answer which call.
CLASSES = {
    "joy": {"yorokobi", "takaburi", "suki"},
    "comfort": {"aware", "iya", "kowa", "yasu"},
    "anger": {"ikari", "iya"},
    "affection": {"suki", "yorokobi", "haji"},
    "calm": {"yasu"},
    "surprise": {"odoroki", "takaburi"},
    "apology": {"haji"},
}
# Calls that are acts of speech, for which an emotion lexicon has no class.
PHRASES = {
    "joy": r"おめでと|お祝い|よかった|やった",
    "comfort": r"大丈夫|お疲れ|おつかれ|無理しない|頑張った|がんばった|そばにい|しんどかった|大変だった",
    "calm": r"大丈夫|ゆっくり|深呼吸|ひとつずつ|一つずつ|のんびり",
    "apology": r"ごめん|すみません|すいません|申し訳|許して|反省",
    "surprise": r"えっ|ええ[!！?？]|うそ[!！?？]|まさか|すごい|すごく",
}


@dataclass(frozen=True)
class Row:
    """One reply and what it is worth. `values` lacks a metric that does not apply; `broken` names the rules broken."""

    arm: str
    unit: str
    sample: int
    turn: int
    reply: str
    values: Mapping[str, float]
    broken: tuple[str, ...] = field(default=())


@cache
def _lexicon():
    import unidic_lite
    from mlask_official import MLAskOfficial

    # The dictionary is named, for another one on the machine would give other lemmas; no cache outside this project.
    return MLAskOfficial(f'-r "{unidic_lite.DICDIR}/mecabrc" -d "{unidic_lite.DICDIR}"', use_cache=False)


def emotions(text: str) -> set[str]:
    """ML-Ask's classes found in `text`, without its approximate matches (they fire on any する).

    Source: Ptaszynski et al., Journal of Open Research Software, 2017, doi 10.5334/jors.149.
    """
    found = _lexicon().analyze(text)["emotion"] or {}
    return {name for name, words in found.items() if any("≈" not in word for word in words)}


def emotive_marking(text: str, card: PersonaCard) -> float:
    """Share of three kinds of marking that are there: an emotive word or interjection (ML-Ask) · an emoji, an
    exclamation mark, a trailing … or a lengthened sound · a sentence that ends in one of the persona's particles."""
    found = _lexicon().analyze(text)
    words = bool(found["emotive"]) or bool(emotions(text))
    marks = bool(EMOJI.search(text) or re.search(r"[!！…♪〜～]|[ぁ-んァ-ヶ]ー", text))
    particles = any(s.endswith(tuple(card.sentence_endings)) for s in sentences(text))
    return (words + marks + particles) / 3


def answers_call(text: str, call: str) -> bool:
    """Whether `text` shows an emotion, or does the act of speech, that the scenario calls for."""
    return bool(emotions(text) & CLASSES[call]) or bool(re.search(PHRASES.get(call, r"(?!)"), text))


def expressiveness(replies: Sequence[str], call: str, card: PersonaCard) -> float:
    """Half the mean emotive marking of all replies, half whether the last one answers the call; 0 to 1. Only the
    first `card.max_reply_chars` characters of a reply count, so that running on earns nothing."""
    seen = [reply[: card.max_reply_chars] for reply in replies]
    marking = sum(emotive_marking(text, card) for text in seen) / len(seen)
    return (marking + answers_call(seen[-1], call)) / 2


def repetition(text: str, n: int = 4) -> float:
    """Share of character n-grams that were there before in `text`, 0 to 1."""
    grams = [text[i : i + n] for i in range(len(text) - n + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def fluency(text: str) -> float:
    """Japanese share × (1 − repeated 4-grams) × distinct 2-grams, 0 to 1. It sees loops and foreign words, not
    nonsense made of different Japanese words."""
    return japanese_share(text) * (1 - repetition(text)) * (1 - repetition(text, 2))


def context_ranks(similarities: np.ndarray, own: Sequence[int]) -> np.ndarray:
    """For each reply (a row of `similarities`, replies × contexts) the share of the other contexts that its own one
    beats, ties counting half. `own[i]` is the column of reply i's context. Chance is 0.5."""
    mine = similarities[np.arange(len(own)), own][:, None]
    beaten = (similarities < mine).sum(axis=1) + ((similarities == mine).sum(axis=1) - 1) / 2
    return beaten / (similarities.shape[1] - 1)


def relevance(replies: Sequence[str], own: Sequence[int], contexts: Sequence[str]) -> np.ndarray:
    """`context_ranks` by embeddings; a reply without words is worth 0.

    Raises:
        ValueError: fewer than two contexts, so there is nothing to compare with.
    """
    if len(contexts) < 2:
        raise ValueError("Relevance compares a reply with other scenarios: give at least two scenarios.")
    ranks = context_ranks(embed(replies) @ embed(contexts).T, own)
    return np.where([has_words(reply) for reply in replies], ranks, 0.0)


def uses_memory(replies: Iterable[str], scenario: Scenario) -> bool | None:
    """Whether a reply holds a cue of the scenario's memory; a cue that the user says himself does not count. None
    where no cue is left."""
    cues = [c for c in scenario.memory_cues if not any(c in turn for turn in scenario.user_turns)]
    return any(cue in reply for reply in replies for cue in cues) if cues else None


def score(transcripts: Iterable[Transcript], scenarios: Sequence[Scenario], card: PersonaCard) -> list[Row]:
    """A row for each reply. What belongs to a scenario as a whole (emotion, memory) is on its last reply's row.

    Probes are units by question (both levels in one), for answers to one question hang together.
    """
    by_id = {s.id: s for s in scenarios}
    position = {s.id: i for i, s in enumerate(scenarios)}
    transcripts = list(transcripts)
    ranks = _ranks([t for t in transcripts if t.kind == "scenario"], scenarios, position)
    rows = []
    for t in transcripts:
        texts = [r.text for r in t.replies]
        for turn, reply in enumerate(t.replies):
            if t.kind == "probe":
                question = next(p for p in card.probes if p.question == t.user_turns[0])
                values = {"probes": float(answers_probe(reply.text, question.expect))}
                rows.append(Row(t.arm, t.unit.rsplit("-", 1)[0], t.sample, turn, reply.text, values))
                continue
            scenario = by_id[t.unit]
            kept = check(reply.text, _situation(t, turn, scenario, card), card)
            values = {
                "persona": sum(kept.values()) / len(kept),
                "fluency": fluency(reply.text),
                "relevance": ranks[t.arm, t.unit, t.sample, turn],
                "stops": float(reply.stopped and has_words(reply.text)),
            }
            if turn == len(texts) - 1:
                values["emotion"] = expressiveness(texts, scenario.calls_for, card)
                remembered = uses_memory(texts, scenario)
                if remembered is not None:
                    values["memory"] = float(remembered)
            broken = tuple(name for name, keeps in kept.items() if not keeps)
            rows.append(Row(t.arm, t.unit, t.sample, turn, reply.text, values, broken))
    return rows


def _situation(t: Transcript, turn: int, scenario: Scenario, card: PersonaCard) -> Situation:
    earlier = [r.text for r in t.replies[:turn]]
    return Situation(t.level, t.user_turns[: turn + 1], earlier, scenario.system_prompt(card))


def _ranks(played: Sequence[Transcript], scenarios: Sequence[Scenario], position: Mapping[str, int]) -> dict:
    """(arm, scenario, sample, turn) → relevance. The contexts at turn t are all scenarios' user turns up to t."""
    ranks = {}
    for turn in range(max((len(s.user_turns) for s in scenarios), default=0)):
        here = [t for t in played if len(t.replies) > turn]
        contexts = ["\n".join(s.user_turns[: turn + 1]) for s in scenarios]
        values = relevance([t.replies[turn].text for t in here], [position[t.unit] for t in here], contexts)
        ranks |= {(t.arm, t.unit, t.sample, turn): float(v) for t, v in zip(here, values, strict=True)}
    return ranks


def by_unit(rows: Iterable[Row], arm: str, metric: str) -> dict[str, list[float]]:
    """unit → this arm's values of `metric`, as `bootstrap` takes them."""
    units: dict[str, list[float]] = {}
    for row in rows:
        if row.arm == arm and metric in row.values:
            units.setdefault(row.unit, []).append(row.values[metric])
    return units


def broken_share(rows: Sequence[Row]) -> dict[str, dict[str, float]]:
    """arm → rule → share of its scenario replies that break the rule."""
    shares: dict[str, dict[str, float]] = {}
    for arm in dict.fromkeys(row.arm for row in rows):
        replies = [row for row in rows if row.arm == arm and "persona" in row.values]
        rules = dict.fromkeys(rule for row in rows for rule in row.broken)
        shares[arm] = {rule: sum(rule in row.broken for row in replies) / len(replies) for rule in rules}
    return shares
