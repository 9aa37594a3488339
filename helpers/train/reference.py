"""The reference's log-probabilities of the preference pairs, computed once and kept in the run's folder.

In: a DPOTrainer before its first step. Out: the same trainer, whose rows bring what the reference thinks of them, so
that no step asks it. TRL's own precomputed ones are lost with the process.
"""

import hashlib
from pathlib import Path

import torch
from datasets import Dataset, concatenate_datasets
from safetensors.torch import load_file, save_file
from torch.utils.data import DataLoader
from trl import DPOTrainer

from helpers.files import sha256_json, whole_file

COLUMNS = ("ref_chosen_logps", "ref_rejected_logps")


def cache_reference(trainer: DPOTrainer, folder: Path) -> None:
    """Give training and held-out rows their reference log-probabilities (nats, one sum a reply), from
    `folder/<key>.safetensors` if it is there, else computed and written there, whole or not at all.

    The key is a hash of all weights, adapter included, of the rows' token ids, and of what else the sums depend on:
    max_length, TRL's ld_alpha, mixed precision.
    """
    weights = weights_sha256(trainer.model)
    for split in ("train_dataset", "eval_dataset"):
        dataset = getattr(trainer, split)
        if dataset is not None:
            setattr(trainer, split, _with_reference(trainer, dataset, weights, folder))
    trainer.precompute_ref_logps = True  # read the columns instead of asking the reference


def weights_sha256(model: torch.nn.Module) -> str:
    """One SHA-256 over the name, type and bytes of every weight and buffer that `model` would save."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def _with_reference(trainer: DPOTrainer, dataset: Dataset, weights: str, folder: Path) -> Dataset:
    rows = [dataset[name] for name in ("prompt_ids", "chosen_ids", "rejected_ids")]
    args, accelerator = trainer.args, trainer.accelerator
    key = sha256_json(
        [weights, [list(map(list, ids)) for ids in rows], args.max_length, args.ld_alpha, accelerator.mixed_precision]
    )
    file = folder / f"{key[:32]}.safetensors"
    if not file.exists():
        sums = _ask_reference(trainer, dataset)
        if accelerator.is_main_process:
            with whole_file(file) as part:
                save_file(sums, part)
        accelerator.wait_for_everyone()
    sums = {name: values.tolist() for name, values in load_file(file).items()}
    return concatenate_datasets([dataset, Dataset.from_dict(sums)], axis=1)


def _ask_reference(trainer: DPOTrainer, dataset: Dataset) -> dict[str, torch.Tensor]:
    # A generator of its own: whether the cache was hit must not move the run's random numbers.
    loader = DataLoader(
        dataset,
        batch_size=trainer.args.per_device_train_batch_size,
        collate_fn=trainer.data_collator,
        generator=torch.Generator(),
    )
    batches = []
    for batch in trainer.accelerator.prepare(loader):
        sums = trainer.compute_ref_log_probs(trainer.model, batch)
        batches.append([values.float().cpu() for values in trainer.accelerator.gather_for_metrics(tuple(sums))])
    return dict(zip(COLUMNS, map(torch.cat, zip(*batches, strict=True)), strict=True))
