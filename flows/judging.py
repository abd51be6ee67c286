"""Verdicts on a version's answers: of the model that settings name, and of people; for a command, and for gates."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from adapters.code import code_digest
from adapters.evaluation.answers import ANSWERS, read_answers
from adapters.evaluation.items import read_items, use_cases_of
from adapters.evaluation.judges import Judge
from adapters.evaluation.verdicts import Verdict, candidate_figures, read_verdicts, write_verdicts
from flows.factory import Factory
from flows.job import Job, System
from infra.canonical import canonical_json, digest
from infra.errors import FactoryError
from infra.store import Stage
from infra.workspace import in_use

if TYPE_CHECKING:
    from flows.testing import Build

_VERDICTS, _UNREAD = "verdicts.jsonl", "unread.json"


def ask_model(
    factory: Factory, job: Job, answers: dict[str, Path], data: Path, items: int, grade: bool
) -> tuple[list[Verdict], int]:
    """Verdicts of the settings' model on the candidate and the base, and how many could not be read.

    `answers` holds the folders of both systems' answers, `items` is how many held-out records of each use case count.

    Raises:
        FactoryError: settings name no model.
    """
    tested = read_items(job.recipe, data / "held_out.jsonl")
    kept = {item.id for name in use_cases_of(tested) for item in [i for i in tested if i.use_case == name][:items]}
    asked = [item for item in tested if item.id in kept]
    texts = {name: [answer.text for answer in read_answers(path / ANSWERS, asked)] for name, path in answers.items()}
    judge = _model(factory)
    preferences, unread = judge.prefer(job.recipe, asked, texts, "candidate", "baseline")
    found: list[Verdict] = list(preferences)
    if grade:
        grades, more = judge.grade(job.recipe, asked, texts["candidate"], "candidate")
        found, unread = [*found, *grades], unread + more
    return found, unread


def verdict_figures(
    factory: Factory, job: Job, candidate: System, answers: dict[str, tuple[str, Path]], data: Path, build: "Build"
) -> dict[str, float]:
    """What a recipe's gates on verdicts are held against, as `verdicts.WHO.FIGURE`.

    `answers` are keys and folders of the systems' answers. People's verdicts count if they speak of this candidate:
    they come when there is a version to look at, so before that such a gate fails, and the version waits for them.

    Raises:
        FactoryError: nobody can be asked, or a verdict names no version.
    """
    section = job.recipe.evaluation.verdicts
    given: dict[str, dict[str, float]] = {}
    if section.model:
        verdicts, unread = _from_model(factory, job, answers, data, build)
        given["model"] = candidate_figures(verdicts) | {"unread": float(unread)}
    if section.people:
        path = factory.verdicts_file(job.recipe.feature)
        assert path is not None
        about = _about(factory, job.recipe.feature, read_verdicts(path), candidate, path)
        given["people"] = candidate_figures(about)
    return {f"verdicts.{who}.{name}": value for who, figures in given.items() for name, value in figures.items()}


def _from_model(
    factory: Factory, job: Job, answers: dict[str, tuple[str, Path]], data: Path, build: "Build"
) -> tuple[list[Verdict], int]:
    """The model's verdicts, and how many could not be read, as `ask_model` tells them; kept as a stage."""
    evaluation = job.recipe.evaluation
    graded = {f"verdicts.model.{name}" for name in ("good", "poor")}
    grade = any(rule.metric in graded for rule in evaluation.gates.values())
    sides = {name: answers[name] for name in ("candidate", "baseline")}

    def judge(output: Path, scratch: Path) -> None:
        folders = {name: path for name, (_, path) in sides.items()}
        found, unread = ask_model(factory, job, folders, data, evaluation.verdicts.items, grade)
        write_verdicts(output / _VERDICTS, found)
        (output / _UNREAD).write_bytes(canonical_json(unread))

    inputs = {
        "answers": {name: key for name, (key, _) in sides.items()},
        "model": [factory.settings.judge_url, factory.settings.judge_model],
        "items": evaluation.verdicts.items,
        "grade": grade,
        "code": code_digest("adapters.evaluation.judges"),
    }
    kept = build(Stage("verdicts", inputs, judge)).path
    return read_verdicts(kept / _VERDICTS), int(json.loads((kept / _UNREAD).read_text("utf-8")))


def _about(factory: Factory, feature: str, verdicts: Sequence[Verdict], candidate: System, path: Path) -> list[Verdict]:
    """The verdicts that name a version with the candidate's package."""
    if any(verdict.version is None for verdict in verdicts):
        raise FactoryError(f"{path}: a verdict that a gate counts names the `version` that it is about")
    named = {verdict.version for verdict in verdicts if verdict.version is not None}
    meant = {number for number in named if factory.catalog.version(feature, number).package == candidate.identity}
    return [verdict for verdict in verdicts if verdict.version in meant]


def _model(factory: Factory) -> Judge:
    from adapters.inference.endpoint import EndpointGenerator

    settings = factory.settings
    if not settings.judge_url:
        raise FactoryError("no model judges; set judge_url in factory.toml, or take evaluation.verdicts.model out")
    book = in_use(factory.workspace.books / digest(["judge", settings.judge_url, settings.judge_model]))
    return Judge(
        settings.judge_model or "model",
        lambda: EndpointGenerator(settings.judge_url, settings.judge_model, settings.judge_api_key or None),
        book,
    )
