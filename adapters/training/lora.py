"""LoRA over a frozen base: made, loaded, grown and saved in PEFT's format.

Adapters are PEFT's own modules with PEFT's names; only the arithmetic of a layer is ours (`fast_layers`). Parameters
are fp32 masters, the work is done in the base's dtype. Saved values are fp16, and no file depends on where or when it
was written.

Source: LoRA, Hu et al. 2021, https://arxiv.org/abs/2106.09685.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch import Tensor

from adapters.recipe import LORA_TARGETS
from adapters.training.fast_layers import use_fast_layers
from infra.errors import FactoryError

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
# What a plain LoRA's configuration says, and what else PEFT knows that is another function of the same weights.
_PLAIN = {"peft_type": "LORA", "bias": "none"}
_VARIANTS = ("use_dora", "lora_bias", "use_qalora", "use_bdlora", "alora_invocation_tokens", "arrow_config",
             "kasa_config", "monteclora_config", "velora_config")  # fmt: skip
# What gives layers of one adapter scales or ranks of their own.
_BY_LAYER = ("use_rslora", "rank_pattern", "alpha_pattern")


def new_adapter(
    model: Any,
    rank: int,
    alpha: float,
    dropout: float = 0.0,
    seed: int = 0,
    target_modules: Sequence[str] = LORA_TARGETS,
) -> Any:
    """Wrap `model` with a trainable LoRA that does not change its function yet (A random by `seed`, B zero).

    The model's own weights are frozen and its modules replaced in place; the LoRA parameters are fp32.
    """
    config = LoraConfig(
        task_type="CAUSAL_LM", r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=list(target_modules)
    )
    device = next(model.parameters()).device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        peft_model = get_peft_model(model, config)
    return use_fast_layers(peft_model)


def load_adapter(model: Any, folder: Path, trainable: bool = False) -> Any:
    """Wrap `model` with the adapter in a PEFT folder, frozen unless `trainable`.

    Raises:
        FactoryError: the folder holds no adapter, or one for other layers than this model's.
    """
    read_config(folder)
    try:
        peft_model = PeftModel.from_pretrained(model, str(folder), is_trainable=trainable, local_files_only=True)
    except (RuntimeError, ValueError) as error:
        raise FactoryError(f"{folder}: the adapter does not fit this model: {str(error).splitlines()[0]}") from error
    return use_fast_layers(peft_model)


def merge_adapter(model: Any, folder: Path) -> Any:
    """`model` with the adapter of a PEFT folder added to its weights: faster to answer with, nothing left to train.

    Merge in fp32 and cast then: in bf16 the sum of a weight and its small change would be rounded twice.

    Raises:
        FactoryError: the folder holds no adapter, or one for other layers than this model's.
    """
    return load_adapter(model, folder).merge_and_unload().requires_grad_(False)


def continue_adapter(
    model: Any,
    folder: Path,
    rank: int,
    alpha: float,
    dropout: float = 0.0,
    seed: int = 0,
    target_modules: Sequence[str] = LORA_TARGETS,
) -> Any:
    """Wrap `model` with a trainable LoRA of `rank` and `alpha` that computes what the adapter in `folder` computes.

    Rows that the old adapter lacks are fresh in A and zero in B; what differs in scale (alpha / rank) goes into B.

    Raises:
        FactoryError: the folder holds no such adapter, its rank is higher than `rank`, it covers other modules than
            `target_modules`, or its scale is not alpha / rank in all layers.
    """
    config = read_config(folder)
    for key in _BY_LAYER:
        if config.get(key):
            raise FactoryError(
                f"{folder}: {CONFIG} has {key}: {config[key]}, which no training goes on from; "
                "let training.start name another adapter"
            )
    if config["r"] > rank:
        raise FactoryError(
            f"training.rank {rank} is below the recovery adapter's {config['r']}; an adapter that starts from it "
            "needs at least its rank"
        )
    peft_model = new_adapter(model, rank, alpha, dropout, seed, target_modules)
    rescale = (config["lora_alpha"] / config["r"]) / (alpha / rank)
    state = _state_of(peft_model)
    saved = load_file(folder / WEIGHTS)
    modules = {name.split(".")[-3] for name in saved}
    if modules != set(target_modules):
        covered = ", ".join(sorted(modules))
        raise FactoryError(f"training.target_modules must be those of the adapter that training.start names: {covered}")
    if saved.keys() != state.keys():
        odd = sorted(saved.keys() ^ state.keys())[0]
        raise FactoryError(f"{folder}: the adapter has other layers than this model, {odd} for one")
    grown = {name: _grown(name, saved[name].float(), fresh, rescale) for name, fresh in state.items()}
    set_peft_model_state_dict(peft_model, grown)
    return peft_model


def save_adapter(peft_model: Any, folder: Path, base_digest: str) -> None:
    """Write PEFT's two files into `folder`: fp16 weights, and the configuration with the base named by its digest.

    Raises:
        FactoryError: a value is not finite in fp16.
    """
    folder.mkdir(parents=True, exist_ok=True)
    state = _state_of(peft_model)
    tensors = {name: state[name].detach().to("cpu", torch.float16).contiguous() for name in sorted(state)}
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise FactoryError(f"adapter weight {name} is not finite in fp16; lower training.learning_rate")
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    config = peft_model.peft_config[peft_model.active_adapter].to_dict()
    config |= {
        "base_model_name_or_path": base_digest,
        "revision": base_digest,
        "target_modules": sorted(config["target_modules"]),
        "inference_mode": True,
    }
    text = json.dumps(config, indent=2, sort_keys=True, default=str)
    (folder / CONFIG).write_text(text + "\n", "utf-8")


def read_config(folder: Path) -> dict[str, Any]:
    """The content of a PEFT folder's `adapter_config.json`.

    Raises:
        FactoryError: the folder lacks one of its two files, or holds a variant of LoRA that is not computed here.
    """
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise FactoryError(f"{folder}: no {name}, so no adapter; name a folder that PEFT can load")
    config = dict(json.loads((folder / CONFIG).read_text("utf-8")))
    odd = [key for key, plain in _PLAIN.items() if config.get(key, plain) != plain]
    for key in (*odd, *(key for key in _VARIANTS if config.get(key))):
        raise FactoryError(f"{folder}: {CONFIG} has {key}: {config[key]}; only plain LoRA is computed here")
    return config


def _state_of(peft_model: Any) -> dict[str, Tensor]:
    """The LoRA's tensors by PEFT's names. Left to itself, PEFT would ask a hub whether the vocabulary was changed."""
    return dict(get_peft_model_state_dict(peft_model, save_embedding_layers=False))


def _grown(name: str, saved: Tensor, fresh: Tensor, rescale: float) -> Tensor:
    """`fresh` (A [rank, in] random, or B [out, rank] zero) with the saved values in its first ranks."""
    grown = fresh.detach().to("cpu", torch.float32, copy=True)
    if ".lora_A." in name:
        grown[: saved.shape[0]] = saved
    else:
        grown[:, : saved.shape[1]] = saved * rescale
    return grown
