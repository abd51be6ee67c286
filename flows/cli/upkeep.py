"""`factory gc` and `factory doctor`: keep the workspace small, and find what is wrong with it."""

import re
import shutil
import sys
from datetime import timedelta
from typing import Annotated

import typer

from flows.cli.output import AsJson, Home, print_json, print_table, say
from infra.errors import FactoryError

_UNITS = {"h": "hours", "d": "days", "w": "weeks"}


def register(app: typer.Typer) -> None:
    """Add the commands to the top level."""
    app.command()(gc)
    app.command()(doctor)


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
    """Remove what neither today's inputs nor anything in production was made of, and what kills left behind."""
    from flows.factory import open_factory
    from flows.gc import leftovers, unreachable

    grace = grace_of(older_than)
    factory = open_factory(home)
    with factory.workspace.lock():
        found = [(entry, entry.megabytes) for entry in unreachable(factory, grace)]
        folders = leftovers(factory, grace)
        if not dry_run:
            for entry, _ in found:
                factory.workspace.store.remove(entry)
            for folder in folders:
                shutil.rmtree(folder, ignore_errors=True)
    if json:
        entries = [{"stage": entry.stage, "key": entry.key, "mb": round(size, 3)} for entry, size in found]
        print_json({"removed": not dry_run, "entries": entries, "leftovers": [str(folder) for folder in folders]})
        return
    for folder in folders:
        say(str(folder))
    if found:
        sizes: dict[str, list[float]] = {}
        for entry, size in found:
            sizes.setdefault(entry.stage, []).append(size)
        rows = [[name, len(some), round(sum(some), 1)] for name, some in sorted(sizes.items())]
        print_table(["stage", "outputs", "MB"], rows)
    total = sum(size for _, size in found)
    removed = "would remove" if dry_run else "removed"
    say(f"{removed} {len(found)} outputs, {total:.1f} MB, and {len(folders)} other folders")


def doctor(json: AsJson = False, home: Home = None) -> None:
    """Look for what is wrong: versions, disk, servers, credentials, clock, signatures, ledger, store. 1 if anything is.

    Nothing is changed. Each finding comes with its remedy.
    """
    from flows.doctor import examine

    found = examine(home)
    if json:
        print_json({"healthy": not found, "findings": [one.to_json() for one in found]})
    elif found:
        print_table(["check", "what is wrong", "what to do"], [[one.check, one.problem, one.remedy] for one in found])
    else:
        say("nothing is wrong")
    if found:
        sys.exit(1)
