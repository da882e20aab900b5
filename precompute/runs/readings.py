"""How a trainer may have read a row: its template, what of it is in the loss, and what ends an answer."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from explorer.model.checkpoints import ALPACA, CHAT, PLAIN
from explorer.model.language_model import LanguageModel
from explorer.model.sequences import NO_END
from explorer.records import LAST_ANSWER, LOSSES, Counting

_SAID = {
    "last": "the last answer in the loss",
    "all": "all answers in the loss",
    "prompt": "the prompt and all answers in the loss",
}
_TEMPLATES = {CHAT: "the tokenizer's chat template", ALPACA: "the Alpaca template", PLAIN: "no template (plain)"}


@dataclass(frozen=True)
class Reading:
    """One way to read rows."""

    template: str
    """As `load_model` takes it."""
    counting: Counting = LAST_ANSWER

    def __str__(self) -> str:
        """For a person."""
        end = {"": "the template's own end", NO_END: "no token that ends an answer"}.get(self.counting.end)
        cut = f", cut behind {self.counting.longest:,} tokens" if self.counting.longest else ""
        template = _TEMPLATES.get(self.template, f"the template {self.template}")
        return f"{template}, {_SAID[self.counting.loss]}, {end or f'{self.counting.end} as the end of an answer'}{cut}"

    def counted(self, loss: str) -> "Reading":
        """The same with something else in the loss."""
        return replace(self, counting=replace(self.counting, loss=loss))

    def ended(self, end: str) -> "Reading":
        """The same with another end of answers."""
        return replace(self, counting=replace(self.counting, end=end))


@dataclass(frozen=True)
class Known:
    """What of a reading a person, or the run's own record, said already; what wasn't is empty."""

    template: str = ""
    loss: str = ""
    end: str | None = None
    longest: int = 0


def templates(model: LanguageModel, known: Known) -> list[str]:
    """The plausible templates."""
    if known.template:
        return [known.template]
    return [*([CHAT] if model.tokenizer.chat_template else []), ALPACA, PLAIN]


def ends(model: LanguageModel) -> dict[str, int]:
    """The tokens that may end an answer, with their ids: all that stand for no text.

    The template's own has an empty name.
    """
    tokenizer = model.tokenizer
    control = sorted({*tokenizer.all_special_ids, *tokenizer.get_added_vocab().values()} - {model.end})
    others = {str(tokenizer.convert_ids_to_tokens(token)): token for token in control}
    return others if model.end is None else {"": model.end, **others}


def losses(known: Known, conversations: bool) -> Sequence[str]:
    """What may be in the loss; `conversations` says whether some rows have earlier answers that could be."""
    if known.loss:
        return [known.loss]
    return [loss for loss in LOSSES if loss != "all" or conversations]
