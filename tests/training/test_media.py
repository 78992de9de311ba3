"""What is shown of a run is what it says: positions, frequencies, counts; and every stage has something to show."""

from pathlib import Path
from typing import Any

import pytest
import soundfile
import torch
from matplotlib.figure import Figure
from torchaudio.functional import melscale_fbanks

from codec.features.mel import LogMel
from codec.spec import FrameSpec, TokenSpec
from tts.data.batches import AcousticBatch, LMBatch, TokenizerBatch, VocoderBatch
from tts.data.datasets import IGNORE, pad
from tts.lm.layout import Layout
from tts.text.symbols import DEFAULT_SYMBOLS
from tts.training.acoustic import AcousticModule
from tts.training.lm import LMModule, aligned, head
from tts.training.media import (
    Media,
    Picture,
    aligned_frames,
    channel,
    compare_frames,
    duration_bars,
    griffin_lim,
    superfluous,
    token_use,
)
from tts.training.tokenizer import TokenizerModule
from tts.training.vocoder import VocoderModule

SPEC = FrameSpec()


def drawn(picture: Picture) -> Figure:
    figure = Figure()
    picture.draw(figure)
    return figure


@pytest.mark.parametrize("hz", [250, 1000, 4000])
def test_a_frequency_is_where_its_mel_filter_peaks(hz: int) -> None:
    fine = 1 << 14  # bins from 0 to half the rate
    filters = melscale_fbanks(fine + 1, 0.0, SPEC.sample_rate / 2, SPEC.dim, SPEC.sample_rate)
    at = filters[round(hz / (SPEC.sample_rate / 2) * fine)]
    expected = float((at * torch.arange(SPEC.dim)).sum() / at.sum())
    assert channel(hz, SPEC) == pytest.approx(expected, abs=0.05)


def test_rough_sound_has_the_frames_pitch() -> None:
    time = torch.arange(24_000) / 24_000
    wav = 0.3 * torch.sin(2 * torch.pi * 800 * time)
    made = griffin_lim(LogMel()(wav[None])[0], SPEC)
    assert len(made) == pytest.approx(len(wav), abs=SPEC.hop)
    spectrum = torch.fft.rfft(made[6000:18_000]).abs()
    assert float(spectrum.argmax()) * 2 == pytest.approx(800, abs=30)  # bins of 2 Hz


def test_frames_are_drawn_over_seconds() -> None:
    frames = torch.randn(150, SPEC.dim)
    figure = drawn(compare_frames("x", {"one": frames, "two": frames[:75]}, SPEC, mark=0.4))
    first, second, _ = figure.axes  # and the scale
    assert first.images[0].get_extent()[:2] == [0.0, pytest.approx(1.6)]
    assert second.images[0].get_extent()[1] == pytest.approx(0.8)
    assert first.images[0].get_clim() == second.images[0].get_clim()
    assert [tick.get_text() for tick in first.get_yticklabels()][2] == "1000"
    figure = drawn(aligned_frames("x", frames, SPEC, [0.1, 0.5], ["h", "e"]))
    assert [(text.get_text().strip(), text.get_position()[0]) for text in figure.axes[0].texts] == [
        ("h", 0.1),
        ("e", 0.5),
    ]


def test_levels_are_drawn_in_decibels_down_to_80_below_the_loudest() -> None:
    frames = torch.full((20, SPEC.dim), SPEC.floor)
    frames[0], frames[1] = 0.0, -torch.log(torch.tensor(10.0))  # a tenth of the magnitude is 20 dB less
    (image,) = drawn(aligned_frames("x", frames, SPEC, [], [])).axes[0].images
    assert image.get_array()[5, :2].tolist() == pytest.approx([0, -20])  # type: ignore[index]
    assert image.get_clim() == pytest.approx((-80, 0))


def test_token_use_counts() -> None:
    figure = drawn(token_use("x", {"mine": torch.tensor([0, 2, 2, 2]), "none": torch.tensor([]).long()}, 5))
    mine, none, alike = figure.axes[0].lines
    assert mine.get_ydata().tolist() == [75, 25, 0, 0, 0] and not any(none.get_ydata())  # type: ignore[union-attr]
    assert list(alike.get_ydata()) == [20, 20]  # type: ignore[arg-type]
    labels = [str(line.get_label()) for line in (mine, none)]
    assert labels[0] == "mine: 2 of 5 codes in 4 tokens, perplexity 2"  # exp of 0.56 nats: 1.75
    assert labels[1] == "none: 0 of 5 codes in 0 tokens, perplexity 0"


def test_durations_stand_side_by_side() -> None:
    figure = drawn(duration_bars("x", {"true": [1, 4], "sampled": [2, 3]}, ["a", "b"], first=1))
    heights = [round(bar.get_height()) for bar in figure.axes[0].patches[:4]]  # type: ignore[attr-defined]
    assert heights == [1, 4, 2, 3]


def test_what_stays_is_spread_evenly() -> None:
    assert superfluous([1, 2, 3], 3) == []
    assert superfluous([0, 10, 11, 20, 30], 4) in ([10], [11])
    steps = list(range(100, 2000, 100))
    kept: list[int] = []
    for step in steps:
        kept.append(step)
        kept = [one for one in kept if one not in superfluous(kept, 6)]
    assert len(kept) == 6 and kept[0] == 100 and kept[-1] == 1900


