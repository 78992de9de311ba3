"""What a tokenizer hears in what the solver makes: the same frames as at inference, and a gradient that helps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from codec.errors import SpecError, UserError
from codec.spec import FrameSpec, TokenSpec
from codec.tokenizer.fsq import EMAVQ, FSQ, Quantizer
from codec.tokenizer.model import Tokenizer
from tts.acoustic.decoder import FlowDecoder
from tts.acoustic.dit import DiT
from tts.checkpoint import build, write_part
from tts.data.batches import AcousticBatch
from tts.text.symbols import DEFAULT_SYMBOLS
from tts.training.acoustic import AcousticModule
from tts.training.reading import Listener, Speech, exchanged

SPEC = TokenSpec(FrameSpec(dim=20), codes=9)


def config(kind: str = "FSQ", dim: int = 20) -> dict[str, Any]:
    quantizer = {"dim": 16, "levels": [3, 3]} if kind == "FSQ" else {"dim": 16, "codes": 9}
    return {
        "class_path": "codec.tokenizer.model.Tokenizer",
        "init_args": {
            "quantizer": {"class_path": f"codec.tokenizer.fsq.{kind}", "init_args": quantizer},
            "symbols": 12,
            "dim": 16,
            "heads": 2,
            "layers": 1,
            "reader_layers": 1,
            "bands": 5,
            "frames": {"dim": dim},
        },
    }


def write(folder: Path, kind: str = "FSQ", dim: int = 20) -> Path:
    torch.manual_seed(0)
    part = folder / "tokenizer.safetensors"
    model = build(config(kind, dim))
    assert isinstance(model, Tokenizer)
    with torch.no_grad():  # never trained, but what it reads depends on what there is to read
        model.before.weight *= 10
        model.after.weight *= 10
    write_part(part, model, config(kind, dim), DEFAULT_SYMBOLS)
    return part


def decoder() -> FlowDecoder:
    torch.manual_seed(1)
    model = FlowDecoder(DiT(SPEC, dim=32, layers=2, heads=2, hidden=48))
    for one in (model.dit.frames_out, model.dit.modulate, model.dit.final):
        torch.nn.init.normal_(one.weight, std=0.1)
    model.mean.fill_(-5.0)
    model.std.fill_(2.0)
    return model


def batch() -> AcousticBatch:
    torch.manual_seed(2)
    lens, prompt_lens = torch.tensor([20, 14]), torch.tensor([6, 3])
    frames = torch.randn(2, 80, 20) * 2 - 5
    labels = torch.tensor([[3, 4, 5, 6], [7, 8, 0, 0]])
    return AcousticBatch(
        frames,
        torch.randint(9, (2, 20)),
        prompt_lens,
        lens,
        torch.zeros(2).long(),
        labels,
        torch.tensor([4, 2]),
    )


@pytest.mark.parametrize("chunk", [None, 5])
def test_what_is_read_is_what_is_decoded(chunk: int | None) -> None:
    model, given = decoder(), batch()
    torch.manual_seed(3)
    noise = torch.randn(2, 80, 20)
    torch.manual_seed(3)
    made = model.made(given.frames, given.tokens, given.prompt_lens, given.lens, chunk=chunk)
    spans = list(zip(given.prompt_lens.tolist(), given.lens.tolist(), strict=True))
    decoded = model.decode(
        [(given.frames[i, : 4 * p], given.tokens[i, :p]) for i, (p, _) in enumerate(spans)],
        [given.tokens[i, p:n] for i, (p, n) in enumerate(spans)],
        [noise[i, 4 * p : 4 * n] for i, (p, n) in enumerate(spans)],
        guidance=0,
        chunk=chunk,
    )
    for i, (p, n) in enumerate(spans):
        torch.testing.assert_close(made[i, 4 * p : 4 * n], decoded[i], atol=1e-4, rtol=1e-4)
        assert torch.equal(made[i, : 4 * p], given.frames[i, : 4 * p])


def test_gradients_run_through_the_last_steps_only() -> None:
    model, given = decoder(), batch()
    what = (given.frames, given.tokens, given.prompt_lens, given.lens)
    calls: list[bool] = []
    forward = model.dit.forward

    def noted(*args: Any, **settings: Any) -> Tensor:
        calls.append(torch.is_grad_enabled())
        return forward(*args, **settings)

    model.dit.forward = noted  # type: ignore[method-assign]
    model.made(*what, steps=5, first=1, learning=2).sum().backward()
    assert calls == [False, False, True, True]
    assert all(p.grad is not None for p in model.dit.blocks.parameters())
    calls.clear()
    with torch.no_grad():
        model.made(*what)
        model.steps = 3
        model.made(*what)
    assert calls == [False] * (6 + 3)


def test_begun_late_it_is_near_the_recording() -> None:
    model, given = decoder(), batch()
    what = (given.frames, given.tokens, given.prompt_lens, given.lens)
    far, near = (
        (model.made(*what, steps=50, first=n) - given.frames)[0, 24:].square().mean() for n in (0, 48)
    )
    assert near < 0.2 * far


@pytest.mark.parametrize("kind", ["FSQ", "EMAVQ"])
def test_the_gradient_makes_it_read_better(tmp_path: Path, kind: str) -> None:
    listener, given = Listener(write(tmp_path, kind), SPEC), batch()
    listener.augment = None  # what is disturbed differs from step to step by more than the steps bring
    true = listener.targets(given.frames, given)
    frames = (torch.randn_like(true.frames) - 5).requires_grad_()
    optimizer = torch.optim.Adam([frames], 0.1)
    losses = []
    for _ in range(100):
        loss = listener.judge(Speech(frames, true.lens), true, given)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-10:]) < 0.7 * sum(losses[:10])
    assert all(p.grad is None for p in listener.tokenizer.parameters())
    assert not any(one.training for one in listener.tokenizer.modules())


def test_targets_stand_without_their_prompts(tmp_path: Path) -> None:
    listener, given = Listener(write(tmp_path), SPEC), batch()
    targets = listener.targets(given.frames, given)
    assert targets.lens.tolist() == [56, 44]
    assert torch.equal(targets.frames[0], given.frames[0, 24:80])
    assert torch.equal(targets.frames[1, :44], given.frames[1, 12:56])
    assert (targets.frames[1, 44:] == SPEC.frames.floor).all()


@pytest.mark.parametrize("period", [2, 4])
def test_stripes_are_not_read(tmp_path: Path, period: int) -> None:
    listener = Listener(write(tmp_path), SPEC)
    at = torch.arange(80)
    slow, stripes = torch.sin(at / 12), torch.cos(2 * torch.pi * at / period)
    plain = Speech(slow[None, :, None].expand(1, 80, 20), torch.tensor([80]))
    striped = Speech(plain.frames + stripes[None, :, None], plain.lens)
    seen, same = listener.blurred(striped, 0), listener.blurred(plain, 0)
    inside = slice(4, 76)
    torch.testing.assert_close(seen.frames[:, inside], same.frames[:, inside], atol=1e-5, rtol=0)
    assert (same.frames - plain.frames)[:, inside].abs().max() < 0.03  # what is slow, is
    later = listener.blurred(plain, 3)
    assert torch.equal(later.frames, same.frames[:, 3:]) and later.lens.tolist() == [77]


def test_all_that_is_read_is_blurred(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listener, given = Listener(write(tmp_path), SPEC), batch()
    true = listener.targets(given.frames, given)
    read: list[Tensor] = []
    hidden = listener.tokenizer.hidden

    def noted(frames: Tensor, lens: Tensor) -> tuple[Tensor, Tensor]:
        read.append(frames)
        return hidden(frames, lens)

    monkeypatch.setattr(listener.tokenizer, "hidden", noted)
    monkeypatch.setattr(listener, "augment", lambda frames, floor: frames)
    listener.judge(true, true, given)
    assert len(read) == 3 and torch.equal(read[0], read[1]) and torch.equal(read[0], read[2])
    assert read[0][0].std() < 0.6 * true.frames[0].std()


def test_a_recording_is_where_the_loss_is_lowest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tts.training.reading.PHONEMES", 0.0)  # nothing that was never trained can read them
    listener, given = Listener(write(tmp_path), SPEC), batch()
    true = listener.targets(given.frames, given)

    def judged(frames: Tensor) -> float:
        torch.manual_seed(0)
        return float(listener.judge(Speech(frames, true.lens), true, given))

    blurred = torch.nn.functional.avg_pool1d(true.frames.transpose(1, 2), 5, 1, 2).transpose(1, 2)
    assert judged(true.frames) < judged(blurred) - 0.1


class Mean(torch.nn.Module):
    """Knows a voice by the mean of its bands."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.eye(20))

    def forward(self, frames: Tensor) -> Tensor:
        return torch.nn.functional.normalize((frames.mean(1) + 5) @ self.weight, dim=-1)


