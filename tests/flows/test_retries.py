"""Tasks are tried again where the cause can pass, and not where it cannot."""

import pytest
from prefect.states import Failed

from flows.tasks import TASK, build_stage, cause_can_pass
from infra.errors import CheckFailed, FactoryError, Unavailable
from registry.ledger import LedgerConflict


class _Run:
    name = "a task"


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (Unavailable("the server is away"), True),
        (FactoryError("a wrong name"), False),
        (CheckFailed("a gate"), False),
        (LedgerConflict("somebody else decided"), False),
        (TimeoutError("it hangs"), False),
        (RuntimeError("a bug"), False),
    ],
)
def test_only_what_can_pass_is_tried_again(error: Exception, passes: bool) -> None:
    assert cause_can_pass(build_stage, _Run(), Failed(data=error)) is passes  # type: ignore[arg-type]


def test_pauses_double_up_to_a_minute() -> None:
    assert TASK["retry_delay_seconds"](TASK["retries"]) == [2, 4, 8, 16, 32, 64]


def test_every_task_has_a_timeout() -> None:
    from prefect import Task

    from flows import explore_base, release_base, retrain, tasks

    found = [
        task
        for module in (explore_base, release_base, retrain, tasks)
        for task in vars(module).values()
        if isinstance(task, Task)
    ]
    assert len(found) >= 10
    assert [task.name for task in found if not task.timeout_seconds or not task.retries] == []
