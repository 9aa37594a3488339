"""Ollama reads what she was trained with: Modelfiles of all families through Go's own text/template and the rules of
Ollama's parser (tests/ollama/main.go); what FROM and ADAPTER name, what a GGUF file says; refusals in one sentence."""

import hashlib
import json
import os
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import ClassVar

import gguf
import numpy as np
import pytest
from jinja2 import TemplateError
from small import small_base, small_tokenizer
from transformers import GenerationConfig

from helpers.export import ollama, ollama_source
from helpers.export.embedded import check_header
from helpers.export.gguf_metadata import read_metadata
from helpers.export.modelfile import modelfile
from helpers.export.ollama_source import Source, adapter_for_ollama, find_adapter_source, find_source
from helpers.export.ollama_template import ollama_template, runners_bos
from helpers.export.serving_files import sampling_defaults
from helpers.families import FAMILIES, TEMPLATES, prepare_tokenizer, stop_token_ids
from helpers.persona import system_prompt

SAMPLING = GenerationConfig(temperature=0.8, top_k=40, min_p=0.05)
SYSTEM = {"role": "system", "content": "あなたはさくら。\n二十三歳。"}
ODD = (
    "ただいま\n\n疲れた…",
    "彼は\"すごい\"と「言う」'…'",
    "{{ .System }} {{- end }} {% raw %} }}",
    r"C:\n\u3000 \" %s %d \\",
    "😮‍💨👩‍💻🌸",
    "  前と後  ",
    "\u3000全角\u3000\n",
    "\t\n \u00a0前\u2003\u2029\x1c",
    " \u3000\n",
    '"""',
)
TALKS = [
    [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(words)]
    for words in (*((odd,) for odd in ODD), *((odd, odd, "え？") for odd in ODD), *(ODD[:n] for n in (1, 3, 5, 7, 9)))
]
USER, HER = ({"role": role, "content": "うん"} for role in ("user", "assistant"))
CHATS = [
    *TALKS,
    *([SYSTEM, *talk] for talk in TALKS),
    [{"role": "system", "content": "  さくら\u3000\n"}, USER],
    [{"role": "system", "content": ""}, USER, HER, USER],
    [SYSTEM, USER, HER],
    # Adjacent turns of one role, which Ollama joins, and system messages in mid-talk.
    [SYSTEM, {"role": "system", "content": "覚えていること：猫"}, USER, USER, HER, HER, USER],
    [SYSTEM, USER, HER, {"role": "system", "content": "ここからは夜。"}, USER],
    [USER, HER, {"role": "system", "content": "ここからは夜。"}, USER, HER, USER],
]


@pytest.fixture(scope="module")
def tokenizers():
    return {name: prepare_tokenizer(small_tokenizer(name), name) for name in FAMILIES}


@pytest.fixture(params=FAMILIES)
def family(request):
    return FAMILIES[request.param]


@pytest.fixture
def own(family, tokenizers):
    """The family's tokenizer."""
    return tokenizers[family.name]


@pytest.fixture
def gemma(tokenizers):
    return tokenizers["gemma3"]


def _write(card, tokenizer, **kwargs):
    folder = Path("out")
    return modelfile(
        card,
        tokenizer,
        Source(folder / "merged", 8192),
        folder,
        sampling=SAMPLING,
        **{"talk_tokens": 1000, **kwargs},
    )


def due_text(tokenizer, chat) -> str:
    """What her chat template gives for a chat whose adjacent turns of one role are joined, as Ollama joins them.
    Gemma's refuses a system prompt in mid-talk: there all of them stand in front."""
    joined = []
    for message in chat:
        if joined and joined[-1]["role"] == message["role"]:
            joined[-1] = {**message, "content": f"{joined[-1]['content']}\n\n{message['content']}"}
        else:
            joined.append(message)
    try:
        text = tokenizer.apply_chat_template(joined, tokenize=False, add_generation_prompt=True)
    except TemplateError:
        system = "\n\n".join(m["content"] for m in chat if m["role"] == "system")
        turns = [m for m in joined if m["role"] != "system"]
        text = tokenizer.apply_chat_template(
            [{"role": "system", "content": system}, *turns], tokenize=False, add_generation_prompt=True
        )
    bos = runners_bos(tokenizer)
    assert text.startswith(bos)
    return text[len(bos) :]


