"""Palettize a whole model: choose formats, then fit the linear layers, each to what the ones before it give.

Without compensation a layer is fitted to its weights, by k-means under its sensitivities, and that is all. With it, the
calibration windows run through the model once, and every linear layer is palettized as they reach it, so that a later
one makes good what the earlier ones lost.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from adapters.inference.models import load_model
from adapters.palettization.allocation import Format, allocate
from adapters.palettization.assignment import compensate, curvature_of
from adapters.palettization.calibration import read_calibration
from adapters.palettization.codebooks import Palettized, dequantize_rows, palettize, quantize_rows
from adapters.palettization.formats import read_options
from adapters.palettization.layers import at_layers, linear_names, require_llama
from adapters.palettization.recipe import PalettizationSection
from adapters.palettization.release import PalettizedModel, write_weights
from adapters.palettization.sensitivities import SENSITIVITIES
from infra.progress import track

Sensitivity = Callable[[str], Tensor]


def write_palettized(
    base: Path,
    calibration: Path,
    sensitivities: Path,
    section: PalettizationSection,
    output: Path,
    device: str,
    options: Path | None = None,
) -> None:
    """Palettize a base model and write weights, config and tokenizer files.

    Args:
        calibration, sensitivities, options: the output folders of the stages of these names; no options if the section
            leaves no choice.

    Raises:
        FactoryError: the base is no Llama, a tensor does not divide by a group size, or the target cannot be met.
    """
    model = load_model(base, torch.float32, device)
    require_llama(model.config)
    norms = {name: value.to("cpu", torch.float16) for name, value in model.state_dict().items() if "norm" in name}
    values, scales = quantize_rows(model.get_input_embeddings().weight)
    # What the layers are fitted on is what ships.
    model.get_input_embeddings().weight.copy_(dequantize_rows(values, scales))
    with safe_open(sensitivities / SENSITIVITIES, "pt", device) as found:

        def sensitivity(name: str) -> Tensor:
            return found.get_tensor(name).float()

        formats = choose_formats(model, section, options)
        if section.compensate:
            linear = palettize_in_order(model, read_calibration(calibration, section.tokens), sensitivity, formats)
        else:
            linear = palettize_apart(model, sensitivity, formats)
    embedding = values.cpu(), scales.cpu()
    write_weights(PalettizedModel(model.config, linear, embedding, norms), base, output)


def choose_formats(model: Any, section: PalettizationSection, options: Path | None) -> dict[str, Format]:
    """The format of each linear layer by name, in the order of the forward pass.

    Args:
        options: the output folder of the stage of this name; None if the section leaves no choice.

    Raises:
        FactoryError: the target cannot be met.
    """
    names = linear_names(model.config.num_hidden_layers)
    if options is None or section.bits_per_weight is None:
        return dict.fromkeys(names, Format(section.bits[0], section.group_sizes[0]))
    weights = sum(model.get_submodule(name).weight.numel() for name in names)
    return allocate(read_options(options), section.bits_per_weight * weights)


def palettize_apart(model: Any, sensitivity: Sensitivity, formats: Mapping[str, Format]) -> dict[str, Palettized]:
    """Each layer by itself, by k-means."""
    linear = {}
    with track("palettize", len(formats)) as step:
        for name, form in formats.items():
            layer = palettize(name, model.get_submodule(name).weight, sensitivity(name), *form)
            linear[name] = Palettized(layer.indices.cpu(), layer.lut.cpu())
            step.advance()
    return linear


@torch.inference_mode()
def palettize_in_order(
    model: Any, windows: Tensor, sensitivity: Sensitivity, formats: Mapping[str, Format]
) -> dict[str, Palettized]:
    """Each layer as the calibration windows [windows, window] reach it; the model's weights are replaced."""
    linear: dict[str, Palettized] = {}
    with track("palettize", len(formats)) as step:

        def replace(name: str, weight: Tensor, inputs: Tensor) -> None:
            own = sensitivity(name)
            layer = compensate(weight, curvature_of(inputs, own), palettize(name, weight, own, *formats[name]))
            weight.copy_(layer.dense(weight.dtype))
            linear[name] = Palettized(layer.indices.cpu(), layer.lut.cpu())
            step.advance()

        at_layers(model, windows, formats, replace)
    return linear
