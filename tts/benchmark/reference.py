"""What we compare with: the same work, done plainly.

- The LM: transformers' ``LlamaForCausalLM.generate`` with the very same weights, greedy, for as many new ids.
- The flow: no cache. For every chunk, the voice prompt and all chunks so far run through every solver step again.

Neither needs to be bad: this is what one gets from the library and from the formula. Text front end and vocoder have
no reference; in chains of the reference they are ours.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

from codec.errors import UserError
from codec.vocoders.stream import Respacing, Vocoding
from tts.acoustic.decoder import FlowDecoder
from tts.acoustic.dit import with_context
from tts.acoustic.flow import solve
from tts.lm.model import Aligned, Request, SpeechLM
from tts.pipeline import CHUNK, TTS, Settings, draw_seed
from tts.text.frontend import Frontend
from tts.voice import Voice


class Spoken(NamedTuple):
    """A sentence that our chain has made, for the reference to make again.

    Attributes:
        request: what the LM was asked for.
        written: what it wrote.
        number: which sentence of its text it is.
        seconds: of sound.
    """

    request: Request
    written: Aligned
    number: int
    seconds: float


def speak_once(tts: TTS, texts: Sequence[str], voice: Voice, settings: Settings) -> list[Spoken]:
    """The sentences of some texts. How they sound does not matter here, so one solver step does."""
    cheap = Settings(
        language=settings.language, seed=settings.seed, steps=1, guidance=0.0, candidates=1, retries=0
    )
    prompt = voice.aligned(tts.model.symbols)
    return [
        Spoken(
            Request(one.tokens.groups, prompt, draw_seed(settings.seed, number)),
            one.tokens,
            number,
            len(one.wav) / speech.sample_rate,
        )
        for speech in tts.synthesize(list(texts), voice, cheap)
        for number, one in enumerate(speech.sentences)
    ]


def in_batches(spoken: Sequence[Spoken], size: int) -> list[list[Spoken]]:
    """The batches in which `TTS.synthesize` makes so few sentences: of like length, short ones first."""
    order = sorted(spoken, key=lambda one: sum(map(len, one.request.groups)))
    return [order[start : start + size] for start in range(0, len(order), size)]


# ------------------------------------------------------------------------------------------------------- the LM


def require_transformers() -> None:
    """Raise if transformers is not installed.

    Raises:
        UserError: see above.
    """
    if find_spec("transformers") is None:
        raise UserError(
            'the reference needs transformers, not installed here; run pip install ".[benchmark]", '
            "or give --only acoustic"
        )


def transformers_llama(lm: SpeechLM) -> Any:
    """transformers' Llama on the LM's own weights, not a copy."""
    from transformers import LlamaConfig, LlamaForCausalLM

    ends = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"))  # no id ends it before its time
    config = LlamaConfig(**asdict(lm.llama.config), tie_word_embeddings=False, **ends)
    model = LlamaForCausalLM(config).eval()
    model.load_state_dict(lm.llama.state_dict(), strict=True, assign=True)
    return model


@dataclass(frozen=True)
class Generated:
    """What came of it.

    Attributes:
        ids: (B, new).
        start: seconds to the first new id.
        whole: seconds to the last.
    """

    ids: Tensor
    start: float
    whole: float


class _Listener:
    """A streamer of transformers': told of the prefix, then of each new id."""

    def __init__(self, heard: Callable[[int], None] | None) -> None:
        self.heard, self.count, self.first = heard, -1, 0.0

    def put(self, value: Tensor) -> None:
        self.count += 1
        if self.count == 1:
            self.first = time.perf_counter()
        if self.count and self.heard is not None:
            self.heard(self.count)

    def end(self) -> None:
        pass


@torch.inference_mode()
def generate(
    llama: Any, prefixes: Sequence[Sequence[int]], new: int, heard: Callable[[int], None] | None = None
) -> Generated:
    """Go on from the prefixes, greedily, as one batch.

    Args:
        llama: from `transformers_llama`.
        prefixes: ids, filled up on the left to the longest.
        new: ids to write for each.
        heard: called with the number of new ids so far, after each.
    """
    width = max(map(len, prefixes))
    ids = torch.tensor([[0] * (width - len(p)) + list(p) for p in prefixes])
    seen = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prefixes])
    listener = _Listener(heard)
    started = time.perf_counter()
    out = llama.generate(
        ids, attention_mask=seen, max_new_tokens=new, do_sample=False, pad_token_id=0, streamer=listener
    )
    ended = time.perf_counter()
    assert out.shape == (len(prefixes), width + new)
    return Generated(out[:, width:], listener.first - started, ended - started)