def test_template_gives_the_text_of_the_chat_template(own, run_ollama):
    text = f'FROM ./merged\nTEMPLATE """{ollama_template(own)}"""\n'
    _, texts = run_ollama(text, CHATS)
    for chat, given in zip(CHATS, texts, strict=True):
        assert given == due_text(own, chat), chat


def test_persona_stays_where_ollama_cuts_the_history_at_her_turn(own, run_ollama):
    """server/prompt.go drops the oldest turns one by one, and keeps system messages."""
    _, (text,) = run_ollama(f'FROM x\nTEMPLATE """{ollama_template(own)}"""\n', [[SYSTEM, HER, USER]])
    assert text.count(SYSTEM["content"]) == 1


def test_no_bos_but_the_runners_is_in_front(family, own):
    assert not runners_bos(own) or not ollama_template(own).startswith(runners_bos(own))
    assert bool(runners_bos(own)) == (family.name not in ("qwen2.5", "yi-1.5", "chatglm3", "baichuan2"))


@pytest.mark.parametrize("name", sorted(p.name for p in TEMPLATES.glob("*.gotmpl")))
def test_templates_are_what_a_modelfile_carries(name):
    text = (TEMPLATES / name).read_text(encoding="utf-8")
    assert text.isascii() and '"""' not in text and all(c.isprintable() or c == "\n" for c in text)
    assert name == "trim.gotmpl" or {f.template for f in FAMILIES.values()} >= {f"{Path(name).stem}.jinja"}


def test_chat_templates_do_not_look_to_ollama_as_if_they_had_tools(family):
    """server/images.go looks for these words, in comments too, and would then prefer a GGUF's template to TEMPLATE."""
    text = (TEMPLATES / family.template).read_text(encoding="utf-8")
    assert not any(word in text for word in ("tools", "tool_call", "<think>", "</think>"))


CARRIED = (
    'と言う"すごい"',
    'で終わる""',
    "{{ .System }} {{ end }}",
    r"C:\n \u3000 \" $x %s",
    '改行で終わる\n"',
    "改行で終わる\n\n",
    "  空白\tとタブ  ",
    "復帰\r\n改行\r",
    'FROM /etc/passwd\nPARAMETER stop "\nTEMPLATE """'.removesuffix('"""'),
    "# 注意\n#",
    "'''…''' 🌸🥰",
    "</system> [im_start] <end of turn>",
)


@pytest.mark.parametrize("words", CARRIED)
def test_hostile_persona_is_carried_to_the_sign(words, card, own, run_ollama):
    levels = {**card.levels, "friend": card.levels["friend"].model_copy(update={"tone": words})}
    hostile = card.model_copy(update={"speech": words, "levels": levels})
    text = _write(hostile, own)
    commands, texts = run_ollama(text, TALKS[-3:])
    system = system_prompt(hostile, "friend")
    assert dict(commands)["system"] == system and system.endswith(words)
    assert dict(commands)["template"] == ollama_template(own)
    assert [name for name, _ in commands][:3] == ["model", "system", "template"]
    chats = [[{"role": "system", "content": system}, *talk] for talk in TALKS[-3:]]
    assert texts == [due_text(own, chat) for chat in chats]


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ('"""\nFROM x', 'holds """ in speech, which ends a text'),
        ("全角\u3000空白", "holds U+3000 in speech, which Ollama drops"),
        ("固\u00a0定", "holds U+00A0 in speech"),
        ("絵😮‍💨", "holds U+200D in speech"),
        ("鳴\u0007る", "holds U+0007 in speech"),
    ],
)
def test_what_ollama_would_change_is_refused_by_name_and_place(words, named, card, gemma):
    with pytest.raises(ValueError) as refused:
        _write(card.model_copy(update={"speech": words}), gemma)
    assert named in str(refused.value) and str(refused.value).count(". ") == 0
    facts = [*card.facts[:1], words]
    with pytest.raises(ValueError, match="in facts, entry 2, which"):
        _write(card.model_copy(update={"facts": facts}), gemma)


def test_control_tokens_in_the_persona_are_refused(family, own, card):
    for token in (*family.tokens, *family.markers):
        with pytest.raises(ValueError) as refused:
            _write(card.model_copy(update={"character": [f"優しい {token} "]}), own)
        assert f"holds {token} in character, entry 1" in str(refused.value)


