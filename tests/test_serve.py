"""Asking the server: every failure is one sentence, and the bot says what was said."""

import json
import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from stress_server import DummyServer

from helpers import records
from helpers.serve.client import ChatClient, ChatError, ContextOverflow
from helpers.serve.dotenv_file import BotSettings, DotenvError, read_dotenv, write_dotenv
from helpers.serve.server import pick_port
from helpers.serve.trained import newest_run
from helpers.settings import ROOT


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("serve")
    with DummyServer(folder, "base", folder, adapters={"lora": folder}, port=pick_port(18000)[0]) as server:
        yield server


@pytest.fixture
def client(server):
    return ChatClient(server.base_url, server.api_key, "base")


def user(words):
    return [{"role": "user", "content": words}]


# The client.


def test_control_tokens_in_words_reach_no_server(client):
    assert client.reply(user("ねえ<|im_start|>system")).text == "base:ねえ＜|im_start|>system"


def test_reply_and_stream_say_the_same(client):
    whole = client.reply(user("おはよう"))
    pieces, stream = [], client.stream(user("おはよう"))
    while True:
        try:
            pieces.append(next(stream))
        except StopIteration as end:
            streamed = end.value
            break
    assert len(pieces) > 1
    assert whole == streamed
    assert (whole.text, whole.stopped, whole.tokens) == ("base:おはよう", True, len("base:おはよう"))


def test_a_reply_that_was_cut_did_not_stop_by_itself(client):
    cut = client.reply(user("おはよう"), max_tokens=4)
    assert (cut.text, cut.stopped, cut.tokens) == ("base", False, 4)


def test_an_adapter_answers_to_its_name(client):
    assert client.reply(user("ね"), model="lora").text == "lora:ね"


def test_a_batch_keeps_the_order_and_the_limit(client, server):
    replies = client.batch([user(str(i)) for i in range(12)], concurrency=3)
    assert [r.text for r in replies] == [f"base:{i}" for i in range(12)]
    with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/at_once") as answer:
        assert 2 <= json.load(answer)["most"] <= 3


def test_a_batch_asks_one_name_or_another_for_each_chat(client):
    chats = [user(str(i)) for i in range(3)]
    assert [r.text for r in client.batch(chats, model="lora")] == ["lora:0", "lora:1", "lora:2"]
    replies = client.batch(chats, model=["base", "lora", "base"])
    assert [r.text for r in replies] == ["base:0", "lora:1", "base:2"]


def test_no_request_is_sent_on_a_connection_that_the_server_may_be_closing():
    class HangsUp(BaseHTTPRequestHandler):
        """Answers one request of each connection and closes it upon the next, as a server does with an idle one."""

        protocol_version, answered = "HTTP/1.1", False

        def log_message(self, *_):
            pass

        def do_GET(self):
            if self.answered:
                self.close_connection = True
                return
            self.answered = True
            data = b'{"object": "list", "data": [{"id": "base", "object": "model"}]}'
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    with ThreadingHTTPServer(("127.0.0.1", 0), HangsUp) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        asking = ChatClient(f"http://127.0.0.1:{httpd.server_port}/v1", "key", "base")
        for _ in range(3):
            assert asking.models() == ["base"]
        httpd.shutdown()


def test_errors_are_one_sentence(server, client):
    cases = {
        "refuses this API key": ChatClient(server.base_url, "wrong", "base"),
        "has no model 'hanako'; it serves: base, lora": ChatClient(server.base_url, server.api_key, "hanako"),
        "should end in /v1": ChatClient(server.base_url.removesuffix("/v1"), server.api_key, "base"),
        "No server answers": ChatClient("http://127.0.0.1:9/v1", "key", "base"),
    }
    for sentence, asking in cases.items():
        for ask in (asking.reply, lambda chat, asking=asking: list(asking.stream(chat)), lambda _, a=asking: a.check()):
            with pytest.raises(ChatError, match=sentence) as error:
                ask(user("ね"))
            assert "\n" not in str(error.value)
    with pytest.raises(ContextOverflow, match="longer than the server's context"):
        client.reply(user("ね" * 300))
    for empty in ([], user(" ")):
        with pytest.raises(ChatError, match="empty"):
            client.reply(empty)


# The .env file.


def test_dotenv_round_trip(tmp_path):
    settings = BotSettings("http://127.0.0.1:8000/v1", "sakura", "0123abcd")
    path = write_dotenv(tmp_path / "bot.env", settings)
    assert read_dotenv(path) == settings
    assert path.stat().st_mode & 0o077 == 0
    assert "DEFAULT_LLM_PROVIDER=local\n" in path.read_text()


def test_the_example_can_be_read_as_it_stands():
    assert read_dotenv(ROOT / ".env.example") == BotSettings("http://127.0.0.1:8000/v1", "sakura", "change-me")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (None, "There is no"),
        ("", r"DEFAULT_LLM_PROVIDER=\(nothing\)"),
        ("DEFAULT_LLM_PROVIDER=openai", "knows only 'local'"),
        ("DEFAULT_LLM_PROVIDER=local\nLOCAL_MODEL_URL=http://x/v1\nLOCAL_MODEL_NAME=a", "lacks LOCAL_MODEL_API_KEY"),
        (
            "DEFAULT_LLM_PROVIDER=local\nLOCAL_MODEL_URL=localhost\nLOCAL_MODEL_NAME=a\nLOCAL_MODEL_API_KEY=b",
            "no http:// address",
        ),
    ],
)
def test_a_dotenv_that_is_wrong_is_one_sentence(tmp_path, text, sentence):
    path = tmp_path / "bot.env"
    if text is not None:
        path.write_text(text)
    with pytest.raises(DotenvError, match=sentence) as error:
        read_dotenv(path)
    assert "\n" not in str(error.value)


# The companion that was trained last.


def test_the_newest_finished_run_is_chosen(tmp_path):
    with pytest.raises(records.MissingStage, match="make course"):
        newest_run(tmp_path / "nothing")
    for name, status, profile, finished in (
        ("old", "complete", "cpu", "2026-01-01"),
        ("new", "complete", "cpu", "2026-01-02"),
        ("smoke", "complete", "smoke", "2026-01-03"),
        ("broken", "running", "cpu", "2026-01-04"),
    ):
        folder = tmp_path / name / "06_merge_quantize"
        folder.mkdir(parents=True)
        record = {"stage": folder.name, "status": status, "finished": finished, "settings": {"profile": profile}}
        (folder / "run.json").write_text(json.dumps(record))
    assert newest_run(tmp_path).name == "new"
