"""The digest of code: sees what runs, wherever it is imported from, and nothing else."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from adapters import code
from adapters.lineage import EVALUATION_MODULES, STAGE_MODULES

STAGE = '''"""A stage."""

from adapters.near import helper  # a name


def build(n: int) -> int:
    """Build it."""
    return helper(n) + 1
'''
NEAR = '''"""A helper that needs another."""

import json

from adapters.deep import far


def helper(n: int) -> int:
    from infra.canonical import digest

    return len(digest(json.dumps(far.VALUE))) + n
'''


def forget() -> None:
    """Read modules anew, as the next process does."""
    code.code_digest.cache_clear()
    code._read.cache_clear()


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A room of four modules: stage → near → deep.far, and `apart`, which nobody imports."""
    (tmp_path / "deep").mkdir()
    files = {"stage.py": STAGE, "near.py": NEAR, "deep/far.py": "VALUE = 1\n", "apart.py": "VALUE = 1\n"}
    for name, text in (files | {"__init__.py": "", "deep/__init__.py": ""}).items():
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(code, "_FOLDER", tmp_path)
    forget()
    yield tmp_path
    forget()


def changes(room: Path, name: str, edit: Callable[[str], str]) -> bool:
    """Whether an edit of a module changes the stage's digest."""
    path = room / name
    text = path.read_text()
    assert edit(text) != text
    before = code.code_digest("adapters.stage")
    path.write_text(edit(text))
    forget()
    after = code.code_digest("adapters.stage")
    path.write_text(text)
    forget()
    return before != after


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"""A stage."""', '"""Another wording."""'),
        ('"""A stage."""\n', ""),
        ("# a name", "# another comment"),
        ('    """Build it."""\n', ""),
        ("helper(n) + 1", "helper( n ) + 1"),
        ("return helper(n) + 1", "return (\n        helper(n)\n        + 1\n    )"),
    ],
)
def test_comments_docstrings_and_layout_do_not_count(room: Path, old: str, new: str) -> None:
    assert not changes(room, "stage.py", lambda text: text.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new"), [("+ 1", "+ 2"), ("helper(n)", "helper(-n)"), ("def build", "def make"), ("n: int", "n: float")]
)
def test_code_counts(room: Path, old: str, new: str) -> None:
    assert changes(room, "stage.py", lambda text: text.replace(old, new))


def test_code_of_a_module_imported_by_an_imported_one_counts(room: Path) -> None:
    assert changes(room, "near.py", lambda text: text.replace("+ n", "- n"))
    assert changes(room, "deep/far.py", lambda text: text.replace("1", "2"))


def test_packages_on_the_way_count(room: Path) -> None:
    assert changes(room, "deep/__init__.py", lambda _: "print('runs on import')\n")
    assert changes(room, "__init__.py", lambda _: "print('runs on import')\n")


def test_module_that_is_not_imported_does_not_count(room: Path) -> None:
    assert not changes(room, "apart.py", lambda text: text.replace("1", "2"))


def test_text_that_is_no_docstring_counts(room: Path) -> None:
    (room / "stage.py").write_text('PROMPT = """A prompt."""\n')
    assert changes(room, "stage.py", lambda text: text.replace("prompt.", "question."))


@pytest.mark.parametrize(
    "line",
    [
        "import adapters.apart",
        "import adapters.apart as other",
        "from adapters import apart",
        "from adapters.apart import VALUE",
        "def later():\n    from adapters.apart import VALUE",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from adapters.apart import VALUE",
    ],
)
def test_every_way_to_import_is_followed(room: Path, line: str) -> None:
    (room / "stage.py").write_text(f"{line}\n")
    assert changes(room, "apart.py", lambda text: text.replace("1", "2"))


def test_circles_end(room: Path) -> None:
    (room / "deep" / "far.py").write_text("from adapters import stage\nVALUE = 1\n")
    assert changes(room, "stage.py", lambda text: text.replace("+ 1", "+ 2"))


def test_what_was_read_is_kept_for_the_next_process(room: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = code.code_digest("adapters.stage")
    forget()
    with monkeypatch.context() as patch:
        patch.delattr(code.ast, "parse")
        assert code.code_digest("adapters.stage") == before


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"version": 1}', b"\xff"])
def test_a_spoilt_copy_is_read_anew(room: Path, content: bytes) -> None:
    before = code.code_digest("adapters.stage")
    for path in room.rglob("*.syntax.json"):
        path.write_bytes(content)
    forget()
    assert code.code_digest("adapters.stage") == before


def test_where_nothing_can_be_kept_digests_are_the_same(room: Path) -> None:
    (room / "__pycache__").write_text("no folder")
    before = code.code_digest("adapters.stage")
    (room / "__pycache__").unlink()
    forget()
    assert code.code_digest("adapters.stage") == before


def test_a_module_that_is_added_later_counts(room: Path) -> None:
    """A name from a package becomes a module, and the importing file stays as it is."""
    (room / "stage.py").write_text("from adapters.deep import new\n")
    before = code.code_digest("adapters.stage")
    (room / "deep" / "new.py").write_text("VALUE = 1\n")
    forget()
    assert code.code_digest("adapters.stage") != before


@pytest.mark.parametrize("module", ["adapters.nowhere", "infra.store", "os"])
def test_module_of_another_place_is_an_error(room: Path, module: str) -> None:
    with pytest.raises(ValueError, match=module):
        code.code_digest(module)


def test_import_of_a_module_that_is_not_there_is_an_error(room: Path) -> None:
    (room / "stage.py").write_text("from adapters.gone import x\n")
    with pytest.raises(ValueError, match=r"adapters\.gone"):
        code.code_digest("adapters.stage")


@pytest.mark.parametrize("module", [*STAGE_MODULES.values(), *EVALUATION_MODULES.values()])
def test_every_stage_of_the_lineage_has_code(module: str) -> None:
    assert len(code.code_digest(module)) == 64


def test_digests_are_taken_without_importing_the_code() -> None:
    script = (
        "import sys; from adapters.lineage import STAGE_MODULES, EVALUATION_MODULES\n"
        "from adapters.code import code_digest\n"
        "for module in (*STAGE_MODULES.values(), *EVALUATION_MODULES.values()): code_digest(module)\n"
        "print([name for name in ('torch', 'transformers', 'great_expectations') if name in sys.modules])"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=root, check=True)
    assert done.stdout == "[]\n"
