"""Training, transformers and the server say the same, and a server that does not is refused."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
import torch
from small import small_base
from talks import CHAT
from transformers import AutoModelForCausalLM

from helpers.serve.client import ChatClient
from helpers.serve.parity import Disparity, Served, check_replies, check_tokens, tie
from helpers.serve.server import VLLMServer

PROMPTS = [CHAT[:2], CHAT[:4]]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return small_base(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="module")
def tokenizer(base):
    return base.load_tokenizer()


@pytest.fixture(scope="module")
def model(base):
    return AutoModelForCausalLM.from_pretrained(base.path, dtype=torch.float32).eval()


class InMemory(Served):
    """A server in this process."""

    def of(self, tokenizer, model=None):
        object.__setattr__(self, "tokenizer", tokenizer)
        object.__setattr__(self, "weights", model)
        return self

    def ids(self, chat, reply_follows):
        return list(
            self.tokenizer.apply_chat_template(chat, add_generation_prompt=reply_follows, return_dict=True)["input_ids"]
        )

    def greedy(self, chat, max_tokens):
        prompt = torch.tensor([self.ids(chat, True)])
        said = self.weights.generate(prompt, do_sample=False, max_new_tokens=max_tokens, eos_token_id=-1)
        return said[0, prompt.shape[1] :].tolist()


def served(*what):
    return InMemory("http://127.0.0.1:9/v1", "key", "her").of(*what)


def test_the_same_ids_everywhere(tokenizer):
    compared = check_tokens([CHAT[:3], CHAT], tokenizer, served(tokenizer))
    whole = tokenizer.apply_chat_template(CHAT, return_dict=True)["input_ids"]
    assert compared > len(whole) > 20


@pytest.mark.parametrize("old, new", [("<|im_start|>", "<|im_start|> "), ("<|im_end|>\\n", "<|im_end|>")])
def test_a_server_with_another_template_is_refused(base, tokenizer, old, new):
    other = base.load_tokenizer()
    assert old in other.chat_template
    other.chat_template = other.chat_template.replace(old, new)
    with pytest.raises(Disparity, match=r"^From token \d+ on, the server reads .* where training had"):
        check_tokens([CHAT], tokenizer, served(other))


def test_the_same_greedy_replies(model, tokenizer):
    assert check_replies(PROMPTS, model, tokenizer, served(tokenizer, model), torch.float32, 12) == 24


def test_a_server_with_other_weights_is_refused(base, model, tokenizer):
    other = AutoModelForCausalLM.from_pretrained(base.path, dtype=torch.float32).eval()
    torch.manual_seed(1)
    other.model.layers[0].mlp.down_proj.weight.data.add_(torch.randn(64, 128) * 0.1)
    with pytest.raises(Disparity, match=r"the server answers .*the weights that are served"):
        check_replies(PROMPTS, model, tokenizer, served(tokenizer, other), torch.float32, 12)


def test_only_a_tie_passes(model):
    assert tie(model, torch.float32, 20) < 1e-3 < tie(model, torch.bfloat16, 20) < 1


def test_a_server_that_is_not_there_is_said(tokenizer):
    with pytest.raises(Disparity, match=r"^Parity cannot be checked: http://127.0.0.1:9/tokenize "):
        check_tokens([CHAT], tokenizer, Served("http://127.0.0.1:9/v1", "key", "her"))


@pytest.mark.slow
def test_vllm_serves_a_published_base_and_its_adapter_as_they_are_trained(tmp_path):
    """Of a family whose turns end otherwise than its texts, and with no template in its folder."""
    from peft import LoraConfig, get_peft_model

    base = small_base(tmp_path / "gemma", heads=2, family="gemma")
    tokenizer = base.load_tokenizer()
    model = AutoModelForCausalLM.from_pretrained(base.path, dtype=torch.float32)
    settings = LoraConfig(r=8, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False)
    get_peft_model(model, settings).save_pretrained(tmp_path / "adapter")
    adapters = {"her": tmp_path / "adapter"}
    surely = {"logit_bias": {str(tokenizer.convert_tokens_to_ids("<end_of_turn>")): 100.0}}
    with VLLMServer(base.path, "base", tmp_path, adapters=adapters, max_model_len=1024) as server:
        for name in ("base", "her"):
            assert check_tokens([CHAT[:3], CHAT], tokenizer, Served(server.base_url, server.api_key, name)) > 80
            reply = ChatClient(server.base_url, server.api_key, name).reply(CHAT[:2], max_tokens=8, extra=surely)
            assert (reply.text, reply.stopped) == ("", True)


@pytest.mark.slow
def test_vllm_reads_and_says_what_training_left(tiny, tmp_path):
    from peft import LoraConfig, PeftModel, get_peft_model

    tokenizer = tiny.load_tokenizer()
    model = AutoModelForCausalLM.from_pretrained(tiny.path, dtype=torch.float32)
    torch.manual_seed(1)
    settings = LoraConfig(r=8, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False)
    get_peft_model(model, settings).save_pretrained(tmp_path / "adapter")
    plain = AutoModelForCausalLM.from_pretrained(tiny.path, dtype=torch.float32).eval()
    adapters = {"her": tmp_path / "adapter"}
    with VLLMServer(tiny.path, "base", tmp_path, adapters=adapters, max_model_len=512) as server:
        at = {name: Served(server.base_url, server.api_key, name) for name in ("base", "her")}
        assert check_tokens([CHAT[:3], CHAT], tokenizer, at["her"]) > 80
        assert check_replies(PROMPTS, plain, tokenizer, at["base"], torch.float32, 16) > 0
        with pytest.raises(Disparity, match="the weights that are served"):
            check_replies(PROMPTS, plain, tokenizer, at["her"], torch.float32, 16)
        clients = [ChatClient(server.base_url, server.api_key, name) for name in ("base", "her")]
        ask = partial(ChatClient.batch, chats=PROMPTS * 8, temperature=0)
        alone = [[reply.text for reply in ask(client)] for client in clients]
        with ThreadPoolExecutor(2) as pool:
            together = [[reply.text for reply in replies] for replies in pool.map(ask, clients)]
        assert together == alone, "a request to the base beside one to an adapter must not get the adapter"
        adapted = PeftModel.from_pretrained(plain, tmp_path / "adapter").eval()
        assert check_replies(PROMPTS, adapted, tokenizer, at["her"], torch.float32, 16) > 0
        with pytest.raises(Disparity, match="Parity cannot be checked"):
            check_tokens([CHAT], tokenizer, Served(server.base_url, "wrong", "nobody"))
