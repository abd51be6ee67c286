"""Error-compensating assignment, and the choice of formats under a budget."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.inference.models import load_model
from adapters.palettization.allocation import Format, Option, allocate, format_size, predict
from adapters.palettization.assignment import Curvature, Part, compensate, compensate_together, damped
from adapters.palettization.codebooks import palettize
from adapters.palettization.palettize import palettize_apart, palettize_in_order
from adapters.palettization.quality import measure_quality
from infra.errors import FactoryError
from tests.tiny import make_tiny_base


def problem(seed: int, rows: int = 32, columns: int = 48) -> tuple[torch.Tensor, Curvature]:
    """A random weight and the curvature of inputs that are correlated, as those of real layers are."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(columns, columns, generator=generator) / 4 + torch.eye(columns)
    x = torch.randn(4 * columns, columns, generator=generator) @ mixing
    weight = torch.randn(rows, columns, generator=generator)
    return weight, Curvature(damped(x.T @ x / len(x)), torch.rand(rows, generator=generator) + 0.1)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), bits=st.sampled_from([2, 3, 4]))
def test_compensation_lowers_the_error_and_more_rounds_do_not_raise_it(seed: int, bits: int) -> None:
    weight, curvature = problem(seed)
    start = palettize("w", weight, torch.ones_like(weight), bits, 16)
    errors = [curvature.error(weight, start.dense(torch.float32))]
    for rounds in range(3):
        better = compensate(weight, curvature, start, rounds)
        assert better.lut.shape == start.lut.shape and better.indices.shape == start.indices.shape
        errors.append(curvature.error(weight, better.dense(torch.float32)))
    assert errors[1] < 0.9 * errors[0]
    assert errors[2] <= errors[1] * 1.001 and errors[3] <= errors[2] * 1.001  # tables are rounded to fp16


@pytest.mark.parametrize("bits", [3, 4])
def test_weights_that_are_compensated_together_become_what_each_becomes_by_itself(bits: int) -> None:
    parts = []
    for seed, size in enumerate((4, 8, 32)):
        weight, curvature = problem(seed)
        parts.append(Part(weight, curvature.rows, palettize("w", weight, torch.ones_like(weight), bits, size)))
    hessian = curvature.hessian
    for part, made in zip(parts, compensate_together(hessian, parts), strict=True):
        own = Curvature(hessian, part.rows)
        alone = compensate(part.weight, own, part.start)
        assert made.lut.shape == part.start.lut.shape
        errors = [own.error(part.weight, one.dense(torch.float32)) for one in (made, alone)]
        assert errors[0] == pytest.approx(errors[1], rel=1e-3)


def test_without_correlation_nothing_is_to_be_gained() -> None:
    weight, _ = problem(0)
    curvature = Curvature(torch.eye(48), torch.ones(32))
    start = palettize("w", weight, torch.ones_like(weight), 4, 16)
    better = compensate(weight, curvature, start, rounds=0)
    assert torch.equal(better.indices, start.indices)


def test_pairs_reach_less_error_than_two_bits_and_more_than_four() -> None:
    weight, _ = problem(1, rows=32, columns=256)
    ones = torch.ones_like(weight)
    errors = [
        (palettize("w", weight, ones, bits, 32).dense(torch.float32) - weight).square().sum() for bits in (2, 3, 4)
    ]
    assert errors[0] > 2 * errors[1] > 4 * errors[2]
    pairs = palettize("w", weight, ones, 3, 32)
    assert pairs.index_bits == 6 and pairs.lut.shape == (1, 64, 2) and pairs.shape == (32, 256)


def test_layers_in_order_lose_less_than_layers_apart(tmp_path_factory: pytest.TempPathFactory) -> None:
    base = make_tiny_base(tmp_path_factory.mktemp("base"))
    full = load_model(base, torch.float32)
    windows = torch.randint(0, 512, (16, 32), generator=torch.Generator().manual_seed(0))
    held_out = torch.randint(0, 512, (16, 32), generator=torch.Generator().manual_seed(1))
    names = [name for name, _ in full.named_modules() if name.endswith("_proj")]
    formats = dict.fromkeys(names, Format(2, 16))

    def divergence(in_order: bool) -> float:
        model = load_model(base, torch.float32)

        def equal(name: str) -> torch.Tensor:
            return torch.ones_like(model.get_submodule(name).weight)

        if in_order:
            made = palettize_in_order(model, windows, equal, formats)
        else:
            made = palettize_apart(model, equal, formats)
        for name, layer in made.items():
            model.get_submodule(name).weight.data.copy_(layer.dense(torch.float32))
        return measure_quality(full, model, [held_out]).kl

    assert divergence(in_order=True) < 0.8 * divergence(in_order=False)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), budget=st.floats(0, 1))
def test_the_allocation_is_the_best_there_is(seed: int, budget: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.randint(1, 50, (4, 3), generator=generator).tolist()
    losses = torch.rand(4, 3, generator=generator).tolist()
    options = {
        str(tensor): [Option(Format(choice, 4), sizes[tensor][choice], losses[tensor][choice]) for choice in range(3)]
        for tensor in range(4)
    }
    least, most = sum(map(min, sizes)), sum(map(max, sizes))
    limit = least + budget * (most - least)
    chosen = allocate(options, limit)
    assert sum(sizes[int(name)][form.bits] for name, form in chosen.items()) <= limit * (1 + 1e-6)
    best = min(
        sum(losses[tensor][choice] for tensor, choice in enumerate(choices))
        for choices in itertools.product(range(3), repeat=4)
        if sum(sizes[tensor][choice] for tensor, choice in enumerate(choices)) <= limit
    )
    assert sum(losses[int(name)][form.bits] for name, form in chosen.items()) == pytest.approx(best, rel=1e-3)


def test_a_target_below_the_smallest_formats_is_refused() -> None:
    with pytest.raises(FactoryError, match="raise the target"):
        allocate({"w": [Option(Format(2, 16), 100, 1.0)]}, 99)


def test_what_will_be_compensated_is_predicted_so() -> None:
    weight, metric = problem(2, rows=256, columns=64)
    rows = torch.rand(256, generator=torch.Generator().manual_seed(3)) + 0.1
    cost = Curvature(metric.hessian, rows)
    form = Format(3, 8)
    even = torch.ones_like(weight)
    (option,) = predict("w", weight, even, [form], cost)
    start = palettize("w", weight, even, *form)
    exact = cost.error(weight, compensate(weight, cost, start).dense(torch.float32)) / 2
    assert option.loss == pytest.approx(exact, rel=0.1)
    assert option.loss < 0.9 * cost.error(weight, start.dense(torch.float32)) / 2


def test_a_format_that_does_not_divide_is_refused_by_name() -> None:
    with pytest.raises(FactoryError, match="q_proj: 12 output channels do not divide by group_size 8"):
        predict("q_proj", torch.ones(12, 8), torch.ones(12, 8), [Format(4, 8)])


@pytest.mark.parametrize("form", [Format(1, 8), Format(3, 32), Format(4, 4), Format(6, 16)])
def test_the_size_of_a_format_is_what_it_takes(form: Format) -> None:
    weight, _ = problem(2, rows=64, columns=64)
    made = palettize("w", weight, torch.ones_like(weight), *form)
    taken = made.indices.numel() * made.index_bits + made.lut.numel() * 16
    assert format_size((64, 64), form) == taken
    (option,) = predict("w", weight, torch.ones_like(weight), [form])
    assert option.size == taken
    exact = (weight - made.dense(torch.float32)).square().sum().item() / 2
    assert option.loss == pytest.approx(exact, rel=0.2)
