"""The export room: merged weights speak as the adapter did, and what is wrong is refused in one sentence."""

import dataclasses
import json
import math
import shutil
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from sentencepiece import SentencePieceProcessor
from small import small_tokenizer
from tokenizers import Tokenizer, models
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, PreTrainedTokenizerFast

from helpers.conversations import Conversation
from helpers.export import calibration, made, merge, parity, perplexity, quality, quantize, rounding, worker
from helpers.export.logits import supervised_logits
from helpers.export.model_card import model_card
from helpers.export.sentencepiece_file import sentencepiece_model
from helpers.export.serving_files import Unfit, check_export
from helpers.families import stop_token_ids
from helpers.records import Mismatch
from helpers.serve.parity import Disparity, Served, check_replies, check_tokens
from helpers.serve.server import VLLMServer
from helpers.supervision import Row, supervise_all


@pytest.fixture(scope="module")
def talks():
    words = (
        ["ただいま", "おかえり😊"],
        ["元気？", "うん、元気だよ。", "よかった", "ありがとね"],
        ["おやすみ", "また明日ね🌙"],
    )
    return [
        Conversation(
            id=f"talk-{n}", messages=[{"role": ("user", "assistant")[i % 2], "content": t} for i, t in enumerate(talk)]
        )
        for n, talk in enumerate(words)
    ]


@pytest.fixture(scope="module")
def rows(tokenizer, card, talks):
    return supervise_all(tokenizer, talks, card)


