"""The distillation loss and the recovery adapter."""

import json
from pathlib import Path

import pytest
import torch

from adapters.inference.models import load_model, load_tokenizer
from adapters.palettization.codebooks import Palettized
from adapters.palettization.distillation import distillation_loss
from adapters.palettization.palettize import write_palettized
from adapters.palettization.quality import measure_quality
from adapters.palettization.recipe import PalettizationSection, RecoverySection, TuningSection
from adapters.palettization.recovery import STEPS, train_recovery
from adapters.palettization.release import PalettizedModel, load_release, read_palettized, write_weights
from adapters.palettization.text import FrozenText
from adapters.palettization.tuning import tune_tables
from adapters.training.batching import Batch, Encoded
from adapters.training.lora import load_adapter
from tests.tiny import make_tiny_base, write_fisher

TEXT = FrozenText(file="calibration-1.txt", tokens=512, window=32)
SECTION = RecoverySection(tokens=512, rank=8, steps=40, batch_tokens=256, learning_rate=3e-3)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_base(tmp_path_factory.mktemp("tiny") / "base")


@pytest.fixture(scope="module")
def palettized(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("palettized")
    write_fisher(base, TEXT, folder)
    write_palettized(base, folder, folder, PalettizationSection(bits=[2], group_sizes=[32]), folder, "cpu")
    return folder


def test_the_loss_is_the_divergence_from_the_teacher(base: Path, palettized: Path) -> None:
    teacher, student = load_model(base, torch.float32), load_release(palettized, torch.float32)
    windows = TEXT.windows(load_tokenizer(base))[:4]
    batch = Batch(tuple(Encoded(ids, 1) for ids in windows.tolist()))
    loss = distillation_loss(teacher)
    itself, count = loss(teacher, batch)
    assert count == 4 * 31 and itself.item() / count == pytest.approx(0, abs=1e-6)
    expected = measure_quality(teacher, student, [windows]).kl
    for _ in range(2):  # the second time from the kept hidden states
        total, count = loss(student, batch)
        assert total.item() / count == pytest.approx(expected, rel=1e-3)


def test_recovery_brings_the_palettized_model_nearer_to_the_base(base: Path, palettized: Path, tmp_path: Path) -> None:
    train_recovery(
        base, palettized, palettized, "0" * 64, SECTION, tmp_path, tmp_path / "scratch", torch.float32, "cpu"
    )
    windows = FrozenText(file="held-out-1.txt", tokens=512, window=32).windows(load_tokenizer(base))
    teacher, model = load_model(base, torch.float32), load_release(palettized, torch.float32)
    before = measure_quality(teacher, model, [windows]).kl
    after = measure_quality(teacher, load_adapter(model, tmp_path), [windows]).kl
    assert after < 0.9 * before
    steps = json.loads((tmp_path / STEPS).read_text())
    assert len(steps) == SECTION.steps and steps[-1]["divergence"] < steps[0]["divergence"]
    assert json.loads((tmp_path / "adapter_config.json").read_text())["r"] == 8


def test_the_same_inputs_give_the_same_bytes(base: Path, palettized: Path, tmp_path: Path) -> None:
    section = SECTION.model_copy(update={"steps": 3})
    folders = [tmp_path / name for name in ("one", "two")]
    for folder in folders:
        folder.mkdir()
        train_recovery(
            base, palettized, palettized, "0" * 64, section, folder, folder / "scratch", torch.bfloat16, "cpu"
        )
    for name in ("adapter_model.safetensors", "adapter_config.json", STEPS):
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()


def test_tuning_mends_spoilt_tables_and_leaves_the_indices(base: Path, palettized: Path, tmp_path: Path) -> None:
    stored = read_palettized(palettized)
    spoilt, tuned = tmp_path / "spoilt", tmp_path / "tuned"
    for folder in (spoilt, tuned):
        folder.mkdir()
    halved = {name: Palettized(layer.indices, layer.lut / 2) for name, layer in stored.linear.items()}
    write_weights(PalettizedModel(stored.config, halved, stored.embedding, stored.norms), palettized, spoilt)
    section = TuningSection(tokens=512, steps=40, batch_tokens=256, learning_rate=0.05)
    tune_tables(base, spoilt, palettized, section, tuned, tmp_path / "scratch", torch.float32, "cpu")
    after = read_palettized(tuned)
    assert all(torch.equal(layer.indices, after.linear[name].indices) for name, layer in halved.items())
    windows = FrozenText(file="held-out-1.txt", tokens=512, window=32).windows(load_tokenizer(base))
    teacher = load_model(base, torch.float32)
    bad, good = (measure_quality(teacher, load_release(f, torch.float32), [windows]).kl for f in (spoilt, tuned))
    assert good < 0.5 * bad
    assert load_tokenizer(tuned)("hello").input_ids == load_tokenizer(base)("hello").input_ids
