"""Who looks at the history, and which of its answers that person sees and may delete."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Reader:
    """Somebody who asks and looks at what was asked."""

    person: str = ""
    """The name; empty for whoever asks without one."""
    shared: bool = True
    """Whether people see each other's answers."""

    @property
    def sees(self) -> tuple[str, tuple[str, ...]]:
        """A condition on `answers` and its parameters: those that the person sees."""
        return ("1", ()) if self.shared else ("answers.person = ?", (self.person,))

    @property
    def may_delete(self) -> tuple[str, tuple[str, ...]]:
        """The same of those that the person may delete: who has a name, what it or nobody asked."""
        if not self.shared:
            return self.sees
        return ("answers.person IN (?, '')", (self.person,)) if self.person else ("1", ())

    @property
    def notes(self) -> str:
        """Whose notes on training examples the person reads and writes; everybody's under the empty name."""
        return "" if self.shared else self.person
