"""The keys of a feature's stages name what the stages are made from."""

import json
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import pytest

from adapters.lineage import lineage_of
from adapters.records import Record, write_records
from adapters.synthesis.synthesize import STACKS
from flows.job import TRAINED_ON, Job, Release
from infra.compute import Compute
from tests.adapters.test_data_prepare import make_recipe

RECORDS = [Record(id="a", use_case="email", input="one", target="two", source="s", license="l")]


def job(texts: Sequence[tuple[str, str]] = (), base: str = "base") -> Job:
    """The rebuild of a feature with a synthesis section, over a release that is nowhere."""
    nowhere, recipe = Path("nowhere"), make_recipe()
    lineage = lineage_of(recipe, RECORDS, "release", texts)
    release = Release("release", "digest", nowhere, base, nowhere)
    return Job(recipe, RECORDS, [], lineage, release, Compute(), {}, {}, nowhere, nowhere, texts)


def test_a_version_is_trained_on_every_record_of_a_stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import adapters.training.examples
    import adapters.training.launch

    monkeypatch.setattr(adapters.training.examples, "read_examples", lambda *_: [])
    monkeypatch.setattr(adapters.training.launch, "train_on_devices", lambda *_: None)
    write_records(tmp_path / "training.jsonl", RECORDS)
    write_records(tmp_path / "accepted.jsonl", [RECORDS[0].model_copy(update={"id": "first"})])
    (tmp_path / STACKS).write_text(json.dumps({"first": ["first", "second"]}))
    job().training(tmp_path, tmp_path, lambda _: nullcontext(lambda *_: None)).build(tmp_path, tmp_path)
    assert json.loads((tmp_path / TRAINED_ON).read_text()) == ["a", "first", "second"]


def test_synthesis_is_done_again_when_an_evaluation_text_changes() -> None:
    keys = {job(texts).synthesis(Path("data")).key for texts in ((), [("a", "one text")], [("a", "another text")])}
    assert len(keys) == 3
    assert job().synthesis(Path("data")).key in keys
