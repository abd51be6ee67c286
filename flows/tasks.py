"""The tasks that flows are made of. Each names its key; Prefect's own cache is not asked, the store is."""

import contextlib
import sys
from dataclasses import dataclass
from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE

from infra.progress import console
from infra.run_notes import RunNotes
from infra.store import Built, Stage
from infra.workspace import Workspace


@task(task_run_name="{stage.name}", cache_policy=NO_CACHE, persist_result=False)
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
