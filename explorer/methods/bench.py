"""The methods of one engine, each opened once."""

from explorer.concurrency import Recent
from explorer.engine import Engine
from explorer.methods.attributor import Attributor, Memory
from explorer.methods.opening import open_method
from explorer.records import Chosen


class Bench:
    """All methods over one engine's cache."""

    def __init__(self, engine: Engine, before: "Bench | None" = None):
        """No method is opened before it is asked for. `before` is that of the same cache before it had grown."""
        self.engine = engine
        self._memory: Memory = Memory(engine.store.manifest.rows, before._memory if before else None)
        self._known: Recent[str, Attributor] = Recent(32)

    def of(self, chosen: Chosen) -> Attributor:
        """The method with its memory. Raises MethodError where there is none of this name."""
        known = self._known.get(chosen.name)
        if known is None:
            known = Attributor(open_method(self.engine, chosen.name), self._memory)
            self._known.put(chosen.name, known)
        return known
