"""Dialogues written by a language model: method B.

In: orders, and a client of any OpenAI-compatible endpoint. Out: the answers, each in a log as soon as it is
there, so that an interrupted run of ten thousand asks nothing twice; then the dialogues that the gate lets through, and
why the others did not.
"""

import json
import logging
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Protocol

from tqdm.auto import tqdm

from helpers.conversations import Conversation
from helpers.data.duplicates import near_duplicates
from helpers.data.orders import SCHEMA, Order, fingerprint
from helpers.data.quality import check
from helpers.persona import PersonaCard
from helpers.replies import Reply

_SHAPE = {"type": "json_schema", "json_schema": {"name": "dialogue", "schema": SCHEMA, "strict": True}}
MAX_FAILURES = 20  # in a row: then the endpoint is not there any more

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Answer:
    """One answer as the log keeps it; `tokens` as the endpoint counts them."""

    order: str
    request: str
    text: str
    tokens: int
    seconds: float


class Client(Protocol):
    """What asks the endpoint; `helpers.serve.client.ChatClient` is one. Retries are its own affair, and what it raises
    at the end is a failure of this one order."""

    def reply(self, messages, *, max_tokens: int, temperature: float, seed: int, extra: dict) -> Reply: ...


@dataclass
class Run:
    """What a run brought. `stopped` says why it ended before all orders were answered, if it did."""

    answers: dict[str, Answer] = field(default_factory=dict)
    asked: int = 0
    failures: Counter = field(default_factory=Counter)
    seconds: float = 0.0
    stopped: str = ""

    @property
    def tokens(self) -> int:
        return sum(answer.tokens for answer in self.answers.values())


class AnswerLog:
    """JSON Lines of answers. A line that a crash cut off is dropped when the log is opened."""

    def __init__(self, path: Path):
        self.path, self._lock = path, threading.Lock()
        path.parent.mkdir(parents=True, exist_ok=True)
        whole = path.read_bytes() if path.exists() else b""
        if whole and not whole.endswith(b"\n"):
            path.write_bytes(whole[: whole.rfind(b"\n") + 1])

    def __iter__(self) -> Iterator[Answer]:
        if self.path.exists():
            with self.path.open(encoding="utf-8") as lines:
                yield from (Answer(**json.loads(line)) for line in lines)

    def append(self, answer: Answer) -> None:
        """Write one answer; it is on disk when this returns."""
        with self._lock, self.path.open("a", encoding="utf-8", newline="\n") as file:
            file.write(json.dumps(asdict(answer), ensure_ascii=False) + "\n")


def run(
    orders: Sequence[Order],
    client: Client,
    card: PersonaCard,
    examples: Sequence[Conversation],
    answers: AnswerLog,
    sampling: Mapping[str, object],
    *,
    concurrency: int = 32,
    budget: int | None = None,
) -> Run:
    """Have all `orders` answered that the log has no answer to.

    Args:
        examples: dialogues of which each request shows two.
        sampling: model, max_tokens and temperature; another sampling asks anew.
        concurrency: requests under way at once.
        budget: stop when the tokens of all answers, those in the log included, reach this.
    """
    requests = {order.id: order.messages(card, examples) for order in orders}
    keys = {order.id: fingerprint(requests[order.id], {**sampling, "seed": order.seed}) for order in orders}
    result = Run({a.order: a for a in answers if keys.get(a.order) == a.request})
    due = iter([order for order in orders if order.id not in result.answers])
    began, in_a_row = time.monotonic(), 0

    def answer(order: Order) -> Answer:
        sent = time.monotonic()
        reply = client.reply(
            requests[order.id],
            max_tokens=sampling["max_tokens"],
            temperature=sampling["temperature"],
            seed=order.seed,
            extra={"response_format": _SHAPE},
        )
        return Answer(order.id, keys[order.id], reply.text, reply.tokens, round(time.monotonic() - sent, 3))

    with (
        ThreadPoolExecutor(concurrency) as pool,
        tqdm(total=len(orders), initial=len(result.answers), desc="dialogues", mininterval=1) as progress,
    ):
        under_way: dict[Future, Order] = {}
        try:
            while True:
                while len(under_way) < concurrency and not result.stopped and (order := next(due, None)):
                    under_way[pool.submit(answer, order)] = order
                    result.asked += 1
                if not under_way:
                    break
                for future in wait(under_way, return_when=FIRST_COMPLETED).done:
                    order = under_way.pop(future)
                    error = future.exception()
                    if error is not None and not isinstance(error, Exception):
                        raise error
                    if error:
                        result.failures[" ".join(str(error).split())[:200]] += 1
                        in_a_row += 1
                    else:
                        answers.append(future.result())
                        result.answers[order.id], in_a_row = future.result(), 0
                        progress.update()
                if budget is not None and result.tokens >= budget:
                    result.stopped = f"the budget of {budget:,} tokens is spent"
                elif in_a_row >= MAX_FAILURES:
                    result.stopped = f"{in_a_row} requests failed in a row: {result.failures.most_common(1)[0][0]}"
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    result.seconds = round(time.monotonic() - began, 1)
    if result.stopped:
        log.warning("%d of %d dialogues: %s.", len(result.answers), len(orders), result.stopped)
    return result


@dataclass
class Gated:
    """What the gate let through, and for each order that it did not, the reasons."""

    accepted: list[Conversation] = field(default_factory=list)
    refused: dict[str, list[str]] = field(default_factory=dict)

    def by_reason(self) -> Counter:
        """How many orders each reason refused; one order can count under several."""
        return Counter(reason for reasons in self.refused.values() for reason in reasons)


def gate(
    orders: Sequence[Order], answers: dict[str, Answer], card: PersonaCard, known: Sequence[Conversation] = ()
) -> Gated:
    """Read the answers, and keep the dialogues that are sound, pass the quality gate, and are like no other: neither
    like one of `known` nor like one accepted before."""
    gated, sound = Gated(), {}
    for order in orders:
        if order.id not in answers:
            continue
        try:
            conversation = order.conversation(answers[order.id].text)
        except ValueError as error:
            reason = "not the JSON asked for" if "JSON" in str(error) else "not a sound dialogue"
            gated.refused[order.id] = [reason]
            continue
        if reasons := [reason.rule for reason in check(conversation, card)]:
            gated.refused[order.id] = reasons
        else:
            sound[order.id] = conversation
    said = {c.id: "\n".join(m.content for m in c.messages) for c in (*known, *sound.values())}
    for pair in near_duplicates(said, threshold=0.5):
        if sound.pop(pair.b, None):
            gated.refused[pair.b] = ["near duplicate"]
    gated.accepted = list(sound.values())
    return gated
