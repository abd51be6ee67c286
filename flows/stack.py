"""The embedded stack of a workspace: Prefect's server, MLflow's server, what runs flows, what watches for changes.

A server that settings name is used as it is; the others run here, on loopback, over the workspace's own databases or
those that settings name.
"""

import sys
from collections.abc import Mapping

from flows.endpoint import key_of
from flows.factory import Factory
from infra.supervision import Service, choose_port

PREFECT, MLFLOW, WORKER, TRIGGERS = "prefect", "mlflow", "worker", "triggers"
_PORTS = {PREFECT: 4200, MLFLOW: 5000, TRIGGERS: 8790}
_HOST = "127.0.0.1"


def stack_services(factory: Factory) -> list[list[Service]]:
    """The services in the order of their start: servers, then what needs them.

    Raises:
        FactoryError: a secret for posts is set, and is none.
    """
    settings = factory.settings
    ports = _ports(factory.stack.ports())
    servers = []
    if not settings.prefect_api_url:
        command = _module("prefect", "server", "start", "--host", _HOST, "--port", str(ports[PREFECT]))
        servers.append(Service(PREFECT, command, f"http://{_HOST}:{ports[PREFECT]}/api/health"))
    if factory.mlflow_database is not None:
        # Clients write files themselves, as they do without a server: what either has written, both find.
        options = ("--host", _HOST, "--port", str(ports[MLFLOW]), "--workers", "1", "--no-serve-artifacts")
        place = ("--default-artifact-root", factory.artifacts)
        servers.append(
            Service(MLFLOW, _module("mlflow", "server", *options, *place), f"http://{_HOST}:{ports[MLFLOW]}/health")
        )
    worker = Service(WORKER, _module("flows.cli.main", "serve"))
    watch = ["flows.cli.main", "watch", "--every", "60s"]
    health = None
    if settings.trigger_secret:
        key_of(settings.trigger_secret)
        watch += ["--listen", f"{_HOST}:{ports[TRIGGERS]}"]
        health = f"http://{_HOST}:{ports[TRIGGERS]}/health"
    return [servers, [worker, Service(TRIGGERS, _module(*watch), health)]]


def stack_environment(factory: Factory, services: list[list[Service]]) -> dict[str, str]:
    """Variables of the stack's processes; addresses of databases go here, where `ps` does not show them."""
    addresses = {service.name: service.health for group in services for service in group}
    prefect = addresses.get(PREFECT)
    found = {
        "FACTORY_HOME": str(factory.workspace.root),
        "FACTORY_PROFILE": factory.settings.profile,
        "PREFECT_HOME": str(factory.workspace.prefect),
        "PREFECT_API_URL": prefect.removesuffix("/health") if prefect else factory.settings.prefect_api_url,
        "PREFECT_API_DATABASE_TIMEOUT": "60",  # SQLite has one writer, and Prefect's server has many
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # jobs of MLflow's own, four more processes
        "MLFLOW_BACKEND_STORE_URI": factory.mlflow_database or "",
    }
    if factory.settings.prefect_database_url:
        found["PREFECT_API_DATABASE_CONNECTION_URL"] = factory.settings.prefect_database_url
    return found


def _ports(known: Mapping[str, int]) -> dict[str, int]:
    """A port for each service: the one it had, else its usual one, else any that is free."""
    chosen: dict[str, int] = {}
    for name, usual in _PORTS.items():
        chosen[name] = choose_port(known.get(name, usual), set(chosen.values()))
    return chosen


def _module(name: str, *arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-m", name, *arguments)