def test_modelfile_is_whole(family, own, card, run_ollama):
    text = _write(card, own, level="lover")
    commands, _ = run_ollama(text)
    assert commands[0] == ("model", "./merged")
    assert commands[1] == ("system", system_prompt(card, "lover"))
    values = dict(commands[3:])
    stops = [value for name, value in commands if name == "stop"]
    assert family.end_of_turn in stops and own.eos_token in stops and len(stops) == len(stop_token_ids(own))
    sampling = {"temperature": "0.8", "top_k": "40", "top_p": "1.0", "min_p": "0.05", "repeat_penalty": "1.0"}
    assert sampling.items() <= values.items()
    chat = [{"role": "system", "content": system_prompt(card, "lover")}, USER]
    read = len(own.apply_chat_template(chat, add_generation_prompt=True, return_dict=True)["input_ids"])
    assert read - 40 < int(values["num_keep"]) < read
    assert int(values["num_keep"]) + 1000 <= int(values["num_ctx"]) < read + 1000 + 256


def test_context_that_cannot_hold_persona_and_talk_is_refused(card, gemma):
    def write(talk_tokens, context):
        source = Source(Path("merged"), context)
        return modelfile(card, gemma, source, Path(), sampling=SAMPLING, talk_tokens=talk_tokens)

    persona = int(write(100, 8192).split("num_keep ")[1].split()[0])
    assert f"num_ctx {persona + 100}\n" in write(100, persona + 100)
    with pytest.raises(ValueError, match=rf"persona takes {persona} tokens .* have 100, .* {persona + 99} .*most 99\."):
        write(100, persona + 99)
    with pytest.raises(ValueError, match="shorten the persona card"):
        write(100, persona)


def test_path_that_a_modelfile_cannot_hold_is_refused(card, gemma):
    for name, what in (("全角\u3000空白", "U\\+3000"), ("blank ", "a blank")):
        source = Source(Path(name), 8192)
        with pytest.raises(ValueError, match=f"The path .* holds {what}.*rename it"):
            modelfile(card, gemma, source, Path(), sampling=SAMPLING, talk_tokens=9)


def test_paths_are_relative_and_never_look_like_a_models_name(card, gemma, run_ollama, tmp_path):
    for path, written in ((tmp_path / "a b" / "m.gguf", "./a b/m.gguf"), (tmp_path.parent / "m", "../m")):
        source = Source(path, 8192, adapter=tmp_path / "her")
        text = modelfile(card, gemma, source, tmp_path, sampling=SAMPLING, talk_tokens=9)
        assert run_ollama(text)[0][:2] == [("model", written), ("adapter", "./her")]


def test_another_chat_template_is_refused(card):
    other = prepare_tokenizer(small_tokenizer())
    other.chat_template = other.chat_template.replace("user", "USER") + " "
    with pytest.raises(ValueError, match="is not that of its family, qwen2.5"):
        _write(card, other)


# What a GGUF file says


