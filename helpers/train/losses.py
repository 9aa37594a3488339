"""Which preference loss: Rafailov's, one for pairs that may be mislabelled, and two that take the length out.

In: a name from `LOSSES`. Out: the options with which TRL's DPOConfig is that loss, and what it makes of length.
"""

from helpers.settings import BadValue, Settings

LOSSES: dict[str, dict[str, object]] = {
    # Rafailov et al., 2023, arXiv:2305.18290: the summed log-ratios of the two replies are compared.
    "dpo": {"loss_type": "sigmoid", "beta": 0.1},
    # Chowdhury et al., 2024, arXiv:2403.00409: a tenth of the pairs may be the wrong way round. TRL's "sigmoid" takes
    # label_smoothing too, and ignores it.
    "smoothed": {"loss_type": "robust", "beta": 0.1, "label_smoothing": 0.1},
    # Lambert et al., 2024, arXiv:2411.15124: log-ratios per token, hence small, hence a beta 50 times as large.
    "length_normalised": {"loss_type": "sigmoid_norm", "beta": 5.0},
    # Liu et al., 2024, arXiv:2409.06411: tokens that the other reply is too short to match count half.
    "length_desensitised": {"loss_type": "sigmoid", "beta": 0.1, "ld_alpha": 0.5},
}


def dpo_options(settings: Settings) -> dict[str, object]:
    """DPOConfig's options for `settings.preference_loss`, its own beta unless `settings.beta` is given.

    The SFT loss on the better replies is added with `settings.sft_weight` (Pang et al., 2024, arXiv:2404.19733): the
    preference alone is also satisfied by taking probability from both replies.

    Raises:
        BadValue: beta is not above 0.
    """
    options = dict(LOSSES[settings.preference_loss])
    beta = options["beta"] if settings.beta is None else settings.beta
    if isinstance(beta, bool) or not isinstance(beta, int | float) or beta <= 0:
        raise BadValue(f"beta is a number above 0, or None for that of the loss ({options['beta']}), not {beta!r}.")
    return options | {
        "beta": beta,
        "loss_type": [options["loss_type"], "sft"],
        "loss_weights": [1.0, settings.sft_weight],
    }


def first_pull(name: str, tokens: int, other_tokens: int) -> float:
    """How hard the first step pulls on a reply of `tokens` tokens, the pair's other one having `other_tokens`: the
    absolute slopes of the loss by the log-probability of each of its tokens, summed, with policy and reference equal.

    By each loss's own β, for one pair. Unlike a margin, the pulls of two losses can be compared.
    """
    options = LOSSES[name]
    slope = options["beta"] / 2 / (1 - 2 * options.get("label_smoothing", 0.0))
    if options["loss_type"] == "sigmoid_norm":
        return slope
    tail = max(tokens - other_tokens, 0)
    return slope * (tokens - tail + options.get("ld_alpha", 1.0) * tail)
