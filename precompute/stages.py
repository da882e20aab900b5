"""What a cache of one stage of a training says of the next: which fine-tuning followed."""

import os
from pathlib import Path

from explorer.cache import FollowedBy, open_cache
from explorer.errors import MismatchError
from explorer.model.language_model import LanguageModel


def following(cache: str | Path, folder: Path, model: LanguageModel) -> FollowedBy:
    """What a cache in a folder says of the fine-tuning, with a cache of its own, that followed on its model.

    Raises MismatchError where that isn't a fine-tuning of the model, CacheError where it isn't finished.
    """
    later = open_cache(cache)
    later.require_complete()
    made, own = later.manifest.fingerprint, model.fingerprint
    origin = made.base if made.adapter else made.start
    if not origin:
        raise MismatchError(
            f"{cache} doesn't say what its model was fine-tuned from; make it with --base, or give another cache."
        )
    if own.adapter or origin != own.base:
        raise MismatchError(
            f"{cache} isn't the cache of a fine-tuning of {model.name}; give that of the fine-tuning that followed."
        )
    place = os.path.relpath(later.folder.resolve(), folder.resolve())
    return FollowedBy(place, later.manifest.outcome, later.manifest.data_sha256)
