"""The order of the rows: the same for one process that accumulates and for several that share its steps out.

In: the lengths of the rows, the rows of a step, seed and epoch. Out: indices. A function of nothing else, so that a
run that goes on in the middle of any epoch, in any number of processes, meets the rows that it would have met.
"""

from collections.abc import Callable, Iterator, Sequence

import torch
from datasets import Dataset, concatenate_datasets
from torch.utils.data import Sampler
from transformers.trainer_pt_utils import get_length_grouped_indices

from helpers.train import ranks
from helpers.train.validation import shared_loss


def grouped_order(lengths: Sequence[int], step: int, seed: int, epoch: int) -> list[int]:
    """Random, rows of similar length in one step of `step` rows; what transformers' `group_by_length` draws after
    `set_seed(seed)` and one validation, in a process that draws nothing else from the CPU's generator."""
    generator = torch.Generator().manual_seed(seed)
    _loader_draw(generator)
    for _ in range(epoch + 1):
        _loader_draw(generator)
        order = get_length_grouped_indices(lengths, step, generator=generator)
    return order


def random_order(rows: int, seed: int, epoch: int) -> list[int]:
    """Random; what accelerate's seedable sampler draws."""
    return torch.randperm(rows, generator=torch.Generator().manual_seed(seed + epoch)).tolist()


def _loader_draw(generator: torch.Generator) -> None:
    torch.empty((), dtype=torch.int64).random_(generator=generator)


class RowOrder(Sampler):
    """`order(epoch)`, filled up with `blank` to a multiple of `multiple`. `epoch` is asked at the start of each."""

    def __init__(self, order: Callable[[int], list[int]], epoch: Callable[[], int], rows: int, multiple: int):
        self._order, self._epoch, self._rows, self._multiple = order, epoch, rows, multiple

    def __len__(self) -> int:
        return -(-self._rows // self._multiple) * self._multiple

    def __iter__(self) -> Iterator[int]:
        indices = self._order(self._epoch())
        return iter(indices + [self._rows] * (len(self) - len(indices)))


def with_blank(rows: Dataset) -> Dataset:
    """`rows` and after them a copy of the shortest from which nothing is learned. It fills up the last step of an epoch
    where several processes need a micro-batch each; accelerate would fill up with rows that were learned before."""
    shortest = min(range(len(rows)), key=[len(ids) for ids in rows["input_ids"]].__getitem__)
    row = rows[shortest]
    row["labels"] = [-100] * len(row["labels"])
    return concatenate_datasets([rows, Dataset.from_list([row], features=rows.features)])


class SameOrder:
    """Mixin for `SFTTrainer`: rows in the order of this module, and the same validation loss, in any number of
    processes."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._rows = len(self.train_dataset)
        self._lengths = [len(ids) for ids in self.train_dataset["input_ids"]]
        self._together = self.args.train_batch_size * ranks.processes()
        # Kept as the run begins: a retry that halves the micro-batch must not draw another order.
        self._step = self._together * self.args.gradient_accumulation_steps
        if ranks.processes() > 1 and self._rows % self._together:
            self.train_dataset = with_blank(self.train_dataset)

    def _get_train_sampler(self, train_dataset=None) -> RowOrder:
        args = self.args

        def order(epoch: int) -> list[int]:
            if args.train_sampling_strategy == "group_by_length":
                return grouped_order(self._lengths, self._step, args.data_seed, epoch)
            return random_order(self._rows, args.data_seed, epoch)

        multiple = self._together if ranks.processes() > 1 else 1
        return RowOrder(order, lambda: int(self.state.epoch or 0), self._rows, multiple)

    def evaluate(self, *args, **kwargs) -> dict[str, float]:
        if ranks.processes() == 1:
            return super().evaluate(*args, **kwargs)
        measured = {"eval_loss": shared_loss(self)}
        self.log(measured)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, measured)
        return measured
