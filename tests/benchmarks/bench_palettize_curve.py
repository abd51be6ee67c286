"""Quality against bits per weight on real texts, step by step, beside coreai-opt and llama.cpp.

Each point is a stage in the workspace's store: a run that was stopped goes on where it was, and a point whose weights
and texts did not change is not measured again. KL, perplexity and top-1 agreement are computed in fp32; headline
figures are over mail and chat together. Every model has the same int8 embedding, llama.cpp's its own.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from adapters.code import code_digest
from adapters.inference.models import load_model, load_tokenizer
from adapters.palettization.codebooks import dequantize_rows, palettize, quantize_rows
from adapters.palettization.layers import linear_names
from adapters.palettization.quality import Quality, measure_quality
from adapters.palettization.recipe import load_release_recipe
from adapters.palettization.release import load_release, read_palettized
from adapters.palettization.sensitivities import SENSITIVITIES
from adapters.palettization.stages import release_stages
from adapters.training.lora import load_adapter
from infra.canonical import digest, digest_folder
from infra.settings import load_settings
from infra.store import Stage
from infra.workspace import Workspace
from tests.benchmarks.common import Figure, base_folder
from tests.benchmarks.peers import LLAMA_CPP_TYPES, CoreaiOpt, LlamaCpp, bits_of_gguf, quantize_gguf, wheel_gguf
from tests.benchmarks.texts import quality_texts

TARGETS = (2.5, 3.0, 3.5, 3.7, 4.05, 4.5)
RECOVERED = (3.5, 3.7, 4.05)
UNIFORM = (2, 3, 4)
GROUP_SIZE = 16
TOKENS = 8192
HEADLINE = ("mail", "chat")


# A model, its bits per weight over the linear layers, and the megabytes of all its tensors.
Measurable = tuple[Any, float, float]


class Curve:
    """The base, the texts, and the store that points are kept in."""

    def __init__(self) -> None:
        settings = load_settings()
        self.store = Workspace(settings.home.expanduser().resolve()).store
        self.folder = base_folder()
        self.digest = digest_folder(self.folder)
        self.compute = settings.compute
        self.texts = quality_texts(load_tokenizer(self.folder), TOKENS)
        self.recipe = load_release_recipe("full")

    @cached_property
    def full(self) -> Any:
        """The full-precision model."""
        return load_model(self.folder, torch.float32, self.compute.device)

    @cached_property
    def weights(self) -> dict[str, Tensor]:
        """The linear weights."""
        names = linear_names(self.full.config.num_hidden_layers)
        return {name: self.full.get_submodule(name).weight for name in names}

    @cached_property
    def sensitivities(self) -> dict[str, Tensor]:
        """The Fisher information that releases of the profile `full` use."""
        folder = self._built("sensitivities", {})
        return {name: value.float() for name, value in load_file(folder / SENSITIVITIES).items()}

    def measure(self, step: str, key: object, make: Callable[[], Measurable]) -> dict[str, Any]:
        """The point of a model that `key` decides: made and measured unless the store has it."""

        def build(output: Path, scratch: Path) -> None:
            model, bits, megabytes = make()
            point: dict[str, Any] = {"step": step, "bits_per_weight": bits, "mb": megabytes}
            for name, texts in {"headline": [t for n in HEADLINE for t in self.texts[n]], **self.texts}.items():
                point[name] = vars(measure_quality(self.full, model, texts))
            (output / "point.json").write_text(json.dumps(point), "utf-8")

        texts = digest({name: [ids.tolist() for ids in some] for name, some in self.texts.items()})
        code = code_digest("adapters.palettization.quality")
        stage = Stage("curve-point", {"step": step, "key": key, "texts": texts, "code": code}, build)
        found: dict[str, Any] = json.loads((self.store.build(stage).path / "point.json").read_text("utf-8"))
        return found

    def uniform(self, step: str, bits: int, dense: Callable[[], dict[str, Tensor]]) -> dict[str, Any]:
        """A point with one format for every layer, whose weights `dense` returns."""

        def make() -> Measurable:
            model = load_model(self.folder, torch.float32, self.compute.device)
            values, scales = quantize_rows(model.get_input_embeddings().weight)
            with torch.no_grad():
                model.get_input_embeddings().weight.copy_(dequantize_rows(values, scales))
                for name, weight in dense().items():
                    model.get_submodule(name).weight.copy_(weight)
            in_linear = sum(weight.numel() for weight in self.weights.values())
            tables = sum(len(weight) for weight in self.weights.values()) / GROUP_SIZE * 2**bits * 16
            average = bits + tables / in_linear
            return model, average, (in_linear * average / 8 + values.numel() + 2 * scales.numel()) / 1e6

        return self.measure(
            step, [self.digest, bits, GROUP_SIZE, code_digest("adapters.palettization.codebooks")], make
        )

    def ours(self, step: str, last: str, target: float, **changes: Mapping[str, object]) -> dict[str, Any]:
        """A point of a release with a target, as it is after the stage `last`."""
        sections = {"palettization": {"bits_per_weight": target, "compensate": True}, **changes}
        if step == "allocation":
            sections["palettization"] = {"bits_per_weight": target, "compensate": False}
        stages = {stage.name: stage for stage in self._stages(sections)}
        weights = "palettized" if last == "palettized" else "tuned"

        def make() -> Measurable:
            folder = self._built(weights, sections)
            palettized = read_palettized(folder)
            model = load_release(folder, torch.float32, self.compute.device)
            if last == "recovery":
                model = load_adapter(model, self._built(last, sections))
            size = sum(t.numel() * t.element_size() for t in palettized.tensors().values())
            return model, palettized.bits_per_weight({}).linear, size / 1e6

        return self.measure(step, stages[last].key, make)

    def llama_cpp(self, kind: str) -> dict[str, Any]:
        """A point of llama.cpp's quantization of the same base."""

        def make() -> Measurable:
            folder = self.store.root / "making"
            source = wheel_gguf(folder)
            target = folder / f"{kind}.gguf"
            quantize_gguf(source, kind, target)
            return LlamaCpp(target, context=1024), *bits_of_gguf(target)

        return self.measure(f"llama.cpp {kind}", [self.digest, kind], make)

    def _stages(self, sections: Mapping[str, Mapping[str, object]]) -> list[Stage]:
        recipe = self.recipe.model_dump()
        for name, section in sections.items():
            recipe[name] |= section
        made = type(self.recipe).model_validate(recipe)
        return release_stages(self.folder, self.digest, made, self.store, self.compute)

    def _built(self, last: str, sections: Mapping[str, Mapping[str, object]]) -> Path:
        """The output of a release's stage, with all stages before it built."""
        for stage in self._stages(sections):
            path = self.store.build(stage).path
            if stage.name == last:
                return path
        raise ValueError(last)


