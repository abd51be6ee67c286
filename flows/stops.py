"""What stopped a run of a subject, and by which inputs: the same inputs are not run again by themselves.

A cause that can pass (a server that is away, a full disk, another decision) stops nothing: the next look tries again.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from flows.events import announced_base
from flows.factory import Factory
from infra.errors import FactoryError, can_pass
from registry.ledger import LedgerConflict
from registry.plan import FeaturePlan


@contextmanager
def noted(factory: Factory, subject: str, inputs: Callable[[], str]) -> Iterator[None]:
    """Note what stops a block that works on a subject with these `inputs`, or that nothing does."""
    key = inputs()
    try:
        yield
    except LedgerConflict:
        raise
    except Exception as error:
        if not can_pass(error):
            told = str(error) if isinstance(error, FactoryError) else f"{type(error).__name__}: {error}"
            factory.notes.stopped(subject, key, told)
        raise
    factory.notes.went_on(subject)


def stop_of(plan: FeaturePlan) -> str:
    """The inputs of a feature's run."""
    return f"{plan.lineage_key} {plan.evaluation_key}"


def stop_of_base(factory: Factory) -> str:
    """The inputs of a base release: what was announced, or what the current base gives."""
    announced = announced_base(factory)
    return (
        f"{announced.source} {announced.after}" if announced else f"{factory.settings.base} {factory.release_lineage()}"
    )
