"""One feature's rebuild as stages: what each is made from (its key) and how (its build).

A job holds what was read when the run started, so every key of the run speaks of the same inputs. Each method returns
a `Stage`; later ones take the folders of earlier ones.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from adapters.lineage import EVALUATION_SETS, Lineage
from adapters.recipe import Recipe
from adapters.records import Quarantined, Record, digest_records, read_records
from infra.canonical import canonical_json, digest, digest_file
from infra.errors import CheckFailed
from infra.store import Stage

if TYPE_CHECKING:
    from adapters.inference.types import TextGenerator

# Ids of the records that a version was trained on; ids only, since texts do not belong into the registry.
TRAINED_ON = "trained_on.json"


@dataclass(frozen=True)
class Release:
    """A base release: its key, its content's digest and folder, and the full-precision base under it."""

    key: str
    digest: str
    folder: Path
    base_digest: str
    base_folder: Path


class System(NamedTuple):
    """What answers a test: an adapter over a release, or the uncompressed base where `adapter` is None.

    `identity` stands for the adapter in keys: the digest of its package, or a word for what belongs to the release.
    """

    release: Release
    adapter: Path | None
    identity: str


@dataclass(frozen=True)
class Job:
    """The inputs of one feature's rebuild."""

    recipe: Recipe
    records: Sequence[Record]
    refused: Sequence[Quarantined]
    lineage: Lineage
    release: Release
    device: str
    teacher_api_key: str
    evaluation_texts: Sequence[tuple[str, str]] = ()

    def data(self) -> Stage:
        """Validated records: training, unlabelled and held-out parts, quarantine, report, Data Docs."""

        def build(output: Path, scratch: Path) -> None:
            from adapters.data.prepare import prepare
            from adapters.evaluation.data_report import write_data_report

            try:
                prepare(self.recipe, self.records, self.refused, output, scratch, self.evaluation_texts)
            except CheckFailed:
                write_data_report(scratch / "failed")
                raise
            write_data_report(output)

        inputs = {
            "feature": self.recipe.feature,
            "records": digest_records(self.records),
            "refused": digest([[row.where, row.reason, row.row] for row in self.refused]),
            **self._keys("recipe.data", "code.data"),
            **({EVALUATION_SETS: self.lineage.build[EVALUATION_SETS]} if self.evaluation_texts else {}),
        }
        return Stage("data", inputs, build)

    def synthesis(self, data: Path) -> Stage:
        """Targets that a teacher wrote for the unlabelled records and that survived rejection."""

        def build(output: Path, scratch: Path) -> None:
            from adapters.data.prepare import check_synthetic
            from adapters.synthesis.synthesize import synthesize

            synthesize(self.recipe, data / "unlabelled.jsonl", self._teacher(), output, scratch)
            check_synthetic(self.recipe, data, output)

        names = ("data", "recipe.data", "recipe.synthesis", "code.data", "code.synthesis")
        return Stage("synthesis", {"base": self.release.base_digest, **self._keys(*names)}, build)

    def training(self, data: Path, synthesis: Path | None) -> Stage:
        """The LoRA adapter, trained over the palettized base from the recovery adapter on."""
        files = [data / "training.jsonl", *([synthesis / "accepted.jsonl"] if synthesis else [])]

        def build(output: Path, scratch: Path) -> None:
            from adapters.training.adapter import train_adapter
            from adapters.training.examples import read_examples

            examples = read_examples(self.recipe, files)
            release, section = self.release, self.recipe.training
            train_adapter(release.folder, examples, section, release.base_digest, output, scratch, self.device)
            ids = sorted({record.id for file in files for record in read_records(file)[0]})
            (output / TRAINED_ON).write_bytes(canonical_json(ids))

        inputs = {name: key for name, key in self.lineage.build.items() if not name.endswith(".device")}
        return Stage("training", inputs, build)

    def package(self, training: Path) -> Stage:
        """The files that a device downloads, without a version number yet."""

        def build(output: Path, scratch: Path) -> None:
            from adapters.device.package import Facts, PackagedUseCase, build_package

            section = self.recipe.data
            use_cases = {
                name: PackagedUseCase(prompt=use_case.prompt, max_new_tokens=use_case.max_new_tokens)
                for name, use_case in section.use_cases.items()
            }
            facts = Facts(
                feature=self.recipe.feature,
                base_release=self.release.key,
                base_release_digest=self.release.digest,
                tokenizer=digest_file(self.release.folder / "tokenizer.json"),
                system=section.system,
                use_cases=use_cases,
                lineage=self.lineage.build,
                license=" AND ".join(sorted({record.license for record in self.records})),
            )
            build_package(training / "adapter", output, facts)

        return Stage("package", {"release": self.release.digest, **self.lineage.build}, build)

    def answers(self, system: System, data: Path) -> Stage:
        """What a system answers to the held-out items. Answered once: systems share answers by identity."""

        def build(output: Path, scratch: Path) -> None:
            from adapters.evaluation.evaluate import write_answers

            write_answers(open_generator(system, self.device), self.recipe, data / "held_out.jsonl", output)

        base = system.release.base_digest if system.adapter is None else system.release.key
        # The file, not only the records that it was made of: what is tested on also depends on what is trained on.
        items = digest_file(data / "held_out.jsonl")
        inputs = {"feature": self.recipe.feature, "base": base, "adapter": system.identity, "items": items}
        return Stage("answers", {**inputs, **self._keys("recipe.data"), **self.lineage.evaluation}, build)

    def evaluation(
        self, answers: Mapping[str, tuple[str, Path]], megabytes: float, data: Path, reports: Mapping[str, Path]
    ) -> Stage:
        """Scores, gates, samples, pictures and the report page.

        `answers` maps each system's name to its answers' key and folder; `reports` are the stages' own reports by name
        (training, data, synthesis), for the page.
        """

        def build(output: Path, scratch: Path) -> None:
            from adapters.evaluation.evaluate import write_evaluation
            from adapters.evaluation.report import Background, write_report

            folders = {name: folder for name, (_, folder) in answers.items()}
            write_evaluation(self.recipe, data / "held_out.jsonl", folders, megabytes, output)
            write_report(output, Background(self.recipe.description, lineage=self.lineage.build, **reports))

        keys = {f"answers.{name}": key for name, (key, _) in answers.items()}
        inputs = {"megabytes": megabytes, "reports": sorted(reports), **keys, **self.lineage.build}
        return Stage("evaluation", {**inputs, **self.lineage.evaluation}, build)

    def _keys(self, *names: str) -> dict[str, str]:
        return {name: self.lineage.build[name] for name in names}

    def _teacher(self) -> "TextGenerator":
        section = self.recipe.synthesis
        assert section is not None
        if section.teacher == "base":
            return open_generator(System(self.release, None, "full precision"), self.device)
        from adapters.inference.endpoint import EndpointGenerator

        return EndpointGenerator(section.teacher, section.teacher_model, self.teacher_api_key or None)


def open_generator(system: System, device: str) -> "TextGenerator":
    """The system as a text generator, in bf16."""
    import torch

    from adapters.inference.generator import LocalGenerator
    from adapters.inference.models import load_model, load_tokenizer
    from adapters.palettization.release import load_release
    from adapters.training.lora import merge_adapter

    release = system.release
    if system.adapter is None:
        return LocalGenerator(
            load_model(release.base_folder, torch.bfloat16, device), load_tokenizer(release.base_folder)
        )
    model = merge_adapter(load_release(release.folder, torch.float32, device), system.adapter)
    return LocalGenerator(model.to(torch.bfloat16), load_tokenizer(release.folder))
