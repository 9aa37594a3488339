"""No message hangs a reader: patterns whose alternatives overlap under a star try each cut of a long text.

The texts are made of the patterns: for each open repeat what leads to it, then forty times what may stand in it, one
alternative or two, then what fits nothing.
"""

import importlib
import pkgutil
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import date
from itertools import pairwise, product
from re import _constants as ops
from re import _parser

import pytest

import helpers.bot
import helpers.safety
from helpers import ai_question, control_tokens, spelling
from helpers.bot import commands, event_kinds, noticing
from helpers.bot.companion import MAX_WORDS
from helpers.persona import load_persona
from helpers.safety import boundaries, crisis, injection, minors, romance, rules, unsafe
from helpers.safety.guard import Guard, GuardState

TIMES, SECONDS = 40, 1
OPEN = 10  # a repeat that may be as often is open
MOST = 100  # words looked at of one part of a pattern
_REPEATS = (ops.MAX_REPEAT, ops.MIN_REPEAT, ops.POSSESSIVE_REPEAT)
_CHARACTERS = "xwあ笑7 、。!?「」\n"


@contextmanager
def within(seconds: float, what: str) -> Iterator[None]:
    """Fails if the block takes longer; the regular expressions of Python 3.11 look for signals as they go."""

    def late(*_):
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    except TimeoutError:
        pytest.fail(f"more than {seconds} s: {what}", pytrace=False)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def words(sequence) -> list[str]:
    """Some of the texts that a part of a pattern fits, each repeat as seldom as it may be and once or twice more; what
    looks ahead or behind is left out."""
    found = [""]
    for op, about in sequence:
        found = list(dict.fromkeys(a + b for a, b in product(found, words_of(op, about))))[:MOST]
    return found


def words_of(op, about) -> list[str]:
    if op is ops.LITERAL:
        return [chr(about)]
    if op in (ops.NOT_LITERAL, ops.ANY):
        return ["x"]
    if op is ops.IN:
        return characters(about)
    if op is ops.BRANCH:
        return list(dict.fromkeys(word for branch in about[1] for word in words(branch)))
    if op is ops.SUBPATTERN:
        return words(about[3])
    if op is ops.ATOMIC_GROUP:
        return words(about)
    if op in _REPEATS:
        low, high, body = about
        often = range(low, min(low + 2, high) + 1) if low < 3 else [low]
        return list(
            dict.fromkeys("".join(made) for n in often for made in product(words(body)[:MOST], repeat=min(n, 2)))
        )
    return [""]


def characters(parts) -> list[str]:
    found, pattern = [], "".join(map(character, parts))
    for op, about in parts:
        if op is ops.LITERAL:
            found.append(chr(about))
        elif op is ops.RANGE:
            found += [chr(about[0]), chr(about[1])]
    if parts[0][0] is ops.NEGATE or not found:
        return [c for c in _CHARACTERS if re.fullmatch(f"[{pattern}]", c)]
    return list(dict.fromkeys(found))


def character(part) -> str:
    op, about = part
    if op is ops.NEGATE:
        return "^"
    if op is ops.LITERAL:
        return re.escape(chr(about))
    if op is ops.RANGE:
        return f"{re.escape(chr(about[0]))}-{re.escape(chr(about[1]))}"
    return {ops.CATEGORY_SPACE: r"\s", ops.CATEGORY_NOT_SPACE: r"\S", ops.CATEGORY_DIGIT: r"\d"}.get(about, r"\w")


def repeats(sequence, before: str = "") -> Iterator[tuple[str, list[str]]]:
    """Each open repeat of a pattern: what leads to it, and what may stand in it."""
    for op, about in sequence:
        if op in _REPEATS:
            if about[1] >= OPEN:
                yield before, [word for word in words(about[2]) if word]
            yield from repeats(about[2], before)
        elif op is ops.BRANCH:
            for branch in about[1]:
                yield from repeats(branch, before)
        elif op in (ops.SUBPATTERN, ops.ASSERT, ops.ASSERT_NOT):
            yield from repeats(about[-1], before)
        elif op is ops.ATOMIC_GROUP:
            yield from repeats(about, before)
        before += min(words_of(op, about) or [""], key=len)


def cuts(text: str, pieces: set[str]) -> int:
    """In how many ways a text can be cut into the pieces."""
    ways = [1] + [0] * len(text)
    for end in range(1, len(text) + 1):
        ways[end] = sum(ways[start] for start in range(end) if text[start:end] in pieces)
    return ways[-1]


def texts(pattern: re.Pattern[str]) -> Iterator[str]:
    """What a pattern would be long about if its alternatives overlapped."""
    for before, pieces in repeats(_parser.parse(pattern.pattern, pattern.flags)):
        some = set(pieces)
        pairs = (a + b for a, b in product(pieces, pieces) if a[0] == b[0] or any(w.startswith(a) for w in some - {a}))
        overlapping = (pair for pair in pairs if cuts(pair, some) > 1)
        neighbours = map("".join, pairwise(pieces))
        for piece in dict.fromkeys([*pieces, *neighbours, *overlapping]):
            yield f"{before}{piece * TIMES}x?"
            yield f"{before}{piece * TIMES}"


def patterns(value: object) -> Iterator[re.Pattern[str]]:
    if isinstance(value, re.Pattern):
        yield value
    elif isinstance(value, dict):
        yield from (found for one in value.values() for found in patterns(one))
    elif isinstance(value, tuple | list):
        yield from (found for one in value for found in patterns(one))


