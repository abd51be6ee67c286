"""`factory gc`: keep the workspace small."""

import re
from datetime import timedelta
from typing import Annotated

import typer

from flows.cli.output import AsJson, Home, print_json, print_table, say
from infra.errors import FactoryError

_UNITS = {"h": "hours", "d": "days", "w": "weeks"}


def register(app: typer.Typer) -> None:
    """Add the command to the top level."""
    app.command()(gc)


def grace_of(older_than: str) -> timedelta:
    """The time that somebody wrote as `30d`.

    Raises:
        FactoryError: it is none.
    """
    parsed = re.fullmatch(r"(\d{1,5})([hdw])", older_than)
    if parsed is None:
        raise FactoryError(f"--older-than {older_than}: give a number with h, d or w, as in 30d")
    return timedelta(**{_UNITS[parsed[2]]: int(parsed[1])})


def gc(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    older_than: Annotated[str, typer.Option(help="Grace period: hours, days or weeks, as in 12h, 30d, 4w.")] = "30d",
    json: AsJson = False,
    home: Home = None,
) -> None:
    """Remove outputs from the store that neither today's inputs nor anything in production was made of."""
    from flows.factory import open_factory
    from flows.gc import unreachable

    grace = grace_of(older_than)
    factory = open_factory(home)
    with factory.workspace.lock():
        found = [(entry, entry.megabytes) for entry in unreachable(factory, grace)]
        if not dry_run:
            for entry, _ in found:
                factory.workspace.store.remove(entry)
    if json:
        entries = [{"stage": entry.stage, "key": entry.key, "mb": round(size, 3)} for entry, size in found]
        print_json({"removed": not dry_run, "entries": entries})
        return
    if found:
        sizes: dict[str, list[float]] = {}
        for entry, size in found:
            sizes.setdefault(entry.stage, []).append(size)
        rows = [[name, len(some), round(sum(some), 1)] for name, some in sorted(sizes.items())]
        print_table(["stage", "outputs", "MB"], rows)
    total = sum(size for _, size in found)
    say(f"{'would remove' if dry_run else 'removed'} {len(found)} outputs, {total:.1f} MB")
