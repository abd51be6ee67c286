"""Trainings in processes of their own: one that is killed, and two that share the work, against one unbroken one."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from adapters.inference.types import Prompt
from adapters.recipe import TrainingSection
from adapters.training.batching import Example
from adapters.training.checkpoint import CHECKPOINT
from adapters.training.launch import train_on_devices
from adapters.training.loop import StepLog
from infra.errors import FactoryError
from tests.tiny import make_tiny_base, make_tiny_release

pytestmark = pytest.mark.slow  # five processes, each of which imports torch and transformers

SECTION = TrainingSection(
    rank=6, alpha=12.0, learning_rate=1e-2, epochs=3, batch_tokens=256, max_tokens=80, seed=2, precision="fp32",
    held_out_share=0.25, check_every=2,
)  # fmt: skip
EXAMPLES = [Example(Prompt("Repeat.", f"train {i} garden"), "garden train") for i in range(24)]


def start(*arguments: object, **variables: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.adapters.training_process", *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **variables}
    return subprocess.Popen(command, env=environment)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_base(tmp_path_factory.mktemp("processes") / "base")


@pytest.fixture(scope="module")
def unbroken(base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    folder = tmp_path_factory.mktemp("unbroken")
    assert start(base, folder, folder / "lora.safetensors").wait() == 0
    return dict(load_file(folder / "lora.safetensors"))


def test_killed_by_the_system_and_gone_on_with(base: Path, unbroken: dict[str, Tensor], tmp_path: Path) -> None:
    output = tmp_path / "lora.safetensors"
    assert start(base, tmp_path, output, 7).wait() == -signal.SIGKILL
    assert (tmp_path / CHECKPOINT).is_file() and not output.exists()
    assert start(base, tmp_path, output).wait() == 0
    resumed = load_file(output)
    assert resumed.keys() == unbroken.keys()
    assert all(torch.equal(value, unbroken[name]) for name, value in resumed.items())


def test_two_processes_compute_what_one_does(base: Path, unbroken: dict[str, Tensor], tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    output = tmp_path / "lora.safetensors"
    world = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    processes = [start(base, tmp_path, output, RANK=str(rank), **world) for rank in range(2)]
    assert [process.wait() for process in processes] == [0, 0]
    for name, value in load_file(output).items():
        assert torch.allclose(value, unbroken[name], rtol=1e-3, atol=1e-4), name


def on_devices(release: Path, folder: Path, **changes: object) -> tuple[dict[str, Tensor], list[StepLog]]:
    """Train on the stage's way; the adapter, and the steps that were told."""
    section = SECTION.model_copy(update=changes)
    output, scratch = folder / "output", folder / "scratch"
    for made in (output, scratch):
        made.mkdir(parents=True)
    told: list[StepLog] = []
    train_on_devices(release, EXAMPLES, section, "cd" * 32, output, scratch, "cpu", None, told.append)
    return dict(load_file(output / "adapter" / "adapter_model.safetensors")), told


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_release(tmp_path_factory.mktemp("release"))


@pytest.fixture(scope="module")
def alone(release: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Tensor], list[StepLog]]:
    return on_devices(release, tmp_path_factory.mktemp("alone"))


@pytest.mark.parametrize("sharded", [False, True])
def test_two_devices_train_what_one_does(
    release: Path, alone: tuple[dict[str, Tensor], list[StepLog]], tmp_path: Path, sharded: bool
) -> None:
    adapter, told = on_devices(release, tmp_path, devices=2, sharded=sharded)
    wanted, steps = alone
    assert [log.step for log in told] == [log.step for log in steps]
    for one, other in zip(told, steps, strict=True):
        assert (one.tokens, one.positions) == (other.tokens, other.positions)
        assert one.loss == pytest.approx(other.loss, rel=1e-4)
        assert (one.held_out_loss is None) == (other.held_out_loss is None)
        assert one.held_out_loss is None or one.held_out_loss == pytest.approx(other.held_out_loss, rel=1e-4)
    assert adapter.keys() == wanted.keys()
    for name, value in adapter.items():
        assert torch.allclose(value.float(), wanted[name].float(), rtol=2e-3, atol=2e-4), name
    report = json.loads((tmp_path / "output" / "training.json").read_text("utf-8"))
    assert report["devices"] == 2 and len(report["steps"]) == len(steps)
    assert report["steps"][0]["loss"] > report["steps"][-1]["loss"]


def test_an_error_in_a_process_is_one_line(release: Path, tmp_path: Path) -> None:
    with pytest.raises(FactoryError, match=r"^no example to train on is left; [^\n]*$"):
        on_devices(release, tmp_path, devices=2, max_tokens=3)


def test_processes_end_with_whoever_started_them(release: Path, tmp_path: Path) -> None:
    """A killed run leaves no training behind that would write beside the next one's."""
    program = """
import os, signal, sys
from pathlib import Path
from tests.adapters.test_training_processes import EXAMPLES, SECTION, train_on_devices

release, folder = map(Path, sys.argv[1:])
section = SECTION.model_copy(update={"devices": 2})
die = lambda log: os.kill(os.getpid(), signal.SIGKILL)
train_on_devices(release, EXAMPLES, section, "cd" * 32, folder, folder, "cpu", None, die)
"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", program, str(release), str(tmp_path)]
    assert subprocess.run(command, env=environment, check=False).returncode == -signal.SIGKILL
    left = [process for process in psutil.process_iter() if _works_in(process, tmp_path)]
    assert psutil.wait_procs(left, timeout=30)[1] == []
    assert not (tmp_path / "adapter").exists()


def _works_in(process: psutil.Process, folder: Path) -> bool:
    with contextlib.suppress(psutil.Error):
        return any(str(folder) in argument for argument in process.cmdline())
    return False
