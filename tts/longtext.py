"""Whether a long text ends as well as it began: ``python -m tts.longtext``.

Minute by minute: word errors by a recogniser, similarity to the prompt by a speaker encoder, phoneme errors read
back, sentences made again, memory. What measures is loaded after everything has been spoken, so the memory is the
chain's.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from codec.errors import UserError
from tts.cli import Parser, decoded, guarded, no_decoder_notes, set_threads

if TYPE_CHECKING:
    from tts.evaluate.recognise import Recogniser
    from tts.evaluate.similarity import SpeakerEncoder
    from tts.pipeline import TTS, Settings
    from tts.voice import Voice

MINUTE = 60.0


@dataclass
class Minute:
    """What was said in one minute of the speech.

    Attributes:
        memory: bytes that the process held at most until then.
        seconds: of sound.
        again: sentences that were made more than once.
        bad: sentences that read badly to the end.
        read_errors: phoneme errors read back, of each sentence.
        texts, files: of the sentences, which are kept in files.
        words, word_errors: of all sentences.
        similarity: of the minute to the prompt.
    """

    memory: int = 0
    seconds: float = 0.0
    again: int = 0
    bad: int = 0
    read_errors: list[float] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)
    words: int = 0
    word_errors: int = 0
    similarity: float = 0.0


def speak(tts: TTS, text: str, voice: Voice, settings: Settings, folder: Path) -> list[Minute]:
    """Speak a text; its sentences are written into `folder`, and none is held."""
    import soundfile

    from tts.evaluate.cost import peak_memory

    rate = tts.model.spec.frames.sample_rate
    minutes: list[Minute] = []
    for n, one in enumerate(tts.sentences(text, voice, settings)):
        while len(minutes) <= one.start // MINUTE:
            minutes.append(Minute())
        minute, path = minutes[-1], folder / f"{n:05}.flac"
        soundfile.write(path, one.wav.numpy(), rate)
        minute.texts.append(one.text)
        minute.files.append(path)
        minute.seconds += len(one.wav) / rate
        minute.memory = peak_memory().get("main", 0)
        if one.quality is not None:
            minute.again += one.quality.attempts > 1
            minute.bad += not one.quality.ok
            minute.read_errors.append(one.quality.error)
    return [minute for minute in minutes if minute.texts]


def measure(
    minutes: Sequence[Minute],
    tts: TTS,
    voice: Voice,
    recogniser: Recogniser,
    encoder: SpeakerEncoder,
    language: str,
) -> None:
    """Fill in what is measured on the sound; the prompt is the voice's frames, through the vocoder."""
    import numpy as np
    import torch
    from tqdm import tqdm

    from codec.audio import resample
    from tts.evaluate.recognise import errors, normalised
    from tts.evaluate.sample import RATE, load_wav

    sound = resample(tts.vocode(voice.frames.to(tts.device)), tts.model.spec.frames.sample_rate, RATE)
    prompt = encoder(sound.numpy().astype(np.float32))
    code = language.partition("-")[0]
    for minute in tqdm(minutes, unit="minute", file=sys.stderr):
        wavs = [load_wav(path) for path in minute.files]
        for text, wav in zip(minute.texts, wavs, strict=True):
            found = errors(normalised(text, code), normalised(recogniser(wav, code), code))
            minute.words += found.get("words", 0)
            minute.word_errors += found.get("word_errors", 0)
        own = torch.from_numpy(encoder(np.concatenate(wavs)))
        minute.similarity = float(torch.cosine_similarity(own, torch.from_numpy(prompt), dim=0))


def table(minutes: Sequence[Minute]) -> str:
    """The minutes as a table in Markdown."""
    lines = [
        "| minute | speech | word errors | similarity | read back | made again | bad | memory |",
        "|---" * 8 + "|",
    ]
    for n, one in enumerate(minutes, start=1):
        read = sum(one.read_errors) / max(1, len(one.read_errors))
        lines.append(
            f"| {n} | {one.seconds:.0f} s | {one.word_errors / max(1, one.words):.1%} | {one.similarity:.3f} "
            f"| {read:.1%} | {one.again} of {len(one.texts)} | {one.bad} | {one.memory / 2**20:.0f} MiB |"
        )
    return "\n".join(lines) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status, see `tts.cli`."""
    return guarded(lambda: _run(_parser().parse_args(argv)))


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m tts.longtext",
        description="Speak a long text and tell, minute by minute, how well it is spoken.",
        epilog="Example: python -m tts.longtext story.txt --voice me.wav",
        allow_abbrev=False,
    )
    parser.add_argument(
        "text", metavar="FILE", help="a text file in UTF-8; 1,500 words are about ten minutes"
    )
    parser.add_argument(
        "--voice", required=True, help="a recording, a saved voice, or the name of one that ships"
    )
    parser.add_argument("--language", default="en-us", help="of the text; default: %(default)s")
    parser.add_argument("--model", metavar="FOLDER", help="a trained model; default: the embedded one")
    parser.add_argument("--recogniser", default="base", metavar="NAME", help="as for tts.evaluate")
    parser.add_argument("--encoder", default="resemblyzer", metavar="NAME", help="as for tts.evaluate")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="default: %(default)s")
    parser.add_argument("--batch", type=int, default=8, metavar="N", help="default: %(default)s")
    parser.add_argument("--device", default="cpu", help="cpu, cuda ...; default: %(default)s")
    parser.add_argument("--threads", type=int, metavar="N", help="processor cores to use; default: all")
    return parser


def _run(args: argparse.Namespace) -> None:
    path = Path(args.text)
    if not path.is_file():
        raise UserError(f"no such text file: {args.text!r}; check the path")
    text = decoded(path.read_bytes(), repr(args.text))
    if args.threads is not None:
        set_threads(args.threads)
    from tts.evaluate.recognise import Intelligibility, recogniser
    from tts.evaluate.similarity import Similarity, encoder
    from tts.pipeline import TTS, Settings

    hears, knows = recogniser(args.recogniser, device=args.device), encoder(args.encoder, device=args.device)
    for metric in (Intelligibility(hears), Similarity(knows)):
        metric.require()
    tts = TTS.load(args.model, device=args.device)
    with no_decoder_notes():
        voice = tts.voice(args.voice)
    settings = Settings(language=args.language, seed=args.seed, batch=args.batch)
    with tempfile.TemporaryDirectory() as folder:
        minutes = speak(tts, text, voice, settings, Path(folder))
        measure(minutes, tts, voice, hears, knows, args.language)
    print(table(minutes))


if __name__ == "__main__":
    sys.exit(main())
