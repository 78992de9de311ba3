import random
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from lhotse import CutSet, MonoCut, Recording, SupervisionSegment

from codec.spec import FrameSpec
from tts.data.batches import IGNORE
from tts.data.datasets import (
    AcousticDataset,
    LMDataset,
    TokenizerDataset,
    VocoderDataset,
    pad,
    speaker_of,
    strip,
)
from tts.text.symbols import DEFAULT_SYMBOLS as TABLE

FLOOR = FrameSpec().floor


def in_epoch(cuts: CutSet, epoch: int) -> CutSet:
    return CutSet.from_cuts(cut.with_custom("epoch", epoch) for cut in cuts)


def of(*cuts: Any) -> CutSet:
    return CutSet.from_cuts(cuts)


def test_pad() -> None:
    padded, lens = pad([torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 4.0], [5.0, 6.0]])], -1)
    assert padded.tolist() == [[[1, 2], [-1, -1]], [[3, 4], [5, 6]]]
    assert lens.tolist() == [1, 2]


# ------------------------------------------------------------------------------------------------- tokenizer


def test_tokenizer_batch(make_cuts: Any) -> None:
    cuts = make_cuts(("bob", "hˈeː, jˈuː!", 5), ("ann", "tɹˈaɪ.", 3))
    batch = TokenizerDataset(cuts)[cuts]
    assert batch.frame_lens.tolist() == [20, 12]
    assert batch.frames[0, :, 0].tolist() == [n / 4 for n in range(20)]
    assert batch.frames[1, :12, 1].tolist() == [1000 + n / 4 for n in range(12)]
    assert torch.all(batch.frames[1, 12:] == FLOOR)
    assert batch.label_lens.tolist() == [6, 4]
    assert TABLE.decode(batch.labels[0].tolist()) == "heːjuː"
    assert TABLE.decode(batch.labels[1].tolist()) == "tɹaɪ"
    assert batch.labels[1].tolist()[4:] == [0, 0]
    assert batch.speakers.tolist() == [1, 0]  # ann is 0, bob is 1


# --------------------------------------------------------------------------------------------------- vocoder


@pytest.fixture
def recordings(tmp_path: Path) -> CutSet:
    """One cut of a ramp, so that a crop tells where it is from, and one of 0.1 s at half of full scale."""
    wavs = [np.arange(20_000) / 32_768, np.full(2_400, 0.5)]
    cuts = []
    for k, wav in enumerate(wavs):
        soundfile.write(tmp_path / f"{k}.flac", wav, 24_000, subtype="PCM_16")
        recording = Recording.from_file(tmp_path / f"{k}.flac", recording_id=f"c{k}")
        speech = SupervisionSegment(f"c{k}", f"c{k}", 0.0, recording.duration, speaker="ann")
        cuts.append(MonoCut(f"c{k}", 0.0, recording.duration, 0, recording=recording, supervisions=[speech]))
    return of(*cuts)


def test_vocoder_crops_come_out_of_the_recording(recordings: CutSet) -> None:
    dataset = VocoderDataset(recordings, samples=4_000)
    starts = []
    for epoch in range(20):
        wav = dataset[in_epoch(recordings, epoch)].wav
        ramp = (wav[0] * 32_768).round().long()
        starts.append(int(ramp[0]))
        assert torch.equal(ramp, torch.arange(4_000) + ramp[0])
        # what is too short is padded at its end
        assert torch.all(wav[1, :2_400] == 0.5)
        assert torch.all(wav[1, 2_400:] == 0)
    assert len(set(starts)) == 20
    assert min(starts) < 4_000
    assert max(starts) > 12_000


def test_vocoder_gain_moves_the_level_but_never_clips(recordings: CutSet) -> None:
    plain, loud = (
        VocoderDataset(recordings, samples=4_000),
        VocoderDataset(recordings, samples=4_000, gain_db=12),
    )
    gains = []
    for epoch in range(40):
        cuts = in_epoch(recordings, epoch)
        before, after = plain[cuts].wav, loud[cuts].wav
        gain = (after[1, 0] / before[1, 0]).item()
        torch.testing.assert_close(after[1], before[1] * gain)
        gains.append(gain)
    assert max(gains) == pytest.approx(2.0)  # 0.5 up to full scale, not by 12 dB
    assert 10 ** (-12 / 20) <= min(gains) < 0.5


