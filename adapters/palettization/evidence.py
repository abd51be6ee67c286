"""What a base release is judged by: its asset against PyTorch, its quality against the full-precision base."""

import shutil
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from adapters.device.coreai_verify import verify_aimodel
from adapters.evaluation.gates import GateReport, at_least, at_most
from adapters.inference.models import load_model, load_tokenizer
from adapters.palettization.assemble import GATES
from adapters.palettization.quality import measure_quality
from adapters.palettization.recipe import ReleaseRecipe
from adapters.palettization.release import load_release, read_palettized
from adapters.training.lora import WEIGHTS, load_adapter


def write_evidence(
    base: Path, palettized: Path, recovery: Path, aimodel: Path, recipe: ReleaseRecipe, output: Path, device: str
) -> None:
    """Measure a release and write its gate report, `gates.json`. A failed gate is reported, not raised.

    Figures: those of `BitsPerWeight` and `Verification`; `aimodel_mb`, `recovery_mb`; `kl_palettized`, `kl_recovered`,
    `perplexity_full`, `perplexity_palettized`, `perplexity_recovered`, `top1_palettized` and `top1_recovered` on the
    held-out text, computed in fp32.

    Raises:
        FactoryError: the held-out text is too short under the base's tokenizer.
    """
    windows = recipe.gates.text.windows(load_tokenizer(base))
    prompt = windows.flatten()[: recipe.export.prefill_tokens]
    with tempfile.TemporaryDirectory() as scratch:
        adapters = [recovery, _opposite(recovery, Path(scratch))] if recipe.gates.second_adapter else [recovery]
        steps = recipe.gates.decode_steps
        verification = verify_aimodel(aimodel, palettized, adapters, prompt, steps, recipe.export)

    full = load_model(base, torch.float32, device)
    model = load_release(palettized, torch.float32, device)
    plain = measure_quality(full, model, [windows])
    recovered = measure_quality(full, load_adapter(model, recovery), [windows])
    bits = read_palettized(palettized).bits_per_weight(load_file(recovery / WEIGHTS))
    figures = {
        **bits.as_figures(),
        **verification.as_figures(),
        "aimodel_mb": sum(path.stat().st_size for path in aimodel.rglob("*") if path.is_file()) / 1e6,
        "recovery_mb": (recovery / WEIGHTS).stat().st_size / 1e6,
        "kl_palettized": plain.kl,
        "kl_recovered": recovered.kl,
        "perplexity_full": plain.base_perplexity,
        "perplexity_palettized": plain.perplexity,
        "perplexity_recovered": recovered.perplexity,
        "top1_palettized": plain.top1,
        "top1_recovered": recovered.top1,
    }
    gates = [
        at_least("asset_psnr_db", verification.psnr_db, recipe.gates.min_psnr_db),
        at_least("asset_argmax_agreement", verification.argmax_agreement, recipe.gates.min_argmax_agreement),
        at_most("recovered_kl", recovered.kl, recipe.gates.max_kl),
    ]
    (output / GATES).write_text(GateReport("base", gates, figures).to_json(), "utf-8")


def _opposite(adapter: Path, folder: Path) -> Path:
    """An adapter that takes away what the first one adds: as different as can be, and not trained."""
    shutil.copytree(adapter, folder, dirs_exist_ok=True)
    tensors = load_file(adapter / WEIGHTS)
    save_file({name: -value if "lora_B" in name else value for name, value in tensors.items()}, folder / WEIGHTS)
    return folder
