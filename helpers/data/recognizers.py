"""What gives a person away in a Japanese chat: Presidio's analyzer, GiNZA, and recognizers for Japan.

In: a text. Out: the places in it that name or number a person, each with its entity. What has a form is found by
patterns (and check digits, where a number has one), names by GiNZA's named-entity model, its dictionary's parts of
speech and a tagger that was taught to find them. A story that gives somebody away passes: that takes a person who
reads.
"""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import ClassVar

from presidio_analyzer import AnalyzerEngine, EntityRecognizer, Pattern, PatternRecognizer, RecognizerResult
from presidio_analyzer.nlp_engine import NerModelConfiguration, NlpArtifacts, SpacyNlpEngine
from presidio_analyzer.recognizer_registry import RecognizerRegistry

from helpers.data import forms, institutions, people
from helpers.data.addresses import addresses
from helpers.data.tagger import Reading, load_tagger
from helpers.japanese import narrow_with_places

LANGUAGE = "ja"
MODEL = "ja_ginza"
# Log-odds of a person's name above which the tagger is sure, and below which it denies what a rule saw: chosen on
# data/anonymisation/test.jsonl.
_SURE, _DENIED = 1.0, -3.0
# Where two findings overlap, the one whose entity stands first is kept.
ENTITIES = (
    "EMAIL_ADDRESS",
    "URL",
    "CREDIT_CARD",
    "MY_NUMBER",
    "PHONE_NUMBER",
    "POSTCODE",
    "BANK_ACCOUNT",
    "BIRTH_DATE",
    "SOCIAL_ID",
    "ADDRESS",
    "STATION",
    "SCHOOL",
    "EMPLOYER",
    "PERSON",
)


class _Numbered(PatternRecognizer):
    """A pattern whose digits must pass a check, unless a word before it says what it is."""

    def __init__(self, entity: str, pattern: str, passes: Callable[[str], bool], named: str):
        self._passes, self._named = passes, re.compile(named)
        super().__init__(entity, patterns=[Pattern(entity, pattern, 0.9)], supported_language=LANGUAGE)

    def analyze(self, text, entities, nlp_artifacts=None, regex_flags=None):
        found = super().analyze(text, entities, nlp_artifacts, regex_flags)
        return [
            r for r in found if self._passes(forms.digits_of(text[r.start : r.end])) or self._is_named(text, r.start)
        ]

    def _is_named(self, text: str, start: int) -> bool:
        return bool(self._named.search(text[max(0, start - 30) : start]))


class _Near(PatternRecognizer):
    """A pattern that counts only if one of `words` stands near it."""

    def __init__(self, entity: str, pattern: str, words: str, before: int, after: int):
        self._words, self._before, self._after = re.compile(words, re.IGNORECASE), before, after
        super().__init__(entity, patterns=[Pattern(entity, pattern, 0.8)], supported_language=LANGUAGE)

    def analyze(self, text, entities, nlp_artifacts=None, regex_flags=None):
        found = super().analyze(text, entities, nlp_artifacts, regex_flags)
        return [
            r
            for r in found
            if self._words.search(text[max(0, r.start - self._before) : r.start])
            or self._words.search(text[r.end : r.end + self._after])
        ]


def _patterns(entity: str, *patterns: str) -> PatternRecognizer:
    return PatternRecognizer(entity, patterns=[Pattern(entity, p, 0.85) for p in patterns], supported_language=LANGUAGE)


class _AddressRecognizer(EntityRecognizer):
    """Addresses, as `addresses` finds them."""

    def __init__(self):
        super().__init__(["ADDRESS"], supported_language=LANGUAGE)

    def load(self) -> None:
        """Nothing to load."""

    def analyze(self, text: str, entities: Sequence[str], nlp_artifacts: NlpArtifacts | None = None):
        """Presidio's results."""
        return [RecognizerResult("ADDRESS", start, end, 0.85) for start, end in addresses(text)]


class _GinzaRecognizer(EntityRecognizer):
    """People, schools, employers and stations, as `people` and `institutions` find them in what GiNZA read."""

    _FIND: ClassVar = {
        "PERSON": people.people,
        "SCHOOL": institutions.schools,
        "EMPLOYER": institutions.employers,
        "STATION": institutions.stations,
    }

    def __init__(self):
        super().__init__(list(self._FIND), supported_language=LANGUAGE)

    def load(self) -> None:
        """Nothing to load: Presidio hands over what GiNZA read."""

    def analyze(self, text: str, entities: Sequence[str], nlp_artifacts: NlpArtifacts | None = None):
        """Presidio's results for `entities`."""
        return [
            RecognizerResult(entity, start, end, 0.85)
            for entity, find in self._FIND.items()
            if entity in entities
            for start, end in find(text, nlp_artifacts.tokens)
        ]


