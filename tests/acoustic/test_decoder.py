"""The flow decoder: chunks against one pass, rows against batches, and what the prompt must not see."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from codec.nn.masks import length_mask
from codec.spec import FrameSpec, TokenSpec
from tts.acoustic.decoder import FlowDecoder, FlowStates, of_like_length
from tts.acoustic.dit import DiT
from tts.acoustic.flow import flow_loss, solve
from tts.text.triphones import NOTHING

SPEC = TokenSpec(FrameSpec(dim=6), frames_per_token=4, codes=9)
SYMBOLS = 5


def lively(patch: int = 2, *, drop: float = 0.2, drop_phonemes: float = 0.0) -> FlowDecoder:
    """A small decoder whose layers that start at zero do not, so that everything matters to the output."""
    dit = DiT(SPEC, dim=32, layers=2, heads=2, hidden=48, patch=patch, symbols=SYMBOLS)
    decoder = FlowDecoder(dit, drop=drop, drop_phonemes=drop_phonemes, drop_tokens=0.0).eval()
    assert dit.phonemes_in is not None
    nn.init.normal_(dit.phonemes_in.weight, std=0.5)
    for layer in (dit.modulate, dit.final, dit.frames_out):
        nn.init.normal_(layer.weight, std=0.15)
        nn.init.normal_(layer.bias, std=0.15)
    for parameter in (dit.no_speaker, *(block.table for block in dit.blocks)):
        nn.init.normal_(parameter, std=0.5)  # type: ignore[arg-type]
    decoder.mean.copy_(torch.randn(6))
    decoder.std.copy_(torch.rand(6) + 0.5)
    return decoder


def case(prompt: int, target: int, seed: int = 0) -> tuple[tuple[Tensor, Tensor], Tensor, Tensor]:
    """Prompt frames and tokens, target tokens, and noise; lengths in tokens. Tokens tell their phonemes."""
    torch.manual_seed(100 + seed)
    frames, tokens = torch.randn(4 * prompt, 6), some_tokens(prompt)
    return (frames, tokens), some_tokens(target), torch.randn(4 * target, 6)


def some_tokens(*shape: int) -> Tensor:
    """Tokens (..., N, 4) with phonemes, a fifth of which are none."""
    codes, phonemes = torch.randint(9, (*shape, 1)), torch.randint(-1, SYMBOLS, (*shape, 3))
    return torch.cat([codes, phonemes], dim=-1)


def in_chunks(decoder: FlowDecoder, state: Any, tokens: Tensor, noise: Tensor, sizes: list[int]) -> Tensor:
    pieces = zip(tokens.split(sizes), noise.split([4 * n for n in sizes]), strict=True)
    return torch.cat([decoder.decode_chunk(state, t[None], x[None])[0] for t, x in pieces])


# -------------------------------------------------------------------------------------------------- streaming


@pytest.mark.parametrize("patch", [1, 2, 4])
@pytest.mark.parametrize("guidance", [0.0, 0.7])
@pytest.mark.parametrize(("chunk", "sizes"), [(3, [3, 3, 3, 2]), (5, [5, 5, 1]), (1, [1] * 11), (None, [11])])
def test_chunks_equal_one_pass(patch: int, guidance: float, chunk: int | None, sizes: list[int]) -> None:
    decoder = lively(patch)
    prompt, tokens, noise = case(7, 11)
    settings = {"steps": 3, "guidance": guidance}
    (whole,) = decoder.decode([prompt], [tokens], [noise], chunk=chunk, **settings)  # type: ignore[arg-type]
    state = decoder.start(prompt[0][None], prompt[1][None], **settings)  # type: ignore[arg-type]
    pieces = in_chunks(decoder, state, tokens, noise, sizes)
    torch.testing.assert_close(pieces, whole, atol=1e-4, rtol=1e-4)
    assert (whole - decoder.unscale(noise)).abs().mean() > 0.1  # the network did something


def test_a_chunk_does_not_know_later_ones() -> None:
    decoder = lively()
    prompt, tokens, noise = case(5, 9)
    changed = tokens.clone()
    changed[6:] = (changed[6:] + 1) % 9
    before, after = (decoder.decode([prompt], [t], [noise], steps=3, chunk=3)[0] for t in (tokens, changed))
    torch.testing.assert_close(after[:24], before[:24])
    assert (after[24:] - before[24:]).abs().max() > 1e-2
    before, after = (decoder.decode([prompt], [t], [noise], steps=3)[0] for t in (tokens, changed))
    assert (after[:24] - before[:24]).abs().max() > 1e-3  # one chunk hears everything


def test_copies_of_a_state_are_independent() -> None:
    decoder = lively()
    prompt, tokens, noise = case(5, 9)
    state = decoder.start(prompt[0][None], prompt[1][None], steps=3)
    first = in_chunks(decoder, state.copy(), tokens, noise, [3, 3, 3])
    in_chunks(decoder, state.copy(), tokens.flip(0), noise, [9])
    again = in_chunks(decoder, state.copy(), tokens, noise, [3, 3, 3])
    assert torch.equal(first, again)
    assert all(cache.length == 10 for layers in state.caches for cache in layers)  # 5 tokens of 2 patches

    half = state.copy()
    in_chunks(decoder, half, tokens[:6], noise[:24], [3, 3])
    resumed = in_chunks(decoder, half.copy(), tokens[6:], noise[24:], [3])
    torch.testing.assert_close(resumed, first[24:])


# ------------------------------------------------------------------------------------------------- batches


@pytest.mark.parametrize("guidance", [0.0, 0.7])
@pytest.mark.parametrize("chunk", [None, 3])
def test_a_row_alone_equals_the_row_in_a_batch(guidance: float, chunk: int | None) -> None:
    decoder = lively()
    cases = [case(7, 11, 1), case(3, 4, 2), case(12, 1, 3), case(1, 16, 4)]
    prompts, tokens, noise = ([c[i] for c in cases] for i in range(3))
    settings = {"steps": 3, "guidance": guidance, "chunk": chunk}
    together = decoder.decode(prompts, tokens, noise, **settings)  # type: ignore[arg-type]
    for row, (prompt, row_tokens, row_noise) in zip(together, cases, strict=True):
        (alone,) = decoder.decode([prompt], [row_tokens], [row_noise], **settings)  # type: ignore[arg-type]
        assert row.shape == row_noise.shape
        torch.testing.assert_close(row, alone, atol=1e-4, rtol=1e-4)


def test_rows_that_share_a_prompt_take_it_in_once() -> None:
    decoder = lively()
    (prompt, a, noise_a), (_, b, noise_b) = case(7, 5, 1), case(7, 9, 2)
    calls: list[int] = []
    decoder.dit.register_forward_pre_hook(lambda _, args: calls.append(args[0].shape[1]))
    together = decoder.decode([prompt, prompt], [a, b], [noise_a, noise_b], steps=3)
    assert calls == [28] * 3 + [36] * 3 + [20] * 3  # rows of such different length are not filled up
    state = decoder.start(prompt[0][None], prompt[1][None], steps=3)
    from_state = decoder.decode([state, state], [a, b], [noise_a, noise_b])
    for one, other in zip(together, from_state, strict=True):
        assert torch.equal(one, other)
    assert state.length == 14  # as it was
    fewer = decoder.start(prompt[0][None], prompt[1][None], steps=2)
    with pytest.raises(ValueError, match="different steps or guidance"):
        decoder.decode([state, fewer], [a, b], [noise_a, noise_b])


def test_prompts_that_differ_are_taken_in_together() -> None:
    decoder = lively()
    cases = [case(7, 5, 1), case(3, 9, 2), case(12, 2, 3)]
    prompts = [prompt for prompt, _, _ in cases]
    calls: list[tuple[int, ...]] = []
    decoder.dit.register_forward_pre_hook(lambda _, args: calls.append(tuple(args[0].shape[:2])))
    together = decoder.start_all(prompts, steps=3, guidance=1.0)
    assert calls == [(6, 48)] * 3
    for state, (prompt, tokens, noise) in zip(together, cases, strict=True):
        alone = decoder.start(prompt[0][None], prompt[1][None], steps=3, guidance=1.0)
        assert state.length == alone.length == 2 * len(prompt[1])
        first, other = (decoder.decode_chunk(one, tokens[None], noise[None]) for one in (state, alone))
        torch.testing.assert_close(first, other, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("guidance", [0.0, 1.0])
def test_chunks_of_any_length_are_made_in_one_batch(guidance: float) -> None:
    decoder = lively()
    cases = [case(7, 6, 1), case(3, 2, 2), case(12, 5, 3)]
    starts = [decoder.start(p[0][None], p[1][None], steps=3, guidance=guidance) for p, _, _ in cases]
    states = [one.copy() for one in starts]
    alone = [one.copy() for one in starts]
    for _ in range(2):  # the second time they go on behind what the first one added
        made = decoder.decode_chunks(
            states, [tokens for _, tokens, _ in cases], [noise for *_, noise in cases]
        )
        for one, state, (_, tokens, noise) in zip(made, alone, cases, strict=True):
            wanted = decoder.decode_chunk(state, tokens[None], noise[None])[0]
            torch.testing.assert_close(one, wanted, atol=1e-4, rtol=1e-4)
    assert [state.length for state in states] == [state.length for state in alone]


def test_a_copy_is_lent_to_one_stream_after_the_other() -> None:
    decoder, states = lively(), FlowStates(most=2)
    (prompt, tokens, noise), (other, *_) = case(5, 6, 1), case(4, 3, 2)
    start, second = (decoder.start(p[0][None], p[1][None], steps=2) for p in (prompt, other))
    wanted = decoder.decode_chunk(start.copy(), tokens[None], noise[None])
    mine, theirs = states.lend(start), states.lend(start)
    assert mine is not theirs and mine is not start
    decoder.decode_chunk(mine, tokens[None], noise[None])
    states.give_back(start, mine)
    assert states.lend(second) is not mine  # another voice
    again = states.lend(start)
    assert again is mine and again.length == start.length
    torch.testing.assert_close(decoder.decode_chunk(again, tokens[None], noise[None]), wanted)
    for state in (mine, theirs, start.copy()):
        states.give_back(start, state)
    assert states.lend(start) is theirs  # the first to come back went


def test_what_steps_share_is_computed_once() -> None:
    """Times and speaker with the prompt, tokens and places with each chunk, neither at a step of the solver."""
    decoder = lively()
    prompt, tokens, noise = case(5, 6)
    counts = {"time": 0, "modulate": 0, "token_mix": 0}

    def counting(name: str) -> Any:
        def hook(*_: Any) -> None:
            counts[name] += 1

        return hook

    for name in counts:
        getattr(decoder.dit, name).register_forward_hook(counting(name))
    state = decoder.start(prompt[0][None], prompt[1][None], steps=4)
    assert counts == {"time": 4, "modulate": 4, "token_mix": 1}
    in_chunks(decoder, state, tokens, noise, [3, 3])
    assert counts == {"time": 4, "modulate": 4, "token_mix": 3}
    decoder.decode([state], [tokens], [noise])
    decoder.decode_chunks([state.copy(), state], [tokens, tokens], [noise, noise])
    assert counts == {"time": 4, "modulate": 4, "token_mix": 5}


def test_lower_precision_is_close_in_chunks_as_in_one_pass() -> None:
    decoder = lively()
    prompt, tokens, noise = case(7, 9)
    (exact,) = decoder.decode([prompt], [tokens], [noise], steps=4, chunk=3)
    decoder.dit.lower(torch.bfloat16)
    (low,) = decoder.decode([prompt], [tokens], [noise], steps=4, chunk=3)
    state = decoder.start(prompt[0][None], prompt[1][None], steps=4)
    pieces = in_chunks(decoder, state, tokens, noise, [3, 3, 3])
    assert low.dtype == pieces.dtype == torch.float32
    spread = exact.std()
    assert 0 < (low - exact).abs().mean() < 0.02 * spread
    assert (pieces - low).abs().mean() < 0.02 * spread


def test_rows_of_like_length_run_together() -> None:
    assert of_like_length([10]) == [[0]]
    assert of_like_length([9, 10, 10, 4, 5, 5]) == [[1, 2, 0], [4, 5, 3]]
    assert of_like_length([9, 10, 10, 4, 5, 5], waste=0) == [[1, 2], [0], [4, 5], [3]]
    assert of_like_length([3, 50, 20], waste=9) == [[1, 2, 0]]
    decoder = lively()
    cases = [case(7, n, n) for n in (20, 6, 19, 5)]
    prompts, tokens, noise = ([c[i] for c in cases] for i in range(3))
    states = decoder.start_all(prompts, steps=1, guidance=0.0)
    calls: list[tuple[int, ...]] = []
    decoder.dit.register_forward_pre_hook(lambda _, args: calls.append(tuple(args[0].shape[:2])))
    frames = decoder.decode(states, tokens, noise)
    assert calls == [(2, 80), (2, 24)]
    assert [len(one) for one in frames] == [80, 24, 76, 20]


@torch.no_grad()
def test_prompt_positions_never_change_with_the_target() -> None:
    decoder = lively()
    prompt_lens, lens = torch.tensor([3, 5]), torch.tensor([8, 6])
    prompt = length_mask(prompt_lens, 8)
    frames, tokens = torch.randn(2, 32, 6), torch.randint(9, (2, 8))
    there = prompt.repeat_interleave(4, 1)[..., None]
    speaker = decoder.dit.no_speaker.expand(2, -1)

    def velocity(frames: Tensor, tokens: Tensor) -> Tensor:
        out: Tensor = decoder.dit(
            frames,
            torch.full((2,), 0.4),
            tokens,
            speaker,
            prompt=prompt,
            mask=decoder.mask(prompt_lens, lens, 8, 2),
        )
        return out

    before = velocity(frames, tokens)
    after = velocity(
        torch.where(there, frames, torch.randn_like(frames)), torch.where(prompt, tokens, (tokens + 1) % 9)
    )
    moved = (after - before).abs().amax(-1) > 1e-6
    assert torch.equal(moved, ~there[..., 0])  # every other position did change


def test_mask_by_hand() -> None:
    decoder = lively(patch=4)  # one position per token
    mask = decoder.mask(torch.tensor([2, 1]), torch.tensor([6, 4]), 6, 2)[:, 0].long()
    prompt, first, second = [1, 1, 0, 0, 0, 0], [1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1]
    assert mask[0].tolist() == [prompt, prompt, first, first, second, second]
    seen = [[1, 0, 0, 0], [1, 1, 1, 0], [1, 1, 1, 0], [1, 1, 1, 1]]
    assert mask[1, :4].tolist() == [[*row, 0, 0] for row in seen]  # none sees the padding
    whole = decoder.mask(torch.tensor([2]), torch.tensor([5]), 6, None)[0, 0, :5].long().tolist()
    assert whole == [prompt, prompt, *[[1, 1, 1, 1, 1, 0]] * 3]
    assert torch.equal(
        lively(2).mask(torch.tensor([2]), torch.tensor([5]), 6, 2)[0, 0, ::2, ::2].long()[0], mask[0, 0]
    )


# ------------------------------------------------------------------------------------------------- guidance


def test_guidance_is_the_formula_and_zero_is_the_condition_alone() -> None:
    decoder = lively()
    dit = decoder.dit
    (frames, prompt_tokens), tokens, noise = case(3, 4)
    clean = decoder.scale(frames)[None]
    prompt = length_mask(torch.tensor([3]), 7)
    mask = decoder.mask(torch.tensor([3]), torch.tensor([7]), 7, None)
    speaker = dit.speaker(clean, torch.tensor([12]))

    def velocity(x: Tensor, t: float, ids: Tensor, voice: Tensor, given: Tensor) -> Tensor:
        out: Tensor = dit(
            torch.cat([given, x], 1), torch.tensor([t]), ids[None], voice, prompt=prompt, mask=mask
        )
        return out[:, 12:]

    for w in (0.0, 1.5):

        @torch.no_grad()
        def guided(x: Tensor, t: float, _: int, w: float = w) -> Tensor:
            yes = velocity(x, t, torch.cat([prompt_tokens, tokens]), speaker, clean)
            no = velocity(x, t, torch.full((7,), SPEC.codes), dit.no_speaker[None], torch.zeros_like(clean))
            return yes + w * (yes - no)

        expected = decoder.unscale(solve(guided, noise[None], 3))[0]
        (mine,) = decoder.decode([(frames, prompt_tokens)], [tokens], [noise], steps=3, guidance=w)
        torch.testing.assert_close(mine, expected, atol=1e-4, rtol=1e-4)


def test_without_guidance_the_network_runs_one_row() -> None:
    decoder = lively()
    (frames, prompt_tokens), tokens, noise = case(3, 4)
    rows: list[int] = []
    decoder.dit.register_forward_pre_hook(lambda _, args: rows.append(len(args[0])))
    for guidance, count in ((0.0, 1), (0.7, 2)):
        rows.clear()
        state = decoder.start(frames[None], prompt_tokens[None], steps=2, guidance=guidance)
        decoder.decode_chunk(state, tokens[None], noise[None])
        decoder.decode([(frames, prompt_tokens)], [tokens], [noise], steps=2, guidance=guidance)
        assert rows == [count] * 8
        decoder.decode([state], [tokens], [noise])  # the prompt is not taken in again
        assert rows == [count] * 10


@pytest.mark.parametrize(
    ("name", "default", "own", "another"),
    [("guidance", 2.0, 0.0, 1.5), ("guidance", 2.0, 0.7, 1.5), ("steps", 6, 1, 2), ("steps", 6, 3, 2)],
)
def test_what_is_not_asked_for_is_the_models_own(
    name: str, default: float, own: float, another: float
) -> None:
    decoder = lively()
    assert getattr(decoder, name) == default  # of models from before they had one
    setattr(decoder, name, own)
    (frames, prompt_tokens), tokens, noise = case(3, 4)
    work = [(frames, prompt_tokens)], [tokens], [noise]
    few: dict[str, Any] = {"steps": 2} if name == "guidance" else {}
    plain, asked, other = (decoder.decode(*work, **few | {name: value}) for value in (None, own, another))
    assert torch.equal(plain[0], asked[0])
    assert not torch.allclose(plain[0], other[0])
    state = decoder.start(frames[None], prompt_tokens[None], **few)
    assert {"guidance": state.guidance, "steps": len(state.caches)}[name] == own


# ------------------------------------------------------------------------------------------------------ loss


@pytest.mark.parametrize(("drop", "unread"), [(0.0, 0.0), (0.0, 1.0), (1.0, 0.0)])
@torch.no_grad()
def test_loss_is_the_flow_loss_of_the_target_given_a_clean_prompt(drop: float, unread: float) -> None:
    decoder = lively(drop=drop, drop_phonemes=unread)
    dit = decoder.dit
    frames, tokens = torch.randn(2, 32, 6), some_tokens(2, 8)
    prompt_lens, lens = torch.tensor([3, 2]), torch.tensor([8, 6])
    prompt = length_mask(prompt_lens, 8)
    there = prompt.repeat_interleave(4, 1)
    clean = decoder.scale(frames)
    if drop:
        given, ids, speaker = (
            torch.zeros_like(clean),
            torch.full((2, 8), 9),
            dit.no_speaker.expand(2, -1),
        )
    else:
        voices = [dit.speaker(clean[i : i + 1, : 4 * n], torch.tensor([4 * n])) for i, n in enumerate([3, 2])]
        given, ids, speaker = clean, tokens[..., 0] if unread else tokens, torch.cat(voices)

    def velocity(x_t: Tensor, t: Tensor) -> Tensor:
        shown = torch.where(there[..., None], given, x_t)
        out: Tensor = dit(shown, t, ids, speaker, prompt=prompt, mask=decoder.mask(prompt_lens, lens, 8, 2))
        return out

    keep = length_mask(lens, 8).repeat_interleave(4, 1) & ~there
    torch.manual_seed(3)
    loss = decoder.loss(frames, tokens, prompt_lens, lens, chunk=2)
    torch.manual_seed(3)
    torch.rand(3, 2), torch.rand(2, 1), torch.rand(2, 8)  # which rows are dropped, and what else may be
    torch.testing.assert_close(loss, flow_loss(velocity, clean, keep))


def test_phonemes_are_heard_and_none_is_what_bare_tokens_tell() -> None:
    decoder = lively()
    prompt, tokens, noise = case(5, 6)

    def made(prompt_tokens: Tensor, tokens: Tensor) -> Tensor:
        return decoder.decode([(prompt[0], prompt_tokens)], [tokens], [noise], steps=2)[0]

    whole = made(prompt[1], tokens)
    for place in (1, 2, 3):
        other = tokens.clone()
        other[2, place] = (other[2, place] + 2) % SYMBOLS
        assert (made(prompt[1], other) - whole).abs().max() > 1e-3
    none = tokens.clone()
    none[:, 1:] = NOTHING
    torch.testing.assert_close(made(prompt[1], none), made(prompt[1], tokens[:, 0]))
    # without a table it knows tokens only, whatever it is told
    plain = FlowDecoder(DiT(SPEC, dim=32, layers=2, heads=2, hidden=48))
    both = [plain.decode([prompt], [t], [noise], steps=2)[0] for t in (tokens, tokens[:, 0])]
    torch.testing.assert_close(*both)


@torch.no_grad()
def test_loss_does_not_know_the_padding() -> None:
    decoder = lively(drop=0.0)
    frames, tokens = torch.randn(2, 32, 6), torch.randint(9, (2, 8))
    lens = torch.tensor([8, 5])
    other_frames, other_tokens = frames.clone(), tokens.clone()
    other_frames[1, 20:], other_tokens[1, 5:] = 50.0, 0
    losses = []
    for f, t in ((frames, tokens), (other_frames, other_tokens)):
        torch.manual_seed(3)
        losses.append(decoder.loss(f, t, torch.tensor([3, 2]), lens))
    torch.testing.assert_close(*losses)


def test_scale_gives_mean_0_and_variance_1() -> None:
    decoder = lively()
    frames = torch.randn(5_000, 6) * torch.arange(1, 7) - 4
    decoder.mean.copy_(frames.mean(0))
    decoder.std.copy_(frames.std(0))
    scaled = decoder.scale(frames)
    torch.testing.assert_close(scaled.mean(0), torch.zeros(6), atol=1e-5, rtol=0)
    torch.testing.assert_close(scaled.var(0), torch.ones(6))
    torch.testing.assert_close(decoder.unscale(scaled), frames, atol=1e-5, rtol=1e-5)
