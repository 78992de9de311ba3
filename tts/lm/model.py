"""The text-to-token language model: a Llama over phonemes and speech tokens, and its sampling loop.

The sequence is laid out by `tts.lm.layout`. While it writes, the model chooses between the speech tokens and one
more choice, "on to the next phoneme"; which phoneme that is, the text says. So the phonemes come in order and each
once, whatever is drawn; how many tokens each has is bounded.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codec.nn.attention import KVCache
from tts.lm.layout import IGNORE, Groups, Layout
from tts.lm.llama import Llama, LlamaConfig
from tts.lm.sampling import Sampling, draw
from tts.text.symbols import SymbolTable
from tts.text.triphones import CONTEXT, told


@dataclass(frozen=True)
class Aligned:
    """Speech tokens with the phonemes they say: a voice prompt, or what the LM wrote.

    Attributes:
        groups: phoneme groups, see `tts.text.symbols`.
        tokens: speech tokens.
        durations: tokens of each group.
    """

    groups: Groups = ()
    tokens: Sequence[int] = ()
    durations: Sequence[int] = ()

    def told(self, symbols: SymbolTable) -> Tensor:
        """(N, 4) int64, what the acoustic decoder is told: each token with its phonemes."""
        rows = told(self.tokens, self.groups, self.durations, symbols)
        return torch.tensor(rows, dtype=torch.int64).view(-1, 1 + CONTEXT)


class Request(NamedTuple):
    """One text to write tokens for.

    Attributes:
        groups: phoneme groups of the text.
        prompt: voice prompt to go on from.
        seed: of this row's draws, so that they do not depend on its neighbours in the batch.
    """

    groups: Groups
    prompt: Aligned = Aligned()
    seed: int = 0


@dataclass(frozen=True)
class Bounds:
    """Limits on durations, in tokens.

    Attributes:
        longest: of a phoneme.
        longest_pause: of a phoneme with punctuation behind it, its pause included.
        most_empty: phonemes in a row without a token of their own.
        pauses: ids of punctuation symbols.
    """

    longest: int = 12
    longest_pause: int = 24
    most_empty: int = 2
    pauses: frozenset[int] = frozenset()

    def of(self, group: Sequence[int]) -> int:
        """The most tokens this phoneme group may have."""
        return self.longest_pause if group[-1] in self.pauses else self.longest


def cut_groups(written: Aligned, limits: Bounds) -> list[bool]:
    """Of each phoneme group, whether the bound on its length ended it."""
    return [d >= limits.of(group) for group, d in zip(written.groups, written.durations, strict=True)]


def ragged(pads: Sequence[int], device: torch.device) -> Tensor | None:
    """Positions of padding on the left of each row, (B,), as `Llama.forward` takes them: None where no row has any."""
    return torch.tensor(pads, device=device) if any(pads) else None


class Written(NamedTuple):
    """A token just written: row of the batch, the token, and the number of the group it belongs to."""

    row: int
    token: int
    group: int


@dataclass
class _Row:
    """Where one row of a batch stands."""

    groups: Groups
    generator: torch.Generator
    queue: list[int] = field(default_factory=list)  # ids decided but not yet fed
    tried: list[int] = field(default_factory=list)  # ids fed that will have been right if the group ends here
    history: list[int] = field(default_factory=list)
    group: int = 0  # whose tokens are being written
    written: int = 0  # tokens of that group
    empty: int = 0  # groups without tokens just before it
    quantile: float | None = None  # of that group's durations: how long it is to last, once it has begun
    longer: float = 1.0  # the share of them that are longer than `written`
    done: bool = False

    def recent(self, window: int) -> list[int]:
        """The last `window` tokens, -1 in front where there are fewer."""
        last = self.history[max(0, len(self.history) - window) :]
        return [-1] * (window - len(last)) + last

    def ends(self, share: float, quantile: float, bounds: Bounds) -> bool:
        """Whether the group ends here, as it does with a probability of `share`.

        Its duration is drawn when it begins, as a quantile, and kept to: each token more uses up some of the
        durations that there are. Quantiles from all of (0, 1) give what a draw at each token gives.
        """
        if self.quantile is None:
            self.quantile = quantile
        if not self.may_go(bounds):
            return False
        self.longer *= 1 - share
        return self.longer < 1 - self.quantile or not self.may_stay(bounds)

    def may_stay(self, bounds: Bounds) -> bool:
        """Whether the group may have one more token."""
        return self.written < bounds.of(self.groups[self.group])

    def may_go(self, bounds: Bounds) -> bool:
        """Whether the group may end here: not the third without a token, and not the last of a silent text."""
        silent = not self.history and self.group + 1 == len(self.groups)
        return self.written > 0 or (self.empty < bounds.most_empty and not silent)


class SpeechLM(nn.Module):
    """Phonemes and a voice prompt -> speech tokens.

    Args:
        symbols, codes: sizes of the phoneme table and of the tokenizer's codebook.
        Others: `LlamaConfig`.
    """

    def __init__(
        self,
        *,
        symbols: int,
        codes: int = 625,
        hidden_size: int = 384,
        intermediate_size: int = 1024,
        num_hidden_layers: int = 8,
        num_attention_heads: int = 6,
        num_key_value_heads: int = 2,
    ) -> None:
        super().__init__()
        self.layout = Layout(symbols, codes)
        self.llama = Llama(
            LlamaConfig(
                vocab_size=self.layout.vocab_size,
                hidden_size=hidden_size,
                intermediate_size=intermediate_size,
                num_hidden_layers=num_hidden_layers,
                num_attention_heads=num_attention_heads,
                num_key_value_heads=num_key_value_heads,
            )
        )

    def forward(self, ids: Tensor) -> Tensor:
        """(B, N) ids -> (B, N, vocabulary) logits."""
        logits: Tensor = self.llama(ids)
        return logits

    def loss(self, ids: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Mean cross entropy of the stream, and the share of its speech tokens that are the likeliest id.

        Args:
            ids: (B, N).
            labels: (B, N) the id that follows each position, `IGNORE` where nothing is to be learnt.
        """
        keep = labels != IGNORE
        logits, wanted = self.llama(ids)[keep].float(), labels[keep]
        speech = wanted >= self.layout.first_code
        right = (logits.argmax(-1) == wanted)[speech].float().mean()
        return F.cross_entropy(logits, wanted), right

    def prefix(self, request: Request) -> list[int]:
        """All that is given before the first id is drawn: text, the prompt's stream, the first announcements."""
        prompt, layout = request.prompt, self.layout
        groups = [*prompt.groups, *request.groups]
        known = layout.stream(groups, prompt.tokens, [*prompt.durations, *[0] * len(request.groups)])
        # the stream of empty target groups is announcements only: keep the first two of them
        announced = sum(len(g) for g in request.groups[2:]) + (len(request.groups) > 1)
        return layout.text(groups) + (known[:-announced] if announced else known)

    @torch.inference_mode()
    def write(
        self, requests: Sequence[Request], sampling: Sampling = Sampling(), bounds: Bounds = Bounds()
    ) -> Iterator[list[Written]]:
        """Write token by token: yields what each step added, until all rows have ended."""
        device = self.llama.lm_head.weight.device
        rows = [_Row(request.groups, torch.Generator().manual_seed(request.seed)) for request in requests]
        prefixes = [tuple(self.prefix(request)) for request in requests]
        # what several rows begin with, the candidates of a sentence say, is taken in once
        given = list(dict.fromkeys(prefixes))
        width = max(map(len, given))
        ids = torch.tensor([[0] * (width - len(prefix)) + list(prefix) for prefix in given], device=device)
        pads = ragged([width - len(prefix) for prefix in given], device)
        room = 8 * max(len(row.groups) for row in rows)
        caches = self.llama.new_caches(width + room)
        logits = self.next_logits(ids, caches, pads)
        if len(given) < len(rows):
            of = [given.index(prefix) for prefix in prefixes]
            caches = [KVCache.joined([(cache, n) for n in of], room) for cache in caches]
            logits, pads = logits[of], None if pads is None else pads[of]
        while True:
            yield self._choose(logits, rows, sampling, bounds)
            live = [row for row in rows if not row.done]
            if not live:
                return
            # everything already decided is fed at once; a row that waits for others repeats nothing
            count = min(len(row.queue) for row in live)
            fed = [row.queue[:count] if not row.done else [0] * count for row in rows]
            for row in live:
                del row.queue[:count]
            logits = self.next_logits(torch.tensor(fed, device=device), caches, pads)

    def next_logits(self, ids: Tensor, caches: list[KVCache], pads: Tensor | None = None) -> Tensor:
        """Logits (B, V) of what follows the new ids (B, T); caches and pads as `Llama.forward` takes them."""
        logits: Tensor = self.llama(ids, caches, pads=pads, last_only=True)[:, -1].float()
        return logits

    def generate(
        self, requests: Sequence[Request], sampling: Sampling = Sampling(), bounds: Bounds = Bounds()
    ) -> list[Aligned]:
        """Tokens and durations for every request, written as one batch."""
        tokens: list[list[int]] = [[] for _ in requests]
        durations = [[0] * len(request.groups) for request in requests]
        for step in self.write(requests, sampling, bounds):
            for row, token, group in step:
                tokens[row].append(token)
                durations[row][group] += 1
        return [Aligned(r.groups, t, d) for r, t, d in zip(requests, tokens, durations, strict=True)]

    def _choose(
        self,
        logits: Tensor,
        rows: Sequence[_Row],
        sampling: Sampling,
        bounds: Bounds,
        tried: Tensor | None = None,
    ) -> list[Written]:
        """Draw for the rows that have nothing decided; queue what follows from it.

        Args:
            logits: (B, V) of what follows all that was decided.
            rows, sampling, bounds: whose, and how to draw.
            tried: (B, V) of what follows all that was tried, too.
        """
        if all(row.done or row.queue for row in rows):
            return []
        first, window = self.layout.first_code, sampling.window
        places = torch.stack([logits] if tried is None else [logits, tried], 1)
        # Whether to go on is drawn by itself. Drawn among the tokens it would win too often: it is one choice, they
        # are many, and top-k and nucleus cut the many short.
        onward = places.softmax(-1)[..., :first].sum(-1).tolist()
        picked: list[tuple[int, int]] = []
        uniform: list[Tensor] = []
        for n, (row, shares) in enumerate(zip(rows, onward, strict=True)):
            for place, share in enumerate(shares):
                if row.done or row.queue:
                    break
                draws = torch.rand(3, generator=row.generator, dtype=torch.float64)
                quantile = 0.5 + sampling.spread * (float(draws[0]) - 0.5)
                if not row.ends(share, quantile, bounds):
                    picked.append((n, place))
                    uniform.append(draws[1:])
                    break
                self._go_on(row)
        if not picked:
            return []
        at = torch.tensor(picked, device=logits.device)
        history = torch.tensor([rows[n].recent(window) for n, _ in picked], device=logits.device)
        history = history.view(len(picked), window)
        own = places[at[:, 0], at[:, 1], first:]
        tokens = draw(own, sampling, history, torch.stack(uniform).to(logits.device)).tolist()
        out = []
        for (n, _), token in zip(picked, tokens, strict=True):
            row = rows[n]
            row.queue.append(first + token)
            row.history.append(token)
            out.append(Written(n, token, row.group))
            row.written += 1
        return out

    def announced(self, row: _Row) -> Sequence[int]:
        """What is fed where a row's group ends: the phoneme after the next one; nothing where the text ends, too."""
        return self.layout.announced(row.groups, row.group + 2)

    def _go_on(self, row: _Row) -> None:
        """To the next group: announce the one after it, or end."""
        row.queue.extend(self.announced(row)[len(row.tried) :])
        row.tried = []
        row.empty = row.empty + 1 if row.written == 0 else 0
        row.group, row.written, row.quantile, row.longer = row.group + 1, 0, None, 1.0
        row.done = row.group == len(row.groups)