@pytest.fixture(scope="module")
def adapter(tiny, tmp_path_factory):
    """A random LoRA on all linear layers, large enough to change what is said."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_pretrained(tiny.path, dtype=torch.float32)
    settings = LoraConfig(
        r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False
    )
    folder = tmp_path_factory.mktemp("lora") / "adapter"
    get_peft_model(model, settings).save_pretrained(folder)
    return folder


def _melted(tiny, adapter):
    return merge.merge(merge.load_adapted(tiny, adapter, tiny.sha256))


def _apart(one, other, rows):
    return parity.compare(parity.reference(one, rows), supervised_logits(other, rows))


@pytest.fixture(scope="module")
def exported(tiny, adapter, rows, tmp_path_factory):
    target = tmp_path_factory.mktemp("export") / "merged"
    adapted = merge.load_adapted(tiny, adapter, tiny.sha256)
    return target, *merge.save_merged(_melted(tiny, adapter), adapted, tiny, target, rows, 2)


@pytest.fixture(scope="module")
def merged(exported):
    return exported[0]


def test_merged_in_memory_equals_adapter(tiny, adapter, rows):
    adapted = merge.load_adapted(tiny, adapter, tiny.sha256)
    plain = _melted(tiny, adapter)
    base = AutoModelForCausalLM.from_pretrained(tiny.path, dtype=torch.float32)
    found = _apart(adapted, plain, rows)
    assert found.max_abs <= 1e-4
    assert found.same_greedy == 1
    assert found.positions == sum(len(r.supervised) for r in rows)
    assert sum(found.histogram) == found.positions * base.config.vocab_size
    assert _apart(adapted, base, rows).max_abs > 1e-2, "the random adapter must matter, or parity shows nothing"


def test_models_on_other_rows_or_words_are_not_compared(tiny, rows):
    model = AutoModelForCausalLM.from_pretrained(tiny.path, dtype=torch.float32)
    told = parity.reference(model, rows)
    for others in (rows[:1], [*rows, rows[0]]):
        with pytest.raises(ValueError, match="give the same rows"):
            parity.compare(told, supervised_logits(model, others))
    with pytest.raises(ValueError, match="vocabularies of 262144 and 7 words"):
        parity.compare(told, [(torch.zeros(2, 7), torch.zeros(2, dtype=torch.long))])
    with pytest.raises(ValueError, match="no supervised token"):
        parity.reference(model, [])


def test_merged_folder_is_complete(merged, tokenizer):
    assert (merged / "model.safetensors").exists()
    assert not list(merged.glob("*.bin")) and not list(merged.parent.glob(".*part"))
    assert not (merged / "adapter_config.json").exists()
    assert AutoModelForCausalLM.from_pretrained(merged).dtype == torch.bfloat16, "the dtype in which the base is stored"
    stops = GenerationConfig.from_pretrained(merged).eos_token_id
    assert stops == stop_token_ids(tokenizer)
    assert tokenizer.convert_tokens_to_ids("<end_of_turn>") in stops
    assert AutoTokenizer.from_pretrained(merged).chat_template == tokenizer.chat_template


def test_saving_costs_only_the_rounding(tiny, adapter, exported, rows):
    folder, verdict, read_back = exported
    adapted = merge.load_adapted(tiny, adapter, tiny.sha256)
    saved = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    assert _apart(adapted, saved, rows[:2]).figures == verdict.saved.figures
    assert _apart(saved, read_back, rows).max_abs == 0
    assert not verdict.faults
    assert 0 < verdict.in_memory.mean_abs < verdict.sums.mean_abs < verdict.storing.mean_abs
    assert verdict.in_memory.mean_abs < verdict.saved.mean_abs < verdict.storing.mean_abs < verdict.base.mean_abs
    assert 0 < verdict.saved.max_abs < 0.1


def test_a_shaken_model_is_itself_again(tiny, rows):
    model = AutoModelForCausalLM.from_pretrained(tiny.path, dtype=torch.float32)
    whole = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    told = parity.reference(model, rows)
    layers = {"model.layers.1.mlp.down_proj": rounding.shaken(rounding.unit_roundoff(torch.bfloat16), 0)}
    with rounding.changed(model, layers):
        apart = [parity.compare(told, supervised_logits(model, rows)) for _ in range(2)]
    assert apart[0] == apart[1] and 0 < apart[0].max_abs < 0.1, "the same shaking at every step"
    assert all(torch.equal(tensor, whole[name]) for name, tensor in model.state_dict().items())
    assert parity.compare(told, supervised_logits(model, rows)).max_abs == 0


def test_rounding_is_within_what_is_allowed_of_it():
    torch.manual_seed(0)
    before, by = torch.randn(64, 64).bfloat16().float(), rounding.unit_roundoff(torch.bfloat16)
    assert by == 2**-8 and rounding.unit_roundoff(torch.float32) == 2**-24
    weight = before + torch.randn(64, 64) * 2**-9
    assert rounding.is_exact(before, torch.bfloat16) and not rounding.is_exact(weight, torch.bfloat16)
    moved = (rounding.shaken(by, 3)(weight) - weight).abs()
    assert torch.allclose(moved, weight.abs() * by, rtol=1e-3)
    assert ((weight.bfloat16().float() - weight).abs() <= weight.abs() * by).all()
    lost = rounding.erased(before, by)(weight)
    near = (weight - before).abs() <= weight.abs() * by
    assert 0 < near.float().mean() < 1, "some of what was added is within the rounding, some is not"
    assert torch.allclose(lost[near], before[near]) and not torch.allclose(lost[~near], before[~near])


def test_an_adapter_that_storing_rounds_away_is_refused(exported):
    _, verdict, _ = exported
    away = dataclasses.replace(verdict, base=verdict.saved)
    with pytest.raises(merge.MergeOff, match="all that the adapter brought is"):
        away.check()
    verdict.check()


def _scaled(model, by):
    """Another α/r than was trained: what is added is `by` times as large."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for layer in model.modules():
        if isinstance(layer, BaseTunerLayer):
            layer.scale_layer(by)
    return model


@pytest.mark.parametrize("fault", ["scale", "lost tensor", "not a number", "written wrong"])
def test_a_merge_that_is_off_is_refused_and_leaves_nothing(tiny, adapter, rows, tmp_path, monkeypatch, fault):
    target = tmp_path / "merged"
    target.mkdir()
    (target / "model.safetensors").write_bytes(b"an older export")
    adapted = merge.load_adapted(tiny, adapter, tiny.sha256)
    plain = _melted(tiny, adapter)
    weight = plain.model.layers[1].mlp.down_proj.weight
    if fault == "scale":
        plain = merge.merge(_scaled(merge.load_adapted(tiny, adapter, tiny.sha256), 1.1))
    elif fault == "lost tensor":
        weight.data = AutoModelForCausalLM.from_pretrained(tiny.path, dtype=torch.float32).state_dict()[
            "model.layers.1.mlp.down_proj.weight"
        ]
    elif fault == "not a number":
        weight.data[0, 0] = math.nan
    else:
        whole = merge.write_serving_files

        def spoilt(source, part):
            whole(source, part)
            tensors = load_file(part / "model.safetensors")
            # One row. Gemma's norms undo what only scales a projection.
            tensors["model.layers.0.mlp.up_proj.weight"][0] = 0
            save_file(tensors, part / "model.safetensors", metadata={"format": "pt"})

        monkeypatch.setattr(merge, "write_serving_files", spoilt)
    with pytest.raises(merge.MergeOff, match=r"^The merged model is not what was trained: .*where rounding explains"):
        merge.save_merged(plain, adapted, tiny, target, rows, 2)
    assert not list(tmp_path.iterdir()), "neither a part nor the older export"


