"""Prompt → answer, one token at a time."""

import math
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

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


def generate(
    model: LanguageModel, messages: Sequence[Message], settings: GenerationSettings | None = None
) -> Iterator[int]:
    """Yield the response's token ids as they are made, a stop token among them if it comes.

    Raises PromptError when the prompt leaves no room in the context, NonFiniteError when what the model expects isn't
    finite.
    """
    settings = settings or GenerationSettings()
    prompt = model.encode_prompt(messages)
    room = model.context - len(prompt)
    if room < 1:
        raise PromptError("The prompt fills the model's whole context; shorten it.")
    random = torch.Generator().manual_seed(settings.seed)
    ids = torch.from_numpy(prompt)[None].to(model.device)
    past = None
    for number in range(min(settings.max_tokens, room)):
        # Switched off for the step alone: whoever asked for this pauses after each, and others use the model.
        with torch.no_grad(), model.without_adapter() if settings.base else nullcontext():
            out = model.network(input_ids=ids, past_key_values=past, use_cache=True, logits_to_keep=1)
        past = out.past_key_values
        logits = out.logits[0, -1].float().cpu()
        # A few tokens may be ruled out by −∞; anything else would be the largest.
        if not torch.isfinite(logits.max()):
            raise NonFiniteError(f"a prediction for token {number} of its answer", "This prompt")
        token = _choose(logits, settings, random)
        yield token
        if token in model.stop_ids:
            return
        ids = torch.tensor([[token]], device=model.device)


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


def _choose(logits: torch.Tensor, settings: GenerationSettings, random: torch.Generator) -> int:
    """One token id from the last position's logits (vocabulary)."""
    if settings.temperature <= 0:
        return int(logits.argmax())
    order = logits.argsort(descending=True)
    probabilities = torch.softmax(logits[order] / settings.temperature, dim=0)
    before = probabilities.cumsum(0) - probabilities
    probabilities = torch.where(before < settings.top_p, probabilities, 0.0)
    return int(order[torch.multinomial(probabilities, 1, generator=random)])
