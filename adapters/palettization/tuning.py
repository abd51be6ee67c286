"""Tables tuned end to end: the indices stay, the entries are distilled from the full-precision base.

A table's entries are few (a thousandth of the weights), so a short training on the base's own text moves them without
learning the text (as AQLM does with its codebooks, Egiazarian et al. 2024, arXiv:2401.06118).
"""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adapters.palettization.calibration import read_calibration
from adapters.palettization.codebooks import Palettized
from adapters.palettization.distillation import distil
from adapters.palettization.recipe import TuningSection
from adapters.palettization.release import PalettizedModel, load_release, read_palettized, write_weights


class TunedLinear(nn.Module):
    """x W^T with W as fixed indices into trainable tables.

    `shift` [groups, entries, vector] is trained, in units of its group's standard deviation, so that one learning rate
    suits all tensors.
    """

    indices: Tensor
    start: Tensor
    spread: Tensor

    def __init__(self, layer: Palettized) -> None:
        super().__init__()
        lut = layer.lut.float()
        self.register_buffer("indices", layer.indices)
        self.register_buffer("start", lut)
        self.register_buffer("spread", lut.std(dim=(1, 2), keepdim=True))
        self.shift = nn.Parameter(torch.zeros_like(lut))

    def table(self) -> Tensor:
        """The entries now, fp32 [groups, entries, vector]."""
        return self.start + self.spread * self.shift

    def forward(self, x: Tensor) -> Tensor:
        """x [..., in] → [..., out] in x's dtype."""
        return F.linear(x, _Expand.apply(self.table(), self.indices, x.dtype))


class _Expand(torch.autograd.Function):
    """Tables [groups, entries, vector] and indices [out, in / vector] → the weight [out, in]."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, indices: Tensor, dtype: torch.dtype) -> Tensor:
        ctx.save_for_backward(indices)
        ctx.shape = table.shape
        return Palettized(indices, table).dense(dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (indices,) = ctx.saved_tensors
        groups, _, vector = ctx.shape
        places = indices.reshape(groups, -1, 1).long().expand(-1, -1, vector)
        entries = torch.zeros(ctx.shape, device=grad.device)
        return entries.scatter_add_(1, places, grad.float().reshape(groups, -1, vector)), None, None


def tune_tables(
    base: Path,
    palettized: Path,
    calibration: Path,
    section: TuningSection,
    output: Path,
    scratch: Path,
    dtype: torch.dtype,
    device: str,
) -> None:
    """Write the folder `palettized` again with tuned tables. A tuning that was killed goes on from `scratch`.

    Raises:
        FactoryError: the loss is not finite.
    """
    weights = read_palettized(palettized)
    model = load_release(palettized, dtype, device)
    layers = {name: TunedLinear(layer).to(device) for name, layer in weights.linear.items()}
    for name, layer in layers.items():
        model.set_submodule(name, layer)
    windows = read_calibration(calibration, section.tokens)
    distil("tuned tables", model, base, windows, section, scratch, dtype, device)
    tuned = {
        name: Palettized(weights.linear[name].indices, layer.table().detach().to("cpu", torch.float16))
        for name, layer in layers.items()
    }
    write_weights(PalettizedModel(weights.config, tuned, weights.embedding, weights.norms), palettized, output)