def ids_to_come(lm: SpeechLM, request: Request, written: Aligned) -> list[int]:
    """The ids that plain autoregression writes after the prefix to say what was written, without EOS."""
    prompt, layout = request.prompt, lm.layout
    groups = [*prompt.groups, *request.groups]
    tokens = [*prompt.tokens, *written.tokens]
    stream = layout.stream(groups, tokens, [*prompt.durations, *written.durations])
    return [*layout.text(groups), *stream][len(lm.prefix(request)) :]


def write(tts: TTS, llama: Any, batch: Sequence[Spoken]) -> float:
    """Seconds in which the reference writes as many ids as the longest row of the batch has, with its EOS."""
    lm = tts.model.lm
    new = max(len(ids_to_come(lm, one.request, one.written)) for one in batch) + 1
    return generate(llama, [lm.prefix(one.request) for one in batch], new).whole


# ----------------------------------------------------------------------------------------------------- the flow


@torch.inference_mode()
def plain_flow(
    decoder: FlowDecoder,
    prompts: Sequence[tuple[Tensor, Tensor]],
    tokens: Sequence[Tensor],
    noise: Sequence[Tensor],
    *,
    steps: int | None,
    guidance: float | None,
    chunk: int | None = None,
) -> list[Tensor]:
    """Frames (T, D) for every row, prompts and targets in one pass a solver step: what `FlowDecoder.decode` gives.

    Args:
        decoder: the model.
        prompts: of each row, frames (T, D) and tokens (N,) or (N, 4).
        tokens, noise: of each row, (N,) or (N, 4) and (T, D).
        steps, guidance, chunk: as `FlowDecoder.decode` takes them.
    """
    steps = decoder.steps if steps is None else steps
    guidance = decoder.guidance if guidance is None else guidance
    per, dim = decoder.spec.frames_per_token, decoder.spec.frames.dim
    prompt_lens = torch.tensor([len(prompt) for _, prompt in prompts])
    lens = prompt_lens + torch.tensor([len(row) for row in tokens])
    count, size = len(tokens), int(lens.max())
    ids = decoder.nothing(count, size)
    clean, x = torch.zeros(2, count, size * per, dim).unbind()
    for i, ((frames, prompt), row, start) in enumerate(zip(prompts, tokens, noise, strict=True)):
        first, last = len(prompt), len(prompt) + len(row)
        ids[i, :first], ids[i, first:last] = with_context(prompt, 1), with_context(row, 1)
        clean[i, : first * per], x[i, first * per : last * per] = decoder.scale(frames), start
    speaker = decoder.dit.speaker(clean[:, : int(prompt_lens.max()) * per], prompt_lens * per)
    prompt = torch.arange(size) < prompt_lens[:, None]
    mask = decoder.mask(prompt_lens, lens, size, chunk)
    if guidance:
        ids, clean = (
            torch.cat([ids, decoder.nothing(count, size)]),
            torch.cat([clean, torch.zeros_like(clean)]),
        )
        speaker = torch.cat([speaker, decoder.dit.no_speaker.expand(count, -1)])
        prompt, mask = torch.cat([prompt, prompt]), torch.cat([mask, mask])
    given = prompt.repeat_interleave(per, dim=1)[..., None]

    def velocity(x: Tensor, t: float, step: int) -> Tensor:
        frames = torch.where(given, clean, x.repeat(len(ids) // count, 1, 1))
        times = torch.full((len(ids),), t)
        v: Tensor = decoder.dit(frames, times, ids, speaker, prompt=prompt, mask=mask)
        return (1 + guidance) * v[:count] - guidance * v[count:] if guidance else v

    frames = decoder.unscale(solve(velocity, x, steps))
    ends = zip((prompt_lens * per).tolist(), (lens * per).tolist(), strict=True)
    return [frames[i, first:last] for i, (first, last) in enumerate(ends)]


def full_prefix(
    decoder: FlowDecoder,
    prompt: tuple[Tensor, Tensor],
    tokens: Tensor,
    noise: Tensor,
    *,
    steps: int | None,
    guidance: float | None,
    chunk: int,
) -> Iterator[Tensor]:
    """The frames (T, D) of one chunk of `chunk` tokens after another, all that came before made anew for each.

    Args:
        decoder: the model.
        prompt: frames (T, D) and tokens (N,) or (N, 4).
        tokens, noise: (N,) or (N, 4) and (T, D).
        steps, guidance: of the solver.
        chunk: tokens.
    """
    per = decoder.spec.frames_per_token
    for first, last in pairwise(chunk_ends(len(tokens), chunk)):
        (frames,) = plain_flow(
            decoder,
            [prompt],
            [tokens[:last]],
            [noise[: last * per]],
            steps=steps,
            guidance=guidance,
            chunk=chunk,
        )
        yield frames[first * per :]


def chunk_ends(count: int, chunk: int) -> list[int]:
    """0 and the ends of all chunks of so many tokens."""
    return [*range(0, count, chunk), count]


def noise_for(tts: TTS, tokens: int, seed: int, number: int) -> Tensor:
    """The noise (T, D) that our chain starts a sentence from."""
    spec = tts.model.spec
    generator = torch.Generator().manual_seed(draw_seed(seed, number))
    return torch.randn(tokens * spec.frames_per_token, spec.frames.dim, generator=generator)


def decode(tts: TTS, voice: Voice, batch: Sequence[Spoken], settings: Settings) -> list[Tensor]:
    """The frames (T, D) of a batch of sentences, each in one chunk."""
    return plain_flow(
        tts.model.acoustic,
        [(voice.frames, voice.told(tts.model.symbols))] * len(batch),
        [one.written.told(tts.model.symbols) for one in batch],
        [noise_for(tts, len(one.written.tokens), settings.seed, one.number) for one in batch],
        steps=settings.steps,
        guidance=settings.guidance,
    )


# -------------------------------------------------------------------------------------------------- the stream


def stream(
    tts: TTS,
    llama: Any,
    text: str,
    voice: Voice,
    settings: Settings,
    spoken: Sequence[Spoken],
    heard: Callable[[Tensor], None],
) -> None:
    """Speak a text chunk by chunk with the reference's LM and flow: what `tts.streaming.stream` does, plainly.

    The LM's ids are thrown away and those that ours wrote are taken, so that both make the same sound.

    Args:
        tts: the model.
        llama: from `transformers_llama`.
        text, voice, settings: as `TTS.stream` takes them.
        spoken: the text's sentences, from `speak_once`.
        heard: called with the next samples, as soon as they are there.
    """
    Frontend(tts.model.symbols, settings.language, settings.lexicon)(text)
    for one in spoken:
        _stream_sentence(tts, llama, one, voice, settings, heard)


def _stream_sentence(
    tts: TTS,
    llama: Any,
    one: Spoken,
    voice: Voice,
    settings: Settings,
    heard: Callable[[Tensor], None],
) -> None:
    lm, size = tts.model.lm, settings.chunk or CHUNK
    tokens = one.written.told(tts.model.symbols)
    pieces = full_prefix(
        tts.model.acoustic,
        (voice.frames, voice.told(tts.model.symbols)),
        tokens,
        noise_for(tts, len(tokens), settings.seed, one.number),
        steps=settings.steps,
        guidance=settings.guidance,
        chunk=size,
    )
    respacing, sound = Respacing(settings.speed), Vocoding(tts.model.vocoder)
    ids = ids_to_come(lm, one.request, one.written)
    # the ids written once the first token behind a chunk is known
    written = [n for n, index in enumerate(ids, 1) if index >= lm.layout.first_code]
    ready = {written[end] for end in chunk_ends(len(tokens), size)[1:-1]}

    def listen(count: int) -> None:
        if count in ready:
            wav = sound(respacing(next(pieces)))
            if len(wav):
                heard(wav)

    generate(llama, [lm.prefix(one.request)], len(ids) + 1, listen)
    heard(sound(respacing(next(pieces), last=True), last=True))
