"""`factory bench`: run a benchmark of the checkout and print its figures."""

import importlib.util
import sys
from pathlib import Path
from typing import Annotated

import typer

from flows.cli.output import AsJson, print_json, print_table
from infra.errors import FactoryError


def register(app: typer.Typer) -> None:
    """Add the command to the top level."""
    app.command()(bench)


def bench(
    name: Annotated[str, typer.Argument(help="A benchmark of tests/benchmarks, e.g. train.")],
    json: AsJson = False,
) -> None:
    """Measure against a peer in the same run (needs a checkout of the project)."""
    root = Path(__file__).resolve().parents[2]
    folder = root / "tests" / "benchmarks"
    if not folder.is_dir():
        raise FactoryError(f"{folder}: benchmarks need a checkout of the project; clone it and run there")
    known = sorted(path.stem.removeprefix("bench_").replace("_", "-") for path in folder.glob("bench_*.py"))
    if name not in known:
        raise FactoryError(f"no benchmark {name!r}; there are: {', '.join(known)}")
    sys.path.insert(0, str(root))
    common = importlib.import_module("tests.benchmarks.common")
    try:
        measured = importlib.import_module(f"tests.benchmarks.bench_{name.replace('-', '_')}")
    except ModuleNotFoundError as missing:
        install = "pip install --constraint infra/constraints.txt --editable '.[dev,peers]'"
        raise FactoryError(f"{name} compares with {missing.name}, which is not installed: {install}") from missing
    result = common.report(name, measured.run())
    if json:
        print_json(result)
        return
    rows = [[f["name"], f["unit"], f["ours"], f["peer"], f["ratio"]] for f in result["figures"]]
    print_table(["figure", "unit", "ours", "peer", "ratio"], rows, title=f"{name} on {result['machine']}")
