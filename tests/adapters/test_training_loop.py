"""The loop: it learns, it resumes bit by bit, it stops at nonsense."""

import itertools
import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from adapters.inference.models import load_model
from adapters.recipe import TrainingSection
from adapters.training import loop
from adapters.training.batching import Batch, Encoded, make_batches
from adapters.training.checkpoint import CHECKPOINT
from adapters.training.loop import StepLog, learning_rate_at, train
from adapters.training.lora import new_adapter
from adapters.training.losses import completion_cross_entropy
from infra.errors import FactoryError
from tests.tiny import make_tiny_base

SETTINGS = TrainingSection(rank=4, alpha=8.0, dropout=0.2, learning_rate=1e-2, warmup_share=0.2, seed=4)


class Killed(BaseException):
    pass


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_base(tmp_path_factory.mktemp("loop") / "base")


def fresh(base: Path, dtype: torch.dtype = torch.bfloat16) -> Any:
    return new_adapter(load_model(base, dtype), SETTINGS.rank, SETTINGS.alpha, SETTINGS.dropout, SETTINGS.seed)


def batches(epochs: float = 3) -> list[Batch]:
    """Texts in which each token decides the next."""
    encoded = [Encoded([(7 * start + 11 * i) % 20 + 3 for i in range(12 + start % 5)], 4) for start in range(24)]
    return make_batches(encoded, 64, epochs, seed=1)


def trained(model: Any) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


def test_it_learns_and_leaves_the_base_alone(base: Path, tmp_path: Path) -> None:
    model = fresh(base)
    frozen = {name: p.clone() for name, p in model.named_parameters() if not p.requires_grad}
    heard: list[StepLog] = []
    logs = train(model, batches(8), completion_cross_entropy, SETTINGS, tmp_path, heard.append)
    assert logs == heard and [log.step for log in logs] == list(range(len(batches(8))))
    losses = [log.loss for log in logs]
    assert sum(losses[-5:]) / 5 < 0.9 * sum(losses[:5]) / 5
    assert all(torch.equal(p, frozen[name]) for name, p in model.named_parameters() if name in frozen)
    assert not model.training and all(p.dtype == torch.float32 for p in trained(model).values())


