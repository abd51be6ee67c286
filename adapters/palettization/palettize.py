"""Palettize a whole model: choose formats, then fit the linear layers, each to what the ones before it give.

Without compensation a layer is fitted to its weights, by k-means under its sensitivities, and that is all. With it, the
calibration windows run through the model once, and every linear layer is palettized as they reach it, so that a later
one makes good what the earlier ones lost.
"""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from adapters.inference.models import load_model
from adapters.palettization.allocation import Format, Option, allocate, predict
from adapters.palettization.assignment import Curvature, compensate, damped
from adapters.palettization.calibration import read_calibration
from adapters.palettization.codebooks import Palettized, dequantize_rows, palettize, quantize_rows
from adapters.palettization.layers import linear_names, require_llama
from adapters.palettization.recipe import PalettizationSection
from adapters.palettization.release import PalettizedModel, write_weights
from adapters.palettization.sensitivities import SENSITIVITIES
from infra.progress import track

Sensitivity = Callable[[str], Tensor]


def write_palettized(
    base: Path, calibration: Path, sensitivities: Path, section: PalettizationSection, output: Path, device: str
) -> None:
    """Palettize a base model and write weights, config and tokenizer files.

    Args:
        calibration, sensitivities: the output folders of the stages of these names.

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

        windows = read_calibration(calibration, section.tokens) if section.compensate else None
        formats = choose_formats(model, sensitivity, section, windows)
        if windows is None:
            linear = palettize_apart(model, sensitivity, formats)
        else:
            linear = palettize_in_order(model, windows, sensitivity, formats)
    embedding = values.cpu(), scales.cpu()
    write_weights(PalettizedModel(model.config, linear, embedding, norms), base, output)


def choose_formats(
    model: Any, sensitivity: Sensitivity, section: PalettizationSection, windows: Tensor | None
) -> dict[str, Format]:
    """The format of each linear layer by name, in the order of the forward pass.

    Args:
        windows: the calibration windows [windows, window] that the layers will be compensated on, if they will.

    Raises:
        FactoryError: a tensor does not divide by a group size, or the target cannot be met.
    """
    if section.bits_per_weight is None:
        only = Format(section.bits[0], section.group_sizes[0])
        return dict.fromkeys(linear_names(model.config.num_hidden_layers), only)
    options = format_options(model, sensitivity, section, windows)
    weights = sum(model.get_submodule(name).weight.numel() for name in options)
    return allocate(options, section.bits_per_weight * weights)


@torch.inference_mode()
def format_options(
    model: Any, sensitivity: Sensitivity, section: PalettizationSection, windows: Tensor | None
) -> dict[str, list[Option]]:
    """What each of the section's formats would cost each linear layer; with `windows`, after compensation.

    Raises:
        FactoryError: a tensor does not divide by a group size.
    """
    names = linear_names(model.config.num_hidden_layers)
    formats = [Format(bits, size) for bits in section.bits for size in section.group_sizes]
    options = {}
    with track("formats", len(names)) as step:

        def try_formats(name: str, weight: Tensor, inputs: Tensor | None = None) -> None:
            own = sensitivity(name)
            options[name] = predict(name, weight, own, formats, None if inputs is None else curvature(inputs, own))
            step.advance()

        if windows is None:
            for name in names:
                try_formats(name, model.get_submodule(name).weight)
        else:
            _at_layers(model, windows, names, try_formats)
    return options


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
            layer = compensate(weight, curvature(inputs, own), palettize(name, weight, own, *formats[name]))
            weight.copy_(layer.dense(weight.dtype))
            linear[name] = Palettized(layer.indices.cpu(), layer.lut.cpu())
            step.advance()

        _at_layers(model, windows, formats, replace)
    return linear


def curvature(inputs: Tensor, sensitivity: Tensor) -> Curvature:
    """What an error of a layer costs in nats per token, from its inputs [tokens, in].

    Inputs and output gradients are taken as independent, as in the Kronecker-factored Fisher information (Martens and
    Grosse 2015, arXiv:1503.05671). The factor of the outputs is diagonal; the row means of `sensitivity` [out, in] give
    it.
    """
    return Curvature(damped(inputs.T @ inputs / len(inputs)), sensitivity.mean(1) / inputs.square().mean())


def _at_layers(model: Any, windows: Tensor, names: Iterable[str], act: Callable[[str, Tensor, Tensor], None]) -> None:
    """Run the windows through the model once; `act(name, weight, inputs [tokens, in])` before each layer computes."""
    hooks = [
        model.get_submodule(name).register_forward_pre_hook(
            lambda module, inputs, name=name: act(name, module.weight, inputs[0].flatten(0, 1))
        )
        for name in names
    ]
    try:
        model.get_decoder()(input_ids=windows.to(model.device), use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
