"""How far a model is from the full-precision base on held-out text."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

_SEQUENCES_PER_PASS = 2


@dataclass(frozen=True)
class Quality:
    """Figures per token of a text.

    `kl`: mean divergence KL(base || model) in nats. `perplexity` under the model, `base_perplexity` under the base.
    `top1`: share of positions where both give the same token the highest probability.
    """

    kl: float
    perplexity: float
    base_perplexity: float
    top1: float


@torch.inference_mode()
def measure_quality(base: Any, model: Any, texts: Iterable[Tensor]) -> Quality:
    """Compare next-token distributions on texts, token ids [sequences, tokens]; both have the same vocabulary."""
    divergence = loss = base_loss = 0.0
    same = tokens = 0
    batches = (batch for text in texts for batch in text.to(model.device).split(_SEQUENCES_PER_PASS))
    for batch in batches:
        tokens += batch[:, 1:].numel()
        expected, given = _log_probabilities(base, batch), _log_probabilities(model, batch)
        targets = batch[:, 1:].flatten()
        divergence += F.kl_div(given, expected, log_target=True, reduction="sum").item()
        loss += F.nll_loss(given, targets, reduction="sum").item()
        base_loss += F.nll_loss(expected, targets, reduction="sum").item()
        same += int((given.argmax(-1) == expected.argmax(-1)).sum())
    return Quality(divergence / tokens, math.exp(loss / tokens), math.exp(base_loss / tokens), same / tokens)


def _log_probabilities(model: Any, batch: Tensor) -> Tensor:
    """[sequences * (tokens - 1), vocabulary], fp32."""
    logits = model(batch, use_cache=False).logits[:, :-1]
    return logits.float().log_softmax(-1).flatten(0, 1)
