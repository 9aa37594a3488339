"""A stand-in for vLLM's server in tests: the same addresses, errors and words in the log, no model.

`python dummy_server.py PORT PIDS NAME…` writes its process ids to the file PIDS and serves NAME… on 127.0.0.1:PORT.
Like vLLM's it has a second process, here one that ignores TERM, and both hold shared memory, a semaphore and files.
Words at the beginning of a message make it misbehave, see TRICKS. A chat that asks for a summary is answered with
DUMMY_SUMMARY, one that asks for JSON with DUMMY_JSON, if they are set. It tells the limit of its context if DUMMY_LIMIT
is set. At /asked it tells what the last chat asked for besides its messages.
With DUMMY_LIKE it answers in another server's manner, see MANNERS.
With DUMMY_START each stage of its start takes so many seconds; with DUMMY_HOLD the last one lasts until there is a file
of that name.
"""

import json
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.shared_memory import SharedMemory

PORT, PIDS, NAMES = int(sys.argv[1]), sys.argv[2], sys.argv[3:]
CONTEXT = int(os.environ.get("DUMMY_CONTEXT", "200"))  # characters
WORDS = ("non-default args: {}", "Initializing a V1 LLM engine (v0)", "Starting to load model x...")
TRICKS = {
    "[tell]": "answers with the system prompt",
    "[say]": "answers with the words after it",
    "[stall]": "falls silent in the middle of the reply",
    "[break]": "hangs up in the middle of the reply",
    "[nonsense]": "sends what is no JSON",
    "[full]": "sends an error in the middle of the reply",
    "[slow]": "sends a letter every 0.1 s",
}


@dataclass(frozen=True)
class Manner:
    """How a server answers a chat that is longer than its context (the status and the error), and a name that it does
    not know; the status of /tokenize, if it has none; an ending that a name may lack in a request; whether it leaves
    out the oldest messages of such a chat without a word, and refuses it only if that is not enough."""

    too_long: tuple[int, dict]
    unknown: str = "The model `{}` does not exist."
    tokenize: int = 404
    tag: str = ""
    cuts: bool = False


MANNERS = {
    "vllm": Manner((400, {"message": f"This model's maximum context length is {CONTEXT} tokens. However, …"})),
    # tools/server of llama.cpp: ERROR_TYPE_EXCEED_CONTEXT_SIZE
    "llama.cpp": Manner(
        (400, {"message": "the request exceeds the available context size", "type": "exceed_context_size_error"}),
        tokenize=400,
    ),
    "openai": Manner(
        (400, {"message": "Your input is too long.", "code": "context_length_exceeded"}),
        unknown="The model `{}` does not exist or you do not have access to it.",
        tokenize=401,
    ),
    "ollama": Manner(
        (400, {"message": '{"error":{"code":400,"message":"request (9 tokens) exceeds the available context size"}}'}),
        unknown='model "{}" not found',
        tokenize=405,
        tag=":latest",
        cuts=True,
    ),
    "gateway": Manner((413, {"message": "Request Entity Too Large"}), tokenize=501),
    # The status is sent before the prompt is read, and the error as the first event of the stream.
    "late": Manner((200, {"message": "too long", "type": "exceed_context_size_error"}), tokenize=500),
}
LIKE = MANNERS[os.environ.get("DUMMY_LIKE", "vllm")]
at_once = {"now": 0, "most": 0}
asked = {}
counted = {"prompt_tokens": 0, "generation_tokens": 0, "prefix_cache_queries": 0, "prefix_cache_hits": 0}
lock = threading.Lock()


def switched():
    """Name → folder of the adapters that took another's place."""
    file = os.environ.get("COMPANION_ADAPTERS", "")
    if not os.path.exists(file):
        return {}
    with open(file) as opened:
        return json.load(opened)


def characters(messages):
    return sum(len(m["content"]) for m in messages)


def cut(messages):
    """Without the oldest messages, until it fits; the system's and the last one stay (Ollama, server/prompt.go)."""
    kept = list(messages)
    while characters(kept) > CONTEXT and (old := next((m for m in kept[:-1] if m["role"] != "system"), None)):
        kept.remove(old)
    return kept