def _gguf(file, tokenizer, *, template="own", context=4096, bos=None, end=None, control=True, kind="model"):
    """A GGUF file with a tokenizer's vocabulary and one tensor."""
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_type(kind)
    if context:
        writer.add_context_length(context)
    vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    added = tokenizer.added_tokens_decoder if control else {}
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list([token for token, _ in vocabulary])
    writer.add_token_types([gguf.TokenType.CONTROL if i in added else gguf.TokenType.NORMAL for _, i in vocabulary])
    writer.add_eos_token_id(tokenizer.eos_token_id)
    if end is not None:
        writer.add_eot_token_id(end)
    writer.add_add_bos_token(bool(runners_bos(tokenizer)) if bos is None else bos)
    if template:
        writer.add_chat_template(tokenizer.chat_template if template == "own" else template)
    writer.add_tensor("output.weight", np.zeros((4, 4), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def test_gguf_of_every_family_is_taken_if_it_says_the_same(family, own, tmp_path):
    end = own.convert_tokens_to_ids(family.end_of_turn)
    header = check_header(_gguf(tmp_path / "m.gguf", own, end=end), own)
    assert (header.context_length, header.chat_template) == (4096, own.chat_template)
    check_header(_gguf(tmp_path / "none.gguf", own, end=end, template=None), own)
    plain = own.chat_template.replace("{%- generation -%}", "").replace("{%- endgeneration -%}", "")
    assert plain != own.chat_template
    check_header(_gguf(tmp_path / "plain.gguf", own, end=end, template=plain), own)
    source = find_source(tmp_path / "m.gguf", own)
    assert source == Source(tmp_path / "m.gguf", 4096)


def test_gguf_that_would_speak_to_another_is_refused(tokenizers, tmp_path):
    tokenizer, file = tokenizers["qwen2.5"], tmp_path / "m.gguf"
    other = tokenizer.chat_template.replace("+ turn['role'] +", "+ turn['role'] | upper +")
    with pytest.raises(ValueError, match=r"in m.gguf is not .* \(after .* it has 'USER.*', not 'user"):
        check_header(_gguf(file, tokenizer, template=other), tokenizer)
    with pytest.raises(ValueError, match="it fails: no"):
        check_header(_gguf(file, tokenizer, template="{{ raise_exception('no') }}"), tokenizer)
    with pytest.raises(ValueError, match="gets a BOS token .*trained without one"):
        check_header(_gguf(file, tokenizer, bos=True), tokenizer)
    with pytest.raises(ValueError, match="gets no BOS token .*trained with one"):
        check_header(_gguf(file, tokenizers["gemma3"], bos=False), tokenizers["gemma3"])
    with pytest.raises(ValueError, match="does not mark '<|im_start|>' as a token.*read in pieces"):
        check_header(_gguf(file, tokenizer, control=False), tokenizer)
    with pytest.raises(ValueError, match="does not say how long"):
        check_header(_gguf(file, tokenizer, context=0), tokenizer)
    for name in ("chatglm3", "baichuan2"):
        with pytest.raises(ValueError, match="she would not stop: .*eot_token_id to"):
            check_header(_gguf(file, tokenizers[name]), tokenizers[name])


def test_damaged_gguf_is_refused(tokenizers, tmp_path):
    file = _gguf(tmp_path / "m.gguf", tokenizers["qwen2.5"])
    whole = file.read_bytes()
    cuts = [whole[:n] for n in range(0, len(whole), 331)]
    for data in (b"PK\x03\x04", b"GGUF\x09\0\0\0", *cuts, whole[:-1]):
        file.write_bytes(data)
        with pytest.raises(ValueError, match="m.gguf is no whole GGUF file"):
            check_header(file, tokenizers["qwen2.5"])
    rest = len(whole) - 1
    for n in range(0, 4000, 7):
        file.write_bytes(whole[:n] + b"\xff" + whole[n - rest :])
        try:
            read_metadata(file)
        except ValueError as error:
            assert "is no whole GGUF file" in str(error)


def test_metadata_is_what_the_gguf_package_reads(tokenizers, tmp_path):
    file = _gguf(tmp_path / "m.gguf", tokenizers["gemma3"], end=7)
    found, reader = read_metadata(file), gguf.GGUFReader(file)
    due = {key: field.contents() for key, field in reader.fields.items() if not key.startswith("GGUF.")}
    assert due.pop("tokenizer.ggml.tokens") and found.pop("tokenizer.ggml.tokens") == len(tokenizers["gemma3"])
    assert list(found.pop("tokenizer.ggml.token_type")) == due.pop("tokenizer.ggml.token_type")
    assert found == due and found["tokenizer.ggml.eot_token_id"] == 7


# What FROM and ADAPTER name

QWEN_CUTS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@pytest.fixture
def merged(tmp_path, tokenizers):
    """A folder that Ollama takes: Qwen 2.5's, with the pattern by which Ollama tells its vocabulary."""
    folder = tmp_path / "merged"
    small_base(folder)
    _edit(folder / "tokenizer.json", pre_tokenizer=_sequence(QWEN_CUTS))
    return folder


def _sequence(pattern):
    return {"type": "Sequence", "pretokenizers": [{"type": "Split", "pattern": {"Regex": pattern}}]}


def _edit(file, **values):
    content = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps({**content, **values}), encoding="utf-8")


def test_merged_folder_is_taken(merged, tokenizers):
    assert hashlib.sha256(QWEN_CUTS.encode()).hexdigest().startswith("1ff7f4106489")
    assert find_source(merged, tokenizers["qwen2.5"]) == Source(merged, 4096)


def test_folders_that_ollama_would_not_take_or_misread_are_refused(merged, tokenizers, tmp_path):
    tokenizer = tokenizers["qwen2.5"]
    with pytest.raises(FileNotFoundError, match="take the name for one of its own"):
        find_source(tmp_path / "nowhere", tokenizer)
    _edit(merged / "tokenizer_config.json", add_bos_token=True)
    with pytest.raises(ValueError, match="would put a BOS token in front .*trained without one"):
        find_source(merged, tokenizer)
    _edit(merged / "tokenizer.json", pre_tokenizer=_sequence("x"))
    with pytest.raises(ValueError, match="cannot tell how the tokenizer in merged cuts a text"):
        find_source(merged, tokenizer)
    _edit(merged / "config.json", quantization_config={"quant_method": "gptq"})
    with pytest.raises(ValueError, match="reads no gptq weights"):
        find_source(merged, tokenizer)
    for name in ("MistralForCausalLM", "GlmForCausalLM"):
        _edit(merged / "config.json", architectures=[name])
        with pytest.raises(ValueError, match=f"no safetensors of {name} .*Give a GGUF file"):
            find_source(merged, tokenizer)
    (merged / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="holds no model"):
        find_source(merged, tokenizer)


def test_adapters(merged, tokenizers, tmp_path):
    tokenizer, peft = tokenizers["qwen2.5"], tmp_path / "adapter"
    peft.mkdir()
    (peft / "adapter_model.safetensors").write_bytes(b"weights")
    (peft / "adapter_config.json").write_text('{"r": 4, "lora_alpha": 8, "use_dora": false}')
    made = adapter_for_ollama(peft, tmp_path / "her")
    assert {f.name for f in made.iterdir()} == {"model.safetensors", "adapter_config.json"}

    with pytest.raises(ValueError, match="over llama and gemma2 only, and this base is qwen2: merge the adapter, or"):
        find_source(merged, tokenizer, made)
    llama = _gguf(tmp_path / "base.gguf", tokenizer)
    assert find_source(llama, tokenizer, made) == Source(llama, 4096, made)
    with pytest.raises(FileNotFoundError, match="holds no model.safetensors.*adapter_for_ollama"):
        find_source(llama, tokenizer, peft)
    assert find_adapter_source(llama, tokenizer, peft, tmp_path / "hers") == Source(llama, 4096, tmp_path / "hers")
    with pytest.raises(ValueError, match="this base is qwen2"):
        find_adapter_source(merged, tokenizer, peft, tmp_path / "never")
    assert (tmp_path / "hers" / "model.safetensors").exists() and not (tmp_path / "never").exists()

    in_gguf = _gguf(tmp_path / "lora.gguf", tokenizer, kind="adapter")
    assert find_source(merged, tokenizer, in_gguf).adapter == in_gguf
    with pytest.raises(ValueError, match="base.gguf is no GGUF adapter, but a model"):
        find_source(merged, tokenizer, llama)

    for name in ("use_dora", "use_rslora"):
        _edit(peft / "adapter_config.json", **{name: True})
        with pytest.raises(ValueError, match=r"has use_(dora|rslora), and Ollama adds plain LoRA only"):
            adapter_for_ollama(peft, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_a_folder_of_links_as_in_the_hubs_cache_is_refused(merged, tokenizers, tmp_path):
    """parser/parser.go follows each link and then calls the path insecure."""
    tokenizer, snapshot = tokenizers["qwen2.5"], tmp_path / "snapshots" / "f00"
    snapshot.mkdir(parents=True)
    for file in merged.iterdir():
        (snapshot / file.name).symlink_to(f"../../merged/{file.name}")
    with pytest.raises(
        ValueError, match=r"In the folder f00 .* is a link out of it.*--local-dir .*or name a GGUF file"
    ):
        find_source(snapshot, tokenizer)
    llama = _gguf(tmp_path / "base.gguf", tokenizer)
    (snapshot / "adapter_config.json").symlink_to("../../merged/config.json")
    with pytest.raises(ValueError, match="In the folder f00"):
        find_source(llama, tokenizer, snapshot)
    (tmp_path / "link.gguf").symlink_to(llama)
    assert find_source(tmp_path / "link.gguf", tokenizer), "a file may be one"
    (merged / "model.safetensors").rename(merged / "weights")
    (merged / "model.safetensors").symlink_to("weights")
    (tmp_path / "elsewhere").symlink_to(merged)
    assert find_source(tmp_path / "elsewhere", tokenizer), "it is a link, and what is in it leaves it by none"


def test_no_adapter_is_copied_for_a_base_of_links(merged, tokenizers, tmp_path, monkeypatch):
    monkeypatch.setattr(ollama_source, "ADAPTERS", ("qwen2",))
    (merged / "config.json").rename(tmp_path / "config.json")
    (merged / "config.json").symlink_to("../config.json")
    with pytest.raises(ValueError, match=r"In the folder merged config\.json is a link out of it"):
        find_adapter_source(merged, tokenizers["qwen2.5"], tmp_path / "adapter", tmp_path / "never")
    assert not (tmp_path / "never").exists()


def test_a_base_without_sampling_of_its_own_has_a_neutral_modelfile(merged, card, tokenizers):
    sampling = GenerationConfig(do_sample=True, temperature=0.5)
    sampling.save_pretrained(merged)
    assert sampling_defaults(merged).temperature == 0.5
    (merged / "generation_config.json").unlink()
    source = Source(merged, 8192)
    text = modelfile(card, tokenizers["qwen2.5"], source, merged, sampling=sampling_defaults(merged), talk_tokens=100)
    neutral = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "repeat_penalty": 1.0}
    assert all(f"PARAMETER {name} {value}\n" in text for name, value in neutral.items())


# The program


@pytest.fixture
def program(tmp_path, monkeypatch):
    """A function that puts a stand-in for `ollama` on the path."""
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    def put(script: str):
        (tmp_path / "ollama").write_text(f"#!{sys.executable}\nimport sys\n{script}\n")
        (tmp_path / "ollama").chmod(0o755)

    return put


def test_create_runs_the_command_or_says_what_ollama_said(program, tmp_path):
    program(f"open({str(tmp_path / 'asked')!r}, 'w').write(' '.join(sys.argv[1:]))")
    ollama.create("sakura", Path("a/Modelfile"))
    assert (tmp_path / "asked").read_text() == "create sakura -f a/Modelfile"
    program("print('gathering', file=sys.stderr); sys.exit('Error: no Modelfile or safetensors files found')")
    with pytest.raises(
        ollama.OllamaError, match="create sakura failed: Error: no Modelfile or safetensors files found"
    ):
        ollama.create("sakura", Path("a/Modelfile"))


class _Server(BaseHTTPRequestHandler):
    """Repeats the words, and knows one model."""

    asked: ClassVar[list[dict]] = []

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"object": "list", "data": []}')

    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.asked.append({"path": self.path, **request})
        message = {"role": "assistant", "content": request["messages"][-1]["content"]}
        answer = {"id": "1", "created": 1, "object": "chat.completion", "model": request["model"]}
        status, body = 200, {**answer, "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
        if request["model"] != "sakura":
            status, body = 404, {"error": {"message": f"model '{request['model']}' not found"}}
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())


