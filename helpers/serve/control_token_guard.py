"""Control tokens in anybody's words, made harmless before vLLM reads them.

vLLM's tokenizer reads the words of a chat as it reads the template around them: `<end_of_turn>` in a message ends a
turn. Our own client makes such words harmless (`control_tokens`), any other OpenAI client does not. This ASGI
middleware, given to vLLM as --middleware, does it for every POST, whatever its address: chats (at /invocations and
/tokenize too), and the text prompts of /v1/completions. Token ids are no words and stay as they are. In: a request.
Out: the same with its strings defused, but for the settings in `AS_THEY_STAND`; 413 for a body beyond `MOST_BYTES`, 400
for one that is no JSON.
"""

import json

from helpers.control_tokens import defuse

MOST_BYTES = 4 * 2**20  # many times the longest context
AS_THEY_STAND = ("model", "stop", "bad_words", "response_format", "structured_outputs")  # no prompt holds these


class ControlTokenGuard:
    """Wraps an ASGI application, which sees each request's body whole and defused."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] != "http.request":
                return  # the client has hung up
            body, more = body + message.get("body", b""), message.get("more_body", False)
            if len(body) > MOST_BYTES:
                await _refuse(send, 413, f"The request is longer than {MOST_BYTES:,} bytes.")
                return
        try:
            body = harmless(body) if body else body
        except (ValueError, RecursionError):
            await _refuse(send, 400, "The request's body is no JSON.")
            return
        headers = [header for header in scope["headers"] if header[0] != b"content-length"]
        headers.append((b"content-length", str(len(body)).encode()))
        whole = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive_whole():
            return whole.pop() if whole else await receive()

        await self.app({**scope, "headers": headers}, receive_whole, send)


def harmless(body: bytes) -> bytes:
    """A JSON document with its strings defused, but for keys and what a request has under those in `AS_THEY_STAND`.

    Raises:
        ValueError: it is no JSON.
        RecursionError: it is nested too deeply.
    """
    request = json.loads(body)
    settings = {key: request[key] for key in AS_THEY_STAND if key in request} if isinstance(request, dict) else {}
    defused = _defused(request)
    return json.dumps(defused | settings if settings else defused).encode()


def _defused(value: object) -> object:
    if isinstance(value, str):
        return defuse(value)
    if isinstance(value, list):
        return [_defused(item) for item in value]
    if isinstance(value, dict):
        return {key: _defused(item) for key, item in value.items()}
    return value


async def _refuse(send, status: int, message: str) -> None:
    error = {"error": {"message": message, "type": "BadRequestError", "param": None, "code": status}}
    body = json.dumps(error).encode()
    head = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": head})
    await send({"type": "http.response.body", "body": body})
