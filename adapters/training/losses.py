"""Hidden states and losses over the positions that are trained on.

Notable choices:
- Only hidden states at those positions go through the output matrix: with short completions behind long prompts and a
  vocabulary of tens of thousands, the full logits would cost more than the layers below them.
- The beginning that a batch's prompts have in common (system message, instruction) is computed once, as causal
  attention makes it the same in every row; for short inputs that is a third of the work.
- The losses go through the positions in pieces and keep the gradient of the hidden states instead of the
  logits, which the frozen output matrix allows (as in Liger Kernel, https://arxiv.org/abs/2410.10989).
"""

from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from adapters.training.batching import Batch

# Below this many tokens a prefix of its own costs more than it saves.
_SHORTEST_PREFIX = 8
# Rows of logits at a time: small enough for the allocator to use the same memory again.
_ROWS = 128


def selected_hidden(model: Any, batch: Batch) -> Tensor:
    """Last hidden states [N, width] at the N positions of `batch.loss_mask` in row order.

    `model` is a causal language model of transformers, bare or wrapped by PEFT.
    """
    decoder = _causal(model).get_decoder()
    shared = batch.shared_prefix
    # Padding is on the right, so causality alone keeps it out; without a mask attention takes its fast path.
    if shared < _SHORTEST_PREFIX:
        output = decoder(input_ids=batch.input_ids, position_ids=batch.position_ids, use_cache=False)
        return output.last_hidden_state[batch.loss_mask]
    cache = DynamicCache()
    decoder(
        input_ids=batch.input_ids[:1, :shared],
        position_ids=batch.position_ids[:1, :shared],
        past_key_values=cache,
        use_cache=True,
    )
    for layer in cache.layers:
        layer.keys = layer.keys.expand(len(batch.input_ids), -1, -1, -1)
        layer.values = layer.values.expand(len(batch.input_ids), -1, -1, -1)
    output = decoder(
        input_ids=batch.input_ids[:, shared:],
        position_ids=batch.position_ids[:, shared:],
        past_key_values=cache,
        use_cache=True,
    )
    return output.last_hidden_state[batch.loss_mask[:, shared:]]


def completion_cross_entropy(model: Any, batch: Batch) -> tuple[Tensor, int]:
    """Sum of the cross-entropy (nats, fp32) over completion tokens, and their number.

    The output matrix must be frozen.
    """
    weight = _causal(model).get_output_embeddings().weight
    targets = batch.targets
    return _LinearCrossEntropy.apply(selected_hidden(model, batch), weight, targets), len(targets)


def completion_divergence(
    model: Any, batch: Batch, teacher_hidden: Tensor, teacher_weight: Tensor
) -> tuple[Tensor, int]:
    """Sum of KL(teacher || model) in nats, fp32, over completion tokens, and their number.

    Both output matrices must be frozen.

    Args:
        teacher_hidden: the teacher's last hidden states [N, width] at the positions of `batch.loss_mask`.
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
            log_probabilities = torch.log_softmax(hidden[rows] @ weight.T, dim=-1, dtype=torch.float32)
            total -= log_probabilities.gather(1, wanted).sum()
            error = log_probabilities.exp_()
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
