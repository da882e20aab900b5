"""Prompt → answer, one token at a time."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from explorer.errors import PromptError
from explorer.model import LanguageModel
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


def generate(
    model: LanguageModel, messages: Sequence[Message], settings: GenerationSettings | None = None
) -> Iterator[int]:
    """Yield the response's token ids as they are made, a stop token among them if it comes.

    Raises PromptError when the prompt leaves no room in the context.
    """
    settings = settings or GenerationSettings()
    prompt = model.encode_prompt(messages)
    room = model.context - len(prompt)
    if room < 1:
        raise PromptError("The prompt fills the model's whole context; shorten it.")
    random = torch.Generator().manual_seed(settings.seed)
    ids = torch.from_numpy(prompt)[None].to(model.device)
    past = None
    for _ in range(min(settings.max_tokens, room)):
        with torch.no_grad():
            out = model.network(input_ids=ids, past_key_values=past, use_cache=True, logits_to_keep=1)
        past = out.past_key_values
        token = _choose(out.logits[0, -1].float().cpu(), settings, random)
        yield token
        if token in model.stop_ids:
            return
        ids = torch.tensor([[token]], device=model.device)


def _choose(logits: torch.Tensor, settings: GenerationSettings, random: torch.Generator) -> int:
    """One token id from the last position's logits (vocabulary)."""
    if settings.temperature <= 0:
        return int(logits.argmax())
    order = logits.argsort(descending=True)
    probabilities = torch.softmax(logits[order] / settings.temperature, dim=0)
    before = probabilities.cumsum(0) - probabilities
    probabilities = torch.where(before < settings.top_p, probabilities, 0.0)
    return int(order[torch.multinomial(probabilities, 1, generator=random)])