def test_adapter_of_another_base_is_refused(tiny, adapter):
    with pytest.raises(Mismatch, match="another base"):
        merge.load_adapted(tiny, adapter, "0" * 64)


def test_damaged_adapters_are_refused(tiny, adapter, tmp_path):
    copy = tmp_path / "adapter"
    shutil.copytree(adapter, copy)
    weights = copy / merge.WEIGHTS
    whole = weights.read_bytes()

    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="damaged"):
        merge.load_adapted(tiny, copy, tiny.sha256)

    weights.write_bytes(whole)
    tensors = load_file(weights)
    first = min(tensors)
    save_file({k: v for k, v in tensors.items() if k != first}, weights)
    with pytest.raises(Mismatch, match="1 of its tensors"):
        merge.load_adapted(tiny, copy, tiny.sha256)

    save_file(tensors | {first: torch.zeros(3, 3)}, weights)
    with pytest.raises(Mismatch, match="does not fit"):
        merge.load_adapted(tiny, copy, tiny.sha256)

    save_file(tensors | {first: torch.full_like(tensors[first], math.nan)}, weights)
    with pytest.raises(ValueError, match=r"(?i)nan"):
        merge.merge(merge.load_adapted(tiny, copy, tiny.sha256))

    weights.unlink()
    with pytest.raises(FileNotFoundError, match="holds no adapter"):
        merge.load_adapted(tiny, copy, tiny.sha256)


