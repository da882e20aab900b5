"""A served cache that is still being made: which part of it a session looks at, and when it looks at more.

What is on a page is of one part of the cache, whatever is added meanwhile. Each new question, and a button, take up
what was added since. Loads neither models nor desks.
"""

import threading

import streamlit as st

from explorer import views
from explorer.app.widgets import polling
from explorer.cache import Progress, Store, later, open_cache, progress, so_far
from explorer.errors import CacheError

KEPT = 4
"""So many parts of one cache can be looked at beside each other; who looks at an older one gets the newest."""
_LOOKED_AT = "looked_at "
"""How the session key begins that names the part of a cache which is looked at."""


class Parts:
    """What of one cache was looked at, by the number of its files; may be asked from any thread."""

    def __init__(self, folder: str):
        """The cache as far as it is now. Raises CacheError when it can't be opened, or holds no example yet."""
        opened = so_far(open_cache(folder))
        self._lock = threading.Lock()
        self._kept = {len(opened.shards): opened}

    @property
    def newest(self) -> Store:
        """The part that was looked at last."""
        return list(self._kept.values())[-1]

    def now(self) -> int:
        """The number of the cache as far as it is now."""
        with self._lock:
            if not is_finished(self.newest):
                found = later(self.newest)
                self._kept[len(found.shards)] = found
            return len(self.newest.shards)

    def of(self, number: int) -> Store | None:
        """The part of this number; None where it isn't kept any more."""
        return self._kept.get(number)

    def outdated(self) -> list[int]:
        """The numbers of parts that nobody shall look at from now on."""
        with self._lock:
            old = list(self._kept)[:-KEPT]
            for number in old:
                del self._kept[number]
            return old


def is_finished(store: Store) -> bool:
    """Whether all examples are read and have their scores on unrelated prompts, by the manifest alone."""
    return store.complete and sum(shard.count for shard in store.shards_of("nulls")) == store.total


@st.cache_resource(show_spinner="Opening the cache …")
def parts(folder: str) -> Parts:
    """All parts of a cache that are looked at."""
    return Parts(folder)


def looked_at(folder: str) -> int:
    """The number of the part of a cache that this session looks at."""
    known, key = parts(folder), _LOOKED_AT + folder
    number = st.session_state.get(key)
    if number is None:
        number = st.session_state[key] = known.now()
    elif known.of(number) is None:
        number = st.session_state[key] = len(known.newest.shards)
        _begin_anew()
    return int(number)


def store(folder: str) -> Store:
    """The part of a cache that this session looks at."""
    found = parts(folder).of(looked_at(folder))
    assert found is not None
    return found


def take_up(folder: str) -> None:
    """Look at all that is there by now. What is shown stays, and its examples are looked for anew."""
    number = parts(folder).now()
    if number != looked_at(folder):
        st.session_state[_LOOKED_AT + folder] = number
        _begin_anew()


def _begin_anew() -> None:
    """Leave the work over the part that was looked at before: the next run of the page begins it over the new one."""
    for key in map(str, list(st.session_state)):
        if key.endswith("explaining") or "work:" in key:
            work = st.session_state[key]
            if hasattr(work, "cancel"):
                work.cancel()
            st.session_state[key] = None


def line(folder: str) -> None:
    """Say on every page of a cache in the making how much of the data is looked at; offer more when there is more."""
    try:
        seen = store(folder)
    except CacheError:
        return  # The page says what is wrong.
    if is_finished(seen):
        return
    now = progress(seen)
    if not (seen.awaited or now.at_work or now.files > len(seen.shards)):
        return

    def show() -> None:
        _line(folder, seen, progress(seen))

    polling.follow(f"growing {len(seen.shards)}", show, lambda: progress(seen).at_work, every=_EVERY)


_EVERY = 5.0
"""Seconds between two looks at how far the cache is."""


def _line(folder: str, seen: Store, now: Progress) -> None:
    with st.container(horizontal=True, vertical_alignment="center", key="growing"):
        st.text(said(seen, now), width="content")
        more = now.read - seen.manifest.rows
        scored = not now.at_work and now.files > len(seen.shards)
        if (more > 0 or scored) and st.button(f"Use {more:,} more" if more else "Use them", icon=":material/refresh:"):
            take_up(folder)
            st.rerun()


def said(seen: Store, now: Progress) -> str:
    """How much of the data is looked at, in a sentence, and how long the rest takes."""
    if not seen.awaited and not now.at_work:
        return "All training examples are read and scored on unrelated prompts by now."
    if not seen.awaited:
        return (
            f"All {seen.total:,} training examples are read. How strong the evidence is isn't known before they are "
            "scored on unrelated prompts, too."
        )
    among = views.ranked_among(seen.manifest.rows, seen.total).rstrip(".")
    if not now.at_work and now.awaited:
        return f"{among}; nothing reads the rest now. The command that made the cache goes on with it."
    left = f" (about {polling.duration(now.seconds_left)} left)" if now.seconds_left and now.awaited else ""
    return f"{among}; {f'the rest are still being read{left}' if now.awaited else 'by now all are read'}."


def in_the_making(folder: str) -> bool:
    """Whether what this session looks at isn't all that the cache will be."""
    seen = store(folder)
    return bool(seen.awaited) or (not is_finished(seen) and progress(seen).at_work)
