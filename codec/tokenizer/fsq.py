"""The two quantisers: FSQ, and vector quantisation with moving averages. Both map vectors to one code each."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Quantizer(nn.Module):
    """Role: hidden vectors -> quantised vectors, codes and an auxiliary loss.

    Attributes:
        codes: size of the codebook.
    """

    codes: int

    def forward(self, hidden: Tensor, keep: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """(B, N, dim) -> quantised (B, N, dim) with gradients passed straight through, codes (B, N), loss ().

        Args:
            hidden: vectors to quantise.
            keep: (B, N) bool, False for padding, which trains nothing.
        """
        raise NotImplementedError

    def bound(self, hidden: Tensor, keep: Tensor | None = None) -> Tensor:
        """(B, N, dim) -> (B, N, d), the few numbers of which the code is made, not yet rounded."""
        raise NotImplementedError

    def embed(self, codes: Tensor) -> Tensor:
        """Codes (B, N) -> the quantised vectors (B, N, dim) that `forward` gave for them."""
        raise NotImplementedError


class FSQ(Quantizer):
    """Finite scalar quantisation (Mentzer et al. 2023, arXiv 2309.15505): bounded dimensions, each rounded.

    Args:
        dim: of the hidden vectors.
        levels: values per dimension; the codebook has their product. Odd numbers only: the paper's half-step
            shift for even ones is not needed at the sizes used here.
        noise: chance in training that a vector is not rounded but blurred by uniform noise one level wide,
            which keeps rarely used codes within reach of the gradient (Parker et al. 2024, 2411.19842).
        diversity: weight of the loss that keeps all codes in use, ln(codes) minus the entropy of the batch's mean
            soft assignment, nats (the batch term of Yu et al. 2023, 2310.05737). Without it the dimensions
            tell the same thing several times over and most combinations never occur.
        momentum: of the running mean and variance that centre the dimensions.
    """

    def __init__(
        self,
        dim: int,
        levels: tuple[int, ...] = (5, 5, 5, 5),
        *,
        noise: float = 0.0,
        diversity: float = 0.2,
        momentum: float = 0.01,
    ) -> None:
        super().__init__()
        if any(level % 2 == 0 or level < 3 for level in levels):
            raise ValueError(f"FSQ levels must be odd and at least 3, got {levels}")
        self.levels, self.codes = tuple(levels), math.prod(levels)
        self.noise, self.diversity, self.momentum = noise, diversity, momentum
        self.down = nn.Linear(dim, len(levels))
        self.up = nn.Linear(len(levels), dim)
        places = [math.prod(levels[:i]) for i in range(len(levels))]
        self.register_buffer("reach", torch.tensor([(level - 1) / 2 for level in levels]), persistent=False)
        self.register_buffer("places", torch.tensor(places), persistent=False)
        self.register_buffer("mean", torch.zeros(len(levels)))
        self.register_buffer("var", torch.ones(len(levels)))
        self.reach: Tensor
        self.places: Tensor
        self.mean: Tensor
        self.var: Tensor

    def bound(self, hidden: Tensor, keep: Tensor | None = None) -> Tensor:
        """(B, N, dim) -> (B, N, d), dimension i between -reach_i - 1/2 and reach_i + 1/2, spread over the levels.

        Centred to mean 0 and variance 1 over the data, then squashed by nearly the normal distribution function,
        which makes a normal variable uniform: so the levels of each dimension are used alike.
        """
        z = self.down(hidden).float()
        mean, var = self.mean, self.var
        if self.training:
            kept = z[keep] if keep is not None else z.flatten(0, -2)
            if len(kept) > 1:
                var, mean = torch.var_mean(kept, dim=0, correction=0)
                with torch.no_grad():
                    self.mean.lerp_(mean, self.momentum)
                    self.var.lerp_(var, self.momentum)
        return (self.reach + 0.5) * torch.tanh(0.8 * (z - mean) * torch.rsqrt(var + 1e-5))

    def forward(self, hidden: Tensor, keep: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        z = self.bound(hidden, keep)
        rounded = torch.minimum(torch.maximum(z.round(), -self.reach), self.reach)
        codes = ((rounded + self.reach).long() * self.places).sum(-1)
        through = z + (rounded - z).detach()
        if self.training and self.noise:
            blurred = z + torch.rand_like(z) - 0.5
            through = torch.where(
                torch.rand(z.shape[:-1], device=z.device)[..., None] < self.noise, blurred, through
            )
        loss = z.new_zeros(())
        if self.diversity:
            loss = self.diversity * self._unused(z[keep] if keep is not None else z.flatten(0, -2))
        return self._up(through), codes, loss

    def _unused(self, z: Tensor) -> Tensor:
        """(n, d) bounded values -> ln(codes) minus the entropy of their mean soft assignment, nats."""
        joint = z.new_ones(len(z), 1)
        for i, level in enumerate(self.levels):
            steps = torch.arange(level, device=z.device) - self.reach[i]
            share = (-4.0 * (z[:, i, None] - steps).square()).softmax(-1)
            joint = (share[:, :, None] * joint[:, None, :]).flatten(1)
        mean = joint.mean(0)
        return math.log(self.codes) + (mean * mean.clamp(min=1e-9).log()).sum()

    def embed(self, codes: Tensor) -> Tensor:
        levels = (2 * self.reach + 1).long()
        return self._up((codes[..., None] // self.places) % levels - self.reach)

    def _up(self, z: Tensor) -> Tensor:
        out: Tensor = self.up(z / self.reach)
        return out


class EMAVQ(Quantizer):
    """Vector quantisation whose codebook follows its members by moving averages.

    van den Oord et al. 2017, arXiv 1711.00937, appendix A.1; codes that fell out of use are moved onto vectors
    of the current batch, as in Jukebox (2005.00341).

    Args:
        dim: of the hidden vectors.
        codes: size of the codebook.
        code_dim: numbers per code; a small one keeps more of the codes in use (Yu et al. 2021, 2110.04627).
        decay: of the moving averages.
        commitment: weight of the loss that keeps vectors near their codes.
        dead_below: moving-average count under which a code is moved.
    """

    def __init__(
        self,
        dim: int,
        codes: int = 625,
        *,
        code_dim: int = 16,
        decay: float = 0.99,
        commitment: float = 0.25,
        dead_below: float = 0.05,
    ) -> None:
        super().__init__()
        self.codes, self.decay, self.commitment, self.dead_below = codes, decay, commitment, dead_below
        self.down, self.up = nn.Linear(dim, code_dim), nn.Linear(code_dim, dim)
        book = torch.randn(codes, code_dim)
        self.register_buffer("book", book)
        self.register_buffer("count", torch.ones(codes))
        self.register_buffer("total", book.clone())
        self.book: Tensor
        self.count: Tensor
        self.total: Tensor

    def bound(self, hidden: Tensor, keep: Tensor | None = None) -> Tensor:
        out: Tensor = self.down(hidden).float()
        return out

    def forward(self, hidden: Tensor, keep: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        z = self.bound(hidden)
        codes = torch.cdist(z.flatten(0, 1), self.book).argmin(-1).view(z.shape[:2])
        if keep is None:
            keep = torch.ones_like(codes, dtype=torch.bool)
        if self.training:
            self._update(z[keep].detach(), codes[keep])
        chosen = F.embedding(codes, self.book)
        loss = self.commitment * F.mse_loss(z[keep], chosen[keep].detach())
        out: Tensor = self.up(z + (chosen - z).detach())
        return out, codes, loss

    def embed(self, codes: Tensor) -> Tensor:
        out: Tensor = self.up(F.embedding(codes, self.book))
        return out

    @torch.no_grad()
    def _update(self, z: Tensor, codes: Tensor) -> None:
        """Move the averages towards z, (n, code_dim), whose nearest codes are `codes`, (n,)."""
        member = F.one_hot(codes, self.codes).to(z.dtype)
        count, total = member.sum(0), member.t() @ z
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(count)
            torch.distributed.all_reduce(total)
        self.count.lerp_(count, 1 - self.decay)
        self.total.lerp_(total, 1 - self.decay)
        dead = self.count < self.dead_below
        if dead.any() and len(z):
            moved = z[torch.randint(len(z), (int(dead.sum()),), device=z.device)]
            if torch.distributed.is_available() and torch.distributed.is_initialized():
                torch.distributed.broadcast(moved, 0)
            self.total[dead], self.count[dead] = moved, 1.0
        self.book.copy_(self.total / self.count[:, None])
