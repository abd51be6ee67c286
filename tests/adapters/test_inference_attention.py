"""Grouped attention against transformers' eager attention: values and gradients, with and without padding."""

from types import SimpleNamespace

import pytest
import torch
from transformers.models.llama.modeling_llama import eager_attention_forward

from adapters.inference.attention import grouped_attention


def tensors(queries: int, keys: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(2, 6, queries, 8), (2, 2, keys, 8), (2, 2, keys, 8)]
    return [torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True) for shape in shapes]


def causal(queries: int, keys: int) -> torch.Tensor:
    return torch.ones(queries, keys, dtype=torch.bool).tril(keys - queries).expand(2, 1, -1, -1)


@pytest.mark.parametrize(("queries", "keys"), [(7, 7), (3, 7), (1, 7)])
@pytest.mark.parametrize("mask", ["none", "boolean", "additive"])
def test_equals_eager_attention(queries: int, keys: int, mask: str) -> None:
    allowed = causal(queries, keys).clone()
    if mask != "none":
        allowed[0, :, :, 0] = False  # left padding of the first row
        allowed[0, :, 0, 1] = True
    additive = torch.zeros(allowed.shape, dtype=torch.float64).masked_fill(~allowed, torch.finfo(torch.float64).min)
    given = {"none": None, "boolean": allowed, "additive": additive}[mask]
    ours, theirs = tensors(queries, keys), tensors(queries, keys)
    module = SimpleNamespace(num_key_value_groups=3, training=False)
    output, _ = grouped_attention(module, *ours, given, scaling=0.3)
    wanted, _ = eager_attention_forward(module, *theirs, additive, scaling=0.3)
    # Eager attention computes its softmax in fp32, ours in the dtype here.
    assert torch.allclose(output, wanted, atol=1e-6)
    weight = torch.randn(output.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    (output * weight).sum().backward()
    (wanted * weight).sum().backward()
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.grad is not None and torch.allclose(mine.grad, other.grad, atol=1e-6)


def test_a_row_that_sees_nothing_is_finite() -> None:
    query, key, value = tensors(3, 3)
    allowed = causal(3, 3).clone()
    allowed[0] = False
    assert grouped_attention(None, query, key, value, allowed)[0].isfinite().all()
