"""Where a training run stopped, and where it goes on.

In: a stage's settings and inputs. Out: a checkpoint folder that belongs to exactly this configuration and data.
"""

import shutil
from pathlib import Path

from peft import PeftModel, set_peft_model_state_dict
from safetensors.torch import load_file

from helpers.files import sha256_json
from helpers.records import Stage


def checkpoint_folder(stage: Stage) -> Path:
    """`<stage>/checkpoints/<hash of settings, inputs, base and template>`: another configuration never resumes this
    one's steps.

    Older configurations' checkpoints are deleted.
    """
    key = sha256_json([stage.settings.values, stage.inputs, stage.notes])[:16]
    folder = stage.folder / "checkpoints" / key
    for other in folder.parent.glob("*"):
        if other != folder:
            shutil.rmtree(other)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def last_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint that was written to its end; half-written ones are deleted.

    transformers writes `trainer_state.json` last.
    """
    whole = []
    for checkpoint in folder.glob("checkpoint-*"):
        if (checkpoint / "trainer_state.json").exists():
            whole.append(checkpoint)
        else:
            shutil.rmtree(checkpoint)
    return max(whole, key=lambda c: int(c.name.split("-")[1]), default=None)


def restore_adapter(model: PeftModel, checkpoint: Path) -> None:
    """Put the checkpoint's trained adapter into `model`.

    transformers 5.19 does so itself, unless the checkpoint also holds an adapter in a subfolder, as DPO's frozen
    reference is: then it loads that one alone, and a resumed run would silently begin from the SFT companion again.
    """
    set_peft_model_state_dict(model, load_file(checkpoint / "adapter_model.safetensors"), adapter_name="default")
