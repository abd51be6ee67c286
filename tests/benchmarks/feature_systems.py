"""What `bench features` compares: a base release and its uncompressed base, each without and with an adapter.

Every step is a stage in the workspace's store: a run that was stopped goes on where it was, and what did not change is
neither trained nor answered again.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

import torch

from adapters.code import code_digest
from adapters.evaluation.answers import write_answers
from adapters.inference.generator import LocalGenerator
from adapters.inference.models import load_model, load_tokenizer
from adapters.palettization.assemble import RECOVERY
from adapters.palettization.recipe import ReleaseRecipe
from adapters.palettization.release import load_release
from adapters.palettization.stages import release_stages
from adapters.recipe import Recipe, TrainingSection
from adapters.training.adapter import ADAPTER, train_adapter
from adapters.training.batching import Example, encode, make_batches
from adapters.training.examples import read_examples
from adapters.training.loop import StepLog, train
from adapters.training.lora import merge_adapter, new_adapter, save_adapter
from adapters.training.losses import completion_cross_entropy
from flows.factory import open_factory
from infra.canonical import digest_folder
from infra.progress import console, track
from infra.store import Built, Stage
from tests.benchmarks.common import base_folder

# Of one training: under four minutes on two cores. Recipes ask for some epochs; real texts are more than a corpus.
TOKENS = 100_000


@dataclass(frozen=True)
class Side:
    """A base that adapters are trained over: its folder, what decides it, and whether it is palettized."""

    name: str
    folder: Path
    key: str
    palettized: bool


class Systems:
    """The two sides of one workspace, and what is built over them."""

    def __init__(self) -> None:
        factory = open_factory()
        self.store = factory.workspace.store
        self.compute = factory.settings.compute
        base = base_folder()
        self.base_digest = digest_folder(base)
        self.uncompressed = Side("uncompressed", base, self.base_digest, palettized=False)
        self.release = self._release(factory.release_recipe)

    def build(self, stage: Stage, label: str) -> Built:
        """The stage's output, with a line that says what it took."""
        built = self.store.build(stage)
        done = "unchanged" if built.reused else f"{built.seconds:.0f} s"
        console.print(f"  {label}: {done}", highlight=False, markup=False)
        return built

    def adapter(self, side: Side, recipe: Recipe, data: Built, label: str) -> Built:
        """A side's adapter for the training part in `data`: from the recovery adapter on, or from scratch without."""
        examples = read_examples(recipe, [data.path / "training.jsonl"])
        section = self._within_budget(recipe.training, examples)

        def build(output: Path, scratch: Path) -> None:
            if side.palettized:
                train_adapter(side.folder, examples, section, self.base_digest, output, scratch, self.compute.device)
            else:
                self._train_uncompressed(examples, section, output, scratch)

        inputs = {
            "side": side.key,
            "data": data.digest,
            "recipe.data": recipe.data.digest,
            "recipe.training": section.digest,
            "code": [code_digest(name) for name in ("adapters.training.adapter", "adapters.training.examples")],
        }
        return self.build(Stage("bench-features-adapter", inputs, build), f"{label}: adapter over the {side.name} base")

    def answers(self, side: Side, adapter: Built | None, recipe: Recipe, data: Built, label: str) -> Path:
        """The folder of a system's answers to the held-out items in `data`.

        Without an adapter a release answers with its recovery adapter, the uncompressed base as it is.
        """
        folder = adapter.path / ADAPTER if adapter else side.folder / RECOVERY if side.palettized else None

        def build(output: Path, scratch: Path) -> None:
            held_out = data.path / "held_out.jsonl"
            write_answers(lambda: self._generator(side, folder), recipe, held_out, scratch, output)

        inputs = {
            "side": side.key,
            "adapter": adapter.digest if adapter else "none",
            "data": data.digest,
            "recipe.data": recipe.data.digest,
            "items": recipe.evaluation.items_per_use_case,
            "code": [code_digest(name) for name in ("adapters.evaluation.answers", "adapters.inference.generator")],
        }
        who = "adapter" if adapter else "no adapter"
        stage = Stage("bench-features-answers", inputs, build)
        return self.build(stage, f"{label}: answers of the {side.name} base, {who}").path

    def _release(self, recipe: ReleaseRecipe) -> Side:
        """A release as adapters need it: palettized weights and recovery adapter, no asset for devices."""
        stages = release_stages(self.uncompressed.folder, self.base_digest, recipe, self.store, self.compute)
        made = list(takewhile(lambda stage: stage.name != "aimodel", stages))
        weights, recovery = made[-2], made[-1]

        def build(output: Path, scratch: Path) -> None:
            built = {stage.name: self.build(stage, f"base release: {stage.name}") for stage in made}
            shutil.copytree(built[weights.name].path, output, dirs_exist_ok=True)
            shutil.copytree(built[recovery.name].path, output / RECOVERY)

        stage = Stage("bench-features-release", {"recovery": recovery.key}, build)
        return Side("palettized", self.build(stage, "base release").path, recovery.key, palettized=True)

    def _within_budget(self, section: TrainingSection, examples: Sequence[Example]) -> TrainingSection:
        """The recipe's epochs, or the part of them that `TOKENS` are enough for."""
        encoded, _ = encode(load_tokenizer(self.uncompressed.folder), examples, section.max_tokens)
        affordable = TOKENS / sum(len(example.ids) for example in encoded)
        return section.model_copy(update={"epochs": min(section.epochs, round(affordable, 3))})

    def _train_uncompressed(
        self, examples: Sequence[Example], section: TrainingSection, output: Path, scratch: Path
    ) -> None:
        """As `train_adapter`, over the base that nothing was taken from and that has no recovery adapter."""
        folder = self.uncompressed.folder
        encoded, _ = encode(load_tokenizer(folder), examples, min(section.max_tokens, section.batch_tokens))
        batches = make_batches(encoded, section.batch_tokens, section.epochs, section.seed)
        base = load_model(folder, self.compute.dtype, self.compute.device)
        model = new_adapter(base, section.rank, section.alpha, section.dropout, section.seed)
        with track("training", len(batches)) as step:

            def report(log: StepLog) -> None:
                step.reach(log.step + 1, note=f"loss {log.loss:.3f}")

            train(model, batches, completion_cross_entropy, section, scratch, on_step=report)
        save_adapter(model, output / ADAPTER, self.base_digest)

    def _generator(self, side: Side, adapter: Path | None) -> LocalGenerator:
        load = load_release if side.palettized else load_model
        model = load(side.folder, torch.float32, self.compute.device)
        if adapter:
            model = merge_adapter(model, adapter)
        return LocalGenerator(model.to(self.compute.dtype), load_tokenizer(side.folder))
