"""A training's state on disk: one safetensors file, replaced by a rename, so that it is whole or the one before."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

CHECKPOINT = "checkpoint.safetensors"


def save_checkpoint(
    folder: Path,
    identity: str,
    progress: Mapping[str, Any],
    parameters: Mapping[str, Tensor],
    optimizer: torch.optim.Optimizer,
    best: Mapping[str, Tensor],
) -> None:
    """Write values and moments of the parameters, the best values so far, and `progress` (JSON)."""
    tensors = {f"{name}|best": value for name, value in best.items()}
    for name, parameter in parameters.items():
        state = optimizer.state[parameter]
        tensors[f"{name}|value"] = parameter.detach()
        tensors[f"{name}|first"] = state["exp_avg"]
        tensors[f"{name}|second"] = state["exp_avg_sq"]
    folder.mkdir(parents=True, exist_ok=True)
    partial = (folder / CHECKPOINT).with_suffix(".partial")
    save_file(tensors, partial, metadata={"identity": identity, "progress": json.dumps(progress)})
    with partial.open("rb") as file:
        os.fsync(file.fileno())  # or a power failure could leave the name without the content
    partial.replace(folder / CHECKPOINT)


def restore_checkpoint(
    folder: Path, identity: str, parameters: Mapping[str, Tensor], optimizer: torch.optim.Optimizer, step_key: str
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Set parameters and optimiser as they were saved; `progress` and the best values.

    Both are empty where there is no checkpoint, one of another training, or one that cannot be read.
    `step_key` names the list in `progress` that has one entry for each step done.
    """
    try:
        opened = safe_open(folder / CHECKPOINT, framework="pt")
    except (FileNotFoundError, SafetensorError):
        return {}, {}
    best: dict[str, Tensor] = {}
    with opened as file:
        metadata = file.metadata()
        if metadata["identity"] != identity:
            return {}, {}
        progress = dict(json.loads(metadata["progress"]))
        saved = set(file.keys())
        for name, parameter in parameters.items():
            parameter.data.copy_(file.get_tensor(f"{name}|value"))
            optimizer.state[parameter] = {
                "step": torch.tensor(float(len(progress[step_key])), device=parameter.device),
                "exp_avg": file.get_tensor(f"{name}|first").to(parameter.device),
                "exp_avg_sq": file.get_tensor(f"{name}|second").to(parameter.device),
            }
            if f"{name}|best" in saved:
                best[name] = file.get_tensor(f"{name}|best").to(parameter.device)
    return progress, best
