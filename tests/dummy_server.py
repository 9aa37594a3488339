"""A stand-in for vLLM's server in tests: the same addresses and errors, a child process that ignores TERM, no model.

`python dummy_server.py PORT PIDS NAME…` writes its process ids to the file PIDS and serves NAME… on 127.0.0.1:PORT.
"""

import json
import os
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PORT, PIDS, NAMES = int(sys.argv[1]), sys.argv[2], sys.argv[3:]
CONTEXT = int(os.environ.get("DUMMY_CONTEXT", "200"))  # characters
at_once = {"now": 0, "most": 0}
lock = threading.Lock()


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def _send(self, status, body, kind="application/json"):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _error(self, status, message):
        self._send(status, {"error": {"message": message, "type": "Error", "param": None, "code": status}})

    def _authorised(self):
        if self.headers.get("Authorization") == f"Bearer {os.environ['VLLM_API_KEY']}":
            return True
        self._send(401, {"error": "Unauthorized"})
        return False

    def do_GET(self):
        if self.path == "/health":
            self._send(200, b"")
        elif self.path == "/at_once":
            self._send(200, at_once)
        elif self.path != "/v1/models":
            self._send(404, {"detail": "Not Found"})
        elif self._authorised():
            self._send(200, {"object": "list", "data": [{"id": n, "object": "model"} for n in NAMES]})

    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path != "/v1/chat/completions":
            self._send(404, {"detail": "Not Found"})
        elif not self._authorised():
            return
        elif request["model"] not in NAMES:
            self._error(404, f"The model `{request['model']}` does not exist.")
        elif sum(len(m["content"]) for m in request["messages"]) > CONTEXT:
            self._error(400, f"This model's maximum context length is {CONTEXT} tokens. However, …")
        else:
            self._answer(request)

    def _answer(self, request):
        with lock:
            at_once["now"] += 1
            at_once["most"] = max(at_once.values())
        time.sleep(0.05)
        with lock:
            at_once["now"] -= 1
        # The reply repeats the words; one character is a token, and the end of turn another, unless max_tokens cuts it.
        words = f"{request['model']}:{request['messages'][-1]['content']}"
        finish = "stop" if len(words) < request["max_tokens"] else "length"
        words = words[: request["max_tokens"]]
        usage = {"prompt_tokens": 1, "completion_tokens": len(words) + (finish == "stop"), "total_tokens": 1}
        head = {"id": "1", "created": 1, "model": request["model"]}
        if not request.get("stream"):
            choice = {"index": 0, "message": {"role": "assistant", "content": words}, "finish_reason": finish}
            self._send(200, head | {"object": "chat.completion", "choices": [choice], "usage": usage})
            return
        deltas = [({"content": c}, None) for c in words] + [({}, finish)]
        chunks = [{"choices": [{"index": 0, "delta": d, "finish_reason": f}], "usage": None} for d, f in deltas]
        chunks.append({"choices": [], "usage": usage})
        lines = [f"data: {json.dumps(head | {'object': 'chat.completion.chunk'} | c)}\n\n" for c in chunks]
        self._send(200, "".join([*lines, "data: [DONE]\n\n"]).encode(), "text/event-stream")


child = os.fork()
if not child:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(3600)
server = ThreadingHTTPServer(("127.0.0.1", PORT), Handler)
with open(f"{PIDS}.part", "w") as file:
    file.write(f"{os.getpid()} {child}")
os.rename(f"{PIDS}.part", PIDS)
server.serve_forever()
