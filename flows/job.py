"""One feature's rebuild as stages: what each is made from (its key) and how (its build).

A job holds what was read when the run started, so every key of the run speaks of the same inputs. Each method returns
a `Stage`; later ones take the folders of earlier ones.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from adapters.code import code_digest
from adapters.lineage import EVALUATION_SETS, SUITES_MODULE, Lineage
from adapters.recipe import Recipe
from adapters.records import Quarantined, Record, digest_records, read_records
from adapters.synthesis.audit import TABLES
from infra.canonical import canonical_json, digest, digest_file
from infra.compute import Compute
from infra.errors import CheckFailed
from infra.store import Stage
from infra.workspace import in_use

if TYPE_CHECKING:
    from adapters.inference.types import TextGenerator
    from adapters.recipe import Teacher
    from adapters.synthesis.drafts import Member
    from adapters.training.loop import OnStep

    # By the key of a training: a context that gives what is told of each of its steps.
    Follow = Callable[[str], AbstractContextManager[OnStep]]

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
    """The inputs of one feature's rebuild.

    `teachers` are registered versions and other models that teach, by the name that the recipe gives them; `books` is
    the folder of answers that were ever given, by system; `synthesis_folder` keeps drafts and audit tables of the
    feature's teachers; `earlier` is the package of the version that training starts from, if the recipe names one.
    """

    recipe: Recipe
    records: Sequence[Record]
    refused: Sequence[Quarantined]
    lineage: Lineage
    release: Release
    compute: Compute
    teacher_api_keys: Mapping[str, str]
    teachers: Mapping[str, System]
    books: Path
    synthesis_folder: Path
    evaluation_texts: Sequence[tuple[str, str]] = ()
    earlier: Path | None = None

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
            **self._evaluation_sets(),
        }
        return Stage("data", inputs, build)

    def synthesis(self, data: Path) -> Stage:
        """Targets that a teacher wrote for the unlabelled records and that survived rejection."""

        def build(output: Path, scratch: Path) -> None:
            from adapters.data.prepare import check_synthetic
            from adapters.synthesis.synthesize import synthesize

            table = self.synthesis_folder / TABLES / f"{stage.key}.parquet"
            place = (self.synthesis_folder, table, output)
            synthesize(self.recipe, data, self._committee(), *place, self.evaluation_texts)
            check_synthetic(self.recipe, data, output, scratch)

        names = ("data", "recipe.data", "recipe.synthesis", "code.data", "code.synthesis")
        taught = {f"teacher.{name}": system.identity for name, system in self.teachers.items()}
        inputs = {"base": self.release.base_digest, **taught, **self._keys(*names), **self._evaluation_sets()}
        stage = Stage("synthesis", inputs, build)
        return stage

    def training(self, data: Path, synthesis: Path | None, follow: "Follow") -> Stage:
        """The LoRA adapter, trained over the palettized base; `follow` opens what is told of each step."""
        files = [data / "training.jsonl", *([synthesis / "accepted.jsonl"] if synthesis else [])]

        def build(output: Path, scratch: Path) -> None:
            from adapters.synthesis.synthesize import STACKS
            from adapters.training.examples import read_examples
            from adapters.training.launch import train_on_devices

            examples = read_examples(self.recipe, files)
            release, section = self.release, self.recipe.training
            if section.precision == "auto":
                section = section.model_copy(update={"precision": self.compute.precision})
            place = (output, scratch, self.compute.device, self.earlier)
            with follow(stage.key) as on_step:
                train_on_devices(release.folder, examples, section, release.base_digest, *place, on_step)
            ids = {record.id for file in files for record in read_records(file)[0]}
            if synthesis:
                stacks = json.loads((synthesis / STACKS).read_text("utf-8"))
                ids |= {one for members in stacks.values() for one in members}
            (output / TRAINED_ON).write_bytes(canonical_json(sorted(ids)))

        inputs = {name: key for name, key in self.lineage.build.items() if not name.endswith(".device")}
        stage = Stage("training", inputs, build)
        return stage

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
        """What a system answers to the held-out items. Nothing that it ever answered is generated again."""

        def build(output: Path, scratch: Path) -> None:
            from adapters.evaluation.answers import write_answers

            write_answers(
                lambda: open_generator(system, self.compute), self.recipe, data / "held_out.jsonl", book, output
            )

        answering, book = self._book(system)
        inputs = {
            "feature": self.recipe.feature,
            "items_per_use_case": self.recipe.evaluation.items_per_use_case,
            **answering,
            # The file, not only the records that it was made of: what is tested on depends on what is trained on, too.
            "items": digest_file(data / "held_out.jsonl"),
            **self._keys("recipe.data"),
            "code.answers": self.lineage.evaluation["code.answers"],
        }
        return Stage("answers", inputs, build)

    def suite(self, name: str, files: Mapping[str, Path], items: int, system: System) -> Stage:
        """What a suite finds of a system, in `result.json`."""
        from adapters.evaluation.suites.run import checked_suite

        suite = checked_suite(name, files)

        def build(output: Path, scratch: Path) -> None:
            from adapters.evaluation.suites.run import write_answered_suite, write_perplexity

            if suite.ask is None:
                write_perplexity(files, *open_model(system, self.compute), items, output)
            else:
                opened = partial(open_generator, system, self.compute)
                write_answered_suite(name, files, self.recipe.data, items, opened, book, output)

        answering, book = self._book(system)
        inputs = {
            "suite": name,
            "files": {kind: digest_file(path) for kind, path in files.items()},
            "items": items,
            "code.suites": code_digest(SUITES_MODULE),
            **answering,
            **self._keys("recipe.data"),
        }
        return Stage("suite", inputs, build)

    def speed(self, adapter: System, data: Path) -> Stage:
        """Seconds for prompts with an adapter beside the weights, and without any, in `speed.json`."""

        def build(output: Path, scratch: Path) -> None:
            from adapters.evaluation.answers import questions
            from adapters.evaluation.items import read_items
            from adapters.evaluation.speed import measure_speed
            from adapters.inference.chat import chat_ids
            from adapters.inference.models import load_tokenizer

            assert adapter.adapter is not None
            asked = questions(self.recipe, read_items(self.recipe, data / "held_out.jsonl"))
            tokenizer = load_tokenizer(adapter.release.folder)
            prompts = [chat_ids(tokenizer, question.prompt) for question in asked]
            figures = measure_speed(adapter.release.folder, adapter.adapter, prompts, self.compute)
            (output / "speed.json").write_bytes(canonical_json(figures))

        answering, _ = self._book(adapter)
        code = code_digest("adapters.evaluation.speed")
        return Stage("speed", {**answering, "code.speed": code, **self._keys("recipe.data")}, build)

    def _book(self, system: System) -> tuple[dict[str, str], Path]:
        """What decides a system's answers, and the folder of those that it ever gave."""
        base = system.release.base_digest if system.adapter is None else system.release.key
        answering = {"base": base, "adapter": system.identity, "code": self.lineage.evaluation["code.generation"]}
        return answering, in_use(self.books / digest(answering))

    def evaluation(
        self,
        answers: Mapping[str, tuple[str, Path]],
        measured: Mapping[str, float],
        data: Path,
        reports: Mapping[str, Path],
    ) -> Stage:
        """Scores, gates, samples, pictures and the report page.

        `answers` maps each system's name to its answers' key and folder; `measured` are figures of the adapter itself;
        `reports` the stages' own reports by name (training, data, synthesis), for the page.
        """

        def build(output: Path, scratch: Path) -> None:
            from adapters.evaluation.evaluate import write_evaluation
            from adapters.evaluation.report import Background, write_report

            folders = {name: folder for name, (_, folder) in answers.items()}
            files = (data / "held_out.jsonl", data / "training.jsonl")
            write_evaluation(self.recipe, files[0], folders, measured, output, files[1])
            write_report(output, Background(self.recipe.description, lineage=self.lineage.build, **reports))

        keys = {f"answers.{name}": key for name, (key, _) in answers.items()}
        inputs = {"measured": dict(measured), "reports": sorted(reports), **keys, **self.lineage.build}
        return Stage("evaluation", {**inputs, **self.lineage.evaluation}, build)

    def _keys(self, *names: str) -> dict[str, str]:
        return {name: self.lineage.build[name] for name in names}

    def _evaluation_sets(self) -> dict[str, str]:
        """The key of the texts that nothing is trained on, where there are some."""
        return {EVALUATION_SETS: self.lineage.build[EVALUATION_SETS]} if self.evaluation_texts else {}

    def _committee(self) -> "list[Member]":
        """The recipe's teachers, none of them opened yet."""
        from adapters.synthesis.drafts import Member

        section = self.recipe.synthesis
        assert section is not None
        members = []
        for name, teacher in section.teachers.items():
            if teacher.url:
                identity = digest([teacher.url, teacher.model])
                members.append(Member(name, identity, partial(self._endpoint, name, teacher)))
            else:
                system = self.teachers.get(name, System(self.release, None, self.release.base_digest))
                members.append(Member(name, system.identity, partial(open_generator, system, self.compute)))
        return members

    def _endpoint(self, name: str, teacher: "Teacher") -> "TextGenerator":
        from adapters.inference.endpoint import EndpointGenerator

        key = self.teacher_api_keys.get(name)
        return EndpointGenerator(teacher.url, teacher.model, key, teacher.at_once, teacher.requests_per_minute)


def open_generator(system: System, compute: Compute) -> "TextGenerator":
    """The system as a text generator."""
    from adapters.inference.generator import LocalGenerator

    return LocalGenerator(*open_model(system, compute))


def open_model(system: System, compute: Compute) -> tuple[Any, Any]:
    """The system's model, its adapter merged; and its tokenizer."""
    import torch

    from adapters.inference.models import load_model, load_tokenizer
    from adapters.palettization.release import load_release
    from adapters.training.lora import merge_adapter

    release = system.release
    if system.adapter is None:
        return load_model(release.base_folder, compute.dtype, compute.device), load_tokenizer(release.base_folder)
    model = merge_adapter(load_release(release.folder, torch.float32, compute.device), system.adapter)
    return model.to(compute.dtype), load_tokenizer(release.folder)