def test_an_example_is_read_backwards() -> None:
    layout = Layout(len(DEFAULT_SYMBOLS), 50)
    groups = DEFAULT_SYMBOLS.groups(DEFAULT_SYMBOLS.encode("hˈeː, jˈuː!"))
    tokens, durations = list(range(10, 19)), [2, 4, 0, 3]
    ids, _ = layout(groups, tokens, durations)
    for padded in (ids, [*ids, 0, 0], [*ids, layout.eos]):
        one = aligned(layout, padded)
        assert (list(one.groups), list(one.tokens), list(one.durations)) == (groups, tokens, durations)
    first = head(one, 2)
    assert (list(first.tokens), list(first.durations)) == (tokens[:6], [2, 4])
    alone = aligned(layout, layout(groups[:1], [7, 8], [2])[0])
    assert (list(alone.tokens), list(alone.durations)) == ([7, 8], [2])


# -------------------------------------------------------------------------------------------- what the stages show


def tokenizer_case(part: Any, utterances: Any) -> tuple[Any, Any]:
    frames, frame_lens = pad([u.frames for u in utterances], SPEC.floor)
    labels = [torch.tensor(DEFAULT_SYMBOLS.segments(DEFAULT_SYMBOLS.encode(u.text))) for u in utterances]
    speakers = torch.tensor([u.speaker for u in utterances])
    return TokenizerModule(part), TokenizerBatch(frames, frame_lens, *pad(labels, 0), speakers)


def lm_case(part: Any, utterances: Any) -> tuple[Any, Any]:
    rows = []
    for u in utterances:
        groups = DEFAULT_SYMBOLS.groups(DEFAULT_SYMBOLS.encode(u.text))
        rows.append(part.layout(groups, [n % 625 for n in range(2 * len(groups))], [2] * len(groups)))
    ids, _ = pad([torch.tensor(ids) for ids, _ in rows], 0)
    labels, _ = pad([torch.tensor(labels) for _, labels in rows], IGNORE)
    return LMModule(part), LMBatch(ids, labels)


def acoustic_case(part: Any, utterances: Any) -> tuple[Any, Any]:
    per = TokenSpec().frames_per_token
    frames, lens = pad([u.frames[: len(u.frames) // per * per] for u in utterances], SPEC.floor)
    tokens = torch.randint(625, (len(frames), frames.shape[1] // per))
    speakers = torch.tensor([u.speaker for u in utterances])
    part.std.fill_(3.0)  # otherwise it would measure data that is not there
    return AcousticModule(part), AcousticBatch(
        frames,
        tokens,
        torch.full_like(lens, 8),
        lens // per,
        speakers,
        *pad([torch.ones(3).long()] * len(lens), 0),
    )


def vocoder_case(part: Any, utterances: Any) -> tuple[Any, Any]:
    wav = torch.stack([u.wav[:16_000] for u in utterances])
    return VocoderModule(part, LogMel(), adversarial_from=-1), VocoderBatch(wav)


SHOWN = {
    "tokenizer": {
        "tokens.png",
        *(f"{n}{i}{e}" for i in "01" for n, e in (("alignment", ".png"), ("recording", "_rough.wav"))),
    },
    "lm": {"tokens.png", "durations0.png", "durations1.png"},
    "acoustic": {
        f"{n}{i}{e}"
        for i in "01"
        for n, e in (("frames", ".png"), ("recording", "_rough.wav"), ("made", "_rough.wav"))
    },
    "vocoder": {
        f"{n}{i}{e}" for i in "01" for n, e in (("frames", ".png"), ("recording", ".wav"), ("copy", ".wav"))
    },
}
CASES = {"tokenizer": tokenizer_case, "lm": lm_case, "acoustic": acoustic_case, "vocoder": vocoder_case}


@pytest.mark.parametrize("stage", SHOWN)
def test_a_stage_shows_its_cases(
    stage: str, utterances: Any, fit: Any, tiny_configs: Any, tmp_path: Path
) -> None:
    from tts.checkpoint import build

    module, batch = CASES[stage](build(tiny_configs[stage]), utterances)
    settings = {} if stage == "vocoder" else {"precision": "bf16-mixed"}
    fit(module, batch, 1, **settings)
    folder = tmp_path / "media" / "00000001"
    assert {path.name for path in folder.iterdir()} == SHOWN[stage]
    for path in folder.glob("*.wav"):
        wav, rate = soundfile.read(path)
        assert rate == 24_000 and len(wav) >= 15_000 and abs(wav).max() > 0
    if stage == "vocoder":
        wav, _ = soundfile.read(folder / "recording1.wav", dtype="float32")
        torch.testing.assert_close(torch.from_numpy(wav), batch.wav[1, : len(wav)], atol=1e-4, rtol=0)


def test_pictures_that_fail_stop_nothing(
    utterances: Any,
    fit: Any,
    tiny_configs: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    from tts.checkpoint import build

    def broken(self: Any, *args: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(Media, "_write", broken)
    module, batch = vocoder_case(build(tiny_configs["vocoder"]), utterances)
    assert "val/mel" in fit(module, batch, 1)
    assert "the pictures of this validation failed" in caplog.text
