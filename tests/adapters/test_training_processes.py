"""Trainings in processes of their own: one that is killed, and two that share the work, against one unbroken one."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from adapters.training.checkpoint import CHECKPOINT
from tests.tiny import make_tiny_base

pytestmark = pytest.mark.slow  # five processes, each of which imports torch and transformers


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
    return load_file(folder / "lora.safetensors")


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
