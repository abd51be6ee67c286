"""Weighted k-means, palettization of a tensor, int8 rows."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.palettization.codebooks import palettize, quantize_rows
from adapters.palettization.kmeans import nearest, weighted_kmeans
from infra.errors import FactoryError


def error(weight: torch.Tensor, dense: torch.Tensor, sensitivity: torch.Tensor) -> float:
    return float((sensitivity * (weight - dense) ** 2).sum())


def optimum(values: torch.Tensor, weights: torch.Tensor, k: int) -> float:
    """The least possible weighted square error of one row, by dynamic programming over single values."""
    ordered, order = values.double().sort()
    mass = torch.nn.functional.pad(weights.double()[order].cumsum(0), (1, 0))
    moment = torch.nn.functional.pad((weights.double()[order] * ordered).cumsum(0), (1, 0))
    explained = (moment.unsqueeze(0) - moment.unsqueeze(1)) ** 2 / (mass.unsqueeze(0) - mass.unsqueeze(1))
    explained[torch.ones_like(explained, dtype=torch.bool).tril()] = -torch.inf
    best = explained[0]
    for _ in range(k - 1):
        best = (best.unsqueeze(1) + explained).max(0).values
    return float((weights.double() * values.double() ** 2).sum() - best[-1])


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), k=st.sampled_from([2, 4, 16]), n=st.integers(20, 400))
def test_kmeans_is_near_the_optimum_and_ascends(seed: int, k: int, n: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(3, n, generator=generator)
    weights = torch.rand(3, n, generator=generator) + 1e-3
    centroids = weighted_kmeans(values, weights, k)
    assert (centroids.diff(dim=1) >= 0).all()
    assigned = nearest(values, centroids).long()
    distances = (values.unsqueeze(2) - centroids.unsqueeze(1)).abs()
    assert torch.equal(distances.gather(2, assigned.unsqueeze(2)).squeeze(2), distances.amin(2))
    for group in range(3):
        found = error(values[group], centroids[group][assigned[group]], weights[group])
        # Two values in one bin cannot be told apart: a thousandth of the square root's range.
        assert found <= 1.02 * optimum(values[group], weights[group], k) + 1e-4 * n


@pytest.mark.parametrize(("k", "most"), [(64, 1.15), (256, 1.6)])
def test_many_clusters_are_all_used(k: int, most: float) -> None:
    """Within some percent of what a quantiser of k levels can reach at best for a normal distribution (Panter-Dite)."""
    values = torch.randn(2, 20_000, generator=torch.Generator().manual_seed(0))
    centroids = weighted_kmeans(values, torch.ones_like(values), k)
    found = error(values, centroids.gather(1, nearest(values, centroids).long()), torch.ones_like(values))
    assert found / values.numel() <= most * 3**0.5 * torch.pi / 2 / k**2


def test_kmeans_finds_clusters_that_are_there() -> None:
    truth = torch.tensor([-3.0, -1.0, 0.5, 4.0])
    values = (truth.repeat(50) + 0.01 * torch.randn(200, generator=torch.Generator().manual_seed(0))).unsqueeze(0)
    assert torch.allclose(weighted_kmeans(values, torch.ones_like(values), 4)[0], truth, atol=0.02)


@pytest.mark.parametrize("seed", range(5))
def test_kmeans_is_near_the_optimum_with_outliers_that_weigh_much(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(1, 600, generator=generator) * (1 + 6 * (torch.rand(1, 600, generator=generator) > 0.98))
    weights = (3 * torch.randn(1, 600, generator=generator)).exp()
    centroids = weighted_kmeans(values, weights, 16)
    found = error(values, centroids.gather(1, nearest(values, centroids).long()), weights)
    assert found <= 1.02 * optimum(values[0], weights[0], 16)


def test_equal_values_and_zero_weights_do_no_harm() -> None:
    weight = torch.full((4, 8), 0.25)
    assert torch.equal(palettize("w", weight, torch.zeros(4, 8), 4, 4).dense(torch.float32), weight)


def test_sensitivities_move_the_table_to_what_matters() -> None:
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(16, 64, generator=generator)
    sensitivity = torch.where(weight > 1, 1.0, 0.01)
    aware = palettize("w", weight, sensitivity, 2, 16).dense(torch.float32)
    plain = palettize("w", weight, torch.ones_like(weight), 2, 16).dense(torch.float32)
    assert error(weight, aware, sensitivity) < 0.8 * error(weight, plain, sensitivity)
    assert error(weight, aware, torch.ones_like(weight)) > error(weight, plain, torch.ones_like(weight))


def test_finer_groups_and_more_bits_lower_the_error() -> None:
    weight = torch.randn(32, 64, generator=torch.Generator().manual_seed(2))
    ones = torch.ones_like(weight)
    errors = [
        error(weight, palettize("w", weight, ones, *s).dense(torch.float32), ones) for s in ((2, 32), (4, 32), (4, 4))
    ]
    assert errors[0] > errors[1] > errors[2]


def test_every_weight_has_the_nearest_entry_that_ships() -> None:
    weight = torch.randn(8, 32, generator=torch.Generator().manual_seed(3))
    made = palettize("w", weight, torch.ones_like(weight), 4, 8)
    assert made.lut.dtype == torch.float16 and made.indices.dtype == torch.uint8 and made.index_bits == 4
    best = (weight.reshape(1, -1, 1) - made.lut.float().mT).abs().amin(2).view(8, 32)
    assert torch.allclose((weight - made.dense(torch.float32)).abs(), best, atol=1e-6)


@pytest.mark.parametrize(("shape", "group_size", "what"), [((6, 8), 4, "6 output channels"), ((8, 3), 4, "3 indices")])
def test_a_tensor_that_does_not_divide_is_refused_by_name(shape: tuple[int, int], group_size: int, what: str) -> None:
    with pytest.raises(FactoryError, match=rf"model\.odd: {what}"):
        palettize("model.odd", torch.zeros(shape), torch.ones(shape), 4, group_size)


def test_int8_rows_are_within_half_a_step() -> None:
    weight = torch.randn(20, 64, generator=torch.Generator().manual_seed(4))
    weight[3] = 0
    values, scales = quantize_rows(weight)
    assert values.dtype == torch.int8 and scales.dtype == torch.float16
    dense = values.float() * scales.float().unsqueeze(1)
    assert ((weight - dense).abs() <= 0.51 * scales.float().unsqueeze(1)).all()
    assert torch.equal(dense[3], weight[3])
