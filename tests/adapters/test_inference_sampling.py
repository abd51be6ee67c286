"""Draws from logits: the right distribution, the right nucleus, the right order."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from adapters.inference.sampling import draw, uniforms
from adapters.inference.types import Prompt, Sampling


def many(logits: torch.Tensor, temperature: float, top_p: float, draws: int = 5000) -> torch.Tensor:
    """Shares of each token over evenly spread numbers."""
    numbers = (torch.arange(draws, dtype=torch.float64) + 0.5) / draws
    tokens, _ = draw(logits.expand(draws, -1), temperature, top_p, numbers)
    return torch.bincount(tokens, minlength=logits.shape[-1]) / draws


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_shares_are_the_softmax(temperature: float) -> None:
    logits = torch.tensor([[1.0, -2.0, 0.5, 3.0, 0.0]])
    assert torch.allclose(many(logits, temperature, 1.0), torch.softmax(logits[0] / temperature, -1), atol=1e-3)


def test_nucleus_is_the_smallest_set_that_reaches_top_p() -> None:
    probabilities = torch.tensor([0.05, 0.5, 0.1, 0.3, 0.05])
    shares = many(probabilities.log()[None], 1.0, 0.75)
    assert torch.allclose(shares, torch.tensor([0, 0.5, 0, 0.3, 0]) / 0.8, atol=1e-3)


def test_flat_distribution_needs_more_than_the_first_tokens() -> None:
    shares = many(torch.zeros(1, 1000), 1.0, 0.9)
    assert (shares > 0).sum() == 900


@given(st.integers(0, 10_000), st.floats(0.05, 1.0), st.floats(0, 1, exclude_max=True))
def test_a_draw_has_probability_and_lies_in_the_nucleus(seed: int, top_p: float, number: float) -> None:
    logits = torch.randn(1, 300, generator=torch.Generator().manual_seed(seed)) * 4
    tokens, logprobs = draw(logits, 1.0, top_p, torch.tensor([number], dtype=torch.float64))
    probabilities = torch.softmax(logits[0], -1)
    likelier = probabilities[probabilities > probabilities[tokens[0]]].sum()
    assert likelier < top_p + 1e-5
    assert logprobs[0] == pytest.approx(probabilities[tokens[0]].log().item(), abs=1e-4)


def test_numbers_come_from_the_prompt_the_candidate_and_the_seed() -> None:
    sampling, prompt = Sampling(5), Prompt("a", "b")
    first = uniforms(prompt, 0, sampling)
    assert first == uniforms(Prompt("a", "b"), 0, sampling) and len(first) == 5
    others = [
        uniforms(prompt, 1, sampling),
        uniforms(Prompt("ab", ""), 0, sampling),
        uniforms(prompt, 0, Sampling(5, seed=1)),
    ]
    assert first not in others
