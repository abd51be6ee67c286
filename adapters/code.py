"""The digest of the code that a stage's output depends on.

Starting from a stage's module, imports inside `adapters` are followed, so that no list has to be kept by hand. The
syntax tree is hashed, without docstrings: a comment or a reworded docstring makes nothing stale. Modules are read as
files and never imported: the plan asks for digests, and must not wait for torch. What was read is kept beside Python's
bytecode of the module, with the digest of its source, since reading it again takes a quarter of a plan's time.
"""

import ast
import contextlib
import functools
import hashlib
import json
from collections.abc import Iterable
from importlib.util import cache_from_source
from pathlib import Path
from typing import NamedTuple

from infra.canonical import canonical_json, digest
from infra.workspace import write_atomically

_ROOM = "adapters"
_FOLDER = Path(__file__).parent
_OWN_SOURCE = Path(__file__).read_bytes()
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
            modules = (one for one in read.names if _source(one) is not None)
            waiting.extend((*read.imports, *modules, *_packages_around(name)))
    return digest(seen)


class _Module(NamedTuple):
    """One module: the digest of its syntax tree, the modules of this room that it imports, and names from them.

    Such a name is that of a module too if there is one.
    """

    tree: str
    imports: list[str]
    names: list[str]


@functools.cache
def _read(name: str) -> _Module:
    path = _source(name)
    if path is None:
        raise ValueError(f"{name} is not a module of {_ROOM}/")
    source = path.read_bytes()
    version = hashlib.sha256(_OWN_SOURCE + source).hexdigest()
    kept = Path(cache_from_source(str(path))).with_suffix(".syntax.json")
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        known = json.loads(kept.read_bytes())
        if known["version"] == version:
            return _Module(known["tree"], known["imports"], known["names"])
    words: list[str] = []
    imports: list[ast.Import | ast.ImportFrom] = []
    _spell(ast.parse(source), words, imports)
    module = _Module(digest(" ".join(words)), *_imported(imports))
    with contextlib.suppress(OSError):
        write_atomically(kept, canonical_json(module._asdict() | {"version": version}))
    return module


def _spell(node: object, words: list[str], imports: list[ast.Import | ast.ImportFrom]) -> None:
    """Append the words that a syntax tree consists of, and its imports.

    It says what `ast.dump` says, and finds the imports on its way: a third of the time, of which the plan has little.
    """
    if isinstance(node, list):
        words.append("[")
        for below in node:
            _spell(below, words, imports)
        words.append("]")
    elif isinstance(node, ast.AST):
        if isinstance(node, _IMPORTS):
            imports.append(node)
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


def _imported(found: Iterable[ast.Import | ast.ImportFrom]) -> tuple[list[str], list[str]]:
    """The modules of this room that are imported, and the names that are imported from them."""
    modules: list[str] = []
    names: list[str] = []
    for node in found:
        if isinstance(node, ast.Import):
            modules += [alias.name for alias in node.names if alias.name.split(".")[0] == _ROOM]
        elif node.module and node.module.split(".")[0] == _ROOM:
            modules.append(node.module)
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return modules, names


def _drop_docstring(node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> None:
    first = node.body[0] if node.body else None
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
        node.body = node.body[1:] or [ast.Pass()]
