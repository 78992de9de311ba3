"""A voice prompt: what the models need of a few seconds of somebody, computed once and kept in a file."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from codec.audio import (
    SILENCE_DBFS,
    check_output,
    fade,
    normalize_loudness,
    read_audio,
    trim_silence,
    write_whole,
)
from codec.errors import AudioError, SpecError, UserError
from codec.spec import TokenSpec, require_same
from tts.checkpoint import Model
from tts.lm.model import Aligned
from tts.text import DEFAULT_LANGUAGE, SymbolTable
from tts.text.frontend import Frontend

MIN_SECONDS = 1.0
MAX_SECONDS = 60.0  # decoded of a long recording
PROMPT_SECONDS = 8.0  # kept of it
TAIL = 0.12  # seconds of silence behind one that is cut, as recordings of whole sentences have
LOUDNESS = -23.0  # LUFS; the models were trained around it


@dataclass(frozen=True)
class Voice:
    """A voice prompt.

    Attributes:
        frames: (T, D) float32, T = frames_per_token * N.
        tokens: (N,) int64.
        phonemes: what is said, as a phoneme string: the transcript's, or what the tokenizer read.
        durations: tokens of each phoneme group.
        spec: the grid of frames and tokens.
        origin: where the recording is from, for who passes the voice on.
        tokenizer_id: which trained tokenizer made the tokens, see `tts.checkpoint.fingerprint`.
    """

    frames: Tensor
    tokens: Tensor
    phonemes: str
    durations: tuple[int, ...]
    spec: TokenSpec
    origin: str = ""
    tokenizer_id: str = ""

    @classmethod
    def from_audio(
        cls,
        audio: str | Path | Tensor,
        *,
        text: str | None = None,
        language: str = DEFAULT_LANGUAGE,
        model: Model | None = None,
        origin: str = "",
    ) -> "Voice":
        """Make a voice of a recording: at most its first `PROMPT_SECONDS`, cut at a pause where there is one.

        Args:
            audio: a file soundfile reads, at any rate; or a waveform (samples,) at the model's rate.
            text: what is said, all of it. Not needed: the tokenizer reads the recording.
            language: of `text`.
            model: whose tokenizer to use; the embedded one by default.
            origin: a note to keep with the voice.

        Raises:
            AudioError: no such file, no audio, shorter than `MIN_SECONDS`, silent; nothing is said in it; or
                it has a text and is longer than `MAX_SECONDS`.
            TextError: nothing in `text` can be spoken.
            UserError: the text is longer than what is said.
        """
        model = model or Model.load()
        rate, name = (
            model.spec.frames.sample_rate,
            str(audio) if not isinstance(audio, Tensor) else "the waveform",
        )
        ids = [] if text is None else [i for one in Frontend(model.symbols, language)(text) for i in one.ids]
        wav = read_speech(audio, rate, max_seconds=MAX_SECONDS + 1)
        # without a transcript nothing past the prompt matters; with one, all of it must be aligned
        if text is None:
            wav = wav[: int((PROMPT_SECONDS + 1) * rate)]
        elif len(wav) > MAX_SECONDS * rate:
            raise AudioError(
                f"{name}: with its text, at most {MAX_SECONDS:g} s can be used; cut both, or leave the text"
            )
        wav = normalize_loudness(wav, rate, LOUDNESS)
        frames, tokens = encoded(model, wav)
        if text is None:
            ids = model.tokenizer.read(tokens[None])[0]
            if len(ids) < 2:
                raise AudioError(
                    f"{name}: no speech can be read in it; give a recording of somebody speaking"
                )
        groups = model.symbols.groups(ids)
        durations = group_durations(model, tokens, groups)
        most = int(PROMPT_SECONDS * model.spec.rate)
        if len(tokens) > most:
            kept = quiet_end(durations, levels(wav, model.spec, len(tokens)), most)
            groups, ids = groups[:kept], [i for group in groups[:kept] for i in group]
            samples = sum(durations[:kept]) * model.spec.frames_per_token * model.spec.frames.hop
            wav = torch.cat([fade(wav[:samples], rate, start=False), wav.new_zeros(round(TAIL * rate))])
            frames, tokens = encoded(model, wav)
            durations = group_durations(model, tokens, groups)
        frames = frames.half().float()  # as a file keeps them: a saved voice speaks as this one does
        phonemes = model.symbols.decode(ids)
        return cls(
            frames.cpu(), tokens.cpu(), phonemes, tuple(durations), model.spec, origin, model.tokenizer_id
        )

    def aligned(self, symbols: SymbolTable) -> Aligned:
        """The prompt as the LM takes it."""
        return Aligned(symbols.groups(symbols.encode(self.phonemes)), self.tokens.tolist(), self.durations)

    def told(self, symbols: SymbolTable) -> Tensor:
        """The prompt's tokens as the acoustic decoder takes them, (N, 4)."""
        return self.aligned(symbols).told(symbols)

    @property
    def seconds(self) -> float:
        """How much of the recording is kept."""
        return len(self.tokens) / self.spec.rate

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write the voice, whole or not at all.

        Raises:
            AudioError: the file exists and is not to be overwritten, or its folder does not.
        """
        path = Path(path)
        check_voice_output(path, overwrite)
        note = {
            "phonemes": self.phonemes,
            "durations": self.durations,
            "spec": asdict(self.spec),
            "origin": self.origin,
            "tokenizer": self.tokenizer_id,
        }
        tensors = {
            "frames": self.frames.half().contiguous(),
            "tokens": self.tokens.to(torch.int32).contiguous(),
        }
        write_whole(path, save(tensors, metadata={"voice": json.dumps(note, ensure_ascii=False)}))

    @classmethod
    def load(cls, path: str | Path) -> "Voice":
        """Read a saved voice.

        Raises:
            UserError: there is no such file, or it is not a voice.
        """
        if not Path(path).is_file():
            raise UserError(f"{path}: no such voice file")
        try:
            with safe_open(path, framework="pt", device="cpu") as file:
                note = json.loads((file.metadata() or {})["voice"])
                frames, tokens = file.get_tensor("frames"), file.get_tensor("tokens")
            spec = TokenSpec.from_dict(note["spec"])
            durations, phonemes, origin = tuple(note["durations"]), str(note["phonemes"]), str(note["origin"])
            shape = (len(tokens) * spec.frames_per_token, spec.frames.dim)
            if not (
                frames.shape == shape
                and tokens.shape == (sum(durations),)
                and len(tokens)
                and frames.isfinite().all()
            ):
                raise ValueError("its frames, tokens and durations do not belong together")
            if not 0 <= int(tokens.min()) <= int(tokens.max()) < spec.codes:
                raise ValueError("its tokens are beyond its grid")
            return cls(
                frames.float(), tokens.long(), phonemes, durations, spec, origin, str(note["tokenizer"])
            )
        except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
            raise UserError(f"{path}: not a saved voice of this program ({error})") from error

    def require(self, model: Model, name: str = "the voice") -> None:
        """Raise `SpecError` where the voice was made with a model on another grid, or with other phonemes."""
        require_same(self.spec, model.spec, a_name=name, b_name=f"the model {model.folder}")
        if self.tokenizer_id != model.tokenizer_id:
            raise SpecError(
                f"{name} and the model {model.folder} do not fit together: the voice has the tokens of tokenizer "
                f"{self.tokenizer_id}, the model is of {model.tokenizer_id}; make the voice again from its recording"
            )
        if len(model.symbols.groups(model.symbols.encode(self.phonemes))) != len(self.durations):
            raise SpecError(
                f"{name} and the model {model.folder} do not fit together: the model's phoneme table does "
                f"not have all of {self.phonemes!r}; make the voice again from its recording"
            )


def check_voice_output(path: Path, overwrite: bool = False) -> None:
    """Raise now what `Voice.save` would raise after the work."""
    if path.suffix != ".safetensors":
        raise UserError(f"{path}: a voice is saved as .safetensors")
    check_output(path, overwrite, endings=(".safetensors",))


def encoded(model: Model, wav: Tensor) -> tuple[Tensor, Tensor]:
    """A waveform (samples,) -> frames (T, D) and tokens (N,), whole tokens only, where the model is."""
    frames, each = model.features(wav[None].to(model.acoustic.mean.device))[0], model.spec.frames_per_token
    frames = frames[: max(1, len(frames) // each) * each]
    return frames, model.tokenizer.encode(frames[None])[0][0]


def quiet_end(durations: Sequence[int], levels: Tensor, most: int) -> int:
    """How many groups to keep of a prompt that is too long: up to the one in the last 40 % that ends most quietly.

    What breaks off in the middle of a word is gone on with: the first sound of the sentence is lost then.

    Args:
        durations: tokens of every group.
        levels: (N,) of every token.
        most: tokens that may be kept. More only where no group is that short.
    """
    ends = list(accumulate(durations))
    fitting = [n for n, end in enumerate(ends, 1) if 0 < end <= most]
    if not fitting:
        return next(n for n, end in enumerate(ends, 1) if end)
    late = [n for n in fitting if ends[n - 1] >= 0.6 * most] or fitting[-1:]
    return min(late, key=lambda n: (float(levels[ends[n - 1] - 1]), -n))


def levels(wav: Tensor, spec: TokenSpec, count: int) -> Tensor:
    """Mean square of a waveform (samples,) during each of `count` tokens, (count,)."""
    each = spec.frames_per_token * spec.frames.hop
    whole = F.pad(wav, (0, max(0, count * each - len(wav))))[: count * each]
    return whole.view(count, each).square().mean(1)


def read_speech(audio: str | Path | Tensor, sample_rate: int, *, max_seconds: float | None = None) -> Tensor:
    """A recording, or a waveform (samples,) at `sample_rate`, without the silence around the speech.

    Raises:
        AudioError: no such file, no audio, NaN samples, shorter than `MIN_SECONDS`, silent or nearly so.
    """
    if isinstance(audio, Tensor):
        name, wav = "the waveform", audio.float()
        if wav.ndim != 1 or len(wav) < MIN_SECONDS * sample_rate:
            raise AudioError(
                f"{name} has shape {tuple(wav.shape)}; give (samples,), {MIN_SECONDS:g} s or more"
            )
        if not wav.isfinite().all():
            raise AudioError(f"{name} holds NaN or infinite samples")
        if wav.abs().max() < 10 ** (SILENCE_DBFS / 20):
            raise AudioError(f"{name} is silent; give one louder than {SILENCE_DBFS:.0f} dBFS")
        wav = wav if max_seconds is None else wav[: int(max_seconds * sample_rate)]
    else:
        name, wav = (
            str(audio),
            read_audio(audio, sample_rate, min_seconds=MIN_SECONDS, max_seconds=max_seconds),
        )
    wav = trim_silence(wav, sample_rate)
    if len(wav) < 0.5 * sample_rate:
        raise AudioError(
            f"{name}: only {len(wav) / sample_rate:.2f} s of it are not silence; give 1 s of speech or more"
        )
    return wav


def group_durations(model: Model, tokens: Tensor, groups: Sequence[tuple[int, ...]]) -> list[int]:
    """Tokens of each phoneme group, by forced alignment of tokens (N,); their sum is N.

    Raises:
        UserError: more phonemes than the tokens can say.
    """
    segments = [model.symbols.segments(group) for group in groups]
    flat = torch.tensor([i for group in segments for i in group], device=tokens.device)
    per_segment = iter(model.tokenizer.durations(tokens, flat))
    return [sum(next(per_segment) for _ in group) for group in segments]
