"""codec.audio against closed forms: sines, silences, and files broken in every way we name."""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor

from codec import audio
from codec.errors import AudioError, SpecError, UserError

RATE = 24_000


def sine(frequency: float, seconds: float, sample_rate: int = RATE, amplitude: float = 0.5) -> Tensor:
    time = torch.arange(round(seconds * sample_rate), dtype=torch.float64) / sample_rate
    return (amplitude * torch.sin(2 * math.pi * frequency * time)).float()


def strongest(wav: Tensor, sample_rate: int = RATE) -> tuple[float, float]:
    """Frequency (Hz) and amplitude of the strongest sine, its frequency on a bin of the spectrum."""
    spectrum = torch.fft.rfft(wav.double()).abs() / len(wav) * 2
    peak = int(spectrum.argmax())
    return peak * sample_rate / len(wav), float(spectrum[peak])


def message(error: pytest.ExceptionInfo[AudioError]) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


# ---------------------------------------------------------------------------------------------------- reading


def test_every_error_is_a_user_error() -> None:
    assert issubclass(AudioError, UserError) and issubclass(SpecError, UserError)


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 44_100, 44_101, 48_000, 96_000])
def test_read_keeps_frequency_and_amplitude(tmp_path: Path, rate: int) -> None:
    path = tmp_path / "stereo.wav"
    left, right = sine(440, 2, rate, 0.6), sine(440, 2, rate, 0.2)
    soundfile.write(path, torch.stack([left, right], 1).numpy(), rate, subtype="FLOAT")

    wav = audio.read_audio(path)

    assert wav.dtype == torch.float32 and wav.shape == (2 * RATE,)
    middle = slice(RATE // 2, 3 * RATE // 2)
    torch.testing.assert_close(wav[middle], sine(440, 2, RATE, 0.4)[middle], atol=1e-4, rtol=0)


def test_read_removes_what_the_new_rate_cannot_hold(tmp_path: Path) -> None:
    path = tmp_path / "high.wav"
    wav = sine(440, 1, 48_000, 0.4) + sine(15_000, 1, 48_000, 0.4)  # 15 kHz would alias to 9 kHz
    soundfile.write(path, wav.numpy(), 48_000, subtype="FLOAT")

    spectrum = torch.fft.rfft(audio.read_audio(path).double()).abs() / RATE * 2

    assert spectrum[440] == pytest.approx(0.4, abs=1e-3)
    assert spectrum[8_000:10_000].max() < 1e-3


def test_read_at_the_files_own_rate_is_exact(tmp_path: Path) -> None:
    wav = sine(300, 0.5)
    soundfile.write(tmp_path / "a.wav", wav.numpy(), RATE, subtype="FLOAT")
    assert torch.equal(audio.read_audio(tmp_path / "a.wav"), wav)


def test_read_decodes_long_files_block_by_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audio, "_BLOCK", 1_000)
    wav = sine(300, 0.5)
    soundfile.write(tmp_path / "a.wav", wav.numpy(), RATE, subtype="FLOAT")
    assert torch.equal(audio.read_audio(tmp_path / "a.wav"), wav)
    assert torch.equal(audio.read_audio(tmp_path / "a.wav", max_seconds=0.1), wav[:2_400])


def test_max_seconds_reads_only_the_head(tmp_path: Path) -> None:
    wav = sine(300, 2)
    wav[RATE:] = float("nan")  # an error, were it read
    soundfile.write(tmp_path / "a.wav", wav.numpy(), RATE, subtype="FLOAT")
    assert torch.equal(audio.read_audio(tmp_path / "a.wav", max_seconds=1.0), wav[:RATE])


def test_a_header_that_lies_about_the_length_costs_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "lying.wav"
    soundfile.write(path, sine(300, 1).numpy(), RATE)
    data = bytearray(path.read_bytes())
    data[4:8] = data[40:44] = (0x7FFFFFF0).to_bytes(4, "little")  # RIFF and data chunk: 2 GiB to come
    path.write_bytes(data)
    assert audio.read_audio(path).shape == (RATE,)


def _text(path: Path) -> None:
    path.write_text("this is no recording at all\n" * 20)


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _no_samples(path: Path) -> None:
    soundfile.write(path, np.zeros(0, np.float32), RATE)


def _nan(path: Path) -> None:
    wav = sine(300, 1).numpy()
    wav[6_000] = np.nan
    soundfile.write(path, wav, RATE, subtype="FLOAT")


def _infinite(path: Path) -> None:
    wav = sine(300, 1).numpy()
    wav[12_000] = np.inf
    soundfile.write(path, wav, RATE, subtype="FLOAT")


