"""Which models can be released, and the names of the tensors that a release treats one by one."""

from collections.abc import Callable, Iterable
from typing import Any

from adapters.recipe import LORA_TARGETS
from infra.errors import FactoryError

EMBEDDING = "model.embed_tokens"
_ATTENTION = frozenset({"q_proj", "k_proj", "v_proj", "o_proj"})


def require_llama(config: Any) -> None:
    """Check that a model's config describes the architecture that codebooks, recovery and export understand.

    Raises:
        FactoryError: it does not; the message names every setting that differs.
    """
    rope = getattr(config, "rope_parameters", None) or {}
    expected = {
        "model_type": ("llama", config.model_type),
        "hidden_act": ("silu", getattr(config, "hidden_act", None)),
        "tie_word_embeddings": (True, getattr(config, "tie_word_embeddings", None)),
        "attention_bias": (False, getattr(config, "attention_bias", None)),
        "mlp_bias": (False, getattr(config, "mlp_bias", None)),
        "rope_type": ("default", rope.get("rope_type", "default")),
    }
    wrong = [f"{name} is {is_!r}, not {should!r}" for name, (should, is_) in expected.items() if is_ != should]
    if wrong:
        raise FactoryError(f"this base cannot be released, only Llama models with a tied embedding: {'; '.join(wrong)}")


def linear_name(layer: int, kind: str) -> str:
    """The module name of a linear layer, e.g. `model.layers.3.mlp.up_proj`."""
    return f"model.layers.{layer}.{'self_attn' if kind in _ATTENTION else 'mlp'}.{kind}"


def linear_names(layers: int) -> list[str]:
    """Module names of all linear layers that are palettized, in the order of the forward pass."""
    return [linear_name(layer, kind) for layer in range(layers) for kind in LORA_TARGETS]


def at_layers(model: Any, windows: Any, names: Iterable[str], act: Callable[[str, Any, Any], None]) -> None:
    """Run the windows through the model once; `act(name, weight, inputs [tokens, in])` before each layer computes."""
    hooks = [
        model.get_submodule(name).register_forward_pre_hook(
            lambda module, inputs, name=name: act(name, module.weight, inputs[0].flatten(0, 1))
        )
        for name in names
    ]
    try:
        model.get_decoder()(input_ids=windows.to(model.device), use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
