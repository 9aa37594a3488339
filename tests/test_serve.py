"""Asking the server: every failure is one sentence, and the bot says what was said."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import urllib.request
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from stress_server import DummyServer

from helpers import base_model, records, settings
from helpers.base_model import BaseModel
from helpers.files import write_atomically
from helpers.serve import on_line, trained
from helpers.serve.client import ChatClient, ChatError, ContextOverflow
from helpers.serve.dotenv_file import NUMBERS, BotSettings, DotenvError, read_dotenv, write_dotenv
from helpers.serve.server import pick_port
from helpers.serve.trained import bot_settings, newest_run, served_adapters, trained_server
from helpers.settings import ROOT
from helpers.train import continual


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
    assert [r.text for r in client.batch([user("a"), user("b")], model="lora")] == ["lora:a", "lora:b"]


def test_a_batch_keeps_the_order_and_the_limit(client, server):
    replies = client.batch([user(str(i)) for i in range(12)], concurrency=3)
    assert [r.text for r in replies] == [f"base:{i}" for i in range(12)]
    with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/at_once") as answer:
        assert 2 <= json.load(answer)["most"] <= 3


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
    client.check("lora")
    with pytest.raises(ChatError, match="has no model 'casual'; it serves: base, lora"):
        client.check("lora", "casual")
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


@pytest.mark.parametrize("like", ["llama.cpp", "openai", "ollama", "gateway", "late"])
def test_other_servers_than_vllm_are_understood(like, tmp_path, monkeypatch):
    monkeypatch.setenv("DUMMY_LIKE", like)
    listed = "sakura:latest" if like == "ollama" else "sakura"
    with DummyServer(tmp_path, listed, tmp_path, port=pick_port(18000)[0]) as server:
        asking = ChatClient(server.base_url, server.api_key, "sakura")
        asking.check()
        assert asking.context() is None and asking.count(user("ね")) is None
        assert asking.reply(user("ね")).text == "sakura:ね"
        with pytest.raises(ContextOverflow, match="longer than the server's context"):
            list(asking.stream(user("ね" * 300)))
        with pytest.raises(ChatError, match="has no model 'hanako'; it serves: sakura"):
            asking.reply(user("ね"), model="hanako")
        with pytest.raises(ChatError, match="has no model 'sakura:8b'; it serves: sakura"):
            ChatClient(server.base_url, server.api_key, "sakura:8b").check()


def test_a_tag_does_not_hide_the_context(tmp_path, monkeypatch):
    monkeypatch.setenv("DUMMY_LIKE", "ollama")
    monkeypatch.setenv("DUMMY_LIMIT", "700")
    with DummyServer(tmp_path, "sakura:latest", tmp_path, port=pick_port(18000)[0]) as server:
        assert ChatClient(server.base_url, server.api_key, "sakura").context() == 700


# The .env file.


def test_dotenv_round_trip(tmp_path):
    settings = BotSettings("http://127.0.0.1:8000/v1", "sakura", "0123abcd")
    path = write_dotenv(tmp_path / "bot.env", settings)
    assert read_dotenv(path) == settings
    assert path.stat().st_mode & 0o077 == 0
    assert "COMPANION" not in path.read_text()
    several = replace(settings, experts={"casual": "a:8b", "romantic": "b"}, context=99, temperature=1.0, max_tokens=1)
    assert read_dotenv(write_dotenv(path, several)) == several
    assert "DEFAULT_LLM_PROVIDER=local\n" in path.read_text()


def test_the_key_can_be_read_by_its_owner_only_while_it_is_written_too(tmp_path, monkeypatch):
    found, modes, write = BotSettings("http://127.0.0.1:8000/v1", "sakura", "0123abcd"), [], Path.write_text

    def watched(path, *arguments, **options):
        modes.append(path.stat().st_mode & 0o777)
        return write(path, *arguments, **options)

    monkeypatch.setattr(Path, "write_text", watched)
    write_dotenv(tmp_path / "bot.env", found)
    (tmp_path / f".bot.env.{os.getpid()}.part").touch(0o644)  # of a process that was killed
    write_dotenv(tmp_path / "bot.env", found)
    assert modes == [0o600, 0o600]


def test_the_example_can_be_read_as_it_stands():
    assert read_dotenv(ROOT / ".env.example") == BotSettings("http://127.0.0.1:8000/v1", "sakura", "change-me")


def test_the_examples_lines_that_are_left_out_can_be_read_too(tmp_path):
    (whole := tmp_path / ".env").write_text((ROOT / ".env.example").read_text().replace("#COMPANION", "COMPANION"))
    assert all(f"\n{key}=" in whole.read_text() for key, _ in NUMBERS.values())
    read, defaults = read_dotenv(whole), read_dotenv(ROOT / ".env.example")
    assert read == replace(defaults, experts=read.experts, context=4096)


@pytest.mark.parametrize("unsaid", ["", "COMPANION_MAX_TOKENS\n", "COMPANION_TEMPERATURE=\nCOMPANION_MAX_TOKENS=' '\n"])
def test_what_a_dotenv_leaves_open_is_as_by_default(tmp_path, unsaid):
    (path := tmp_path / "bot.env").write_text(WHOLE + unsaid)
    assert (read_dotenv(path).temperature, read_dotenv(path).max_tokens) == (0.7, 120)


WHOLE = "DEFAULT_LLM_PROVIDER=local\nLOCAL_MODEL_URL=http://x/v1\nLOCAL_MODEL_NAME=a\nLOCAL_MODEL_API_KEY=b\n"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (f"{WHOLE}COMPANION_EXPERTS=sad:a", "'sad:a' in COMPANION_EXPERTS: write scene:name"),
        (f"{WHOLE}COMPANION_EXPERTS=casual", "'casual' in COMPANION_EXPERTS"),
        (f"{WHOLE}COMPANION_EXPERTS=casual:a,romantic:", "'romantic:' in"),
        (f"{WHOLE}COMPANION_EXPERTS=casual:a,casual:b", "each scene of casual, emotional, romantic once at most"),
        (f"{WHOLE}COMPANION_EXPERTS=casual:a,", "'' in COMPANION_EXPERTS"),
        *(
            (f"{WHOLE}COMPANION_MAX_TOKENS={wrong}", f"bot.env has COMPANION_MAX_TOKENS={wrong}, which is no number of")
            for wrong in ("0", "-3", "1.5", "many")
        ),
        *(
            (f"{WHOLE}COMPANION_TEMPERATURE={wrong}", f"COMPANION_TEMPERATURE={wrong}, which is no .* from 0 to 2")
            for wrong in ("2.1", "-0.1", "nan", "0,7", "warm")
        ),
        (None, "There is no"),
        ("", r"DEFAULT_LLM_PROVIDER=\(nothing\)"),
        ("DEFAULT_LLM_PROVIDER=openai", "knows only 'local'"),
        ("DEFAULT_LLM_PROVIDER=local\nLOCAL_MODEL_URL=http://x/v1\nLOCAL_MODEL_NAME=a", "lacks LOCAL_MODEL_API_KEY"),
        (
            "DEFAULT_LLM_PROVIDER=local\nLOCAL_MODEL_URL=localhost\nLOCAL_MODEL_NAME=a\nLOCAL_MODEL_API_KEY=b",
            "no http:// address",
        ),
        *(
            (
                WHOLE.replace("http://x/v1", wrong),
                f"LOCAL_MODEL_URL={re.escape(wrong)}, which is no http:// address: .* half-width",
            )
            for wrong in (
                "http://192.168.0.１:8000/v1",
                "http://.local/v1",
                "http://a..b/v1",
                f"http://{'a' * 64}.jp/v1",
                "http://256.1.1.1/v1",
                "http://[1:2]/v1",
                "http://x:８０/v1",
                "http://ｌｏｃａｌｈｏｓｔ:8000/v1",
            )
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


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8000/v1", "https://a-b.example_c.:443/x/v1", "http://[::1]:80/v1", "http://localhost/v1"]
)
def test_an_address_that_the_client_can_ask_is_taken(tmp_path, url):
    (path := tmp_path / "bot.env").write_text(WHOLE.replace("http://x/v1", url))
    assert ChatClient(read_dotenv(path).url, "b", "a").base_url == url


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
    (tmp_path / ".gitignore").write_text("*")  # as outputs/ has one
    assert newest_run(tmp_path).name == "new"


# Her experts.


def finished(stage, folders, reads=(), metrics=None, **given):
    done = records.start(settings.resolve(stage, {"profile": "smoke", **given}))
    for read in reads:
        done.reads(read)
    for name in folders:
        (done.folder / name).mkdir(parents=True, exist_ok=True)
        (done.folder / name / "adapter_config.json").write_text(json.dumps({"r": 8, "stage": f"{stage} {name}"}))
    done.finish(metrics or {}, folders)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run whose 06 merged 05's adapter, whose 07 compared it, and whose 03 trained experts of two scenes."""
    monkeypatch.setattr(settings, "OUTPUTS", tmp_path)
    experts = {"casual": "experts/casual_1", "emotional": "experts/emotional_2"}
    finished("03_lora", ["adapter", *experts.values()], metrics={"experts": experts})
    finished("05_dpo", ["adapter"], ["03_lora"])
    finished("06_merge_quantize", ["merged"], ["05_dpo"])
    compare(tmp_path / "smoke", "03_lora/experts/casual_1", "03_lora/experts/emotional_2", "05_dpo/adapter")
    monkeypatch.setattr(trained, "VLLMServer", DummyServer)
    monkeypatch.setattr(base_model, "resolve_base_model", lambda name: BaseModel(name, tmp_path, None, ""))
    return tmp_path / "smoke"


