"""Sampling on a CPU from few candidates, beside vLLM's own over the whole vocabulary."""

from types import SimpleNamespace

import pytest
import torch

sampler = pytest.importorskip("vllm.v1.sample.sampler")
THEIRS = sampler.Sampler

from vllm.v1.sample.logits_processor.builtin import MinPLogitsProcessor  # noqa: E402
from vllm.v1.sample.metadata import SamplingMetadata  # noqa: E402

from helpers.serve import cpu_sampling  # noqa: E402
from helpers.serve.cpu_sampling import FewCandidates  # noqa: E402

ROWS, TOKENS = 4000, 30
LOGITS = torch.linspace(3, -3, TOKENS)[torch.randperm(TOKENS, generator=torch.Generator().manual_seed(1))]


@pytest.fixture(autouse=True)
def few(monkeypatch):
    monkeypatch.setattr(cpu_sampling, "FEW", TOKENS - 1)


def asked(temperatures: list[float], top_k: int | None = 12, top_p: float | None = None, min_p: float = 0.05, seeds=()):
    temperature, rows = torch.tensor(temperatures), len(temperatures)
    processor = object.__new__(MinPLogitsProcessor)
    processor.min_p_count, processor.min_p = int(min_p > 0), torch.full((rows, 1), min_p)
    return SamplingMetadata(
        temperature=temperature,
        all_greedy=not temperature.any(),
        all_random=bool((temperature > 0).all()),
        top_k=None if top_k is None else torch.full((rows,), top_k, dtype=torch.int32),
        top_p=None if top_p is None else torch.full((rows,), top_p),
        generators={row: torch.Generator().manual_seed(seed) for row, seed in enumerate(seeds)},
        max_num_logprobs=None,
        logprob_token_ids=None,
        logitsprocs=SimpleNamespace(argmax_invariant=[processor]),
        no_penalties=True,
        prompt_token_ids=None,
        frequency_penalties=torch.empty(0),
        presence_penalties=torch.empty(0),
        repetition_penalties=torch.empty(0),
        output_token_ids=[],
        allowed_token_ids_mask=None,
        bad_words_token_ids={},
    )


def draw(sampler_class, metadata) -> torch.Tensor:
    torch.manual_seed(0)
    logits = LOGITS.repeat(len(metadata.temperature), 1)
    return sampler_class().sample(logits, metadata)[0]


@pytest.mark.parametrize("how", [{}, {"top_p": 0.7}, {"min_p": 0.0}, {"top_k": 1}])
def test_each_token_is_drawn_as_often_as_by_vllm(how, monkeypatch):
    monkeypatch.setattr(sampler.Sampler, "apply_temperature", staticmethod(_few_only))
    ours = draw(FewCandidates, asked([0.8] * ROWS, **how)).bincount(minlength=TOKENS) / ROWS
    monkeypatch.undo()
    theirs = draw(THEIRS, asked([0.8] * ROWS, **how)).bincount(minlength=TOKENS) / ROWS
    assert ((ours > 0) == (theirs > 0)).all() and (ours - theirs).abs().max() < 0.035


def _few_only(values: torch.Tensor, temperature: torch.Tensor, all_random: bool) -> torch.Tensor:
    assert values.shape[1] < TOKENS, "the whole vocabulary is divided"
    return values / temperature[:, None]


def test_greedy_replies_beside_sampled_ones_are_greedy():
    found = draw(FewCandidates, asked([0.0, 0.8, 0.0, 0.8]))
    assert found[0] == found[2] == LOGITS.argmax()
    assert draw(FewCandidates, asked([0.0, 0.0])).tolist() == [int(LOGITS.argmax())] * 2


def test_a_seed_draws_the_same_again_beside_other_seeds():
    alone = [int(draw(FewCandidates, asked([0.8], seeds=[seed]))[0]) for seed in range(20)]
    assert draw(FewCandidates, asked([0.8] * 20, seeds=range(20))).tolist() == alone and len(set(alone)) > 3


def test_a_seed_draws_the_same_beside_another_top_k():
    def two_tokens(sampler_class, top_k: list[int], seeds) -> list[tuple[int, int]]:
        metadata = asked([0.8] * len(top_k), seeds=seeds)
        metadata.top_k = torch.tensor(top_k, dtype=torch.int32)
        return list(zip(*(draw(sampler_class, metadata).tolist() for _ in range(2)), strict=True))

    few = [two_tokens(FewCandidates, [12], [seed])[0] for seed in range(9)]
    many = [two_tokens(THEIRS, [TOKENS], [seed])[0] for seed in range(9)]
    assert few != many
    beside_less = two_tokens(FewCandidates, [12, 3, 12] * 3, range(9))
    assert beside_less[::3] == few[::3] and beside_less[2::3] == few[2::3] and beside_less[1::3] != few[1::3]
    beside_more = two_tokens(FewCandidates, [12, TOKENS, 12] * 3, range(9))
    assert beside_more[::3] == few[::3] and beside_more[2::3] == few[2::3] and beside_more[1::3] == many[1::3]


@pytest.mark.parametrize("how", [{"top_k": None}, {"top_k": TOKENS}])
def test_with_many_candidates_vllm_draws(how):
    metadata = asked([0.8] * 8, seeds=range(8), **how)
    again = asked([0.8] * 8, seeds=range(8), **how)
    assert draw(FewCandidates, metadata).tolist() == draw(THEIRS, again).tolist()
