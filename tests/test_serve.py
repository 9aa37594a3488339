"""The serve room: nothing outlives its owner, every failure is one sentence, and the bot says what was said."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil
import pytest

from helpers import records
from helpers.serve import bot as bot_module
from helpers.serve.bot import Bot
from helpers.serve.chat import newest_run
from helpers.serve.client import ChatClient, ChatError, ContextOverflow
from helpers.serve.dotenv_file import BotSettings, DotenvError, read_dotenv, write_dotenv
from helpers.serve.server import ServerError, VLLMServer, max_lora_rank, pick_port, port_is_free, serving_dtype
from helpers.settings import ROOT

DUMMY = Path(__file__).parent / "dummy_server.py"


class DummyServer(VLLMServer):
    """The real class around a stand-in for vLLM."""

    grace = 1.0

    def command(self):
        return [sys.executable, str(DUMMY), str(self.port), str(self.pids_file), self.name, *self.adapters]

    @property
    def pids_file(self):
        return self.log_file.with_suffix(".pids")

    @property
    def pids(self):
        return [int(pid) for pid in self.pids_file.read_text().split()]


def gone(pids, seconds=8.0):
    """Whether all processes end within `seconds`; one that nobody has reaped counts as ended."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not any(psutil.pid_exists(p) and psutil.Process(p).status() != psutil.STATUS_ZOMBIE for p in pids):
            return True
        time.sleep(0.1)
    return False


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


# Nothing outlives its owner.


def test_stop_ends_every_process_and_frees_the_port(tmp_path):
    server = DummyServer(tmp_path, "a", tmp_path, port=pick_port(18100)[0]).start()
    pids = server.pids
    assert len(pids) == 2
    assert server.running
    server.stop()
    assert gone(pids, 0.5)
    assert port_is_free(server.port)
    assert not server.running
    server.stop()


def test_an_error_in_the_block_tears_down(tmp_path):
    server = DummyServer(tmp_path, "a", tmp_path, port=pick_port(18100)[0])
    with pytest.raises(KeyboardInterrupt), server:
        pids = server.pids
        raise KeyboardInterrupt
    assert gone(pids, 0.5)


@pytest.mark.skipif(sys.platform != "linux", reason="orphans are looked for as Linux shows them")
@pytest.mark.parametrize("victim", ["owner", "watchdog"])
def test_kill_9_leaves_nothing(tmp_path, victim):
    owner = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys, time; from pathlib import Path; from tests.test_serve import DummyServer, pick_port\n"
            "folder = Path(sys.argv[1]); server = DummyServer(folder, 'a', folder, port=pick_port(18200)[0]).start()\n"
            "print(server.port, server._watchdog.pid, *server.pids, flush=True); time.sleep(600)",
            str(tmp_path),
        ],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    port, watchdog, *pids = map(int, owner.stdout.readline().split())
    assert not port_is_free(port)
    guard = [p.pid for p in psutil.Process(watchdog).children() if p.pid not in pids]
    assert len(guard) == 1
    os.kill(owner.pid if victim == "owner" else watchdog, signal.SIGKILL)
    assert gone([*pids, *guard, watchdog])
    assert port_is_free(port)
    owner.kill()
    owner.wait()


def test_sigterm_ends_the_watchdogs_command():
    process = subprocess.Popen(
        [sys.executable, "-m", "helpers.serve.watchdog", "--", "sleep", "600"], cwd=ROOT, stdin=subprocess.PIPE
    )
    deadline = time.monotonic() + 10
    while len(children := psutil.Process(process.pid).children()) < 2 and time.monotonic() < deadline:
        time.sleep(0.1)
    process.terminate()
    assert process.wait(10) == 128 + signal.SIGTERM
    assert gone([c.pid for c in children], 2)


def test_the_commands_exit_code_comes_through():
    command = [sys.executable, "-m", "helpers.serve.watchdog", "--", sys.executable, "-c", "raise SystemExit(7)"]
    assert subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE).wait(10) == 7


# A start that fails.


class Dies(DummyServer):
    def command(self):
        return [sys.executable, "-c", "print('\\n'.join(f'line {i}' for i in range(40))); raise SystemExit(3)"]


class Silent(DummyServer):
    def command(self):
        return [sys.executable, "-c", "import time; print('thinking', flush=True); time.sleep(600)"]


def test_a_server_that_ends_at_once_shows_the_end_of_its_log(tmp_path):
    server = Dies(tmp_path, "a", tmp_path, port=pick_port(18300)[0])
    with pytest.raises(ServerError, match=r"'a' ended while starting \(exit code 3\)") as error:
        server.start()
    assert str(error.value).splitlines()[1:] == [f"line {i}" for i in range(25, 40)]
    assert not server.running


def test_the_end_of_the_log_is_the_cause_and_not_the_noise_after_it(tmp_path):
    server = VLLMServer(tmp_path, "a", tmp_path)
    noise = [
        "nanobind: leaked 4 types!",
        ' - leaked type "x"',
        " - ... skipped remainder",
        "resource_tracker.py:254: …",
    ]
    server.log_file.write_text("\n".join(["ValueError: the cause", "", *noise * 10]))
    assert server.log_tail() == "ValueError: the cause"


def test_a_server_that_never_answers_is_given_up(tmp_path):
    server = Silent(tmp_path, "a", tmp_path, port=pick_port(18300)[0], startup_timeout=1.5)
    with pytest.raises(ServerError, match=r"did not answer within 2 s.*\nthinking"):
        server.start()
    assert not server.running


