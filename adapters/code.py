"""The digest of the code that a stage's output depends on.

Starting from a stage's module, imports inside `adapters` are followed, so that no list has to be kept by hand. The
syntax tree is hashed, without docstrings: a comment or a reworded docstring makes nothing stale. Modules are read as
files and never imported: the plan asks for digests, and must not wait for torch.
"""

import ast
import functools
from pathlib import Path
from typing import NamedTuple

from infra.canonical import digest

_ROOM = "adapters"
_FOLDER = Path(__file__).parent
_IMPORTS = (ast.Import, ast.ImportFrom)
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


@functools.cache
def code_digest(module: str) -> str:
    """SHA-256 over the syntax trees of `module` and of every module of this room that it imports, however deep.

    Raises:
        ValueError: `module`, or one that it imports, is not a module of this room.
    """
    seen: dict[str, str] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name not in seen:
            read = _read(name)
            seen[name] = read.tree
            waiting.extend((*read.imports, *_packages_around(name)))
    return digest(seen)


class _Module(NamedTuple):
    """One module: the digest of its syntax tree, and what it imports of this room."""

    tree: str
    imports: tuple[str, ...]


@functools.cache
def _read(name: str) -> _Module:
    source = _source(name)
    if source is None:
        raise ValueError(f"{name} is not a module of {_ROOM}/")
    words: list[str] = []
    imports: list[str] = []
    _spell(ast.parse(source.read_text("utf-8")), words, imports)
    return _Module(digest(" ".join(words)), tuple(imports))


def _spell(node: object, words: list[str], imports: list[str]) -> None:
    """Append the words that a syntax tree consists of, and what it imports of this room.

    It says what `ast.dump` says, and finds the imports on its way: a third of the time, of which the plan has little.
    """
    if isinstance(node, list):
        words.append("[")
        for below in node:
            _spell(below, words, imports)
        words.append("]")
    elif isinstance(node, ast.AST):
        if isinstance(node, _IMPORTS):
            imports += _imported(node)
        elif isinstance(node, _DOCUMENTED):
            _drop_docstring(node)
        words.append(type(node).__name__)
        for name in node._fields:
            if name != "ctx":  # whether something is read or written follows from where it stands
                _spell(getattr(node, name), words, imports)
    else:
        words.append(repr(node))


def _source(module: str) -> Path | None:
    """The file of a module or package of this room, if there is one."""
    room, *names = module.split(".")
    path = _FOLDER.joinpath(*names)
    candidates = (path / "__init__.py", path.with_name(f"{path.name}.py"))
    return next((file for file in candidates if room == _ROOM and file.is_file()), None)


def _packages_around(module: str) -> list[str]:
    """The packages whose `__init__` runs when the module is imported."""
    names = module.split(".")
    return [".".join(names[:depth]) for depth in range(1, len(names))]


def _imported(node: ast.Import | ast.ImportFrom) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names if alias.name.split(".")[0] == _ROOM]
    if node.module and node.module.split(".")[0] == _ROOM:
        names = [f"{node.module}.{alias.name}" for alias in node.names]
        return [node.module, *(name for name in names if _source(name) is not None)]
    return []


def _drop_docstring(node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> None:
    first = node.body[0] if node.body else None
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
        node.body = node.body[1:] or [ast.Pass()]
