"""`factory up`, `down`, `status`: the servers of one machine."""

import sys

import typer

from flows.cli.output import AsJson, Home, print_json, print_table, say
from infra.supervision import Status


def register(app: typer.Typer) -> None:
    """Add the commands to the top level."""
    for command in (up, down, status):
        app.command()(command)


def up(json: AsJson = False, home: Home = None) -> None:
    """Start Prefect's and MLflow's servers, a worker and what watches for changes; wait until they are well."""
    from flows.factory import open_factory
    from flows.stack import stack_environment, stack_services
    from infra.progress import console

    factory = open_factory(home)
    if not factory.stack.is_running():
        services = stack_services(factory)
        console.print("  starting the servers", highlight=False)
        factory.stack.start(services, stack_environment(factory, services))
    _show(factory.stack.statuses(), json)


def down(json: AsJson = False, home: Home = None) -> None:
    """End what `factory up` started, and whatever of it outlived its supervisor."""
    from flows.factory import open_factory

    ended = open_factory(home).stack.stop()
    if json:
        print_json({"ended": ended})
    else:
        say("ended" if ended else "nothing was up")


def status(json: AsJson = False, home: Home = None) -> None:
    """Say how the servers are; exit code 1 unless all of them are well."""
    from flows.factory import open_factory

    found = open_factory(home).stack.statuses()
    _show(found, json)
    if not found or not all(one.healthy for one in found):
        sys.exit(1)


def _show(found: list[Status], json: bool) -> None:
    if json:
        print_json({"up": bool(found), "services": [one.to_json() for one in found]})
        return
    if not found:
        say("not up; `factory up` starts it")
        return
    rows = [[one.name, _state(one), one.pid, round(one.seconds), one.health, one.log] for one in found]
    print_table(["", "state", "process", "seconds", "health page", "log"], rows)


def _state(one: Status) -> str:
    return one.state.lower() if one.healthy else f"{one.state.lower()}, not well"
