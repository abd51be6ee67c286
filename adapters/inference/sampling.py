"""Draw the next tokens from logits with uniform numbers that the caller supplies.

The numbers come from each prompt's own seed, so a draw does not depend on which other prompts share the batch.
Top-p (nucleus) sampling: Holtzman et al. 2020, https://arxiv.org/abs/1904.09751.
"""

import hashlib

import torch
from torch import Tensor

from adapters.inference.types import Prompt, Sampling
from infra.canonical import canonical_json

_FIRST_TOP_K = 64


def uniforms(prompt: Prompt, candidate: int, sampling: Sampling) -> list[float]:
    """A number in [0, 1) for each token of one candidate, decided by the seed, the prompt's text and `candidate`."""
    name = canonical_json([sampling.seed, prompt.system, prompt.user, candidate])
    seed = int.from_bytes(hashlib.sha256(name).digest()[:7], "big")
    generator = torch.Generator().manual_seed(seed)
    drawn: list[float] = torch.rand(sampling.max_new_tokens, generator=generator, dtype=torch.float64).tolist()
    return drawn


def draw(logits: Tensor, temperature: float, top_p: float, numbers: Tensor) -> tuple[Tensor, Tensor]:
    """Next tokens [n] and their log-probabilities [n] from fp32 logits [n, vocabulary] and numbers [n] in [0, 1).

    The log-probability is the model's own, before temperature and top-p. Temperature 0 takes the likeliest token.
    """
    if temperature == 0:
        tokens = logits.argmax(-1)
    else:
        probabilities = torch.softmax(logits / temperature, dim=-1)
        tokens = _nucleus(probabilities, top_p, numbers) if top_p < 1 else _inverse(probabilities, numbers)
    chosen = logits.gather(1, tokens[:, None])[:, 0]
    return tokens, chosen - logits.logsumexp(-1)


def _inverse(weights: Tensor, numbers: Tensor) -> Tensor:
    """The first index at which the cumulated weight exceeds the number's share of the row's sum."""
    cumulated = weights.cumsum(-1, dtype=torch.float64)
    target = numbers[:, None].to(cumulated) * cumulated[:, -1:]
    return torch.searchsorted(cumulated, target, right=True)[:, 0].clamp_(max=weights.shape[1] - 1)


def _nucleus(probabilities: Tensor, top_p: float, numbers: Tensor) -> Tensor:
    """A draw from the smallest set of likeliest tokens whose probabilities reach `top_p`.

    Sorting the vocabulary would cost more than a layer; mostly a few tokens suffice, and if not, more are taken.
    """
    vocabulary = probabilities.shape[1]
    count = min(_FIRST_TOP_K, vocabulary)
    while True:
        values, indices = probabilities.topk(count, dim=-1)
        before = values.cumsum(-1) - values
        if count == vocabulary or bool((before[:, -1] >= top_p).all()):
            break
        count = min(count * 8, vocabulary)
    weights = values.masked_fill(before >= top_p, 0.0)
    return indices.gather(1, _inverse(weights, numbers)[:, None])[:, 0]
