"""Whether synthetic summaries help: an adapter trained on people's and synthetic ones against one on people's alone.

The shipped corpus of summarization. A share of the labelled training records keeps its targets; of all others the
inputs alone are known, and the base writes targets for them. Both adapters start from the same fresh LoRA over the base
and get the same number of training tokens: with less data, the same is seen more often. Judged by ROUGE-L on the held-
out records, greedy answers; the interval is of the paired difference. Stages are kept in the workspace's store, so that
a stopped run goes on.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

import adapters.features
from adapters.code import code_digest
from adapters.evaluation.metrics_summary import rouge
from adapters.inference.generator import LocalGenerator
from adapters.inference.models import load_model, load_tokenizer
from adapters.inference.types import Prompt, Sampling
from adapters.recipe import Recipe, load_recipe
from adapters.records import digest_records, read_records, split_held_out, write_records
from adapters.synthesis.drafts import Member
from adapters.synthesis.synthesize import synthesize
from adapters.training.batching import encode, make_batches
from adapters.training.examples import read_examples
from adapters.training.loop import train
from adapters.training.lora import merge_adapter, new_adapter, save_adapter
from adapters.training.losses import completion_cross_entropy
from infra.canonical import digest_file, digest_folder
from infra.compute import Compute
from infra.settings import load_settings
from infra.store import Stage
from infra.workspace import Workspace
from tests.benchmarks.bench_best_of_k import paired
from tests.benchmarks.common import Figure, base_folder

HUMAN_EVERY = 3  # one in three labelled records keeps its target
TRAINING_TOKENS = 80_000
_FEATURE = "summarization"


def run() -> list[Figure]:
    """ROUGE-L of both adapters, and of the base for comparison, on the same held-out records."""
    experiment = Experiment()
    human, synthetic = experiment.human(), experiment.synthetic()
    count = len(read_records(synthetic / "accepted.jsonl")[0])
    alone = experiment.score("human", [human / "training.jsonl"])
    both = experiment.score("human+synthetic", [human / "training.jsonl", synthetic / "accepted.jsonl"])
    return [
        Figure("human_records", "records", len(read_records(human / "training.jsonl")[0])),
        Figure("synthetic_records", "records", count),
        *paired("rouge_l_vs_human_alone", both, alone),
        *paired("rouge_l_vs_base", both, experiment.score("base", [])),
    ]


class Experiment:
    """The corpus, the base and the store."""

    def __init__(self) -> None:
        workspace = Workspace(load_settings().home.expanduser().resolve())
        self.store, self.kept = workspace.store, workspace.synthesis / "bench"
        self.base = base_folder()
        self.digest = digest_folder(self.base)
        self.recipe: Recipe = load_recipe(Path(*adapters.features.__path__) / _FEATURE, "quick")
        folder = Path(*adapters.features.__path__) / _FEATURE
        records = [record for entry in self.recipe.data.corpus for record in read_records(folder / entry)[0]]
        training, held_out = split_held_out(records, self.recipe.data.held_out_share)
        labelled = sorted((record for record in training if record.targets), key=lambda record: record.id)
        self.labelled = labelled[::HUMAN_EVERY]
        kept = {record.id for record in self.labelled}
        self.unlabelled = [record.model_copy(update={"target": None}) for record in training if record.id not in kept]
        self.held_out = [record for record in held_out if record.targets]

    def human(self) -> Path:
        """The folder that synthesis reads: what people labelled, and the other inputs."""

        def build(output: Path, scratch: Path) -> None:
            write_records(output / "training.jsonl", self.labelled)
            write_records(output / "unlabelled.jsonl", self.unlabelled)

        return self._built("data", {"records": digest_records([*self.labelled, *self.unlabelled])}, build)

    def synthetic(self) -> Path:
        """What the base wrote for the other inputs, as far as it passed."""
        data = self.human()
        member = Member("base", self.digest, lambda: self._generator(None))

        def build(output: Path, scratch: Path) -> None:
            synthesize(self.recipe, data, [member], self.kept, output / "audit.parquet", output)

        section = self.recipe.synthesis
        assert section is not None
        inputs = {"data": digest_file(data / "unlabelled.jsonl"), "section": section.digest, "base": self.digest}
        return self._built("synthesis", inputs | {"code": code_digest("adapters.synthesis.synthesize")}, build)

    def score(self, name: str, files: Sequence[Path]) -> list[float]:
        """ROUGE-L of each held-out record, by an adapter that is trained on the records of `files`; none: the base."""
        adapter = self._trained(files) if files else None

        def build(output: Path, scratch: Path) -> None:
            cases = self.recipe.data.use_cases
            prompts = [Prompt(self.recipe.data.system, cases[one.use_case].ask(one.input)) for one in self.held_out]
            longest = max(case.max_new_tokens for case in cases.values())
            answers = self._generator(adapter).generate(prompts, Sampling(longest))
            found = [
                rouge(answer.text, record.targets)["rouge_l"]
                for record, (answer,) in zip(self.held_out, answers, strict=True)
            ]
            (output / "scores.json").write_text(json.dumps(found), "utf-8")

        inputs = {"system": name, "adapter": digest_folder(adapter) if adapter else None, "base": self.digest}
        code = [code_digest(f"adapters.{name}") for name in ("inference.generator", "evaluation.metrics_summary")]
        folder = self._built("score", inputs | {"held_out": digest_records(self.held_out), "code": code}, build)
        scores: list[float] = json.loads((folder / "scores.json").read_text("utf-8"))
        return scores

    def _trained(self, files: Sequence[Path]) -> Path:
        def build(output: Path, scratch: Path) -> None:
            tokenizer = load_tokenizer(self.base)
            section = self.recipe.training
            examples, _ = encode(tokenizer, read_examples(self.recipe, files), section.max_tokens)
            epochs = TRAINING_TOKENS / sum(len(example.ids) for example in examples)
            batches = make_batches(examples, section.batch_tokens, epochs, section.seed)
            model = new_adapter(load_model(self.base, Compute().dtype), section.rank, section.alpha, seed=section.seed)
            train(model, batches, completion_cross_entropy, section, scratch)
            save_adapter(model, output, self.digest)

        inputs = {
            "files": [digest_file(file) for file in files],
            "tokens": TRAINING_TOKENS,
            "section": self.recipe.training.digest,
            "base": self.digest,
        }
        code = [code_digest(f"adapters.training.{name}") for name in ("adapter", "examples")]
        return self._built("training", inputs | {"code": code}, build)

    def _generator(self, adapter: Path | None) -> LocalGenerator:
        if adapter is None:
            return LocalGenerator(load_model(self.base, Compute().dtype), load_tokenizer(self.base))
        merged: Any = merge_adapter(load_model(self.base, torch.float32), adapter)
        return LocalGenerator(merged.to(Compute().dtype), load_tokenizer(self.base))

    def _built(self, name: str, inputs: dict[str, Any], build: Any) -> Path:
        return self.store.build(Stage(f"synthetic-data-{name}", inputs, build)).path
