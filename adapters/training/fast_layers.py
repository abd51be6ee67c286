"""The arithmetic of layers that a LoRA is trained through, each as one autograd function.

Only what is computed changes hands: modules, parameters, names and files stay those of transformers and PEFT.
- A linear layer: y = x Wᵀ + s (x Aᵀ) Bᵀ, with x, W and y in the base's dtype and A, B as fp32 masters. PEFT's own layer
  would carry the whole activation to fp32 and keep four intermediate tensors.
- A norm whose weight is frozen: two tensors kept and a third of the passes over memory.
"""

from typing import Any

import torch
import torch.nn.functional as F
from peft.tuners.lora import Linear as PeftLinear
from torch import Tensor
from transformers.models.llama.modeling_llama import LlamaRMSNorm


def use_fast_layers(peft_model: Any) -> Any:
    """Let the LoRA layers and norms of a PEFT model compute as described above; returns the model."""
    for module in peft_model.modules():
        if type(module) is PeftLinear:
            module.__class__ = LoraLinear
        elif type(module) is LlamaRMSNorm and not module.weight.requires_grad:
            module.__class__ = FrozenRMSNorm
    return peft_model


class LoraLinear(PeftLinear):
    """PEFT's LoRA layer with another forward."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """[..., in] → [..., out] in x's dtype."""
        base = self.get_base_layer()
        if self.disable_adapters or self.merged:
            return base(x)
        (name,) = self.active_adapters
        dropped = self.lora_dropout[name](x)
        a, b = self.lora_A[name].weight, self.lora_B[name].weight
        scale = self.scaling[name]
        if dropped is x:
            return _FrozenPlusLora.apply(x, base.weight, base.bias, a, b, scale)
        low = F.linear(dropped, a.to(x.dtype))
        return base(x) + F.linear(low, (b * scale).to(x.dtype))


class FrozenRMSNorm(LlamaRMSNorm):
    """The norm of Llama (Zhang and Sennrich 2019, https://arxiv.org/abs/1910.07467) with a frozen weight."""

    def forward(self, hidden_states: Tensor) -> Tensor:
        """[..., width] → [..., width] in the same dtype; the mean square is taken in fp32."""
        return _FrozenRMSNorm.apply(hidden_states, self.weight, self.variance_epsilon)


class _FrozenPlusLora(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, scale: float) -> Tensor:
        flat = x.reshape(-1, x.shape[-1])
        a, b = a.to(x.dtype), (b * scale).to(x.dtype)
        low = flat @ a.T
        y = F.linear(flat, weight, bias).addmm_(low, b.T)
        ctx.save_for_backward(flat, weight, a, b, low)
        ctx.scale = scale
        return y.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        flat, weight, a, b, low = ctx.saved_tensors
        g = grad.reshape(-1, grad.shape[-1])
        g_low = g @ b
        grad_x = (g @ weight).addmm_(g_low, a).view(*grad.shape[:-1], -1) if ctx.needs_input_grad[0] else None
        grad_a = (g_low.T @ flat).float()
        grad_b = (g.T @ low).float() * ctx.scale
        return grad_x, None, None, grad_a, grad_b, None


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
