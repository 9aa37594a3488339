"""Direct preference optimization (Rafailov et al., 2023, arXiv:2305.18290) of a companion that SFT has made.

In: a base model, the SFT adapter, preference pairs. Out: a `DPOTrainer` that goes on training that adapter. No second
model is loaded: for the reference TRL switches the trained adapter off and a frozen copy of the SFT adapter on, in each
step or, with its log-probabilities cached, once.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from peft import PeftModel
from transformers import PreTrainedTokenizerBase, PrinterCallback
from trl import DPOConfig, DPOTrainer

from helpers.base_model import BaseModel
from helpers.files import whole_folder
from helpers.persona import PersonaCard
from helpers.quiet import hide_gptqmodel
from helpers.settings import Settings
from helpers.supervision import supervise
from helpers.train import ranks
from helpers.train.accumulation import WholeStep
from helpers.train.lm_head import direct_lm_head
from helpers.train.losses import dpo_options
from helpers.train.out_of_memory import explain, explain_one_row, in_one_sentence
from helpers.train.preferences import PreferencePair, as_preference_dataset
from helpers.train.preflight import check_pairs, check_tokenizer
from helpers.train.reference import cache_reference
from helpers.train.sft import arguments_of, callbacks, load_base

logger = logging.getLogger("helpers.train")


def load_policy(base: BaseModel, adapter: Path, settings: Settings) -> PeftModel:
    """The base with the SFT adapter on it, trainable."""
    hide_gptqmodel()
    return PeftModel.from_pretrained(load_base(base, settings), adapter, is_trainable=True)


class WholeStepDPOTrainer(WholeStep, DPOTrainer):
    """TRL's trainer, with the gradients of one large batch however it is cut into micro-batches."""


def make_trainer(
    policy: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    pairs: Sequence[PreferencePair],
    held_out: Sequence[PreferencePair],
    card: PersonaCard,
    settings: Settings,
    folder: Path,
) -> DPOTrainer:
    """A DPOTrainer over `pairs`, evaluated on `held_out`, with the loss and the way to the reference that the settings
    name. Several processes leave out the last pairs that cannot be shared out equally: accelerate would teach the first
    ones twice instead.

    Raises:
        BadValue: beta is not above 0.
        PreflightError: the tokenizer would teach the wrong thing.
        OutOfMemory: the reference's log-probabilities do not fit.
    """
    check_tokenizer(tokenizer)
    arguments = arguments_of(DPOConfig, settings, folder, **dpo_options(settings))
    pairs = _shared_equally(pairs, arguments.per_device_train_batch_size)
    with direct_lm_head(settings.hardware.device):
        trainer = WholeStepDPOTrainer(
            model=policy,
            args=arguments,
            train_dataset=as_preference_dataset(pairs, card),
            eval_dataset=as_preference_dataset(held_out, card),
            processing_class=tokenizer,
            callbacks=callbacks(settings),
        )
        for dataset, given in ((trainer.train_dataset, pairs), (trainer.eval_dataset, held_out)):
            check_pairs(tokenizer, dataset, len(given), settings.max_length)
        if settings.reference == "cached":
            with in_one_sentence(lambda: explain(trainer, settings.hardware.device, "while the reference was asked")):
                cache_reference(trainer, settings.folder / "reference")
    trainer.remove_callback(PrinterCallback)
    return trainer


def _shared_equally(pairs: Sequence[PreferencePair], micro_batch: int) -> Sequence[PreferencePair]:
    together = micro_batch * ranks.processes()
    left = len(pairs) % together if ranks.processes() > 1 else 0
    if left:
        logger.warning("%d of %d pairs are left out: %d are taken at a time", left, len(pairs), together)
    return pairs[: len(pairs) - left]


def evaluate(trainer: DPOTrainer, device: str) -> dict[str, float]:
    """On the held-out pairs: mean reward margin (nats × beta) and share of pairs ranked right (0..1).

    Raises:
        OutOfMemory: with the budget of training, and what would fit.
    """
    with direct_lm_head(device), in_one_sentence(lambda: explain(trainer, device, "on the held-out pairs")):
        result = trainer.evaluate()
    return {"margin": result["eval_rewards/margins"], "accuracy": result["eval_rewards/accuracies"]}


@torch.inference_mode()
def margins_against_base(
    policy: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    pairs: Sequence[PreferencePair],
    card: PersonaCard,
    beta: float,
) -> list[float]:
    """Reward margin of each pair if the reference were the raw base, with no adapter on it.

    Raises:
        OutOfMemory: a pair does not fit.
    """
    training = policy.training
    policy.eval()
    margins = []
    with in_one_sentence(lambda: explain_one_row("on the held-out pairs", policy.device.type)):
        for pair in pairs:
            gains = []
            for text in (pair.chosen, pair.rejected):
                now = _log_probability(policy, tokenizer, pair, card, text)
                with policy.disable_adapter():
                    gains.append(now - _log_probability(policy, tokenizer, pair, card, text))
            margins.append(beta * (gains[0] - gains[1]))
    policy.train(training)
    return margins


def _log_probability(
    model: PeftModel, tokenizer: PreTrainedTokenizerBase, pair: PreferencePair, card: PersonaCard, text: str
) -> float:
    row = supervise(tokenizer, [*pair.prompt(card), {"role": "assistant", "content": text}])
    end = max(i for i, learned in enumerate(row.assistant_masks) if learned) + 1
    begin = max(i for i, learned in enumerate(row.assistant_masks[:end]) if not learned) + 1
    ids = torch.tensor([row.input_ids[:end]], device=model.device)
    logits = model(input_ids=ids, logits_to_keep=end - begin + 1).logits[0, :-1].float()
    return float(logits.log_softmax(-1).gather(-1, ids[0, begin:, None]).sum())


def save(trainer: DPOTrainer, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """The trained adapter alone (not the frozen reference copy), whole or not at all. Of several processes the first
    writes."""
    with ranks.first_alone() as first:
        if first:
            with whole_folder(folder) as part:
                model = trainer.accelerator.unwrap_model(trainer.model)
                model.save_pretrained(part, selected_adapters=["default"], safe_serialization=True)
                tokenizer.save_pretrained(part)