def test_vocoder_crops_lose_what_is_above_some_frequency(tmp_path: Path) -> None:
    noise = 0.1 * np.random.default_rng(0).standard_normal(48_000)
    soundfile.write(tmp_path / "n.flac", noise, 24_000, subtype="PCM_16")
    recording = Recording.from_file(tmp_path / "n.flac", recording_id="n")
    speech = SupervisionSegment("n", "n", 0.0, recording.duration, speaker="ann")
    cuts = of(MonoCut("n", 0.0, recording.duration, 0, recording=recording, supervisions=[speech]))
    dataset = VocoderDataset(cuts, samples=12_000, low_pass=0.5)
    ends = []
    for epoch in range(60):
        power = (
            torch.fft.rfft(dataset[in_epoch(cuts, epoch)].wav[0])
            .abs()
            .square()
            .view(-1)[:6_000]
            .view(60, 100)
            .mean(1)
        )
        loud = (power > 0.1 * power[:10].mean()).nonzero()[:, 0]
        ends.append(200 * int(loud.max() + 1))  # Hz
        assert len(loud) == loud.max() + 1  # all below, nothing above
    cut = [end for end in ends if end < 11_500]
    assert 15 <= len(cut) <= 45
    assert 2_800 <= min(cut) < 5_000 and 9_000 < max(cut) <= 11_200


