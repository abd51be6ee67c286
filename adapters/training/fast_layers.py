"""The arithmetic of layers that a LoRA is trained through, as a few autograd functions with gradients by hand.

Only what is computed changes hands: modules, parameters, names and files stay those of transformers and PEFT.
- Linear layers of one input: y = x Wᵀ + s (x Aᵀ) Bᵀ, with x, W and y in the base's dtype and A, B as fp32 masters, one
  product for all their A. PEFT's own layer would carry the whole activation to fp32 and keep four tensors.
- A norm whose weight is frozen: three tensors kept and a third of the passes over memory.
- An MLP and the attention over a packed row: each one function, which keeps what its gradient needs and nothing twice.
A LoRA with dropout goes layer by layer.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from peft.tuners.lora import Linear as PeftLinear
from torch import Tensor, nn
from transformers.models.llama.modeling_llama import LlamaAttention, LlamaMLP, LlamaRMSNorm

from adapters.inference.packed_attention import attend, attend_backward


def use_fast_layers(peft_model: Any) -> Any:
    """Let the layers of a PEFT model compute as described above, where they can; returns the model."""
    for module in peft_model.modules():
        if type(module) is PeftLinear:
            module.__class__ = LoraLinear
        elif type(module) is LlamaRMSNorm and not module.weight.requires_grad:
            module.__class__ = FrozenRMSNorm
        elif type(module) is LlamaMLP and module.config.hidden_act == "silu":
            module.__class__ = LoraMLP
        elif type(module) is LlamaAttention:
            module.__class__ = LoraAttention
    return peft_model


class LoraLinear(PeftLinear):
    """PEFT's LoRA layer with another forward."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """[..., in] → [..., out] in x's dtype."""
        base = self.get_base_layer()
        if self.disable_adapters or self.merged:
            return base(x)
        if self.fusable:
            return _Linear.apply(x, *_flat([self]))
        (name,) = self.active_adapters
        low = F.linear(self.lora_dropout[name](x), self.lora_A[name].weight.to(x.dtype))
        return base(x) + F.linear(low, (self.lora_B[name].weight * self.scaling[name]).to(x.dtype))

    @property
    def fusable(self) -> bool:
        """Whether nothing but the LoRA is added to the frozen layer: no dropout now."""
        if self.disable_adapters or self.merged:
            return False
        (name,) = self.active_adapters
        return not self.training or isinstance(self.lora_dropout[name], nn.Identity)


class LoraMLP(LlamaMLP):
    """Llama's MLP, down(silu(gate(x)) * up(x)), as one function."""

    def forward(self, x: Tensor) -> Tensor:
        """[..., width] → [..., width] in x's dtype."""
        layers = [self.gate_proj, self.up_proj, self.down_proj]
        return _MLP.apply(x, *_flat(layers)) if _fusable(layers) else super().forward(x)


class LoraAttention(LlamaAttention):
    """Llama's attention; over a packed row on a CPU as one function."""

    def forward(self, hidden_states: Tensor, position_embeddings: Any = None, *args: Any, **kwargs: Any) -> Any:
        """[1, N, width] → [1, N, width] with `segments` (of a packed row); else as Llama's."""
        layers = [self.q_proj, self.k_proj, self.v_proj, self.o_proj]
        segments = kwargs.get("segments")
        if segments is None or hidden_states.device.type != "cpu" or not _fusable(layers):
            return super().forward(hidden_states, position_embeddings, *args, **kwargs)
        shape = (self.config.num_key_value_heads, self.num_key_value_groups, self.head_dim)
        rotation = kwargs["rotations"](position_embeddings, shape, self.scaling)
        return _Attention.apply(hidden_states, segments, rotation, shape, *_flat(layers)), None


class FrozenRMSNorm(LlamaRMSNorm):
    """The norm of Llama (Zhang and Sennrich 2019, https://arxiv.org/abs/1910.07467) with a frozen weight."""

    def forward(self, hidden_states: Tensor) -> Tensor:
        """[..., width] → [..., width] in the same dtype; the mean square is taken in fp32."""
        return _FrozenRMSNorm.apply(hidden_states, self.weight, self.variance_epsilon)


