"""How far a model is from the full-precision base on held-out text."""

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

_WINDOWS_PER_PASS = 2


@dataclass(frozen=True)
class Quality:
    """Figures per token of a text.

    `kl`: mean divergence KL(base || model) in nats. `perplexity` under the model, `base_perplexity` under the base.
    """

    kl: float
    perplexity: float
    base_perplexity: float


@torch.inference_mode()
def measure_quality(base: Any, model: Any, windows: Tensor) -> Quality:
    """Compare next-token distributions on token ids [sequences, tokens]; both models have the same vocabulary."""
    divergence = loss = base_loss = 0.0
    for batch in windows.to(model.device).split(_WINDOWS_PER_PASS):
        expected, given = _log_probabilities(base, batch), _log_probabilities(model, batch)
        targets = batch[:, 1:].flatten()
        divergence += F.kl_div(given, expected, log_target=True, reduction="sum").item()
        loss += F.nll_loss(given, targets, reduction="sum").item()
        base_loss += F.nll_loss(expected, targets, reduction="sum").item()
    tokens = windows[:, 1:].numel()
    return Quality(divergence / tokens, math.exp(loss / tokens), math.exp(base_loss / tokens))


def _log_probabilities(model: Any, batch: Tensor) -> Tensor:
    """[sequences * (tokens - 1), vocabulary], fp32."""
    logits = model(batch, use_cache=False).logits[:, :-1]
    return logits.float().log_softmax(-1).flatten(0, 1)
