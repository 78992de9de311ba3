"""Before and after: the new voices, other voices with other sentences, and what follows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from codec.audio import write_audio
from codec.errors import UserError
from tts.checkpoint import Model
from tts.data.datasets import speaker_of
from tts.evaluate.cases import Case
from tts.evaluate.figures import Estimate
from tts.evaluate.run import Results, evaluate
from tts.evaluate.sample import Metric
from tts.pipeline import TTS, Settings
from tts.tune.run import Tuning, best_prompt
from tts.tune.sentences import ENGLISH, is_english

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
# Differences below these are chance: the sets are small.
ERROR_STEP, SIMILARITY_STEP = 0.02, 0.01
ERROR_HARM, SIMILARITY_HARM = 0.05, 0.03


@dataclass(frozen=True)
class Move:
    """A figure before and after, and its change over the same cases."""

    before: Estimate
    after: Estimate
    change: Estimate

    def told(self, *, percent: bool) -> str:
        """In words, with the interval of the change."""
        one, digits, unit = (100.0, 1, " %") if percent else (1.0, 3, "")
        low, high = one * self.change.low, one * self.change.high
        return (
            f"{one * self.before.value:.{digits}f}{unit} -> {one * self.after.value:.{digits}f}{unit} "
            f"(change, 95 %: {low:+.{digits}f} to {high:+.{digits}f}; {self.change.cases} sentences)"
        )


Moves = Mapping[str, Move]


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


def judge(own: Moves, others: Moves) -> Verdict:
    """Compare the figures of the new voices, and of other voices, before and after.

    Kept is what gained in similarity or lost errors, by more than chance would, and lost nothing of the other.
    """
    reasons, gains, losses, harmed = [], 0, 0, False
    key = next((k for k in ERRORS if k in own), None)
    for where, moves in (("in the new voices", own), ("in other voices", others)):
        for name in (key, CHARACTER):
            if name is not None and name in moves:
                reasons.append(f"{where}: {LABELS[name]} {moves[name].told(percent=name != CHARACTER)}")
    if key:
        change = own[key].change.value
        gains, losses = gains + (change < -ERROR_STEP), losses + (change > ERROR_STEP)
        harmed |= key in others and others[key].change.value > ERROR_HARM
    if CHARACTER in own:
        change = own[CHARACTER].change.value
        gains, losses = gains + (change > SIMILARITY_STEP), losses + (change < -SIMILARITY_STEP)
        harmed |= CHARACTER in others and others[CHARACTER].change.value < -SIMILARITY_HARM
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
        UserError: there is nothing to measure on.
    """
    folder = tuning.out / "evaluation"
    base, tuned = TTS(Model.load(tuning.base)), TTS(Model.load(tuning.tuned))
    lists = {"own": own_cases(tuning, base.model), "others": other_cases(base, folder / "prompts")}
    moves: dict[str, Moves] = {}
    for name, cases in lists.items():
        before, after = (
            evaluate(
                cases,
                folder / f"{name}_{when}",
                model,
                settings,
                rows=["text"],
                metrics=metrics,
                progress=True,
            )
            if cases
            else None
            for when, model in (("before", base), ("after", tuned))
        )
        moves[name] = moved(before, after) if before and after else {}
    return judge(moves["own"], moves["others"])


def moved(before: Results, after: Results) -> Moves:
    """What changed of the figures that are judged by."""
    moves = {}
    for figure in before.figures:
        a, b = before.rows["text"].get(figure.key), after.rows["text"].get(figure.key)
        change = figure.change(before.cases, after.cases)
        if figure.key in LABELS and a and b and change:
            moves[figure.key] = Move(a, b, change)
    return moves


def own_cases(tuning: Tuning, model: Model) -> list[Case]:
    """Sentences of the split "dev", each to be said in its speaker's voice, and ours in the voices of English.

    Raises:
        UserError: there are none.
    """
    prompts = {name: best_prompt(model, cuts) for name, cuts in tuning.speakers().items()}
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
    english = [(name, cut) for name, cut in prompts.items() if is_english(cut)]
    for n, text in enumerate(ENGLISH if english else ()):  # in turn, where there are several voices
        name, cut = english[n % len(english)]
        said, prompt = cut.supervisions[0], Path(cut.recording.sources[0].source)
        cases.append(Case(f"ours-{n}", text, prompt, speaker=name, language=said.language))
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
        cases += [Case(f"{name}-{n}", text, wav, speaker=name) for n, text in enumerate(ENGLISH)]
    return cases[:: max(1, len(cases) // HELD_OUT)][:HELD_OUT]
