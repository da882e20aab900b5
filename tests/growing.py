"""A cache in the making, at each moment of it: what a finished one was when only its first files were listed."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np

from explorer.cache.manifest import Contents
from explorer.cache.store import Store, load, write_shard


def begun(finished: Path, beside: str, first: int = 4) -> Path:
    """A copy of a finished cache, its examples in two files, of which the `first` rows' one alone is listed."""
    folder = finished.parent / beside
    shutil.copytree(finished, folder, ignore=shutil.ignore_patterns("methods", "sketches"))
    whole = load(finished)
    rows = whole.manifest.rows
    parts = [(0, first), (first, rows)]
    arrays = [whole.shard_arrays(shard) for shard in whole.shards_of("sketches")]
    joined = {name: np.concatenate([each[name] for each in arrays]) for name in arrays[0]}
    shards = [
        write_shard(
            folder,
            f"sketches/{number:05d}.safetensors",
            "sketches",
            {name: array[start:stop] for name, array in joined.items()},
            np.arange(start, stop),
        )
        for number, (start, stop) in enumerate(parts)
    ]
    manifest = replace(whole.manifest, settings=replace(whole.manifest.settings, shard_rows=first))
    others = tuple(shard for shard in whole.shards if shard.kind != "sketches")
    (folder / "sketches" / "rest.json").write_bytes(
        Contents(manifest, whole.contents.examples, (*shards, *others)).encode()
    )
    Store(folder, Contents(manifest, whole.contents.examples, (shards[0],))).save()
    return folder


def finish(folder: Path) -> None:
    """List the other files, too."""
    Store(folder, Contents.decode((folder / "sketches" / "rest.json").read_bytes())).save()
