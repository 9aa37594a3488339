"""A stand-in for vLLM's server in tests: the same addresses and errors, a child process that ignores TERM, no model.

`python dummy_server.py PORT PIDS NAME…` writes its process ids to the file PIDS and serves NAME… on 127.0.0.1:PORT.
Words at the beginning of a message make it misbehave, see TRICKS. A chat that asks for a summary is answered with
DUMMY_SUMMARY, one that asks for JSON with DUMMY_JSON, if they are set. It tells the limit of its context if DUMMY_LIMIT
is set.
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
TRICKS = {
    "[tell]": "answers with the system prompt",
    "[say]": "answers with the words after it",
    "[stall]": "falls silent in the middle of the reply",
    "[break]": "hangs up in the middle of the reply",
    "[nonsense]": "sends what is no JSON",
    "[slow]": "sends a letter every 0.1 s",
}
at_once = {"now": 0, "most": 0}
lock = threading.Lock()


def characters(messages):
    return sum(len(m["content"]) for m in messages)


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
            limit = {"max_model_len": int(os.environ["DUMMY_LIMIT"])} if "DUMMY_LIMIT" in os.environ else {}
            self._send(200, {"object": "list", "data": [{"id": n, "object": "model"} | limit for n in NAMES]})

    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/tokenize" and "DUMMY_LIMIT" in os.environ:
            self._send(200, {"count": characters(request["messages"]), "max_model_len": CONTEXT, "tokens": []})
        elif self.path != "/v1/chat/completions":
            self._send(404, {"detail": "Not Found"})
        elif not self._authorised():
            return
        elif request["model"] not in NAMES:
            self._error(404, f"The model `{request['model']}` does not exist.")
        elif "response_format" in request and "DUMMY_JSON" not in os.environ:
            self._error(400, "response_format is not supported")
        elif characters(request["messages"]) > CONTEXT:
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
        words, trick = self._words(request)
        finish = "stop" if len(words) < request["max_tokens"] else "length"
        words = words[: request["max_tokens"]]
        usage = {
            "prompt_tokens": characters(request["messages"]),
            "completion_tokens": len(words) + (finish == "stop"),
            "total_tokens": 1,
        }
        head = {"id": "1", "created": 1, "model": request["model"]}
        if not request.get("stream"):
            choice = {"index": 0, "message": {"role": "assistant", "content": words}, "finish_reason": finish}
            self._send(200, head | {"object": "chat.completion", "choices": [choice], "usage": usage})
            return
        deltas = [({"content": c}, None) for c in words] + [({}, finish)]
        chunks = [{"choices": [{"index": 0, "delta": d, "finish_reason": f}], "usage": None} for d, f in deltas]
        chunks.append({"choices": [], "usage": usage})
        lines = [f"data: {json.dumps(head | {'object': 'chat.completion.chunk'} | c)}\n\n" for c in chunks]
        if trick in ("[stall]", "[break]", "[nonsense]", "[slow]"):
            self._misbehave(trick, lines)
        else:
            self._send(200, "".join([*lines, "data: [DONE]\n\n"]).encode(), "text/event-stream")

    def _words(self, request):
        """What is answered, and the trick with which it is."""
        first, last = request["messages"][0]["content"], request["messages"][-1]["content"]
        if "response_format" in request:
            return os.environ["DUMMY_JSON"], ""
        if first.startswith("次の会話の要点") and "DUMMY_SUMMARY" in os.environ:
            return os.environ["DUMMY_SUMMARY"], ""
        trick = next((t for t in TRICKS if last.startswith(t)), "")
        if trick == "[tell]":
            return first, trick
        return (last if trick == "[say]" else f"{request['model']}:{last}").removeprefix("[say]"), trick

    def _misbehave(self, trick, lines):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        for line in lines if trick == "[slow]" else lines[:4]:
            self.wfile.write(line.encode())
            self.wfile.flush()
            time.sleep(0.1 * (trick == "[slow]"))
        if trick == "[stall]":
            time.sleep(30)
        elif trick == "[nonsense]":
            self.wfile.write(b"data: {oops\n\n")


child = os.fork()
if not child:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(3600)
server = ThreadingHTTPServer(("127.0.0.1", PORT), Handler)
with open(f"{PIDS}.part", "w") as file:
    file.write(f"{os.getpid()} {child}")
os.rename(f"{PIDS}.part", PIDS)
server.serve_forever()