@dataclass(frozen=True)
class Finding:
    """A place in a text, `start` to before `end`, in characters."""

    entity: str
    start: int
    end: int


def find(text: str) -> list[Finding]:
    """The personal details in `text`, in order and without overlaps."""
    narrowed, places = narrow_with_places(text)
    results = analyzer().analyze(narrowed, language=LANGUAGE)
    taken: list[Finding] = []
    for r in sorted(results, key=lambda r: (ENTITIES.index(r.entity_type), r.start - r.end)):
        if all(r.end <= t.start or t.end <= r.start for t in taken):
            taken.append(Finding(r.entity_type, r.start, r.end))
    found = _with_names(narrowed, taken, load_tagger().read(narrowed))
    return sorted((Finding(f.entity, places[f.start], places[f.end]) for f in found), key=lambda f: f.start)


def _with_names(text: str, taken: list[Finding], reading: Reading) -> list[Finding]:
    """What rules found in `text` and what the tagger read, made one.

    A person is a run of letters that the tagger does not deny, in which it is sure of one letter or a rule saw a name
    (hysteresis thresholding; Canny, 1986); a single letter must be one that can name. What is said alone and is an
    everyday word is nobody. Another name of the tagger's counts where nothing else is.
    """
    found = [f for f in taken if f.entity != "PERSON"]
    seen = {i for f in taken if f.entity == "PERSON" for i in range(f.start, f.end)}
    other = {i for f in found for i in range(f.start, f.end)} | people.everyday(text)
    run: list[int] = []
    for i, odds in enumerate([*reading.people, -math.inf]):
        if odds > _DENIED and i not in other:
            run.append(i)
        elif run:
            run = run[people.past_a_saying(text, run[0], i) - run[0] :]
            sure = any(j in seen or reading.people[j] > _SURE for j in run)
            if sure and (len(run) > 1 or people.is_name(text, (run[0], i))):
                found.append(Finding("PERSON", run[0], i))
            run = []
    for entity, start, end in reading.spans:
        is_free = end - start > 1 and all(f.end <= start or end <= f.start for f in found)
        if entity != "PERSON" and is_free and not institutions.is_railway(text, (start, end)):
            found.append(Finding(entity, start, end))
    return found


@cache
def analyzer() -> AnalyzerEngine:
    """Presidio's analyzer for Japanese. Loading GiNZA takes some ten seconds, once a process."""
    engine = SpacyNlpEngine(
        [{"lang_code": LANGUAGE, "model_name": MODEL}],
        NerModelConfiguration(labels_to_ignore=[], model_to_presidio_entity_mapping={}),
    )
    engine.load()
    # Presidio warns of each label that it is not told of, and ours are read elsewhere.
    labels = engine.nlp[LANGUAGE].get_pipe("ner").labels
    engine.ner_model_configuration.model_to_presidio_entity_mapping = {label: label for label in labels}
    registry = RecognizerRegistry(
        [
            _patterns("EMAIL_ADDRESS", forms.EMAIL),
            _patterns("URL", forms.URL),
            _Numbered("CREDIT_CARD", forms.CARD, forms.luhn_is_valid, r"(?<!ポイント)(?<!会員)カード|クレカ"),
            _patterns("CREDIT_CARD", forms.CARD_IN_FOURS),
            _Numbered("MY_NUMBER", forms.MY_NUMBER, forms.my_number_is_valid, r"マイナンバー|まいなんばー|個人番号"),
            _patterns("PHONE_NUMBER", *forms.PHONE),
            _patterns("POSTCODE", *forms.POSTCODE),
            _patterns("BANK_ACCOUNT", forms.ACCOUNT_PAID_INTO),
            _Near("BANK_ACCOUNT", forms.ACCOUNT, forms.ACCOUNT_WORDS, 25, 8),
            _patterns("BIRTH_DATE", forms.BIRTH_IN_BRACKETS),
            _Near("BIRTH_DATE", forms.DATE, forms.BIRTH_WORDS, 12, 10),
            _patterns("SOCIAL_ID", forms.AT_HANDLE, forms.SERVICE_AT, forms.HASH_HANDLE, forms.FRIEND_CODE),
            _Near("SOCIAL_ID", forms.NAMED_HANDLE, forms.HANDLE_WORDS, 25, 0),
            _AddressRecognizer(),
            _GinzaRecognizer(),
        ],
        supported_languages=[LANGUAGE],
    )
    return AnalyzerEngine(registry=registry, nlp_engine=engine, supported_languages=[LANGUAGE])
