"""Palettized weights on disk: packing, bits per weight, loading, refusals; sensitivities and quality."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from adapters.inference.models import load_model, load_tokenizer
from adapters.palettization.layers import linear_names
from adapters.palettization.palettize import write_palettized
from adapters.palettization.quality import measure_quality
from adapters.palettization.recipe import PalettizationSection
from adapters.palettization.release import (
    WEIGHTS,
    load_release,
    pack,
    read_palettized,
    unpack,
)
from adapters.palettization.sensitivities import SENSITIVITIES, fisher_diagonal
from adapters.palettization.text import FrozenText
from infra.errors import FactoryError
from tests.tiny import make_tiny_base, write_fisher

TEXT = FrozenText(file="calibration-1.txt", tokens=256, window=32)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_base(tmp_path_factory.mktemp("tiny") / "base")


@pytest.fixture(scope="module")
def sensitivities(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sensitivities")
    write_fisher(base, TEXT, folder)
    return folder


@pytest.fixture(scope="module")
def palettized(base: Path, sensitivities: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("palettized")
    write_palettized(base, sensitivities, sensitivities, PalettizationSection(group_sizes=[4]), folder, "cpu")
    return folder


@settings(max_examples=30, deadline=None)
@given(bits=st.sampled_from([1, 2, 4, 6, 8]), rows=st.integers(1, 5), eights=st.integers(1, 9), seed=st.integers(0, 99))
def test_packing_is_lossless_and_as_small_as_it_says(bits: int, rows: int, eights: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    indices = torch.randint(0, 2**bits, (rows, eights * 8), generator=generator).to(torch.uint8)
    packed = pack(indices, bits)
    assert packed.numel() * 8 == indices.numel() * bits
    assert torch.equal(unpack(packed, bits), indices)


def test_fisher_is_the_mean_squared_gradient_of_each_token(base: Path) -> None:
    """Against autograd's own weight gradients, with one token a sequence, where both have but one definition."""
    model = load_model(base, torch.float32)
    window = torch.arange(7).unsqueeze(1)
    found = fisher_diagonal(model, window, seed=5)
    generator = torch.Generator().manual_seed(5)
    expected = {name: torch.zeros_like(total) for name, total in found.items()}
    for batch in window.split(4):
        labels = torch.multinomial(model(batch).logits[:, 0].softmax(-1), 1, generator=generator)[:, 0]
        for token, label in zip(batch, labels, strict=True):
            model.requires_grad_(True).zero_grad()
            torch.nn.functional.cross_entropy(model(token.unsqueeze(0)).logits[0], label.unsqueeze(0)).backward()
            for name in expected:
                expected[name] += model.get_submodule(name).weight.grad.square() / len(window)
    assert set(found) == set(linear_names(model.config.num_hidden_layers))
    for name in found:
        assert torch.allclose(found[name], expected[name], rtol=1e-3, atol=1e-12), name


def test_sensitivities_repeat_exactly(base: Path, sensitivities: Path, tmp_path: Path) -> None:
    write_fisher(base, TEXT, tmp_path)
    assert (tmp_path / SENSITIVITIES).read_bytes() == (sensitivities / SENSITIVITIES).read_bytes()


def test_bits_per_weight_agree_with_the_bytes_written(base: Path, palettized: Path) -> None:
    stored = read_palettized(palettized)
    adapter = {"a": torch.zeros(16, 64, dtype=torch.float16)}
    bits = stored.bits_per_weight(adapter)
    on_disk = load_file(palettized / WEIGHTS)
    weights = sum(p.numel() for p in load_model(base, torch.float32).parameters())
    total = sum(t.numel() * t.element_size() for t in on_disk.values())
    header = (palettized / WEIGHTS).stat().st_size - total
    assert 0 < header < 8 + 200 * len(on_disk)
    assert bits.all == pytest.approx(8 * total / weights)
    assert bits.all_with_recovery == pytest.approx((8 * total + 16 * 16 * 64) / weights)
    # 4-bit indices, and for each group of 4 rows a table of 16 fp16 values.
    tables = sum(256 / (4 * layer.indices.shape[1]) * layer.indices.numel() for layer in stored.linear.values())
    assert bits.linear == pytest.approx(4 + tables / sum(layer.indices.numel() for layer in stored.linear.values()))


def test_loaded_release_computes_with_the_codebooks(base: Path, palettized: Path) -> None:
    model = load_release(palettized, torch.float32)
    stored = read_palettized(palettized)
    for name, layer in stored.linear.items():
        weight = model.get_submodule(name).weight
        assert torch.equal(weight, layer.dense(torch.float32))
        assert all(len(group.unique()) <= 16 for group in weight.split(4))
    assert model.get_output_embeddings().weight.data_ptr() == model.get_input_embeddings().weight.data_ptr()
    assert not any(p.requires_grad for p in model.parameters())
    assert load_tokenizer(palettized)("hello").input_ids == load_tokenizer(base)("hello").input_ids


def test_quality_is_zero_for_the_base_itself_and_grows_with_coarser_groups(
    base: Path, sensitivities: Path, palettized: Path, tmp_path: Path
) -> None:
    full = load_model(base, torch.float32)
    windows = TEXT.windows(load_tokenizer(base))
    itself = measure_quality(full, full, [windows])
    assert itself.kl == pytest.approx(0, abs=1e-6) and itself.perplexity == pytest.approx(itself.base_perplexity)
    write_palettized(
        base, sensitivities, sensitivities, PalettizationSection(bits=[2], group_sizes=[32]), tmp_path, "cpu"
    )
    coarse = measure_quality(full, load_release(tmp_path, torch.float32), [windows])
    fine = measure_quality(full, load_release(palettized, torch.float32), [windows])
    assert 0 < fine.kl < coarse.kl


def test_a_group_size_that_does_not_divide_is_refused_by_name(tmp_path: Path) -> None:
    base = make_tiny_base(tmp_path / "base", hidden=48)
    write_fisher(base, TEXT, tmp_path)
    with pytest.raises(FactoryError, match=r"model\.layers\.0\.self_attn\.q_proj: 48 output channels"):
        write_palettized(base, tmp_path, tmp_path, PalettizationSection(group_sizes=[32]), tmp_path, "cpu")


@pytest.mark.parametrize("change", [{"tie_word_embeddings": False}, {"attention_bias": True}, {"hidden_act": "gelu"}])
def test_another_architecture_is_refused_in_one_line(tmp_path: Path, change: dict[str, object]) -> None:
    base = make_tiny_base(tmp_path / "base")
    model = load_model(base, torch.float32)
    for name, value in change.items():
        setattr(model.config, name, value)
    model.config.save_pretrained(base)
    with pytest.raises(FactoryError, match=next(iter(change))):
        write_fisher(base, TEXT, tmp_path)


def test_an_incomplete_release_is_refused(palettized: Path, tmp_path: Path) -> None:
    with pytest.raises(FactoryError, match=r"palettized\.safetensors"):
        load_release(tmp_path, torch.float32)
    for file in palettized.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    tensors = load_file(tmp_path / WEIGHTS)
    del tensors["model.layers.1.mlp.up_proj.lut"]
    save_file(tensors, tmp_path / WEIGHTS)
    with pytest.raises(FactoryError, match=r"no tensor 'model\.layers\.1\.mlp\.up_proj\.lut'"):
        load_release(tmp_path, torch.float32)
