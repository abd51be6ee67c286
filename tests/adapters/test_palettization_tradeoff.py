"""The trade-off: more bits cost bytes and buy quality, every target is kept, and the page shows it."""

import json
from pathlib import Path
from typing import Any

import pytest

from adapters.evaluation.tradeoff_report import bits_by_layer, write_tradeoff_report
from adapters.palettization.stages import exploration_stages
from adapters.palettization.tradeoff import TRADEOFF
from infra.store import Store
from tests.adapters.test_palettization_stages import recipe_with
from tests.tiny import make_tiny_base


@pytest.fixture(scope="module")
def tradeoff(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("tradeoff")
    base = make_tiny_base(folder / "base", hidden=128)
    store = Store(folder / "store")
    # Enough tokens that top-1 agreement tells two bits from six.
    recipe = recipe_with(gates={"text": {"file": "held-out-1.txt", "tokens": 512, "window": 32}})
    stages = exploration_stages(base, "0" * 64, recipe, store)
    output = [store.build(stage) for stage in stages][-1].path
    content: dict[str, Any] = json.loads((output / TRADEOFF).read_text("utf-8"))
    return content


def test_every_point_keeps_its_target_and_more_bits_are_better(tradeoff: dict[str, Any]) -> None:
    points = tradeoff["points"]
    assert len(points) > 4
    for point in points:
        assert -1e-9 < point["target"] - point["bits_per_weight"] < 0.3
        assert len(point["formats"]) == 14
    for name, rises in (("mb", True), ("predicted", False)):
        values = [point[name] for point in points]
        assert values == sorted(values, reverse=not rises), name
    # Two neighbours may differ by less than the prediction is off on so small a model.
    measured = [point["kl"] for point in points]
    assert all(later < earlier for earlier, later in zip(measured, measured[2:], strict=False))
    assert points[-1]["perplexity"] == pytest.approx(tradeoff["base_perplexity"], rel=0.05)
    assert points[0]["top1"] < points[-1]["top1"]


def test_the_page_shows_every_point_and_the_release_in_use(tradeoff: dict[str, Any], tmp_path: Path) -> None:
    current = {"bpw_linear": 4.1, "kl_palettized": 0.2, "kl_recovered": 0.1, "top1_palettized": 0.8}
    write_tradeoff_report(tradeoff, current, tmp_path)
    page = (tmp_path / "tradeoff.html").read_text("utf-8")
    for point in tradeoff["points"]:
        assert f"{point['bits_per_weight']:.3f}" in page and f"{point['mb']:.3f}" in page
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {
        "curve.png",
        "curve-dark.png",
        "allocations.png",
        "allocations-dark.png",
    }


def test_allocations_are_drawn_by_projection_and_layer() -> None:
    formats = {
        "model.layers.0.self_attn.q_proj": (4, 8),
        "model.layers.0.mlp.up_proj": (2, 16),
        "model.layers.1.self_attn.q_proj": (6, 8),
        "model.layers.1.mlp.up_proj": (3, 16),
    }
    assert bits_by_layer(formats) == (["q", "up"], [[4, 6], [2, 3]])
