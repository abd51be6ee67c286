"""Hidden states and losses over the positions that are trained on.

Notable choices:
- Only hidden states at those positions go through the output matrix: with short completions behind long prompts and a
  vocabulary of tens of thousands, the full logits would cost more than the layers below them.
- A packed batch is one row without padding, with common beginnings once (`packing`); in the last layer the MLP sees
  the positions that are trained on and no others.
- The losses go through the positions in pieces and keep the gradient of the hidden states instead of the
  logits, which the frozen output matrix allows (as in Liger Kernel, https://arxiv.org/abs/2410.10989).
"""

from typing import Any

import torch
from torch import Tensor

from adapters.inference.attention import GROUPED
from adapters.training.batching import Batch, pad
from adapters.training.fast_layers import Rotations
from adapters.training.packing import Packed, pack

# Rows of logits at a time: small enough for the allocator to use the same memory again.
_ROWS = 128


def selected_hidden(model: Any, batch: Batch) -> Tensor:
    """Last hidden states [M, width] at the M positions that a batch learns, sequence after sequence.

    `model` is a causal language model of transformers, bare or wrapped by PEFT.
    """
    decoder = _causal(model).get_decoder()
    device = decoder.embed_tokens.weight.device
    if batch.packed:
        return _packed_hidden(decoder, pack(batch.sequences, device))
    # Padding is on the right, so causality alone keeps it out; without a mask attention takes its fast path.
    ids, learnt = pad(batch.sequences, device)
    return decoder(input_ids=ids, use_cache=False).last_hidden_state[learnt]


def _packed_hidden(decoder: Any, row: Packed) -> Tensor:
    """What Llama's own forward does, layer by layer, over a packed row."""
    if decoder.config._attn_implementation != GROUPED:
        raise ValueError("only grouped attention keeps the sequences of a packed row apart")
    hidden = decoder.embed_tokens(row.ids[None])
    where = {
        "position_embeddings": decoder.rotary_emb(hidden, row.positions[None]),
        "attention_mask": None,
        "segments": row.segments,
        "rotations": Rotations(),
    }
    *layers, last = decoder.layers
    for layer in layers:
        hidden = layer(hidden, **where)
    hidden = hidden + last.self_attn(last.input_layernorm(hidden), **where)[0]
    hidden = hidden[0, row.learnt]
    return decoder.norm(hidden + last.mlp(last.post_attention_layernorm(hidden)))


def completion_cross_entropy(model: Any, batch: Batch) -> tuple[Tensor, int]:
    """Sum of the cross-entropy (nats, fp32) over completion tokens, and their number.

    The output matrix must be frozen.
    """
    weight = _causal(model).get_output_embeddings().weight
    targets = batch.targets.to(weight.device)
    return _LinearCrossEntropy.apply(selected_hidden(model, batch), weight, targets), len(targets)


def completion_divergence(
    model: Any, batch: Batch, teacher_hidden: Tensor, teacher_weight: Tensor
) -> tuple[Tensor, int]:
    """Sum of KL(teacher || model) in nats, fp32, over completion tokens, and their number.

    Both output matrices must be frozen.

    Args:
        teacher_hidden: the teacher's last hidden states [M, width] at the positions that the batch learns.
        teacher_weight: its output matrix [vocabulary, width].
    """
    weight = _causal(model).get_output_embeddings().weight
    total = _LinearDivergence.apply(selected_hidden(model, batch), weight, teacher_hidden, teacher_weight)
    return total, len(teacher_hidden)


class _LinearDivergence(torch.autograd.Function):
    """Sum of KL(teacher || model) for the logits hidden [N, width] @ weightᵀ [width, vocabulary] of both."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, teacher_hidden: Tensor, teacher_weight: Tensor) -> Tensor:
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        gradient = torch.empty_like(hidden)
        for start in range(0, len(hidden), _ROWS):
            rows = slice(start, start + _ROWS)
            expected = torch.log_softmax(teacher_hidden[rows] @ teacher_weight.T, dim=-1, dtype=torch.float32)
            given = torch.log_softmax(hidden[rows] @ weight.T, dim=-1, dtype=torch.float32)
            shares = expected.exp()
            total += torch.linalg.vecdot(shares, expected.sub_(given)).sum()
            gradient[rows] = given.exp_().sub_(shares).to(hidden.dtype) @ weight
        ctx.save_for_backward(gradient)
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return (gradient * grad).to(gradient.dtype), None, None, None


class _LinearCrossEntropy(torch.autograd.Function):
    """Sum of cross-entropies of hidden [N, width] @ weightᵀ [width, vocabulary] against targets [N]."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        gradient = torch.empty_like(hidden)
        for start in range(0, len(hidden), _ROWS):
            rows = slice(start, start + _ROWS)
            wanted = targets[rows, None]
            logits = (hidden[rows] @ weight.T).float()
            # The logarithm of the sum is taken at the largest entry, where a probability is never zero.
            top = logits.amax(-1)
            given = logits.gather(1, wanted).squeeze(1)
            error = torch.softmax(logits, dim=-1, out=logits)
            total += (top - error.amax(-1).log() - given).sum()
            error.scatter_add_(1, wanted, torch.full_like(wanted, -1, dtype=torch.float32))
            gradient[rows] = error.to(hidden.dtype) @ weight
        ctx.save_for_backward(gradient)
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return (gradient * grad).to(gradient.dtype), None, None


def _causal(model: Any) -> Any:
    """The language model inside PEFT's wrapper, or the model itself."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model
