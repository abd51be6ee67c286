"""The digest of the code that a stage's output depends on.

Starting from a stage's module, imports inside `adapters` are followed, so that no list has to be kept by hand. The
syntax tree is hashed, without docstrings: a comment or a reworded docstring makes nothing stale.
"""

import ast
import functools
import importlib.util
from pathlib import Path

from infra.canonical import digest

_ROOM = "adapters"


@functools.cache
def code_digest(module: str) -> str:
    """SHA-256 over the syntax trees of `module` and of every module of this room that it imports, however deep."""
    seen: dict[str, str] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        tree = ast.parse(_source(name).read_text("utf-8"))
        waiting.extend(_imports(tree))
        seen[name] = ast.dump(_without_docstrings(tree))
    return digest(seen)


def _source(module: str) -> Path:
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise ValueError(f"{module} has no source file")
    return Path(spec.origin)


def _imports(tree: ast.Module) -> list[str]:
    found: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.split(".")[0] == _ROOM]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == _ROOM:
            assert node.module is not None
            submodules = [f"{node.module}.{alias.name}" for alias in node.names]
            found += [
                node.module,
                *(name for name in submodules if importlib.util.find_spec(node.module) and _is_module(name)),
            ]
    return found


def _is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                node.body = node.body[1:] or [ast.Pass()]
    return tree
