"""Adapters on a CPU: what each token gets, beside vLLM's own arithmetic."""

import pytest
import torch

punica_cpu = pytest.importorskip("vllm.lora.punica_wrapper.punica_cpu")
THEIRS = punica_cpu.PunicaWrapperCPU

from vllm.lora.layers import LoRAMapping  # noqa: E402

from helpers.serve.cpu_lora import GroupedLoRA, grouped  # noqa: E402

SIZES, RANK, INNER = (6, 4), 3, 5


def apply(wrapper_class, tokens: list[int], scale: float = 1.0) -> tuple[torch.Tensor, torch.Tensor, list]:
    """What two slots of adapters add to tokens (0: the base, 1 and 2: an adapter), the input, and the matrices."""
    draw = torch.Generator().manual_seed(0)
    a = [torch.randn(2, 1, RANK, INNER, generator=draw) for _ in SIZES]
    b = [torch.randn(2, 1, size, RANK, generator=draw) for size in SIZES]
    x = torch.randn(len(tokens), INNER, generator=draw)
    y = torch.ones(len(tokens), sum(SIZES))
    wrapper = wrapper_class(max_num_batched_tokens=32, max_batches=32, device="cpu")
    wrapper.update_metadata(LoRAMapping(tuple(tokens), tuple(tokens), is_prefill=True), [1, 2], 2, 100)
    wrapper.add_lora_linear(y, x, tuple(a), tuple(b), scale, SIZES)
    return y, x, list(zip(a, b, strict=True))


@pytest.mark.parametrize("tokens", [[1] * 7, [2, 2, 1, 1, 2], [1], [2, 1, 2, 1]])
def test_adapters_add_what_vllm_adds(tokens):
    ours, theirs = apply(GroupedLoRA, tokens, 0.5)[0], apply(THEIRS, tokens, 0.5)[0]
    assert torch.allclose(ours, theirs, atol=1e-5) and not torch.allclose(ours, torch.ones_like(ours))


def test_a_token_of_the_base_gets_no_adapter_beside_others():
    tokens = [0, 1, 0, 2, 0]
    y, x, matrices = apply(GroupedLoRA, tokens)
    for row, slot in enumerate(tokens):
        added = [x[row] @ a[slot - 1, 0].T @ b[slot - 1, 0].T for a, b in matrices]
        expected = torch.ones(sum(SIZES)) + (torch.cat(added) if slot else 0)
        assert torch.allclose(y[row], expected, atol=1e-5)
    assert (apply(GroupedLoRA, [0, 0])[0] == 1).all()


def test_vllm_gives_the_base_the_last_adapter():
    """The day this fails, vLLM has mended it."""
    y, *_ = apply(THEIRS, [0, 1, 0, 2, 0])
    assert not torch.allclose(y[0], torch.ones(sum(SIZES)))


def test_rows_of_each_slot():
    assert grouped(torch.tensor([1, 1, 1])) == [(1, None)] and grouped(torch.tensor([-1, -1])) == []
    found = {slot: rows.tolist() for slot, rows in grouped(torch.tensor([0, -1, 2, 0]))}
    assert found == {0: [0, 3], 2: [2]}
