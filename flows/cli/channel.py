"""`factory channel`: what devices download, how long its signatures are good for, and the keys behind them."""

from pathlib import Path
from typing import Annotated, Any

import typer

from flows.cli.output import PATIENCE, AsJson, Home, print_json, print_table, say, short

app = typer.Typer(help="Keep the channel signed that devices download from.", no_args_is_help=True)
RootKey = Annotated[Path | None, typer.Option(help="File of the root's key, if it is kept elsewhere.")]


@app.command()
def show(json: AsJson = False, home: Home = None) -> None:
    """Show where the channel is, what it serves, and until when each signature is good."""
    from flows.factory import open_factory
    from registry.channel.upkeep import warnings_of

    channel = open_factory(home).channel()
    state = channel.repository.published()
    pointers = channel.pointers()
    found: dict[str, Any] = {
        "place": channel.place,
        "root": str(channel.repository.keys.root_file),
        "version": state.snapshot.signed.version,
        "expires": {role: when.isoformat() for role, when in state.expiries.items()},
        "heads": {feature: head._asdict() for feature, head in sorted(state.heads.items())},
        "pointers": [pointer.model_dump(mode="json") for pointer in pointers],
        "warnings": warnings_of(channel.repository, state),
    }
    if json:
        print_json(found)
        return
    say(f"channel {found['place']}; devices trust it by {found['root']}")
    rows = [[one.feature, short(one.base_release), one.version, _rollout(one.rollout), one.number] for one in pointers]
    print_table(["feature", "base release", "version", "rollout", "decision"], rows)
    print_table(["role", "signed until (UTC)"], [[role, when[:16]] for role, when in found["expires"].items()])
    for warning in found["warnings"]:
        say(f"warning: {warning}")


def _rollout(rollout: Any) -> str | None:
    return f"{rollout.version} for {rollout.share:.0%}" if rollout else None


@app.command()
def refresh(root_key: RootKey = None, json: AsJson = False, home: Home = None) -> None:
    """Sign again what has less than half of its time left; run it daily, or let `factory watch` do it."""
    from flows.factory import open_factory
    from registry.channel import upkeep

    factory = open_factory(home)
    with factory.workspace.lock("decisions", PATIENCE):
        done = upkeep.refresh(factory.channel(root_key).repository)
    if json:
        print_json({"signed": done.signed, "warnings": done.warnings})
        return
    say(f"signed again: {', '.join(done.signed) or 'nothing, nothing is due'}")
    for warning in done.warnings:
        say(f"warning: {warning}")


@app.command()
def rotate(
    role: Annotated[str, typer.Argument(help="root, targets, snapshot, timestamp, or feature-NAME.")],
    root_key: RootKey = None,
    home: Home = None,
) -> None:
    """Replace a role's key; devices follow by themselves and refuse what the old key signs."""
    from flows.factory import open_factory
    from registry.channel import upkeep

    factory = open_factory(home)
    with factory.workspace.lock("decisions", PATIENCE):
        upkeep.rotate(factory.channel(root_key).repository, role)
    say(f"{role}: a new key signs from now on")
