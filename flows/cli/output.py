"""What commands print (tables for people, one JSON document for programs), and the shares of devices they are told."""

import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from infra.errors import FactoryError

Home = Annotated[Path | None, typer.Option(help="Workspace folder (default: .factory, or FACTORY_HOME).")]
BaseRelease = Annotated[
    str | None,
    typer.Option(metavar="KEY|VERSION", help="The base release that it is about; default: the current one."),
]
# How many seconds a short command waits for another that holds what it needs.
PATIENCE = 60.0
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]

_PERCENT = re.compile(r"(\d{1,3}(?:\.\d+)?)%")


def print_json(value: Any) -> None:
    """Print one JSON document, indented, keys in the order given."""
    from pydantic import TypeAdapter

    sys.stdout.write(TypeAdapter(Any).dump_json(value, indent=2).decode("utf-8") + "\n")


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]], title: str | None = None) -> None:
    """Print a table; figures align to the right."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), title=title, title_justify="left", title_style="bold")
    for index, column in enumerate(columns):
        numeric = bool(rows) and all(isinstance(row[index], int | float | None) for row in rows)
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text("–" if cell is None else str(cell)) for cell in row))
    Console().print(table)


def side_by_side(sides: Sequence[Mapping[str, float]]) -> list[list[str]]:
    """Rows of a table that compares figures: a name, then its value on each side."""
    names = sorted({name for side in sides for name in side})
    return [[name, *(f"{side[name]:.4g}" if name in side else "–" for side in sides)] for name in names]


def say(text: str) -> None:
    """Print a line for people."""
    sys.stdout.write(text + "\n")


def short(digest: str | None) -> str:
    """The first characters of a digest, enough to tell two apart."""
    return digest[:10] if digest else "–"


def share_of(text: str) -> float:
    """The share, between 0 and 1, that somebody wrote as `5%`.

    Raises:
        FactoryError: it is none.
    """
    found = _PERCENT.fullmatch(text)
    if not found or not 0 < float(found[1]) <= 100:
        raise FactoryError(f"{text!r} is no share of the devices: write 5%, 50%, 100%")
    return float(found[1]) / 100
