"""What can be wrong with what is registered: ledger, channel, aliases, and the versions that they name."""

from collections.abc import Iterator
from datetime import datetime

from infra.checkup import Finding, check_clock
from registry.channel.upkeep import warnings_of
from registry.decisions import BASE
from registry.projection import Registry, misplaced_aliases, unfinished, wrong_rows

_REPAIR = "`factory ledger repair` makes aliases and channel what the ledger says"


def check_channel(registry: Registry) -> Iterator[Finding]:
    """Signatures that have expired or soon will, and a channel that is behind the ledger."""
    repository = registry.channel.repository
    state = repository.state()
    if state is None:
        if registry.ledger.serving():
            yield Finding("channel", f"{registry.channel.place}: nothing is published there", _REPAIR)
        return
    if setback := registry.channel.setback():
        yield Finding("channel", setback, _REPAIR)
    for warning in warnings_of(repository, state):
        problem, _, remedy = warning.partition("; ")
        yield Finding("channel", problem, remedy)
    for line in unfinished(registry):
        yield Finding("channel", f"does not show the decision {line}", _REPAIR)


def check_ledger(registry: Registry) -> Iterator[Finding]:
    """Rows that were edited, taken out or cut off; rows from the future."""
    for finding in wrong_rows(registry):
        yield Finding("ledger", str(finding), "bring the ledger back from its backup; `factory ledger verify` has all")
    newest = max((row.time for rows in registry.ledger.serving().values() for row in rows), default=None)
    if newest is not None:
        yield from check_clock({"the newest decision in the ledger": datetime.fromisoformat(newest)})


def check_aliases(registry: Registry) -> Iterator[Finding]:
    """Aliases that are not where the ledger says, and versions in production that MLflow does not have."""
    for line in misplaced_aliases(registry):
        yield Finding("aliases", line, _REPAIR)
    for feature, rows in registry.ledger.serving().items():
        catalog = registry.catalog
        known = {one.version for one in (catalog.releases() if feature == BASE else catalog.versions(feature))}
        for row in rows:
            if row.version not in known:
                problem = f"{feature} {row.version} is in production, and MLflow does not have it"
                yield Finding("aliases", problem, "bring MLflow's database back from its backup, or `factory rollback`")
