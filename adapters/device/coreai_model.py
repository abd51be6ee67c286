"""A Llama that exports to Core AI as it should run there: tables, LoRA and cache are explicit.

Notable choices:
- Weights stay indices and tables. Exported, they are expanded by Core AI's own operators; in eager mode by a gather,
  because the operators' eager forms need gigabytes.
- The LoRA weights are inputs, stacked over the layers, so that one asset serves every adapter. Their rank is padded
  with zeros to the asset's, and the scale alpha / rank is folded into B.
- The KV cache is state. A step attends to what the cache held before it and to its own tokens, and writes the cache
  once, for all layers, at the end.
"""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adapters.palettization.codebooks import Palettized
from adapters.palettization.layers import linear_name
from adapters.palettization.release import PalettizedModel
from adapters.recipe import LORA_TARGETS


class PalettizedLinear(nn.Module):
    """x W^T with W as indices and tables; buffer names must hold "indices" and "lut" for the exporter to find them."""

    indices: Tensor
    lut: Tensor

    def __init__(self, weight: Palettized) -> None:
        super().__init__()
        self.register_buffer("indices", weight.indices)
        self.register_buffer("lut", weight.lut.float().unsqueeze(1))

    def forward(self, x: Tensor, a: Tensor, b: Tensor) -> Tensor:
        """x [tokens, in], LoRA a [rank, in] and b [out, rank] → [tokens, out]."""
        return F.linear(x, self._weight()) + F.linear(F.linear(x, a), b)

    def _weight(self) -> Tensor:
        if torch.compiler.is_exporting():
            return torch.ops.coreai.lut_to_dense(self.indices, self.lut, 1)
        return Palettized(self.indices, self.lut.squeeze(1)).dense(torch.float32)


class Int8Embedding(nn.Module):
    """The tied embedding: int8 values [vocabulary, hidden] and a scale per row."""

    quantized: Tensor
    scale: Tensor

    def __init__(self, values: Tensor, scales: Tensor) -> None:
        super().__init__()
        self.register_buffer("quantized", values)
        self.register_buffer("scale", scales.float().unsqueeze(1))

    def forward(self) -> Tensor:
        """The dense table [vocabulary, hidden], fp32."""
        if torch.compiler.is_exporting():
            return torch.ops.coreai.constexpr_blockwise_shift_scale(self.quantized, self.scale)
        return self.quantized.float() * self.scale


class RMSNorm(nn.Module):
    """Root mean square normalisation (Zhang and Sennrich 2019)."""

    weight: Tensor

    def __init__(self, weight: Tensor, epsilon: float) -> None:
        super().__init__()
        self.register_buffer("weight", weight.float())
        self._epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self._epsilon) * self.weight