def compare(run, *adapters, **given):
    """Run 07: with these adapters, and these parameters."""
    compared = {folder: records.artifact_sha256(run / folder) for folder in adapters}
    finished("07_serve_vllm", ["figures"], ["06_merge_quantize"], {"compared_adapters": compared}, **given)


def adapters(run, experts=True):
    return served_adapters(records.load(run, "06_merge_quantize"), "sakura", experts)


def test_beside_her_merged_or_current_adapter_the_runs_experts_are_served(run):
    folder = run / "03_lora" / "experts"
    experts = {"sakura-casual": folder / "casual_1", "sakura-emotional": folder / "emotional_2"}
    assert adapters(run) == {"sakura": run / "05_dpo" / "adapter"} | experts
    assert next(iter(adapters(run))) == "sakura"
    assert adapters(run, experts=False) == {}
    on_line.begin(run, run / "05_dpo" / "adapter")
    current = on_line.learned_on_line(run)
    assert adapters(run) == {"sakura": current} | experts
    assert adapters(run, experts=False) == {"sakura": current}


def test_experts_that_cannot_be_served_are_one_sentence(run):
    record = run / "03_lora" / "run.json"
    written = record.read_text()
    record.write_text(json.dumps(json.loads(written) | {"base_sha256": "another"}))
    with pytest.raises(records.Mismatch, match="were made with another base model than what 06_merge"):
        adapters(run)
    record.write_text(written)
    finished("05_dpo", ["adapter", "figures"], ["03_lora"])
    with pytest.raises(records.Mismatch, match="05_dpo of run 'smoke' was run again since 06_merge_quantize merged it"):
        adapters(run)
    finished("03_lora", ["adapter"], metrics={"experts": {}})
    with pytest.raises(records.MissingStage, match="03_lora of run 'smoke' trained no experts"):
        adapters(run)
    shutil.rmtree(run / "03_lora")
    with pytest.raises(records.MissingStage, match="03_lora of run 'smoke' has not been run"):
        adapters(run)


