"""What the whole tree keeps: imports one way, pinned dependencies, safe calls, short files, whole packages."""

import ast
import re
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("infra", "adapters", "registry", "flows")  # each may import itself and those before it
OURS = {*ROOMS, "tests"}
SKIPPED = {"build", "dist", "__pycache__"}
MAX_LINES = 500
# Orchestration, registries, servers, object stores and command lines have no place in adapters/.
IMPURE = {
    "prefect", "mlflow", "boto3", "botocore", "s3fs", "dvc", "sqlalchemy",
    "typer", "click", "fastapi", "starlette", "uvicorn", "flask",
}  # fmt: skip
UNSAFE_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
UNSAFE_CALLS = {
    "eval", "exec", "os.system", "os.popen", "torch.load", "torch.save", "yaml.load", "yaml.unsafe_load", 
    "pandas.read_pickle",
}  # fmt: skip
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
PINS = [
    line.strip()
    for line in (ROOT / "infra" / "constraints.txt").read_text("utf-8").splitlines()
    if line.strip() and not line.startswith("#")
]


def files(*folders: str, suffixes: tuple[str, ...] = (".py",)) -> list[Path]:
    """Files of the tree with one of the suffixes, caches and hidden folders aside."""
    starts = [ROOT / folder for folder in folders] or [ROOT]
    return sorted(
        path
        for start in starts
        for path in start.rglob("*")
        if path.suffix in suffixes
        and path.is_file()
        and not any(
            part.startswith(".") or part in SKIPPED or part.endswith(".egg-info") for part in within(path).parts
        )
    )


def within(path: Path) -> Path:
    return path.relative_to(ROOT)


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"), str(path))


def imports_of(path: Path) -> Iterator[tuple[int, str]]:
    """Line and dotted name of everything that a file imports; `from a import b` counts as `a`."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.lineno, "." * node.level + (node.module or "")


def top(name: str) -> str:
    return name.split(".")[0]


def normal(name: str) -> str:
    """A distribution's name as PyPI compares them (PEP 503), without version and extras."""
    return re.sub(r"[-_.]+", "-", re.split(r"[\[<>=!~; ]", name, maxsplit=1)[0]).lower()


def direct_dependencies() -> set[str]:
    return {normal(name) for name in PROJECT["project"]["dependencies"]}


def dev_dependencies() -> set[str]:
    return {normal(name) for names in PROJECT["project"]["optional-dependencies"].values() for name in names}


def third_party(*folders: str) -> dict[str, list[str]]:
    """Where each top-level name is imported that is neither ours nor the standard library's."""
    found: dict[str, list[str]] = {}
    for path in files(*folders):
        for line, name in imports_of(path):
            if top(name) and top(name) not in OURS | sys.stdlib_module_names:
                found.setdefault(top(name), []).append(f"{within(path)}:{line}")
    return found


def providers() -> dict[str, set[str]]:
    """Installed distributions by the top-level name that they provide."""
    return {name: {normal(dist) for dist in dists} for name, dists in packages_distributions().items()}


def test_imports_point_one_way() -> None:
    wrong = [
        f"{within(path)}:{line} imports {name}"
        for position, room in enumerate(ROOMS)
        for path in files(room)
        for line, name in imports_of(path)
        if top(name) in OURS and top(name) not in ROOMS[: position + 1]
    ]
    assert wrong == []


def test_imports_are_absolute() -> None:
    # The digest of code (adapters/code.py) follows absolute imports.
    assert [
        f"{within(p)}:{line}" for p in files(*ROOMS, "tests") for line, name in imports_of(p) if name[:1] == "."
    ] == []


def test_adapters_are_pure() -> None:
    wrong = [
        f"{within(p)}:{line} {name}" for p in files("adapters") for line, name in imports_of(p) if top(name) in IMPURE
    ]
    assert wrong == []


def test_no_file_is_too_long() -> None:
    suffixes = (".py", ".md", ".yaml", ".toml", ".html", ".css", ".js", ".sql", ".sh")
    lengths = {str(within(path)): len(path.read_text("utf-8").splitlines()) for path in files(suffixes=suffixes)}
    assert {name: length for name, length in lengths.items() if length > MAX_LINES} == {}


def unsafe_in(path: Path) -> Iterator[str]:
    names: dict[str, str] = {}  # local name → what it stands for
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            names |= {
                alias.asname or top(alias.name): alias.name if alias.asname else top(alias.name) for alias in node.names
            }
        elif isinstance(node, ast.ImportFrom):
            names |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    yield from (f"{line} {name}" for line, name in imports_of(path) if top(name) in UNSAFE_MODULES)
    for node in ast.walk(tree_of(path)):
        if not isinstance(node, ast.Call):
            continue
        first, *rest = ast.unparse(node.func).split(".")
        called = ".".join([names.get(first, first), *rest])
        if called in UNSAFE_CALLS:
            yield f"{node.lineno} {called}"
        for keyword in node.keywords:
            truth = isinstance(keyword.value, ast.Constant) and keyword.value.value is True
            if truth and keyword.arg in ("shell", "allow_pickle", "trust_remote_code"):
                yield f"{node.lineno} {keyword.arg}=True"


