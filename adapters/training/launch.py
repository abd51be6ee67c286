"""A training on as many devices as its recipe asks for, with a live line of progress.

One device is this process. For several torch's launcher (`torch.distributed.run`, which torchrun is) starts a process
for each; the first one tells each step on its standard output, and what they say otherwise goes to a file. They meet
over files and talk over the loopback interface. If this process dies, their standard input ends, and they end too.

Nothing of this is in a training's key: on another number of devices the last bits differ, as they do on another
processor, and nobody wants every adapter to be stale because of that. `training.json` says how many there were.
"""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO

from adapters.recipe import TrainingSection
from adapters.training.adapter import train_adapter
from adapters.training.batching import Example
from adapters.training.loop import OnStep, StepLog
from infra.errors import FactoryError
from infra.progress import Step, track

_JOB, _LOG, _MEETING = "processes.json", "processes.log", "meeting"
_ROOT = Path(__file__).resolve().parents[2]
_SECONDS_TO_END = 60.0


def train_on_devices(
    release_folder: Path,
    examples: Sequence[Example],
    section: TrainingSection,
    base_digest: str,
    output: Path,
    scratch: Path,
    device: str,
    earlier: Path | None,
    on_step: OnStep,
) -> None:
    """Do what `train_adapter` does, on `section.devices` devices of the kind `device`.

    Raises:
        FactoryError: what `train_adapter` raises, a device that there is not, or a process that ended in another way.
        OSError: what a process met, a full disk for instance.
    """
    with ExitStack() as opened:
        shown: Step | None = None

        def report(log: StepLog, steps: int) -> None:
            nonlocal shown
            shown = shown or opened.enter_context(track("training", steps))
            shown.reach(log.step + 1, note=f"loss {log.loss:.3f}, {log.tokens / log.seconds:,.0f} tokens/s")
            on_step(log)

        if section.devices == 1:
            train_adapter(release_folder, examples, section, base_digest, output, scratch, device, earlier, report)
            return
        _check_devices(section.devices, device)
        job = {
            "release": str(release_folder.absolute()),
            "examples": [[*example.prompt, example.completion] for example in examples],
            "section": section.model_dump(mode="json"),
            "base_digest": base_digest,
            "output": str(output.absolute()),
            "scratch": str(scratch.absolute()),
            "meeting": str(scratch.absolute() / _MEETING),
            "device": device,
            "earlier": str(earlier.absolute()) if earlier else None,
        }
        (scratch / _JOB).write_text(json.dumps(job), "utf-8")
        _run(section.devices, scratch.absolute(), report)


def _check_devices(devices: int, device: str) -> None:
    if device == "cpu":
        return
    import torch

    there = torch.cuda.device_count()
    if device != "cuda":
        raise FactoryError(f"training.devices is {devices}, but the setting device names one, {device}; write `cuda`")
    if there < devices:
        raise FactoryError(f"training.devices is {devices}, but this machine has {there}; lower it")


def _run(count: int, scratch: Path, report: Callable[[StepLog, int], None]) -> None:
    """Start the processes over the job in `scratch` and hear what they tell."""
    where = scratch / f"{_MEETING}.launcher"
    for file in (where, scratch / _MEETING):
        file.unlink(missing_ok=True)  # of a run that was killed
    meeting = ["--rdzv-backend=c10d", f"--rdzv-endpoint={where}", "--rdzv-conf=store_type=file"]
    size = ["--nnodes=1", f"--nproc-per-node={count}", "--rdzv-id=training", "--local-addr=127.0.0.1"]
    launcher = [sys.executable, "-m", "torch.distributed.run", *size, *meeting]
    with (scratch / _LOG).open("wb") as log:
        process = subprocess.Popen(
            [*launcher, "-m", "adapters.training.process", str(scratch / _JOB)],
            cwd=_ROOT,
            env=_environment(count),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
        )
        assert process.stdin is not None and process.stdout is not None
        try:
            error = _hear(process.stdout, report)
        finally:
            process.stdin.close()
            process.stdout.close()
            _end(process)
    if error is not None:
        raise error
    if process.returncode:
        raise FactoryError(
            f"training in {count} processes ended with exit code {process.returncode}; {scratch / _LOG} says why"
        )


def _environment(count: int) -> Mapping[str, str]:
    loopback = next((name for _, name in socket.if_nameindex() if name.startswith("lo")), "lo")
    threads = max(1, (os.cpu_count() or 1) // count)
    ours = {"OMP_NUM_THREADS": str(threads), "GLOO_SOCKET_IFNAME": loopback, "NCCL_SOCKET_IFNAME": loopback}
    # Without the last one the launcher would open a port.
    return ours | os.environ | {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}


def _hear(told: IO[bytes], report: Callable[[StepLog, int], None]) -> Exception | None:
    """Pass on the steps until no process says more; the first error that one told."""
    error: Exception | None = None
    for line in told:
        message = json.loads(line)
        if "step" in message:
            report(StepLog(**message["step"]), message["steps"])
        elif error is None and "errno" in message:
            error = OSError(message["errno"], message["error"])
        elif error is None:
            error = FactoryError(message["error"])
    return error


def _end(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(_SECONDS_TO_END)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