@pytest.mark.parametrize("what", ["never run", "not to its end", "of other weights", "of no weights"])
def test_she_is_not_served_unless_07_compared_these_weights(run, tmp_path, what):
    if what == "never run":
        shutil.rmtree(run / "07_serve_vllm")
    elif what == "not to its end":
        records.start(settings.resolve("07_serve_vllm", {"profile": "smoke"})).writes()
    elif what == "of other weights":
        finished("06_merge_quantize", ["merged", "gptq"], ["05_dpo"])
    else:
        finished("07_serve_vllm", ["figures"])
    with pytest.raises((records.MissingStage, records.Mismatch)) as error, trained_server("smoke", tmp_path, tmp_path):
        pass
    for words in ("07_serve_vllm of run 'smoke'", "run `python -m helpers.course run --only 07 --run-name smoke`."):
        assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_her_experts_are_not_served_unless_07_compared_each_on_this_base(run, tmp_path, monkeypatch):
    folders = ["03_lora/experts/casual_1", "03_lora/experts/emotional_2", "05_dpo/adapter"]
    for left_out in folders:
        compare(run, *(folder for folder in folders if folder != left_out))
        why = f"07_serve_vllm of run 'smoke' compared other weights with transformers than {left_out} has now: run"
        with pytest.raises(records.Mismatch, match=why), trained_server("smoke", tmp_path, tmp_path, experts=True):
            pass
    compare(run, *folders)
    monkeypatch.setattr(base_model, "resolve_base_model", lambda name: BaseModel(name, tmp_path, "another", ""))
    why = "Run 'smoke' was trained on another 'tiny' than is here now"
    with pytest.raises(records.Mismatch, match=why), trained_server("smoke", tmp_path, tmp_path, experts=True):
        pass


def test_what_was_learned_on_line_is_served_though_07_is_older(run, tmp_path):
    compare(run)
    on_line.begin(run, run / "05_dpo" / "adapter")
    with trained_server("smoke", tmp_path / "logs", tmp_path) as (server, _):
        assert server.adapters == {"sakura": on_line.learned_on_line(run)}


@pytest.mark.parametrize("experts", [True, False])
def test_a_bot_is_told_where_she_and_her_experts_are(run, tmp_path, experts):
    with trained_server("smoke", tmp_path / "logs", tmp_path, experts) as (server, persona):
        told = read_dotenv(write_dotenv(run / "bot.env", bot_settings(server)))
        ChatClient(told.url, told.api_key, told.name).check(*told.experts.values())
    assert (persona, told.name) == ("sakura", "sakura")
    assert told.experts == ({"casual": "sakura-casual", "emotional": "sakura-emotional"} if experts else {})