def test_quantized_base_is_refused(tiny, adapter, tmp_path):
    from helpers.base_model import BaseModel

    config = json.loads((tiny.path / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "gptq", "bits": 4, "group_size": 64}
    (tmp_path / "config.json").write_text(json.dumps(config))
    base = BaseModel("four-bit", tmp_path, tiny.sha256, "")
    with pytest.raises(ValueError, match="is quantized"):
        merge.load_adapted(base, adapter, tiny.sha256)


def test_perplexity_is_the_hand_computed_one(tiny, rows):
    model = AutoModelForCausalLM.from_pretrained(tiny.path, dtype=torch.float32).eval()
    loss, tokens = 0.0, 0
    for row in rows:
        with torch.inference_mode():
            chances = model(torch.tensor([row.input_ids])).logits[0].log_softmax(-1)
        for position, keep in enumerate(row.assistant_masks):
            if keep:
                loss -= chances[position - 1, row.input_ids[position]].item()
                tokens += 1
    for batch_size in (1, 3):
        found = perplexity.perplexity(model, rows, batch_size)
        assert found.tokens == tokens
        assert found.value == pytest.approx(math.exp(loss / tokens), rel=1e-4)


def test_perplexity_without_supervised_tokens_is_an_error(tiny):
    model = AutoModelForCausalLM.from_pretrained(tiny.path, dtype=torch.float32)
    with pytest.raises(ValueError, match="no supervised token"):
        perplexity.perplexity(model, [])


def test_group_size_divides_every_layer(tiny):
    assert quantize.group_size(tiny.path) == 64


@pytest.mark.parametrize(
    "scheme, reason",
    [("awq-8bit", r"^There is no awq-8bit: AWQ's .* 4 bits alone"), ("int4", r"no .* 'int4': use gptq,")],
)
def test_schemes_that_cannot_be_are_refused(scheme, reason, tiny, rows, tmp_path):
    with pytest.raises(ValueError, match=reason):
        quantize.check_schemes(["gptq", scheme])
    with pytest.raises(ValueError, match=reason):
        quantize.quantize(scheme, tiny.path, tmp_path / scheme, rows, tmp_path / "log")
    assert not list(tmp_path.iterdir())


def test_a_scheme_says_how_many_rows_it_looked_at(tmp_path):
    rows = [Row(list(range(n)), [0] * (n - 1) + [1]) for n in (9, 5, 7, 8, 6)]
    assert quantize.rows_used("gptq", rows) == rows
    cut = [Row(list(range(6)), row.assistant_masks[:6]) for row in rows if len(row.input_ids) > 5]
    assert quantize.rows_used("awq", rows) == cut
    assert quantize.rows_used("w8a8", rows) == quantize.rows_used("awq", []) == []
    for scheme, words in {
        "gptq": "by GPTQ (gptqmodel). Calibrated on 5 training dialogues.",
        "awq": "by auto-round. Calibrated on the beginnings of 4 training dialogues.",
        "w8a8": "by auto-round. Rounded without calibration.",
    }.items():
        number = len(quantize.rows_used(scheme, rows))
        assert quantize.Quantized(scheme, tmp_path, 1, 1.0, 0, number).how.endswith(words)


def test_calibration_is_drawn_from_training_alone(tokenizer, card, talks):
    held_out = [Conversation(id="other", messages=talks[2].messages)]
    drawn = calibration.calibration_rows(talks[:2], held_out, 5, 0, tokenizer, card)
    assert sorted(len(r.input_ids) for r in drawn) == sorted(
        len(r.input_ids) for r in supervise_all(tokenizer, talks[:2], card)
    )
    first = calibration.calibration_rows(talks[:2], held_out, 1, 3, tokenizer, card)
    assert first == calibration.calibration_rows(talks[:2], held_out, 1, 3, tokenizer, card) and len(first) == 1


@pytest.mark.parametrize("same", ["id", "words"])
def test_a_held_out_dialogue_in_calibration_is_an_error(tokenizer, card, talks, same):
    spoken = [{"role": m.role, "content": m.content.replace("。", " !") + "…"} for m in talks[1].messages]
    held_out = Conversation(id="held-7", messages=spoken)
    if same == "id":
        held_out = Conversation(id="talk-1", messages=talks[2].messages)
    with pytest.raises(calibration.Leak, match=f"talk-1 is the held-out dialogue {held_out.id}"):
        calibration.calibration_rows(talks[:2], [held_out], 2, 0, tokenizer, card)


def test_what_is_there_and_whole_is_not_made_again(tmp_path):
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"weights")
    made.note(tmp_path, "these", seconds=3.5)
    assert made.noted(tmp_path, "these")["seconds"] == 3.5
    assert made.noted(tmp_path, "others") is None
    weights.write_bytes(b"weightS")
    assert made.noted(tmp_path, "these") is None, "damaged"
    weights.unlink()
    assert made.noted(tmp_path, "these") is None, "gone"
    (tmp_path / made.NOTE).write_text("{")
    assert made.noted(tmp_path, "these") is None
    assert made.noted(tmp_path / "nowhere", "these") is None


def test_an_export_has_what_it_must_and_nothing_that_runs_code(merged, tokenizer, tmp_path):
    folder = tmp_path / "merged"
    shutil.copytree(merged, folder)
    with pytest.raises(Unfit, match="no model card"):
        check_export(folder, tokenizer)
    (folder / "README.md").write_text("card")
    check_export(folder, tokenizer)
    for name in ("pytorch_model.bin", "optimizer.pt", "state.pkl"):
        (folder / name).write_bytes(b"")
        with pytest.raises(Unfit, match=f"holds {name}, a format that can run code"):
            check_export(folder, tokenizer)
        (folder / name).unlink()
    generation = json.loads((folder / "generation_config.json").read_text())
    (folder / "generation_config.json").write_text(json.dumps(generation | {"eos_token_id": tokenizer.eos_token_id}))
    with pytest.raises(Unfit, match="not at her end of turn"):
        check_export(folder, tokenizer)
    (folder / "generation_config.json").write_text(json.dumps(generation))
    other = AutoTokenizer.from_pretrained(merged)
    other.chat_template = other.chat_template.replace("model", "assistant")
    with pytest.raises(Unfit, match="another chat template"):
        check_export(folder, other)
    other.add_tokens(["さくら"])
    with pytest.raises(Unfit, match="another tokenizer"):
        check_export(folder, other)
    (folder / "model.safetensors").unlink()
    with pytest.raises(Unfit, match="no weights in safetensors"):
        check_export(folder, tokenizer)


