"""On a Ray cluster, whose workers die, a cache has the bytes and a question the ranking of a single process."""

import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from explorer.cache.files import file_sha256
from explorer.cache.manifest import CacheSettings, expand
from explorer.cache.objects import fetch_outline, upload
from explorer.cache.store import Store, open_cache
from explorer.commands import main as cli
from explorer.errors import ClusterError, DamageError, MismatchError
from explorer.model.language_model import LanguageModel
from explorer.model.loading import load_model
from explorer.retrieval.cascade import ExampleScores, best, example_scores
from explorer.retrieval.cluster import cluster, places
from explorer.retrieval.distributed import DistributedStore, part
from precompute import ray_executor
from precompute.build import build_cache
from precompute.data import read_examples
from precompute.ray_executor import RayExecutor
from tests.conftest import Tiny
from tests.tiny import save_tiny_adapter

SETTINGS = CacheSettings(length=1024, token_length=256, batch=2, coarse_lengths=(256, 512), shard_rows=2)


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    pytest.importorskip("ray")
    # A worker has as many threads as this process, and two of them shall find room.
    with cluster(num_cpus=2 * torch.get_num_threads(), object_store_memory=80_000_000) as connected:
        yield connected


@pytest.fixture
def model(tiny: Tiny) -> LanguageModel:
    return load_model(str(tiny.model), tiny.adapter, device="cpu")


@pytest.fixture(scope="module")
def alone(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """What a single process makes: four shards of sketches, seven of token sketches."""
    folder = tmp_path_factory.mktemp("ray") / "alone"
    loaded = load_model(str(tiny.model), tiny.adapter, device="cpu")
    return build_cache(loaded, read_examples(tiny.data), folder, SETTINGS, 7, "train.jsonl")


def load_mortal(folder: Path, load: Callable[[], LanguageModel], deaths: int, moment: int) -> LanguageModel:
    """The model in a worker that kills itself in its `moment`-th forward pass, unless so many did so before it."""
    model, passes = load(), 0

    def count(*_: object) -> None:
        nonlocal passes
        passes += 1
        if passes == moment and len(list(folder.iterdir())) < deaths:
            (folder / str(os.getpid())).touch()
            os.kill(os.getpid(), signal.SIGKILL)

    model.network.register_forward_pre_hook(count)
    return model


def mortal(ray: Any, tiny: Tiny, folder: Path, deaths: int, moment: int) -> Callable[[], LanguageModel]:
    """The same as something that can be sent to workers, who can't import this module."""
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    folder.mkdir()
    load = partial(load_model, str(tiny.model), tiny.adapter, device="cpu")
    return partial(load_mortal, folder, load, deaths, moment)


def contents(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): file_sha256(path) for path in folder.rglob("*") if path.is_file()}


def test_two_workers_one_killed_in_the_midst_of_a_shard_make_the_bytes_of_one_process(
    ray: Any, tiny: Tiny, model: LanguageModel, alone: Store
) -> None:
    seed = random.randrange(1000)
    moment = random.Random(seed).randrange(1, 5)
    load = mortal(ray, tiny, alone.folder.with_name("graves"), deaths=1, moment=moment)
    folder, reports = alone.folder.with_name("spread"), list[tuple[str, int, int]]()

    def report(*progress: Any) -> None:
        reports.append(progress)

    with RayExecutor(ray, load, model.fingerprint, SETTINGS, "cpu", 2) as executor:
        build_cache(model, read_examples(tiny.data), folder, SETTINGS, 7, "train.jsonl", report, executor=executor)
    assert len(list(alone.folder.with_name("graves").iterdir())) == 1, f"no worker died, seed {seed}"
    assert contents(folder) == contents(alone.folder), f"seed {seed}"
    assert [shard.kind for shard in alone.shards] == ["sketches"] * 4 + ["tokens"] * 7
    stages = [[done for stage, done, _ in reports if stage == kind] for kind in ("examples", "tokens")]
    assert stages == [list(range(1, len(stage) + 1)) for stage in stages]
    assert len(stages[0]) == 7 and reports[-1][1] == reports[-1][2]


@pytest.mark.long
def test_points_on_the_way_from_the_base_make_the_bytes_of_one_process(ray: Any, tiny: Tiny, tmp_path: Path) -> None:
    load = partial(load_model, str(tiny.model), tiny.adapter, device="cpu", checkpoints="25%,50%", tensors="lora_B")
    model, settings = load(), replace(SETTINGS, normalisation="cosine", tensors="lora_B")
    examples = read_examples(tiny.data)
    build_cache(model, examples, tmp_path / "alone", settings, 2, "train.jsonl")
    with RayExecutor(ray, load, model.fingerprint, settings, "cpu", 1) as executor:
        build_cache(model, examples, tmp_path / "spread", settings, 2, "train.jsonl", executor=executor)
    assert contents(tmp_path / "spread") == contents(tmp_path / "alone")


