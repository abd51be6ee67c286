"""A PEFT adapter as the LoRA inputs of a Core AI asset: stacked over layers, padded to its rank, the scale in B."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file

from adapters.palettization.layers import linear_name
from adapters.recipe import LORA_TARGETS
from infra.errors import FactoryError

Array = npt.NDArray[np.float32]
Shapes = Mapping[str, tuple[int, int, int]]


def no_adapter(shapes: Shapes) -> dict[str, Array]:
    """The inputs that leave the base as it is: zeros."""
    return {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}


def lora_inputs(adapter: Path, shapes: Shapes) -> dict[str, Array]:
    """The asset's LoRA inputs, fp32, from a folder that PEFT wrote.

    Args:
        adapter: holds `adapter_config.json` and `adapter_model.safetensors`.
        shapes: of the asset's inputs: `<kind>_a` [layers, rank, in] and `<kind>_b` [layers, out, rank].

    Raises:
        FactoryError: a file is missing, the rank is above the asset's, or a tensor belongs to no input.
    """
    try:
        config = json.loads((adapter / "adapter_config.json").read_text("utf-8"))
        tensors = load_file(adapter / "adapter_model.safetensors")
    except (OSError, ValueError, SafetensorError) as error:
        raise FactoryError(f"{adapter}: not a PEFT adapter: {error}") from None
    rank, scale = config["r"], config["lora_alpha"] / config["r"] ** (0.5 if config.get("use_rslora") else 1.0)
    inputs = no_adapter(shapes)
    layers, most, _ = shapes[f"{LORA_TARGETS[0]}_a"]
    if rank > most:
        raise FactoryError(f"{adapter}: rank {rank} is above the asset's {most}; train a smaller one or export again")
    for kind in LORA_TARGETS:
        for layer in range(layers):
            prefix = f"base_model.model.{linear_name(layer, kind)}"
            a = tensors.pop(f"{prefix}.lora_A.weight", None)
            b = tensors.pop(f"{prefix}.lora_B.weight", None)
            if a is None or b is None:
                continue
            inputs[f"{kind}_a"][layer, :rank] = a
            inputs[f"{kind}_b"][layer, :, :rank] = b.astype(np.float32) * scale
    if tensors:
        raise FactoryError(f"{adapter}: {next(iter(tensors))} is no LoRA weight that the asset takes")
    return inputs
