"""The drill: a factory on real servers with two workers does its work untouched by hand, and survives what happens.

The tests go on from one another in their order.
"""

import json
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from adapters.device.client import Device
from adapters.records import read_records, split_held_out
from infra.canonical import digest_file
from tests.flows.line import factory, factory_json, make_project, read_rows, write_rows
from tests.flows.stack import Stack
from tests.servers import PUBLIC_BUCKET
from tests.tiny import make_tiny_base

pytestmark = [pytest.mark.drill, pytest.mark.servers]
FEATURES = ["brief", "edit", "rank"]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    stack = Stack(tmp_path_factory.mktemp("drill"))
    try:
        stack.start()
        yield stack
    finally:
        stack.stop()


def promoted(stack: Stack, feature: str) -> list[int]:
    """The versions that were promoted, in their order."""
    return [version for action, version in stack.actions(feature) if action == "promote"]


def change_training(stack: Stack, feature: str, word: str) -> None:
    """Change the target of a record that is trained on: its input, and so its side, stays."""
    folder = stack.project / "features" / feature
    records, _ = read_records(folder / "corpus/rows.jsonl")
    training = {record.id for record in split_held_out(records, 0.3)[0] if record.target is not None}
    rows = read_rows(folder)
    changed = next(row for row in rows if row["id"] in training)
    changed["target"] = f"{changed['target']} {word}"
    write_rows(folder, rows)


def test_the_first_adapters_come_by_themselves(stack: Stack) -> None:
    stack.until(lambda: all(promoted(stack, feature) == [1] for feature in FEATURES))
    stack.quiet()
    assert promoted(stack, "base") == [1]


def test_the_embedded_default_gives_the_same_digests(stack: Stack, tmp_path: Path) -> None:
    """The same keys; and the same weights, where no digest of a Core AI asset is among a file's inputs."""
    project = make_project(tmp_path / "project")
    # What decides a key is content: where the base lies is none of it.
    factory(project, "run", timeout=900)
    for feature in ("base", *FEATURES):
        (here,) = factory_json(project, "history", feature)
        there = stack.rows(feature)[0]
        assert (here["lineage"], here["evaluation"]) == (there.lineage, there.evaluation)
    assert _weights(project) == _weights(stack.project)


def _weights(project: Path) -> dict[str, str]:
    """The digest of each trained adapter, by the key of its training."""
    found = (project / ".factory/store/training").glob("*/output/adapter/adapter_model.safetensors")
    return {path.parents[2].name: digest_file(path) for path in found}


def test_a_new_base_is_posted_a_worker_dies_over_it_and_devices_have_all_three(stack: Stack, tmp_path: Path) -> None:
    source = stack.upload(make_tiny_base(tmp_path / "other", seed=1), "two")
    assert stack.post({"base": source}) == 202
    killed, run = stack.kill_worker_in("recovery", "base", "release-base")
    finished = stack.stored()
    stack.until(lambda: promoted(stack, "base") == [1, 2])
    assert stack.state_of(run) == "CRASHED"
    assert finished.items() <= stack.stored().items(), "what was finished is not done again"
    stack.start_worker(f"{killed}-base")
    stack.until(lambda: all(promoted(stack, feature) == [1, 2] for feature in FEATURES))
    stack.quiet()
    release = stack.rows("base")[-1].base_release
    root = stack.project / ".factory/keys/roots/1.root.json"
    device = Device(f"{stack.s3.endpoint}/{PUBLIC_BUCKET}/channel", tmp_path / "device", root)
    assert device.pull_base().base_release == release
    assert [device.pull(feature).version for feature in FEATURES] == [2, 2, 2]
    stack.until(lambda: sum(": promote by robot" in text for text in stack.told) >= 8)


def test_data_of_one_feature_rebuilds_exactly_that_one(stack: Stack) -> None:
    before = {feature: stack.actions(feature) for feature in FEATURES}
    runs = len(stack.runs("retrain"))
    rows = stack.project / "rows.csv"
    rows.write_text("id,input,target\n" + "".join(f"n{i},late garden {i},garden {i}\n" for i in range(4)), "utf-8")
    stack.factory("data", "add", "edit", "rows.csv", "--use-case", "main")
    stack.until(lambda: promoted(stack, "edit") == [1, 2, 3])
    stack.quiet()
    assert {feature: stack.actions(feature) for feature in ("brief", "rank")} == {
        feature: before[feature] for feature in ("brief", "rank")
    }
    assert len(stack.runs("retrain")) == runs + 1