def test_a_shard_over_which_workers_keep_dying_is_named_and_the_command_goes_on_after_what_was_made(
    ray: Any, tiny: Tiny, model: LanguageModel, alone: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = alone.folder.with_name("given up")
    with monkeypatch.context() as patched:
        patched.setattr(ray_executor, "DEATHS", 1)
        # A pass of batch 2 makes a shard of sketches, so that the second shard is the one.
        load = mortal(ray, tiny, tmp_path / "graves", 9, 2)
        said = r"died .* the sketches of the examples 2 to 3 .* same command goes on"
        with (
            RayExecutor(ray, load, model.fingerprint, SETTINGS, "cpu", 1) as executor,
            pytest.raises(ClusterError, match=said),
        ):
            build_cache(model, read_examples(tiny.data), folder, SETTINGS, 7, "train.jsonl", executor=executor)
    assert [shard.ids for shard in open_cache(folder).shards] == [((0, 2),)]
    command = ["precompute", str(folder), "--model", str(tiny.model), "--adapter", str(tiny.adapter), "--batch", "2"]
    command += ["--data", str(tiny.data), "--k", "1024", "--token-k", "256", "--coarse-k", "512,256", "--device", "cpu"]
    command += ["--null-prompts", "0"]
    assert cli.main([*command, "--engine", "ray", "--workers", "1"]) == 0
    assert contents(folder) == contents(alone.folder)


def test_a_node_with_another_model_is_refused(ray: Any, tiny: Tiny, model: LanguageModel, tmp_path: Path) -> None:
    load = partial(load_model, str(tiny.model), save_tiny_adapter(tmp_path / "other", tiny.model, seed=9), device="cpu")
    refused = pytest.raises(MismatchError, match="another model of that name")
    with RayExecutor(ray, load, model.fingerprint, SETTINGS, "cpu", 1) as executor, refused:
        build_cache(model, read_examples(tiny.data), tmp_path / "cache", SETTINGS, 0, "t", executor=executor)


def test_a_cluster_without_room_for_a_worker_is_refused(ray: Any, model: LanguageModel) -> None:
    assert places(ray, "CPU", 1) == 2 * torch.get_num_threads() and places(ray, "GPU", 1) == 0
    with pytest.raises(ClusterError, match=r"No node .* has a GPU; give --device cpu"):
        RayExecutor(ray, lambda: model, model.fingerprint, SETTINGS, "cuda")


def whole(store: Store, query: NDArray[np.float32]) -> ExampleScores:
    """The scores of all examples for one question."""
    return example_scores(store, query[None])[0]


@pytest.fixture(scope="module")
def twice(alone: Store) -> Store:
    """The same cache with every example in it twice, in shards of other actors: each score is there twice."""
    sketches = alone.shards_of("sketches")
    parts = tuple(replace(part, rows=14) for part in alone.manifest.parts)
    manifest = replace(alone.manifest, rows=14, parts=parts, token_rows=0)
    again = [replace(shard, ids=tuple((a + 7, b + 7) for a, b in shard.ids)) for shard in sketches]
    return Store(alone.folder, replace(alone.contents, manifest=manifest, shards=(*sketches, *again)))


@pytest.fixture(scope="module")
def spread(ray: Any, twice: Store) -> DistributedStore:
    return DistributedStore(ray, twice, 2)


@pytest.mark.parametrize("scanned", [1 << 30, 0], ids=["scan", "cascade"])
def test_scores_and_rankings_of_two_actors_are_those_of_one_process_ties_included(
    twice: Store, spread: DistributedStore, scanned: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("explorer.retrieval.cascade.SCANNED", scanned)
    for seed in range(2):
        query = np.random.default_rng(seed).normal(size=SETTINGS.length).astype(np.float32)
        scores, found = whole(twice, query), whole(spread, query)
        assert scores.length == (SETTINGS.length if scanned else SETTINGS.coarse_lengths[0])
        assert np.array_equal(scores.values[:7], scores.values[7:]), "there are no ties"
        assert np.array_equal(found.values, scores.values)
        np.testing.assert_allclose(found.first, scores.first, rtol=2e-3, atol=1e-3)
        for count in (1, 3, 14):
            for opponents in (False, True):
                for among in (None, [12, 3, 5, 10], [8, 9], []):
                    expected = best(scores, count, opponents, among)
                    rows, values = spread.top(query, count, opponents, among)
                    assert np.array_equal(rows, expected) and np.array_equal(values, scores.values[expected])


def test_an_actor_that_dies_is_begun_anew(ray: Any, twice: Store, spread: DistributedStore) -> None:
    query = np.ones(SETTINGS.length, dtype=np.float32)
    for pid in spread._ask(lambda _: os.getpid()):
        os.kill(pid, signal.SIGKILL)
    assert np.array_equal(whole(spread, query).values, whole(twice, query).values)
    assert np.array_equal(spread.norms, twice.norms) and np.array_equal(spread.losses, twice.losses)


def test_an_actor_serves_nothing_damaged(ray: Any, alone: Store, tmp_path: Path) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(alone.folder, folder)
    victim = folder / alone.shards[3].file
    victim.write_bytes(victim.read_bytes()[:-1] + b"?")
    spread = DistributedStore(ray, open_cache(folder), 1)
    with pytest.raises(DamageError, match=f"{victim.name} is damaged"):
        spread.top(np.ones(SETTINGS.length, dtype=np.float32), 1)


def test_actors_fetch_their_own_shards_from_an_object_store(ray: Any, alone: Store, tmp_path: Path) -> None:
    url = (tmp_path / "bucket" / "cache").as_uri()
    upload(alone, url)
    store = fetch_outline(url, tmp_path / "node")
    assert not (tmp_path / "node" / "sketches").exists()
    query = np.ones(SETTINGS.length, dtype=np.float32)
    spread = DistributedStore(ray, store, 1, url)
    assert np.array_equal(whole(spread, query).values, whole(alone, query).values)
    assert len(list((tmp_path / "node" / "sketches").iterdir())) == 4


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_parts_are_contiguous_and_together_the_whole(alone: Store, count: int) -> None:
    parts = [part(alone.contents, number, count) for number in range(count)]
    assert [shard for one in parts for shard in one.shards] == alone.shards_of("sketches")
    assert [one.manifest.rows for one in parts] == [len(expand(s for x in one.shards for s in x.ids)) for one in parts]


def test_the_commands_answer_the_same_with_ray(
    ray: Any, tiny: Tiny, alone: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = []
    for more in ([], ["--engine", "ray", "--workers", "1"]):
        query = ["query", str(alone.folder), "--prompt", "Count.", "--response", "One.", "--device", "cpu", "--json"]
        assert cli.main([*query, *more]) == 0
        answers.append(capsys.readouterr().out)
    assert answers[0] == answers[1] and '"examples"' in answers[0]


@pytest.fixture
def running(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a cluster that `ray start` made, in processes of its own; it asks for a token."""
    pytest.importorskip("ray")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    # Sockets lie in the folder, whose paths may have 107 letters.
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        command = [str(Path(sys.executable).with_name("ray")), "start", "--head", "--block", "--disable-usage-stats"]
        command += ["--port", address.split(":")[1], "--num-cpus", "2", "--object-store-memory", "80000000"]
        command += ["--include-dashboard", "false", "--temp-dir", folder, "--node-ip-address", "127.0.0.1"]
        log = tmp_path_factory.mktemp("head") / "log"
        with log.open("w") as output:
            head = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)
        try:
            for _ in range(600):
                if "Ray runtime started" in log.read_text() or head.poll() is not None:
                    break
                time.sleep(0.1)
            assert "Ray runtime started" in log.read_text(), log.read_text()
            yield address
        finally:
            head.terminate()
            head.wait(60)


@pytest.mark.long
def test_a_command_joins_a_cluster_that_runs_already_and_leaves_it_running(
    running: str, tiny: Tiny, tmp_path: Path
) -> None:
    folder = tmp_path / "joined"
    model = ["--model", str(tiny.model), "--adapter", str(tiny.adapter), "--device", "cpu"]
    make = ["precompute", str(folder), *model, "--data", str(tiny.data), "--k", "1024", "--token-k", "256"]
    make += ["--coarse-k", "512,256", "--batch", "2", "--null-prompts", "0"]
    question = ["--prompt", "Count.", "--response", "One.", "--device", "cpu", "--json"]
    ray_there = ["--engine", "ray", "--address", running, "--workers", "2"]

    def run(*command: str) -> str:
        # A worker takes as many processors as it has threads, and the cluster has two.
        own = os.environ | {"OMP_NUM_THREADS": "1"}
        call = [sys.executable, "-m", "explorer.commands", *command]
        done = subprocess.run(call, env=own, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    run(*make, *ray_there)
    # Made by one process of as many threads.
    run("precompute", str(folder.with_name("single")), *make[2:])
    assert contents(folder) == contents(folder.with_name("single"))
    assert run("query", str(folder), *question, *ray_there) == run("query", str(folder), *question)


def test_without_ray_its_engine_is_refused_before_any_work(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # What the import system does where a package is missing.
    monkeypatch.setitem(sys.modules, "ray", None)
    assert cli.main(["query", str(tiny.cache), "--prompt", "Hi", "--engine", "ray"]) == 2
    assert "install rapidin-explorer[ray]" in capsys.readouterr().err
