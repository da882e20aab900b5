"""Threads that compute side by side, in each of which torch uses one thread alone.

Every thread works on a part of its own and waits for no other, as torch's own
threads do after every small piece of work.
"""

import threading
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import torch


def thread_count() -> int:
    """As many as torch uses."""
    return torch.get_num_threads()


@cache
def threads() -> ThreadPoolExecutor:
    """The threads, begun at the first call."""
    wanted = thread_count()
    ready = threading.Barrier(wanted + 1)

    def alone() -> None:
        torch.get_num_threads()  # The first call in a thread sets the number; the next one shall stay.
        torch.set_num_threads(1)
        ready.wait()

    begun = ThreadPoolExecutor(wanted, "share", initializer=alone)
    for _ in range(wanted):
        begun.submit(int)
    ready.wait()
    # Setting it in one thread also changes what later threads begin with.
    torch.set_num_threads(wanted)
    return begun
