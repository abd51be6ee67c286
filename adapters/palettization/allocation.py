"""Which tensor gets which bits and group size, under a target average of bits per weight.

The loss of a choice is predicted in nats per token, as half the error under the Fisher information, from a sample of
the tensor's groups that is palettized as the tensor would be. What is to be compensated must be predicted so:
compensation halves the loss, but that of coarse groups more than that of fine ones (SmolLM2-135M at 4.05 bits: KL 0.100
instead of 0.130). A finer group costs bits of look-up tables, so it competes with bits of indices. The problem is a
knapsack with one choice for each tensor; it is solved exactly as an integer program (HiGHS).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array
from torch import Tensor

from adapters.palettization.assignment import Curvature, Part, compensate_together
from adapters.palettization.codebooks import index_format, palettize, require_format
from infra.errors import FactoryError

# About so many output channels are palettized to predict a tensor's loss; the rest behave alike.
_SAMPLED_ROWS = 64


class Format(NamedTuple):
    """How a tensor is palettized: average bits of its indices and output channels that share a table."""

    bits: int
    group_size: int


@dataclass(frozen=True)
class Option:
    """A format that a tensor may take, the bits that it then occupies, and the loss that is predicted for it."""

    format: Format
    size: int
    loss: float


def format_size(shape: tuple[int, int], form: Format) -> int:
    """Bits of indices and tables of a weight [out, in]."""
    index_bits, vector = index_format(form.bits)
    rows, columns = shape
    return rows * columns // vector * index_bits + rows // form.group_size * 2**index_bits * vector * 16


def predict(
    name: str, weight: Tensor, sensitivity: Tensor, formats: Iterable[Format], curvature: Curvature | None = None
) -> list[Option]:
    """What each format would cost a tensor [out, in], from a sample of its groups.

    With a `curvature`, in nats per token, the loss is that after compensation.

    Raises:
        FactoryError: the tensor does not divide by a format.
    """
    shape = (weight.shape[0], weight.shape[1])
    options = []
    for _, alike in groupby(formats, key=lambda form: form.bits):
        some = list(alike)
        for form in some:
            require_format(name, shape, *form)
        rows = [_sampled_rows(len(weight), form.group_size).to(weight.device) for form in some]
        made = [palettize(name, weight[own], sensitivity[own], *form) for own, form in zip(rows, some, strict=True)]
        if curvature is not None:
            parts = [Part(weight[own], curvature.rows[own], one) for own, one in zip(rows, made, strict=True)]
            made = compensate_together(curvature.hessian, parts)
        for form, own, one in zip(some, rows, made, strict=True):
            dense = one.dense(weight.dtype)
            if curvature is None:
                loss = ((weight[own] - dense).square() * sensitivity[own]).sum().item()
            else:
                loss = Curvature(curvature.hessian, curvature.rows[own]).error(weight[own], dense)
            options.append(Option(form, format_size(shape, form), loss / 2 * len(weight) / len(own)))
    return options


def _sampled_rows(count: int, group_size: int) -> Tensor:
    """Indices of some whole groups of output channels, evenly spread."""
    groups = count // group_size
    first = torch.linspace(0, groups - 1, min(groups, _SAMPLED_ROWS // group_size)).round().long() * group_size
    return (first[:, None] + torch.arange(group_size)).flatten()


def allocate(options: Mapping[str, Sequence[Option]], budget: float) -> dict[str, Format]:
    """The format of each tensor that gives the lowest sum of losses within `budget` bits in all.

    Raises:
        FactoryError: the smallest formats do not fit.
    """
    smallest = sum(min(option.size for option in some) for some in options.values())
    if smallest > budget:
        raise FactoryError(f"the smallest formats take {smallest} bits, over {budget:.0f}; raise the target")
    flat = [(number, option) for number, some in enumerate(options.values()) for option in some]
    losses = np.array([option.loss for _, option in flat])
    sizes = np.array([option.size for _, option in flat], dtype=float)
    owners = np.array([number for number, _ in flat])
    one_each = csr_array((np.ones(len(flat)), (owners, np.arange(len(flat)))))
    solved = milp(
        losses / losses.max(),
        integrality=np.ones(len(flat)),
        bounds=Bounds(0, 1),
        constraints=[LinearConstraint(one_each, 1, 1), LinearConstraint(sizes[None] / budget, -np.inf, 1)],
        options={"mip_rel_gap": 1e-4},
    )
    chosen = np.flatnonzero(solved.x > 0.5)
    return {name: flat[place][1].format for name, place in zip(options, chosen, strict=True)}
