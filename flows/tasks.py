"""The tasks that flows are made of. Each names its key; Prefect's own cache is not asked, the store is."""

import contextlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.tasks import Task, exponential_backoff

from infra.errors import FactoryError, can_pass
from infra.progress import console
from infra.run_notes import RunNotes
from infra.store import Built, Stage
from infra.workspace import Workspace

HOUR = 3600


def cause_can_pass(work: Task[..., Any], run: TaskRun, state: State[Any]) -> bool:
    """Whether a task that failed may succeed if it is tried again: only if something was away.

    What took longer than its limit is left to the next look: it would hold its feature for as long again.
    """
    try:
        state.result()
    except Exception as error:
        if not can_pass(error) or isinstance(error, TimeoutError):
            return False
        told = str(error) if isinstance(error, FactoryError) else f"{type(error).__name__}: {error}"
        console.print(f"  {run.name}: {told}; trying again", highlight=False, markup=False)
        return True
    return False


# What every task is made with. Pauses double: 2 s, then 4, up to a minute; together two minutes.
TASK: dict[str, Any] = {
    "cache_policy": NO_CACHE,
    "persist_result": False,
    "retries": 6,
    "retry_delay_seconds": exponential_backoff(2),
    "retry_jitter_factor": 0.2,
    "retry_condition_fn": cause_can_pass,
}


@task(task_run_name="{stage.name}", timeout_seconds=24 * HOUR, **TASK)
def build_stage(home: str, stage: Stage, subject: str) -> Built:
    """Build a stage of `subject` (a feature, or the base release) in the workspace `home`, unless it is there."""
    # Standard output belongs to the command's answer; converters and trainers talk, too.
    with contextlib.redirect_stdout(sys.stderr):
        built = Workspace(Path(home)).store.build(stage)
    done = "unchanged" if built.reused else f"{built.seconds:.0f} s"
    console.print(f"  {subject}: {stage.name}, {done}", highlight=False)
    return built


@dataclass
class Stopwatch:
    """Builds stages of one subject and remembers what each cost, in seconds by stage name, for the plan too."""

    home: str
    subject: str
    seconds: dict[str, float]

    def build(self, stage: Stage) -> Built:
        """Run `build_stage` and add its time to that of the stages of the same name."""
        built = build_stage(self.home, stage, self.subject)
        self.seconds[stage.name] = self.seconds.get(stage.name, 0.0) + built.seconds
        if not built.reused:
            RunNotes(Path(self.home)).took(self.subject, stage.name, self.seconds[stage.name])
        return built
