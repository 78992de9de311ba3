"""Before and after: held-out sentences in the new voices, other voices with other sentences, and what follows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lhotse.cut import MonoCut

from codec.audio import write_audio
from codec.errors import UserError
from tts.checkpoint import Model
from tts.data.datasets import speaker_of
from tts.evaluate.cases import Case
from tts.evaluate.figures import Estimate
from tts.evaluate.run import evaluate
from tts.evaluate.sample import Metric
from tts.pipeline import TTS, Settings
from tts.tune.run import Tuning, best_prompt

HELD_OUT = 20  # sentences at most
ERRORS, CHARACTER = (
    ("wer", "per"),
    "similarity",
)  # word errors where a recogniser is installed, else read back
LABELS = {
    "wer": "word error rate",
    "per": "phoneme error rate, read back from tokens",
    "similarity": "speaker similarity",
}
# Differences below these are chance: held-out sets are small.
ERROR_STEP, SIMILARITY_STEP = 0.02, 0.01
ERROR_HARM, SIMILARITY_HARM = 0.05, 0.03

SENTENCES = (
    "The harbour was quiet when the last boat came in.",
    "Could you tell me which platform the train leaves from?",
    "She put the letters back into the wooden box and locked it.",
    "Rain is expected in the north, with sunshine later in the day.",
    "My brother has never liked the taste of coffee.",
    "Nobody remembered who had painted the old blue door.",
)

Row = Mapping[str, Estimate | None]


@dataclass(frozen=True)
class Verdict:
    """What tuning did.

    Attributes:
        better: whether the tuned model is to be kept.
        harmed: whether it does other voices worse than the base does.
        reasons: in words, one line each.
    """

    better: bool
    harmed: bool
    reasons: tuple[str, ...]


def judge(before: Row, after: Row, other_before: Row, other_after: Row) -> Verdict:
    """Compare the figures of held-out sentences, and of other voices, before and after.

    Kept is what gained in similarity or lost errors, by more than chance would, and lost nothing of the other.
    """
    reasons, gains, losses = [], 0, 0
    key = next((k for k in ERRORS if before.get(k) and after.get(k)), None)
    if key:
        change = _change(before, after, key)
        gains, losses = gains + (change < -ERROR_STEP), losses + (change > ERROR_STEP)
        reasons.append(f"held-out sentences: {LABELS[key]} {_moved(before, after, key, percent=True)}")
    if before.get(CHARACTER) and after.get(CHARACTER):
        change = _change(before, after, CHARACTER)
        gains, losses = gains + (change > SIMILARITY_STEP), losses + (change < -SIMILARITY_STEP)
        reasons.append(f"held-out sentences: {LABELS[CHARACTER]} {_moved(before, after, CHARACTER)}")
    harmed = False
    if key and other_before.get(key) and other_after.get(key):
        harmed |= _change(other_before, other_after, key) > ERROR_HARM
        reasons.append(f"other voices: {LABELS[key]} {_moved(other_before, other_after, key, percent=True)}")
    if other_before.get(CHARACTER) and other_after.get(CHARACTER):
        harmed |= _change(other_before, other_after, CHARACTER) < -SIMILARITY_HARM
        reasons.append(f"other voices: {LABELS[CHARACTER]} {_moved(other_before, other_after, CHARACTER)}")
    if losses:
        reasons.append("worse than the base")
    elif not gains:
        reasons.append("no better than the base, as far as so few sentences tell")
    if harmed:
        reasons.append(
            "the base spoke other voices better: mix in base data with --replay, or train fewer steps"
        )
    return Verdict(gains > 0 and losses == 0, harmed, tuple(reasons))


def measure(tuning: Tuning, metrics: Sequence[Metric], settings: Settings | None = None) -> Verdict:
    """Measure base and tuned model; pages to listen to come out below ``<out>/evaluation/``.

    Raises:
        UserError: nothing was held out to measure on.
    """
    folder = tuning.out / "evaluation"
    base, tuned = TTS(Model.load(tuning.base)), TTS(Model.load(tuning.tuned))
    lists = {"held_out": held_out_cases(tuning, base.model), "others": other_cases(base, folder / "prompts")}
    rows: dict[str, Row] = {}
    for name, cases in lists.items():
        for when, model in (("before", base), ("after", tuned)):
            if not cases:
                rows[f"{name}_{when}"] = {}
                continue
            made = evaluate(
                cases,
                folder / f"{name}_{when}",
                model,
                settings,
                rows=["text"],
                metrics=metrics,
                progress=True,
            )
            rows[f"{name}_{when}"] = made.rows["text"]
    return judge(rows["held_out_before"], rows["held_out_after"], rows["others_before"], rows["others_after"])


def held_out_cases(tuning: Tuning, model: Model) -> list[Case]:
    """Sentences of the split "dev", each to be said in its speaker's voice.

    Raises:
        UserError: there are none.
    """
    by_speaker: dict[str, list[MonoCut]] = {}
    for cut in tuning.cuts("train"):
        by_speaker.setdefault(speaker_of(cut), []).append(cut)
    prompts = {name: best_prompt(model, cuts) for name, cuts in by_speaker.items()}
    cases = []
    for cut in tuning.cuts("dev")[:HELD_OUT]:
        if (prompt := prompts.get(speaker_of(cut))) is not None:
            said = cut.supervisions[0]
            cases.append(
                Case(
                    cut.id,
                    said.text,
                    Path(prompt.recording.sources[0].source),
                    reference=Path(cut.recording.sources[0].source),
                    speaker=said.speaker,
                    language=said.language,
                )
            )
    if not cases:
        raise UserError(
            f"{tuning.manifest}: nothing is held out to compare with; mark some lines of each speaker with "
            '"split": "dev", or give --no-evaluation'
        )
    return cases


def other_cases(base: TTS, folder: Path) -> list[Case]:
    """Our sentences in the voices that come with the base; their frames are made audible for the prompts."""
    from tts.voice import Voice

    folder.mkdir(parents=True, exist_ok=True)
    cases = []
    for name, path in base.model.voices().items():
        wav = folder / f"{name}.wav"
        if not wav.is_file():
            write_audio(wav, base.vocode(Voice.load(path).frames), base.model.spec.frames.sample_rate)
        cases += [Case(f"{name}-{n}", text, wav, speaker=name) for n, text in enumerate(SENTENCES)]
    return cases[:: max(1, len(cases) // HELD_OUT)]


def _change(before: Row, after: Row, key: str) -> float:
    a, b = before[key], after[key]
    assert a is not None and b is not None
    return b.value - a.value


def _moved(before: Row, after: Row, key: str, *, percent: bool = False) -> str:
    a, b = before[key], after[key]
    assert a is not None and b is not None
    if percent:
        return (
            f"{100 * a.value:.1f} % -> {100 * b.value:.1f} % (95 %: {100 * b.low:.1f} to {100 * b.high:.1f})"
        )
    return f"{a.value:.3f} -> {b.value:.3f} (95 %: {b.low:.3f} to {b.high:.3f})"
