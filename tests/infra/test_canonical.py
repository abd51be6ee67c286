"""Canonical JSON: one byte form per value, and digests that see content and nothing else."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.canonical import canonical_json, digest, digest_file, digest_folder, file_digests

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT,
    lambda below: st.lists(below, max_size=4) | st.dictionaries(TEXT, below, max_size=4),
    max_leaves=20,
)


def reversed_keys(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: reversed_keys(value[key]) for key in reversed(value)}
    return [reversed_keys(item) for item in value] if isinstance(value, list) else value


@given(VALUES)
def test_bytes_are_json_of_the_same_value(value: Any) -> None:
    assert json.loads(canonical_json(value)) == value


@given(VALUES)
def test_form_survives_saving_and_loading(value: Any) -> None:
    assert canonical_json(json.loads(canonical_json(value))) == canonical_json(value)


@given(VALUES)
def test_key_order_does_not_matter(value: Any) -> None:
    assert canonical_json(reversed_keys(value)) == canonical_json(value)
    assert digest(reversed_keys(value)) == digest(value)


@given(VALUES, VALUES)
def test_different_values_have_different_bytes(one: Any, other: Any) -> None:
    # repr tells True from 1 and 0.0 from -0.0, which == does not.
    if repr(reversed_keys(one)) != repr(reversed_keys(other)) and one != other:
        assert canonical_json(one) != canonical_json(other)


def test_form_is_compact_sorted_utf8() -> None:
    assert canonical_json({"é": [1, 2.5, None], "a": "ß\n"}) == '{"a":"ß\\n","é":[1,2.5,null]}'.encode()


def test_digest_is_pinned() -> None:
    # A changed form would make every key of every workspace stale: that must be a decision.
    assert digest({"b": 1, "a": [True, "x"]}) == "f15ef113d6e0c876b9ea9e90ebc36ad3f8b350d44634ba2fc407e978fb8cebeb"


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_json_lacks_are_refused(bad: float) -> None:
    for value in (bad, [bad], {"a": {"b": bad}}):
        with pytest.raises(ValueError, match="JSON"):
            canonical_json(value)


@pytest.mark.parametrize("bad", [{1, 2}, b"bytes", Path("a"), object()], ids=["set", "bytes", "path", "object"])
def test_values_that_json_cannot_hold_are_refused(bad: object) -> None:
    with pytest.raises(ValueError, match="not a JSON value"):
        canonical_json({"a": [bad]})


@pytest.mark.parametrize("key", [1, None, True, 1.5, (1, 2)])
def test_keys_that_are_no_text_are_refused(key: object) -> None:
    # 9 sorts before 10 as a number and after it as the text that it becomes: the form would change on reloading.
    with pytest.raises(ValueError, match="is no text"):
        canonical_json([{"a": {key: 1}}])


def test_lone_surrogate_is_refused() -> None:
    with pytest.raises(ValueError, match="surrogates"):
        canonical_json("\ud800")


def test_file_digest_is_sha256_of_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    assert digest_file(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_folder_digest_sees_names_and_bytes_only(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("one", "two")]
    for folder, names in zip(folders, (["b", "a/c"], ["a/c", "b"]), strict=True):
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(name)
    one, two = folders
    assert file_digests(one).keys() == {"a/c", "b"}
    assert digest_folder(one) == digest_folder(two)
    (two / "b").write_text("B")
    assert digest_folder(one) != digest_folder(two)
    (two / "b").write_text("b")
    (two / "b").rename(two / "d")
    assert digest_folder(one) != digest_folder(two)


def test_symbolic_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    with pytest.raises(ValueError, match="symbolic link"):
        digest_folder(tmp_path)


def test_missing_folder_has_no_digest(tmp_path: Path) -> None:
    with pytest.raises(NotADirectoryError, match="nowhere"):
        digest_folder(tmp_path / "nowhere")
