"""Attention over packed sequences: one row of tokens without padding, in which each segment sees its own past.

Sequences that begin alike share that beginning: it lies in the row once, and the segments that go on from it name it as
their prefix. Segments are gone through in blocks of queries, so that little is computed that causality hides, and each
block's scores stay in the processor's cache.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

# Queries at a time: fewer skip more of what is hidden, more make better use of a matrix product.
_BLOCK = 256
# Widths of scores are multiples of this; the softmax is twice as fast as over odd widths.
_WIDTH = 32


class Segment(NamedTuple):
    """Tokens `start` to `stop` of a row; they see the ranges `prefix`, in order, and what of themselves is before."""

    start: int
    stop: int
    prefix: tuple[tuple[int, int], ...] = ()


class _Block(NamedTuple):
    """Queries `start` to `stop` of a row: they all see `common` keys of their segment, and then one more each."""

    start: int
    stop: int
    common: int
    width: int


def visible(segments: Sequence[Segment], device: torch.device) -> Tensor:
    """What each token of the row sees, as a mask [tokens, tokens]; for attention kernels that take one."""
    length = max(segment.stop for segment in segments)
    mask = torch.zeros(length, length, dtype=torch.bool, device=device)
    for start, stop, prefix in segments:
        mask[start:stop, start:stop] = True
        mask[start:stop, start:stop].tril_()
        for begin, end in prefix:
            mask[start:stop, begin:end] = True
    return mask


def packed_attention(query: Tensor, key: Tensor, value: Tensor, segments: Sequence[Segment], scale: float) -> Tensor:
    """Query [H, N, D], key and value [Hkv, N, D] → [H, N, D], with a gradient. CPU only."""
    heads, length, width = query.shape
    grouped = query.view(len(key), -1, length, width).transpose(1, 2) * scale
    output = _Packed.apply(grouped.contiguous(), key.contiguous(), value.contiguous(), segments)
    return output.transpose(1, 2).reshape(heads, length, width)


def attend(q: Tensor, k: Tensor, v: Tensor, segments: Sequence[Segment]) -> tuple[Tensor, list[Tensor]]:
    """Scaled queries [Hkv, N, G, D], keys and values [Hkv, N, D] → [Hkv, N, G, D], and each block's probabilities."""
    output = torch.empty_like(q)
    kept: list[Tensor] = []
    for segment in segments:
        keys, values = _gather(k, segment), _gather(v, segment)
        for block in _blocks(segment):
            scores = torch.bmm(_rows(q, block), keys[:, : block.width].transpose(1, 2))
            hidden = scores.view(len(q), block.stop - block.start, -1, block.width)[..., block.common :]
            hidden += _causal(q.dtype, q.device)[: hidden.shape[1], :, : hidden.shape[3]]
            kept.append(torch.softmax(scores, dim=-1))
            _rows(output, block).copy_(torch.bmm(kept[-1], values[:, : block.width]))
    return output, kept


def attend_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, segments: Sequence[Segment], kept: Sequence[Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of `attend` with respect to q, k and v, from that of its output and the probabilities it kept."""
    grad_q, grad_k, grad_v = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
    probabilities = iter(kept)
    for segment in segments:
        keys, values = _gather(k, segment), _gather(v, segment)
        grad_keys, grad_values = torch.zeros_like(keys), torch.zeros_like(values)
        for block in _blocks(segment):
            p, g, width = next(probabilities), _rows(grad, block), block.width
            grad_values[:, :width] += torch.bmm(p.transpose(1, 2), g)
            grad_p = torch.bmm(g, values[:, :width].transpose(1, 2))
            grad_s = torch._softmax_backward_data(grad_p, p, -1, p.dtype)
            _rows(grad_q, block).copy_(torch.bmm(grad_s, keys[:, :width]))
            grad_keys[:, :width] += torch.bmm(grad_s.transpose(1, 2), _rows(q, block))
        _scatter(grad_k, grad_keys, segment)
        _scatter(grad_v, grad_values, segment)
    return grad_q, grad_k, grad_v


class _Packed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, segments: Sequence[Segment]) -> Tensor:
        output, kept = attend(q, k, v, segments)
        ctx.save_for_backward(q, k, v, *kept)
        ctx.segments = segments
        return output

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, *kept = ctx.saved_tensors
        return *attend_backward(grad.contiguous(), q, k, v, ctx.segments, kept), None


def _blocks(segment: Segment) -> list[_Block]:
    shared = sum(stop - start for start, stop in segment.prefix)
    blocks = []
    for start in range(segment.start, segment.stop, _BLOCK):
        stop = min(start + _BLOCK, segment.stop)
        blocks.append(_Block(start, stop, shared + start - segment.start, _rounded(shared + stop - segment.start)))
    return blocks


def _rows(q: Tensor, block: _Block) -> Tensor:
    """A block's queries of all heads of a group under each other: a view [Hkv, queries * G, D]."""
    return q[:, block.start : block.stop].view(len(q), -1, q.shape[-1])


def _gather(k: Tensor, segment: Segment) -> Tensor:
    """Keys that a segment may see, in order, with zeros after them up to a good width."""
    parts = [k[:, start:stop] for start, stop in (*segment.prefix, segment[:2])]
    length = sum(part.shape[1] for part in parts)
    parts.append(k.new_zeros(len(k), _rounded(length) - length, k.shape[-1]))
    return torch.cat(parts, dim=1)


def _scatter(grad_k: Tensor, gathered: Tensor, segment: Segment) -> None:
    begin = 0
    for start, stop in (*segment.prefix, segment[:2]):
        grad_k[:, start:stop] += gathered[:, begin : begin + stop - start]
        begin += stop - start


def _rounded(length: int) -> int:
    return -(-length // _WIDTH) * _WIDTH


@cache
def _causal(dtype: torch.dtype, device: torch.device) -> Tensor:
    """What hides later keys from a block's queries, and the zeros after the last key: [block, 1, block + width]."""
    hidden = torch.ones(_BLOCK, 1, _BLOCK + _WIDTH, dtype=torch.bool, device=device)
    places = torch.arange(_BLOCK + _WIDTH, device=device)
    hidden &= (places > torch.arange(_BLOCK, device=device)[:, None])[:, None]
    return torch.zeros(hidden.shape, dtype=dtype, device=device).masked_fill_(hidden, float("-inf"))
