"""Asking a companion over HTTP: one reply, a stream, or a batch.

In: chats in the form `[{"role", "content"}]`. Out: `Reply`, or `ChatError` with one sentence. Thin over the
`openai` package; works with any server that speaks its protocol.
"""

import ipaddress
import json
import re
from collections.abc import Container, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from urllib.parse import urlsplit

import openai
from openai.types import CompletionUsage, Model
from openai.types.chat import ChatCompletion

from helpers.control_tokens import defuse
from helpers.replies import Reply

Chat = Sequence[dict[str, str]]

# vLLM: "maximum context length", "maximum model length". llama.cpp: "available context size", with the type
# exceed_context_size_error. OpenAI: the code context_length_exceeded.
_TOO_LONG = re.compile(r"context[ _](length|size|window)|maximum model length", re.IGNORECASE)
# vLLM and OpenAI: "The model `x` does not exist". Ollama: 'model "x" not found'. Of an address that is not there a
# server says "Not Found" too, but names no model.
_NO_MODEL = re.compile(r"\bmodel\b.*(does not exist|not found)|model_not_found", re.IGNORECASE)


class ChatError(RuntimeError):
    """The server could not be asked, or refused; the message says what to do."""


class ContextOverflow(ChatError):
    """The chat is longer than the server's context."""


class ChatClient:
    """A companion behind `base_url` (ending in /v1), asked for by the name `model`.

    `timeout` is in seconds and holds for each silence of the server. A request that fails for a passing reason (no
    connection, 408, 409, 429, 5xx) is sent again up to `retries` times, after pauses that double. The methods raise
    ChatError, and take as `extra` what the server knows beyond OpenAI's protocol, such as vLLM's `stop_token_ids`. What
    a request leaves open (top_p, top_k, stop tokens) vLLM takes from the checkpoint's generation_config.json.
    A proxy of the environment holds for addresses beyond this machine.
    """

    def __init__(self, base_url: str, api_key: str, model: str, timeout: float = 120, retries: int = 0):
        self.base_url, self.model = base_url, model
        # A proxy of the environment must not come between two processes on one machine.
        environment = not _on_this_machine(base_url)
        self._client = openai.OpenAI(
            base_url=base_url,
            api_key=api_key,
            timeout=timeout,
            max_retries=retries,
            http_client=openai.DefaultHttpxClient(trust_env=environment),
            # A server closes an idle connection (vLLM after 5 s), and a request sent at that moment is lost.
            default_headers={"Connection": "close"},
        )

    def models(self) -> list[str]:
        """The names that the server answers to."""
        return sorted(self._served())

    def context(self) -> int | None:
        """The most tokens that prompt and reply have together, if the server tells it (vLLM does)."""
        served = self._served()
        return getattr(served.get(_listed(self.model, served)), "max_model_len", None)

    def count(self, messages: Chat) -> int | None:
        """The tokens of a prompt, by vLLM's /tokenize; None from a server that has no such address, whatever it answers
        there instead."""
        root = self._client.with_options(base_url=self.base_url.removesuffix("/").removesuffix("/v1"))
        body = {"model": self.model, "messages": _defused(messages)}
        with self._one_sentence():
            try:
                return root.post("/tokenize", body=body, cast_to=object)["count"]
            except (openai.APIStatusError, TypeError, KeyError):
                return None

    def _served(self) -> dict[str, Model]:
        with self._one_sentence():
            try:
                return {model.id: model for model in self._client.models.list()}
            except AttributeError as error:  # of openai 3, if the answer is JSON without a list, or none
                raise ChatError(self._no_chat) from error

    def check(self, *others: str) -> None:
        """Raises ChatError unless the server answers and has the model, and the `others`."""
        served = self.models()
        if missing := [name for name in (self.model, *others) if _listed(name, served) not in served]:
            raise ChatError(f"The server has no model {missing[0]!r}; it serves: {', '.join(served)}.")

    def reply(
        self,
        messages: Chat,
        *,
        max_tokens: int = 80,
        temperature: float = 0.7,
        seed: int = 0,
        model: str | None = None,
        extra: dict[str, object] | None = None,
    ) -> Reply:
        """One whole reply. `temperature` 0 is greedy; `model` asks another name than the client's own."""
        with self._one_sentence(model):
            answer = self._client.chat.completions.create(
                **self._request(messages, model, extra, max_tokens=max_tokens, temperature=temperature, seed=seed)
            )
        if not isinstance(answer, ChatCompletion) or not answer.choices:
            raise ChatError(self._no_chat)
        choice = answer.choices[0]
        return _reply(choice.message.content or "", choice.finish_reason, answer.usage)

    def stream(
        self,
        messages: Chat,
        *,
        max_tokens: int = 80,
        temperature: float = 0.7,
        seed: int = 0,
        model: str | None = None,
        extra: dict[str, object] | None = None,
    ) -> Generator[str, None, Reply]:
        """Pieces of the reply as they come; the generator's return value is the whole `Reply`."""
        text, finish, usage = [], None, None
        request = self._request(messages, model, extra, max_tokens=max_tokens, temperature=temperature, seed=seed)
        with self._one_sentence(model):
            chunks = self._client.chat.completions.create(
                **request, stream=True, stream_options={"include_usage": True}
            )
            try:
                for chunk in chunks:
                    usage = chunk.usage or usage
                    for choice in chunk.choices:
                        finish = choice.finish_reason or finish
                        if choice.delta.content:
                            text.append(choice.delta.content)
                            yield choice.delta.content
            except openai.APITimeoutError:
                raise
            except openai.APIConnectionError as error:
                raise ChatError(f"{self._broke_off}: {_one_line(error)}") from error
            except openai.APIError as error:
                if not text:
                    raise
                raise ChatError(f"{self._broke_off}: {_one_line(error)}") from error
            except json.JSONDecodeError as error:
                raise ChatError(f"{self._broke_off}: it sent what is no JSON.") from error
            finally:
                chunks.close()
        if finish is None:
            raise ChatError(f"{self._broke_off}: try again.")
        return _reply("".join(text), finish, usage)

    @property
    def _no_chat(self) -> str:
        return f"What answers at {self.base_url} is no chat server that speaks OpenAI's protocol: check the address."

    @property
    def _broke_off(self) -> str:
        return f"The server at {self.base_url} broke off in the middle of a reply"

    def batch(
        self,
        chats: Sequence[Chat],
        *,
        max_tokens: int = 80,
        temperature: float = 0.7,
        seed: int = 0,
        concurrency: int = 48,
        model: str | None = None,
        extra: dict[str, object] | None = None,
    ) -> list[Reply]:
        """A reply for each chat, in order, at most `concurrency` at a time; chat i is sampled with `seed + i`."""
        with ThreadPoolExecutor(concurrency) as pool:
            futures = [
                pool.submit(
                    self.reply,
                    chat,
                    max_tokens=max_tokens,
                    temperature=temperature,
                    seed=seed + i,
                    model=model,
                    extra=extra,
                )
                for i, chat in enumerate(chats)
            ]
            try:
                return [future.result() for future in futures]
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _request(self, messages: Chat, model: str | None, extra: dict | None, **sampling) -> dict[str, object]:
        if not messages or not messages[-1]["content"].strip():
            raise ChatError("The message is empty: write something to her first.")
        return {
            "model": model or self.model,
            "messages": _defused(messages),
            "extra_body": extra,
            **sampling,
        }

    @contextmanager
    def _one_sentence(self, model: str | None = None):
        """Turns openai's errors into a ChatError."""
        try:
            yield
        except openai.AuthenticationError as error:
            raise ChatError(
                f"The server at {self.base_url} refuses this API key: take the one of its last start."
            ) from error
        except openai.NotFoundError as error:
            if not _says(error, _NO_MODEL):
                raise ChatError(
                    f"There is no chat server at {self.base_url}: the address should end in /v1."
                ) from error
            raise ChatError(
                f"The server has no model {model or self.model!r}; it serves: {', '.join(self.models())}."
            ) from error
        except openai.APITimeoutError as error:
            raise ChatError(
                f"The server at {self.base_url} gave no answer within {self._client.timeout:.0f} s."
            ) from error
        except openai.APIConnectionError as error:
            raise ChatError(
                f"No server answers at {self.base_url}: start one (`python -m helpers.serve.trained`) and try again."
            ) from error
        except json.JSONDecodeError as error:
            raise ChatError(self._no_chat) from error
        except openai.APIError as error:
            if _says(error, _TOO_LONG) or getattr(error, "status_code", None) == 413:
                raise ContextOverflow(
                    "The talk is longer than the server's context: shorten it, or raise max_model_len."
                ) from error
            if isinstance(error, openai.BadRequestError):
                raise ChatError(f"The server refuses the request: {_one_line(error)}") from error
            raise ChatError(f"The server at {self.base_url} failed: {_one_line(error)}") from error


