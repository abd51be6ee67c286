"""Teachers that are models from elsewhere: fetched once, known by their digest, and asked."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from adapters.inference.types import Prompt, Sampling
from adapters.lineage import differences
from flows.factory import Factory, System
from flows.job import Release
from infra.errors import FactoryError
from infra.settings import Settings
from tests.flows.line import make_feature
from tests.tiny import make_tiny_base


@pytest.fixture
def factory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Factory:
    """A workspace without any base release, and a feature with a teacher of its own."""
    synthesis = "synthesis:\n  teachers: {base: {}, big: {source: ../big}}\n"
    feature = make_feature(tmp_path / "features" / "brief", "rouge_l", synthesis=synthesis)
    made = Factory(Settings(home=tmp_path / "home", features=[feature], shipped_features=False))
    nowhere = tmp_path / "nowhere"
    monkeypatch.setattr(Factory, "release", lambda _, key: Release(key, "digest", nowhere, "base", nowhere))
    return made


def test_a_teacher_may_be_another_model(factory: Factory, tmp_path: Path) -> None:
    with pytest.raises(FactoryError, match=r"big: no such folder|big.*no config"):
        factory.job_on("brief", "release")
    big = make_tiny_base(tmp_path / "features" / "big", seed=3)
    before = factory.lineage("brief", "release")
    job = factory.job_on("brief", "release")
    (known,) = factory.workspace.known_bases()
    assert differences(before.build, job.lineage.build)[0][0] == "teachers"
    assert factory.lineage("brief", "release") == job.lineage, "the plan compares with what the run began with"
    assert job.teachers["big"].identity == known.digest
    committee = job._committee()
    assert [(one.name, one.identity) for one in committee] == [("base", "base"), ("big", known.digest)]
    (answers,) = committee[1].open().generate([Prompt("", "call me")], Sampling(4), lambda *_: None)
    assert answers[0].tokens > 0

    other = replace(job, teachers={"big": System(job.release, None, "another digest")})
    assert other.synthesis(tmp_path).key != job.synthesis(tmp_path).key
    (big / "config.json").write_text(json.dumps({}))
    assert factory.job_on("brief", "release").teachers["big"].identity == known.digest, "it is fetched once"
