"""The LM by itself: how fast it decodes, against transformers' Llama and against the memory it has to read."""

import time
from collections.abc import Mapping, Sequence
from operator import truediv

import torch
from torch import Tensor

from tts.benchmark import reference
from tts.benchmark.bandwidth import bandwidth, step_bytes
from tts.benchmark.measure import Arm, threads
from tts.benchmark.section import OURS, REFERENCE, Bench, Found, Point, Section, picked
from tts.benchmark.table import Cells, Line, compared, each
from tts.benchmark.texts import words
from tts.engines.choose import COMPILED
from tts.lm.compiled import prepare
from tts.lm.model import Request, SpeechLM
from tts.text.frontend import Frontend

MB, GB = 1e6, 1e9


@torch.inference_mode()
def greedy(lm: SpeechLM, prefixes: Tensor, new: int) -> reference.Generated:
    """Write the likeliest id, one at a time, whatever its kind: what ``generate`` does, with our Llama and caches.

    Args:
        lm: the model.
        prefixes: (B, T) ids.
        new: ids to write.
    """
    started = first = time.perf_counter()
    caches, ids, made = lm.llama.new_caches(prefixes.shape[1] + new), prefixes, []
    for n in range(new):
        ids = lm.llama(ids, caches, last_only=True)[:, -1].argmax(-1, keepdim=True)
        made.append(ids)
        if n == 0:
            first = time.perf_counter()
    return reference.Generated(torch.cat(made, 1), first - started, time.perf_counter() - started)


class LM(Section):
    """Decoding: id by id beside the reference, and as the chain does it."""

    name = "lm"
    title = "decoding"
    varied: Sequence[str] = ("batch", "words", "threads")
    told: Sequence[str] = ("batch", "words", "threads")

    def __init__(self, bench: Bench) -> None:
        super().__init__(bench)
        self._ids: dict[Point, Tensor] = {}  # what ours wrote last

    def request(self, point: Point, seed: int = 0) -> Request:
        """The whole text as one sentence, behind the voice's prompt."""
        model = self.bench.tts.model
        utterances = Frontend(model.symbols)(words(point.words))
        groups = [group for one in utterances for group in model.symbols.groups(one.ids)]
        return Request(groups, self.bench.voice.aligned(model.symbols), seed)

    def arms(self, point: Point) -> Mapping[str, Arm]:
        lm, plan = self.bench.tts.model.lm, self.bench.plan
        llama = self.bench.llama
        prefixes = [lm.prefix(self.request(point))] * point.batch

        def rates(made: reference.Generated) -> dict[str, float]:
            steps = (plan.ids - 1) / (made.whole - made.start)
            return {
                "whole": made.whole,
                "start": made.start,
                "ids": steps * point.batch,
                "read": steps * step_bytes(lm.llama, point.batch) / GB,
            }

        def same(made: reference.Generated) -> dict[str, float]:
            return {"same": float((made.ids == self._ids[point]).double().mean())}

        def ours() -> dict[str, float]:
            with threads(point.threads):
                made = greedy(lm, torch.tensor(prefixes), plan.ids)
            self._ids[point] = made.ids
            return rates(made)

        def by_compiler(other: SpeechLM) -> dict[str, float]:
            with threads(point.threads):
                made = greedy(other, torch.tensor(prefixes), plan.ids)
            return rates(made) | same(made)

        def plain() -> dict[str, float]:
            with threads(point.threads):
                made = reference.generate(llama, prefixes, plan.ids)
            return rates(made) | same(made)

        def memory() -> dict[str, float]:
            own = step_bytes(lm.llama, point.batch)
            with threads(point.threads):
                large, small = bandwidth(plan.large, 4 * plan.large), bandwidth(own, 4 * plan.large)
            return {"weights": own / MB, "large": large / GB, "small": small / GB}

        arms: dict[str, Arm] = {OURS: ours, REFERENCE: plain, "chain": lambda: self.write(lm, point)}
        other = self.bench.compiled if point.batch == 1 else None  # more rows are not compiled
        if other is not None:
            with threads(point.threads):  # before the rounds, of which none is to wait for a compiler
                prepare(other.llama)
            arms[COMPILED] = lambda: by_compiler(other)
            arms["compiled chain"] = lambda: self.write(other, point)
        return arms | {"memory": memory}

    def write(self, lm: SpeechLM, point: Point) -> dict[str, float]:
        """One batch as the chain has it written: drawn, each row with a seed of its own, the phonemes given."""
        tts = self.bench.tts
        requests = [self.request(point, seed) for seed in range(point.batch)]
        tokens = steps = 0
        with threads(point.threads):
            started = first = time.perf_counter()
            for step in lm.write(requests, point.settings().sampling(0), tts.bounds):
                tokens += len(step)
                steps += 1
                if steps == 1:
                    first = time.perf_counter()
            ended = time.perf_counter()
        rate = (steps - 1) / (ended - first)
        return {
            "tokens": tokens / (ended - started),
            "steps": rate,
            "read": rate * step_bytes(lm.llama, point.batch) / GB,
        }

    def lines(self, points: Sequence[Point], found: Sequence[Found]) -> list[Line]:
        def pair(name: str) -> tuple[Cells, Cells]:
            return picked(found, OURS, name), picked(found, REFERENCE, name)

        def share(who: str, memory: str) -> Cells:
            return each(truediv, picked(found, who, "read"), picked(found, "memory", memory))

        with_compiler = picked(found, COMPILED, "ids")
        return [
            *compared("ids a second, one at a time", "", *pair("ids"), rate=True),
            Line("  the same ids", "%", picked(found, REFERENCE, "same")),
            Line("ids a second, compiled", "", with_compiler),
            Line("  times as fast", "", each(truediv, with_compiler, picked(found, REFERENCE, "ids"))),
            Line("  the same ids", "%", picked(found, COMPILED, "same")),
            *compared("reading the prefix", "s", *pair("start")),
            *compared(f"prefix and {self.bench.plan.ids} ids", "s", *pair("whole")),
            Line("weights that a step reads", "MB", picked(found, "memory", "weights")),
            Line("memory bandwidth", "GB/s", picked(found, "memory", "large")),
            Line("  used", "%", share(OURS, "large")),
            Line("  used, compiled", "%", share(COMPILED, "large")),
            Line("  used by the reference", "%", share(REFERENCE, "large")),
            Line("  used by the chain", "%", share("chain", "large")),
            Line("  used by the chain, compiled", "%", share("compiled chain", "large")),
            Line("bandwidth over so few bytes", "GB/s", picked(found, "memory", "small")),
            Line("  used", "%", share(OURS, "small")),
            Line("  used, compiled", "%", share(COMPILED, "small")),
            Line("  used by the reference", "%", share(REFERENCE, "small")),
            Line("  used by the chain", "%", share("chain", "small")),
            Line("  used by the chain, compiled", "%", share("compiled chain", "small")),
            Line("tokens a second, by the chain", "", picked(found, "chain", "tokens")),
            Line("  compiled", "", picked(found, "compiled chain", "tokens")),
            Line("  steps a second", "", picked(found, "chain", "steps")),
            Line("  steps a second, compiled", "", picked(found, "compiled chain", "steps")),
        ]
