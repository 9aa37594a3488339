"""The validation loss, measured by several processes as one would measure it.

In: a trainer. Out: the mean over the rows of their batch's loss, as transformers' evaluation has it in one process; in
several it would fill up the last batches with rows that were counted before.
"""

import torch
from torch.utils.data import DataLoader

from helpers.processes import rank
from helpers.train import ranks


def shared_loss(trainer) -> float:
    """Nats per supervised token; every process calls it and gets the same.

    Each scores its part of the batches, and one more for nothing where it would have fewer than the others, for sharded
    weights are gathered by all.
    """
    rows, among = trainer.eval_dataset, ranks.processes()
    sampler = trainer._get_eval_sampler(rows)
    order = list(sampler) if trainer.args.train_sampling_strategy == "group_by_length" else list(range(len(rows)))
    size = trainer.args.eval_batch_size
    batches = [order[i : i + size] for i in range(0, len(order), size)]
    mine = batches[rank() :: among]
    counted = len(mine)
    mine += [batches[-1]] * (-(-len(batches) // among) - counted)
    rows = trainer._remove_unused_columns(rows, description="evaluation")
    loader = DataLoader(rows, batch_sampler=mine, collate_fn=trainer.data_collator)
    trainer.model.eval()
    total = 0.0
    for n, inputs in enumerate(loader):
        loss, _, _ = trainer.prediction_step(trainer.model_wrapped, inputs, prediction_loss_only=True)
        total += float(loss) * len(mine[n]) * (n < counted)
    sums = torch.tensor(total, dtype=torch.float64, device=trainer.args.device)
    torch.distributed.all_reduce(sums)
    return float(sums) / len(order)
