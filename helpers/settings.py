"""The one dial of size: profiles, and the settings of a notebook made from its parameters.

In: a notebook's `parameters` cell, the machine. Out: `Settings`, in which every value that the cell left at None has
the profile's value, and the reasons for profile, dtype and attention.
"""

import ast
import difflib
import os
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import torch
import yaml

ROOT = Path(__file__).parent.parent
OUTPUTS = Path(os.environ.get("COMPANION_OUTPUTS", ROOT / "outputs"))

STAGES = (
    "01_data",
    "02_augment",
    "03_lora",
    "04_qlora",
    "05_dpo",
    "06_merge_quantize",
    "07_serve_vllm",
    "08_evaluate",
)

# What each parameter is worth at (smoke, cpu, gpu). A parameter of a stage that is not here does not exist.
COMMON = {
    "run_name": ("smoke", "sakura", "sakura"),
    "base_model": ("tiny", "embedded", "Qwen/Qwen2.5-7B-Instruct"),
    "persona": ("sakura", "sakura", "sakura"),
    "seed": (42, 42, 42),
}
_LORA = {
    "lora_variant": ("lora", "lora", "lora"),
    "lora_r": (4, 16, 64),
    "lora_alpha": (8, 32, 128),
    "lora_dropout": (0.0, 0.0, 0.05),
    "optimizer": ("auto", "auto", "auto"),
    "patience": (2, 0, 3),
    "on_out_of_memory": ("stop", "stop", "stop"),
    "packing": (False, False, False),
    "max_length": (1024, 1024, 2048),
    "batch_size": (4, 4, 4),
    "gradient_accumulation": (1, 1, 4),
}
_SERVER = {
    "port": (8000, 8000, 8000),
    "tensor_parallel": (1, 1, 1),
    "data_parallel": (1, 1, 1),
    "max_model_len": (1024, 2048, 4096),
    "startup_timeout": (600, 600, 1200),
}
_LAUNCH = {"launch": ("none",) * 3, "processes": (1, 1, 1)}
PARAMETERS: dict[str, dict[str, tuple]] = {
    "01_data": {
        "dialogues": ("data/dialogues/{persona}",) * 3,
        "chats": (None, None, None),
        "companion": (None, None, None),
        "generate": (0, 0, 0),
        "situations": ("data/generation/situations.yaml",) * 3,
        "endpoint": ("own", "own", "own"),
        "endpoint_model": (None, None, None),
        # What our own server takes: --max-num-seqs on a CPU, vLLM's default on a GPU of 70 GiB or more.
        "concurrency": (48, 48, 1024),
        "token_budget": (None, None, None),
        "judge_minimum": (3, 3, 3),
        "corpus": (None, None, None),
        "max_raw_chats": (60, None, None),
        "labelled": ("data/anonymisation/test.jsonl",) * 3,
        "unseen": ("data/anonymisation/unseen.jsonl",) * 3,
        "reviews": ("data/reviews/raw_chats.yaml",) * 3,
        "scenarios": ("data/scenarios/{persona}",) * 3,
        "min_dialogues": (50, 50, 50),
        "validation_share": (0.1, 0.1, 0.1),
        "test_share": (0.1, 0.1, 0.1),
    },
    "02_augment": {
        "counterfactuals": ("data/counterfactuals/{persona}",) * 3,
        "paraphrase_share": (0.3, 0.3, 0.3),
    },
    "03_lora": _LORA
    | _LAUNCH
    | {
        "method": ("lora", "lora", "lora"),
        "max_rows": (None, 440, None),
        "learning_rate": (1e-3, 1e-3, 2e-4),
        "epochs": (1, 1, 3),
        "max_steps": (4, -1, -1),
        "save_steps": (2, 20, 10),
        "max_new_tokens": (8, 60, 120),
        "general_dialogues": ("data/dialogues",) * 3,
        "user_dialogues": ("data/users/{persona}",) * 3,
        "stage_rows": (4, 12, None),
        # Of stages and experts, and on line: they go on from what is learned, on few dialogues.
        "stage_learning_rate": (1e-3, 3e-4, 1e-4),
        "replay": (0.34, 0.34, 0.2),
        "expert_rows": (4, 12, None),
    },
    "04_qlora": _LORA
    | _LAUNCH
    | {
        "quantization": ("nf4", "nf4", "nf4"),
        "learning_rate": (1e-3, 3e-4, 2e-4),
        "epochs": (1, 1, 3),
        "max_steps": (2, 8, -1),
        "save_steps": (2, 4, 10),
        "max_new_tokens": (8, 40, 120),
    },
    "05_dpo": _LAUNCH
    | {
        "preferences": ("data/preferences/{persona}",) * 3,
        "max_pairs": (24, 80, None),
        "counterfactuals": ("data/counterfactuals/{persona}",) * 3,
        "length_pairs": (4, 0, 0),
        "preference_loss": ("dpo", "dpo", "dpo"),
        "beta": (None, None, None),
        "reference": ("cached", "cached", "cached"),
        "sft_weight": (1.0, 1.0, 0.2),
        "learning_rate": (1e-3, 2e-5, 5e-6),
        "epochs": (1, 1, 2),
        "max_steps": (3, -1, -1),
        "save_steps": (2, 5, 3),
        "patience": (2, 0, 3),
        "on_out_of_memory": ("stop", "stop", "stop"),
        "batch_size": (2, 4, 4),
        "gradient_accumulation": (1, 1, 4),
        "max_length": (1024, 1024, 2048),
        "max_new_tokens": (8, 60, 120),
    },
    "06_merge_quantize": {
        "calibration_rows": (8, 16, 256),
        "perplexity_rows": (4, 12, 200),
        "parity_rows": (2, 2, 8),
        "prompts": (2, 6, 32),
        "max_new_tokens": (4, 24, 60),
        "talk_tokens": (1024, 3072, 7168),
        "schemes": (("gptq", "awq"), ("gptq", "awq"), ("gptq", "awq", "gptq-8bit", "w8a8")),
        # llama.cpp cannot run the tiny model: its Gemma 3 has every sixth layer full, and so at least six.
        "gguf": ((), ("f16", "q8_0"), ("f16", "q8_0", "q4_K_M")),
        "adapter": ("05_dpo",) * 3,
    },
    "07_serve_vllm": _SERVER | {"max_tokens": (8, 80, 200), "router_talks": (12, 60, None)},
    "08_evaluate": _SERVER
    | {
        "arms": (
            ("base_bare", "base_persona", "lora", "dpo", "routed"),
            ("base_bare", "base_persona", "lora", "dpo", "awq", "routed"),
            ("base_bare", "base_persona", "lora", "qlora", "full", "dpo", "merged", "gptq", "awq", "routed", "served"),
        ),
        "full_run": (None, None, None),
        "scenarios": ("data/scenarios/{persona}",) * 3,
        "dialogues": ("data/dialogues/{persona}",) * 3,
        "preferences": ("data/preferences/{persona}",) * 3,
        "counterfactuals": ("data/counterfactuals/{persona}",) * 3,
        "contrast": ("data/contrast",) * 3,
        "fluency_model": (None, None, "base"),
        "emotion_model": (None, None, None),
        "max_scenarios": (4, 60, None),
        "samples": (1, 1, 4),
        "user_endpoint": (None, None, None),
        "user_model": (None, None, None),
        "rated_scenarios": (2, 10, 20),
        "judge_endpoint": (None, None, "own"),
        "judge_model": (None, None, None),
        "max_tokens": (8, 80, 160),
        "temperature": (0.7, 0.7, 0.7),
        "bootstrap_draws": (200, 5000, 10000),
        # Of each kind; on a CPU it takes minutes, and is left out.
        "canaries": (1, 0, 2),
        "canary_alternatives": (7, 63, 255),
    },
}
# What method="full" takes instead: at an adapter's learning rate all weights of a 7B would be undone, and a checkpoint
# of them takes 30 GB.
ALL_WEIGHTS = {"learning_rate": (1e-3, 1e-3, 1e-5), "save_steps": (2, 20, 50)}
PROFILES = ("smoke", "cpu", "gpu")
CHOICES = {
    "method": ("lora", "full"),
    "lora_variant": ("lora", "rslora", "dora"),
    "optimizer": ("auto", "adamw", "paged_8bit", "stochastic_8bit"),
    "quantization": ("nf4", "int8"),
    "on_out_of_memory": ("stop", "retry"),
    "preference_loss": ("dpo", "smoothed", "length_normalised", "length_desensitised"),
    "reference": ("cached", "adapter"),
    "adapter": ("03_lora", "04_qlora", "05_dpo"),
    "launch": ("none", "ddp", "fsdp2", "zero2", "zero3"),
}


