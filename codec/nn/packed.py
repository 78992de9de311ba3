"""Linear layers whose weights lie as the processor wants them.

torch multiplies float32 by MKL, which leaves AVX-512 alone on processors that are not Intel's: 80 in place of 200
GFLOP/s on an AMD EPYC. oneDNN, which torch brings and uses itself for convolutions and for bfloat16, does not; and it
lays a weight out once, not for each product. `torch.compile` calls the same operations.
"""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def multiplies_bfloat16() -> bool:
    """Whether this processor has instructions of its own for products of bfloat16."""
    known = torch.cpu.get_capabilities()
    return bool(known.get("avx512_bf16") or known.get("amx_bf16"))


def faster(dtype: torch.dtype) -> bool:
    """Whether products with weights laid out are faster here than `F.linear`."""
    if dtype == torch.float32:
        known = torch.cpu.get_capabilities()
        return bool(known.get("avx512_f")) and "AMD" in str(known.get("cpu_name"))
    return dtype == torch.bfloat16 and multiplies_bfloat16()


def laid_out(weight: Tensor) -> Tensor | None:
    """A weight (out, in) as `product` wants it, a copy; None where that would be no faster, or is not there."""
    if weight.device.type != "cpu" or not faster(weight.dtype):
        return None
    try:
        packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight)
        product(weight.new_zeros(1, weight.shape[1]), packed, None)
    except (AttributeError, RuntimeError, NotImplementedError):
        return None  # torch does not promise these operations
    return packed


def product(x: Tensor, packed: Tensor, bias: Tensor | None) -> Tensor:
    """(..., in) -> (..., out), with a weight from `laid_out`."""
    out: Tensor = torch.ops.mkldnn._linear_pointwise(x, packed, bias, "none", [], "")
    return out


class PackedLinear(nn.Linear):
    """`nn.Linear` that keeps a copy of its weight laid out, and uses it where no gradients are wanted.

    Everywhere else, under autocast or while it is exported, it is `nn.Linear`. The copy is made anew where the weight
    was replaced or written in place; not where that was done through ``weight.data``, which torch does not count.
    """

    _packed: tuple[list[int], Tensor | None] | None = None  # the marks of what it was made of; and the copy

    @classmethod
    def of(cls, layer: nn.Linear) -> "PackedLinear":
        """The same layer: it has that layer's parameters, not others like them."""
        one = cls.__new__(cls)
        one.__dict__ = layer.__dict__.copy()
        return one

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        packed = self.copy_for(x)
        return F.linear(x, self.weight, self.bias) if packed is None else product(x, packed, self.bias)

    def copy_for(self, x: Tensor, *others: nn.Linear) -> Tensor | None:
        """The weight laid out, those of other layers behind it; None where it is of no use for an input."""
        if torch.is_grad_enabled() or torch.is_autocast_enabled("cpu"):
            return None
        if torch.compiler.is_compiling() or torch.jit.is_tracing():
            return None
        weights: list[Tensor] = [self.weight, *(other.weight for other in others)]
        marks: list[int] = []
        for weight in weights:
            # not one that is computed, as adapters do; nor one whose writes are not counted
            if type(weight) is not nn.Parameter or weight.dtype != x.dtype or weight.is_inference():
                return None
            marks += [weight.data_ptr(), weight._version]
        if self._packed is None or self._packed[0] != marks:
            self._packed = marks, laid_out(torch.cat(weights) if others else weights[0].detach())
        return self._packed[1]

    def __getstate__(self) -> dict[str, object]:
        """Without the copy, which cannot be copied."""
        return {name: value for name, value in self.__dict__.items() if name != "_packed"}


def packed(model: nn.Module) -> None:
    """Turn every linear layer in a model into a `PackedLinear`, in place. Its parameters stay as they are."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if type(child) is nn.Linear:
                setattr(module, name, PackedLinear.of(child))


def side_by_side(x: Tensor, *layers: nn.Linear) -> Tensor:
    """(..., in) -> (..., sum of out): the outputs of layers; one product where they are laid out and have no bias."""
    if all(type(layer) is PackedLinear and layer.bias is None for layer in layers):
        packed = cast(PackedLinear, layers[0]).copy_for(x, *layers[1:])
        if packed is not None:
            return product(x, packed, None)
    return torch.cat([layer(x) for layer in layers], -1)
