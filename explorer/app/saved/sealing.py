"""Saved answers as a sealed file, with what trainings found about them beside the caches that are served."""

from collections.abc import Iterator, Sequence
from contextlib import suppress

from explorer.bundles.sealed import bundle_of, to_bytes
from explorer.cache import open_cache
from explorer.errors import ExplorerError
from explorer.history import Retraining, SavedAnswer
from explorer.serving.config import serve_settings


def to_bundle(answers: Sequence[SavedAnswer]) -> bytes:
    """The file. Raises BundleError where it would be too large."""
    return to_bytes(bundle_of(answers, _retrainings()))


def _retrainings() -> Iterator[Retraining]:
    """The findings that lie beside the served caches; what can't be read is left out."""
    for folder in serve_settings().caches:
        # Its room computes with models, which the history alone never needs.
        from explorer.absence.kept import Shelf

        with suppress(ExplorerError):
            yield from Shelf(open_cache(folder)).retrainings()