# Of the parameters that have no value in any profile these take a number, the others text.
_NUMBERS = ("token_budget", "beta")


class UnknownParameter(ValueError):
    """A parameter that no stage, or not this one, declares."""


class BadValue(ValueError):
    """A parameter's value is not one that it can take."""


@dataclass(frozen=True)
class Hardware:
    """What the machine offers and what follows from it, with the reason in a sentence."""

    device: str
    dtype: torch.dtype
    attention: str
    reason: str


_EAGER = "Attention is eager: on a CPU it trains faster than SDPA."


def detect_hardware() -> Hardware:
    """Device, dtype and attention for training, and why."""
    if not torch.cuda.is_available():
        chip = torch.cpu.get_capabilities()
        for feature in ("amx_bf16", "avx512_bf16"):
            if chip.get(feature):
                why = (
                    f"No CUDA GPU; the CPU multiplies bfloat16 natively ({feature}): bfloat16, trained weights float32."
                )
                return Hardware("cpu", torch.bfloat16, "eager", f"{why} {_EAGER}")
        why = "No CUDA GPU, and the CPU would emulate bfloat16: float32."
        return Hardware("cpu", torch.float32, "eager", f"{why} {_EAGER}")
    name = torch.cuda.get_device_name()
    if torch.cuda.is_bf16_supported(including_emulation=False):
        return Hardware(
            "cuda", torch.bfloat16, "sdpa", f"{name} computes in bfloat16; PyTorch's SDPA picks its flash kernel."
        )
    return Hardware(
        "cuda", torch.float32, "sdpa", f"{name} has no bfloat16: float32, because float16 overflows bf16 weights."
    )


