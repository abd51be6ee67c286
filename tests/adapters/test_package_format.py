"""The package format: shipped schemas say what the code reads, real packages are valid by them, and so is the page."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from pydantic import BaseModel

from adapters.device import channel_layout
from adapters.device.base_package import MANIFEST, Manifest, make_manifest, read_manifest
from adapters.device.channel_layout import Pointer, Rollout
from adapters.device.package import METADATA, PackageMetadata
from infra.canonical import digest
from infra.errors import FactoryError
from tests.registry.workshop import SUMMARIES, Workshop

ROOT = Path(__file__).parents[2]
SCHEMAS = ROOT / "adapters" / "device" / "schemas"
KINDS: dict[str, type[BaseModel]] = {
    "adapter-metadata.schema.json": PackageMetadata,
    "base-manifest.schema.json": Manifest,
    "pointer.schema.json": Pointer,
}


def schema_of(kind: type[BaseModel]) -> dict[str, Any]:
    """The schema of what the code accepts; `format` must be stated in a file, though code fills it in."""
    schema = kind.model_json_schema(mode="validation")
    schema["required"] = ["format", *schema["required"]]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | schema


def validator(name: str) -> Draft202012Validator:
    return Draft202012Validator(json.loads((SCHEMAS / name).read_text("utf-8")))


def errors(name: str, content: Any) -> list[str]:
    return [error.message for error in validator(name).iter_errors(content)]


@pytest.mark.parametrize("name", KINDS)
def test_a_schema_says_what_the_code_reads(name: str) -> None:
    Draft202012Validator.check_schema(schema_of(KINDS[name]))
    written = json.dumps(schema_of(KINDS[name]), indent=2) + "\n"
    assert (SCHEMAS / name).read_text("utf-8") == written, f"write {name} anew: {written}"


def test_real_packages_are_valid(tmp_path: Path) -> None:
    shop = Workshop(tmp_path)
    release = shop.release()
    shop.promote(release)
    device = shop.device()
    manifest = json.loads((device.pull_base().folder / MANIFEST).read_text("utf-8"))
    assert errors("base-manifest.schema.json", manifest) == []
    metadata = json.loads((device.pull(SUMMARIES).folder / METADATA).read_text("utf-8"))
    assert errors("adapter-metadata.schema.json", metadata) == []
    for path in (tmp_path / "channel/targets").rglob("*.production.json"):
        assert errors("pointer.schema.json", json.loads(path.read_text("utf-8"))) == []


@pytest.mark.parametrize(
    "change",
    [{"format": 2}, {"format": None}, {"feature": "../x"}, {"rank": 0}, {"files": {"a": {"sha256": "x", "bytes": 1}}},
     {"base_release": digest("x") + "0"}, {"more": 1}, {"use_cases": {}}, {"license": ""}],
)  # fmt: skip
def test_a_package_that_is_none_is_invalid(tmp_path: Path, change: dict[str, object]) -> None:
    shop = Workshop(tmp_path)
    package, _ = shop.package(shop.release())
    metadata = json.loads((package / METADATA).read_text("utf-8"))
    assert errors("adapter-metadata.schema.json", metadata) == []
    assert errors("adapter-metadata.schema.json", metadata | change) != []


digests = st.text("0123456789abcdef", min_size=64, max_size=64)
rollouts = st.builds(Rollout, version=st.integers(1), package=digests, share=st.floats(0.001, 1))
pointers = st.builds(
    Pointer,
    feature=st.from_regex(r"\A[a-z][a-z0-9-]{0,20}\Z"),
    base_release=digests,
    version=st.integers(1),
    package=digests,
    number=st.integers(1),
    row=digests,
    rollout=st.none() | rollouts,
)


@given(pointers, st.text(max_size=40))
def test_every_pointer_is_valid_and_decides_as_the_page_says(pointer: Pointer, device: str) -> None:
    content = json.loads(pointer.model_dump_json())
    assert errors("pointer.schema.json", content) == []
    assert Pointer.model_validate_json(json.dumps(content)) == pointer
    chosen = pointer.version_for(device)
    if pointer.rollout is None:
        assert chosen == (pointer.version, pointer.package)
    else:
        place = int(digest([pointer.feature, pointer.base_release, pointer.rollout.version, device])[:13], 16) / 16**13
        rolled_out = (pointer.rollout.version, pointer.rollout.package)
        assert chosen == (rolled_out if place < pointer.rollout.share else (pointer.version, pointer.package))


@given(st.text(max_size=60))
def test_no_text_is_a_path_out_of_the_folder(name: str) -> None:
    try:
        channel_layout.checked_file(name)
    except FactoryError:
        return
    assert (Path("/package") / name).resolve().is_relative_to("/package")
    assert re.fullmatch(r"[A-Za-z0-9._/-]+", name)


@given(st.binary(max_size=200))
def test_no_bytes_break_the_reading_of_a_manifest(content: bytes) -> None:
    with pytest.raises(FactoryError):
        read_manifest(content, "there")


def test_a_manifest_is_the_same_for_the_same_release(tmp_path: Path) -> None:
    shop = Workshop(tmp_path)
    key, folder = shop.release()
    made = [make_manifest(folder, key, 1, digest("folder")).to_bytes() for _ in range(2)]
    assert made[0] == made[1]
    assert read_manifest(made[0], "there").to_bytes() == made[0]


@pytest.mark.parametrize(("kind", "heading"), [(PackageMetadata, "An adapter's package")])
def test_the_page_names_every_field(kind: type[BaseModel], heading: str) -> None:
    page = (ROOT / "docs/package-format.md").read_text("utf-8")
    section = page.split(f"## {heading}\n")[1].split("\n## ")[0]
    table = section.split("| `metadata.json` | meaning |")[1]
    named = {
        name
        for cells in re.findall(r"^\| (`.*?`) \|", table, flags=re.MULTILINE)
        for name in re.findall(r"`(\w+)`", cells)
    }
    assert named == set(kind.model_fields)
    for other in (Manifest, Pointer):
        for name in other.model_fields:
            assert f"`{name}`" in page