def _short(path: Path) -> None:
    soundfile.write(path, sine(300, 0.2).numpy(), RATE)


def _silent(path: Path) -> None:
    soundfile.write(path, sine(300, 2, amplitude=10 ** (-66 / 20)).numpy(), RATE, subtype="FLOAT")


def _zero(path: Path) -> None:
    soundfile.write(path, np.zeros(2 * RATE), RATE)


def _opposite(path: Path) -> None:
    soundfile.write(path, torch.stack([sine(300, 2), -sine(300, 2)], 1).numpy(), RATE, subtype="FLOAT")


def _slow(path: Path) -> None:
    soundfile.write(path, sine(300, 20, 1_000).numpy(), 1_000)


def _folder(path: Path) -> None:
    path.mkdir()


def _pipe(path: Path) -> None:
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: None, ["no such audio file", "check the path"]),
        (_folder, ["is a folder", "name a file inside it"]),
        (_pipe, ["is not a regular file", "copy"]),
        (_text, ["cannot be read as audio", "give a wav, flac, ogg or mp3 file"]),
        (_empty, ["is empty (0 bytes)", "record or copy it again"]),
        (_no_samples, ["is empty (0 samples)", "record or copy it again"]),
        (_nan, ["NaN or infinite samples", "first at 0.25 s", "export it again"]),
        (_infinite, ["NaN or infinite samples", "first at 0.50 s", "export it again"]),
        (_short, ["is too short (0.20 s)", "at least 1 s"]),
        (_silent, ["is silent (peak -66 dBFS)", "louder than -60 dBFS"]),
        (_zero, ["is silent (peak -inf dBFS)", "louder than -60 dBFS"]),
        (_opposite, ["is silent (peak -inf dBFS, the mean of 2 channels)"]),
        (_slow, ["sample rate of 1000 Hz", "4000 to 768000 Hz"]),
    ],
)
def test_read_errors_name_file_value_and_way_out(
    tmp_path: Path, make: Callable[[Path], None], words: list[str]
) -> None:
    path = tmp_path / "my voice.wav"
    make(path)
    with pytest.raises(AudioError) as error:
        audio.read_audio(path, min_seconds=1.0)
    for word in [repr(str(path)), *words]:
        assert word in message(error)


def test_read_errors_for_paths_that_no_file_can_have() -> None:
    for path in ["x" * 5_000 + ".wav", "null\0.wav", "two\nlines.wav"]:
        with pytest.raises(AudioError) as error:
            audio.read_audio(path)
        message(error)


