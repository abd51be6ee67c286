"""The main job on the real model: what `make run` does, to the end."""

from pathlib import Path

import pytest

from tests.flows.line import factory_json


@pytest.mark.slow
@pytest.mark.real_model
def test_every_shipped_feature_beats_its_baseline_and_is_promoted(tmp_path: Path) -> None:
    ran = factory_json(tmp_path, "run", timeout=2400)
    assert [one["subject"] for one in ran["outcomes"]] == ["base", "notifications", "summarization", "writing"]
    assert [(one["state"], one["error"]) for one in ran["outcomes"]] == [("promoted", "")] * 4
    for one in ran["outcomes"][1:]:
        assert one["figures"]["candidate"] > one["figures"]["baseline"]
    assert factory_json(tmp_path, "run")["outcomes"] == []