def _reply(text: str, finish_reason: str | None, usage: CompletionUsage | None) -> Reply:
    stopped = finish_reason == "stop"
    if usage is None:
        return Reply(text.strip(), stopped, 0)
    # The server counts the stop token; `Reply.tokens` are her words alone.
    return Reply(text.strip(), stopped, usage.completion_tokens - stopped, usage.prompt_tokens)


def _on_this_machine(address: str) -> bool:
    host = urlsplit(address).hostname or ""
    try:
        number = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost"
    return number.is_loopback or number.is_unspecified


def _defused(messages: Chat) -> list[dict[str, str]]:
    return [{**message, "content": defuse(message["content"])} for message in messages]


def _listed(name: str, served: Container[str]) -> str:
    """The name under which the server lists the model that `name` asks for: Ollama adds a tag to one that has none."""
    tagged = f"{name}:latest"
    return tagged if name not in served and tagged in served else name


def _says(error: openai.APIError, what: re.Pattern[str]) -> bool:
    """Whether the error's message, type or code has it; the message of one in the middle of a stream lacks the rest."""
    return bool(what.search(f"{error} {error.body}"))


def _one_line(error: openai.APIError) -> str:
    body = error.body if isinstance(error.body, dict) else {}
    return " ".join(str(body.get("message", error)).split())
