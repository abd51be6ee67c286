"""The formats that a layer may take and what each would cost: a stage of its own, which all targets share."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from adapters.inference.models import load_model
from adapters.palettization.allocation import Format, Option, predict
from adapters.palettization.assignment import curvature_of
from adapters.palettization.calibration import read_calibration
from adapters.palettization.layers import at_layers, linear_names, require_llama
from adapters.palettization.recipe import PalettizationSection
from adapters.palettization.sensitivities import SENSITIVITIES
from infra.canonical import canonical_json
from infra.progress import track

OPTIONS = "options.json"


def write_options(
    base: Path, calibration: Path, sensitivities: Path, section: PalettizationSection, output: Path, device: str
) -> None:
    """Write what each of the section's formats would cost each linear layer, in the order of the forward pass.

    Args:
        calibration, sensitivities: the output folders of the stages of these names.

    Raises:
        FactoryError: the base is no Llama, or a tensor does not divide by a group size.
    """
    model = load_model(base, torch.float32, device)
    require_llama(model.config)
    windows = read_calibration(calibration, section.tokens) if section.compensate else None
    with safe_open(sensitivities / SENSITIVITIES, "pt", device) as found:
        options = format_options(model, lambda name: found.get_tensor(name).float(), section, windows)
    rows = [[name, [[*option.format, option.size, option.loss] for option in some]] for name, some in options.items()]
    (output / OPTIONS).write_bytes(canonical_json(rows))


def read_options(folder: Path) -> dict[str, list[Option]]:
    """What `write_options` wrote."""
    rows = json.loads((folder / OPTIONS).read_text("utf-8"))
    return {
        name: [Option(Format(bits, group_size), size, loss) for bits, group_size, size, loss in some]
        for name, some in rows
    }


@torch.inference_mode()
def format_options(
    model: Any, sensitivity: Callable[[str], Tensor], section: PalettizationSection, windows: Tensor | None
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
            options[name] = predict(name, weight, own, formats, None if inputs is None else curvature_of(inputs, own))
            step.advance()

        if windows is None:
            for name in names:
                try_formats(name, model.get_submodule(name).weight)
        else:
            at_layers(model, windows, names, try_formats)
    return options