def test_the_model_card_says_base_data_figures_and_limits(tiny, card):
    record = {
        "settings": {"profile": "smoke", "seed": 42},
        "device": "cpu",
        "dtype": "float32",
        "packages": {"torch": "2.13.0"},
    }
    before = [
        {"stage": "01_data", "inputs": {"data/dialogues/sakura": "a" * 64}, "settings": {}, "artifacts": {}},
        {
            "stage": "03_lora",
            "inputs": {"01_data": "b" * 64, "/home/mio/chats": "c" * 64},
            "settings": {"lora_r": 4, "epochs": 1, "port": 8000},
            "artifacts": {"adapter": "d" * 64},
        },
    ]
    figures = {"perplexity": 12.34567, "logits": {"max_abs": 0.5}, "tokens": 120}
    text = model_card("gptq", "In 4 bits by GPTQ.", record, before, tiny, card, figures)
    head = yaml.safe_load(text.split("---\n")[1])
    assert head["base_model"] == "tiny" and head["language"] == ["ja"] and head["license_name"] == tiny.licence
    for held in (
        *("# さくら · gptq", "In 4 bits by GPTQ.", tiny.sha256, f"| `data/dialogues/sakura` | `{'a' * 64}` |"),
        *("| `chats` |", "- 03_lora: lora_r 4, epochs 1\n", "| perplexity | 12.35 |", "| logits, max abs | 0.5 |"),
        *("| tokens | 120 |", "not a medical device", "profile smoke, cpu in float32, seed 42, torch 2.13.0"),
    ):
        assert held in text, held
    assert "/home" not in text and "b" * 64 not in text


def test_the_sentencepiece_file_reads_as_the_tokenizer_does(tokenizer):
    processor = SentencePieceProcessor(model_proto=sentencepiece_model(tokenizer))
    assert processor.get_piece_size() == len(tokenizer)
    assert processor.is_control(tokenizer.convert_tokens_to_ids("<end_of_turn>"))
    for text in ("ただいま〜😮‍💨\n晩ごはん、  何にしよ", "Hello, world! 3.14", "  𠮷野家で\t食べる\n\n", "ﾊﾝｶｸ　全角"):
        assert processor.encode(text) == tokenizer(text, add_special_tokens=False)["input_ids"]