def test_silence_is_judged_on_the_head_that_was_read(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", torch.cat([torch.zeros(RATE), sine(300, 1)]).numpy(), RATE)
    assert audio.read_audio(tmp_path / "a.wav").shape == (2 * RATE,)
    with pytest.raises(AudioError, match=r"is silent in its first 0\.5 s"):
        audio.read_audio(tmp_path / "a.wav", max_seconds=0.5)


# ---------------------------------------------------------------------------------------------------- writing


@pytest.mark.parametrize(
    ("ending", "rate", "kind", "tolerance"),
    [
        (".wav", 24_000, ("WAV", "PCM_16"), 2**-15),
        (".WAV", 24_000, ("WAV", "PCM_16"), 2**-15),
        (".flac", 24_000, ("FLAC", "PCM_16"), 2**-15),
        (".ogg", 24_000, ("OGG", "OPUS"), 0.06),
        (".ogg", 22_050, ("OGG", "VORBIS"), 0.06),
        (".mp3", 24_000, ("MP3", "MPEG_LAYER_III"), 0.06),
    ],
)
def test_round_trip(tmp_path: Path, ending: str, rate: int, kind: tuple[str, str], tolerance: float) -> None:
    path = tmp_path / f"out{ending}"
    wav = sine(440, 2, rate)

    audio.write_audio(path, wav, rate)

    with soundfile.SoundFile(path) as file:
        assert (file.format, file.subtype, file.samplerate, file.channels) == (*kind, rate, 1)
    back = audio.read_audio(path, rate)
    assert back.shape == wav.shape  # no encoder's delay is left at either end
    middle = slice(rate // 2, 3 * rate // 2)
    torch.testing.assert_close(back[middle], wav[middle], atol=tolerance, rtol=0)
    frequency, amplitude = strongest(back[middle], rate)
    assert frequency == pytest.approx(440, abs=1) and amplitude == pytest.approx(0.5, rel=0.02)


def test_samples_beyond_full_scale_are_clipped_not_wrapped(tmp_path: Path) -> None:
    audio.write_audio(tmp_path / "a.wav", torch.tensor([1.5, -1.5, 0.25]).repeat(100), RATE)
    expected = torch.tensor([1.0, -1.0, 0.25]).repeat(100)
    torch.testing.assert_close(audio.read_audio(tmp_path / "a.wav"), expected, atol=1e-4, rtol=0)


def test_a_finished_file_is_readable_by_others_as_any_file(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    audio.write_audio(tmp_path / "a.wav", sine(440, 0.1), RATE)
    assert stat.S_IMODE((tmp_path / "a.wav").stat().st_mode) == stat.S_IMODE(
        (tmp_path / "plain").stat().st_mode
    )


def test_the_longest_name_that_the_file_system_takes(tmp_path: Path) -> None:
    path = tmp_path / ("n" * 251 + ".wav")
    audio.write_audio(path, sine(440, 0.1), RATE)
    assert path.exists()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("out.m4a", ["cannot tell the audio format", "out.m4a", ".wav, .flac, .ogg or .mp3"]),
        ("out", ["cannot tell the audio format", ".wav, .flac, .ogg or .mp3"]),
        ("missing/out.wav", ["no such folder", "missing", "make it, or correct the path"]),
        ("folder.wav", ["is a folder", "name a file"]),
        ("there.wav", ["exists already", "there.wav", "allow overwriting"]),
        ("there.wav/out.wav", ["no such folder", "there.wav"]),
        ("n" * 300 + ".wav", ["cannot be written", "File name too long"]),
    ],
)
def test_output_errors_come_before_any_work(tmp_path: Path, name: str, words: list[str]) -> None:
    (tmp_path / "folder.wav").mkdir()
    (tmp_path / "there.wav").write_bytes(b"precious")
    attempts: list[Callable[[], None]] = [
        lambda: audio.check_output(tmp_path / name),
        lambda: audio.write_audio(tmp_path / name, sine(440, 0.1), RATE),
    ]
    for attempt in attempts:
        with pytest.raises(AudioError) as error:
            attempt()
        for word in words:
            assert word in message(error)
    assert (tmp_path / "there.wav").read_bytes() == b"precious"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["folder.wav", "there.wav"]


def test_overwrite_replaces(tmp_path: Path) -> None:
    path = tmp_path / "there.wav"
    path.write_bytes(b"old")
    audio.check_output(path, overwrite=True)
    audio.write_audio(path, sine(440, 0.1), RATE, overwrite=True)
    assert audio.read_audio(path).shape == (2_400,)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "there.wav"
    path.write_bytes(b"old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(AudioError, match=r"cannot be written \(No space left on device\): free some space"):
        audio.write_audio(path, sine(440, 0.1), RATE, overwrite=True)
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        audio.write_audio(path, sine(440, 0.1), RATE, overwrite=True)
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("ending", [".mp3", ".ogg", ".flac"])
def test_a_rate_that_the_format_cannot_hold(tmp_path: Path, ending: str) -> None:
    with pytest.raises(AudioError, match=r"cannot hold 500000 Hz: write \.wav, or resample to one of 8000, "):
        audio.write_audio(tmp_path / f"a{ending}", sine(440, 0.1), 500_000)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("wav", [torch.zeros(0), torch.zeros(1, 100), torch.tensor([0.0, math.nan])])
def test_writing_what_is_no_waveform_is_a_bug(tmp_path: Path, wav: Tensor) -> None:
    with pytest.raises(ValueError, match="a waveform to write"):
        audio.write_audio(tmp_path / "a.wav", wav, RATE)
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------------------------------ silence and level


@pytest.mark.parametrize("level", [1.0, 0.003])
def test_trim_keeps_the_sound_and_its_margin(level: float) -> None:
    hiss = 1e-3 * torch.randn(RATE)
    sound = sine(300, 1)
    wav = level * torch.cat([hiss, sound, torch.zeros(RATE // 2), sound, hiss])

    trimmed = audio.trim_silence(wav, RATE, threshold_db=-40, margin=0.1)

    window = round(0.02 * RATE)
    assert len(trimmed) == pytest.approx(2.5 * RATE + 2 * 0.1 * RATE, abs=2 * window)
    start = RATE - round(0.1 * RATE)
    assert torch.equal(trimmed, wav[start : start + len(trimmed)])


def test_trim_at_the_limits() -> None:
    sound = sine(300, 1)
    assert torch.equal(audio.trim_silence(sound, RATE), sound)
    for nothing in (torch.zeros(RATE), torch.zeros(0), torch.zeros(3)):
        assert torch.equal(audio.trim_silence(nothing, RATE), nothing)


@pytest.mark.parametrize("rate", [16_000, 24_000, 48_000])
@pytest.mark.parametrize("seconds", [0.1, 0.399, 0.4, 3.0])
def test_loudness_of_a_known_sine(rate: int, seconds: float) -> None:
    # BS.1770: a full-scale sine of 997 Hz in one channel reads -3.01 LUFS; 20 dB lower, -23.01.
    assert audio.loudness(sine(997, seconds, rate, 1.0), rate) == pytest.approx(-3.01, abs=0.1)
    assert audio.loudness(sine(997, seconds, rate, 0.1), rate) == pytest.approx(-23.01, abs=0.1)


def test_loudness_is_gated() -> None:
    loud = sine(997, 4, amplitude=0.1)
    with_pause = torch.cat([loud, torch.zeros(20 * RATE)])
    # Only the three blocks of 0.4 s that straddle the edge are added to the measure.
    assert audio.loudness(with_pause, RATE) == pytest.approx(audio.loudness(loud, RATE), abs=0.2)


def test_loudness_of_any_short_length_and_of_silence() -> None:
    for samples in [*range(200, 400), 9_599, 9_600, 9_601]:
        assert math.isfinite(audio.loudness(sine(997, samples / RATE), RATE))
    for nothing in (torch.zeros(0), torch.zeros(10), torch.zeros(RATE), 1e-5 * sine(997, 1)):
        assert audio.loudness(nothing, RATE) == -math.inf


def test_normalize_reaches_the_target_or_the_peak() -> None:
    quiet = sine(997, 2, amplitude=0.003)
    wav = audio.normalize_loudness(quiet, RATE, target=-23.0)
    assert audio.loudness(wav, RATE) == pytest.approx(-23.0, abs=0.01)
    torch.testing.assert_close(wav / wav.abs().max(), quiet / quiet.abs().max())  # only a gain

    clicks = torch.zeros(2 * RATE)
    clicks[::4_800] = 0.1
    wav = audio.normalize_loudness(clicks, RATE, target=-10.0)
    assert float(wav.max()) == pytest.approx(10 ** (-1 / 20), rel=1e-5)

    for nothing in (torch.zeros(RATE), torch.zeros(0)):
        assert torch.equal(audio.normalize_loudness(nothing, RATE), nothing)


# ---------------------------------------------------------------------------------------------------- joining


def test_join_has_no_jump_larger_than_the_pieces_own() -> None:
    time = torch.arange(RATE) / RATE
    low = 0.5 * torch.cos(2 * math.pi * 100 * time)  # starts and ends far from zero: cut hard, it clicks
    high = 0.3 * torch.cos(2 * math.pi * 150 * time)
    own = max(float(low.diff().abs().max()), float(high.diff().abs().max()))

    wav = audio.join([low, high, low], RATE, pause=0.3)

    assert len(wav) == 3 * RATE + 2 * round(0.3 * RATE)
    assert float(wav.diff().abs().max()) <= own * 1.001
    assert wav[0] == 0 and wav[-1] == 0
    assert torch.equal(wav[RATE : RATE + 7_200], torch.zeros(7_200))
    assert torch.equal(wav[200 : RATE - 200], low[200:-200])  # beyond the fades nothing changes
    assert torch.equal(low, 0.5 * torch.cos(2 * math.pi * 100 * time))  # and the pieces stay as they were


def test_join_without_a_pause_still_does_not_click() -> None:
    up, down = torch.full((RATE,), 0.5), torch.full((RATE,), -0.5)
    wav = audio.join([up, down], RATE, pause=0.0)
    ramp = 0.005 * RATE
    assert (
        float(wav.diff().abs().max()) <= 0.5 * math.pi / 2 / ramp * 1.01
    )  # the raised cosine's steepest step
    assert len(wav) == 2 * RATE


def test_fade_is_a_raised_cosine_on_the_side_asked_for() -> None:
    ones = torch.ones(1_000)
    faded = audio.fade(ones, RATE, end=False, seconds=0.01)
    ramp = (1 - np.cos(np.pi * np.arange(240) / 240)) / 2
    torch.testing.assert_close(faded[:240], torch.from_numpy(ramp).float())
    assert torch.equal(faded[240:], ones[240:])
    torch.testing.assert_close(audio.fade(ones, RATE, start=False, seconds=0.01), faded.flip(0))


def test_join_of_little_or_nothing() -> None:
    assert len(audio.join([torch.ones(1), torch.ones(3), torch.zeros(0)], 1_000, pause=0.01)) == 24
    with pytest.raises(ValueError, match="nothing to join"):
        audio.join([], RATE)
