"""Run a Core AI asset on this machine and compare its logits with PyTorch's.

PyTorch computes in fp32 over the same codebooks, with Transformers' own Llama and the adapter applied by PEFT, so that
nothing is shared with the exported module but the weights. The Linux runtime expands the tables at every call, so
that some tokens are verified, not speed.
"""

import asyncio
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from adapters.device.coreai_export import STATES, cache_shape, lora_shapes
from adapters.device.coreai_lora import Array, lora_inputs, no_adapter
from adapters.palettization.recipe import ExportSection
from adapters.palettization.release import load_release, read_palettized
from infra.errors import FactoryError
from infra.progress import Step, track

Ids = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Verification:
    """How an asset's logits compare with PyTorch's.

    `psnr_db`: the worst over the adapters of 20 log10(largest |logit| / root mean square error). `argmax_agreement`:
    share of positions with the same most likely token. `positions`: how many were compared, over `adapters` runs.
    """

    psnr_db: float
    argmax_agreement: float
    positions: int
    adapters: int

    def as_figures(self) -> dict[str, float]:
        """The figures by name."""
        return asdict(self)


def verify_aimodel(
    aimodel: Path,
    release: Path,
    adapters: Sequence[Path],
    prompt: torch.Tensor,
    decode_steps: int,
    section: ExportSection,
) -> Verification:
    """Compare the asset with PyTorch without adapter and with each of `adapters` (PEFT folders), on one loaded asset.

    The prompt goes through `prefill`; what PyTorch then generates from it, greedily, goes through `decode`. So where
    all most likely tokens agree, the asset would have generated the same.

    Args:
        aimodel: what `export_aimodel` wrote from `release` with `section`.
        prompt: int64 [section.prefill_tokens].
        decode_steps: tokens that are generated.

    Raises:
        FactoryError: another number of tokens, or an adapter that the asset does not take.
    """
    if len(prompt) != section.prefill_tokens:
        raise FactoryError(f"verification needs a prompt of {section.prefill_tokens} tokens, got {len(prompt)}")
    weights = read_palettized(release)
    shapes = lora_shapes(weights, section.max_rank)
    inputs = [no_adapter(shapes), *(lora_inputs(adapter, shapes) for adapter in adapters)]
    cache = cache_shape(weights.config, section.context)
    references = [_reference(release, adapter, prompt, decode_steps) for adapter in (None, *adapters)]
    expected = [logits for _, logits in references]
    runs = [(lora, ids) for lora, (ids, _) in zip(inputs, references, strict=True)]
    with track("verify the asset", len(inputs) * (1 + decode_steps)) as step:
        found = asyncio.run(_run(aimodel, runs, section.prefill_tokens, cache, step))
    agreeing = sum(int((f.argmax(-1) == e.argmax(-1)).sum()) for f, e in zip(found, expected, strict=True))
    positions = len(inputs) * (len(prompt) + decode_steps)
    return Verification(
        psnr_db=min(psnr(f, e) for f, e in zip(found, expected, strict=True)),
        argmax_agreement=agreeing / positions,
        positions=positions,
        adapters=len(inputs),
    )


def psnr(found: Array, expected: Array) -> float:
    """Peak signal-to-noise ratio in dB, the peak being the largest magnitude that was expected."""
    error = float(np.sqrt(np.mean((found.astype(np.float64) - expected) ** 2)))
    return 20 * math.log10(float(np.abs(expected).max()) / max(error, 1e-30))


async def _run(
    aimodel: Path, runs: list[tuple[dict[str, Array], Ids]], prefill_tokens: int, cache: tuple[int, ...], step: Step
) -> list[Array]:
    """Logits [tokens, vocabulary] for each adapter and its token ids, from the asset's own functions."""
    from coreai.authoring import AIModelAsset
    from coreai.runtime import NDArray

    logits: list[Array] = []
    async with AIModelAsset.load(aimodel).executable() as model:
        prefill, decode = model.load_function("prefill"), model.load_function("decode")
        for lora, ids in runs:
            state = {name: NDArray(np.zeros(cache, np.float32)) for name in STATES}
            fixed = {name: NDArray(array) for name, array in lora.items()}
            parts = []
            starts = [0, *range(prefill_tokens, len(ids))]
            for start, end in zip(starts, [*starts[1:], len(ids)], strict=True):
                function = decode if start else prefill
                positions = NDArray(np.arange(start, end, dtype=np.int32))
                tokens = NDArray(np.ascontiguousarray(ids[None, start:end]))
                out = await function({"ids": tokens, "positions": positions, **fixed}, state)
                parts.append(np.array(out["logits"].numpy()[0]))
                step.advance()
            logits.append(np.concatenate(parts))
    return logits


@torch.inference_mode()
def _reference(release: Path, adapter: Path | None, prompt: torch.Tensor, decode_steps: int) -> tuple[Ids, Array]:
    """The prompt with its greedy continuation, int32, and the logits [tokens, vocabulary] of all of it."""
    from peft import PeftModel

    model = load_release(release, torch.float32)
    if adapter is not None:
        model = PeftModel.from_pretrained(model, adapter).eval()
    ids = prompt.unsqueeze(0)
    for _ in range(decode_steps):
        ids = torch.cat([ids, model(ids, use_cache=False).logits[:, -1:].argmax(-1)], dim=1)
    logits: Array = model(ids, use_cache=False).logits[0].float().numpy()
    return ids[0].numpy().astype(np.int32), logits