def test_a_byte_that_is_called_by_its_character_is_a_byte_again():
    """As transformers calls the tab's in Gemma 1 and 2; without all 256 SentencePiece does not load."""
    bytes_ = ["\t" if b == 9 else f"<0x{b:02X}>" for b in range(256)]
    vocab = {piece: i for i, piece in enumerate(["<unk>", *bytes_, "a", "b", "ab"])}
    backend = Tokenizer(models.BPE(vocab, [("a", "b")], byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>")
    processor = SentencePieceProcessor(model_proto=sentencepiece_model(tokenizer))
    assert processor.encode("ab\ta\n") == tokenizer("ab\ta\n")["input_ids"] == [259, 10, 257, 11]


def test_another_vocabulary_needs_no_sentencepiece_file():
    assert sentencepiece_model(small_tokenizer()) is None


def test_failed_worker_shows_the_end_of_its_log(tmp_path):
    with pytest.raises(worker.WorkerError, match=r"(?s)a job that fails: .* code 2\..*usage: "):
        worker.run("json.tool", {}, tmp_path / "job.log", "a job that fails")


def test_what_a_cpu_widened_is_stored_in_the_models_own_dtype_again(tmp_path):
    made = {"embed": torch.randn(4, 8), "qweight": torch.ones(2, 2, dtype=torch.int32), "scales": torch.ones(2).half()}
    made |= {"weight_scale": torch.ones(3)}
    save_file(made, tmp_path / "made.safetensors")
    quantize._move(tmp_path / "made.safetensors", tmp_path / "own.safetensors", {"embed"}, torch.bfloat16)
    own = load_file(tmp_path / "own.safetensors")
    assert {name: t.dtype for name, t in own.items()} == {
        "embed": torch.bfloat16,
        "qweight": torch.int32,
        "scales": torch.float16,
        "weight_scale": torch.float32,
    }
    assert torch.equal(own["embed"], made["embed"].bfloat16())


@pytest.mark.slow
@pytest.mark.parametrize("scheme", sorted(quantize.SCHEMES))
def test_quantized_folder_has_fewer_bits_and_is_measurable(scheme, merged, rows, talks, card, tokenizer, tmp_path):
    made = quantize.quantize(scheme, merged, tmp_path / scheme, rows, tmp_path / f"{scheme}.log")
    config = json.loads((made.folder / "config.json").read_text())["quantization_config"]
    if scheme == "w8a8":
        group = config["config_groups"]["group_0"]
        assert group["weights"]["num_bits"] == group["input_activations"]["num_bits"] == 8
    else:
        assert config["bits"] == quantize.SCHEMES[scheme].bits
        assert config["group_size"] == made.group_size == 64
    assert made.bytes < sum(f.stat().st_size for f in merged.glob("*.safetensors"))
    assert made.rows == len(quantize.rows_used(scheme, rows))
    again = quantize.quantize(scheme, merged, tmp_path / scheme, rows, tmp_path / "again.log")
    assert again == made and not (tmp_path / "again.log").exists()
    (made.folder / "README.md").write_text("card")
    check_export(made.folder, tokenizer)

    prompts = [quality.Prompt.first_turn(talk, card) for talk in talks]
    exports = {"merged": merged, scheme: made.folder}
    found = quality.measure(exports, rows, 2, prompts, card, 4, tmp_path / "quality.log")
    assert found["merged"].same_token == found["merged"].same_reply == 1 and found["merged"].max_abs == 0
    model = AutoModelForCausalLM.from_pretrained(merged, dtype=torch.float32)
    assert found["merged"].perplexity == pytest.approx(perplexity.perplexity(model, rows).value, rel=1e-5)
    assert found[scheme].mean_abs > 0 and found[scheme].perplexity > 1 and found[scheme].tokens_per_second > 0


def _likeliest(folder, prompts, replies):
    """The share of the tokens of `replies` that transformers finds likeliest with the checkpoint in `folder`, and with
    the outputs of one of its layers in another order, as if the weights had been read wrong. Runs in a process of its
    own: what reads a quantized checkpoint patches transformers."""
    model = quality._Transformers(folder)._model
    layer, shares = model.get_decoder().layers[0].mlp.down_proj, []
    for moved in (0, 1):
        hook = layer.register_forward_hook(lambda _, __, out, moved=moved: out.roll(moved, -1))
        same = []
        for prompt, reply in zip(prompts, replies, strict=True):
            with torch.inference_mode():
                logits = model(input_ids=torch.tensor([prompt + reply]), logits_to_keep=len(reply) + 1).logits
            same += (logits[0, :-1].argmax(-1) == torch.tensor(reply)).tolist()
        hook.remove()
        shares.append(sum(same) / len(same))
    return shares


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["merged", *(name for name, s in quantize.SCHEMES.items() if s.cpu)])
def test_vllm_serves_every_export_that_it_can_on_a_cpu(scheme, merged, rows, talks, card, tokenizer, tmp_path):
    folder = merged
    if scheme != "merged":
        folder = quantize.quantize(scheme, merged, tmp_path / scheme, rows, tmp_path / f"{scheme}.log").folder
    model = AutoModelForCausalLM.from_pretrained(merged, dtype=torch.float32)
    prompts = [talk.chat(card)[:2] for talk in talks]
    with VLLMServer(folder, "her", tmp_path, max_model_len=1024) as server:
        her = Served(server.base_url, server.api_key, "her")
        assert check_tokens([talk.chat(card) for talk in talks], tokenizer, her) > 100
        if scheme == "merged":
            assert check_replies(prompts, model, tokenizer, her, torch.float32, 16) > 0
        else:
            with pytest.raises(Disparity, match="the weights that are served"):
                check_replies(prompts, model, tokenizer, her, torch.float32, 64)
            replies = [her.greedy(prompt, 64) for prompt in prompts]
            read = [her.ids(prompt, True) for prompt in prompts]
            with ProcessPoolExecutor(1, get_context("spawn")) as process:
                right, wrong = process.submit(_likeliest, folder, read, replies).result()
            assert right > 0.8 > 0.5 > wrong, "the server reads the checkpoint as transformers does"