def metrics():
    """As vLLM words them; a prompt's characters are its tokens, and of the second prompt on half are cached."""
    lines = [f'# TYPE vllm:num_requests_running gauge\nvllm:num_requests_running{{engine="0"}} {at_once["now"]}.0']
    lines += ['# TYPE vllm:num_requests_waiting gauge\nvllm:num_requests_waiting{engine="0"} 0.0']
    lines += ['# TYPE vllm:kv_cache_usage_perc gauge\nvllm:kv_cache_usage_perc{engine="0"} 0.25']
    for name, value in counted.items():
        lines += [f'# TYPE vllm:{name}_total counter\nvllm:{name}_total{{engine="0"}} {value}.0']
    return "\n".join(lines) + "\n"


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

    def _error(self, status, **fields):
        error = {"error": {"type": "Error", "param": None, "code": status, **fields}}
        if status == 200:
            self._send(status, f"data: {json.dumps(error)}\n\n".encode(), "text/event-stream")
        else:
            self._send(status, error)

    def _authorised(self):
        if self.headers.get("Authorization") == f"Bearer {os.environ['VLLM_API_KEY']}":
            return True
        self._send(401, {"error": "Unauthorized"})
        return False

    def do_GET(self):
        if self.path == "/health":
            self._send(200, b"")
        elif self.path == "/metrics":
            self._send(200, metrics().encode(), "text/plain; version=0.0.4")
        elif self.path == "/at_once":
            self._send(200, at_once)
        elif self.path == "/asked":
            self._send(200, asked)
        elif self.path != "/v1/models":
            self._send(404, {"detail": "Not Found"})
        elif self._authorised():
            limit = {"max_model_len": int(os.environ["DUMMY_LIMIT"])} if "DUMMY_LIMIT" in os.environ else {}
            models = [{"id": n, "object": "model", "root": switched().get(n)} | limit for n in NAMES]
            self._send(200, {"object": "list", "data": models})

    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if LIKE.cuts:
            request["messages"] = cut(request["messages"])
        if self.path == "/tokenize" and "DUMMY_LIMIT" in os.environ:
            self._send(200, {"count": characters(request["messages"]), "max_model_len": CONTEXT, "tokens": []})
        elif self.path == "/tokenize" and LIKE.tokenize != 404:
            self._error(LIKE.tokenize, message="There is no such address.")
        elif self.path != "/v1/chat/completions":
            self._send(404, {"detail": "Not Found"})
        elif not self._authorised():
            return
        elif request["model"] not in NAMES and request["model"] + LIKE.tag not in NAMES:
            self._error(404, message=LIKE.unknown.format(request["model"]))
        elif "response_format" in request and "DUMMY_JSON" not in os.environ:
            self._error(400, message="response_format is not supported")
        elif characters(request["messages"]) > CONTEXT:
            status, fields = LIKE.too_long
            self._error(status, **fields)
        else:
            self._answer(request)

    def _answer(self, request):
        with lock:
            at_once["now"] += 1
            at_once["most"] = max(at_once.values())
            asked.clear()
            asked.update({name: value for name, value in request.items() if name != "messages"})
        time.sleep(0.05)
        prompt = characters(request["messages"])
        with lock:
            at_once["now"] -= 1
            counted["prefix_cache_hits"] += prompt // 2 if counted["prompt_tokens"] else 0
            counted["prompt_tokens"] += prompt
            counted["prefix_cache_queries"] += prompt
        # The reply repeats the words; one character is a token, and the end of turn another, unless max_tokens cuts it.
        words, trick = self._words(request)
        finish = "stop" if len(words) < request["max_tokens"] else "length"
        words = words[: request["max_tokens"]]
        with lock:
            counted["generation_tokens"] += len(words)
        usage = {
            "prompt_tokens": prompt,
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
        if trick in ("[stall]", "[break]", "[nonsense]", "[full]", "[slow]"):
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
        elif trick == "[full]":
            self.wfile.write(b'data: {"error": {"message": "the context size has been exceeded"}}\n\n')


STAGE = float(os.environ.get("DUMMY_START", "0"))
time.sleep(STAGE)
for words in WORDS:
    print("INFO", words, flush=True)
    time.sleep(STAGE)
while "DUMMY_HOLD" in os.environ and not os.path.exists(os.environ["DUMMY_HOLD"]):
    time.sleep(0.02)
server = ThreadingHTTPServer(("127.0.0.1", PORT), Handler)
semaphore = multiprocessing.get_context("spawn").Lock()
shared = [SharedMemory(create=True, size=4096)]
scratch = tempfile.mkstemp(prefix="dummy-")
child = os.fork()
if not child:
    server.socket.close()
    shared.append(SharedMemory(create=True, size=4096))
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(3600)
with open(f"{PIDS}.part", "w") as file:
    file.write(f"{os.getpid()} {child}")
os.rename(f"{PIDS}.part", PIDS)
server.serve_forever()