def test_a_port_in_use_gives_way_to_a_free_one(server):
    port, note = pick_port(server.port)
    assert port != server.port
    assert str(server.port) in note
    assert str(port) in note


def test_a_folder_without_a_model_is_one_sentence(tmp_path):
    with pytest.raises(ServerError, match=r"holds no model: config\.json is missing"):
        VLLMServer(tmp_path, "a", tmp_path).command()


# What vLLM is told.


def test_the_key_is_in_the_environment_and_not_on_the_command_line(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    for name, rank in (("lora", 4), ("dpo", 24)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "adapter_config.json").write_text(json.dumps({"r": rank}))
    adapters = {"lora": tmp_path / "lora", "dpo": tmp_path / "dpo"}
    vllm = VLLMServer(tmp_path, "base", tmp_path, adapters=adapters)
    vllm.api_key = "0123456789abcdef"
    command = vllm.command()
    assert vllm.environment()["VLLM_API_KEY"] == vllm.api_key
    assert not any(vllm.api_key in part for part in command)
    assert command[command.index("--host") + 1] == "127.0.0.1"
    assert command[command.index("--max-lora-rank") + 1] == "32"
    assert f"dpo={tmp_path / 'dpo'}" in command
    assert max_lora_rank({"lora": tmp_path / "lora"}) == 8


def test_each_start_has_a_key_of_its_own(server, tmp_path):
    with DummyServer(tmp_path, "b", tmp_path, port=server.port) as other:
        assert other.api_key != server.api_key
        assert other.port != server.port


@pytest.mark.parametrize("method", ["awq", "gptq"])
def test_four_bit_models_are_never_served_in_float32(method):
    dtype, reason = serving_dtype({"quantization_config": {"quant_method": method}})
    assert dtype != "float32"
    assert reason


def test_a_cpu_serves_in_float32_so_that_replies_do_not_depend_on_the_batch(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert serving_dtype({})[0] == "float32"


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


# The bot and its .env.


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
        (
            "DEFAULT_LLM_PROVIDER=local\nLOCAL_MODEL_URL=http://127.0.0.1:9/v1\nLOCAL_MODEL_NAME=a\nLOCAL_MODEL_API_KEY=b",
            "No server answers",
        ),
    ],
)
def test_a_bot_that_cannot_talk_says_why_and_fails(tmp_path, capsys, text, sentence):
    path = tmp_path / "bot.env"
    if text is not None:
        path.write_text(text)
    assert bot_module.main(["--env", str(path)]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    with pytest.raises((DotenvError, ChatError), match=sentence):
        raise ChatError(error)


def test_a_talk_in_the_terminal(server, tmp_path, capsys, monkeypatch):
    path = write_dotenv(tmp_path / "bot.env", BotSettings(server.base_url, "lora", server.api_key))
    words = iter(["やあ", "", "またね"])

    def ask(_):
        try:
            return next(words)
        except StopIteration:
            raise EOFError from None

    monkeypatch.setattr("builtins.input", ask)
    monkeypatch.setattr(bot_module, "system_prompt", lambda *_: "短く")
    assert bot_module.main(["--env", str(path)]) == 0
    assert "さくら> lora:やあ\nさくら> lora:またね\n" in capsys.readouterr().out


def test_the_bot_remembers_until_the_context_is_full_and_a_failed_turn_leaves_no_trace(server, card, monkeypatch):
    monkeypatch.setattr(bot_module, "system_prompt", lambda *_: "短く")
    bot = Bot(BotSettings(server.base_url, "base", server.api_key), card)
    for words in ("一" * 40, "二" * 40):
        list(bot.say(words))
    assert [m["role"] for m in bot.history] == ["user", "assistant"] * 2
    list(bot.say("三" * 40))
    assert [m["content"][0] for m in bot.history if m["role"] == "user"] == ["二", "三"]
    before = list(bot.history)
    with pytest.raises(ChatError):
        list(bot.say("四" * 300))
    assert bot.history == before


def test_the_bot_speaks_with_the_cards_system_prompt(server, card):
    bot = Bot(BotSettings(server.base_url, "base", server.api_key), card, level="lover", memories=["犬の名前はモカ"])
    assert "恋人" in bot.system["content"]
    assert "モカ" in bot.system["content"]


# The newcomer's chat.


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


# The real one: minutes.


@pytest.mark.slow
def test_vllm_serves_the_prompt_that_training_used(tiny, tokenizer, card, tmp_path):
    chat = [{"role": "system", "content": "短く話す。"}, *user("終電逃した😢")]
    with VLLMServer(tiny.path, "tiny", tmp_path, max_model_len=512) as server:
        reply = ChatClient(server.base_url, server.api_key, "tiny").reply(chat, max_tokens=4)
        body = json.dumps({"model": "tiny", "messages": chat}).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{server.port}/tokenize", body, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request) as answer:
            tokens = json.load(answer)["tokens"]
        # More tokens at once than one batch of vLLM's takes, each with a seed: a CPU's vLLM must not split a prompt.
        long = [user("あのね、" * 100 + str(i)) for i in range(24)]
        assert len(ChatClient(server.base_url, server.api_key, "tiny").batch(long, max_tokens=4, concurrency=24)) == 24
        pids = [p.pid for p in psutil.Process(server._watchdog.pid).children(recursive=True)]
    assert reply.tokens <= 4
    assert tokens == list(
        tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=True)["input_ids"]
    )
    assert gone(pids, 1)
    assert port_is_free(server.port)
