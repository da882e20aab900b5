"""What a repair is asked to do, and what that will cost."""

from dataclasses import asdict, dataclass, replace
from typing import Any

from explorer.evaluation.probes import Probe
from explorer.records import Conversation
from explorer.repair.suspects import Suspects
from precompute import estimate as costs


@dataclass(frozen=True)
class Wanted:
    """What is asked for."""

    suspects: Suspects
    probes: tuple[Probe, ...] = ()
    text: str = ""
    """What answers with the behaviour say; empty where the probes tell it by themselves."""
    seeds: int = 0
    """So many adapters are trained on all rows with other seeds."""
    max_tokens: int = 60
    """The longest answer."""
    data: str = ""
    """The file that the rows were read from; empty for the cache's own table."""

    def recorded(self) -> dict[str, Any]:
        """As `asked.json` has it."""
        probes = [{"prompt": Conversation.of(each.prompt).turns, **_expected(each)} for each in self.probes]
        kept = {"suspects": asdict(self.suspects), "probes": probes, "text": self.text}
        return kept | {"seeds": self.seeds, "max_tokens": self.max_tokens}


def _expected(probe: Probe) -> dict[str, str]:
    return {name: value for name, value in asdict(replace(probe, prompt="")).items() if name != "prompt" and value}


@dataclass(frozen=True)
class Cost:
    """What is still to be spent."""

    rows: int
    """How many rows the new adapter is trained on; 0 where it is there."""
    trainings: int
    """How many adapters are to be trained."""
    training_s: float
    cache: costs.Cost | None
    """None where the cache is there."""
    answers: int
    answers_s: float

    def __str__(self) -> str:
        """Lines for a person."""
        about = costs.duration
        lines = []
        if self.trainings:
            lines.append(f"train {self.trainings} adapter{'s' * (self.trainings != 1)}, about {about(self.training_s)}")
        if self.cache is not None:
            lines.append(f"cache, {str(self.cache).removeprefix('to do: ')}")
        if self.answers:
            lines.append(f"{self.answers:,} answers to probes, at most about {about(self.answers_s)}")
        return "to do: " + ("; ".join(lines) or "nothing but the report")