def test_nothing_unsafe_is_called() -> None:
    assert [f"{within(path)}:{what}" for path in files() for what in unsafe_in(path)] == []


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from pickle import loads",
        "eval('1')",
        "import torch as t\nt.load('x')",
        "from torch import load as fetch\nfetch('x')",
        "import subprocess\nsubprocess.run('ls', shell=True)",
        "import numpy\nnumpy.load('x', allow_pickle=True)",
        "import yaml\nyaml.load('x', Loader=None)",
    ],
)
def test_unsafe_calls_are_found_however_they_are_spelled(tmp_path: Path, code: str) -> None:
    (tmp_path / "module.py").write_text(code + "\nmodel.eval()\n")
    assert len(list(unsafe_in(tmp_path / "module.py"))) == 1


def test_packages_are_all_listed() -> None:
    folders = {path.parent for path in files(*ROOMS)}
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == {".".join(within(folder).parts) for folder in folders}
    assert [str(within(folder)) for folder in sorted(folders) if not (folder / "__init__.py").is_file()] == []


def test_package_data_is_there_and_whole() -> None:
    shipped: set[Path] = set()
    for package, patterns in PROJECT["tool"]["setuptools"]["package-data"].items():
        for pattern in patterns:
            matches = {path for path in (ROOT / Path(*package.split("."))).glob(pattern) if path.is_file()}
            assert matches, f"{package}: {pattern} matches no file"
            shipped |= matches
    suffixes = (".yaml", ".jsonl", ".json", ".html", ".css", ".js", ".txt", ".toml", ".sql", ".typed")
    data = set(files(*ROOMS, suffixes=suffixes)) - set(files("infra/deploy", suffixes=suffixes))  # for checkouts
    assert [str(within(path)) for path in sorted(data - shipped)] == [], "files that an installation would lack"


def test_import_names_are_ours_alone() -> None:
    # AdapterHub's distribution is imported as `adapters` too.
    found = {name: dists for name, dists in providers().items() if name in ROOMS}
    assert {name: dists - {"adapter-factory"} for name, dists in found.items() if dists - {"adapter-factory"}} == {}


def test_versions_are_set_in_one_place() -> None:
    assert [line for line in PINS if not re.fullmatch(r"[A-Za-z0-9_.-]+==[^=<>~! ]+", line)] == []
    assert [name for name, count in Counter(normal(line) for line in PINS).items() if count > 1] == []
    extras = PROJECT["project"]["optional-dependencies"].values()
    declared = [name for names in (PROJECT["project"]["dependencies"], *extras) for name in names]
    assert [name for name in declared if not re.fullmatch(r"[a-z0-9-]+", name)] == [], "names only, no versions"
    assert sorted((direct_dependencies() | dev_dependencies()) - {normal(line) for line in PINS}) == []


def test_every_dependency_is_used_or_explained() -> None:
    provided = providers()
    imported = {dist for name in third_party(*ROOMS) for dist in provided.get(name, {normal(name)})}
    architecture = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    unused = sorted(name for name in direct_dependencies() - imported if f"`{name}`" not in architecture)
    assert unused == [], "neither imported nor explained in docs/architecture.md"


def test_nothing_is_imported_that_is_not_a_dependency() -> None:
    assert undeclared(direct_dependencies(), *ROOMS) == {}
    assert undeclared(direct_dependencies() | dev_dependencies(), "tests") == {}


# The extra `peers` is not installed where tests run, and this name does not follow from its distribution's.
OTHER_NAMES = {"llama_cpp": {"llama-cpp-python"}}


def undeclared(allowed: set[str], *folders: str) -> dict[str, list[str]]:
    provided = OTHER_NAMES | providers()
    found = third_party(*folders).items()
    return {name: places for name, places in found if not provided.get(name, {normal(name)}) & allowed}


def test_test_files_have_names_of_their_own() -> None:
    counts = Counter(path.name for path in files("tests") if path.name.startswith("test_"))
    assert [name for name, count in counts.items() if count > 1] == []


def test_no_file_names_a_folder_of_one_machine() -> None:
    suffixes = (".py", ".md", ".yaml", ".toml", ".html", ".txt", ".sh", "")
    pattern = re.compile(r"(?<![\w.])/(?:tmp|work|root)/\w")
    found = [str(within(path)) for path in files(suffixes=suffixes) if pattern.search(path.read_text("utf-8"))]
    assert found == []
