"""Supervised fine-tuning of the companion's own turns with TRL, by LoRA, QLoRA or all weights.

In: a base model, supervised rows, settings. Out: an `SFTTrainer` behind its preflight, run to its end or on from its
last checkpoint.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from datasets import Dataset
from peft import PeftConfig, PeftModel
from transformers import (
    AutoModelForCausalLM,
    BitsAndBytesConfig,
    EarlyStoppingCallback,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PrinterCallback,
    TrainerCallback,
    TrainerState,
    TrainingArguments,
)
from trl import SFTConfig, SFTTrainer

from helpers.base_model import BaseModel
from helpers.files import whole_folder
from helpers.quiet import hide_gptqmodel
from helpers.settings import Settings
from helpers.supervision import Row
from helpers.train import ranks
from helpers.train.allocator import keep_freed_memory
from helpers.train.checkpoints import is_finished, last_checkpoint, restore
from helpers.train.lm_head import direct_lm_head
from helpers.train.monitor import LiveCurve, LogAtCheckpoint, LossGuard
from helpers.train.optimizers import OPTIMIZERS, choose_optimizer
from helpers.train.order import SameOrder
from helpers.train.out_of_memory import (
    OutOfMemory,
    explain,
    explain_loading,
    halve_micro_batch,
    in_one_sentence,
    put_back,
    trained_weights,
)
from helpers.train.preflight import check_rows, check_tokenizer
from helpers.train.quantized import keep_differentiable

logger = logging.getLogger("helpers.train")


def load_base(
    base: BaseModel, settings: Settings, quantization: BitsAndBytesConfig | None = None, full: bool = False
) -> PreTrainedModel:
    """The base model for training. Weights that are themselves trained (`full`) are float32 on a CPU, because small
    updates vanish in bfloat16; frozen ones have the hardware's dtype.

    Raises:
        OutOfMemory: its weights do not fit.
    """
    hardware = settings.hardware
    keep_freed_memory()
    dtype = torch.float32 if full and hardware.device == "cpu" else hardware.dtype
    with in_one_sentence(lambda: explain_loading(base, dtype, hardware.device, quantization)):
        model = AutoModelForCausalLM.from_pretrained(
            base.path,
            dtype=dtype,
            attn_implementation=hardware.attention,
            device_map=ranks.device_of(hardware.device),
            quantization_config=quantization,
        )
    if quantization is not None:
        keep_differentiable(model)
    return model


def as_dataset(rows: Sequence[Row]) -> Dataset:
    """Rows in the columns that TRL takes as tokenized: `input_ids` and `assistant_masks`."""
    return Dataset.from_list([{"input_ids": r.input_ids, "assistant_masks": r.assistant_masks} for r in rows])


def common_arguments(settings: Settings, folder: Path) -> dict[str, object]:
    """What SFT and DPO have in common, from the settings; `folder` takes the checkpoints.

    With `patience` the validation loss is measured at each checkpoint, and the best one is what remains.

    Raises:
        BadShare: the rows of a step cannot be shared out among the processes.
    """
    micro_batch, accumulation = ranks.share(settings.batch_size, settings.gradient_accumulation, ranks.processes())
    watched = {
        "eval_steps": settings.save_steps,
        "load_best_model_at_end": True,
        "metric_for_best_model": "eval_loss",
        "greater_is_better": False,
        "restore_callback_states_from_checkpoint": True,
    }
    return {
        "eval_strategy": "steps" if settings.patience else "no",
        **(watched if settings.patience else {}),
        "output_dir": str(folder),
        "seed": settings.seed,
        "data_seed": settings.seed,
        "learning_rate": settings.learning_rate,
        "lr_scheduler_type": "cosine",
        "warmup_steps": 0.05,
        "num_train_epochs": settings.epochs,
        "max_steps": settings.max_steps,
        "per_device_train_batch_size": micro_batch,
        "per_device_eval_batch_size": settings.batch_size,
        "gradient_accumulation_steps": accumulation,
        "gradient_checkpointing": settings.hardware.device == "cuda",
        "max_length": settings.max_length,
        "bf16": settings.hardware.dtype == torch.bfloat16,
        "use_cpu": settings.hardware.device == "cpu",
        "dataloader_pin_memory": settings.hardware.device == "cuda",
        "save_strategy": "steps",
        "save_steps": settings.save_steps,
        "save_total_limit": 2,
        "logging_steps": 0.05,  # of all steps
        "logging_nan_inf_filter": False,  # a loss that is no number is to be seen, not averaged away
        "ddp_find_unused_parameters": False,
        "disable_tqdm": True,
        "report_to": [],
    }


def arguments_of(kind: type[TrainingArguments], settings: Settings, folder: Path, **own) -> TrainingArguments:
    """TRL's SFTConfig or DPOConfig (`kind`): what both have in common, and its `own`.

    One process trains on one GPU, "cuda:0" or, launched, its own. transformers counts all that it sees to a process
    without a launcher, for `nn.DataParallel`, with which TRL's trainers refuse to work.
    """
    arguments = kind(**common_arguments(settings, folder), **own)
    if arguments.n_gpu > 1:
        arguments._n_gpu = 1
    return arguments


def callbacks(settings: Settings) -> list[TrainerCallback]:
    """What logs at each checkpoint, and what may end a run before its last step: nothing is learned, or with `patience`
    nothing more is."""
    return [LogAtCheckpoint(), LossGuard(), *([EarlyStoppingCallback(settings.patience)] if settings.patience else [])]


class OrderedSFTTrainer(SameOrder, SFTTrainer):
    """TRL's trainer, with the same rows in a step and the same validation loss in any number of processes."""


