"""What an adapter costs at run time: seconds for 100 prompt tokens, beside those of the base without any adapter.

The adapter is measured as a device runs it, beside the weights and not merged into them. Both sides take turns on the
same prompts, and the median of the ratios counts, so that other work on the machine weighs little.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from infra.compute import Compute
from infra.errors import FactoryError

_ROUNDS = 5
_PROMPTS = 6


def measure_speed(release: Path, adapter: Path, prompts: Sequence[Sequence[int]], compute: Compute) -> dict[str, float]:
    """Figures `seconds_per_100_tokens`, `base_seconds_per_100_tokens` and their ratio `seconds_ratio`.

    `prompts` are token ids; the first six are run.

    Raises:
        FactoryError: there is no prompt.
    """
    import torch

    from adapters.palettization.release import load_release
    from adapters.training.lora import load_adapter

    if not prompts:
        raise FactoryError("no prompt to measure the adapter's speed with; add held-out records")
    plain = load_release(release, compute.dtype, compute.device)
    adapted = load_adapter(load_release(release, compute.dtype, compute.device), adapter)
    rows = [torch.tensor([list(ids)], device=compute.device) for ids in prompts[:_PROMPTS]]
    tokens = sum(row.shape[1] for row in rows)

    def seconds(model: object) -> float:
        started = time.perf_counter()
        for row in rows:
            model(row, use_cache=False)  # type: ignore[operator]
        if compute.device.startswith("cuda"):
            torch.cuda.synchronize()
        return time.perf_counter() - started

    with torch.inference_mode():
        for model in (plain, adapted):  # first calls choose kernels
            seconds(model)
        pairs = [(seconds(adapted), seconds(plain)) for _ in range(_ROUNDS)]
    return {
        "seconds_per_100_tokens": 100 * median(ours for ours, _ in pairs) / tokens,
        "base_seconds_per_100_tokens": 100 * median(theirs for _, theirs in pairs) / tokens,
        "seconds_ratio": median(ours / theirs for ours, theirs in pairs),
    }