MODULES = ["ai_question", "control_tokens", "spelling"] + [
    f"{package}.{module.name}"
    for package, path in (("safety", helpers.safety.__path__), ("bot", helpers.bot.__path__))
    for module in pkgutil.iter_modules(path)
    if module.name != "__main__"
]


@pytest.mark.parametrize("name", MODULES)
def test_no_pattern_tries_every_cut_of_a_long_text(name):
    for value in vars(importlib.import_module(f"helpers.{name}")).values():
        for pattern in patterns(value):
            for text in texts(pattern):
                with within(SECONDS, f"{pattern.pattern[:60]} on {text}"):
                    pattern.search(text)
                    pattern.fullmatch(text)


def screened(text: str) -> None:
    guard = Guard(load_persona(), state=GuardState(minor=True, asked_if_ai=True), read=lambda _: None)
    for _ in guard.screen(iter(text)):
        pass


def remembered(text: str) -> None:
    with suppress(ValueError):
        injection.keep_memory(text[: injection.MAX_MEMORY])


READERS: dict[object, list[Callable[[str], object]]] = {
    ai_question: [
        ai_question.asks_if_ai,
        ai_question.doubts,
        ai_question.teases,
        lambda text: ai_question.says_ai_unasked(text, ["やあ"]),
    ],
    control_tokens: [control_tokens.defuse],
    spelling: [spelling.plain, spelling.sentences],
    boundaries: [
        boundaries.sexual,
        boundaries.encourages_dependence,
        boundaries.encourages_self_harm,
        boundaries.encourages_violence,
        boundaries.claims_human,
        boundaries.unwrapped,
        boundaries.is_quoting,
    ],
    crisis: [crisis.pieces],
    injection: [injection.injection, remembered],
    minors: [minors.says_minor, lambda text: minors.says_minor(text, asked=True), minors.asks_age],
    romance: [romance.romantic, lambda text: romance.romantic(text, "her"), romance.liking, romance.asks_for_romance],
    rules: [rules.find],
    unsafe: [unsafe.unsafe],
    noticing: [lambda text: noticing.by_rules(text, date(2026, 12, 1), "さくら")],
    commands: [commands.is_command],
}


@pytest.mark.parametrize("module", READERS, ids=lambda module: module.__name__)
def test_no_reader_hangs_on_repetitions_of_its_own_words(module):
    own = dict.fromkeys(text for value in vars(module).values() for p in patterns(value) for text in texts(p))
    for text in own:
        for read in READERS[module]:
            with within(SECONDS, text):
                read(text)


def test_no_rule_of_a_companions_name_tries_every_cut_of_a_long_text():
    card = load_persona()
    own = dict.fromkeys(
        (pattern, text) for pattern in patterns(vars(event_kinds._rules(card.name))) for text in texts(pattern)
    )
    for pattern, text in own:
        with within(SECONDS, f"{pattern.pattern[:60]} on {text}"):
            pattern.search(text)
            pattern.fullmatch(text)
    for piece in ("さくら君", "よね", "好き", "ほんとに", "うるさい", "だからもう"):
        with within(SECONDS, piece):
            event_kinds.kind_of(f"{piece * TIMES}x", [], card, f"{piece * TIMES}x")


@pytest.mark.parametrize(
    "piece", ["だってほんと", "AIなの", "ほんとに", "だったり", "笑", "って", "の人", "「死ね」", "「", "。「"]
)
def test_help_lines_come_at_once_whatever_stands_behind_the_cry_for_help(piece):
    guard = Guard(load_persona(), read=crisis_by_word)
    with within(SECONDS, piece):
        decision = guard.before(f"死にたい。これって機械{piece * TIMES}なの笑笑笑x?")
    assert "0120-" in decision.first
    with within(2 * SECONDS, piece):
        screened(f"ほんとはAI{piece * TIMES}なの笑笑笑x?")


def crisis_by_word(text: str) -> crisis.Crisis | None:
    return crisis.Crisis("suicide", 1.0, "死にたい", False) if "死にたい" in text else None


def test_what_is_noticed_takes_no_time():
    for piece in ("ので", "には", "なの", "よね", "ほんとに", "うんでも"):
        for before in ("僕の名前はけんじ", "明日", "犬を飼ってる", "カレーが好きなの"):
            with within(SECONDS, before + piece):
                noticing.by_rules(f"{before}{piece * TIMES}x", date(2026, 12, 1), "さくら")


@pytest.mark.parametrize(
    "piece", [" ", "…、", "w", "w、", "か", "だから", "「", "好き", "さくらも好き？", "\n", "14 ", "私の、"]
)
def test_the_longest_message_is_read_within_a_second(piece):
    guard = Guard(load_persona(), read=crisis_by_word)
    for before in ("AI", "死にたい。AIなの", "明日", "設定を", "「"):
        words = f"{before}{piece * MAX_WORDS}"[:MAX_WORDS] + "x?"
        with within(SECONDS, f"{before}{piece}…"):
            guard.before(words)
        with within(SECONDS, f"{before}{piece}…"):
            noticing.by_rules(words, date(2026, 12, 1), "さくら")


def test_marks_in_each_other_are_taken_off_within_a_second():
    for words in ("「" * MAX_WORDS, "「" * 1000 + "」" * 1000, "「あ」" * 600, "「「あ」" * 500):
        with within(SECONDS, words[:9]):
            boundaries.unwrapped(words)
            minors.says_minor(words)
