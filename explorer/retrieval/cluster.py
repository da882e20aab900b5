"""Ray: connects to a cluster, or starts one on this machine for the time being. Ray is imported when it is asked for.

It knows nothing of what the cluster's workers do.
"""

import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from explorer.errors import ClusterError, first_line

_OBJECTS = 1 << 30
"""Bytes for what a local cluster's processes hand each other; a shard has at most a quarter of it."""


def ray_module() -> Any:
    """The `ray` module. Raises ClusterError where it isn't installed."""
    # Set before it is imported: nothing is reported to anyone.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError:
        raise ClusterError("--engine ray needs Ray; install rapidin-explorer[ray].") from None
    return ray


@contextmanager
def cluster(address: str = "", **options: Any) -> Iterator[Any]:
    """The `ray` module, connected to the cluster at an address, or to one on this machine alone, for the time being.

    `options` go to `ray.init` where a local cluster is started. A connection
    that there is already is used, and left open. Raises ClusterError when the
    cluster can't be reached.
    """
    ray = ray_module()
    if ray.is_initialized():
        yield ray
        return
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    # Ray keeps the logs of every run; those of a cluster that ends with us are of no use to anyone.
    # Its sockets lie there too, whose paths may have 107 letters.
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        own = {"include_dashboard": False, "object_store_memory": _OBJECTS, "_temp_dir": folder}
        try:
            ray.init(address=address or "local", **quiet | ({} if address else own | options))
        except (OSError, ValueError, RuntimeError) as problem:
            raise ClusterError(
                f"The Ray cluster {address or 'of this machine'} can't be used ({first_line(problem)}). Give the "
                "address of a running one, as `ray start --head` says it, and its token (RAY_AUTH_TOKEN) where it "
                "asks for one; or no address, to start one here."
            ) from problem
        try:
            yield ray
        finally:
            ray.shutdown()


def places(ray: Any, resource: str, amount: float) -> int:
    """How many workers that need so much of a resource the cluster's nodes have room for."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return sum(int(resources.get(resource, 0) // amount) for resources in nodes)