def test_vocoder_pitch_is_that_of_the_crop_and_0_without_a_voice(tmp_path: Path) -> None:
    at = np.arange(48_000) / 24_000
    cycles = np.cumsum(np.where(at < 1, 120 + 60 * at, 0)) / 24_000  # up for a second, then silence
    wav = np.where(at < 1, sum(np.sin(2 * np.pi * n * cycles) / n for n in range(1, 20)), 0) * 0.2
    soundfile.write(tmp_path / "v.flac", wav, 24_000, subtype="PCM_16")
    recording = Recording.from_file(tmp_path / "v.flac", recording_id="v")
    speech = SupervisionSegment("v", "v", 0.0, recording.duration, speaker="ann")
    cuts = of(MonoCut("v", 0.0, recording.duration, 0, recording=recording, supervisions=[speech]))
    batch = VocoderDataset(cuts, samples=48_000, pitch=True)[cuts]
    assert batch.pitch is not None and batch.pitch.shape == (1, 48_000 // 256 + 1)
    frames = np.arange(10, 80)
    np.testing.assert_allclose(batch.pitch[0, 10:80], 120 + 60 * frames * 256 / 24_000, rtol=0.01)
    assert not batch.pitch[0, 110:].any()
    assert VocoderDataset(cuts, samples=48_000)[cuts].pitch is None


# -------------------------------------------------------------------------------------------------------- LM

SPEAKERS = [
    ("ann", "hˈeː.", 5),
    ("bob", "ˈoʊ!", 4),
    ("ann", "jˈuː, tˈuː.", 9),
    ("bob", "nˈoʊ.", 6),
    ("cat", "a", 3),
]


def parts(groups: Any, tokens: list[int], durations: list[int]) -> tuple[list[int], list[int]]:
    """A layout that changes nothing: phoneme ids, then tokens; labels are tokens per group."""
    return [i for group in groups for i in group] + tokens, durations


def test_strip_gives_what_a_reading_would_give() -> None:
    groups = TABLE.groups(TABLE.encode("“hˈeː, jˈuː!”"))
    stripped, durations = strip(groups, [2, 7, 0, 6], TABLE)
    assert stripped == TABLE.groups(TABLE.segments(TABLE.encode("“hˈeː, jˈuː!”")))
    assert durations == [2, 7, 0, 6]


def test_strip_gives_the_tokens_of_silent_groups_to_their_neighbours() -> None:
    a, comma, dot = TABLE.encode("a,.")
    assert strip([(comma,), (a,), (dot,), (a, dot)], [1, 2, 3, 4], TABLE) == ([(a,), (a,)], [6, 4])
    assert strip([(dot,)], [3], TABLE) == ([], [])


def test_lm_example_alone_and_behind_a_prompt(make_cuts: Any) -> None:
    cuts = make_cuts(*SPEAKERS)
    alone = LMDataset(cuts, layout=parts, p_prompt=0)
    groups, tokens, durations = alone.utterance(cuts[2])
    assert ["".join(TABLE.decode(group)) for group in groups] == ["j", "ˈuː,", "t", "ˈuː."]
    assert tokens == list(range(2000, 2009))
    assert durations == [1, 1, 1, 6]

    full = LMDataset(cuts, layout=parts, p_prompt=1, p_strip=0)
    assert full.utterance(cuts[2]) == (
        [*alone.utterance(cuts[0])[0], *groups],
        [*range(5), *range(2000, 2009)],
        [1, 4, 1, 1, 1, 6],
    )
    stripped = LMDataset(cuts, layout=parts, p_prompt=1, p_strip=1)
    assert stripped.utterance(cuts[2]) == (
        [(TABLE.encode("h")[0],), tuple(TABLE.encode("eː")), *groups],
        [*range(5), *range(2000, 2009)],
        [1, 4, 1, 1, 1, 6],
    )
    # nobody else speaks like cat; ann's other utterance is too long here
    assert full.utterance(cuts[4]) == alone.utterance(cuts[4])
    short = LMDataset(cuts, layout=parts, p_prompt=1, max_prompt=0.1)
    assert short.utterance(cuts[2]) == alone.utterance(cuts[2])


def test_a_copy_of_an_utterance_is_no_prompt_for_it(make_cuts: Any) -> None:
    ann = make_cuts(("ann", "a", 3), ("ann", "e", 3))
    copies = of(*ann, *(cut.with_id(f"{cut.id}~{n}") for n in range(3) for cut in ann))
    dataset = LMDataset(copies, layout=parts, p_prompt=1)
    found = {
        (cut.custom["tokens"][0], dataset.another(cut, random.Random(n)).custom["tokens"][0])  # type: ignore[union-attr]
        for cut in copies
        for n in range(20)
    }
    assert len(found) == 2 and all(cut != other for cut, other in found)


def test_lm_batch_is_padded(make_cuts: Any) -> None:
    cuts = make_cuts(*SPEAKERS)
    batch = LMDataset(cuts, layout=parts, p_prompt=0)[of(cuts[4], cuts[0])]
    assert batch.ids.tolist() == [
        [*TABLE.encode("a"), 4000, 4001, 4002, 0, 0, 0, 0, 0, 0],
        [*TABLE.encode("hˈeː."), 0, 1, 2, 3, 4],
    ]
    assert batch.labels.tolist() == [[3, IGNORE], [1, 4]]


def test_prompts_are_of_the_same_speaker_and_another_utterance(make_cuts: Any) -> None:
    cuts = make_cuts(*(("ann" if n % 3 else "bob", "a", 4) for n in range(12)), ("cat", "a", 4))
    dataset = LMDataset(cuts, layout=parts, p_prompt=1)
    found: dict[str, Counter[int]] = {cut.id: Counter() for cut in cuts}
    for epoch in range(200):
        for cut in in_epoch(cuts, epoch):
            _, tokens, _ = dataset.utterance(cut)
            if speaker_of(cut) == "cat":
                assert len(tokens) == 4
                continue
            prompt, own = tokens[0] // 1000, tokens[4] // 1000
            assert own == int(cut.id[1:])
            found[cut.id][prompt] += 1
    for k in range(12):
        others = {n for n in range(12) if n % 3 == 0} if k % 3 == 0 else {n for n in range(12) if n % 3}
        assert set(found[f"c{k}"]) == others - {k}
        expected = 200 / len(others - {k})
        assert all(0.6 * expected < count < 1.5 * expected for count in found[f"c{k}"].values())


def test_probabilities_of_prompt_and_strip(make_cuts: Any) -> None:
    cuts = make_cuts(("ann", "hˈeː.", 5), ("ann", "hˈeː.", 5))
    dataset = LMDataset(cuts, layout=parts, p_prompt=0.6, p_strip=0.25)
    lengths = Counter(
        sum(map(len, dataset.utterance(cut)[0])) for epoch in range(500) for cut in in_epoch(cuts, epoch)
    )
    # 5 ids of the target; the prompt has 5, or 3 without stress and full stop
    assert set(lengths) == {5, 8, 10}
    assert lengths[5] / 1000 == pytest.approx(0.4, abs=0.05)
    assert lengths[8] / 600 == pytest.approx(0.25, abs=0.05)


def test_a_lone_utterance_is_parted_at_a_pause(make_cuts: Any) -> None:
    (cut,) = make_cuts(("ann", "hˈeː, jˈuː tˈuː.", 20))
    groups = [
        "".join(TABLE.decode(group)) for group in LMDataset(of(cut), layout=parts).utterance(cut).groups
    ]
    assert groups == ["h", "ˈeː,", "j", "ˈuː", "t", "ˈuː."]
    for durations, expected in (
        ([2, 6, 2, 2, 2, 6], ["h", "eː", "j", "ˈuː", "t", "ˈuː."]),
        ([2, 4, 2, 4, 2, 6], groups),  # too short a pause
        ([2, 2, 2, 6, 2, 6], groups),  # a long sound is none
        ([1, 5, 2, 2, 2, 18], groups),  # too near the beginning
    ):
        one = cut.with_custom("durations", durations).with_custom("tokens", list(range(sum(durations))))
        said = LMDataset(of(one), layout=parts, p_prompt=1, p_strip=1).utterance(one)
        assert ["".join(TABLE.decode(group)) for group in said.groups] == expected
        assert said.tokens == one.custom["tokens"]
        # half of the pause, 2 tokens, goes to the first sound behind it
        assert said.durations == ([2, 4, 4, 2, 2, 6] if expected != groups else durations)


def test_prompts_are_broken_off_and_end_in_silence(make_cuts: Any) -> None:
    cuts = make_cuts(("ann", "hˈeː jˈuː tˈuː.", 9), ("ann", "a", 2), ("bob", "e", 2))
    first, second, _ = cuts
    dataset = LMDataset(cuts, layout=parts, p_prompt=1, p_cut=1, p_strip=0)
    found = set()
    for epoch in range(60):
        groups, tokens, durations = dataset.utterance(second.with_custom("epoch", epoch))
        kept = len(groups) - 1
        assert groups[:kept] == LMDataset(cuts, layout=parts, p_prompt=0).utterance(first).groups[:kept]
        # of 9 tokens the first 3 or more, one a group; then the last two of the recording
        assert tokens == [*range(kept), 7, 8, 1000, 1001]
        assert durations == [*[1] * (kept - 1), 3, 2]
        found.add(kept)
    assert found == {3, 4, 5}
    # what has no silence to end with stays whole
    assert dataset.utterance(first).tokens[:2] == [1000, 1001]


def test_some_prompts_are_somebody_elses(make_cuts: Any) -> None:
    cuts = make_cuts(*(("ann" if n % 2 else "bob", "a", 4) for n in range(8)))
    dataset = LMDataset(cuts, layout=parts, p_prompt=1, p_other=0.5)
    strangers = Counter(
        (tokens[0] // 1000 - tokens[4] // 1000) % 2
        for epoch in range(100)
        for cut in in_epoch(cuts, epoch)
        if len(tokens := dataset.utterance(cut).tokens) == 8
    )
    # of those drawn from all, 4 of 7 are of the other speaker
    assert strangers[1] / strangers.total() == pytest.approx(0.5 * 4 / 7, abs=0.06)


# -------------------------------------------------------------------------------------------------- acoustic


def check(dataset: AcousticDataset, cuts: CutSet) -> list[tuple[list[int], list[int]]]:
    """Every token stands at its own frames, padding is as it should be; prompt and target tokens per row."""
    batch = dataset[cuts]
    rows = []
    for k in range(len(batch.tokens)):
        length, prompt = int(batch.lens[k]), int(batch.prompt_lens[k])
        frames = batch.frames[k].reshape(-1, 4, 2)
        real = frames[:length] != FLOOR
        tokens = batch.tokens[k, :length, 0].float()
        wanted = tokens[:, None, None] + torch.arange(4)[:, None] / 4
        torch.testing.assert_close(frames[:length][real], wanted.expand(-1, 4, 2)[real])
        assert torch.all(real[:, :3])  # at most the last frame of an utterance is missing
        assert torch.all(frames[length:] == FLOOR)
        assert torch.all(batch.tokens[k, length:] == 0)
        rows.append((batch.tokens[k, :prompt, 0].tolist(), batch.tokens[k, prompt:length, 0].tolist()))
    return rows


def test_prompt_from_the_head_of_the_same_utterance(make_cuts: Any) -> None:
    cuts = make_cuts(("ann", "a", 100), ("ann", "a", 30), ("bob", "a", 3), ("bob", "a", 1), short=1)
    # 23.4375 tokens/s: prompts of 23 to 70 tokens, targets to 117
    dataset = AcousticDataset(cuts, p_cross=0, min_prompt=1, max_prompt=3, max_target=5)
    lengths = []
    for epoch in range(30):
        for k, (prompt, target) in enumerate(check(dataset, in_epoch(cuts, epoch))):
            assert prompt + target == cuts[k].tokens
            lengths.append((k, len(prompt)))
    assert all(23 <= n <= 50 for k, n in lengths if k == 0)  # at most half
    assert len({n for k, n in lengths if k == 0}) > 10
    assert {n for k, n in lengths if k > 0} == {15, 1, 0}


def test_tokens_come_with_their_phonemes(make_cuts: Any) -> None:
    cuts = make_cuts(("ann", "hˈeː.", 4), ("bob", "tɹˈaɪ!", 3))  # ɪ has no token: it is told by its neighbour
    cuts[1].custom["durations"] = [1, 1, 1, 0]
    cuts = of(*cuts)
    batch = AcousticDataset(cuts, p_cross=0)[cuts]
    h, e, t, r, a, i = (TABLE.encode(one)[0] for one in "hetɹaɪ")
    assert batch.tokens[0].tolist() == [[0, -1, h, e], [1, h, e, -1], [2, h, e, -1], [3, h, e, -1]]
    assert batch.tokens[1, :3].tolist() == [[1000, -1, t, r], [1001, t, r, a], [1002, r, a, i]]


def test_the_labels_are_what_the_target_says(make_cuts: Any) -> None:
    cuts = make_cuts(("ann", "hˈeː, jˈuː.", 60), ("ann", "tɹˈaɪ!", 40))
    cuts[0].custom["durations"] = [10, 20, 30, 0]  # the last phoneme has no token: it belongs to the end
    cuts[1].custom["durations"] = [10, 10, 10, 10]
    cuts = of(*cuts)
    own, crossed = (
        AcousticDataset(cuts, p_cross=p, min_prompt=0.4, max_prompt=0.4) for p in (0, 1)
    )  # prompts of 9 tokens
    batch = own[cuts]
    labels = [TABLE.decode(row[:n].tolist()) for row, n in zip(batch.labels, batch.label_lens, strict=True)]
    assert labels == ["eːjuː", "ɹaɪ"]  # the first began in the prompt
    batch = crossed[cuts]
    labels = [TABLE.decode(row[:n].tolist()) for row, n in zip(batch.labels, batch.label_lens, strict=True)]
    assert labels == ["heːjuː", "tɹaɪ"]
    middle = AcousticDataset(cuts, p_cross=1, min_prompt=0.4, max_prompt=0.4, max_target=0.65)  # of 15
    for epoch in range(20):
        batch = middle[in_epoch(of(cuts[1]), epoch)]
        first = int(batch.tokens[0, 9, 0]) - 1000
        begun = [n for n in (0, 10, 20, 30) if first <= n < first + 15]
        assert batch.labels[0].tolist() == [TABLE.encode("tɹaɪ")[n // 10] for n in begun]


def test_a_long_utterance_gives_a_piece(make_cuts: Any) -> None:
    cuts = make_cuts(("ann", "a", 300), short=1)
    dataset = AcousticDataset(cuts, p_cross=0, min_prompt=1, max_prompt=2, max_target=3)
    starts = set()
    for epoch in range(30):
        ((prompt, target),) = check(dataset, in_epoch(cuts, epoch))
        assert 23 <= len(prompt) <= 47
        assert len(target) == 70
        assert prompt + target == list(range(prompt[0], prompt[0] + len(prompt) + 70))
        starts.add(prompt[0])
    assert len(starts) > 20


def test_prompt_from_another_utterance_of_the_speaker(make_cuts: Any) -> None:
    cuts = make_cuts(
        ("ann", "a", 200), ("bob", "a", 90), ("ann", "a", 60), ("ann", "a", 10), ("bob", "a", 80), short=1
    )
    dataset = AcousticDataset(cuts, p_cross=1, min_prompt=1, max_prompt=2, max_target=4)
    sources: Counter[tuple[int, int]] = Counter()
    for epoch in range(40):
        for k, (prompt, target) in enumerate(check(dataset, in_epoch(cuts, epoch))):
            source = prompt[0] // 1000
            sources[k, source] += 1
            assert source != k
            assert speaker_of(cuts[source]) == speaker_of(cuts[k])
            assert prompt == list(range(prompt[0], prompt[0] + len(prompt)))
            assert len(prompt) == 10 if source == 3 else 23 <= len(prompt) <= 47
            assert target == list(range(target[0], target[0] + len(target)))
            assert len(target) == min(94, len(cuts[k].tokens))
            assert target[0] // 1000 == k
    assert set(sources) == {(0, 2), (0, 3), (2, 0), (2, 3), (3, 0), (3, 2), (1, 4), (4, 1)}


def test_prompts_of_both_kinds_are_mixed_and_a_lone_utterance_is_its_own_prompt(make_cuts: Any) -> None:
    cuts = make_cuts(("ann", "a", 80), ("ann", "a", 80), ("bob", "a", 80))
    dataset = AcousticDataset(cuts, p_cross=0.3, max_prompt=1.5)
    crossed = Counter(
        k
        for epoch in range(300)
        for k, (prompt, _) in enumerate(check(dataset, in_epoch(cuts, epoch)))
        if prompt[0] // 1000 != k
    )
    assert crossed[2] == 0
    assert (crossed[0] + crossed[1]) / 600 == pytest.approx(0.3, abs=0.06)


# -------------------------------------------------------------------------------------------- repeatability


def drawn(dataset: AcousticDataset, cut: Any) -> Any:
    piece, prompt = dataset.example(cut)
    return piece.tokens, piece.segments, prompt


@pytest.mark.parametrize("kind", ["lm", "acoustic"])
def test_a_cut_gives_the_same_example_in_any_batch(make_cuts: Any, kind: str) -> None:
    cuts = make_cuts(*(("ann", "hˈeː.", 60 + n) for n in range(8)))

    def examples(order: list[int], epoch: int, seed: int) -> dict[int, Any]:
        made = in_epoch(of(*(cuts[k] for k in order)), epoch)
        if kind == "lm":
            lm = LMDataset(cuts, layout=parts, seed=seed)
            return {k: lm.utterance(cut)[1] for k, cut in zip(order, made, strict=True)}
        acoustic = AcousticDataset(cuts, seed=seed)
        return {k: drawn(acoustic, cut) for k, cut in zip(order, made, strict=True)}

    first = examples([0, 1, 2, 3, 4, 5, 6, 7], epoch=3, seed=0)
    again = examples([6, 2, 7], epoch=3, seed=0) | examples([5, 0, 1, 4, 3], epoch=3, seed=0)
    assert again == first
    assert examples(list(first), epoch=4, seed=0) != first
    assert examples(list(first), epoch=3, seed=1) != first
    # cuts that say no epoch, as in validation, are of epoch 0
    plain = AcousticDataset(cuts)
    assert drawn(plain, cuts[0]) == drawn(plain, in_epoch(cuts, 0)[0])
