"""Every check of a workspace, one after the other; one that cannot be made is a finding itself."""

import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

from flows.events import outbox_of, outbox_path
from flows.factory import Factory, open_factory
from infra import checkup
from infra.checkup import Finding, from_error
from infra.errors import FactoryError
from infra.prefect_server import server_url
from infra.settings import CONFIG_FILE
from registry import checkup as registered

_PYTHON = (3, 11)
_EVENTS_WAIT = timedelta(hours=1)


def examine(home: str | Path | None) -> list[Finding]:
    """What is wrong with the workspace and what it stands on; nothing is changed.

    The order is that of causes: what stands first may explain what comes later.
    """
    try:
        factory = open_factory(home)
    except FactoryError as error:
        return [from_error("settings", error)]
    checks: dict[str, Callable[[], Iterator[Finding]]] = {
        "versions": _versions,
        "disk": lambda: checkup.check_disk(factory.workspace.root),
        "settings": lambda: _settings(factory),
        "servers": lambda: _servers(factory),
        "credentials": lambda: _credentials(factory),
        "events": lambda: _events(factory),
        "ledger": lambda: registered.check_ledger(factory.registry),
        "channel": lambda: registered.check_channel(factory.registry),
        "aliases": lambda: _aliases(factory),
        "store": lambda: checkup.check_store(factory.workspace.store, factory.workspace.half_fetched()),
        "processes": lambda: _processes(factory),
    }
    return [finding for name, check in checks.items() for finding in _found(name, check)]


def _found(name: str, check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    try:
        yield from check()
    except FactoryError as error:
        yield from_error(name, error)
    except Exception as error:  # whatever is damaged, the other checks are made
        said = (str(error).strip().splitlines() or [""])[0]
        remedy = "see that what this check reads is whole, or bring it back from its backup"
        yield Finding(name, f"cannot be checked: {type(error).__name__}: {said}", remedy)


def _versions() -> Iterator[Finding]:
    if sys.version_info[:2] != _PYTHON:
        found = ".".join(map(str, sys.version_info[:2]))
        yield Finding("versions", f"Python is {found}, tested with 3.11", "make the environment with Python 3.11")
    try:
        needed = {name for name in requires("adapter-factory") or [] if ";" not in name}
    except PackageNotFoundError:  # a checkout on PYTHONPATH
        needed = set()
    yield from checkup.check_versions(checkup.CONSTRAINTS, needed)


def _settings(factory: Factory) -> Iterator[Finding]:
    """Recipes and corpora that cannot be read, and a device that is not there."""
    for name in factory.features:
        try:
            factory.records(name)
            factory.suite_files(name)
        except FactoryError as error:
            yield from_error("settings", error)
    device = factory.settings.device
    if device != "cpu":
        import torch

        if not torch.cuda.is_available():
            yield Finding(
                "settings", f"device = {device}, and torch finds no GPU", "set `device` to cpu, or mend the driver"
            )


def _servers(factory: Factory) -> Iterator[Finding]:
    settings = factory.settings
    if factory.mlflow_database is None and settings.mlflow_uri.startswith("http"):
        yield from checkup.check_server("MLflow", f"{settings.mlflow_uri.rstrip('/')}/health")
    # Prefect reads its variable first, whatever the settings say.
    if prefect := server_url() or factory.prefect_api_url:
        yield from checkup.check_server("Prefect", f"{prefect.rstrip('/')}/health")
    for one in factory.stack.statuses():
        if not one.healthy:
            yield Finding("servers", f"{one.name} of `factory up` is {one.state} and does not answer", f"see {one.log}")


def _events(factory: Factory) -> Iterator[Finding]:
    """An outbox that cannot be read, and events that a server should have had long ago."""
    if not outbox_path(factory).is_file():  # it is made by whoever has something to tell
        return
    waiting = outbox_of(factory).waiting(1)
    if waiting and (server_url() or factory.prefect_api_url):
        oldest = datetime.fromisoformat(waiting[0].time)
        if datetime.now(UTC) - oldest > _EVENTS_WAIT:
            remedy = "see that Prefect's server answers and takes them; every command and `factory watch` sends them"
            yield Finding("events", f"events wait for Prefect's server since {waiting[0].time}", remedy)


def _credentials(factory: Factory) -> Iterator[Finding]:
    yield from checkup.check_secrets(CONFIG_FILE, factory.workspace.keys)
    settings = factory.settings
    places = {"channel": settings.channel, "artifacts": settings.artifacts, "data_remote": settings.data_remote}
    for setting, place in places.items():
        if place.startswith("s3://"):
            yield from checkup.check_bucket(setting, place)


def _aliases(factory: Factory) -> Iterator[Finding]:
    if factory.ledger.current_release() is not None:  # MLflow takes seconds to open
        yield from registered.check_aliases(factory.registry)


def _processes(factory: Factory) -> Iterator[Finding]:
    for process in factory.stack.leftovers():
        problem = f"process {process.pid} of `factory up` has outlived its supervisor"
        yield Finding("processes", problem, "`factory down` ends it")
