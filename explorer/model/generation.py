"""Prompt → answer, one token at a time, by itself or in one batch with others.

A step reads all weights, however few sequences need them; so several answers at once take little longer than one.
Sums in a batch are rounded otherwise than alone. Where that might decide a token, the answer leaves the batch, and its
passes are made again alone: what it says never depends on who else asks.
"""

import inspect
import math
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers.cache_utils import Cache, DynamicLayer

from explorer.errors import NonFiniteError, PromptError
from explorer.model.language_model import LanguageModel
from explorer.records import Message


@dataclass(frozen=True)
class GenerationSettings:
    """How an answer is drawn from the model."""

    max_tokens: int = 80
    """The answer stops here at the latest."""
    temperature: float = 0.0
    """0 takes the most probable token each time; otherwise logits are divided by it."""
    top_p: float = 1.0
    """Draw from the most probable tokens that together hold this probability."""
    seed: int = 0
    """The same seed gives the same text."""
    base: bool = False
    """Whether the base model answers, the adapter switched off."""


ROUNDING = 2.0**9
"""Logits of a batch are taken to differ by so many units in the last place of the largest one, at most."""
_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
"""What configurations call their number of experts."""

Layers = Sequence[tuple[torch.Tensor, torch.Tensor]]
"""Keys and values of every layer (1, heads, T, width)."""


def generate(
    model: LanguageModel, messages: Sequence[Message], settings: GenerationSettings | None = None
) -> Iterator[int]:
    """Yield the response's token ids as they are made, a stop token among them if it comes.

    Raises PromptError when the prompt leaves no room in the context, NonFiniteError when what the model expects isn't
    finite.
    """
    for token in Decoder(model).answer(messages, settings):
        if token is not None:
            yield token


@dataclass(eq=False)
class _Written:
    """An answer while it is written."""

    ids: list[int]
    """Those of the prompt and, behind them, of the response."""
    start: int
    """Where the response begins."""
    end: int
    """So many ids there will be at most."""
    settings: GenerationSettings
    random: torch.Generator
    known: int
    """So many ids are read alone, before it joins others."""
    read: int = 0
    """So many ids the model has read."""
    past: Cache | None = None
    """What it keeps of them; None while the batch holds it, and before the first is read."""
    alone: bool = True
    """Whether it read them by passes for this answer alone."""
    stopped: bool = False

    @property
    def reading(self) -> bool:
        """Whether the model has yet to read alone what is known."""
        return self.read < self.known

    @property
    def ended(self) -> bool:
        """Whether nothing more will be said."""
        return self.stopped or len(self.ids) >= self.end


@dataclass
class _Batch:
    """The answers that were decoded together last, shorter ones padded in front, and what the model keeps of them.

    Some may have left since: those that are gone, or keep their own.
    """

    rows: list[_Written] = field(default_factory=list)
    past: Cache | None = None


