"""`factory watch`, `serve`, `deploy`: the factory runs by itself."""

import threading
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.output import PATIENCE, AsJson, Home, print_json, print_table, say, short
from flows.cli.run import Profile, Promote, run_once
from infra.errors import FactoryError, can_pass

if TYPE_CHECKING:
    from flows.factory import Factory
    from flows.watching import Watcher

Every = Annotated[str, typer.Option(help="How often to look: 30s, 5m, 1h.")]
_UNITS = {"s": 1, "m": 60, "h": 3600}


def register(app: typer.Typer) -> None:
    """Add the commands to the top level."""
    for command in (watch, serve, deploy):
        app.command()(command)


def watch(
    every: Every = "60s",
    once: Annotated[bool, typer.Option("--once", help="Only say what is seen; nothing is run.")] = False,
    listen: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Take signed requests there, too: 127.0.0.1:8790.")
    ] = None,
    promote: Promote = True,
    json: AsJson = False,
    home: Home = None,
    profile: Profile = None,
) -> None:
    """Look for changes again and again, and see to it that something is done about them; stop with Ctrl-C.

    With a Prefect server (PREFECT_API_URL) its automations are told of changes; without one, this process runs.
    """
    from flows.endpoint import listening
    from flows.factory import open_factory
    from flows.watching import Watcher

    seconds, watcher = _interval(every).total_seconds(), Watcher()
    if once:
        _print_sights(open_factory(home, profile), watcher, json)
        return
    wake, warned = threading.Event(), set[str]()
    with ExitStack() as stack:
        if listen is not None:
            host, port = _address(listen)
            port = stack.enter_context(listening(lambda: open_factory(home, profile), host, port, wake.set))
            say(f"listening on http://{host}:{port}")
        while True:
            wake.clear()
            # Opened anew each time: recipes and settings may have changed.
            try:
                look_once(open_factory(home, profile), watcher, promote, warned)
            except Exception as error:
                if not isinstance(error, FactoryError) and not can_pass(error):
                    raise
                say(f"error: {error}")
            wake.wait(seconds)


def look_once(factory: "Factory", watcher: "Watcher", promote: bool, warned: set[str]) -> None:
    """Renew signatures, look at what is watched, and run what the plan then asks for, or tell Prefect's server.

    Raises:
        FactoryError: a recipe is wrong, or a run failed; signatures are renewed before.
    """
    from flows.events import announce
    from flows.planning import make_plan
    from infra.prefect_server import server_url

    # First, because devices refuse what has expired: whatever else fails must not keep signatures from being renewed.
    for warning in _keep_signed(factory) - warned:
        say(f"warning: {warning}")
        warned.add(warning)
    for sight in watcher.look(factory):
        if sight.state in ("changed", "error") and (sight.state == "changed" or sight.error not in warned):
            say(f"{sight.source}: {sight.error or 'changed'}")
            warned.add(sight.error or "")
    announce(factory)
    if not server_url() and make_plan(factory, []).needs_work(promote):
        run_once(factory, [], promote, json=False)


def _keep_signed(factory: "Factory") -> set[str]:
    """Renew the channel's signatures that are due; returns what somebody must see to."""
    from registry.channel import upkeep

    repository = factory.channel().repository
    if repository.state() is None:
        return set()
    with factory.workspace.lock("decisions", PATIENCE):
        return set(upkeep.refresh(repository).warnings)


def _print_sights(factory: "Factory", watcher: "Watcher", json: bool) -> None:
    from flows.events import outbox_of

    sights, waiting = watcher.look(factory, act=False), len(outbox_of(factory).waiting())
    if json:
        print_json({"sources": [sight.to_json() for sight in sights], "events_waiting": waiting})
        return
    rows = [[sight.source, sight.error or sight.state, short(sight.revision)] for sight in sights]
    print_table(["source", "state", "revision"], rows)
    say(f"{waiting} events wait for Prefect's server")


def serve(
    limit: Annotated[int, typer.Option(help="How many flows run at once on this machine.", min=1)] = 2,
    every: Annotated[str, typer.Option(help="How often the plan is asked though nothing has happened.")] = "10m",
    home: Home = None,
) -> None:
    """Run the factory's flows on this machine as Prefect's server asks for them; stop with Ctrl-C."""
    from prefect import serve as serve_flows

    from flows.deployments import deployments, enter

    factory = _served(home)
    made = deployments(None, _interval(every), Path.cwd())
    enter(made, [], None, factory.settings.notify_url)
    serve_flows(*made, limit=limit, pause_on_shutdown=False, print_starting_message=False)


def deploy(
    pool: Annotated[str, typer.Option(help="The work pool; one for processes is made if it is not there.")] = "factory",
    gpu_pool: Annotated[
        str | None, typer.Option(metavar="NAME", help="Another pool, with GPUs, for the flows that train.")
    ] = None,
    builds: Annotated[int | None, typer.Option(help="How many builds may run at once in a pool.", min=1)] = None,
    every: Annotated[str, typer.Option(help="How often the plan is asked though nothing has happened.")] = "10m",
    home: Home = None,
) -> None:
    """Enter the factory's flows and automations in Prefect's server, for workers: `prefect worker start --pool …`."""
    from flows.deployments import deployments, enter

    factory = _served(home)
    pools = [pool, gpu_pool] if gpu_pool else [pool]
    made = deployments(pool, _interval(every), Path.cwd(), gpu_pool)
    enter(made, pools, builds, factory.settings.notify_url)
    for one in made:
        say(f"{one.full_name}: {one.work_queue_name} of {one.work_pool_name}")
    for name in pools:
        say(f"next: prefect worker start --pool {name} --limit N, on each machine")


def _served(home: Path | None) -> "Factory":
    """The factory, which needs a Prefect server from here on."""
    from flows.factory import open_factory
    from infra.prefect_server import server_url

    if not server_url():
        raise FactoryError("PREFECT_API_URL names no Prefect server; start one with `prefect server start` and set it")
    return open_factory(home)


def _interval(text: str) -> timedelta:
    unit = _UNITS.get(text[-1:], 0)
    if not unit or not text[:-1].isdigit() or int(text[:-1]) == 0:
        raise FactoryError(f"--every {text!r}: write a number and s, m or h, as in 60s")
    return timedelta(seconds=int(text[:-1]) * unit)


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise FactoryError(f"--listen {text!r}: write HOST:PORT, as in 127.0.0.1:8790")
    return host, int(port)
