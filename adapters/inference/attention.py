"""Attention for short sequences: batched matrix products over the query heads that share a key head.

Registered with transformers under the name `grouped`. On CPU the fused kernel of PyTorch was measured 2.4 times slower
than plain products at the few hundred tokens we work with, and transformers copies keys and values for each query
head, which grouping avoids. On other devices this is PyTorch's fused attention.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from adapters.inference.packed_attention import Segment, packed_attention, visible

GROUPED = "grouped"


def grouped_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    segments: Sequence[Segment] | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Causal attention: query [B, H, Tq, D], key and value [B, Hkv, Tk, D], mask [B, 1, Tq, Tk] → [B, Tq, H, D].

    A mask is boolean or additive; without one, query i sees the keys up to Tk - Tq + i, or, in a packed row (B = 1),
    what its segment sees. The softmax is computed in fp32 whatever the dtype.
    """
    if query.device.type != "cpu":
        attention_mask = attention_mask if segments is None else visible(segments, query.device)[None, None]
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    if segments is not None:
        return packed_attention(query[0], key[0], value[0], segments, scale).transpose(0, 1)[None], None
    batch, heads, length, width = query.shape
    key_heads, keys = key.shape[1], key.shape[2]
    if attention_mask is None and length > 1:
        allowed = torch.ones(length, keys, dtype=torch.bool).tril_(keys - length)
        bias: Tensor | None = torch.zeros(length, keys, dtype=query.dtype).masked_fill_(~allowed, float("-inf"))
    elif attention_mask is not None:
        bias = _additive(attention_mask, query.dtype).unsqueeze(2)
    else:
        bias = None
    output = _Grouped.apply(
        query.reshape(batch * key_heads, heads // key_heads * length, width),
        key.reshape(batch * key_heads, keys, width),
        value.reshape(batch * key_heads, keys, width),
        bias,
        scale,
        (batch, key_heads, heads // key_heads, length, keys),
    )
    return output.view(batch, heads, length, width).transpose(1, 2), None


def _additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """What to add to the scores. A row that sees nothing (padding) would be NaN with -inf, so the least number is."""
    if mask.dtype != torch.bool:
        return mask
    return torch.zeros_like(mask, dtype=dtype).masked_fill_(~mask, torch.finfo(dtype).min)


class _Grouped(torch.autograd.Function):
    """softmax(scale q kᵀ + bias) v with one saved matrix of probabilities and no copy of keys."""

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scale: float, shape: tuple[int, ...]
    ) -> Tensor:
        scores = torch.bmm(q * scale, k.transpose(1, 2))
        if bias is not None:
            scores.view(shape).add_(bias)
        probabilities = torch.softmax(scores, dim=-1)
        ctx.save_for_backward(q, k, v, probabilities)
        ctx.scale = scale
        return torch.bmm(probabilities, v)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, probabilities = ctx.saved_tensors
        grad = grad.contiguous()
        grad_v = torch.bmm(probabilities.transpose(1, 2), grad)
        grad_p = torch.bmm(grad, v.transpose(1, 2))
        grad_s = torch._softmax_backward_data(grad_p, probabilities, -1, probabilities.dtype)
        grad_q = torch.bmm(grad_s, k).mul_(ctx.scale)
        grad_k = torch.bmm(grad_s.transpose(1, 2), q).mul_(ctx.scale)
        return grad_q, grad_k, grad_v, None, None, None


AttentionInterface.register(GROUPED, grouped_attention)
AttentionMaskInterface.register(GROUPED, sdpa_mask)
