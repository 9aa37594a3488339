"""Model families: what differs from one to the next when a companion is trained and served.

In: a tokenizer. Out: its `Family`, and a tokenizer whose chat template marks what the companion says. Adding a family
is adding one entry to `FAMILIES` and its template to `templates/`, in Jinja and in Ollama's language. 04's table of
what fits which card has those of its checkpoints that have a row in `helpers/train/shapes.py` too.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tokenizers import AddedToken, decoders, pre_tokenizers
from transformers import AutoTokenizer, LlamaTokenizer, PreTrainedTokenizerBase

TEMPLATES = Path(__file__).parent / "templates"
# Where `prepare_tokenizer` notes the family, in tokenizer_config.json.
REMEMBERED = "companion_family"

_LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
_LLAMA = {"llama": "LlamaForCausalLM"}
_MISTRAL = {"mistral": "MistralForCausalLM"}
_LLAMA_2_LICENCE = "Llama 2 Community License"


@dataclass(frozen=True)
class Family:
    """One family's conventions.

    Attributes:
        checkpoints: recommended hub ids, each with its parameters in billions.
        licence: of these checkpoints.
        languages: that their makers say they are for, out of the model cards and reports.
        architectures: transformers' model_type, and the class it stands for, under which vLLM serves it too.
        template: file in `templates/`: the published chat format, with generation markers around what is learned.
            Beside it, with the ending .gotmpl, stands the same in Ollama's template language.
        tokens: the tokens that chats are made of. A tokenizer that has them all is of this family, unless another
            family names more of its tokens.
        end_of_turn: the token that closes the companion's turn; must be supervised and be a stop token.
        pad: a padding token that is not the end of turn.
        system: where the system prompt stands: in a turn of its own, in front of the first user's words, or, with no
            marker, in front of the first turn.
        markers: strings that chats are made of and that are no tokens.
        converted_from: model_type as published, if `helpers.conversion` has to rewrite the checkpoint for its class.
        lora_targets: names of the linear modules that an adapter changes, all of them but the head.
        bos_every_round: whether each user's turn begins with the BOS token, and not the first alone.
        leading_space: whether the tokenizer puts a space in front of a text, if it is a LlamaTokenizer.
    """

    name: str
    checkpoints: dict[str, float]
    licence: str
    languages: str
    architectures: dict[str, str]
    template: str
    tokens: tuple[str, ...]
    end_of_turn: str
    pad: str
    system: Literal["turn", "user", "front"]
    markers: tuple[str, ...] = ()
    converted_from: str | None = None
    lora_targets: tuple[str, ...] = _LINEAR
    bos_every_round: bool = False
    leading_space: bool = True


FAMILIES = {
    family.name: family
    for family in (
        Family(
            "gemma3",
            {"google/gemma-3-270m-it": 0.27, "google/gemma-3-1b-it": 1.0},
            "Gemma Terms of Use",
            "more than 140",
            {"gemma3_text": "Gemma3ForCausalLM"},
            "gemma3.jinja",
            tokens=("<start_of_turn>", "<end_of_turn>", "<end_of_image>"),
            end_of_turn="<end_of_turn>",
            pad="<pad>",
            system="user",
        ),
        # Gemma 1 and 2. Their published template refuses a system prompt; Gemma 3's is the same and says where to.
        Family(
            "gemma",
            {
                "google/gemma-2b-it": 2.5,
                "google/gemma-7b-it": 8.5,
                "google/gemma-2-2b-it": 2.6,
                "google/gemma-2-9b-it": 9.2,
            },
            "Gemma Terms of Use",
            "English",
            {"gemma": "GemmaForCausalLM", "gemma2": "Gemma2ForCausalLM"},
            "gemma3.jinja",
            tokens=("<start_of_turn>", "<end_of_turn>"),
            end_of_turn="<end_of_turn>",
            pad="<pad>",
            system="user",
        ),
        Family(
            "qwen2.5",
            {
                "Qwen/Qwen2.5-0.5B-Instruct": 0.5,
                "Qwen/Qwen2.5-1.5B-Instruct": 1.5,
                "Qwen/Qwen2.5-7B-Instruct": 7.6,
                "Qwen/Qwen2.5-14B-Instruct": 14.8,
            },
            "Apache-2.0",
            "more than 29, Japanese among them",
            {"qwen2": "Qwen2ForCausalLM"},
            "qwen2.5.jinja",
            tokens=("<|im_start|>", "<|im_end|>", "<|endoftext|>"),
            end_of_turn="<|im_end|>",
            pad="<|endoftext|>",
            system="turn",
        ),
        # Its sentencepiece model puts no space in front of a text (Yi, arXiv:2403.04652, section 2).
        Family(
            "yi-1.5",
            {"01-ai/Yi-1.5-6B-Chat": 6.1, "01-ai/Yi-1.5-9B-Chat": 8.8, "01-ai/Yi-1.5-34B-Chat": 34.4},
            "Apache-2.0",
            "Chinese, English",
            _LLAMA,
            "yi-1.5.jinja",
            tokens=("<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|startoftext|>"),
            end_of_turn="<|im_end|>",
            pad="<unk>",
            system="front",
            leading_space=False,
        ),
        # ChatGLM3 ends a reply by naming the next role: where the user's turn begins, hers is over.
        Family(
            "chatglm3",
            {"THUDM/chatglm3-6b": 6.2},
            "ChatGLM3-6B License (commercial use after registration)",
            "Chinese, English",
            {"glm": "GlmForCausalLM"},
            "chatglm3.jinja",
            tokens=("[gMASK]", "sop", "<|system|>", "<|user|>", "<|assistant|>"),
            end_of_turn="<|user|>",
            pad="<unk>",
            system="turn",
            converted_from="chatglm",
            lora_targets=("q_proj", "k_proj", "v_proj", "o_proj", "gate_up_proj", "down_proj"),
        ),
        # The published model closes a reply with </s>, but never reads one: in a talk the next user's token follows
        # her last word. Learning that token as the end keeps the published text; </s> still stops her too.
        Family(
            "baichuan2",
            {"baichuan-inc/Baichuan2-7B-Chat": 7.5},
            "Baichuan 2 Community License",
            "several, Japanese not named",
            _LLAMA,
            "baichuan2.jinja",
            tokens=("</s>", "<reserved_106>", "<reserved_107>"),
            end_of_turn="<reserved_106>",
            pad="<unk>",
            system="front",
            converted_from="baichuan",
        ),
        Family(
            "llama3",
            {"meta-llama/Meta-Llama-3-8B-Instruct": 8.0, "meta-llama/Meta-Llama-3-70B-Instruct": 70.6},
            "Llama 3 Community License",
            "English",
            _LLAMA,
            "llama3.jinja",
            tokens=("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|reserved_special_token_250|>"),
            end_of_turn="<|eot_id|>",
            pad="<|reserved_special_token_250|>",
            system="turn",
        ),
        Family(
            "llama3.1",
            {"meta-llama/Llama-3.1-8B-Instruct": 8.0, "meta-llama/Llama-3.1-70B-Instruct": 70.6},
            "Llama 3.1 Community License",
            "eight, Japanese not among them",
            _LLAMA,
            "llama3.1.jinja",
            tokens=("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|finetune_right_pad_id|>"),
            end_of_turn="<|eot_id|>",
            pad="<|finetune_right_pad_id|>",
            system="turn",
        ),
        # Mistral's published templates put the system prompt in front of the last user's words. It would wander through
        # a talk, all replies but the last would be learned without it, and no prefix could be cached: as in Mistral's
        # own earlier versions it stands in front of the first.
        Family(
            "mistral-v0.3",
            {"mistralai/Mistral-7B-Instruct-v0.3": 7.2},
            "Apache-2.0",
            "none is named",
            _MISTRAL,
            "mistral-v0.3.jinja",
            tokens=("[INST]", "[/INST]", "[control_8]"),
            end_of_turn="</s>",
            pad="<unk>",
            system="user",
        ),
        Family(
            "mistral-nemo",
            {"mistralai/Mistral-Nemo-Instruct-2407": 12.2},
            "Apache-2.0",
            "eleven, Japanese among them",
            _MISTRAL,
            "mistral-nemo.jinja",
            tokens=("[INST]", "[/INST]", "<pad>"),
            end_of_turn="</s>",
            pad="<pad>",
            system="user",
        ),
        Family(
            "llama-2",
            {"meta-llama/Llama-2-7b-chat-hf": 6.7, "meta-llama/Llama-2-13b-chat-hf": 13.0},
            _LLAMA_2_LICENCE,
            "English",
            _LLAMA,
            "llama-2.jinja",
            tokens=("<s>", "</s>"),
            end_of_turn="</s>",
            pad="<unk>",
            system="user",
            markers=("[INST]", "[/INST]", "<<SYS>>", "<</SYS>>"),
            bos_every_round=True,
        ),
        # Its role markers are plain text, and the vocabulary has tokens such as `>(`: a reply that begins with an ASCII
        # bracket or quotation mark shares its first token with the marker before it.
        Family(
            "pygmalion-2",
            {"PygmalionAI/pygmalion-2-7b": 6.7, "PygmalionAI/pygmalion-2-13b": 13.0},
            _LLAMA_2_LICENCE,
            "English",
            _LLAMA,
            "pygmalion-2.jinja",
            tokens=("<s>", "</s>"),
            end_of_turn="</s>",
            pad="<unk>",
            system="turn",
            markers=("<|system|>", "<|user|>", "<|model|>"),
        ),
        Family(
            "mythomax",
            {"Gryphe/MythoMax-L2-13b": 13.0},
            _LLAMA_2_LICENCE,
            "English",
            _LLAMA,
            "mythomax.jinja",
            tokens=("<s>", "</s>"),
            end_of_turn="</s>",
            pad="<unk>",
            system="front",
            markers=("### Instruction:", "### Response:"),
        ),
    )
}


def detect_family(tokenizer: PreTrainedTokenizerBase) -> Family:
    """The family that the tokenizer remembers (see `prepare_tokenizer`), else the one that its vocabulary shows. Where
    several share a vocabulary, the name of its folder or hub id decides, else its published chat template.

    Raises:
        ValueError: none fits, or several do; the message lists them.
    """
    if name := tokenizer.init_kwargs.get(REMEMBERED):
        return _by_name(name)
    known = [family for family in FAMILIES.values() if not _missing(tokenizer, family.tokens)]
    most = max((len(family.tokens) for family in known), default=0)
    alike = [family for family in known if len(family.tokens) == most]
    if not alike:
        raise ValueError(
            f"The tokenizer {tokenizer.name_or_path!r} belongs to no family known here "
            f"({', '.join(FAMILIES)}): add an entry to helpers/families.py."
        )
    if found := _only(alike) or _named(alike, tokenizer.name_or_path) or _templated(alike, tokenizer.chat_template):
        return found
    names = ", ".join(family.name for family in alike)
    raise ValueError(
        f"The tokenizer {tokenizer.name_or_path!r} may be of any of the families {names}, which share one vocabulary: "
        "give the folder a name that holds the family's, or save the tokenizer once after "
        "prepare_tokenizer(tokenizer, family=…)."
    )


def prepare_tokenizer(tokenizer: PreTrainedTokenizerBase, family: str | None = None) -> PreTrainedTokenizerBase:
    """Give `tokenizer` its family's pad token and a chat template with generation markers, in place. It remembers the
    family, and goes on doing so when it is saved and loaded.

    Args:
        family: a name in `FAMILIES`; None asks `detect_family`.

    Raises:
        ValueError: unknown family, or one that lacks its tokens in the tokenizer's vocabulary.
    """
    chosen = detect_family(tokenizer) if family is None else _by_name(family)
    if missing := _missing(tokenizer, (*chosen.tokens, chosen.end_of_turn)):
        raise ValueError(
            f"The tokenizer {tokenizer.name_or_path!r} is not of the family {chosen.name}: it has no token "
            f"{missing[0]!r}."
        )
    _make_single_ids(tokenizer, chosen.tokens)
    tokenizer.pad_token = chosen.pad
    tokenizer.chat_template = (TEMPLATES / chosen.template).read_text(encoding="utf-8")
    if isinstance(tokenizer, LlamaTokenizer):
        _keep_spacing(tokenizer, chosen.leading_space)
    tokenizer.init_kwargs[REMEMBERED] = chosen.name
    return tokenizer


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer in `folder`, prepared. Mistral's checkpoints hold a second one for Mistral's own library, which
    transformers would take first; it has no chat template.

    Raises:
        ValueError: its family cannot be told.
    """
    return prepare_tokenizer(AutoTokenizer.from_pretrained(folder, mistral_format=False))


