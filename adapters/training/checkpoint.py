"""A training's state on disk: one safetensors file, replaced by a rename, so that it is whole or the one before."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
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
    partial.replace(folder / CHECKPOINT)


def restore_checkpoint(
    folder: Path, identity: str, parameters: Mapping[str, Tensor], optimizer: torch.optim.Optimizer, step_key: str
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Set parameters and optimiser as they were saved; `progress` and the best values. Empty for another training.

    `step_key` names the list in `progress` that has one entry for each step done.
    """
    path = folder / CHECKPOINT
    if not path.is_file():
        return {}, {}
    best: dict[str, Tensor] = {}
    with safe_open(path, framework="pt") as file:
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
