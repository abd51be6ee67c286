"""Palettization: groups of output channels share a look-up table that a weighted k-means finds.

The table is rounded to fp16, as it is stored, before the final assignment, so that every weight has the entry that is
nearest in what ships.
"""

from dataclasses import dataclass

import torch

from adapters.palettization.kmeans import nearest, pair_kmeans, weighted_kmeans
from infra.errors import FactoryError


@dataclass(frozen=True)
class Palettized:
    """A weight as indices into tables of single weights (vector 1) or of neighbours in a row (vector 2).

    `indices` uint8 [out, in / vector], `lut` fp16 [out / group_size, entries, vector].
    """

    indices: torch.Tensor
    lut: torch.Tensor

    @property
    def index_bits(self) -> int:
        """Bits that an index needs."""
        return (self.lut.shape[1] - 1).bit_length()

    @property
    def shape(self) -> tuple[int, int]:
        """[out, in] of the weight."""
        return self.indices.shape[0], self.indices.shape[1] * self.lut.shape[2]

    def dense(self, dtype: torch.dtype) -> torch.Tensor:
        """The weight [out, in] that the device computes with."""
        by_group = self.indices.reshape(len(self.lut), -1, 1).long().expand(-1, -1, self.lut.shape[2])
        return self.lut.to(dtype).gather(1, by_group).view(self.shape)


def index_format(bits: int) -> tuple[int, int]:
    """Bits of an index and weights that it stands for, for an average of `bits` bits per weight.

    Core AI has no 3-bit indices: 6 bits for two weights.
    """
    return (6, 2) if bits == 3 else (bits, 1)


def require_format(name: str, shape: tuple[int, int], bits: int, group_size: int) -> None:
    """Check that a weight [out, in] can be palettized so.

    Raises:
        FactoryError: it does not divide into groups, or its rows not into whole bytes of indices.
    """
    rows, columns = shape
    index_bits, vector = index_format(bits)
    if rows % group_size:
        raise FactoryError(f"{name}: {rows} output channels do not divide by group_size {group_size}; choose another")
    if columns % vector or columns // vector * index_bits % 8:
        raise FactoryError(f"{name}: {columns} indices of {bits} bits do not fill whole bytes; choose other bits")


def palettize(name: str, weight: torch.Tensor, sensitivity: torch.Tensor, bits: int, group_size: int) -> Palettized:
    """Minimise `sum(sensitivity * (weight - dense)**2)` within each group of `group_size` output channels.

    `weight` and `sensitivity` are [out, in]; the work is done in fp32 and fp64 on the weight's device.

    Raises:
        FactoryError: the tensor does not divide by the format.
    """
    require_format(name, (weight.shape[0], weight.shape[1]), bits, group_size)
    rows, columns = weight.shape
    index_bits, vector = index_format(bits)
    values = weight.detach().float().reshape(rows // group_size, -1)
    # A group without any gradient is clustered as if all its weights mattered alike.
    floor = sensitivity.float().mean() * 1e-4 + torch.finfo(torch.float32).tiny
    weights = sensitivity.to(values.device).float().reshape(values.shape) + floor
    if vector == 1:
        lut = weighted_kmeans(values, weights, 2**bits).to(torch.float16)
        return Palettized(nearest(values, lut.float()).view(rows, columns), lut.unsqueeze(2))
    pairs, pair_weights = (tensor.view(len(values), -1, vector) for tensor in (values, weights))
    levels = weighted_kmeans(values, weights, 2 ** (index_bits // vector))
    lut, indices = pair_kmeans(pairs, pair_weights, levels)
    return Palettized(indices.to(torch.uint8).view(rows, -1), lut)


def quantize_rows(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Symmetric int8 per row: values int8 [rows, columns] and scales fp16 [rows], so that weight ≈ values * scale."""
    # Rounded to fp16 first, because the values must fit the scale that ships.
    scales = (weight.float().abs().amax(dim=1) / 127).clamp_min(1e-7).to(torch.float16)
    values = (weight.float() / scales.float().unsqueeze(1)).round().clamp(-127, 127)
    return values.to(torch.int8), scales


def dequantize_rows(values: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """The fp32 [rows, columns] that `quantize_rows` stands for."""
    return values.float() * scales.float().unsqueeze(1)
