"""The optimizers: AdamW for everything, or Muon for the linear layers of the blocks and AdamW for the rest.

Muon (Jordan et al. 2024; at scale: Liu et al. 2025, arXiv 2502.16982) steps along the orthogonalised momentum of a
matrix. Small models trained for a short time gain from it: `docs/decisions.md` has the figures.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from codec.errors import UserError

Kind = Literal["adamw", "muon"]


class Chained(Optimizer):
    """Several optimizers, each with parameters of its own, that step as one.

    Schedulers see all their groups. torch's Muon takes matrices only, and Lightning one optimizer, unless every
    training step is written out.
    """

    def __init__(self, optimizers: Sequence[Optimizer]) -> None:
        self.optimizers = list(optimizers)
        super().__init__([{"params": g["params"]} for o in self.optimizers for g in o.param_groups], {})
        self._join()

    def _join(self) -> None:
        """The groups are those of the parts, so that a rate set here is set there."""
        self.param_groups = [group for one in self.optimizers for group in one.param_groups]

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for one in self.optimizers:
            one.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        return {"optimizers": [one.state_dict() for one in self.optimizers]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if "optimizers" not in state_dict:
            raise UserError(
                "the checkpoint is of a run with optimizer: adamw; go on with that, or begin anew"
            )
        for one, state in zip(self.optimizers, state_dict["optimizers"], strict=True):
            one.load_state_dict(state)
        self._join()


def block_matrices(model: nn.Module) -> list[Tensor]:
    """The weights of all linear layers inside lists of blocks: neither embeddings nor the layers that read out."""
    blocks = [one for one in model.modules() if isinstance(one, nn.ModuleList)]
    layers = {one: None for block in blocks for one in block.modules() if isinstance(one, nn.Linear)}
    return [layer.weight for layer in layers if layer.weight.requires_grad]


def muon(matrices: Sequence[Tensor], groups: Sequence[dict[str, Any]], lr: float, **settings: Any) -> Chained:
    """Muon for `matrices`, AdamW for what else is in `groups`; one rate suits both, as the steps' sizes are matched.

    Args:
        matrices: each whole, of two dimensions.
        groups: of AdamW, with the weight decay of each.
        lr: peak learning rate.
        settings: more of AdamW.

    Raises:
        UserError: a matrix is cut up.
    """
    if any(one.ndim != 2 for one in matrices):
        raise UserError(
            "optimizer: muon needs whole matrices, which FSDP cuts up; use optimizer: adamw with it"
        )
    apart = {id(one) for one in matrices}
    others = [
        {**group, "params": rest}
        for group in groups
        if (rest := [p for p in group["params"] if id(p) not in apart])
    ]
    decay = max((group["weight_decay"] for group in groups), default=0.0)
    first = torch.optim.Muon(list(matrices), lr, weight_decay=decay, adjust_lr_fn="match_rms_adamw")
    return Chained([first, torch.optim.AdamW(others, lr, **settings)])
