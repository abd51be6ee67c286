"""What models run on."""

import pytest
import torch

from infra.compute import Compute
from infra.settings import Settings


@pytest.mark.parametrize(("multiplies", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_a_processor_computes_in_what_it_multiplies(
    monkeypatch: pytest.MonkeyPatch, multiplies: bool, dtype: torch.dtype
) -> None:
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: multiplies)
    assert Compute().dtype == dtype


def test_a_precision_that_is_named_is_taken() -> None:
    assert Compute("cpu", "bf16").dtype == torch.bfloat16
    assert Compute("cuda", "fp32").dtype == torch.float32


def test_settings_say_what_models_run_on() -> None:
    assert Settings(device="cuda:1", precision="fp32").compute == Compute("cuda:1", "fp32")