def test_targets_behind_the_prompts_of_others() -> None:
    given = batch()
    given = given._replace(
        tokens=torch.arange(40).view(2, 20),
        frames=torch.arange(160.0).view(2, 80, 1).expand(-1, -1, 20),
        speakers=torch.tensor([7, 8]),
    )
    other = exchanged(given, 4)  # row 0's target, behind row 1's prompt
    assert other.prompt_lens.tolist() == [3] and other.lens.tolist() == [3 + 14]
    assert other.tokens.tolist() == [[20, 21, 22, *range(6, 20)]]
    assert other.frames[0, :, 0].tolist() == [*range(80, 92), *range(24, 80)]
    assert other.speakers.tolist() == [8]
    assert other.labels.tolist() == [[3, 4, 5, 6]] and other.label_lens.tolist() == [4]
    told = given._replace(tokens=given.tokens[..., None].expand(-1, -1, 4))
    assert torch.equal(exchanged(told, 4).tokens[..., 2], other.tokens)


def test_a_voice_is_looked_for(tmp_path: Path) -> None:
    listener = Listener(write(tmp_path), SPEC, voice=Mean())
    torch.manual_seed(0)
    timbre = torch.randn(2, 1, 20)
    prompts = Speech(timbre - 5 + 0.1 * torch.randn(2, 90, 20), torch.tensor([90, 80]))
    frames = (torch.randn(2, 100, 20) - 5).requires_grad_()
    made = Speech(frames, torch.tensor([100, 78]))
    loss = listener.unlike(made, prompts)
    (gradient,) = torch.autograd.grad(loss, frames)
    assert gradient.abs().amax((1, 2)).gt(0).all()
    alike = Speech(timbre - 5 + torch.zeros(2, 100, 20), made.lens)
    assert listener.unlike(alike, prompts) < 0.1 < 0.5 < loss
    # what is too short says nothing about a voice
    short = Speech(frames, torch.tensor([100, 40]))
    (gradient,) = torch.autograd.grad(listener.unlike(short, prompts), frames)
    assert gradient[1].abs().sum() == 0 < gradient[0].abs().sum()
    assert listener.unlike(short, Speech(prompts.frames, torch.tensor([20, 90]))) == 0


