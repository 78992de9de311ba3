"""The sounds of the rows are those of the pipeline, whatever else is in the batch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from codec.audio import fade, normalize_loudness
from codec.errors import UserError
from tts import TTS, Settings, Voice
from tts.evaluate.cases import Case
from tts.evaluate.chain import PARTS, RECORDING, TEXT, TOKENS, VOCODER, Chain, number, speak
from tts.evaluate.prosody import speech_seconds
from tts.lm.model import Aligned, Bounds, cut_groups
from tts.pipeline import Job, Sentence
from tts.readback import Calibration, Reader
from tts.text import Frontend
from tts.voice import LOUDNESS, group_durations, read_speech

SETTINGS = Settings(seed=5, steps=2, batch=3)


@pytest.fixture(scope="module")
def chain(tts: TTS) -> Chain:
    return Chain(tts, SETTINGS)


def close(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and bool(torch.allclose(a, b, rtol=1e-3, atol=1e-4))


def voice(tts: TTS, case: Case) -> Voice:
    return Voice.from_audio(case.prompt, text=case.prompt_text, model=tts.model)


def test_text_is_what_synthesize_speaks_alone(tts: TTS, chain: Chain, cases: list[Case]) -> None:
    sounds = chain.make(TEXT, cases)
    assert len({sound.made.seed for sound in sounds}) == 3
    for case, (wav, made) in zip(cases, sounds, strict=True):
        alone = tts.synthesize(case.text, voice(tts, case), replace(SETTINGS, seed=made.seed))
        assert close(wav, alone.wav)
        tokens = [torch.tensor(one.tokens.tokens) for one in alone.sentences]
        read = [tts.model.tokenizer.read(one[None])[0] for one in tokens]
        symbols = tts.model.symbols
        assert made.read == "".join(symbols.decode(symbols.segments(ids)) for ids in read)
        assert made.seconds == len(alone.wav) / 24_000
        assert set(made.times) == set(PARTS) and min(made.times.values()) > 0
    assert sounds[0].made.wanted == "sʌmɹeɪnfɛl" and sounds[0].made.phonemes == 10


def test_tokens_are_the_recordings_with_the_texts_phonemes(tts: TTS, chain: Chain, cases: list[Case]) -> None:
    symbols = tts.model.symbols
    sounds = chain.make(TOKENS, cases[:2])
    for case, (wav, made) in zip(cases, sounds, strict=False):
        assert case.reference is not None
        settings, who = replace(SETTINGS, seed=made.seed), voice(tts, case)
        reference = normalize_loudness(read_speech(case.reference, 24_000), 24_000, LOUDNESS)
        ids = [i for one in Frontend(symbols)(case.text) for i in one.ids]
        tokens, groups = tts._tokens(reference), symbols.groups(ids)
        told = Aligned(groups, tokens.tolist(), group_durations(tts.model, tokens, groups)).told(symbols)
        frames = tts._frames([told], [who], settings, seeds=[0])[0]
        assert close(wav, fade(tts.vocode(frames), 24_000))
        assert not close(wav, tts.convert(case.reference, who, settings).wav)
        assert set(made.times) == {"acoustic", "vocoder"}
        assert made.held is None and made.read is not None
        assert made.seed != SETTINGS.seed


def test_tokens_are_bare_where_the_text_does_not_fit_the_recording(
    tts: TTS, chain: Chain, cases: list[Case]
) -> None:
    case = replace(cases[0], text=" ".join(["Some rain fell on a mile of sand"] * 20))
    assert case.reference is not None
    ((wav, made),) = chain.make(TOKENS, [case])
    alone = tts.convert(case.reference, voice(tts, case), replace(SETTINGS, seed=made.seed))
    assert close(wav, alone.wav)


def test_recording_and_vocoder_are_of_the_reference(tts: TTS, chain: Chain, cases: list[Case]) -> None:
    assert cases[1].reference is not None
    reference = normalize_loudness(read_speech(cases[1].reference, 24_000), 24_000, LOUDNESS)
    (recording,), (vocoded,) = chain.make(RECORDING, cases[1:2]), chain.make(VOCODER, cases[1:2])
    assert torch.equal(recording.wav, reference)
    assert close(vocoded.wav, tts.vocode(tts.model.features(reference[None])[0]))
    assert recording.made.times == {} and set(vocoded.made.times) == {"vocoder"}
    assert recording.made.read is None and recording.made.wanted == vocoded.made.wanted != ""


def test_the_prompts_rate_is_of_the_part_that_is_used(tts: TTS, chain: Chain, cases: list[Case]) -> None:
    made = chain.make(RECORDING, cases[:1])[0].made
    prompt = voice(tts, cases[0])
    used = read_speech(cases[0].prompt, 24_000)[: round(prompt.seconds * 24_000)]
    assert made.prompt_seconds == speech_seconds(used.numpy(), 24_000)
    symbols = tts.model.symbols
    assert made.prompt_phonemes == sum(map(symbols.is_base, symbols.encode(prompt.phonemes)))


def test_errors_name_the_case(chain: Chain, cases: list[Case], tmp_path: Path) -> None:
    (tmp_path / "empty.wav").touch()
    with pytest.raises(UserError, match=r"^case 'bad': '.*empty.wav' is empty"):
        chain.make(TEXT, [cases[0], replace(cases[0], id="bad", prompt=tmp_path / "empty.wav")])
    with pytest.raises(UserError, match=r"^case 'dots': nothing in '\.\.\.' can be spoken"):
        chain.make(TEXT, [replace(cases[0], id="dots", text="...")])
    with pytest.raises(UserError, match=r"^case 'three': it has no reference"):
        chain.make(VOCODER, cases)


def test_a_model_that_gives_nan(
    tts: TTS, chain: Chain, cases: list[Case], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tts, "vocode", lambda *_: torch.full((9,), torch.nan))
    with pytest.raises(UserError, match=r"^case 'one': the model gave no sound"):
        chain.make(VOCODER, cases[:1])


def test_groups_that_the_bound_ended() -> None:
    written = Aligned([(1,), (2, 9), (3,), (4, 9)], [0] * 48, [12, 11, 1, 24])
    assert cut_groups(written, Bounds(pauses=frozenset([9]))) == [True, False, False, True]


def test_failures_to_end_are_of_the_last_phoneme(
    tts: TTS, cases: list[Case], monkeypatch: pytest.MonkeyPatch
) -> None:
    def generate(requests: Any, sampling: Any, bounds: Bounds) -> list[Aligned]:
        # the shorter sentence of two holds its first phoneme, the longer one its last with its pause
        rows = []
        for request in requests:
            durations = [2] * len(request.groups)
            at = 0 if len(request.groups) < 15 else -1
            durations[at] = bounds.of(request.groups[at])
            rows.append(Aligned(request.groups, [7] * sum(durations), durations))
        return rows

    monkeypatch.setattr(tts.model.lm, "generate", generate)
    # which finds fault with every sentence
    monkeypatch.setattr(tts, "reader", Reader(tts.model.tokenizer, tts.model.symbols, Calibration()))
    one, two, _ = (sound.made for sound in Chain(tts, replace(SETTINGS, retries=1)).make(TEXT, cases))
    assert (one.sentences, one.held, one.endless, one.attempts) == (1, 1, 0, 2)
    assert (two.sentences, two.held, two.endless, two.attempts) == (2, 1, 1, 4)


def test_the_parts_of_a_batch_share_its_time(
    tts: TTS, cases: list[Case], monkeypatch: pytest.MonkeyPatch
) -> None:
    spoken = []

    def speak_batch(jobs: Any, settings: Any, clock: Any) -> Any:
        clock.parts["lm"] += 3.0
        spoken.append(jobs)
        return [
            Sentence("", "", torch.ones(9), Aligned(tokens=[0] * (20 if job.utterance.text[0] == "N" else 5)))
            for job in jobs
        ]

    monkeypatch.setattr(tts, "_speak_batch", speak_batch)
    chain = Chain(tts, SETTINGS)
    jobs = [[Job(u, None, number(case, n)) for n, u in enumerate(chain._sentences(case))] for case in cases]
    times = [times for _, times in speak(tts, jobs, SETTINGS)]
    # four sentences, the shortest three together
    assert [len(batch) for batch in spoken] == [3, 1]
    assert times == [{"lm": pytest.approx(0.5)}, {"lm": pytest.approx(3.5)}, {"lm": pytest.approx(2.0)}]
