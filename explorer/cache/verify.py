"""Compares a cache with its manifest and names all that is wrong, each with what mends it. Numpy only."""

from dataclasses import dataclass
from pathlib import Path

from explorer.cache.generations import leftovers, pending
from explorer.cache.manifest import COPY, MANIFEST, METHODS, PENDING, RETRAINING, Contents, is_sealed
from explorer.cache.store import Store, load
from explorer.errors import CacheError, DamageError

MEND = "`rapidin-explorer mend` makes it anew, and nothing else."
SWEPT = "It does no harm; the next command that writes to the cache removes it."


@dataclass(frozen=True)
class Problem:
    """One file that isn't as it should be."""

    file: str
    what: str
    """What is wrong, as the rest of a sentence that begins with the file's name."""
    remedy: str
    harmful: bool = True
    """False for what a stopped command left, which is never read."""

    def __str__(self) -> str:
        """One line for a person."""
        return f"{self.file} {self.what}. {self.remedy}"


def verify(folder: Path) -> list[Problem]:
    """Everything that is wrong with a cache; empty when all is well. Raises CacheError when there is none."""
    found = []
    try:
        store = load(folder)
    except CacheError as problem:
        missing = not (folder / MANIFEST).is_file()
        if not missing and not isinstance(problem, DamageError):
            raise
        what = problem.what if isinstance(problem, DamageError) else "is missing"
        try:
            store = load(folder, COPY)
        except CacheError:
            if missing:
                raise problem from None
            remedy = f"{COPY} can't stand in for it: restore one of them, or remove the folder and make the cache anew."
            return [Problem(MANIFEST, what, remedy)]
        found = [Problem(MANIFEST, what, f"`rapidin-explorer mend` restores it from {COPY}.")]
    found += [Problem(listed.file, damage.what, MEND) for listed, damage in store.damage().items()]
    return found + _copy_problem(store) + _unfinished(store) + _unlisted(store)


def _copy_problem(store: Store) -> list[Problem]:
    """The copy may be one step ahead of the manifest where a command was killed."""
    try:
        if Contents.decode((store.folder / COPY).read_bytes()) == store.contents:
            return []
        return [Problem(COPY, "isn't the manifest's", SWEPT.replace("removes", "replaces"), harmful=False)]
    except FileNotFoundError:
        if not is_sealed((store.folder / MANIFEST).read_bytes()):
            return []
        what = "is missing"
    except (OSError, ValueError) as problem:
        what = f"is damaged ({problem})"
    return [Problem(COPY, what, "`rapidin-explorer mend` writes it anew.")]


def _unfinished(store: Store) -> list[Problem]:
    found = []
    have = sum(shard.count for shard in store.shards_of("sketches"))
    if not store.complete:
        what = f"lists sketches of {have:,} of {store.manifest.rows:,} examples only"
        found.append(Problem(MANIFEST, what, "Run the same `rapidin-explorer precompute` again to finish it."))
    if (store.folder / PENDING).is_file():
        next_one = pending(store)
        what = "is left of a command that was stopped"
        if next_one:
            what = f"is an unfinished append of {next_one.manifest.parts[-1].name}"
        remedy = "The same `rapidin-explorer append` finishes it; any other command that writes drops it."
        found.append(Problem(PENDING, what, remedy if next_one else SWEPT, harmful=False))
    return found


def _unlisted(store: Store) -> list[Problem]:
    """What stopped commands left, and files of somebody else."""
    next_one = pending(store)
    listed = {*store.contents.files, *(next_one.contents.files if next_one else ())}
    left = leftovers(store.folder, listed)
    found = [Problem(name, "is left of a command that was stopped", SWEPT, harmful=False) for name in left]
    known = {MANIFEST, COPY, PENDING, *listed, *left}
    names = (path.relative_to(store.folder).as_posix() for path in store.folder.rglob("*") if path.is_file())
    # What methods were fitted to, and what trainings found, is checked when it is read, and made anew where it isn't
    # as it was written.
    beside = (f"{METHODS}/", f"{RETRAINING}/")
    strangers = [name for name in sorted(names) if name not in known and not name.startswith(beside)]
    remedy = "It is never read; move it elsewhere."
    return found + [Problem(name, "isn't part of the cache", remedy, harmful=False) for name in strangers]
