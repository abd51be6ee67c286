"""One of several processes that train an adapter together, as `launch.py` starts them.

It reads a job (JSON) and tells steps and errors on its standard output, a JSON object a line.
"""

import json
import os
import sys
import threading
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

import torch
import torch.distributed as dist

from adapters.inference.types import Prompt
from adapters.recipe import TrainingSection
from adapters.training.adapter import train_adapter
from adapters.training.batching import Example
from infra.errors import FactoryError


def main(path: Path) -> int:
    """Train as the job says; the exit code."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    told = os.dup(1)
    os.dup2(2, 1)  # libraries talk, too

    def tell(message: dict[str, object]) -> None:
        os.write(told, json.dumps(message).encode() + b"\n")

    job = json.loads(path.read_text("utf-8"))
    device = job["device"]
    if device == "cuda":
        device = f"cuda:{os.environ['LOCAL_RANK']}"
        torch.cuda.set_device(device)
    with ExitStack() as ended:
        backend = "gloo" if device == "cpu" else "nccl"
        rank, count = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        dist.init_process_group(backend, init_method=f"file://{job['meeting']}", rank=rank, world_size=count)
        ended.callback(dist.destroy_process_group)
        try:
            train_adapter(
                Path(job["release"]),
                [Example(Prompt(system, user), completion) for system, user, completion in job["examples"]],
                TrainingSection.model_validate(job["section"]),
                job["base_digest"],
                Path(job["output"]),
                Path(job["scratch"]),
                device,
                Path(job["earlier"]) if job["earlier"] else None,
                lambda log, steps: tell({"step": asdict(log), "steps": steps}),
            )
        except FactoryError as error:
            tell({"error": str(error)})
            return 2
        except OSError as error:
            tell({"error": error.strerror or str(error), "errno": error.errno})
            return 1
    return 0


def _end_with_parent() -> None:
    """Standard input is a pipe that ends when whoever started the training does."""
    while os.read(0, 1):
        pass
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