def points(curve: Curve) -> Iterator[dict[str, Any]]:
    """All points, the quick ones first."""
    even = {name: torch.ones_like(weight) for name, weight in curve.weights.items()}
    for bits in UNIFORM:
        for step, sensitivities in (("k-means", even), ("Fisher k-means", curve.sensitivities)):

            def ours(bits: int = bits, sensitivities: dict[str, Tensor] = sensitivities) -> dict[str, Tensor]:
                made = {n: palettize(n, w, sensitivities[n], bits, GROUP_SIZE) for n, w in curve.weights.items()}
                return {name: layer.dense(torch.float32) for name, layer in made.items()}

            yield curve.uniform(step, bits, ours)
    for kind in LLAMA_CPP_TYPES:
        yield curve.llama_cpp(kind)
    for bits in UNIFORM:
        for step, given in (("coreai-opt", None), ("coreai-opt, sensitivities", curve.sensitivities)):

            def peer(bits: int = bits, given: dict[str, Tensor] | None = given) -> dict[str, Tensor]:
                made = CoreaiOpt(curve.weights, bits, GROUP_SIZE, given)
                if given is not None:
                    made.cluster()
                return made.dense()

            yield curve.uniform(step, bits, peer)
    for target in TARGETS:
        yield curve.ours("allocation", "palettized", target)
        yield curve.ours("compensation", "palettized", target)
    for target in RECOVERED:
        yield curve.ours("tuning", "tuned", target)
        yield curve.ours("recovery", "recovery", target)


def run() -> list[Figure]:
    """KL, perplexity, top-1 agreement and megabytes of every point, and the headline figures."""
    figures = []
    headline = {}
    for point in points(Curve()):
        quality = Quality(**point["headline"])
        name = f"{point['step']} {point['bits_per_weight']:.2f}"
        figures += [
            Figure(f"kl: {name}", "nats/token", quality.kl),
            Figure(f"perplexity: {name}", "", quality.perplexity, quality.base_perplexity),
            Figure(f"top1: {name}", "share", quality.top1),
            Figure(f"bytes: {name}", "MB", point["mb"]),
        ]
        headline[point["step"], round(point["bits_per_weight"], 2)] = quality
    for target in RECOVERED:
        unrecovered, recovered = headline["tuning", target], headline["recovery", target]
        increase = recovered.perplexity / recovered.base_perplexity - 1
        figures += [
            Figure(f"kl_{target:g}", "nats/token", unrecovered.kl),
            Figure(f"kl_{target:g}_recovered", "nats/token", recovered.kl),
            Figure(f"perplexity_increase_{target:g}_recovered", "share", increase),
        ]
    return figures