class Rotation(NamedTuple):
    """Rotary embedding (Su et al. 2021, https://arxiv.org/abs/2104.09864) of queries or keys as whole rows.

    `cos` and `sin` are [N, heads * head_dim]; the sign of the halves' exchange, and a scale, are in them.
    """

    cos: Tensor
    sin: Tensor
    head_dim: int

    def forward(self, x: Tensor) -> Tensor:
        """[N, heads * head_dim] → the same, rotated by the tokens' positions."""
        return (x * self.cos).addcmul_(self._exchanged(x), self.sin)

    def backward(self, grad: Tensor) -> Tensor:
        """The gradient of what was rotated."""
        return (grad * self.cos).add_(self._exchanged(grad * self.sin))

    def _exchanged(self, x: Tensor) -> Tensor:
        first, second = x.view(-1, self.head_dim).chunk(2, dim=1)
        return torch.cat((second, first), dim=1).view(x.shape)


class Rotations:
    """The rotations of one row of tokens, made once for all layers."""

    def __init__(self) -> None:
        self._made: tuple[Rotation, Rotation] | None = None

    def __call__(
        self, embeddings: tuple[Tensor, Tensor], shape: tuple[int, int, int], scale: float
    ) -> tuple[Rotation, Rotation]:
        """Of queries, scaled for attention, and of keys; `embeddings` are cos and sin [1, N, head_dim]."""
        if self._made is None:
            key_heads, group, width = shape
            cos, sin = (table[0].float() for table in embeddings)
            sin = torch.cat((-sin[:, : width // 2], sin[:, width // 2 :]), dim=1)
            dtype, heads = embeddings[0].dtype, key_heads * group
            tables = [[(t * s).repeat(1, n).to(dtype) for t in (cos, sin)] for n, s in ((heads, scale), (key_heads, 1))]
            (cos_q, sin_q), (cos_k, sin_k) = tables
            self._made = Rotation(cos_q, sin_q, width), Rotation(cos_k, sin_k, width)
        return self._made


class _Stack:
    """Linear layers of one input, each with its LoRA; what an autograd function gets as one flat list of tensors."""

    def __init__(self, flat: Sequence[Any], dtype: torch.dtype) -> None:
        self.weights, self.biases, a, b, self.scales = (list(flat[i::5]) for i in range(5))
        self.a = torch.cat([one.to(dtype) for one in a])
        self.b = [(one * scale).to(dtype) for one, scale in zip(b, self.scales, strict=True)]
        self.ranks = [len(one) for one in a]

    def forward(self, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """x [N, in] → each layer's y [N, out], and each layer's x Aᵀ [N, rank]."""
        lows = (x @ self.a.T).split(self.ranks, dim=1)
        layers = zip(self.weights, self.biases, self.b, lows, strict=True)
        return [F.linear(x, weight, bias).addmm_(low, b.T) for weight, bias, b, low in layers], list(lows)

    def backward(
        self, x: Tensor, lows: Sequence[Tensor], grads: Sequence[Tensor], needs_x: bool = True
    ) -> tuple[Tensor | None, list[Tensor | None]]:
        """The gradient of x, and those of the flat list."""
        grad_lows = torch.cat([grad @ b for grad, b in zip(grads, self.b, strict=True)], dim=1)
        grad_x: Tensor | None = None
        if needs_x:
            grad_x = grad_lows @ self.a
            for grad, weight in zip(grads, self.weights, strict=True):
                grad_x.addmm_(grad, weight)
        flat: list[Tensor | None] = []
        grads_a = (grad_lows.T @ x).float().split(self.ranks)
        for grad_a, grad, low, scale in zip(grads_a, grads, lows, self.scales, strict=True):
            flat += [None, None, grad_a, (grad.T @ low).float().mul_(scale), None]
        return grad_x, flat


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, *flat: Any) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        ctx.stack = _Stack(flat, x.dtype)
        (y,), ctx.lows = ctx.stack.forward(rows)
        ctx.save_for_backward(rows)
        return y.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (x,) = ctx.saved_tensors
        rows = grad.reshape(-1, grad.shape[-1])
        grad_x, flat = ctx.stack.backward(x, ctx.lows, [rows], ctx.needs_input_grad[0])
        return grad_x if grad_x is None else grad_x.view(*grad.shape[:-1], -1), *flat


class _MLP(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, *flat: Any) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        ctx.inner, ctx.outer = _Stack(flat[:10], x.dtype), _Stack(flat[10:], x.dtype)
        (gate, up), ctx.inner_lows = ctx.inner.forward(rows)
        opened = F.silu(gate)
        (y,), ctx.outer_lows = ctx.outer.forward(opened * up)
        ctx.save_for_backward(rows, gate, up, opened)
        return y.view(x.shape)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, gate, up, opened = ctx.saved_tensors
        rows = grad.reshape(-1, grad.shape[-1])
        grad_inner, outer = ctx.outer.backward(opened * up, ctx.outer_lows, [rows])
        assert grad_inner is not None
        grad_gate = torch.ops.aten.silu_backward(grad_inner * up, gate)
        grad_up = grad_inner.mul_(opened)
        grad_x, inner = ctx.inner.backward(x, ctx.inner_lows, [grad_gate, grad_up], ctx.needs_input_grad[0])
        return grad_x if grad_x is None else grad_x.view(grad.shape), *inner, *outer


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, segments: Any, rotations: Any, shape: tuple[int, int, int], *flat: Any) -> Tensor:
        rows = x.view(-1, x.shape[-1])
        ctx.inner, ctx.outer = _Stack(flat[:15], x.dtype), _Stack(flat[15:], x.dtype)
        (q, k, v), ctx.inner_lows = ctx.inner.forward(rows)
        q, k = (rotation.forward(one) for rotation, one in zip(rotations, (q, k), strict=True))
        q, k, v = (_by_key_head(one, shape) for one in (q, k, v))
        seen, kept = attend(q.unflatten(-1, shape[1:]), k, v, segments)
        seen = _by_token(seen)
        (y,), ctx.outer_lows = ctx.outer.forward(seen)
        ctx.save_for_backward(rows, q, k, v, seen, *kept)
        ctx.segments, ctx.rotations, ctx.shape = segments, rotations, shape
        return y.view(x.shape)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, q, k, v, seen, *kept = ctx.saved_tensors
        grad_seen, outer = ctx.outer.backward(seen, ctx.outer_lows, [grad.reshape(-1, grad.shape[-1])])
        assert grad_seen is not None
        by_head = _by_key_head(grad_seen, ctx.shape).unflatten(-1, ctx.shape[1:])
        grads = attend_backward(by_head, q.unflatten(-1, ctx.shape[1:]), k, v, ctx.segments, kept)
        grad_q, grad_k, grad_v = (_by_token(one) for one in grads)
        of_queries, of_keys = ctx.rotations
        inner_grads = [of_queries.backward(grad_q), of_keys.backward(grad_k), grad_v]
        grad_x, inner = ctx.inner.backward(x, ctx.inner_lows, inner_grads, ctx.needs_input_grad[0])
        return grad_x if grad_x is None else grad_x.view(grad.shape), None, None, None, *inner, *outer


class _FrozenRMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        wide = x.to(torch.float32, copy=True)
        norm = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
        inverse = torch.rsqrt(norm.square() / x.shape[-1] + epsilon)
        unit = wide.mul_(inverse).to(x.dtype)
        ctx.save_for_backward(unit, inverse, weight)
        return unit * weight

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        unit, inverse, weight = ctx.saved_tensors
        unit, grad_unit = unit.float(), (grad * weight).float()
        along = torch.linalg.vecdot(grad_unit, unit).unsqueeze(-1) / unit.shape[-1]
        return grad_unit.addcmul(unit, along, value=-1).mul_(inverse).to(grad.dtype), None, None


def _fusable(layers: Sequence[nn.Module]) -> bool:
    return all(isinstance(layer, LoraLinear) and layer.fusable for layer in layers)


def _flat(layers: Sequence[Any]) -> list[Any]:
    """Weight, bias, A, B and scale of each layer, one after the other, as autograd functions take tensors."""
    flat: list[Any] = []
    for layer in layers:
        base = layer.get_base_layer()
        (name,) = layer.active_adapters
        flat += [base.weight, base.bias, layer.lora_A[name].weight, layer.lora_B[name].weight, layer.scaling[name]]
    return flat


def _by_key_head(x: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """[N, key heads * rest] → [key heads, N, rest]."""
    return x.view(len(x), shape[0], -1).transpose(0, 1).contiguous()


def _by_token(x: Tensor) -> Tensor:
    """[key heads, N, ...] → [N, all the rest]."""
    return x.flatten(2).transpose(0, 1).reshape(x.shape[1], -1)
