"""A causal language model with its tokenizer, its prompt template and its trainable tensors.

It knows how text becomes token ids. It knows nothing of losses or gradients,
nor where models come from.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from explorer.errors import ModelError, PromptError
from explorer.model import sequences
from explorer.model.adapter import quiet_peft
from explorer.model.reader import TokenReader
from explorer.model.sequences import Template, Tools
from explorer.model.substitution import substituted
from explorer.model.way import Way
from explorer.records import LAST_ANSWER, Counting, Encoded, Fingerprint, Message, Token, TrainingRecord


@dataclass(frozen=True)
class Checkpoint:
    """The trained tensors as they were at one moment of training, θ_c."""

    name: str
    """Empty for the final model, where it is the only one."""
    tensors: dict[str, torch.Tensor]
    """Those that gradients are taken of, by the names the network knows them by."""
    share: float = 1.0
    """Its e·η as a part of the sum over all checkpoints."""
    held: dict[str, torch.Tensor] = field(default_factory=dict)
    """Those of this moment that are held constant; empty where the network's own are of this moment."""

    def standing_in(self, tensors: dict[str, torch.Tensor] | None = None) -> dict[str, torch.Tensor]:
        """Everything that takes the place of the network's own tensors, with `tensors` for `self.tensors`."""
        return {**self.held, **(self.tensors if tensors is None else tensors)}

    def qualified(self, name: str) -> str:
        """The name of one of its tensors among those of all checkpoints."""
        return f"{self.name}/{name}" if self.name else name


@dataclass(frozen=True)
class LanguageModel:
    """A loaded model, ready to generate and to be differentiated."""

    network: Any
    """The transformers model, wrapped by peft where there is an adapter, in evaluation mode."""
    tokenizer: Any
    template: Template
    trainable: dict[str, torch.nn.Parameter]
    """θ: the adapter's tensors, or all parameters where there is no adapter; or those of them that were chosen."""
    checkpoints: tuple[Checkpoint, ...]
    """Where gradients are taken: the final θ alone, or the checkpoints that influence sums over (Eq. 4)."""
    training: TrainingRecord
    fingerprint: Fingerprint
    name: str
    adapter: str
    base: str
    """The model that it was wholly fine-tuned from; empty where that isn't known, or an adapter lies on it."""
    way: Way
    """How the trained tensors go from the base to this model."""
    held: dict[str, torch.nn.Parameter] = field(default_factory=dict)
    """The trained tensors that weren't chosen: they are held constant."""
    tensors: str = ""
    """The regular expression that chose; all were taken where it is empty."""
    end: int | None = None
    """The control token that the template ends an answer with; None where it has none."""
    originals: dict[str, torch.Tensor] = field(default_factory=dict)
    """The base's own tensors where loading the adapter put others into their place."""
    lost_base: str = ""
    """Why the base that is there can't be asked, as the end of a sentence; empty where it can."""

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return next(self.network.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The number format of activations: that of the embeddings, which are never quantised."""
        return self.network.get_input_embeddings().weight.dtype

    @contextmanager
    def without_adapter(self) -> Iterator[None]:
        """The base model alone, as its file holds it. Raises ModelError where there is none to ask beside this one."""
        if self.without_base:
            raise ModelError(f"There is no base model beside this one to ask: {self.without_base}.")
        if self.base:
            with substituted(self.network, self.way.at(0.0, {**self.trainable, **self.held})):
                yield
            return
        # Switching the adapter on again makes all its tensors differentiable: they are put back as they were.
        kept = [(tensor, tensor.requires_grad) for tensor in self.network.parameters()]
        try:
            with quiet_peft(), self.network.disable_adapter(), substituted(self.network, self.originals):
                yield
        finally:
            for tensor, differentiable in kept:
                tensor.requires_grad_(differentiable)

    @property
    def has_base(self) -> bool:
        """Whether there is a base model to ask beside it."""
        return not self.without_base

    @property
    def without_base(self) -> str:
        """Why there is no base model to ask beside it, as the end of a sentence; empty where there is one."""
        if self.adapter or self.base:
            return self.lost_base
        return "all parameters of this model were trained, and its base isn't given"

    @property
    def context(self) -> int:
        """The longest sequence the model accepts, in tokens."""
        return int(getattr(self.network.config, "max_position_embeddings", 0) or 1 << 30)

    @property
    def stop_ids(self) -> set[int]:
        """The token ids that end a generation: those the model declares, and the template's own."""
        declared = self.network.generation_config.eos_token_id if self.network.generation_config else None
        ids = declared if isinstance(declared, list) else [declared]
        return {int(i) for i in [*ids, self.tokenizer.eos_token_id, self.end] if i is not None}

    def encode_prompt(self, messages: Sequence[Message]) -> NDArray[np.int64]:
        """Token ids of the text that the model continues. Raises PromptError when empty or longer than the context."""
        ids = sequences.prompt_ids(self.tokenizer, self.template, messages)
        if not ids:
            raise PromptError("The prompt is empty; type a question first.")
        prompt = np.asarray(ids, dtype=np.int64)
        self.check(prompt, self.context - 1)
        return prompt

    def encode(
        self,
        messages: Sequence[Message],
        response: str | Message,
        tools: Tools = (),
        counting: Counting = LAST_ANSWER,
        uncounted: Collection[int] = (),
    ) -> Encoded:
        """A conversation with its answer, a text or a whole turn, as one sequence, closed as the template closes it.

        `counting` says which of its tokens are in the loss, and `uncounted` which earlier answers aren't.

        Raises PromptError when it is empty, longer than the context, or nothing that the template can write.
        """
        answer = {"role": "assistant", "content": response} if isinstance(response, str) else response
        encoded = sequences.sequence(self.tokenizer, self.template, messages, answer, tools, counting, uncounted)
        self.check(encoded.ids, self.context)
        return encoded

    def check(self, ids: NDArray[np.int64], most: int) -> None:
        """Raise PromptError for token ids that are more than `most`, or that the model has no embedding for."""
        if len(ids) > most:
            raise PromptError(
                f"The text is {len(ids):,} tokens long, and the model reads {most:,} of them at most; shorten it."
            )
        beyond = ids[ids >= self.network.get_input_embeddings().weight.shape[0]]
        if len(beyond):
            token = self.tokenizer.convert_ids_to_tokens(int(beyond[0]))
            raise PromptError(
                f"The text has {token} in it, a token for which the model has no embedding; leave it out."
            )

    def tokens(self, ids: Iterable[int]) -> tuple[Token, ...]:
        """How each token of a sequence is shown; see `TokenReader`."""
        return tuple(map(TokenReader(self.tokenizer), ids))
