"""The shipped demo: its cache is what the committed command makes."""

import numpy as np
import pytest

from explorer import gradients
from explorer.cache.manifest import METHODS
from explorer.cache.shards import fold
from explorer.cache.verify import verify
from explorer.engine import Engine, make_sketcher
from explorer.gradients.sketch import Sketcher
from explorer.normalisation import divisors
from explorer.paths import DEMO
from explorer.serving.session import open_engine
from precompute.data import data_hash, read_examples
from precompute.sketches import token_rows


@pytest.fixture(scope="module")
def demo() -> Engine:
    return open_engine(DEMO / "cache", device="cpu")


def sketcher(demo: Engine) -> Sketcher:
    return make_sketcher(demo.model, demo.store.manifest.settings)


def cosine(u: np.ndarray, v: np.ndarray) -> float:
    return float(u @ v / np.linalg.norm(u) / np.linalg.norm(v))


def test_the_shipped_cache_is_whole_and_small() -> None:
    assert verify(DEMO / "cache") == []
    fitted = set((DEMO / "cache" / METHODS).glob("*.safetensors"))
    size = sum(path.stat().st_size for path in set(DEMO.parent.rglob("*")) - fitted if path.is_file())
    assert size < 40_000_000, f"assets/ holds {size:,} bytes"


def test_the_shipped_cache_was_made_from_the_shipped_data(demo: Engine) -> None:
    assert [part.sha256 for part in demo.store.manifest.parts] == [data_hash(read_examples(DEMO / "train.jsonl"))]


@pytest.mark.parametrize("row", [0, 285, 571])
def test_a_recomputed_sketch_is_the_shipped_one(demo: Engine, row: int) -> None:
    encoded = demo.store.examples[row].encoded
    gradient = gradients.gradient(demo.model, encoded)
    last = demo.model.checkpoints[-1]
    losses = gradients.token_losses(demo.model, [encoded], last.standing_in())[0].detach()
    norms = gradients.norms(gradient)
    fresh = sketcher(demo)(gradients.divided(gradient, divisors(norms, demo.store.manifest.settings.normalisation)))
    shipped = np.concatenate([sketch for sketch, _ in demo.store.sketches()])[row].astype(np.float32)
    np.testing.assert_allclose(demo.store.norms[row], norms, rtol=1e-3)
    assert float(losses.mean()) == pytest.approx(demo.store.losses[row], rel=1e-3)
    # int8 alone costs a cosine of about 1 − 1e-4.
    assert cosine(fresh, shipped) > 0.999


@pytest.mark.long
def test_recomputed_token_sketches_are_the_shipped_ones(demo: Engine) -> None:
    rows = token_rows(demo.store, demo.store.manifest.token_rows)
    assert len(rows) == demo.store.manifest.token_rows
    assert demo.store.token_sketches(rows[0]) is not None
    row = rows[len(rows) // 2]
    shipped = demo.store.token_sketches(row)
    assert shipped is not None
    direction = np.random.default_rng(0).standard_normal((shipped.shape[1],), dtype=np.float32)
    example = demo.store.examples[row]
    settings = demo.store.manifest.settings
    sketch, length = sketcher(demo), settings.token_length
    by = divisors(demo.store.norms[row], settings.normalisation)
    fresh = np.stack(
        [
            fold(sketch(gradients.divided(gradient, by)), length)
            for gradient in gradients.token_gradients(demo.model, example.encoded)
        ]
    )
    assert cosine(fresh @ direction, shipped @ direction) > 0.999
