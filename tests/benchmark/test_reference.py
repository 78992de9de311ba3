"""The reference does the same work: the same ids, the same frames, the same sound."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tts.benchmark import reference
from tts.benchmark.lm import greedy
from tts.benchmark.section import Bench
from tts.benchmark.texts import SENTENCES, words
from tts.lm.model import Aligned, Request, SpeechLM
from tts.pipeline import TTS, Settings


def counted(tts: TTS) -> tuple[list[int], Any]:
    """The lengths in frames that the flow's network is given from now on, and what ends the counting."""
    lengths: list[int] = []
    hook = tts.model.acoustic.dit.register_forward_pre_hook(
        lambda _, args: lengths.append(args[0].shape[0] * args[0].shape[1])
    )
    return lengths, hook


# ------------------------------------------------------------------------------------------------------- the LM


def test_it_has_our_weights_and_no_copy(bench: Bench) -> None:
    mine, theirs = bench.tts.model.lm.llama.state_dict(), bench.llama.state_dict()
    assert mine.keys() == theirs.keys()
    assert all(mine[name].data_ptr() == theirs[name].data_ptr() for name in mine)


@pytest.mark.parametrize("rows", [1, 3])
def test_greedy_ids_are_the_same(rows: int) -> None:
    lm = SpeechLM(
        symbols=30,
        codes=50,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    ).eval()
    for parameter in lm.parameters():
        torch.nn.init.normal_(parameter, mean=0.5 if parameter.ndim == 1 else 0.0, std=0.3)
    prefixes = torch.randint(lm.layout.vocab_size, (rows, 20))
    theirs = reference.generate(reference.transformers_llama(lm), prefixes.tolist(), 12)
    mine = greedy(lm, prefixes, 12)
    assert mine.ids.shape == (rows, 12)
    assert torch.equal(mine.ids, theirs.ids)
    assert len(set(mine.ids.flatten().tolist())) > 3
    for made in (mine, theirs):
        assert 0 < made.start < made.whole


def test_rows_of_unlike_length_are_as_alone(bench: Bench) -> None:
    prefixes = [torch.randint(600, (n,)).tolist() for n in (9, 17, 4)]
    together = reference.generate(bench.llama, prefixes, 8).ids
    for row, prefix in zip(together, prefixes, strict=True):
        assert torch.equal(row, reference.generate(bench.llama, [prefix], 8).ids[0])


def test_every_new_id_is_heard_once(bench: Bench) -> None:
    heard: list[int] = []
    reference.generate(bench.llama, [[1, 2, 3]], 5, heard.append)
    assert heard == [1, 2, 3, 4, 5]


def test_ids_to_come_are_what_the_lm_writes(bench: Bench) -> None:
    lm = bench.tts.model.lm
    groups = [(1,), (2, 3), (4,)]
    request = Request(groups, Aligned([(5,), (6,)], [7, 8, 9], [2, 1]))
    written = Aligned(groups, [10, 11, 12, 13], [1, 0, 3])
    code, end = lm.layout.first_code, lm.layout.text_end
    ids = reference.ids_to_come(lm, request, written)
    assert ids == [code + 10, 4, end, code + 11, code + 12, code + 13]
    assert lm.prefix(request)[-1] == 3  # of the second group, announced


