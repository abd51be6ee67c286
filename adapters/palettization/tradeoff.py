"""The trade-off between bits per weight and quality, before a target is chosen (as in Talaria, Hohman et al. 2024).

For each target the allocation says which tensor takes which format, and the model is palettized so, by k-means alone,
and compared with full precision. Compensation, tuning and recovery lower the curve; they do not change its shape much,
and a point costs seconds instead of minutes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from adapters.inference.models import load_model, load_tokenizer
from adapters.palettization.allocation import Option, allocate
from adapters.palettization.codebooks import dequantize_rows, palettize, quantize_rows
from adapters.palettization.formats import read_options
from adapters.palettization.palettize import Sensitivity
from adapters.palettization.quality import measure_quality
from adapters.palettization.sensitivities import SENSITIVITIES
from adapters.palettization.text import FrozenText
from infra.canonical import canonical_json
from infra.errors import FactoryError
from infra.progress import track

TRADEOFF = "tradeoff.json"
TARGETS = (2.25, 2.5, 2.75, 3.0, 3.25, 3.5, 3.7, 4.05, 4.5, 5.0, 6.0)


@dataclass(frozen=True)
class Point:
    """One allocation.

    `bits_per_weight` is over the linear layers, tables included; `predicted` the loss that the allocation expects, in
    nats per token; `kl`, `perplexity` and `top1` as in `Quality`; `mb` the size of linear layers, int8 embedding and
    norms; `formats` the bits and group size of each linear layer by name.
    """

    target: float
    bits_per_weight: float
    predicted: float
    kl: float
    perplexity: float
    top1: float
    mb: float
    formats: dict[str, tuple[int, int]]


@torch.inference_mode()
def write_tradeoff(base: Path, sensitivities: Path, options: Path, text: FrozenText, output: Path, device: str) -> None:
    """Measure the points of `TARGETS` on held-out `text` and write them, and full precision's perplexity, as JSON.

    `sensitivities` and `options` are the output folders of the stages of these names; targets that no format reaches
    are left out.
    """
    full = load_model(base, torch.float32, device)
    windows = text.windows(load_tokenizer(base))
    model = load_model(base, torch.float32, device)
    values, scales = quantize_rows(model.get_input_embeddings().weight)
    model.get_input_embeddings().weight.copy_(dequantize_rows(values, scales))
    norms = sum(value.numel() for name, value in model.state_dict().items() if "norm" in name)
    fixed_bits = 8 * values.numel() + 16 * scales.numel() + 16 * norms
    points = []
    choices = read_options(options)
    with safe_open(sensitivities / SENSITIVITIES, "pt", device) as found:

        def sensitivity(name: str) -> torch.Tensor:
            return found.get_tensor(name).float()

        dense = {name: model.get_submodule(name).weight.clone() for name in choices}
        with track("points", len(TARGETS)) as step:
            for target in TARGETS:
                point = _measure(full, model, dense, sensitivity, choices, target, windows, fixed_bits)
                points += [point] if point else []
                step.advance()
    quality = measure_quality(full, full, [windows])
    content = {"base_perplexity": quality.perplexity, "points": [asdict(point) for point in points]}
    (output / TRADEOFF).write_bytes(canonical_json(content))


def _measure(
    full: Any,
    model: Any,
    dense: Mapping[str, torch.Tensor],
    sensitivity: Sensitivity,
    options: Mapping[str, Sequence[Option]],
    target: float,
    windows: torch.Tensor,
    fixed_bits: int,
) -> Point | None:
    """The point of one target; `model`'s linear weights are replaced."""
    in_linear = sum(weight.numel() for weight in dense.values())
    try:
        formats = allocate(options, target * in_linear)
    except FactoryError:
        return None
    chosen = [next(option for option in options[name] if option.format == form) for name, form in formats.items()]
    for name, form in formats.items():
        weight = palettize(name, dense[name], sensitivity(name), *form).dense(torch.float32)
        model.get_submodule(name).weight.copy_(weight)
    quality = measure_quality(full, model, [windows])
    bits = sum(option.size for option in chosen)
    return Point(
        target=target,
        bits_per_weight=bits / in_linear,
        predicted=sum(option.loss for option in chosen),
        kl=quality.kl,
        perplexity=quality.perplexity,
        top1=quality.top1,
        mb=(bits + fixed_bits) / 8e6,
        formats={name: (form.bits, form.group_size) for name, form in formats.items()},
    )