def stop_token_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Ids that end generation: the end of turn, and the tokenizer's own end of sequence."""
    end_of_turn = tokenizer.convert_tokens_to_ids(detect_family(tokenizer).end_of_turn)
    return sorted({end_of_turn, tokenizer.eos_token_id} - {None})


def _by_name(name: str) -> Family:
    if name not in FAMILIES:
        raise ValueError(f"There is no model family {name!r}: name one of {', '.join(FAMILIES)}.")
    return FAMILIES[name]


def _missing(tokenizer: PreTrainedTokenizerBase, tokens: Iterable[str]) -> list[str]:
    absent = (None, tokenizer.unk_token_id)
    return [t for t in tokens if tokenizer.convert_tokens_to_ids(t) in absent and t != tokenizer.unk_token]


def _only(families: list[Family]) -> Family | None:
    return families[0] if len(families) == 1 else None


def _named(families: list[Family], path: str) -> Family | None:
    """The one whose name the path holds, as near to its end as any is."""
    for part in reversed(Path(path).parts):
        holds = [f for f in families if _letters(f.name) in _letters(part)]
        if holds:
            return _only(holds)
    return None


def _letters(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _templated(families: list[Family], template: str | None) -> Family | None:
    return _only([f for f in families if template and f.markers and all(m in template for m in f.markers)])


def _make_single_ids(tokenizer: PreTrainedTokenizerBase, tokens: Iterable[str]) -> None:
    """Some published tokenizers have these in their vocabulary, but would read them as plain text, in pieces."""
    added = {token.content for token in tokenizer.added_tokens_decoder.values()}
    tokenizer.add_tokens(
        [AddedToken(t, normalized=False, special=True) for t in tokens if t not in added], special_tokens=True
    )


def _keep_spacing(tokenizer: LlamaTokenizer, leading_space: bool) -> None:
    """transformers 5 forgets `legacy` on saving, and with it the space that follows each special token; it puts spaces
    also where the published tokenizer has none."""
    tokenizer.init_kwargs["legacy"] = tokenizer.legacy
    if leading_space:
        return
    tokenizer.add_prefix_space = tokenizer.init_kwargs["add_prefix_space"] = False
    backend = tokenizer.backend_tokenizer
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never", split=False)
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
