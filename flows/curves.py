"""A training's curves: what MLflow is told of each step, while it goes and when it is over."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from flows.factory import Factory
from flows.job import Job

if TYPE_CHECKING:
    from adapters.training.loop import StepLog


def points(step: Mapping[str, Any]) -> dict[str, float]:
    """The values of one step, as `training.json` has it, by the names of the curves."""
    values = {
        "training.loss": step["loss"],
        "training.tokens_per_second": step["tokens"] / step["seconds"],
        "training.megabytes": step["megabytes"],
    }
    return values if step["held_out_loss"] is None else values | {"training.held_out_loss": step["held_out_loss"]}


def run_name(job: Job) -> str:
    """What the runs of a rebuild are called in MLflow."""
    return f"{job.recipe.feature} {job.lineage.key[:8]}"


@contextmanager
def followed(factory: Factory, job: Job, key: str) -> "Iterator[Callable[[StepLog], None]]":
    """While the training with a stage's key runs: a function that puts each of its steps into MLflow."""
    with factory.catalog.live_run(job.recipe.feature, run_name(job), key) as run:
        yield lambda log: run.point(log.step, points(asdict(log)))
