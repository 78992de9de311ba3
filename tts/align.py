"""Timestamps and a reading for any recording and its text: ``python -m tts.align``.

The recording is tokenised, the tokens are read (what does it say?) and aligned with the text (when does it say
it?). Both come from the model's own tokenizer: nothing else is loaded, and no network is asked.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from codec.errors import UserError
from tts.cli import Parser, decoded, guarded, no_decoder_notes, set_threads

if TYPE_CHECKING:
    from torch import Tensor

    from tts.checkpoint import Model
    from tts.data.manifest import Row
    from tts.readback import Quality, Reader
    from tts.text import Frontend, Lexicon, SymbolTable, Utterance
    from tts.text.words import Word
    from tts.timestamps import Cue

LONGEST = 900.0  # seconds: the aligner's memory grows with the square of the length, and is 1 GB then
WORST = 5  # readings of a manifest that are shown


class Aligned(NamedTuple):
    """A recording and its text.

    Attributes:
        read: phonemes that the tokenizer reads in it, segments only.
        quality: how they compare with the text's.
        cues: its sentences and words with their times; none where no text was given.
        seconds: of the recording.
    """

    read: str
    quality: Quality | None
    cues: list[Cue]
    seconds: float


class Aligner:
    """Aligns recordings with their texts.

    >>> Aligner(Model.load())("me.wav", "What I say.").cues[0].words

    Args:
        model: whose tokenizer to use.
    """

    def __init__(self, model: Model) -> None:
        from tts.readback import Calibration, Reader

        self.model = model
        self.reader: Reader = Reader(model.tokenizer, model.symbols, Calibration.of(model.folder))

    def __call__(
        self,
        recording: str | Path | Tensor,
        text: str | None,
        *,
        language: str = "en-us",
        lexicon: Lexicon | None = None,
    ) -> Aligned:
        """Read a recording and align it.

        Args:
            recording: a file, or a waveform (samples,) at the model's rate.
            text: what is said, all of it; None only reads.
            language: of the text.
            lexicon: words with their pronunciation.

        Raises:
            AudioError: the recording cannot be read, or holds no sound.
            TextError: nothing in the text can be spoken.
            UserError: it is longer than `LONGEST`, or the text than what is said.
        """
        from codec.audio import read_audio
        from tts.text import Frontend

        said = [] if text is None else Frontend(self.model.symbols, language, lexicon)(text)
        if isinstance(recording, str | Path):
            recording = read_audio(recording, self.model.spec.frames.sample_rate, max_seconds=LONGEST + 1)
        return self.align(recording, said)

    def align(self, wav: Tensor, said: Sequence[Utterance]) -> Aligned:
        """The same for a waveform (samples,) at the model's rate and sentences that are read already."""
        import torch

        rate = self.model.spec.frames.sample_rate
        seconds = len(wav) / rate
        if seconds > LONGEST:
            raise UserError(f"the recording is longer than {LONGEST:g} s; cut it and its text into parts")
        readings = self.reader.read(list(self._tokens(wav)))
        segments = [i for one in readings for i in one.segments]
        read = self.model.symbols.decode(segments)
        if not said:
            return Aligned(read, None, [], seconds)
        log_probs = torch.cat([one.log_probs for one in readings])
        groups = [group for one in said for group in self.model.symbols.groups(one.ids)]
        starts = self.reader.starts(log_probs, groups)
        if starts is None:
            raise UserError(
                f"the text is longer than the speech ({len(groups)} phonemes in {seconds:.1f} s); "
                "check that they belong together"
            )
        quality = self.reader.judge(
            [i for one in said for i in one.ids], segments, words=_words(said, self.model.symbols)
        )
        return Aligned(read, quality, self._cues(said, groups, starts, wav), seconds)

    def _tokens(self, wav: Tensor) -> Iterator[list[int]]:
        """Rows of tokens that follow each other, cut where the waveform is quiet: no row is too long to read."""
        import torch

        from codec.audio import normalize_loudness
        from tts.pipeline import PIECE, split_at_pauses
        from tts.voice import LOUDNESS

        spec = self.model.spec
        rate, per = spec.frames.sample_rate, spec.frames_per_token
        wav = normalize_loudness(wav, rate, LOUDNESS)
        pieces = split_at_pauses(wav, rate, PIECE)
        with torch.inference_mode():
            frames = self.model.features(wav[None].to(self.model.acoustic.mean.device))[0]
            frames = frames[: max(per, len(frames) // per * per)]
            samples, at = 0, 0
            for n, piece in enumerate(pieces, start=1):
                samples += len(piece)
                end = len(frames) if n == len(pieces) else round(samples / spec.frames.hop / per) * per
                if end > at:
                    yield self.model.tokenizer.encode(frames[None, at:end])[0][0].tolist()
                at = max(at, end)

    def _cues(
        self,
        said: Sequence[Utterance],
        groups: Sequence[tuple[int, ...]],
        starts: Sequence[float],
        wav: Tensor,
    ) -> list[Cue]:
        from tts.timestamps import Cue, timed_words

        symbols = self.model.symbols
        written = [symbols.decode(symbols.sounds(group)) for group in groups]
        times = iter(
            timed_words(_words(said, symbols), written, starts, wav, self.model.spec.frames.sample_rate)
        )
        cues = []
        for one in said:
            words = tuple(next(times) for _ in one.words)
            if words:
                cues.append(Cue(one.text, words[0].start, words[-1].end, words))
        return cues


def _words(said: Sequence[Utterance], symbols: SymbolTable) -> list[Word]:
    """The words of several sentences, with their groups counted through."""
    words: list[Word] = []
    first = 0
    for one in said:
        words += [replace(word, first=word.first + first, last=word.last + first) for word in one.words]
        first += len(symbols.groups(one.ids))
    return words


# -------------------------------------------------------------------------------------------- the command line


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status, see `tts.cli`."""
    return guarded(lambda: _run(_parser().parse_args(argv)))


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m tts.align",
        description="Tell what a recording says, and when it says each word of its text.",
        epilog='Example: python -m tts.align me.wav --text "What I say." --out me.srt',
        allow_abbrev=False,
    )
    what = parser.add_argument_group("what to align")
    what.add_argument("recording", nargs="?", metavar="RECORDING", help="wav, flac, ogg, mp3 ...")
    said = what.add_mutually_exclusive_group()
    said.add_argument("--text", help="all that is said in it; without, it is only read")
    said.add_argument("--text-file", metavar="FILE", help="the same, from a text file in UTF-8")
    said.add_argument(
        "--manifest", metavar="FILE", help="instead of one recording, all of a manifest, as for training"
    )
    what.add_argument("--language", default="en-us", help="of the text; default: %(default)s")
    what.add_argument("--lexicon", metavar="FILE", help="how words are said: lines of word<TAB>IPA")
    where = parser.add_argument_group("where to")
    where.add_argument(
        "--out",
        metavar="FILE",
        help=".json, .srt, .vtt or .TextGrid; of a manifest, .jsonl; default: print the words' times",
    )
    where.add_argument(
        "--calibrate",
        action="store_true",
        help="note in the model's folder how well its tokenizer reads the manifest: a sentence that the model "
        "speaks is made again where it reads worse than that, by much",
    )
    where.add_argument("--force", action="store_true", help="overwrite files that exist")
    how = parser.add_argument_group("how")
    how.add_argument("--model", metavar="FOLDER", help="a trained model; default: the embedded one")
    how.add_argument("--device", default="cpu", help="cpu, cuda ...; default: %(default)s")
    how.add_argument("--threads", type=int, metavar="N", help="processor cores to use; default: all")
    return parser


def _run(args: argparse.Namespace) -> None:
    if (args.recording is None) == (args.manifest is None):
        raise UserError("give a recording or --manifest FILE, one of them")
    if args.calibrate and args.manifest is None:
        raise UserError("--calibrate needs many recordings with their texts; give --manifest FILE")
    _check_output(args)
    from tts.pipeline import TTS
    from tts.text import Lexicon

    lexicon = None if args.lexicon is None else Lexicon.load(args.lexicon)
    if args.threads is not None:
        set_threads(args.threads)
    aligner = Aligner(TTS.load(args.model, device=args.device).model)
    if args.manifest is not None:
        _align_manifest(args, aligner, lexicon)
        return
    text = args.text
    if args.text_file is not None:
        path = Path(args.text_file)
        if not path.is_file():
            raise UserError(f"no such text file: {args.text_file!r}; check the path")
        text = decoded(path.read_bytes(), repr(args.text_file))
    with no_decoder_notes():
        found = aligner(Path(args.recording), text, language=args.language, lexicon=lexicon)
    _report(args, found)


def _check_output(args: argparse.Namespace) -> None:
    """Raise before any work what would keep the results from being written."""
    from codec.audio import check_output
    from tts.checkpoint import EMBEDDED
    from tts.readback import CALIBRATION
    from tts.timestamps import check_timestamps

    if args.calibrate:
        path = (EMBEDDED if args.model is None else Path(args.model)) / CALIBRATION
        if path.exists() and not args.force:
            raise UserError(f"{path} exists already; replace it with --force")
    if args.out is None:
        return
    if Path(args.out).is_file() and not args.force:
        raise UserError(f"{args.out!r} exists already; choose another name, or overwrite it with --force")
    if args.manifest is not None:
        check_output(args.out, args.force, endings=(".jsonl",))
    elif args.text is None and args.text_file is None:
        raise UserError("--out is for the times of a text; give --text or --text-file")
    else:
        check_timestamps(args.out, args.force)


def _report(args: argparse.Namespace, found: Aligned) -> None:
    from tts.timestamps import write_timestamps

    print(f"read   {found.read or '-'}")
    if found.quality is None:
        return
    problems = "; ".join(found.quality.problems) or "the text is what is said"
    print(
        f"check  {found.quality.error:.0%} phoneme errors, {found.quality.coverage:.0%} covered: {problems}"
    )
    words = [word for cue in found.cues for word in cue.words]
    if args.out is not None:
        write_timestamps(args.out, found.cues, found.seconds, overwrite=args.force)
        print(f"wrote  {args.out}: the times of {len(words)} words")
        return
    for word in words:
        print(f"{word.start:8.3f} {word.end:8.3f}  {word.text}")


def _align_manifest(args: argparse.Namespace, aligner: Aligner, lexicon: Lexicon | None) -> None:
    """Align all of a manifest, one line of JSON each, and tell how well it is read."""
    from tqdm import tqdm

    from codec.audio import write_whole
    from tts.data.manifest import read_manifest

    rows, bad = read_manifest(args.manifest, skip_bad=True)
    for one in bad:
        print(f"warning: {one.error}", file=sys.stderr)
    align_row = _RowAligner(aligner, lexicon)
    with no_decoder_notes():
        lines = [align_row(row) for row in tqdm(rows, unit="recording", file=sys.stderr)]
    if args.out is not None:
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        write_whole(args.out, text.encode())
        print(f"wrote  {args.out}: {len(lines)} readings")
    error = _summarise(lines)
    if args.calibrate:
        _calibrate(aligner, error)


class _RowAligner:
    """Aligns lines of a manifest, one front end a language."""

    def __init__(self, aligner: Aligner, lexicon: Lexicon | None) -> None:
        self.aligner, self.lexicon = aligner, lexicon
        self.frontends: dict[str, Frontend] = {}

    def __call__(self, row: Row) -> dict[str, Any]:
        """What is known of a line, JSON; with a key ``problem`` where it cannot be aligned."""
        from tts.data.segment import read_row
        from tts.text import Frontend

        model = self.aligner.model
        line = {"id": row.id, "audio": str(row.audio), "text": row.text}
        try:
            if row.language not in self.frontends:
                self.frontends[row.language] = Frontend(model.symbols, row.language, self.lexicon)
            said = self.frontends[row.language].whole([row.text], words=True)
            found = self.aligner.align(read_row(row, model.spec.frames.sample_rate), said)
        except UserError as error:
            return {**line, "problem": str(error)}
        assert found.quality is not None
        words = [[w.text, round(w.start, 3), round(w.end, 3)] for cue in found.cues for w in cue.words]
        judged = {
            "read": found.read,
            "wanted": model.symbols.decode(model.symbols.segments(said[0].ids)),
            "error": round(found.quality.error, 4),
            "coverage": round(found.quality.coverage, 4),
            "problems": list(found.quality.problems),
        }
        return {**line, "seconds": round(found.seconds, 3), **judged, "words": words}


def _summarise(lines: Sequence[dict[str, Any]]) -> float:
    """Tell how well a manifest is read, the worst readings last; returns the phoneme error rate of all.

    Raises:
        UserError: none of its recordings could be read.
    """
    read = sorted((line for line in lines if "error" in line), key=lambda line: line["error"])
    for line in lines:
        if "problem" in line:
            print(f"warning: {line['id']}: {line['problem']}", file=sys.stderr)
    phonemes = sum(len(line["wanted"]) for line in read)
    if not phonemes:
        raise UserError("none of the recordings could be aligned with its text")
    error = sum(line["error"] * len(line["wanted"]) for line in read) / phonemes
    half, tenth = read[len(read) // 2]["error"], read[len(read) * 9 // 10]["error"]
    print(
        f"check  {len(read)} recordings, {error:.1%} phoneme errors; median {half:.1%}, worst tenth {tenth:.1%}"
    )
    for line in read[-WORST:]:
        print(f"{line['error']:7.1%}  {line['id']}: {'; '.join(line['problems']) or 'nothing in particular'}")
    return float(error)


def _calibrate(aligner: Aligner, error: float) -> None:
    """Note a tokenizer's phoneme error rate in its model's folder."""
    from codec.audio import write_whole
    from tts.readback import CALIBRATION

    note = {**asdict(aligner.reader.calibration), "error": round(error, 4)}
    path = aligner.model.folder / CALIBRATION
    write_whole(path, (json.dumps(note, indent=1) + "\n").encode())
    print(f"wrote  {path}: {error:.1%} phoneme errors are usual for this tokenizer")


if __name__ == "__main__":
    sys.exit(main())
