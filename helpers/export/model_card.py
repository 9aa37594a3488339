"""An export's model card: what it is, from which base and data it was made, what was measured, and what it cannot do.

In: run records, the persona card, the export's figures. Out: the text of its README.md, in the Hub's form (YAML first).
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import yaml

from helpers.base_model import BaseModel
from helpers.licences import licence_files
from helpers.persona import PersonaCard
from helpers.settings import STAGES

LIMITS = (
    "She is a fictional character and an AI. **She is not a medical device**, no therapist, and no substitute for a "
    "person or for help in a crisis.",
    "What she says about the world may be wrong, at any size of model.",
    "She speaks Japanese; other languages were neither taught nor measured.",
    "Her figures come from dialogues by the writers of her training data; how natural she is, only people can say.",
    "What keeps people safe (crisis messages, age, disclosure) is in the program around her, not in these weights: a "
    "server that gives out the bare model has none of it.",
)
# Settings of the training stages that tell how she was trained.
_TRAINING = (
    "method",
    "lora_variant",
    "lora_r",
    "lora_alpha",
    "quantization",
    "preference_loss",
    "learning_rate",
    "epochs",
)


def model_card(
    name: str,
    made: str,
    record: Mapping[str, object],
    before: Sequence[Mapping[str, object]],
    base: BaseModel,
    card: PersonaCard,
    figures: Mapping[str, object],
) -> str:
    """The README's text.

    Args:
        name: of the export, such as "gptq".
        made: one sentence: how its weights were made.
        record: of the stage that exports (`records.Stage.record`).
        before: records of the finished stages that it builds on (`records.lineage`).
        figures: measured ones by name, or by name within a name.
    """
    head = {
        "language": ["ja"],
        "license": "other",
        "license_name": base.licence,
        "base_model": base.label,
        "pipeline_tag": "text-generation",
        "tags": ["companion", "role-play", name],
    }
    settings = record["settings"]
    conditions = (
        f"profile {settings['profile']}, {record['device']} in {record['dtype']}, seed {settings['seed']}, "
        + ", ".join(f"{package} {version}" for package, version in record["packages"].items())
    )
    read = {path: digest for stage in before for path, digest in stage["inputs"].items() if path not in STAGES}
    # Of a folder elsewhere on somebody's machine the name alone.
    data = {path if not Path(path).is_absolute() else Path(path).name: digest for path, digest in read.items()}
    steps = [
        f"- {stage['stage']}: " + ", ".join(f"{k} {stage['settings'][k]}" for k in _TRAINING if k in stage["settings"])
        for stage in before
        if "adapter" in stage["artifacts"]
    ]
    terms = ", ".join(f"`{file.name}`" for file in licence_files(base.path))
    beside = f" Its terms are beside this file: {terms}." if terms else ""
    return "\n".join(
        [
            f"---\n{yaml.safe_dump(head, allow_unicode=True, sort_keys=False)}---",
            f"# {card.name} · {name}",
            f"{card.name} ({card.reading}), {card.age}, {card.profession}: a companion for chats in Japanese. {made}",
            "",
            "## Base model and licence",
            f"`{base.label}`, content hash `{base.sha256}`. Licence: {base.licence}. It holds for these weights too."
            + beside,
            "",
            "## Data",
            "SHA-256 over names and contents of each file or folder that the stages read.",
            "",
            _table(("data", "SHA-256"), [(f"`{path}`", f"`{digest}`") for path, digest in sorted(data.items())]),
            "",
            "## Training",
            *steps,
            "",
            "## Figures",
            _table(("measured", "value"), list(_flat(figures))),
            "",
            f"On {datetime.now(UTC):%Y-%m-%d}, {conditions}. Perplexity is over her words in validation dialogues; the "
            "logits and replies of what was made from the merged model are compared with the merged model's.",
            "",
            "## Limits",
            *(f"- {limit}" for limit in LIMITS),
            "",
            "## Use",
            "The chat template and the stop tokens in this folder are those that she was trained with: keep them. The "
            "system prompt comes from her persona card; she was trained with it.",
            "",
        ]
    )


def _flat(figures: Mapping[str, object], before: str = "") -> Iterator[tuple[str, str]]:
    for name, value in figures.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{name}, ")
        else:
            yield f"{before}{name}".replace("_", " "), f"{value:.4g}" if isinstance(value, float) else str(value)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
