"""The Core AI asset: the exported module, LoRA inputs, and the asset itself run on this machine."""

import itertools
import json
import shutil
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

from adapters.device.coreai_export import cache_shape, export_aimodel, lora_shapes
from adapters.device.coreai_lora import lora_inputs, no_adapter
from adapters.device.coreai_model import PalettizedLlama
from adapters.device.coreai_verify import psnr, verify_aimodel
from adapters.palettization.codebooks import palettize
from adapters.palettization.palettize import write_palettized
from adapters.palettization.recipe import ExportSection, PalettizationSection
from adapters.palettization.release import (
    WEIGHTS,
    PalettizedModel,
    load_release,
    read_palettized,
    write_weights,
)
from adapters.palettization.text import FrozenText
from adapters.recipe import LORA_TARGETS
from infra.errors import FactoryError
from tests.tiny import make_tiny_base, write_fisher

SECTION = ExportSection(context=64, prefill_tokens=8, max_rank=8)
IDS = torch.randint(0, 512, (11,), generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("release")
    base = make_tiny_base(folder / "base")
    text = FrozenText(file="calibration-1.txt", tokens=128, window=32)
    write_fisher(base, text, folder)
    (folder / "palettized").mkdir()
    write_palettized(base, folder, folder, PalettizationSection(group_sizes=[8]), folder / "palettized", "cpu")
    return folder / "palettized"


@pytest.fixture(scope="module")
def aimodel(release: Path) -> Path:
    path = release.parent / "model.aimodel"
    export_aimodel(release, path, SECTION)
    return path


def make_adapter(release: Path, folder: Path, seed: int, rank: int) -> Path:
    torch.manual_seed(seed)
    config = LoraConfig(r=rank, lora_alpha=12, target_modules=list(LORA_TARGETS), init_lora_weights=False)
    get_peft_model(load_release(release, torch.float32), config).save_pretrained(folder)
    return folder


def run(model: PalettizedLlama, weights, lora, ids: torch.Tensor, steps: list[int]) -> torch.Tensor:  # type: ignore[no-untyped-def]
    """Logits of `ids` put through the module in pieces that end at `steps`."""
    caches = [torch.zeros(cache_shape(weights.config, 64)) for _ in range(2)]
    inputs = [torch.from_numpy(array) for array in lora.values()]
    parts, start = [], 0
    with torch.inference_mode():
        for end in steps:
            positions = torch.arange(start, end, dtype=torch.int32)
            parts.append(model(ids[None, start:end].int(), positions, *inputs, *caches)[0])
            start = end
    return torch.cat(parts)


@pytest.mark.parametrize("steps", [[11], [8, 9, 10, 11], [1, 5, 11]])
def test_the_module_computes_what_transformers_and_peft_compute(
    release: Path, tmp_path: Path, steps: list[int]
) -> None:
    weights = read_palettized(release)
    adapter = make_adapter(release, tmp_path, seed=1, rank=4)
    shapes = lora_shapes(weights, 8)
    model = PalettizedLlama(weights, 64)
    with torch.inference_mode():
        plain = load_release(release, torch.float32)
        expected = plain(IDS[None]).logits[0]
        adapted = PeftModel.from_pretrained(plain, adapter)(IDS[None]).logits[0]
    assert torch.allclose(run(model, weights, no_adapter(shapes), IDS, steps), expected, atol=1e-5)
    assert torch.allclose(run(model, weights, lora_inputs(adapter, shapes), IDS, steps), adapted, atol=1e-5)
    assert (expected - adapted).abs().max() > 1e-3


def test_a_padded_tail_is_overwritten_and_not_seen(release: Path) -> None:
    weights = read_palettized(release)
    model = PalettizedLlama(weights, 64)
    lora = [torch.from_numpy(array) for array in no_adapter(lora_shapes(weights, 8)).values()]
    caches = [torch.zeros(cache_shape(weights.config, 64)) for _ in range(2)]
    with torch.inference_mode():
        padded = torch.cat([IDS[:5], torch.zeros(3, dtype=torch.int64)])
        first = model(padded[None].int(), torch.arange(8, dtype=torch.int32), *lora, *caches)[0, :5]
        rest = [model(IDS[None, i : i + 1].int(), torch.tensor([i]).int(), *lora, *caches)[0] for i in range(5, 11)]
        expected = load_release(release, torch.float32)(IDS[None]).logits[0]
    assert torch.allclose(torch.cat([first, *rest]), expected, atol=1e-5)


def test_the_asset_serves_no_adapter_and_two_adapters(release: Path, aimodel: Path, tmp_path: Path) -> None:
    adapters = [make_adapter(release, tmp_path / str(seed), seed, rank) for seed, rank in ((1, 4), (2, 8))]
    found = verify_aimodel(aimodel, release, adapters, IDS[:8], 3, SECTION)
    assert found.psnr_db > 80 and found.argmax_agreement == 1.0
    assert (found.positions, found.adapters) == (33, 3)


def test_the_asset_names_what_it_was_made_of(release: Path, aimodel: Path) -> None:
    metadata = json.loads((aimodel / "metadata.json").read_text())["creatorDefinedMetadata"]
    assert json.loads(metadata["export"]) == SECTION.model_dump()
    assert len(metadata["palettized_sha256"]) == 64
    # The 4-bit indices and the int8 embedding, not expanded weights, make its size.
    stored = (release / WEIGHTS).stat().st_size
    assert sum(f.stat().st_size for f in aimodel.iterdir()) < 2 * stored


def test_an_asset_of_other_weights_fails_verification(release: Path, aimodel: Path, tmp_path: Path) -> None:
    other = shutil.copytree(release, tmp_path / "other")
    tensors = load_file(other / WEIGHTS)
    tensors["model.layers.0.mlp.down_proj.lut"] *= 2
    save_file(tensors, other / WEIGHTS)
    assert verify_aimodel(aimodel, other, [], IDS[:8], 1, SECTION).psnr_db < 50


def test_adapters_that_do_not_fit_are_refused(release: Path, tmp_path: Path) -> None:
    shapes = lora_shapes(read_palettized(release), 8)
    with pytest.raises(FactoryError, match="rank 16 is above the asset's 8"):
        lora_inputs(make_adapter(release, tmp_path / "wide", 1, rank=16), shapes)
    with pytest.raises(FactoryError, match="not a PEFT adapter"):
        lora_inputs(tmp_path / "missing", shapes)
    strange = make_adapter(release, tmp_path / "strange", 1, rank=4)
    tensors = load_file(strange / "adapter_model.safetensors")
    tensors["base_model.model.lm_head.lora_A.weight"] = torch.zeros(4, 64)
    save_file(tensors, strange / "adapter_model.safetensors")
    with pytest.raises(FactoryError, match="lm_head"):
        lora_inputs(strange, shapes)


def test_verification_asks_for_enough_tokens(release: Path, aimodel: Path) -> None:
    with pytest.raises(FactoryError, match="prompt of 8 tokens, got 7"):
        verify_aimodel(aimodel, release, [], IDS[:7], 1, SECTION)


def test_psnr_is_relative_to_the_largest_logit() -> None:
    expected = torch.tensor([[10.0, -2.0], [0.0, 4.0]]).numpy()
    assert psnr(expected + 0.1, expected) == pytest.approx(40)


def test_tables_of_one_two_and_six_bits_and_of_pairs_export(release: Path, tmp_path: Path) -> None:
    weights = read_palettized(release)
    formats = itertools.cycle([(1, 8), (2, 16), (3, 32), (6, 8)])
    linear = {
        name: palettize(name, layer.dense(torch.float32), torch.ones(layer.shape), *next(formats))
        for name, layer in weights.linear.items()
    }
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    write_weights(PalettizedModel(weights.config, linear, weights.embedding, weights.norms), release, mixed)
    assert {layer.index_bits for layer in read_palettized(mixed).linear.values()} == {1, 2, 6}
    export_aimodel(mixed, tmp_path / "mixed.aimodel", SECTION)
    found = verify_aimodel(
        tmp_path / "mixed.aimodel", mixed, [make_adapter(mixed, tmp_path / "a", 1, 4)], IDS[:8], 3, SECTION
    )
    assert found.psnr_db > 80 and found.argmax_agreement == 1.0