def make_trainer(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    train: Sequence[Row],
    validation: Sequence[Row],
    settings: Settings,
    folder: Path,
    peft_config: PeftConfig | None,
) -> SFTTrainer:
    """An SFTTrainer whose rows have passed the preflight. `peft_config` None trains all weights.

    Raises:
        PreflightError: what would be taught is wrong.
        UnfitOptimizer: `settings.optimizer` cannot train these weights here.
    """
    check_tokenizer(tokenizer)
    check_rows(tokenizer, train, settings.max_length)
    check_rows(tokenizer, validation, settings.max_length)
    full = peft_config is None and not isinstance(model, PeftModel)
    optimizer, reason = choose_optimizer(settings.optimizer, settings.hardware, model, full)
    logger.info("optimizer %s: %s", optimizer, reason)
    arguments = arguments_of(
        SFTConfig,
        settings,
        folder,
        **OPTIMIZERS[optimizer],
        train_sampling_strategy="random" if settings.packing else "group_by_length",
        packing=settings.packing,
        eval_packing=False,
    )
    if getattr(model, "is_loaded_in_8bit", False):
        # bitsandbytes' LLM.int8 keeps its inputs where only recomputation under no_grad leaves them out.
        arguments.gradient_checkpointing_kwargs = {"use_reentrant": True}
    hide_gptqmodel()
    with direct_lm_head(settings.hardware.device):
        trainer = OrderedSFTTrainer(
            model=model,
            args=arguments,
            train_dataset=as_dataset(train),
            eval_dataset=as_dataset(validation),
            processing_class=tokenizer,
            peft_config=peft_config,
            callbacks=callbacks(settings),
        )
    ranks.check_sharding(trainer)
    ranks.sum_in_float32(trainer)
    trainer.remove_callback(PrinterCallback)
    return trainer


def run(trainer, device: str, curve: LiveCurve | None = None, retry: bool = False) -> int:
    """Train, going on from the last whole checkpoint if there is one. Works for any TRL trainer.

    A run that had ended is not trained further. Where the best checkpoint is not the last, it is put back. With `retry`
    a run that is out of memory goes on in micro-batches of half the rows, as many rows a step as before; one of several
    processes cannot, since the others would not know.

    Returns the number of steps that were made now.

    Raises:
        OutOfMemory: with the budget, and what would fit.
    """
    if curve is not None:
        trainer.add_callback(curve)
    checkpoint = last_checkpoint(Path(trainer.args.output_dir))
    retry = retry and ranks.processes() == 1
    beginning = trained_weights(trainer.model) if retry else {}
    while (failure := _attempt(trainer, device)) is not None:
        if not (retry and halve_micro_batch(trainer)):
            raise OutOfMemory(explain(trainer, device)) from failure
        logger.warning(
            "out of memory: on with micro-batches of %d rows, %d a step",
            trainer.args.per_device_train_batch_size,
            trainer.args.gradient_accumulation_steps,
        )
        put_back(trainer.model, beginning)
    if trainer.state.best_model_checkpoint and not ranks.sharded():
        restore(trainer.model, Path(trainer.state.best_model_checkpoint))
    return trainer.state.global_step - (int(checkpoint.name.split("-")[1]) if checkpoint else 0)


def _attempt(trainer, device: str) -> torch.OutOfMemoryError | None:
    """Train to the end. The error is returned, not raised, so that its traceback holds no memory of the run."""
    checkpoint = last_checkpoint(Path(trainer.args.output_dir))
    if checkpoint:
        restore(trainer.model, checkpoint)
        if is_finished(checkpoint):
            trainer.state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
            ranks.shard(trainer, checkpoint)
            return None
    try:
        with direct_lm_head(device):
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    except torch.OutOfMemoryError as error:
        return error.with_traceback(None)
    return None


def validation_loss(trainer, device: str) -> float:
    """Mean loss per supervised token over the validation rows, in nats.

    Raises:
        OutOfMemory: with the budget of training, and what would fit.
    """
    with direct_lm_head(device), in_one_sentence(lambda: explain(trainer, device, "in the validation loss")):
        return float(trainer.evaluate()["eval_loss"])


def release(trainer) -> None:
    """Give back what a finished training holds of the device: the weights go to the host's memory, the optimizer's
    state is dropped."""
    for owner in (trainer, trainer.callback_handler):
        owner.optimizer = owner.lr_scheduler = None
    trainer.model.to("cpu")
    trainer.accelerator.free_memory()


def tokens_per_second(trainer, rows: Sequence[Row], steps: int) -> dict[str, float]:
    """Throughput of the last `run()`, which made `steps` steps: all tokens and supervised tokens a second, from the
    trainer's own clock."""
    summary = next((h for h in reversed(trainer.state.log_history) if "train_runtime" in h), None)
    if not summary or not steps:
        return {}
    epochs = summary["epoch"] * steps / trainer.state.global_step
    counts = {
        "tokens": sum(len(r.input_ids) for r in rows),
        "supervised_tokens": sum(len(r.supervised) for r in rows),
    }
    return {name: epochs * count / summary["train_runtime"] for name, count in counts.items()}


def save(trainer, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """The adapter (or, after full fine-tuning, the model) with its tokenizer, whole or not at all. Of several processes
    the first writes."""
    state = trainer.accelerator.get_state_dict(trainer.model_wrapped) if ranks.sharded() else None
    with ranks.first_alone() as first:
        if first:
            with whole_folder(folder) as part:
                model = trainer.accelerator.unwrap_model(trainer.model)
                model.save_pretrained(part, state_dict=state, safe_serialization=True)
                tokenizer.save_pretrained(part)
