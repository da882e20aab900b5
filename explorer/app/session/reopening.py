"""A saved answer looked at again with the model at hand, under the name it has in the history."""

from explorer.app.session import caches, keeping, resources
from explorer.app.session.state import Study
from explorer.errors import MismatchError
from explorer.history import Origin, SavedAnswer, SavedQuestion
from explorer.model.generation import GenerationSettings


def reopen(study: Study, name: str, choose: bool = True) -> tuple[SavedAnswer, SavedQuestion | None]:
    """Look at the saved answer of this id, or at the one that a question of this id is about.

    Args:
        study: Where it is looked at.
        name: The id.
        choose: Whether to choose the cache that it was asked of, if that is served.

    Returns:
        The answer, and the question if it is one's id, or else the first that was asked; None where none was.

    Raises:
        HistoryError: There is no such answer.
        MismatchError: It came from a model that reads other tokens than the one at hand.
    """
    kept = resources.history().answer(name)
    if choose:
        caches.choose_made_as(kept.origin.cache_sha256)
    check(kept.origin)
    settings = None if kept.drawn is None else GenerationSettings(**kept.drawn)
    asked = next((one for one in kept.questions if one.id == name), next(iter(kept.questions), None))
    selection = asked.selection if asked else None
    asking = resources.desk().reopen(study.owner, kept.answer, settings, selection)
    study.begin(asking, note(kept.origin))
    keeping.resume(study, asking, kept)
    study.select(selection)
    return kept, asked


def check(origin: Origin) -> None:
    """Raise MismatchError unless the chosen cache's model reads the same tokens behind the same template."""
    here = resources.origin()
    for what in ("tokenizer", "template"):
        if getattr(origin, f"{what}_sha256") != getattr(here, f"{what}_sha256"):
            raise MismatchError(
                f"This answer came from a model with another {what} ({origin.model}, cache {origin.cache or '?'}) than "
                f"the one at hand ({here.model}, cache {here.cache}). Serve its cache, too, or read it in the History, "
                "which needs no model."
            )


def note(origin: Origin) -> str:
    """What is to be known where an answer was asked of another cache than the chosen one; empty where it wasn't."""
    if origin.cache_sha256 == resources.origin().cache_sha256:
        return ""
    return (
        "This answer was asked of another cache, or of this one before it changed. What you see is what the cache at "
        "hand says of it, as of any given text."
    )
