"""`bench features` on rows made here: what is held out, which way differences point, and a run that was stopped."""

import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from adapters.evaluation.answers import ANSWERS, write_table
from adapters.evaluation.items import documents, read_items
from adapters.records import read_records
from infra.store import Store
from infra.workspace import Workspace
from tests.benchmarks import bench_features, feature_systems, texts
from tests.benchmarks.feature_systems import Systems
from tests.benchmarks.feature_tasks import TASKS, THREAD_WORDS, Task, thread
from tests.flows.line import RELEASE
from tests.tiny import make_tiny_base

WORDS = "train meeting late today please call garden noon tomorrow rain bread paper river lamp stone".split()
BY_NAME = {task.name: task for task in TASKS}
ROWS = 40


def said(chance: random.Random, count: int) -> str:
    return " ".join(chance.choices(WORDS, k=count))


def rows_of(name: str) -> list[dict[str, Any]]:
    """Rows of a file of shared data, with the fields of that file."""
    chance = random.Random(name)
    fields: dict[str, Callable[[], dict[str, Any]]] = {
        "notifications": lambda: {
            "app": "Mail", "title": said(chance, 3), "body": said(chance, 15), "priority": chance.randint(1, 3)
        },
        "writing": lambda: {"text": said(chance, 12), "references": [said(chance, 12) for _ in range(2)]},
        "messages": lambda: {"dialogue": f"#Person1#: {said(chance, 20)}", "summary": said(chance, 6)},
        "email_threads": lambda: {
            "messages": [{"from": "A", "subject": "B", "text": said(chance, 300)} for _ in range(3)],
            "summary": said(chance, 12),
        },
    }  # fmt: skip
    make = next(make for key, make in fields.items() if key in name)
    return [{"id": f"{Path(name).name}-{number}", **make()} for number in range(ROWS)]


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of shared data with every file that the tasks name."""
    folder = tmp_path / "data"
    for name in {name for task in TASKS for name in (task.train, task.test) if name}:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows_of(name)), "utf-8")
    monkeypatch.setattr(texts, "DATA", folder)
    return folder


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_what_is_tested_is_never_trained_on(task: Task, data: Path, tmp_path: Path) -> None:
    task = replace(task, held_out=task.held_out and 0.3)
    first = min(task.records()[1])
    known = next(row for name in (task.test or task.train,) for row in texts.rows(name) if row["id"] == first)
    copies = [{**known, "id": f"copy-{number}"} for number in range(8)]  # not all of them fall on the held-out side
    with (data / task.train).open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(copy) + "\n" for copy in copies)
    made = Store(tmp_path / "store").build(task.data()).path
    training, test = (read_records(made / f"{side}.jsonl")[0] for side in ("training", "held_out"))
    assert len(training) + len(test) >= ROWS and len(test) > ROWS / 8
    assert sum(one.id.startswith("copy-") for one in training) == 1
    assert not {first, *(copy["id"] for copy in copies)} & {one.id for one in test}
    items = read_items(task.recipe, made / "held_out.jsonl")
    assert len(set(documents(items))) == len(items)


def test_a_thread_is_cut_where_the_device_stops_reading() -> None:
    text = thread(rows_of("email_threads")[0])
    assert text.startswith("From: A\nSubject: B\n\n") and text.count("Subject: B") == 2
    assert sum(word in WORDS for word in text.split()) == THREAD_WORDS


def test_differences_point_from_ours_to_the_peer(data: Path, tmp_path: Path) -> None:
    task = replace(BY_NAME["proofreading"], held_out=0.5, metrics=("gleu",))
    made = Store(tmp_path / "store").build(task.data()).path
    items = read_items(task.recipe, made / "held_out.jsonl")
    says = {
        "base": ["river" for _ in items],
        "adapter": [item.targets[0] for item in items],
        "uncompressed": [item.input for item in items],
        "uncompressed_adapter": [item.targets[0] for item in items],
    }
    for name, answers in says.items():
        (tmp_path / name).mkdir()
        rows = [
            {"id": item.id, "text": text, "tokens": 1, "logprob": -0.1, "finished": True}
            for item, text in zip(items, answers, strict=True)
        ]
        write_table(tmp_path / name / ANSWERS, rows)
    found = bench_features.Answered(task, made, {name: tmp_path / name for name in says})
    figures = {figure.name: figure for figure in bench_features.figures(found)}
    assert figures["proofreading_items"].ours == len(items)
    over_base = figures["proofreading_gleu_adapter_vs_base"]
    assert over_base.peer is not None and over_base.ours > 0.5 > 0.2 > over_base.peer
    assert 0 < figures["proofreading_gleu_adapter_vs_base_low"].ours < over_base.ours - over_base.peer
    # The text as it is, is both the trivial system and what the uncompressed base says here.
    trivial = figures["proofreading_gleu_adapter_vs_trivial"]
    assert trivial.peer == figures["proofreading_gleu_uncompressed_adapter_vs_uncompressed"].peer
    same = figures["proofreading_gleu_adapter_vs_uncompressed_adapter"]
    assert same.ours == over_base.ours and same.ratio == 1.0


@pytest.mark.slow
def test_a_run_that_was_stopped_goes_on(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "release.yaml").write_text(RELEASE, "utf-8")
    monkeypatch.setenv("FACTORY_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("FACTORY_BASE", str(make_tiny_base(tmp_path / "base")))
    monkeypatch.setenv("FACTORY_RELEASE_RECIPE", str(tmp_path / "release.yaml"))
    monkeypatch.setattr(feature_systems, "TOKENS", 3000)
    tasks = (replace(BY_NAME["notifications"], held_out=0.3), replace(BY_NAME["dialogues"], held_out=0.3))
    monkeypatch.setattr(bench_features, "TASKS", tasks)
    answers = Systems.answers

    def stopped(systems: Systems, side: Any, adapter: Any, *rest: Any) -> Path:
        if adapter is not None and not side.palettized:
            raise KeyboardInterrupt
        return answers(systems, side, adapter, *rest)

    monkeypatch.setattr(Systems, "answers", stopped)
    with pytest.raises(KeyboardInterrupt):
        bench_features.run()
    store = Workspace(tmp_path / "home").store
    before = {entry.key: entry.created for entry in store.entries()}
    assert sum(entry.stage == "bench-features-adapter" for entry in store.entries()) == 2

    monkeypatch.setattr(Systems, "answers", answers)
    figures = bench_features.run()
    after = {entry.key: entry.created for entry in store.entries()}
    assert before.items() <= after.items()
    names = {figure.name for figure in figures}
    for task in ("notifications_macro_f1", "dialogues_rouge_l"):
        assert {f"{task}_{one}_vs_{other}_low" for one, other in bench_features.COMPARED} <= names
    assert bench_features.run() == figures
    assert {entry.key for entry in store.entries()} == after.keys()