def test_twenty_triggers_in_ten_seconds_are_one_rebuild_each(stack: Stack) -> None:
    runs, started = len(stack.runs("retrain")), time.monotonic()
    posts: list[threading.Thread] = []
    for number in range(20):
        if number % 2:
            change_training(stack, "edit", f"word{number}")
        posts.append(threading.Thread(target=stack.post, args=({},)))
        posts[-1].start()
        time.sleep(max(0.0, started + (number + 1) / 2 - time.monotonic()))
    for post in posts:
        post.join()
    stack.until(lambda: factory_state(stack, "edit") == "fresh")
    stack.quiet()
    assert len(promoted(stack, "edit")) == 4, "one rebuild, of the newest inputs"
    assert len(stack.runs("retrain")) <= runs + 2
    assert factory_state(stack, "rank") == factory_state(stack, "brief") == "fresh"


def factory_state(stack: Stack, feature: str) -> str:
    """A feature's state by the plan."""
    (plan,) = json.loads(stack.factory("plan", feature, "--json"))["features"]
    return str(plan["state"])


def test_a_second_person_agrees_and_people_are_told(stack: Stack) -> None:
    recipe = stack.project / "features/rank/recipe.yaml"
    before, text = stack.actions("rank"), recipe.read_text("utf-8")
    recipe.write_text(f"{text}promotion: {{approval: required}}\n", "utf-8")
    change_training(stack, "rank", "agreed")
    number = max(version for _, version in before) + 1
    stack.until(lambda: stack.actions("rank") == [*before, ("request", number)])
    stack.quiet()
    assert promoted(stack, "rank")[-1] == number - 1, "nothing is promoted before somebody agrees"
    stack.factory("approve", "rank", str(number), "--reason", "my own", code=1)
    stack.factory("approve", "rank", str(number), "--reason", "ten samples are fine", actor="ann")
    decisions = [("request", number), ("approve", number), ("promote", number)]
    stack.until(lambda: stack.actions("rank") == [*before, *decisions])
    stack.quiet()
    wanted = (f"rank {number}: request by robot", f"rank {number}: promote by robot")
    stack.until(lambda: all(any(one in text for text in stack.told) for one in wanted))
    recipe.write_text(text, "utf-8")
    assert factory_state(stack, "rank") == "fresh"


STAGES = ["data", "synthesis", "training", "package", "answers", "evaluation"]


@pytest.mark.parametrize("stage", STAGES)
def test_a_worker_is_killed_in_a_stage_and_the_other_finishes(stack: Stack, stage: str) -> None:
    before, known = stack.actions("brief"), stack.stored()
    change_training(stack, "brief", stage)
    killed, run = stack.kill_worker_in(stage, "feature-brief", "retrain")
    finished = stack.stored()
    new = {path.parents[1].name for path in finished.keys() - known.keys()}
    assert new >= set(STAGES[: STAGES.index(stage)])
    stack.until(lambda: len(stack.actions("brief")) > len(before))
    stack.quiet()
    number = max(version for _, version in before) + 1
    assert stack.actions("brief") == [*before, ("promote", number)], "nothing twice, nothing lost"
    assert stack.state_of(run) == "CRASHED", "it was alive when it was killed"
    assert finished.items() <= stack.stored().items(), "what was finished is not done again"
    assert factory_state(stack, "brief") == "fresh"
    stack.start_worker(f"{killed}-{stage}")


def test_postgres_and_s3_stop_in_the_middle(stack: Stack) -> None:
    before = {feature: len(promoted(stack, feature)) for feature in ("brief", "rank")}
    for feature in before:
        change_training(stack, feature, "outage")
    stack.until(lambda: stack.holds("feature-brief") and stack.making("*"))
    for name in ("postgres", "s3"):
        stack.programs[name].stop()
    time.sleep(20)
    for name in ("postgres", "s3"):
        stack.programs[name].start()
    stack.until(
        lambda: (
            {feature: len(promoted(stack, feature)) for feature in before}
            == {feature: count + 1 for feature, count in before.items()}
        )
    )
    stack.quiet()
    audit = factory_json(stack.project, "ledger", "verify", more=stack.environment)
    assert audit["whole"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small disk")
def test_a_full_disk_is_told_and_the_next_run_goes_on(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project")
    store = project / ".factory/store"
    store.mkdir(parents=True)
    _mount(store, "size=500k")
    try:
        told = factory(project, "run", code=2, timeout=900).stderr
        assert "No space left on device while" in told and "make room and run again" in told
        assert "Traceback" not in told
        _mount(store, "remount,size=200m")
        outcomes = factory_json(project, "run", timeout=900)["outcomes"]
        assert [(one["subject"], one["state"]) for one in outcomes] == [
            (subject, "promoted") for subject in ("base", *FEATURES)
        ]
        assert 0.0 in outcomes[0]["seconds"].values(), "what was finished is not done again"
    finally:
        subprocess.run(["umount", str(store)], check=True)


def _mount(folder: Path, options: str) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True)