def test_one_step_is_adamw_on_the_clipped_gradient(base: Path, tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(update={"max_grad_norm": 0.1, "weight_decay": 0.01, "dropout": 0.0})
    ours, theirs = (new_adapter(load_model(base, torch.float32), 4, 8.0, seed=4) for _ in range(2))
    (batch, *_) = batches()
    (log,) = train(ours, [batch], completion_cross_entropy, settings, tmp_path)
    parameters = [p for p in theirs.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=settings.learning_rate, weight_decay=0.01)
    total, count = completion_cross_entropy(theirs, batch)
    (total / count).backward()
    assert log.grad_norm == pytest.approx(torch.nn.utils.clip_grad_norm_(parameters, 0.1).item(), rel=1e-5)
    optimizer.step()
    for mine, wanted in zip(trained(ours).values(), parameters, strict=True):
        assert torch.allclose(mine, wanted, atol=1e-6)


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock by which a step takes four seconds, so that every third one is ten or more after the last checkpoint."""
    ticks = itertools.count(step=4.0)
    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: next(ticks), perf_counter=time.perf_counter))


@pytest.mark.parametrize("killed_after", [1, 3, 8])
def test_a_killed_training_goes_on_to_the_same_bits(base: Path, tmp_path: Path, killed_after: int, slow: None) -> None:
    unbroken = fresh(base)
    wanted = train(unbroken, batches(), completion_cross_entropy, SETTINGS, tmp_path / "a")

    def kill(log: StepLog) -> None:
        if log.step + 1 == killed_after:
            raise Killed

    scratch = tmp_path / "b"
    with pytest.raises(Killed):
        train(fresh(base), batches(), completion_cross_entropy, SETTINGS, scratch, kill)
    (scratch / CHECKPOINT).with_suffix(".partial").parent.mkdir(exist_ok=True)
    (scratch / CHECKPOINT).with_suffix(".partial").write_bytes(b"cut off")

    torch.manual_seed(99)  # a new process has another random state
    done: list[int] = []
    resumed = fresh(base)
    logs = train(resumed, batches(), completion_cross_entropy, SETTINGS, scratch, lambda log: done.append(log.step))
    assert done[0] == killed_after // 3 * 3, "steps of the checkpoint are not done again"
    assert [(log.loss, log.grad_norm) for log in logs] == [(log.loss, log.grad_norm) for log in wanted]
    want = trained(unbroken)
    assert all(torch.equal(value, want[name]) for name, value in trained(resumed).items())


def test_a_checkpoint_of_another_training_is_not_gone_on_from(base: Path, tmp_path: Path) -> None:
    train(fresh(base), batches(), completion_cross_entropy, SETTINGS, tmp_path, checkpoint_seconds=0)
    other = SETTINGS.model_copy(update={"learning_rate": 2e-2})
    done: list[int] = []
    train(fresh(base), batches(), completion_cross_entropy, other, tmp_path, lambda log: done.append(log.step))
    assert done[0] == 0


@pytest.mark.parametrize("size", [0, 7, 4000])
def test_a_checkpoint_that_cannot_be_read_is_none(base: Path, tmp_path: Path, size: int) -> None:
    """What a power failure can leave of a file."""
    wanted = train(fresh(base), batches(), completion_cross_entropy, SETTINGS, tmp_path, checkpoint_seconds=0)
    os.truncate(tmp_path / CHECKPOINT, size)
    logs = train(fresh(base), batches(), completion_cross_entropy, SETTINGS, tmp_path)
    assert [log.loss for log in logs] == [log.loss for log in wanted]


def test_a_checkpoint_is_on_the_disk_before_it_has_its_name(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    sync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda file: (events.append("fsync"), sync(file))[1])
    monkeypatch.setattr(Path, "replace", lambda path, to: (events.append("rename"), replace(path, to))[1])
    train(fresh(base), batches()[:1], completion_cross_entropy, SETTINGS, tmp_path, checkpoint_seconds=0)
    assert events == ["fsync", "rename"]


def test_a_loss_that_is_not_finite_stops(base: Path, tmp_path: Path) -> None:
    def broken(model: Any, batch: Batch) -> tuple[Tensor, int]:
        total, count = completion_cross_entropy(model, batch)
        return total * float("nan"), count

    with pytest.raises(FactoryError, match="training step 1: the loss is nan"):
        train(fresh(base), batches(), broken, SETTINGS, tmp_path)


def test_schedule_warms_up_and_ends_low() -> None:
    rates = [learning_rate_at(step, 100, SETTINGS) for step in range(100)]
    assert rates[0] == pytest.approx(1e-2 / 20) and rates[19] == rates[20] == pytest.approx(1e-2)
    assert rates[:20] == sorted(rates[:20]) and rates[20:] == sorted(rates[20:], reverse=True)
    assert rates[60] == pytest.approx(5e-3) and 0 < rates[-1] < 1e-5
    assert learning_rate_at(0, 1, SETTINGS) > 0


def test_it_stops_when_the_held_out_loss_rises_and_keeps_the_best(base: Path, tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(update={"check_every": 2, "patience": 2, "learning_rate": 5e-2, "dropout": 0.0})
    noise = Batch((Encoded([(13 * i * i) % 19 + 3 for i in range(24)], 4),))
    model = fresh(base)
    logs = train(model, batches(8), completion_cross_entropy, settings, tmp_path, held_out=[noise])
    judged = [log.held_out_loss for log in logs if log.held_out_loss is not None]
    assert len(logs) < len(batches(8)), "stopped early"
    best = judged.index(min(judged))
    assert len(judged) == best + 1 + settings.patience
    with torch.no_grad():
        total, count = completion_cross_entropy(model, noise)
    assert total.item() / count == pytest.approx(min(judged), rel=1e-6)


@pytest.mark.parametrize(("schedule", "middle"), [("cosine", 5e-3), ("linear", 5e-3), ("constant", 1e-2)])
def test_schedules(schedule: str, middle: float) -> None:
    settings = SETTINGS.model_copy(update={"schedule": schedule})
    assert learning_rate_at(60, 100, settings) == pytest.approx(middle)