def test_it_writes_as_many_ids_as_the_longest_row(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []

    def generate(llama: Any, prefixes: Any, new: int) -> reference.Generated:
        asked.append((len(prefixes), new))
        return reference.Generated(torch.zeros(0), 1.0, 2.5)

    monkeypatch.setattr(reference, "generate", generate)
    spoken = bench.spoken(SENTENCES[:3])
    assert reference.write(bench.tts, bench.llama, spoken) == 2.5
    lm = bench.tts.model.lm
    count = [len(reference.ids_to_come(lm, one.request, one.written)) for one in spoken]
    assert asked == [(3, max(count) + 1)]


# ----------------------------------------------------------------------------------------------------- the flow


def case(bench: Bench, *sizes: int) -> tuple[list[tuple[Tensor, Tensor]], list[Tensor], list[Tensor]]:
    """The voice's prompt whole and shortened by turns, tokens, and noise."""
    spec, voice = bench.tts.model.spec, bench.voice
    per = spec.frames_per_token
    prompts = [(voice.frames[: n * per], voice.tokens[:n]) for n in (len(voice.tokens), 20)]
    tokens = [torch.randint(spec.codes, (size,)) for size in sizes]
    noise = [torch.randn(size * per, spec.frames.dim) for size in sizes]
    return [prompts[i % 2] for i in range(len(sizes))], tokens, noise


@pytest.mark.parametrize("guidance", [0.0, 2.0])
@pytest.mark.parametrize("chunk", [None, 5])
def test_plain_frames_are_ours(bench: Bench, guidance: float, chunk: int | None) -> None:
    decoder, work = bench.tts.model.acoustic, case(bench, 12, 5, 9)
    mine = decoder.decode(*work, steps=3, guidance=guidance, chunk=chunk)
    plain = reference.plain_flow(decoder, *work, steps=3, guidance=guidance, chunk=chunk)
    for one, other in zip(mine, plain, strict=True):
        assert one.std() > 0.1
        torch.testing.assert_close(other, one, atol=1e-3, rtol=1e-4)


def test_chunks_of_the_full_prefix_are_ours_and_run_everything_again(bench: Bench) -> None:
    decoder = bench.tts.model.acoustic
    (prompt, *_), (tokens, *_), (noise, *_) = case(bench, 14)
    per, steps = decoder.spec.frames_per_token, 3
    state = decoder.start(prompt[0][None], prompt[1][None], steps=steps)
    ours, hook = counted(bench.tts)
    mine = [
        decoder.decode_chunk(state, piece[None], start[None])[0]
        for piece, start in zip(tokens.split(5), noise.split(5 * per), strict=True)
    ]
    hook.remove()
    theirs, hook = counted(bench.tts)
    plain = list(reference.full_prefix(decoder, prompt, tokens, noise, steps=steps, guidance=2.0, chunk=5))
    hook.remove()
    assert [len(one) for one in plain] == [5 * per, 5 * per, 4 * per]
    torch.testing.assert_close(torch.cat(plain), torch.cat(mine), atol=1e-3, rtol=1e-4)
    sides = 2  # with and without conditions
    assert sum(ours) == steps * sides * per * 14
    assert sum(theirs) == steps * sides * per * sum(len(prompt[1]) + end for end in (5, 10, 14))


def test_ends_of_chunks() -> None:
    assert reference.chunk_ends(12, 5) == [0, 5, 10, 12]
    assert reference.chunk_ends(10, 5) == [0, 5, 10]
    assert reference.chunk_ends(3, 5) == [0, 3]


def test_a_batch_is_what_the_chain_makes(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    tts, settings = bench.tts, Settings(steps=2, batch=2, candidates=1, retries=0)
    made: list[list[Tensor]] = []
    decode = tts.model.acoustic.decode

    def kept(*args: Any, **more: Any) -> list[Tensor]:
        made.append(decode(*args, **more))
        return made[-1]

    monkeypatch.setattr(tts.model.acoustic, "decode", kept)
    texts = SENTENCES[:4]
    tts.synthesize(list(texts), bench.voice, settings)
    batches = reference.in_batches(reference.speak_once(tts, texts, bench.voice, settings), 2)
    assert [len(batch) for batch in batches] == [2, 2]
    for mine, batch in zip(made, batches, strict=False):
        plain = reference.decode(tts, bench.voice, batch, settings)
        for one, other in zip(mine, plain, strict=True):
            torch.testing.assert_close(other, one, atol=1e-3, rtol=1e-4)


# -------------------------------------------------------------------------------------------------- the stream


def test_its_stream_sounds_as_ours(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    from codec.audio import FADE
    from codec.vocoders.stream import limited

    tts, text = bench.tts, words(20)  # two sentences
    settings = Settings(steps=2, chunk=5, retries=0)
    chunks = list(tts.stream(text, bench.voice, settings))
    rate = chunks[0].sample_rate
    sentences = [[chunk.wav for chunk in chunks if chunk.sentence == n] for n in (0, 1)]
    pause = sentences[1].pop(0)
    assert not pause.any()
    order: list[str] = []
    generate = reference.generate

    def watched(llama: Any, prefixes: Any, new: int, heard: Any) -> reference.Generated:
        done = generate(llama, prefixes, new, heard)
        order.append("written")
        return done

    monkeypatch.setattr(reference, "generate", watched)
    heard: list[Tensor] = []

    def hear(wav: Tensor) -> None:
        order.append("heard")
        heard.append(wav)

    spoken = bench.spoken([text])
    reference.stream(tts, bench.llama, text, bench.voice, settings, spoken, hear)
    assert order[0] == "heard" and order.count("written") == 2 and order[-2:] == ["written", "heard"]
    mine, theirs = torch.cat([torch.cat(wavs) for wavs in sentences]), limited(torch.cat(heard))
    assert len(mine) == len(theirs)
    edge, first = round(FADE * rate), sum(map(len, sentences[0]))
    for start, end in ((edge, first - edge), (first + edge, len(mine) - edge)):  # ours is faded at its ends
        torch.testing.assert_close(theirs[start:end], mine[start:end], atol=1e-3, rtol=1e-2)
    assert mine.abs().max() > 0.01
