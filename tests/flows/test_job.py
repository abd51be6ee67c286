"""The keys of a feature's stages name what the stages are made from."""

from collections.abc import Sequence
from pathlib import Path

from adapters.lineage import lineage_of
from adapters.records import Record
from flows.job import Job, Release
from tests.adapters.test_data_prepare import make_recipe

RECORDS = [Record(id="a", use_case="email", input="one", target="two", source="s", license="l")]


def job(texts: Sequence[tuple[str, str]] = (), base: str = "base") -> Job:
    """The rebuild of a feature with a synthesis section, over a release that is nowhere."""
    nowhere, recipe = Path("nowhere"), make_recipe()
    lineage = lineage_of(recipe, RECORDS, "release", texts)
    release = Release("release", "digest", nowhere, base, nowhere)
    return Job(recipe, RECORDS, [], lineage, release, "cpu", {}, {}, nowhere, nowhere, texts)


def test_synthesis_is_done_again_when_an_evaluation_text_changes() -> None:
    keys = {job(texts).synthesis(Path("data")).key for texts in ((), [("a", "one text")], [("a", "another text")])}
    assert len(keys) == 3
    assert job().synthesis(Path("data")).key in keys