def choose_profile(name: str = "auto") -> tuple[str, str]:
    """(profile, reason). "auto" takes what COMPANION_PROFILE says, else `gpu` where CUDA works, else `cpu`.

    Raises:
        UnknownParameter: no such profile.
    """
    if name == "auto" and "COMPANION_PROFILE" in os.environ:
        name = os.environ["COMPANION_PROFILE"]
    if name in PROFILES:
        return name, f"profile {name}, as asked"
    if name != "auto":
        raise UnknownParameter(f"There is no profile {name!r}: use auto, {', '.join(PROFILES)}.")
    if torch.cuda.is_available():
        return "gpu", f"profile gpu, because there is a {torch.cuda.get_device_name()}"
    return "cpu", f"profile cpu, because {no_gpu()} ({os.cpu_count()} CPU cores)"


def no_gpu() -> str:
    """Why there is no GPU to compute on, as a clause: there is none, or this PyTorch cannot use it."""
    try:
        there = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30).stdout
    except (OSError, subprocess.TimeoutExpired):
        there = ""
    if "GPU" not in there:
        return "there is no CUDA GPU"
    if torch.version.cuda is None:
        return f"torch {torch.__version__} is a build for CPUs: `make distclean` and `make course` take the GPU's"
    return (
        f"torch {torch.__version__} cannot use the NVIDIA GPU: its driver is too old for CUDA {torch.version.cuda}, or "
        "CUDA_VISIBLE_DEVICES hides it"
    )


def parameters_of(stage: str) -> dict[str, tuple]:
    """Every parameter that `stage` declares, besides `profile`, with its value at (smoke, cpu, gpu)."""
    return COMMON | PARAMETERS[stage]


def given_parameters(pairs: Iterable[str]) -> dict[str, object]:
    """Parameters from a command line's `-p name=value` words. The value of one that takes text stands for itself, in
    quotes or not (a run can be called 2026_11_30, 1e5 or true); `null` and nothing are None. Others are read as YAML.

    Raises:
        BadValue: a word without "=", or a value that is no YAML.
    """
    given = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise BadValue(f"-p takes name=value, not {pair!r}.")
        given[name] = _literal(name, value.strip())
    return given