def test_training_with_a_voice(tmp_path: Path) -> None:
    long = batch()
    long = long._replace(
        frames=long.frames.repeat(1, 8, 1),
        tokens=long.tokens.repeat(1, 8),
        prompt_lens=8 * long.prompt_lens,
        lens=8 * long.lens,
    )
    part = str(write(tmp_path))
    losses: list[Tensor] = []
    mean = Mean()
    for likeness in (0.0, 3.0):
        stage = AcousticModule(decoder(), reading=1.0, reader=part, voice=mean, likeness=likeness)
        stage.setup("fit")
        assert stage.listener is not None
        assert not any("voice" in name for name in stage.state_dict())
        torch.manual_seed(0)
        losses.append(stage.listener.loss(stage.acoustic, long))
    losses[1].backward()
    assert losses[1] > losses[0] + 0.1
    assert mean.weight.grad is None


class Halves(torch.nn.Module):
    """Hears the frames at half their rate, in two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList(torch.nn.Linear(20, 6) for _ in range(2))

    def forward(self, frames: Tensor) -> list[Tensor]:
        return [layer(frames[:, ::2]) for layer in self.layers]


def test_what_an_ear_hears_is_held_against_the_recording(tmp_path: Path) -> None:
    torch.manual_seed(0)
    listener = Listener(write(tmp_path), SPEC, ear=Halves())
    true = Speech(torch.randn(2, 100, 20), torch.tensor([100, 60]))
    frames = torch.randn(2, 100, 20).requires_grad_()
    far = listener.unheard(Speech(frames, true.lens), true)
    near = listener.unheard(Speech(true.frames + 0.1 * frames, true.lens), true)
    assert listener.unheard(true, true) == 0 < near < 0.05 < 1 < far < 3
    (gradient,) = torch.autograd.grad(far, frames)
    assert gradient[0].abs().sum() > 0 and gradient[1, :60].abs().sum() > 0
    assert gradient[1, 61:].abs().sum() == 0  # what is behind the end is not heard
    # one tensor for several
    listener.ear = Halves().layers[0]
    assert 1 < listener.unheard(Speech(frames, true.lens), true) < 3


def test_training_with_an_ear(tmp_path: Path) -> None:
    part, ear = str(write(tmp_path)), Halves()
    losses: list[Tensor] = []
    for hearing in (0.0, 2.0):
        stage = AcousticModule(decoder(), reading=1.0, reader=part, ear=ear, hearing=hearing)
        stage.setup("fit")
        assert stage.listener is not None
        assert not any("ear" in name or "_hear" in name for name in stage.state_dict())
        torch.manual_seed(0)
        losses.append(stage.listener.loss(stage.acoustic, batch()))
    losses[1].backward()
    assert losses[1] > losses[0] + 0.1
    assert ear.layers[0].weight.grad is None


def test_training_with_a_reader(tmp_path: Path, fit: Any) -> None:
    part = write(tmp_path)
    stage = AcousticModule(
        decoder(), lr=5e-3, warmup=5, total=100, reading=5.0, reading_from=5, reader=str(part)
    )
    stage.setup("fit")
    assert stage.listener is not None
    before = [p.clone() for p in stage.listener.tokenizer.parameters()]
    assert not any("tokenizer" in name or "listener" in name for name in stage.state_dict())
    torch.manual_seed(0)
    first = stage.listener.loss(stage.acoustic, batch()).item()
    metrics = fit(stage, batch(), 100, gradient_clip_val=1.0)
    torch.manual_seed(0)
    assert stage.listener.loss(stage.acoustic, batch()).item() < 0.9 * first
    assert {"val/loss", "val/flow", "val/per"} <= set(metrics)
    assert metrics["val/loss"] > metrics["val/flow"]
    for old, new in zip(before, stage.listener.tokenizer.parameters(), strict=True):
        assert torch.equal(old, new)


def test_readers_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="needs a finished tokenizer"):
        AcousticModule(decoder(), reading=0.5)
    with pytest.raises(SpecError, match="reader"):
        Listener(write(tmp_path, dim=30), SPEC)
    other = tmp_path / "acoustic.safetensors"
    settings = {
        "class_path": "tts.acoustic.decoder.FlowDecoder",
        "init_args": {
            "dit": {
                "class_path": "tts.acoustic.dit.DiT",
                "init_args": {"dim": 32, "layers": 1, "heads": 2, "hidden": 48},
            }
        },
    }
    write_part(other, build(settings), settings, DEFAULT_SYMBOLS)
    with pytest.raises(UserError, match="holds a FlowDecoder, not a tokenizer"):
        Listener(other, SPEC)
    # named, but not asked for: no file is read
    unused = AcousticModule(decoder(), reader=str(tmp_path / "none.safetensors"))
    unused.setup("fit")
    assert unused.listener is None
    missing = AcousticModule(decoder(), reading=0.5, reader=str(tmp_path / "none.safetensors"))
    with pytest.raises(UserError, match="none"):
        missing.setup("fit")


@pytest.mark.parametrize("quantizer", [FSQ(16, (3, 3)), EMAVQ(16, 9)])
def test_codes_are_made_of_what_is_bound(quantizer: Quantizer) -> None:
    torch.manual_seed(0)
    # far apart: of a random codebook one code may be the nearest to all that is small
    hidden = 5 * torch.randn(4, 50, 16)
    quantizer.eval()
    bound, codes = quantizer.bound(hidden), quantizer(hidden)[1]
    assert bound.shape[:2] == codes.shape
    same = (codes.flatten()[:, None] == codes.flatten()).float()
    distance = torch.cdist(bound.flatten(0, 1), bound.flatten(0, 1))
    assert distance[same == 1].mean() < distance[same == 0].mean()


def test_a_tokenizer_reads_before_the_quantiser(tmp_path: Path) -> None:
    model = build(config())
    assert isinstance(model, Tokenizer)
    model.eval()
    frames, lens = torch.randn(1, 24, 20), torch.tensor([24])
    torch.testing.assert_close(
        model.phonemes_before(model.hidden(frames, lens)[0]), model(frames, lens).before
    )
