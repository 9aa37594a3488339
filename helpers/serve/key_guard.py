"""The server's key at every address.

vLLM asks for the key below /v1 and few other prefixes; /invocations, which answers chats, and /tokenize stay open
(`vllm serve --help`, --api-key). This ASGI middleware, given to vLLM as --middleware, asks for it everywhere but at
/health. In: the environment variable VLLM_API_KEY. Out: 401 for a request without it.
"""

import hmac
import os

OPEN = ("/health",)


class KeyGuard:
    """Wraps an ASGI application; requests need the header `Authorization: Bearer <key>`."""

    def __init__(self, app):
        self.app = app
        self._key = os.environ["VLLM_API_KEY"].encode()

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] == "lifespan" or scope["path"] in OPEN or self._authorised(scope["headers"]):
            await self.app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            head = [(b"content-type", b"application/json"), (b"www-authenticate", b"Bearer")]
            await send({"type": "http.response.start", "status": 401, "headers": head})
            await send({"type": "http.response.body", "body": b'{"error": "Unauthorized"}'})

    def _authorised(self, headers) -> bool:
        scheme, _, key = dict(headers).get(b"authorization", b"").partition(b" ")
        return scheme.lower() == b"bearer" and hmac.compare_digest(key, self._key)
