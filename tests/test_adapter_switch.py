"""A server that runs takes another adapter under the same name, when its owner says so and by nobody else's word."""

import asyncio
import json
import types
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
import torch
from small import small_base
from stress_server import DummyServer, wait_until
from talks import CHAT
from transformers import AutoModelForCausalLM

from helpers.files import write_atomically
from helpers.serve import adapter_switch
from helpers.serve.adapter_switch import AdapterSwitch
from helpers.serve.client import ChatClient
from helpers.serve.server import ServerError, VLLMServer, pick_port


def adapter(folder, rank=8, **config):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps({"r": rank} | config))
    return folder


# In vLLM's process.


class Models:
    """What the middleware knows of vLLM: it serves `her` from the folder first."""

    def __init__(self):
        self.loaded, self.broken = [], set()
        self.lora_requests = {"her": types.SimpleNamespace(lora_path="first", lora_int_id=1, base_model_name="base")}
        self.engine_client = self.lora_id_counter = self

    def inc(self, by):
        return len(self.loaded) + 1 + by

    async def add_lora(self, request):
        if request.lora_path in self.broken:
            raise ValueError("no adapter")
        self.loaded.append(request)


@pytest.fixture
def ask(tmp_path, monkeypatch):
    """Sends a request through the middleware, and says from which folder it is answered."""
    pytest.importorskip("vllm")
    monkeypatch.setenv(adapter_switch.VARIABLE, str(tmp_path / "adapters.json"))
    models, answered = Models(), []
    app = types.SimpleNamespace(state=types.SimpleNamespace(openai_serving_models=models))

    async def answer(scope, receive, send):
        answered.append(models.lora_requests["her"].lora_path)

    switch = AdapterSwitch(answer)

    def ask(path="/v1/chat/completions", kind="http"):
        asyncio.run(switch({"type": kind, "path": path, "app": app}, None, None))
        return answered[-1]

    ask.models = models
    ask.file = tmp_path / "adapters.json"
    return ask


def test_the_file_is_followed_under_the_same_name_with_a_new_number(ask):
    assert ask() == "first" and ask.models.loaded == []
    write_atomically(ask.file, json.dumps({"her": "second"}))
    assert (ask("/health"), ask(kind="lifespan")) == ("first", "first")
    assert [ask(), ask()] == ["second", "second"]
    assert [(r.lora_name, r.lora_int_id, r.base_model_name) for r in ask.models.loaded] == [("her", 2, "base")]
    write_atomically(ask.file, json.dumps({"her": "first"}))
    assert ask() == "first" and ask.models.loaded[-1].lora_int_id == 3
    ask.file.unlink()
    assert ask() == "first"


def test_what_cannot_be_loaded_leaves_the_one_before_and_is_not_tried_at_each_request(ask, caplog):
    ask.models.broken = {"second"}
    write_atomically(ask.file, json.dumps({"her": "second"}))
    assert [ask(), ask()] == ["first", "first"]
    assert [record.message for record in caplog.records] == [
        "her stays with first: second cannot be loaded: no adapter"
    ]


# Its owner's side.


@pytest.fixture
def server(tmp_path):
    options = {"adapters": {"her": adapter(tmp_path / "first")}, "port": pick_port(18700)[0]}
    with DummyServer(tmp_path, "base", tmp_path, **options) as server:
        yield server


def test_the_owner_switches_and_goes_back(server, tmp_path):
    first, second = server.adapters["her"], adapter(tmp_path / "second", rank=16)
    for folder in (second, first):
        server.switch("her", folder)
        assert server.adapters == {"her": folder}
        assert json.loads(server.adapters_file.read_text()) == {"her": str(folder)}


@pytest.mark.parametrize(
    ("name", "config", "sentence"),
    [
        ("him", {}, "The server 'base' has no adapter 'him' that could be switched; it was started with: her."),
        ("her", {"rank": 17}, "needs rank 32, and the server 'base' was started for 16: start it anew"),
        ("her", {"use_dora": True}, "vLLM serves no DoRA adapter"),
    ],
)
def test_what_the_server_cannot_take_is_one_sentence(server, tmp_path, name, config, sentence):
    with pytest.raises(ServerError, match=sentence):
        server.switch(name, adapter(tmp_path / "second", **config))
    assert server.adapters == {"her": tmp_path / "first"} and not server.adapters_file.exists()


def test_what_was_written_into_the_served_folder_is_not_taken_for_served(server, tmp_path):
    with pytest.raises(ServerError, match="'her' is served from .*first already; what was written there since then"):
        server.switch("her", tmp_path / "first")


def test_an_adapter_that_vllm_did_not_take_is_taken_back(server, tmp_path, monkeypatch):
    monkeypatch.setattr(server, "_ask", lambda *_: b'{"data": [{"id": "her", "root": "elsewhere"}]}')
    with pytest.raises(ServerError, match="could not load the adapter in .*second, and 'her' answers as before"):
        server.switch("her", adapter(tmp_path / "second"))
    assert json.loads(server.adapters_file.read_text()) == {"her": str(tmp_path / "first")}


def test_a_new_start_begins_with_what_the_owner_says(server, tmp_path):
    server.switch("her", adapter(tmp_path / "second"))
    server.stop()
    with pytest.raises(ServerError, match="does not answer"):
        server.switch("her", tmp_path / "first")
    server.start()
    assert server.adapters == {"her": tmp_path / "second"} and not server.adapters_file.exists()


@pytest.mark.slow
def test_vllm_answers_with_the_other_adapter_and_finishes_what_it_has_begun(tmp_path):
    from peft import LoraConfig, get_peft_model

    base = small_base(tmp_path / "base", heads=2)
    for seed in (2, 3):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_pretrained(base.path, dtype=torch.float32)
        config = LoraConfig(r=8, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False)
        get_peft_model(model, config).save_pretrained(tmp_path / str(seed))
    broken = adapter(tmp_path / "broken", peft_type="LORA", target_modules=["q_proj"], lora_alpha=8)
    long = {"max_tokens": 800, "temperature": 0, "extra": {"ignore_eos": True}}
    with VLLMServer(base.path, "base", tmp_path, adapters={"her": tmp_path / "2"}) as server:
        ask = partial(ChatClient(server.base_url, server.api_key, "her").reply, CHAT[:2], **long)
        first = ask().text
        with ThreadPoolExecutor() as pool:
            under_way = []
            for folder in ("3", "2", "3"):
                under_way.append(pool.submit(ask))
                wait_until(lambda: (now := server.metrics()).running + now.waiting == len(under_way), 30)
                server.switch("her", tmp_path / folder)
            assert not any(reply.done() for reply in under_way), "they must be under way while the adapters change"
            said = [reply.result().text for reply in under_way]
        second = ask().text
        assert said == [first, second, first] and first and second and first != second
        assert ChatClient(server.base_url, server.api_key, "base").reply(CHAT[:2], **long).text not in (first, second)
        with pytest.raises(ServerError, match="could not load the adapter"):
            server.switch("her", broken)
        assert ask().text == second
        for folder, reply in (("2", first), ("3", second)):
            server.switch("her", tmp_path / folder)
            assert ask().text == reply