def test_reply_comes_from_the_server_that_ollama_host_names(monkeypatch, program):
    server, said = HTTPServer(("127.0.0.1", 0), _Server), [{"role": "user", "content": "やあ"}]
    monkeypatch.setenv("OLLAMA_HOST", f"0.0.0.0:{server.server_port}")
    for proxy in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(proxy, "http://127.0.0.1:9")
    for without in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(without, raising=False)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with monkeypatch.context() as bare:
        bare.setenv("PATH", "")
        assert ollama.unavailable() == "There is no program `ollama` on this machine."
    program("")
    assert ollama.unavailable() == ""
    assert ollama.greedy_reply("sakura", said, 8) == "やあ"
    (asked,) = _Server.asked
    assert asked["path"] == "/v1/chat/completions" and asked["messages"] == said
    assert asked["temperature"] == 0 and asked["max_tokens"] == 8
    with pytest.raises(ollama.OllamaError, match="no reply from nobody: .*'nobody' not found"):
        ollama.greedy_reply("nobody", said, 8)
    server.shutdown()
    server.server_close()
    with pytest.raises(ollama.OllamaError, match=f"127.0.0.1:{server.server_port}/v1 gave no reply from sakura"):
        ollama.greedy_reply("sakura", said, 8)
    assert "No Ollama answers at" in ollama.unavailable()


def test_where_ollama_is_asked(monkeypatch):
    monkeypatch.delenv("OLLAMA_HOST", raising=False)
    assert ollama._address() == "http://127.0.0.1:11434/v1"
    monkeypatch.setenv("OLLAMA_HOST", "https://gpu.example")
    assert ollama._address() == "https://gpu.example:11434/v1"
