"""Bits per weight, counted from the shapes that ship."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class BitsPerWeight:
    """Bits per weight, LUTs and scales included.

    `linear`: over the linear weights. `all`: over everything, the tied embedding once. `all_with_recovery`: the
    recovery adapter's bits on top, over the same number of weights.
    """

    linear: float
    all: float
    all_with_recovery: float

    def as_figures(self) -> dict[str, float]:
        """The three figures by their names in manifests and reports."""
        return {
            "bpw_linear": self.linear,
            "bpw_all": self.all,
            "bpw_all_with_recovery": self.all_with_recovery,
        }


def tensor_bits(tensors: Mapping[str, torch.Tensor]) -> int:
    """Bits that the tensors' content takes in a safetensors file."""
    return sum(8 * tensor.numel() * tensor.element_size() for tensor in tensors.values())
