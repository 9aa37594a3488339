"""Requests by the thousand to an OpenAI-compatible endpoint.

In: requests, each bound to a JSON schema, and a client. Out: the answers, each with its request in a log as soon as it
is there, so that an interrupted run of ten thousand asks nothing twice. What is under way at an interrupt is waited for
and logged; only what a `kill -9` finds under way is asked again.
"""

import json
import logging
import resource
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Protocol

from tqdm.auto import tqdm

from helpers.files import sha256_json
from helpers.replies import Reply

MAX_FAILURES = 20  # in a row: then the endpoint is not there any more
_OTHER_FILES = 512  # beside the connections: logs, libraries, a GPU

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Request:
    """What to ask: a chat, the JSON schema that its answer must follow, and a seed. `id` is its own in one log."""

    id: str
    messages: list[dict[str, str]]
    schema: Mapping[str, object]
    seed: int

    def fingerprint(self, sampling: Mapping[str, object]) -> str:
        """What makes a request the same request: 16 hexadecimal digits."""
        return sha256_json([self.messages, {**sampling, "seed": self.seed}, self.schema])[:16]


@dataclass(frozen=True)
class Answer:
    """One answer. `request` is the fingerprint of what was asked; `tokens` of the answer and `prompt_tokens` of what
    was asked are as the endpoint counts them, the latter None if it does not; `seconds` from sending to the end."""

    id: str
    request: str
    text: str
    tokens: int
    seconds: float
    prompt_tokens: int | None = None

    @property
    def cost(self) -> int:
        """Tokens read and written."""
        return self.tokens + (self.prompt_tokens or 0)


class Client(Protocol):
    """What asks the endpoint; `helpers.serve.client.ChatClient` is one. Retries are its own affair, and what it raises
    at the end is a failure of this one request."""

    def reply(self, messages, *, max_tokens: int, temperature: float, seed: int, extra: dict) -> Reply: ...


@dataclass
class Run:
    """What a run brought. Of this sitting alone are the requests `asked`, the tokens `written` in answer to them, the
    `failures` by reason and the `seconds`. `stopped` says why it ended before all requests were answered, if it did."""

    answers: dict[str, Answer] = field(default_factory=dict)
    asked: int = 0
    written: int = 0
    failures: Counter = field(default_factory=Counter)
    seconds: float = 0.0
    stopped: str = ""

    @property
    def tokens(self) -> int:
        """Tokens read and written for all answers, those of earlier sittings included."""
        return sum(answer.cost for answer in self.answers.values())

    @property
    def speed(self) -> float:
        """Tokens written a second in this sitting."""
        return self.written / self.seconds if self.seconds else 0.0


class AnswerLog:
    """JSON Lines of answers, each with what was asked. A line that a crash cut off is dropped at the opening."""

    def __init__(self, path: Path):
        self.path, self._lock = path, threading.Lock()
        path.parent.mkdir(parents=True, exist_ok=True)
        whole = path.read_bytes() if path.exists() else b""
        if whole and not whole.endswith(b"\n"):
            path.write_bytes(whole[: whole.rfind(b"\n") + 1])

    def __iter__(self) -> Iterator[Answer]:
        kept = {f.name for f in fields(Answer)}
        if self.path.exists():
            with self.path.open(encoding="utf-8") as lines:
                for line in lines:
                    yield Answer(**{key: value for key, value in json.loads(line).items() if key in kept})

    def append(self, answer: Answer, request: Request, sampling: Mapping[str, object]) -> None:
        """Write one answer and the request that it answers, from any thread; it is on disk when this returns."""
        asked = {"sampling": {**sampling, "seed": request.seed}, "messages": request.messages, "schema": request.schema}
        with self._lock, self.path.open("a", encoding="utf-8", newline="\n") as file:
            file.write(json.dumps(asdict(answer) | asked, ensure_ascii=False) + "\n")


def _allow_connections(number: int) -> None:
    """Each is a file to the system, of which a shell often allows a process 1,024; up to the hard limit it may ask for
    more."""
    wanted = number + _OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def run(
    requests: Sequence[Request],
    client: Client,
    answers: AnswerLog,
    sampling: Mapping[str, object],
    *,
    what: str = "answers",
    concurrency: int,
    budget: int | None = None,
) -> Run:
    """Have all `requests` answered that the log has no answer to.

    Args:
        sampling: model, max_tokens and temperature, and what else tells models apart; another sampling asks anew.
        what: the name of the progress bar.
        concurrency: requests under way at once.
        budget: ask no more when the tokens read and written for all answers, those in the log included, reach this;
            what is under way then comes on top.
    """
    _allow_connections(concurrency)
    keys = {request.id: request.fingerprint(sampling) for request in requests}
    result = Run({a.id: a for a in answers if keys.get(a.id) == a.request})
    due = deque(request for request in requests if request.id not in result.answers)
    began, in_a_row, spent = time.monotonic(), 0, result.tokens

    def answer(request: Request) -> Answer:
        sent = time.monotonic()
        shape = {"name": "answer", "schema": request.schema, "strict": True}
        reply = client.reply(
            request.messages,
            max_tokens=sampling["max_tokens"],
            temperature=sampling["temperature"],
            seed=request.seed,
            extra={"response_format": {"type": "json_schema", "json_schema": shape}},
        )
        seconds = round(time.monotonic() - sent, 3)
        found = Answer(request.id, keys[request.id], reply.text, reply.tokens, seconds, reply.prompt_tokens)
        # Here and not where the answers are gathered: an interrupt ends the gathering, not what is under way.
        answers.append(found, request, sampling)
        return found

    with (
        ThreadPoolExecutor(concurrency) as pool,
        tqdm(total=len(requests), initial=len(result.answers), desc=what, mininterval=1) as progress,
    ):
        under_way: dict[Future, Request] = {}
        try:
            while True:
                if due and budget is not None and spent >= budget:
                    result.stopped = f"the budget of {budget:,} tokens is spent"
                while due and len(under_way) < concurrency and not result.stopped:
                    request = due.popleft()
                    under_way[pool.submit(answer, request)] = request
                    result.asked += 1
                if not under_way:
                    break
                for future in wait(under_way, return_when=FIRST_COMPLETED).done:
                    request = under_way.pop(future)
                    error = future.exception()
                    if error is not None and not isinstance(error, Exception):
                        raise error
                    if error:
                        result.failures[" ".join(str(error).split())[:200]] += 1
                        in_a_row += 1
                    else:
                        result.answers[request.id] = found = future.result()
                        result.written, spent, in_a_row = result.written + found.tokens, spent + found.cost, 0
                        progress.update()
                        if budget is not None and found.prompt_tokens is None:
                            result.stopped = "the endpoint does not count tokens: ask it without a budget"
                if in_a_row >= MAX_FAILURES:
                    result.stopped = f"{in_a_row} requests failed in a row: {result.failures.most_common(1)[0][0]}"
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            if running := sum(not future.done() for future in under_way):
                log.warning("Interrupted: the answers to %d requests under way are waited for and kept.", running)
            raise
    result.seconds = round(time.monotonic() - began, 1)
    if result.stopped:
        log.warning("%d of %d %s: %s.", len(result.answers), len(requests), what, result.stopped)
    return result
