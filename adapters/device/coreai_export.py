"""Export a base release as one Core AI asset with the functions `prefill` and `decode`."""

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from adapters.device.coreai_model import PalettizedLlama, head_dim
from adapters.palettization.layers import linear_name
from adapters.palettization.recipe import ExportSection
from adapters.palettization.release import WEIGHTS, PalettizedModel, read_palettized
from adapters.recipe import LORA_TARGETS
from infra.canonical import canonical_json, digest_file
from infra.progress import track

STATES = ("k_cache", "v_cache")
LORA_INPUTS = tuple(f"{kind}_{side}" for kind in LORA_TARGETS for side in ("a", "b"))


def lora_shapes(weights: PalettizedModel, rank: int) -> dict[str, tuple[int, int, int]]:
    """Shapes of the asset's LoRA inputs by name: A [layers, rank, in] and B [layers, out, rank]."""
    shapes: dict[str, tuple[int, int, int]] = {}
    layers = weights.config.num_hidden_layers
    for kind in LORA_TARGETS:
        out, into = weights.linear[linear_name(0, kind)].shape
        shapes[f"{kind}_a"] = (layers, rank, into)
        shapes[f"{kind}_b"] = (layers, out, rank)
    return shapes


def cache_shape(config: Any, context: int) -> tuple[int, int, int, int, int]:
    """Shape of the key cache and of the value cache: [layers, 1, groups, context, head_dim]."""
    return config.num_hidden_layers, 1, config.num_key_value_heads, context, head_dim(config)


def export_aimodel(release: Path, output: Path, section: ExportSection) -> None:
    """Write `output` (a folder named *.aimodel) from a folder that `write_palettized` made.

    Functions `prefill` (`section.prefill_tokens` tokens) and `decode` (one token) share constants and state. Inputs:
    `ids` int32 [1, T], `positions` int32 [T], the LoRA inputs of `lora_shapes` fp32; states `k_cache` and `v_cache`
    fp32; output `logits` fp32 [1, T, vocabulary].

    Raises:
        FactoryError: the release folder is incomplete.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # takes torch's "+cpu" for a version that it does not know
        import coreai_torch._compression.custom_layers  # noqa: F401, registers the operators that coreai_model.py names
    from coreai.runtime import AIModelAssetMetadata
    from coreai_torch import TorchConverter, get_decomp_table

    weights = read_palettized(release)
    model = PalettizedLlama(weights, section.context).eval()
    converter = TorchConverter(mode=TorchConverter.Mode.RELEASE)
    with track("export", 3) as step, warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch.export's own, one for each copied tree
        for name, tokens in (("prefill", section.prefill_tokens), ("decode", 1)):
            program = torch.export.export(model, _example(weights, section, tokens))
            converter.add_exported_program(
                program.run_decompositions(get_decomp_table()),
                input_names=["ids", "positions", *LORA_INPUTS],
                state_names=list(STATES),
                output_names=["logits"],
                entrypoint_name=name,
            )
            step.advance(note=name)
        metadata = AIModelAssetMetadata()
        metadata.model_description = "Palettized Llama; LoRA weights are inputs, the KV cache is state"
        metadata.set_custom("palettized_sha256", digest_file(release / WEIGHTS))
        metadata.set_custom("config_sha256", digest_file(release / "config.json"))
        metadata.set_custom("export", canonical_json(section.model_dump(mode="json")).decode())
        converter.to_coreai().save_asset(output, metadata=metadata)
        step.advance(note="converted")


def _example(weights: PalettizedModel, section: ExportSection, tokens: int) -> tuple[Tensor, ...]:
    lora = [torch.zeros(shape) for shape in lora_shapes(weights, section.max_rank).values()]
    caches = [torch.zeros(cache_shape(weights.config, section.context)) for _ in STATES]
    ids = torch.zeros(1, tokens, dtype=torch.int32)
    return ids, torch.arange(tokens, dtype=torch.int32), *lora, *caches