class Decoder:
    """Writes the answers of one model. Only one thread at a time may use it."""

    def __init__(self, model: LanguageModel):
        """Begin with none."""
        self.model = model
        self._writing: list[_Written] = []
        self._batches = {False: _Batch(), True: _Batch()}
        self._joins = _joins(model)
        self._tried = False

    def answer(self, messages: Sequence[Message], settings: GenerationSettings | None = None) -> Iterator[int | None]:
        """Yield an answer's token ids as `generate` does, and None for a step that brings none.

        Whoever takes a token makes the next one of all answers that are being written, so that theirs are there when
        they come for them.
        """
        settings = settings or GenerationSettings()
        prompt = self.model.encode_prompt(messages).tolist()
        room = self.model.context - len(prompt)
        if room < 1:
            raise PromptError("The prompt fills the model's whole context; shorten it.")
        end, taken = len(prompt) + min(settings.max_tokens, room), len(prompt)
        random = torch.Generator().manual_seed(settings.seed)
        own = _Written(prompt, len(prompt), end, settings, random, known=len(prompt))
        self._writing.append(own)
        try:
            while taken < len(own.ids) or not own.ended:
                if taken == len(own.ids):
                    self._advance(own)
                fresh = own.ids[taken : taken + 1]
                taken += len(fresh)
                yield fresh[0] if fresh else None
        finally:
            self._leave(own)

    def _advance(self, own: _Written) -> None:
        """One pass that this answer needs: of it alone, or of all that can go on with it."""
        if own.reading or not self._joins:
            self._pass(own)
            return
        others = [
            one
            for one in self._writing
            if one.settings.base == own.settings.base and not (one.reading or one.ended or one is own)
        ]
        if others:
            self._pass_together([own, *others])
        else:
            self._pass(own)

    def _pass(self, own: _Written) -> None:
        """Read what comes next of one answer alone: its prompt, or one token."""
        if own.past is None and own.read:
            own.past = _cache(self._layers(own))
            self._tidy()
        until = own.start if not own.read else own.read + 1
        ids = torch.tensor([own.ids[own.read : until]], device=self.model.device)
        logits, own.past = self._run(own.settings.base, input_ids=ids, past_key_values=own.past)
        own.read = until
        self._joins &= all(type(layer) is DynamicLayer for layer in own.past.layers)
        if own.read == len(own.ids):
            self._say(own, logits[0])

    def _pass_together(self, rows: list[_Written]) -> None:
        """Read the last token of each of several answers in one batch."""
        batch = self._batches[rows[0].settings.base]
        rows = [one for one in batch.rows if one in rows] + [one for one in rows if one not in batch.rows]
        longest = max(one.read for one in rows)
        expected = self._trial(rows, longest)
        if batch.rows != rows or batch.past is None or any(one.past is not None for one in rows):
            batch.past, batch.rows = self._padded(rows, longest), rows
            for one in rows:
                one.past = None
        device = self.model.device
        mask = torch.zeros((len(rows), batch.past.get_seq_length() + 1), dtype=torch.int64)
        for row, one in enumerate(rows):
            mask[row, -one.read - 1 :] = 1
        logits, batch.past = self._run(
            rows[0].settings.base,
            input_ids=torch.tensor([one.ids[-1:] for one in rows], device=device),
            attention_mask=mask.to(device),
            position_ids=torch.tensor([[one.read] for one in rows], device=device),
            past_key_values=batch.past,
        )
        if expected is not None:
            row = rows.index(expected[0])
            likely = torch.isfinite(expected[1])
            gap = (logits[row] - expected[1])[likely].abs().max()
            self._joins = bool(gap <= rounding(expected[1]))
        for row, one in enumerate(rows):
            one.read, one.alone = one.read + 1, False
            self._say(one, logits[row])

    def _trial(self, rows: list[_Written], longest: int) -> tuple[_Written, torch.Tensor] | None:
        """What the next logits of the answer with the most padding are alone, once.

        A model for which batches do more than round otherwise shows it by them.
        """
        shortest = min(rows, key=lambda one: one.read)
        if self._tried or shortest.read == longest:
            return None
        ids = torch.tensor([shortest.ids[-1:]], device=self.model.device)
        past = _cache([(keys.clone(), values.clone()) for keys, values in self._layers(shortest)])
        logits, _ = self._run(shortest.settings.base, input_ids=ids, past_key_values=past)
        self._tried = bool(torch.isfinite(logits).any())
        return (shortest, logits[0]) if self._tried else None

    def _run(self, base: bool, **inputs: object) -> tuple[torch.Tensor, Cache]:
        """The logits of the last position (rows, vocabulary), in memory of the processor, and what is kept."""
        # Switched off for the step alone: whoever asked for this pauses after each, and others use the model.
        with torch.no_grad(), self.model.without_adapter() if base else nullcontext():
            out = self.model.network(**inputs, use_cache=True, logits_to_keep=1)
        return out.logits[:, -1].float().cpu(), out.past_key_values

    def _say(self, own: _Written, logits: torch.Tensor) -> None:
        """Choose the next token; where the batch might decide which, begin again to read this answer alone."""
        # A few tokens may be ruled out by −∞; anything else would be the largest.
        finite = bool(torch.isfinite(logits.max()))
        if own.alone and not finite:
            raise NonFiniteError(f"a prediction for token {len(own.ids) - own.start} of its answer", "This prompt")
        token, before = None, own.random.get_state()
        if own.alone or (finite and self._joins):
            token = _choose(logits, own.settings, own.random, 0.0 if own.alone else rounding(logits))
        if token is None:
            own.random.set_state(before)
            own.past, own.read, own.known, own.alone = None, 0, len(own.ids), True
            self._tidy()
            return
        own.ids.append(token)
        own.stopped = token in self.model.stop_ids
        if own.ended:
            self._leave(own)

    def _leave(self, own: _Written) -> None:
        own.past = None
        if own in self._writing:
            self._writing.remove(own)
        self._tidy()

    def _tidy(self) -> None:
        """Let go of a batch that everybody left."""
        for batch in self._batches.values():
            if not any(one in self._writing and one.read and one.past is None for one in batch.rows):
                batch.rows, batch.past = [], None

    def _layers(self, own: _Written) -> Layers:
        """What is kept of an answer, a view of the batch's where that holds it."""
        batch = self._batches[own.settings.base]
        past, row = (batch.past, batch.rows.index(own)) if own.past is None else (own.past, 0)
        assert past is not None
        layers: Sequence[Any] = past.layers
        return [
            (layer.keys[row : row + 1, :, -own.read :], layer.values[row : row + 1, :, -own.read :]) for layer in layers
        ]

    def _padded(self, rows: list[_Written], longest: int) -> Cache:
        """What is kept of several answers, zeros in front of the shorter ones."""
        kept = [self._layers(one) for one in rows]

        def stacked(layer: int, part: int) -> torch.Tensor:
            first = kept[0][layer][part]
            made = first.new_zeros((len(rows), first.shape[1], longest, first.shape[3]))
            for row, layers in enumerate(kept):
                made[row, :, longest - rows[row].read :] = layers[layer][part][0]
            return made

        return _cache([(stacked(layer, 0), stacked(layer, 1)) for layer in range(len(kept[0]))])


