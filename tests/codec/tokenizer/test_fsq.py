"""The quantisers against closed forms, brute force, and the code numbers they must round-trip."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from codec.tokenizer.fsq import EMAVQ, FSQ

LEVELS = (3, 5, 7)


def plain_fsq(**settings: float) -> FSQ:
    """An FSQ whose projections are the identity: hidden vectors are the values before squashing."""
    fsq = FSQ(len(LEVELS), LEVELS, **settings)
    for linear in (fsq.down, fsq.up):
        torch.nn.init.eye_(linear.weight)
        torch.nn.init.zeros_(linear.bias)
    return fsq.eval()


def grid() -> Tensor:
    """All rounded values in the order of their codes, (codes, dims): the first dimension turns fastest."""
    spans = [range(-(level // 2), level // 2 + 1) for level in reversed(LEVELS)]
    return torch.tensor([values[::-1] for values in itertools.product(*spans)], dtype=torch.float32)


def unsquashed(values: Tensor) -> Tensor:
    """What the identity FSQ squashes to `values`."""
    return torch.atanh(values / (torch.tensor(LEVELS) / 2)) / 0.8 * math.sqrt(1 + 1e-5)


# -------------------------------------------------------------------------------------------------------- FSQ


def test_fsq_reaches_every_code_and_embeds_it_back() -> None:
    fsq = plain_fsq()
    assert fsq.codes == 105
    quantized, codes, _ = fsq(unsquashed(grid())[None])
    assert codes[0].tolist() == list(range(105))
    scaled = grid() / torch.tensor([1.0, 2.0, 3.0])  # every dimension ends at -1 and 1
    torch.testing.assert_close(quantized[0], scaled)
    torch.testing.assert_close(fsq.embed(codes)[0], scaled)


def test_fsq_embed_gives_what_forward_gave() -> None:
    fsq = FSQ(16).eval()
    quantized, codes, _ = fsq(3 * torch.randn(4, 50, 16))
    assert len(codes.unique()) > 50
    torch.testing.assert_close(fsq.embed(codes), quantized)


def test_fsq_bounds_are_the_closed_form_and_never_leave_the_levels() -> None:
    fsq = plain_fsq()
    fsq.mean.copy_(torch.tensor([1.0, -2.0, 0.5]))
    fsq.var.copy_(torch.tensor([4.0, 1.0, 0.25]))
    hidden = torch.randn(2, 9, 3)
    normal = (hidden - torch.tensor([1.0, -2.0, 0.5])) / torch.tensor([4.0, 1.0, 0.25]).add(1e-5).sqrt()
    torch.testing.assert_close(fsq.bound(hidden), torch.tensor([1.5, 2.5, 3.5]) * torch.tanh(0.8 * normal))
    _, codes, _ = fsq(torch.tensor([[[1e6, 1e6, 1e6], [-1e6, -1e6, -1e6]]]))
    assert codes.tolist() == [[104, 0]]


def test_fsq_uses_all_levels_of_normal_data_alike() -> None:
    fsq = plain_fsq()
    _, codes, _ = fsq(torch.randn(1, 50_000, 3))
    for place, level in ((1, 3), (3, 5), (15, 7)):
        share = torch.bincount(codes.flatten() // place % level, minlength=level) / codes.numel()
        torch.testing.assert_close(share, torch.full((level,), 1 / level), atol=0.25 / level, rtol=0)


def test_fsq_gradient_passes_straight_through_the_rounding() -> None:
    fsq = plain_fsq(diversity=0.0)
    hidden = torch.randn(1, 6, 3, requires_grad=True)
    weight = torch.randn(1, 6, 3)
    (fsq(hidden)[0] * weight).sum().backward()
    # up(z / reach), z = (reach + 1/2) tanh(0.8 h): the rounding is not there
    reach = torch.tensor([1.0, 2.0, 3.0])
    slope = 0.8 * (1 - torch.tanh(0.8 * hidden.detach()) ** 2)
    torch.testing.assert_close(hidden.grad, weight * slope * (reach + 0.5) / reach, atol=1e-4, rtol=1e-4)


def test_fsq_centres_on_the_kept_vectors_of_a_training_batch() -> None:
    fsq = plain_fsq(momentum=0.1).train()
    hidden = torch.randn(2, 30, 3) * 3 + 5
    keep = torch.rand(2, 30) < 0.7
    kept = hidden[keep]
    mean, var = kept.mean(0), kept.var(0, correction=0)
    garbage = torch.where(keep[..., None], hidden, torch.full_like(hidden, 1e3))

    bounded = fsq.bound(garbage, keep)

    expected = torch.tensor([1.5, 2.5, 3.5]) * torch.tanh(0.8 * (kept - mean) / (var + 1e-5).sqrt())
    torch.testing.assert_close(bounded[keep], expected)
    torch.testing.assert_close(fsq.mean, 0.1 * mean)
    torch.testing.assert_close(fsq.var, 0.9 + 0.1 * var)


def test_fsq_diversity_loss_is_the_entropy_missing_from_the_soft_assignment() -> None:
    fsq = plain_fsq(diversity=0.5)
    hidden = torch.randn(2, 8, 3)
    keep = torch.rand(2, 8) < 0.7
    z = fsq.bound(hidden)[keep]
    share = (-4 * (z[:, None] - grid()).square().sum(-1)).softmax(-1).mean(0)  # over all codes at once
    expected = 0.5 * (math.log(105) + (share * share.log()).sum())
    torch.testing.assert_close(fsq(hidden, keep)[2], expected)
    one_code = fsq(torch.zeros(1, 8, 3))[2]
    all_codes = fsq(unsquashed(grid())[None])[2]
    assert all_codes < 0.1 < 0.8 * 0.5 * math.log(105) < one_code


def test_fsq_noise_blurs_within_one_level_in_training_only() -> None:
    fsq = plain_fsq(noise=1.0)
    hidden = torch.randn(1, 500, 3)
    quiet, _, _ = fsq(hidden)
    assert torch.equal(quiet, fsq(hidden)[0])

    fsq.train()
    fsq.noise = 0.5
    blurred, _, _ = fsq(hidden)

    reach = torch.tensor([1.0, 2.0, 3.0])
    value, bounded = (blurred * reach).detach(), fsq.bound(hidden).detach()
    rounded = (value - value.round()).abs().amax(-1) < 1e-5
    assert 0.4 < float(rounded.float().mean()) < 0.6
    assert 0.4 < float((value - bounded)[~rounded].abs().max()) <= 0.5 + 1e-5


@pytest.mark.parametrize("levels", [(4, 5), (1,)])
def test_fsq_refuses_levels_it_cannot_round_to(levels: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="levels"):
        FSQ(8, levels)


# ----------------------------------------------------------------------------------------------------- EMA-VQ


def plain_vq(codes: int = 6, **settings: float) -> EMAVQ:
    """An EMA-VQ on 2 numbers whose projections are the identity."""
    vq = EMAVQ(2, codes, code_dim=2, **settings)
    for linear in (vq.down, vq.up):
        torch.nn.init.eye_(linear.weight)
        torch.nn.init.zeros_(linear.bias)
    return vq


def test_vq_takes_the_nearest_code() -> None:
    vq = EMAVQ(16, 40, code_dim=4).eval()
    hidden = torch.randn(3, 20, 16)
    z = vq.down(hidden)
    nearest = ((z[:, :, None] - vq.book) ** 2).sum(-1).argmin(-1)
    quantized, codes, _ = vq(hidden)
    assert torch.equal(codes, nearest)
    torch.testing.assert_close(quantized, vq.embed(codes))
    torch.testing.assert_close(quantized, vq.up(vq.book[nearest]))


def test_vq_codebook_moves_by_the_papers_averages() -> None:
    vq = plain_vq(decay=0.9).train()
    vq.count.copy_(torch.rand(6) + 0.5)
    vq.total.copy_(vq.book * vq.count[:, None])
    count, total = vq.count.clone(), vq.total.clone()
    hidden = torch.randn(2, 30, 2)
    _, codes, _ = vq(hidden)
    for k in range(6):
        members = hidden[codes == k]
        n = 0.9 * count[k] + 0.1 * len(members)
        m = 0.9 * total[k] + 0.1 * members.sum(0)
        torch.testing.assert_close(vq.count[k], n)
        torch.testing.assert_close(vq.book[k], m / n)


def test_vq_converges_to_the_clusters_of_the_data() -> None:
    vq = plain_vq(codes=4, decay=0.5)
    vq.book.copy_(torch.tensor([[1.0, 1], [1, -1], [-1, 1], [-1, -1]]))
    vq.total.copy_(vq.book)
    centres = 5 * vq.book.clone()
    for _ in range(30):
        vq(centres[torch.randint(4, (1, 200))] + 0.1 * torch.randn(1, 200, 2))
    torch.testing.assert_close(vq.book, centres, atol=0.1, rtol=0)


def test_vq_padding_trains_nothing() -> None:
    alone, padded = plain_vq().train(), plain_vq().train()
    padded.load_state_dict(alone.state_dict())
    hidden = torch.randn(1, 12, 2)
    longer = torch.cat([hidden, torch.full((1, 5, 2), 7.0)], 1)
    keep = torch.arange(17)[None] < 12

    quantized, codes, loss = alone(hidden)
    padded_quantized, padded_codes, padded_loss = padded(longer, keep)

    torch.testing.assert_close(padded_loss, loss)
    assert torch.equal(padded_codes[:, :12], codes)
    torch.testing.assert_close(padded_quantized[:, :12], quantized)
    for name, value in alone.state_dict().items():
        torch.testing.assert_close(padded.state_dict()[name], value, msg=name)


def test_vq_moves_dead_codes_onto_vectors_of_the_batch() -> None:
    vq = plain_vq(dead_below=0.05).train()
    vq.book[4:] = 1e3  # nearest to nothing
    vq.total.copy_(vq.book)
    vq.count[4:] = 0.01
    vq.total[4:] *= 0.01
    hidden = torch.randn(1, 12, 2)
    vq(hidden)
    for k in (4, 5):
        assert vq.count[k] == 1
        assert torch.cdist(vq.book[k][None], hidden[0]).min() < 1e-6


def test_vq_does_not_change_in_eval() -> None:
    vq = plain_vq().eval()
    before = {k: v.clone() for k, v in vq.state_dict().items()}
    vq(torch.randn(1, 12, 2))
    assert all(torch.equal(v, before[k]) for k, v in vq.state_dict().items())


def test_vq_gradient_is_straight_through_plus_commitment() -> None:
    vq = plain_vq(commitment=0.25).eval()
    hidden = torch.randn(1, 6, 2, requires_grad=True)
    weight = torch.randn(1, 6, 2)
    quantized, codes, loss = vq(hidden)
    ((quantized * weight).sum() + loss).backward()
    away = hidden.detach() - vq.book[codes]
    torch.testing.assert_close(loss.detach(), 0.25 * away.square().mean())
    torch.testing.assert_close(hidden.grad, weight + 0.25 * 2 * away / away.numel())
