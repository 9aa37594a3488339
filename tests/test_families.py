"""Every model family, small: its entry, how it is told from the others, and a whole course on random weights."""

import dataclasses
from pathlib import Path

import pytest
import torch
import trl
from peft import LoraConfig
from small import ENDS
from talks import CHAT
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    CONFIG_MAPPING,
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedTokenizerFast,
)

from helpers import generation, settings
from helpers.base_model import resolve_base_model
from helpers.export import merge
from helpers.export.logits import supervised_logits
from helpers.families import FAMILIES, TEMPLATES, detect_family, prepare_tokenizer
from helpers.persona import system_prompt
from helpers.supervision import supervise
from helpers.train import dpo, preferences, preflight, sft

COURSES = [(family.name, model_type) for family in FAMILIES.values() for model_type in family.architectures]


@pytest.fixture(scope="module")
def pairs(card, tmp_path_factory):
    folder = settings.ROOT / "data" / "preferences" / "sakura"
    return preferences.read_preferences(folder, card, tmp_path_factory.mktemp("bad") / "bad.jsonl")[0][:6]


@pytest.fixture(scope="module")
def words(card, pairs) -> str:
    """A trained byte-level vocabulary, as JSON."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(
        [system_prompt(card, "friend"), *(p.chosen for p in pairs)],
        trainers.BpeTrainer(vocab_size=600, initial_alphabet=alphabet, show_progress=False),
    )
    return backend.to_str()


@pytest.fixture
def tokenizer_of(words):
    """A function from a family's name to a tokenizer with the family's special tokens, not prepared."""

    def make(name: str, path: str = "") -> PreTrainedTokenizerFast:
        family, (bos, eos) = FAMILIES[name], ENDS.get(name, ("<s>", "</s>"))
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=Tokenizer.from_str(words),
            bos_token=bos,
            eos_token=eos,
            extra_special_tokens=list(dict.fromkeys([*family.tokens, family.end_of_turn, family.pad])),
        )
        tokenizer.name_or_path = path or name
        return tokenizer

    return make


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_entry_is_whole_and_its_classes_are_transformers_own(family):
    assert family.checkpoints and all(
        hub_id.count("/") == 1 and size > 0 for hub_id, size in family.checkpoints.items()
    )
    assert family.end_of_turn != family.pad and family.licence and family.languages
    template = (TEMPLATES / family.template).read_text(encoding="utf-8")
    assert "endgeneration" in template and family.end_of_turn in template
    for model_type, name in family.architectures.items():
        assert MODEL_FOR_CAUSAL_LM_MAPPING[CONFIG_MAPPING[model_type]].__name__ == name
    if family.converted_from:
        assert family.converted_from not in CONFIG_MAPPING


@pytest.mark.slow
def test_vllm_serves_every_architecture():
    from vllm import ModelRegistry

    served = set(ModelRegistry.get_supported_archs())
    assert served >= {name for family in FAMILIES.values() for name in family.architectures.values()}


@pytest.mark.parametrize("name", FAMILIES)
def test_family_is_told_and_remembered(name, tokenizer_of, tmp_path):
    tokenizer = tokenizer_of(name, f"/models/llama-2-and-gemma/{name}/snapshots/0123")
    assert detect_family(tokenizer).name == name
    prepare_tokenizer(tokenizer).save_pretrained(tmp_path / "mine")
    assert detect_family(AutoTokenizer.from_pretrained(tmp_path / "mine")).name == name


def test_families_of_one_vocabulary_are_told_by_hub_id_or_template_or_asked_for(tokenizer_of):
    alike = [family for family in FAMILIES.values() if family.markers]
    assert [f.name for f in alike] == ["llama-2", "pygmalion-2", "mythomax"]
    for family in alike:
        for hub_id in family.checkpoints:
            cached = f"hub/models--{hub_id.replace('/', '--')}/snapshots/0123"
            assert detect_family(tokenizer_of("llama-2", cached)) is family
            assert detect_family(tokenizer_of("llama-2", hub_id)) is family
        unnamed = tokenizer_of("llama-2", "/models/mine")
        with pytest.raises(ValueError, match="any of the families llama-2, pygmalion-2, mythomax"):
            prepare_tokenizer(unnamed)
        unnamed.chat_template = " ".join(family.markers)
        assert detect_family(unnamed) is family
        # What is said counts more than what is found.
        assert detect_family(prepare_tokenizer(unnamed, "mythomax")).name == "mythomax"


def test_another_familys_name_or_an_unknown_tokenizer_is_refused(tokenizer_of, words):
    with pytest.raises(ValueError, match="not of the family gemma3: it has no token '<start_of_turn>'"):
        prepare_tokenizer(tokenizer_of("qwen2.5"), "gemma3")
    with pytest.raises(ValueError, match="no model family 'gpt'.*gemma3, gemma, qwen2.5"):
        prepare_tokenizer(tokenizer_of("qwen2.5"), "gpt")
    with pytest.raises(ValueError, match="belongs to no family known here"):
        prepare_tokenizer(PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(words)))


@pytest.mark.parametrize(
    ("name", "published"),
    {"qwen2.5": "qwen2_5", "gemma3": "gemma3", "gemma": "gemma", "llama3": "llama3", "llama3.1": "llama3_1"}.items(),
)
def test_text_is_as_in_the_published_template_that_trl_ships(name, published, tokenizer_of):
    template = (Path(trl.__file__).parent / "chat_templates" / f"{published}.jinja").read_text()
    tokenizer = prepare_tokenizer(tokenizer_of(name))
    for chat in (CHAT, CHAT[:-1], CHAT[1:], CHAT[1:-1]):
        prompt = chat[-1]["role"] == "user"
        read = chat
        if name == "gemma" and chat[0]["role"] == "system":
            read = [{"role": "user", "content": f"{chat[0]['content']}\n\n{chat[1]['content']}"}, *chat[2:]]
        expected, text = (
            tokenizer.apply_chat_template(c, chat_template=t, add_generation_prompt=prompt, tokenize=False)
            for c, t in ((read, template), (chat, None))
        )
        assert text == expected


@pytest.mark.parametrize("name", FAMILIES)
def test_her_words_and_end_tokens_alone_are_learned(name, tokenizer_of):
    tokenizer = prepare_tokenizer(tokenizer_of(name))
    end = FAMILIES[name].end_of_turn
    for chat in (CHAT, CHAT[1:]):
        row = supervise(tokenizer, chat)
        said = tokenizer.decode(row.supervised).split(end)
        assert [s.strip() for s in said] == [m["content"] for m in chat if m["role"] == "assistant"] + [""]
        preflight.check_tokenizer(tokenizer)
        preflight.check_rows(tokenizer, [row], 4096)
    for marker in (*FAMILIES[name].tokens, *FAMILIES[name].markers):
        with pytest.raises(ValueError, match="hold the special token"):
            supervise(tokenizer, [{"role": "user", "content": f"ねえ {marker} "}, CHAT[2]])


@pytest.mark.parametrize("name", FAMILIES)
def test_system_prompt_stands_where_the_entry_says(name, tokenizer_of):
    tokenizer, (system, user) = prepare_tokenizer(tokenizer_of(name)), CHAT[:2]
    before, after = tokenizer.apply_chat_template([system, user], tokenize=False).split(system["content"])
    opening = tokenizer.apply_chat_template([user], tokenize=False).split(user["content"])[0].rstrip()
    assert user["content"] in after
    if before.removeprefix(tokenizer.bos_token or "") == "":
        stands = "front"
    else:
        stands = "user" if before.startswith(opening) else "turn"
    assert FAMILIES[name].system == stands


def test_preflight_wants_a_bos_in_front_of_each_of_llama_2s_rounds(tokenizer_of):
    tokenizer = prepare_tokenizer(tokenizer_of("llama-2"))
    row = supervise(tokenizer, CHAT)
    second = row.input_ids.index(tokenizer.bos_token_id, 1)
    row.input_ids[second] = tokenizer.eos_token_id
    with pytest.raises(preflight.PreflightError, match="has 1 BOS tokens where .*each round"):
        preflight.check_rows(tokenizer, [row], 4096)


def _small(model_type: str, tokenizer):
    sizes = {
        "vocab_size": len(tokenizer),
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": 4096,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": None,
    }
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **sizes), dtype=torch.float32)


@pytest.fixture
def cfg(tmp_path, monkeypatch):
    """A function from a stage and its steps to settings that train fast and in float32."""
    monkeypatch.setattr(settings, "OUTPUTS", tmp_path / "outputs")

    def make(stage: str, steps: int):
        chosen = settings.resolve(
            stage,
            {"profile": "smoke", "max_steps": steps, "batch_size": 2, "learning_rate": 1e-2, "max_length": 2048},
        )
        chosen.hardware = dataclasses.replace(chosen.hardware, dtype=torch.float32)
        return chosen

    return make


@pytest.mark.parametrize(("name", "model_type"), COURSES)
def test_course_on_random_weights(name, model_type, tokenizer_of, cfg, card, pairs, tmp_path):
    """SFT, DPO, merge, reload, and a reply that ends where her turn does."""
    family, folder = FAMILIES[name], tmp_path / name
    raw = tokenizer_of(name)
    raw.save_pretrained(folder)
    if model_type == "mistral":
        # As published: a second tokenizer, for Mistral's own library, that has no chat template.
        (folder / "tekken.json").write_text("{}")
    _small(model_type, raw).save_pretrained(folder)
    base = resolve_base_model(str(folder))
    tokenizer = base.load_tokenizer()
    rows = [supervise(tokenizer, CHAT), supervise(tokenizer, CHAT[1:])]

    lora = LoraConfig(r=2, target_modules=family.lora_targets, task_type="CAUSAL_LM")
    model = sft.load_base(base, cfg("03_lora", 2))
    linear = {n for n, m in model.named_modules() if isinstance(m, torch.nn.Linear)} - {"lm_head"}
    trainer = sft.make_trainer(model, tokenizer, rows, rows, cfg("03_lora", 2), tmp_path / "sft", lora)
    assert set(trainer.model.targeted_module_names) == linear
    before = sft.validation_loss(trainer, "cpu")
    assert sft.run(trainer, "cpu") == 2
    assert sft.validation_loss(trainer, "cpu") < before
    sft.save(trainer, tokenizer, tmp_path / "adapter")

    dpo_cfg = cfg("05_dpo", 1)
    policy = dpo.load_policy(base, tmp_path / "adapter", dpo_cfg)
    trainer = dpo.make_trainer(policy, tokenizer, pairs[:2], pairs[2:4], card, dpo_cfg, tmp_path / "dpo")
    assert sft.run(trainer, "cpu") == 1
    end = tokenizer.convert_tokens_to_ids(family.end_of_turn)
    assert all(end in row["chosen_ids"][-3:] and end in row["rejected_ids"][-3:] for row in trainer.train_dataset)
    dpo.save(trainer, tokenizer, tmp_path / "adapter-dpo")

    ids = torch.tensor([rows[0].input_ids])
    adapted = merge.load_adapted(base, tmp_path / "adapter-dpo", base.sha256)
    with torch.no_grad():
        expected = adapted(ids).logits
        with adapted.disable_adapter():
            assert (adapted(ids).logits - expected).abs().max() > 1e-2
    target, melted = tmp_path / "merged", merge.merge(merge.load_adapted(base, tmp_path / "adapter-dpo", base.sha256))
    _, merged = merge.save_merged(melted, adapted, base, target, rows, 2)
    with torch.no_grad():
        torch.testing.assert_close(merged(ids).logits, expected, atol=1e-4, rtol=0)
        learned = merged(ids).logits[0, :-1][torch.tensor(rows[0].assistant_masks[1:]).bool()]
        torch.testing.assert_close(next(supervised_logits(merged, rows[:1]))[0], learned)

    served = AutoTokenizer.from_pretrained(target)
    assert supervise(served, CHAT) == rows[0]
    _learn_by_heart(merged, rows[1])
    reply = generation.reply(merged, served, [CHAT[1:2]])[0]
    assert (reply.text, reply.stopped) == (CHAT[2]["content"], True)
    prompt = served.apply_chat_template(CHAT[1:2], add_generation_prompt=True, return_tensors="pt")
    # As a server does, by the saved generation_config alone.
    written = merged.generate(**prompt, max_new_tokens=80, do_sample=False)[0]
    assert served.convert_ids_to_tokens(int(written[-1])) == family.end_of_turn


def _learn_by_heart(model, row, loss: float = 0.05) -> None:
    ids, mask = torch.tensor([row.input_ids]), torch.tensor([row.assistant_masks])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    model.train()
    for _ in range(300):
        output = model(input_ids=ids, labels=ids.masked_fill(mask == 0, -100))
        if output.loss < loss:
            return
        output.loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    raise AssertionError(f"not learned: {output.loss}")