def _cache(layers: Layers) -> Cache:
    """Keys and values as transformers keeps them."""
    made = list[Any]()
    for keys, values in layers:
        layer = DynamicLayer()
        layer.lazy_initialization(keys, values)
        layer.keys, layer.values = keys, values
        made.append(layer)
    return Cache(layers=made)


def _joins(model: LanguageModel) -> bool:
    """Whether a batch's row differs from the same computed alone by no more than rounding, and it is small.

    Experts and quantised products are chosen or scaled by the whole batch, and in half precision rounding decides many
    tokens. Where a layer keeps more than keys and values, or only the last of them, rows of several lengths don't fit.
    """
    network = model.network
    config = network.config.get_text_config(decoder=True)
    base = network.get_base_model() if hasattr(network, "get_base_model") else network
    return (
        model.dtype in (torch.float32, torch.float64)
        and not getattr(base, "is_quantized", False)
        and not any(getattr(config, name, None) for name in _EXPERTS)
        and not getattr(config, "sliding_window", None)
        and set(getattr(config, "layer_types", None) or ["full_attention"]) == {"full_attention"}
        and "position_ids" in inspect.signature(base.forward).parameters
    )


def rounding(logits: torch.Tensor) -> float:
    """By how much logits of a batch may differ from those computed alone; measured, and with much to spare."""
    finite = logits[torch.isfinite(logits)]
    return ROUNDING * torch.finfo(torch.float32).eps * float(finite.abs().max())


def generate_together(model: LanguageModel, prompts: Sequence[NDArray[np.int64]], max_tokens: int) -> list[list[int]]:
    """What `generate` makes of each prompt (token ids) at temperature 0, all at once.

    A step reads all weights, however few sequences need them. Shorter prompts
    are padded in front, where nothing looks.
    """
    longest = max(map(len, prompts))
    ids = torch.zeros((len(prompts), longest), dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, longest - len(prompt) :] = torch.from_numpy(prompt)
        mask[row, longest - len(prompt) :] = 1
    ids, mask, past = ids.to(model.device), mask.to(model.device), None
    positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
    responses = [list[int]() for _ in prompts]
    for _ in range(min(max_tokens, model.context - longest)):
        with torch.no_grad():
            out = model.network(
                input_ids=ids,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=past,
                use_cache=True,
                logits_to_keep=1,
            )
        past, ids = out.past_key_values, out.logits[:, -1].argmax(dim=-1, keepdim=True)
        for row, best in enumerate(out.logits[:, -1].gather(1, ids)[:, 0].tolist()):
            if not math.isfinite(best):
                said = model.tokenizer.decode(prompts[row], skip_special_tokens=True)
                raise NonFiniteError("a prediction", f"The prompt {said!r}")
        mask = torch.cat([mask, torch.ones_like(ids)], dim=1)
        positions = positions[:, -1:] + 1
        for response, token in zip(responses, ids[:, 0].tolist(), strict=True):
            if not (response and response[-1] in model.stop_ids):
                response.append(token)
        if all(response[-1] in model.stop_ids for response in responses):
            break
    return responses


def _choose(
    logits: torch.Tensor, settings: GenerationSettings, random: torch.Generator, within: float = 0.0
) -> int | None:
    """One token id from the last position's logits (vocabulary).

    None where logits that differ by up to `within` might give another one.
    """
    if settings.temperature <= 0:
        best = logits.topk(2).values if within else logits
        return None if within and float(best[0] - best[1]) <= 2 * within else int(logits.argmax())
    order = logits.argsort(descending=True)
    heat = logits[order] / settings.temperature
    probabilities = torch.softmax(heat, dim=0)
    before = probabilities.cumsum(0) - probabilities
    # As `torch.multinomial` draws, bit by bit; the waiting times are needed to tell how clear it was.
    waits = torch.empty_like(probabilities).exponential_(generator=random)
    place = int((torch.where(before < settings.top_p, probabilities, 0.0) / waits).argmax())
    return int(order[place]) if not within or _clear(heat, before, waits, place, settings, within) else None


def _clear(
    heat: torch.Tensor,
    before: torch.Tensor,
    waits: torch.Tensor,
    place: int,
    settings: GenerationSettings,
    within: float,
) -> bool:
    """Whether a draw stays the same while each logit moves by up to `within`.

    Sorted logits (`heat`, divided by the temperature) move by no more than single ones. So the drawn place stays the
    best of those that may be drawn if it is the best by twice as much and no border of them comes near, and the same
    token stands in it if its neighbours are farther away than that.
    """
    apart = 2 * within / settings.temperature
    shift = math.expm1(min(apart, 1.0)) + 1e-5
    if settings.top_p < 1 and float(before[place]) >= settings.top_p - shift:
        return False
    scores = torch.where(before < settings.top_p + shift, heat - waits.log(), -math.inf)
    rivals = scores.clone()
    rivals[place] = -math.inf
    near = heat[max(0, place - 1) : place + 2]
    gaps = (near[:-1] - near[1:]) if len(near) > 1 else near.new_tensor([math.inf])
    return bool(scores[place] - rivals.max() > apart) and bool(gaps.min() > apart)