def _literal(name: str, text: str) -> object:
    if _takes_text(name) and not text.startswith(('"', "'")):
        return None if text in ("", "null", "~") else text
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise BadValue(f"-p {name}={text} cannot be read: its quotes or brackets do not match.") from error
    if _takes_text(name):
        return value if isinstance(value, str) else text
    try:
        return float(value) if isinstance(value, str) else value  # YAML 1.1 takes 5e-4 for a word
    except ValueError:
        return value


def _takes_text(name: str) -> bool:
    values = [value for known in PARAMETERS.values() for value in (COMMON | known).get(name, ())]
    return name not in _NUMBERS and all(value is None or isinstance(value, str) for value in values)


def check_parameters(given: Mapping[str, object], known: Mapping[str, object] | set[str], where: str) -> None:
    """Raises UnknownParameter for the first name of `given` that `known` lacks, with the nearest known name."""
    for name in given:
        if name not in known and name != "profile":
            near = difflib.get_close_matches(name, list(known), n=1)
            hint = f" Did you mean {near[0]!r}?" if near else f" Known: {', '.join(sorted(known))}."
            raise UnknownParameter(f"{where} knows no parameter {name!r}.{hint}")


def persona_name(persona: object) -> str:
    """The name of the persona card that the parameter names, or whose file it leads to."""
    return Path(str(persona)).stem


class Settings(SimpleNamespace):
    """A stage's settings: an attribute for each parameter, and `stage`, `profile`, `reason`, `hardware`, `folder`,
    `run`."""

    def path(self, name: str) -> Path:
        """A path parameter. A relative one is taken from the project's top level, wherever the kernel runs; `{persona}`
        in it stands for the name of the persona card.
        """
        value = Path(str(getattr(self, name)).replace("{persona}", persona_name(self.persona))).expanduser()
        return value if value.is_absolute() else ROOT / value

    def is_default(self, *names: str) -> bool:
        """Whether these parameters have the profile's values. What a notebook claims of the course's own data need not
        hold of what somebody else gives it."""
        column = PROFILES.index(self.profile)
        return all(getattr(self, name) == parameters_of(self.stage)[name][column] for name in names)

    @property
    def values(self) -> dict[str, object]:
        """Parameter values alone, as they go into the run record."""
        return {k: getattr(self, k) for k in ("profile", *parameters_of(self.stage))}


def resolve(stage: str, notebook: Mapping[str, object]) -> Settings:
    """Settings of `stage` from the notebook's `globals()`.

    A parameter that is None there, or not there, has the profile's value. A name in papermill's injected cell that the
    stage does not declare is an error.

    Raises:
        UnknownParameter: unknown parameter or profile.
        BadValue: a value that its parameter cannot take.
    """
    known = parameters_of(stage)
    check_parameters(dict.fromkeys(_injected_names(notebook.get("In", []))), known, stage)
    profile, reason = choose_profile(notebook.get("profile") or "auto")
    column = PROFILES.index(profile)
    values = {}
    if "method" in known and notebook.get("method") == "full":
        known = known | ALL_WEIGHTS
    for name, defaults in known.items():
        value = notebook.get(name)
        values[name] = defaults[column] if value is None else _fitting(name, value, defaults[column])
    run = OUTPUTS / str(values["run_name"])
    return Settings(
        stage=stage, profile=profile, reason=reason, hardware=detect_hardware(), run=run, folder=run / stage, **values
    )


def _fitting(name: str, value: object, default: object) -> object:
    if isinstance(default, tuple) and isinstance(value, str):
        value = tuple(filter(None, value.split(",")))  # papermill's -p has no lists
    if name in CHOICES and value not in CHOICES[name]:
        raise BadValue(f"{name} is one of {', '.join(CHOICES[name])}, not {value!r}.")
    if isinstance(default, bool):
        if not isinstance(value, bool):
            raise BadValue(f"{name} is True or False, not {value!r}.")
    elif isinstance(default, int | float) and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise BadValue(f"{name} takes a number, not {value!r}.")
    return value


def _injected_names(history: list[str]) -> list[str]:
    """Names assigned in the cells that papermill injected (they begin with its comment `# Parameters`)."""
    names = []
    for source in history:
        if source.startswith("# Parameters\n"):
            for node in ast.parse(source).body:
                names += [t.id for t in getattr(node, "targets", []) if isinstance(t, ast.Name)]
    return names