@pytest.mark.parametrize("experts", [True, False])
def test_she_is_served_as_large_as_07_was_run(run, tmp_path, monkeypatch, experts):
    asked = {"tensor_parallel": 2, "data_parallel": 3, "max_model_len": 777, "startup_timeout": 30, "port": 18099}
    compare(run, "03_lora/experts/casual_1", "03_lora/experts/emotional_2", "05_dpo/adapter", **asked)
    monkeypatch.setattr(DummyServer, "start", lambda server: server)
    with trained_server("smoke", tmp_path / "logs", tmp_path, experts) as (server, _):
        assert {name: getattr(server, name) for name in asked} == asked


SERVES = """
import sys
from pathlib import Path
from stress_server import DummyServer
from helpers import base_model
from helpers.serve import trained

trained.VLLMServer = DummyServer
base_model.resolve_base_model = lambda name: base_model.BaseModel(name, Path.cwd(), None, "")
sys.exit(trained.main(["--run-name", "smoke"]))
"""


@contextmanager
def serving(outputs):
    """`python -m helpers.serve.trained`, once she answers."""
    environment = os.environ | {"COMPANION_OUTPUTS": str(outputs), "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    with subprocess.Popen(
        [sys.executable, "-c", SERVES], env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline().startswith("sakura answers at ")
        process.stdout.readline()
        yield process
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 128 + signal.SIGTERM


def test_ended_by_sigterm_nothing_is_left_but_the_log(run, tmp_path):
    with serving(tmp_path):
        told = read_dotenv(run / "bot.env")
        ChatClient(told.url, told.api_key, told.name).check()
    assert not (run / "bot.env").exists()
    with pytest.raises(ChatError, match="No server answers"):
        ChatClient(told.url, told.api_key, told.name).check()
    assert (run / "logs" / "vllm-sakura.log").exists()


def learn(run, name, passed=True):
    """The adapter `name` becomes current on line."""
    (run.parent / name).mkdir()
    (run.parent / name / "adapter_config.json").write_text(json.dumps({"r": 8, "name": name}))
    return continual.promote(run.parent / name, run / on_line.ONLINE, lambda *_: continual.Verdict(passed)).candidate


def test_a_server_that_is_kept_up_takes_what_becomes_current(run, tmp_path):
    on_line.begin(run, run / "05_dpo" / "adapter")
    with serving(tmp_path) as process:
        learned = learn(run, "learned").parent.name
        assert process.stdout.readline() == f"sakura answers with {learned} from now on.\n"
        learn(run, "refused", passed=False)
        started = continual.roll_back(run / on_line.ONLINE).parent.name
        assert process.stdout.readline() == f"sakura answers with {started} from now on.\n"
        told = read_dotenv(run / "bot.env")
        ChatClient(told.url, told.api_key, told.name).check()


def test_what_becomes_current_while_the_server_starts_is_taken_too(run, tmp_path, monkeypatch, capsys):
    on_line.begin(run, run / "05_dpo" / "adapter")
    before = on_line.standing(run)

    def start(server):
        learn(run, "learned")
        return super(DummyServer, server).start()

    monkeypatch.setattr(DummyServer, "start", start)
    monkeypatch.setattr(trained.time, "sleep", lambda seconds: interrupt() if seconds == 1 else None)
    with trained_server("smoke", tmp_path / "logs", tmp_path) as (server, _):
        trained.keep_up(server, run, before)
        assert server.adapters == {"sakura": on_line.learned_on_line(run)}
    assert f"sakura answers with {on_line.learned_on_line(run).parent.name} from now on." in capsys.readouterr().out


def interrupt():
    raise KeyboardInterrupt


def test_an_adapter_of_another_base_is_not_put_on_the_served_one(run, tmp_path):
    on_line.begin(run, run / "05_dpo" / "adapter")
    with serving(tmp_path) as process:
        record = run / "06_merge_quantize" / "run.json"
        write_atomically(record, json.dumps(json.loads(record.read_text()) | {"base_sha256": "another"}))
        learn(run, "learned")
        assert "sakura answers as before, for the run has another base model" in process.stdout.readline()


def test_a_run_is_served_once(run, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(trained, "OUTPUTS", tmp_path)
    with serving(tmp_path):
        assert trained.main(["--run-name", "smoke"]) == 1
        assert capsys.readouterr().err == "Run 'smoke' is served already, as its bot.env says: end that first.\n"
        assert (run / "bot.env").exists()
    assert trained.main(["--run-name", "nobody"]) == 1
    assert "There is no run 'nobody'" in capsys.readouterr().err


def test_a_merged_model_that_is_kept_up_says_that_it_stays(run, tmp_path):
    with serving(tmp_path) as process:
        on_line.begin(run, run / "05_dpo" / "adapter")
        assert "sakura, as she was merged, stays until the next start" in process.stdout.readline()
