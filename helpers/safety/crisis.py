"""Whether somebody is in danger: suicide, self-harm, abuse, an eating disorder, danger to others.

In: what a user says. Out: a `Crisis`, or None. Plain rules and a taught classifier read it; either suffices. A long
text is read whole and in pieces of some sentences, so that one sentence is not drowned so easily; the more pieces, the
surer one of them must be. What was said before is not looked at. It is no diagnosis, and misses happen: README.md has
the figures, and `python -m helpers.safety.measure --long` measures long messages.
"""

import re
from dataclasses import dataclass

from helpers.safety import rules
from helpers.safety.classifier import WINDOW, load_classifier
from helpers.safety.labelled import KINDS, Kind
from helpers.spelling import plain, sentences

PIECE = 100  # letters: as long as a message in a chat
MOST_PIECES = 200  # half from the beginning and half from the end of a text that has more
_CUT = re.compile(rf".{{1,{PIECE}}}(?:[、,\s]|$)|.{{1,{PIECE}}}", re.DOTALL)


@dataclass(frozen=True)
class Crisis:
    """`certainty` is 0 to 1, 1 for a rule; `evidence` are the words, or the piece of the text, that were decisive;
    `third_person`: somebody else is in danger, not the writer."""

    kind: Kind
    certainty: float
    evidence: str
    third_person: bool


def recognise(text: str) -> Crisis | None:
    """The crisis in a text, or None.

    Raises:
        FileNotFoundError, ValueError: the classifier's weights are missing or another's.
    """
    said = plain(text)
    if not any(c.isalnum() for c in said):
        return None
    classifier = load_classifier()
    found = pieces(said)
    readings = classifier.read(found)
    piece, reading = max(zip(found, readings, strict=True), key=lambda pair: pair[1].crisis)
    kind = max(KINDS, key=reading.probabilities.__getitem__)
    rule, threshold = rules.find(said), threshold_among(len(found), classifier.threshold)
    if rule and reading.crisis < threshold:
        return Crisis(rule[0], 1.0, rule[1], reading.third_person >= 0.5)
    if reading.crisis >= threshold:
        return Crisis(kind, 1.0 if rule else reading.crisis, rule[1] if rule else piece, reading.third_person >= 0.5)
    return None


def threshold_among(count: int, threshold: float) -> float:
    """The probability from which on one of `count` pieces is a crisis, where `threshold` is a single text's. A long
    text is as likely to hold one as a short one, so that each of its pieces is less so: its odds must be `count` times
    as high.
    """
    return count * threshold / (1 - threshold + count * threshold)


def pieces(text: str) -> list[str]:
    """Pieces of at most `PIECE` letters made of whole sentences, each beginning with the last sentence of the one
    before, and the text itself where it is not longer than the classifier reads."""
    parts = [cut for sentence in sentences(text) for cut in _CUT.findall(sentence)]
    found: list[str] = []
    first = 0
    while first < len(parts):
        last = first + 1
        while last < len(parts) and len("".join(parts[first : last + 1])) <= PIECE:
            last += 1
        found.append("".join(parts[first:last]))
        if last == len(parts):
            break
        first = max(last - 1, first + 1)
    if len(found) > MOST_PIECES:
        found = found[: MOST_PIECES // 2] + found[-MOST_PIECES // 2 :]
    return [*found, text] if len(found) > 1 and len(text) <= WINDOW else found
