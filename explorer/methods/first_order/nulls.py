"""What a cache's examples score on unrelated questions, by the kind of question."""

from explorer.cache import Store
from explorer.trust import NullSample
from explorer.trust.significance import KINDS, RAISED, TOKEN


class Nulls:
    """A cache's null sample."""

    def __init__(self, store: Store):
        """A cache may have no null sample, or an early one."""
        kinds = {kind: store.nulls(kind) for kind in KINDS}
        self._samples = {kind: NullSample(shards) for kind, shards in kinds.items() if shards and shards[0].size}

    def of(self, kind: str) -> NullSample | None:
        """The scores on unrelated questions of a kind; None in a cache that doesn't keep them.

        An early cache tells no single tokens apart: there all of them are one
        kind. What it doesn't know of raised words is None, so that one is asked about as any other.
        """
        found = self._samples.get(kind)
        return self._samples.get(TOKEN) if found is None and kind in KINDS and kind != RAISED else found