class Layer(nn.Module):
    """One decoder layer: attention with grouped queries, then SwiGLU, each after a norm and beside a residual."""

    def __init__(self, weights: PalettizedModel, index: int) -> None:
        super().__init__()
        config = weights.config
        self._heads, self._groups = config.num_attention_heads, config.num_key_value_heads
        self._head_dim = head_dim(config)
        for kind in LORA_TARGETS:
            self.add_module(kind, PalettizedLinear(weights.linear[linear_name(index, kind)]))
        prefix = f"model.layers.{index}"
        self.attention_norm = RMSNorm(weights.norms[f"{prefix}.input_layernorm.weight"], config.rms_norm_eps)
        self.mlp_norm = RMSNorm(weights.norms[f"{prefix}.post_attention_layernorm.weight"], config.rms_norm_eps)

    def forward(
        self, x: Tensor, rope: tuple[Tensor, Tensor], mask: Tensor, past: tuple[Tensor, Tensor], lora: Mapping[str, Any]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """x [tokens, hidden], past keys and values [groups, context, head_dim] → x and the tokens' keys and values."""

        def project(kind: str, inputs: Tensor) -> Tensor:
            return self.get_submodule(kind)(inputs, *lora[kind])

        normed = self.attention_norm(x)
        queries = rotate(self._split(project("q_proj", normed), self._heads), rope)
        keys = rotate(self._split(project("k_proj", normed), self._groups), rope)
        values = self._split(project("v_proj", normed), self._groups)
        attended = self._attend(queries, torch.cat([past[0], keys], 1), torch.cat([past[1], values], 1), mask)
        x = x + project("o_proj", attended)
        normed = self.mlp_norm(x)
        x = x + project("down_proj", F.silu(project("gate_proj", normed)) * project("up_proj", normed))
        return x, keys, values

    def _split(self, x: Tensor, heads: int) -> Tensor:
        return x.view(x.shape[0], heads, self._head_dim).transpose(0, 1)

    def _attend(self, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
        tokens = queries.shape[1]
        # The heads of a group read the same keys: they are rows of one product, not copies of the keys.
        grouped = queries.reshape(self._groups, -1, self._head_dim)
        scores = grouped @ keys.transpose(1, 2) * self._head_dim**-0.5
        scores = scores.view(self._heads, tokens, -1) + mask
        weights = scores.softmax(-1).view(self._groups, -1, keys.shape[1])
        return (weights @ values).view(self._heads, tokens, self._head_dim).transpose(0, 1).reshape(tokens, -1)


class PalettizedLlama(nn.Module):
    """The whole model as one function of tokens, positions, LoRA weights and cache."""

    frequencies: Tensor

    def __init__(self, weights: PalettizedModel, context: int) -> None:
        super().__init__()
        config = weights.config
        self.embedding = Int8Embedding(*weights.embedding)
        self.layers = nn.ModuleList(Layer(weights, index) for index in range(config.num_hidden_layers))
        self.norm = RMSNorm(weights.norms["model.norm.weight"], config.rms_norm_eps)
        steps = torch.arange(0, head_dim(config), 2, dtype=torch.float32) / head_dim(config)
        self.register_buffer("frequencies", config.rope_parameters["rope_theta"] ** -steps)
        self._context = context

    def forward(self, ids: Tensor, positions: Tensor, *inputs: Tensor) -> Tensor:
        """Logits [1, tokens, vocabulary]; the caches are changed in place.

        Args:
            ids: int32 [1, tokens].
            positions: int32 [tokens], consecutive; the cache holds what lies before the first of them.
            inputs: for each of LORA_TARGETS A [layers, rank, in] and B [layers, out, rank]; then the key cache and the
                value cache, each [layers, 1, groups, context, head_dim].
        """
        *lora, key_cache, value_cache = inputs
        table = self.embedding()
        x = F.embedding(ids[0], table)
        angles = positions.float().unsqueeze(1) * torch.cat([self.frequencies, self.frequencies])
        rope = angles.cos(), angles.sin()
        mask = self._mask(positions)
        new_keys, new_values = [], []
        for index, layer in enumerate(self.layers):
            past = key_cache[index, 0], value_cache[index, 0]
            pairs = {kind: (lora[2 * i][index], lora[2 * i + 1][index]) for i, kind in enumerate(LORA_TARGETS)}
            x, keys, values = layer(x, rope, mask, past, pairs)
            new_keys.append(keys)
            new_values.append(values)
        key_cache.index_copy_(3, positions.long(), torch.stack(new_keys).unsqueeze(1))
        value_cache.index_copy_(3, positions.long(), torch.stack(new_values).unsqueeze(1))
        return F.linear(self.norm(x), table).unsqueeze(0)

    def _mask(self, positions: Tensor) -> Tensor:
        """Additive [tokens, context + tokens]: the cache before the first position, then the tokens up to one's own."""
        tokens = positions.shape[0]
        cached = torch.arange(self._context, dtype=torch.int32, device=positions.device) < positions[0]
        causal = positions.unsqueeze(0) <= positions.unsqueeze(1)
        visible = torch.cat([cached.unsqueeze(0).expand(tokens, -1), causal], dim=1)
        return torch.where(visible, 0.0, torch.finfo(torch.float32).min)


def rotate(x: Tensor, rope: tuple[Tensor, Tensor]) -> Tensor:
    """Rotary position embedding (Su et al. 2021) in Llama's half-and-half layout: x [heads, tokens, head_dim]."""
    first, second = x.chunk(2, dim=-1)
    return x * rope[0] + torch.cat([-second, first], dim=-1) * rope[1]


def head_dim(config: Any) -> int:
    """Width of one attention head."""
    return config.head_dim or config.hidden_size // config.num_attention_heads
