"""What models run on, by settings: torch's device, and the numbers that a base is computed in there."""

from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    import torch

Precision = Literal["auto", "bf16", "fp32"]


class Compute(NamedTuple):
    """A device, e.g. `cpu` or `cuda:1`, and the precision of frozen weights and activations on it."""

    device: str = "cpu"
    precision: Precision = "auto"

    @property
    def dtype(self) -> "torch.dtype":
        """The precision; `auto` is bf16 where the device multiplies in it, fp32 elsewhere.

        Without such instructions a processor still computes in bf16, at a tenth to a thousandth of fp32's rate.
        """
        import torch

        if self.precision != "auto":
            return torch.bfloat16 if self.precision == "bf16" else torch.float32
        if torch.device(self.device).type == "cpu":
            multiplies = torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
        else:
            multiplies = torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if multiplies else torch.float32
