"""Error-compensating assignment: indices and tables that lose least of a layer's output, not of its weights.

The error of a layer is `sum_i r_i (w_i - q_i) H (w_i - q_i)^T` over its output channels i, with H the second moment of
its inputs and r_i how much channel i matters. Two steps lower it in turns:
- Indices: column by column, each column's error is made good by the columns after it (GPTQ, Frantar et al. 2022,
  arXiv:2210.17323, with tables instead of a grid); then sweeps of coordinate descent, which never raise the error.
- Tables: for given indices the error is quadratic in the entries, so the best ones solve a linear system (as in
  GuidedQuant's LNQ, Kim et al. 2025, arXiv:2505.07004). Conjugate gradients need no matrix of it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from adapters.palettization.codebooks import Palettized

_BLOCK = 128
_DAMPING = 0.01
_TINY = 1e-30


@dataclass(frozen=True)
class Curvature:
    """What an error costs: `hessian` fp32 [in, in], symmetric and positive definite; `rows` fp32 [out], positive."""

    hessian: Tensor
    rows: Tensor

    def error(self, weight: Tensor, dense: Tensor) -> float:
        """`sum_i r_i (w_i - q_i) H (w_i - q_i)^T` of two [out, in]."""
        difference = weight - dense
        return float((((difference @ self.hessian) * difference).sum(1) * self.rows).sum())


def curvature_of(inputs: Tensor, sensitivity: Tensor) -> Curvature:
    """What an error of a layer costs in nats per token, from its inputs [tokens, in].

    Inputs and output gradients are taken as independent, as in the Kronecker-factored Fisher information (Martens and
    Grosse 2015, arXiv:1503.05671). The factor of the outputs is diagonal; the row means of `sensitivity` [out, in] give
    it.
    """
    return Curvature(damped(inputs.T @ inputs / len(inputs)), sensitivity.mean(1) / inputs.square().mean())


def damped(hessian: Tensor, share: float = _DAMPING) -> Tensor:
    """The matrix with `share` of its mean diagonal added to its diagonal, so that it can be inverted."""
    diagonal = torch.diagonal(hessian).mean() * share + _TINY
    return hessian + diagonal * torch.eye(len(hessian), device=hessian.device, dtype=hessian.dtype)


class Part(NamedTuple):
    """Output channels that are compensated: `weight` fp32 [out, in], `rows` fp32 [out] as in a curvature, the start."""

    weight: Tensor
    rows: Tensor
    start: Palettized


def compensate(weight: Tensor, curvature: Curvature, start: Palettized, rounds: int = 1) -> Palettized:
    """Better indices and tables for `weight` fp32 [out, in] than `start`'s, of the same shapes.

    A round is one exact step of the tables and one sweep of the indices; the error after a round is at most what it was
    before, but for the rounding of the tables to fp16.
    """
    (better,) = compensate_together(curvature.hessian, [Part(weight, curvature.rows, start)], rounds)
    return better


def compensate_together(hessian: Tensor, parts: Sequence[Part], rounds: int = 1) -> list[Palettized]:
    """The same for several weights that have their inputs in common, and tables of the same shape.

    Columns come one after the other, so a walk takes its time however few channels there are: all parts share it.
    """
    weight = torch.cat([part.weight for part in parts])
    tables = _Tables([part.start for part in parts])
    made = tables.palettized(_sequential(weight, hessian, tables))
    for _ in range(rounds):
        made = [
            Palettized(one.indices, _refit(part, hessian, one).to(torch.float16))
            for part, one in zip(parts, made, strict=True)
        ]
        tables = _Tables(made)
        current = torch.cat([one.dense(torch.float32) for one in made])
        made = tables.palettized(_descend(weight, hessian, current, tables))
    return made


def _sequential(weight: Tensor, hessian: Tensor, tables: "_Tables") -> Tensor:
    """Indices int64 [in / vector, out], column by column in falling order of the Hessian's diagonal."""
    vector = tables.vector
    places = torch.diagonal(hessian).view(-1, vector).sum(1).argsort(descending=True)
    columns = (places[:, None] * vector + torch.arange(vector, device=places.device)).flatten()
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(hessian[columns][:, columns]))
    factor = torch.linalg.cholesky(inverse, upper=True)
    scales = torch.linalg.inv(_diagonal_blocks(factor, vector))
    rest = weight.T[columns]
    chosen = torch.empty(len(places), len(weight), dtype=torch.int64, device=weight.device)
    for begin in range(0, len(columns), _BLOCK):
        end = min(begin + _BLOCK, len(columns))
        errors = torch.empty(end - begin, len(weight), device=weight.device)
        for column in range(begin, end, vector):
            here, scale = slice(column, column + vector), scales[column // vector]
            picked = tables.nearest(rest[here], scale)
            error = torch.mm(scale.T, rest[here] - tables.entries(picked), out=errors[column - begin :][:vector])
            rest[column + vector : end].addmm_(factor[here, column + vector : end].T, error, alpha=-1)
            chosen[column // vector] = picked
        rest[end:].addmm_(factor[begin:end, end:].T, errors, alpha=-1)
    indices = torch.empty_like(chosen)
    indices[places] = chosen
    return indices


def _descend(weight: Tensor, hessian: Tensor, current: Tensor, tables: "_Tables") -> Tensor:
    """One sweep from the weight `current` [out, in]: each column takes the best entries for what all others hold."""
    vector = tables.vector
    own = _diagonal_blocks(hessian, vector)
    inverses, metrics = torch.linalg.inv(own), torch.linalg.cholesky(own)
    held, error = current.T.contiguous(), (weight - current).T.contiguous()
    chosen = torch.empty(len(held) // vector, len(weight), dtype=torch.int64, device=weight.device)
    for begin in range(0, len(held), _BLOCK):
        end = min(begin + _BLOCK, len(held))
        pull = hessian[begin:end] @ error
        for column in range(begin, end, vector):
            here, place = slice(column, column + vector), column // vector
            wanted = torch.addmm(held[here], inverses[place], pull[column - begin :][:vector])
            picked = tables.nearest(wanted, metrics[place])
            change = tables.entries(picked) - held[here]
            # Columns before this one in the block are done: their pull is not needed any more.
            pull[column - begin :].addmm_(hessian[column:end, here], change, alpha=-1)
            error[here] -= change
            chosen[place] = picked
    return chosen


class _Tables:
    """Look-up tables of several layers, asked for one column of all their output channels at a time."""

    def __init__(self, layers: Sequence[Palettized]) -> None:
        _, self._count, self.vector = layers[0].lut.shape
        self._own = [_ascending(layer.lut.float()) for layer in layers]
        self._channels = [layer.shape[0] for layer in layers]
        sizes = [channels // len(lut) for channels, lut in zip(self._channels, self._own, strict=True)]
        # Layers with other groups stand side by side in groups of the size that divides all: a table may occur twice.
        size = math.gcd(*sizes)
        repeated = zip(self._own, sizes, strict=True)
        self.lut = torch.cat([lut.repeat_interleave(own // size, dim=0) for lut, own in repeated])
        groups = len(self.lut)
        self._flat = self.lut.reshape(groups * self._count, self.vector)
        self._middles = ((self.lut[:, 1:] + self.lut[:, :-1]) / 2).squeeze(2).contiguous() if self.vector == 1 else None
        self._offsets = (torch.arange(groups, device=self.lut.device) * self._count).unsqueeze(1)

    def palettized(self, indices: Tensor) -> list[Palettized]:
        """The layers with these tables and the indices [in / vector, out] of all."""
        by_layer = indices.T.to(torch.uint8).split(self._channels)
        return [
            Palettized(own.contiguous(), lut.to(torch.float16)) for own, lut in zip(by_layer, self._own, strict=True)
        ]

    def nearest(self, targets: Tensor, metric: Tensor) -> Tensor:
        """Index [out] of the entry nearest to each target [vector, out]; `metric` [vector, vector] is applied first."""
        groups = len(self.lut)
        if self._middles is not None:
            return torch.searchsorted(self._middles, targets.view(groups, -1)).flatten()
        entries = self.lut @ metric
        goals = (targets.T @ metric).view(groups, -1, self.vector)
        return torch.baddbmm(entries.square().sum(2).unsqueeze(1), goals, entries.mT, alpha=-2).argmin(2).flatten()

    def entries(self, indices: Tensor) -> Tensor:
        """Entries [vector, out] of one column's indices [out]."""
        places = (indices.view(len(self.lut), -1) + self._offsets).flatten()
        return self._flat.index_select(0, places).T


def _diagonal_blocks(matrix: Tensor, size: int) -> Tensor:
    """The blocks [n / size, size, size] on the diagonal of [n, n]."""
    count = len(matrix) // size
    return matrix.view(count, size, count, size).diagonal(dim1=0, dim2=2).permute(2, 0, 1)


def _ascending(lut: Tensor) -> Tensor:
    """Tables [groups, entries, vector] of single weights with their entries in order; those of pairs have none."""
    return lut.sort(dim=1).values if lut.shape[2] == 1 else lut


def _refit(part: Part, hessian: Tensor, layer: Palettized, steps: int = 12) -> Tensor:
    """The tables, fp32, that are best for a layer's indices: conjugate gradients, the diagonal as preconditioner."""
    lut, vector = layer.lut.float(), layer.lut.shape[2]
    by_group = layer.indices.reshape(len(lut), -1, 1).long().expand(-1, -1, vector)
    weight, rows = part.weight, part.rows[:, None]

    def expand(table: Tensor) -> Tensor:
        return table.gather(1, by_group).view(weight.shape)

    def collect(dense: Tensor) -> Tensor:
        """Sum of [out, in] over the places of each entry: [groups, entries, vector]."""
        return torch.zeros_like(lut).scatter_add_(1, by_group, dense.reshape(len(lut), -1, vector))

    diagonal = collect(rows * torch.diagonal(hessian))
    inverse = torch.where(diagonal > 0, 1 / diagonal.clamp_min(_TINY), 0.0)
    residual = collect(((weight - expand(lut)) * rows) @ hessian)
    direction = scaled = inverse * residual
    energy = (residual * scaled).sum((1, 2), keepdim=True)
    for _ in range(steps):
        image = collect((expand(direction) * rows) @ hessian)
        rate = energy / (direction * image).sum((1, 2), keepdim=True).clamp_min(_TINY)
        lut = lut + rate * direction
        residual = residual - rate * image
        scaled = inverse * residual
        before, energy = energy, (residual * scaled).sum((1, 2), keepdim=True)
        direction = scaled + energy / before.clamp_min(_TINY) * direction
    return lut
