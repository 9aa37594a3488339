"""Where a training run stopped, and where it goes on.

In: a stage's settings and inputs. Out: a checkpoint folder that belongs to exactly this configuration and data, in
however many processes the run goes on.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from accelerate import load_checkpoint_in_model
from peft import PeftModel, set_peft_model_state_dict
from safetensors.torch import load_file
from transformers import PreTrainedModel

from helpers.files import sha256_json
from helpers.records import Stage
from helpers.train import ranks

# Settings of 03, 04 and 05 that change nothing in what their own trainer learns. A new parameter counts until it stands
# here.
WITHOUT_EFFECT = frozenset(
    (
        *("run_name", "base_model", "persona"),  # what they name is hashed by its content
        *("max_new_tokens", "on_out_of_memory", "launch", "processes"),
        # 03's stages and experts, which have keys of their own:
        *("general_dialogues", "user_dialogues", "stage_rows", "stage_learning_rate", "replay", "expert_rows"),
    )
)


def what_trains(values: Mapping[str, object]) -> dict[str, object]:
    """Of a stage's settings those on which trained weights depend.

    Of batch_size and gradient_accumulation only the product counts, as `rows_a_step`; save_steps only with `patience`,
    which measures the validation loss at each checkpoint.
    """
    kept = {name: value for name, value in values.items() if name not in WITHOUT_EFFECT}
    kept["rows_a_step"] = kept.pop("batch_size") * kept.pop("gradient_accumulation")
    if not kept["patience"]:
        del kept["save_steps"]
    return kept


def checkpoint_folder(stage: Stage) -> Path:
    """`<stage>/checkpoints/<hash of what trains, inputs, base and template>`: another configuration never resumes this
    one's steps. Of `launch` it counts whether the optimiser's state is sharded. Older configurations' checkpoints are
    deleted.
    """
    values = stage.settings.values
    sharded = values.get("launch", "none") in ranks.SHARDED
    key = sha256_json([what_trains(values), sharded, stage.inputs, stage.notes])[:16]
    folder = stage.folder / "checkpoints" / key
    with ranks.first_alone() as first:
        if first:
            for other in folder.parent.glob("*"):
                if other != folder:
                    shutil.rmtree(other)
            folder.mkdir(parents=True, exist_ok=True)
    return folder


def last_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint that was written to its end; half-written ones are deleted.

    transformers writes `trainer_state.json` last; killed while it did, it leaves an empty or a broken one.
    """
    with ranks.first_alone() as first:
        if first:
            for checkpoint in folder.glob("checkpoint-*"):
                if _state(checkpoint) is None:
                    shutil.rmtree(checkpoint)
    return max(folder.glob("checkpoint-*"), key=lambda c: int(c.name.split("-")[1]), default=None)


def _state(checkpoint: Path) -> dict | None:
    try:
        return json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None


def is_finished(checkpoint: Path) -> bool:
    """Whether the run ended at `checkpoint`: at its last step, or because its validation loss no longer fell."""
    state = _state(checkpoint)
    if state["global_step"] >= state["max_steps"]:
        return True
    stopping = state["stateful_callbacks"].get("EarlyStoppingCallback")
    if not stopping:
        return False
    return stopping["attributes"]["early_stopping_patience_counter"] >= stopping["args"]["early_stopping_patience"]


def restore(model: PreTrainedModel | PeftModel, checkpoint: Path) -> None:
    """Put what was trained up to `checkpoint` into `model`: its adapter, or all its weights.

    transformers 5.19 does so itself, unless the checkpoint also holds an adapter in a subfolder, as DPO's frozen
    reference is: then it loads that one alone, and a resumed run would silently begin from the SFT companion again.
    """
    if isinstance(model, PeftModel):
        weights = load_file(checkpoint / "adapter_model.safetensors")
        set_peft_model_state_dict(model, weights, adapter_name="default")
    else:
        load_checkpoint_in_model(model, str(checkpoint))
