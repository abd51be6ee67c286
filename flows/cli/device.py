"""`factory device`: what a device does, to try a channel out or to build on."""

from pathlib import Path
from typing import Annotated

import typer

from flows.cli.output import AsJson, Home, print_json, say

app = typer.Typer(help="Download from a channel as a device does.", no_args_is_help=True)


@app.command()
def pull(
    feature: Annotated[str, typer.Argument(help="A feature, or `base` for the base release.")],
    folder: Annotated[Path, typer.Argument(help="The device's folder.")],
    channel: Annotated[str, typer.Option(help="Where to download from: an HTTP address or a folder.")],
    base: Annotated[str | None, typer.Option(help="Key of a base release; default: the device's own.")] = None,
    root: Annotated[
        Path | None, typer.Option(help="Root to trust at first; default: the workspace's, if there is one.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="Its id, for staged rollouts; default: a random one.")] = None,
    json: AsJson = False,
    home: Home = None,
) -> None:
    """Bring a feature's adapter, or the base release, to what the channel says; what is not signed so is refused."""
    from adapters.device.client import Device

    client = Device(channel, folder, root or _own_root(home), device)
    found = client.pull_base(base) if feature == "base" else client.pull(feature, base)
    if json:
        shown = {"feature": found.feature, "version": found.version, "base_release": found.base_release}
        print_json(shown | {"staged": found.staged, "folder": str(found.folder), "downloaded": found.downloaded})
        return
    how = f"{found.downloaded / 1e6:.1f} MB downloaded" if found.downloaded else "there already"
    staged = ", staged" if found.staged else ""
    say(f"{found.feature} {found.version}{staged} for base release {found.base_release[:10]}: {found.folder} ({how})")


def _own_root(home: Path | None) -> Path | None:
    """The root of the workspace that the command is run in, where that is the one that publishes."""
    from infra.settings import load_settings
    from registry.channel.keys import Keys

    keys = Keys(load_settings(home=home).home.expanduser() / "keys")
    return keys.root_file if keys.root_versions() else None
