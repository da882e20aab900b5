"""Second-order methods judged by converged conjugate gradients: against explicit inverses in float64."""

from pathlib import Path

import numpy as np
import pytest

from explorer.cache.manifest import CacheSettings
from explorer.engine import Engine
from explorer.errors import MethodError, UnsupportedError
from explorer.evaluation.inverses import REFERENCE, InverseSettings, judge_inverses
from explorer.gradients.sketch import generator
from explorer.methods.second_order.curvature import curvature_rows
from explorer.model.loading import load_model
from explorer.records import Answer
from explorer.serving.session import open_engine
from explorer.trust.comparing import spearman
from precompute.build import build_cache
from precompute.data import read_examples
from tests.conftest import Tiny
from tests.explicit import Explicit

ROWS, CANDIDATES = 2, 6
SETTINGS = InverseSettings(("ekfac", "datainf", "lissa:5", "arnoldi:3", "graddot"), 0.05, ROWS, CANDIDATES, 200)


@pytest.fixture
def engine(tiny: Tiny, tmp_path: Path) -> Engine:
    model = load_model(str(tiny.model), tiny.adapter, device="cpu")
    settings = CacheSettings(4096, 1024, normalisation="layer")
    build_cache(model, read_examples(tiny.data), tmp_path / "cache", settings, tokens=0, data_name="train.jsonl")
    return open_engine(tmp_path / "cache", device="cpu")


def questions(engine: Engine) -> list[Answer]:
    said = [("What shines?", "The moon and the sun."), ("Where do fish live?", "In the sea.")]
    return [engine.given_answer(*each) for each in said]


def test_every_approximation_is_compared_with_the_inverse_itself(tiny: Tiny, engine: Engine) -> None:
    found = judge_inverses(engine, questions(engine), SETTINGS, lambda *each: None)
    assert list(found.figures) == [REFERENCE, *SETTINGS.methods]
    assert found.left < 1e-3 and all(0 < count <= 200 for count in found.products)

    explicit = Explicit(load_model(str(tiny.model), tiny.adapter, device="cpu", precision="float64"))
    manifest, rows = engine.store.manifest, [example.encoded for example in engine.store.examples]
    curved = curvature_rows(manifest.data_sha256, manifest.rows, ROWS)
    mean = np.mean([explicit.gauss_newton(rows[row]) for row in curved], axis=0)
    damping = 0.05 * np.linalg.eigvalsh(mean)[-1]
    assert found.damping == pytest.approx(damping, rel=0.02)
    order = generator(0, "candidates", manifest.data_sha256).permutation(manifest.rows)[:CANDIDATES]
    gradients = np.stack([explicit.gradient(rows[row]) for row in order])
    inverse = np.linalg.inv(mean + damping * np.eye(len(mean)))
    asked = [explicit.gradient(answer.encoded) for answer in questions(engine)]
    plain = np.mean([spearman(gradients @ inverse @ q, gradients @ q) for q in asked])
    assert found.figures["graddot"]["spearman"] == pytest.approx(plain, abs=1e-6)
    for figures in found.figures.values():
        assert -1 <= figures["spearman"] <= 1 and figures["seconds_a_question"] > 0 and figures["fit_seconds"] >= 0


def test_all_methods_have_the_same_damping(engine: Engine) -> None:
    """With a λ that outweighs all curvature every inverse is a multiple of the identity, but that of a subspace."""
    settings = InverseSettings(("ekfac", "datainf", "lissa:5", "graddot"), 1e6, ROWS, CANDIDATES, 200)
    found = judge_inverses(engine, questions(engine), settings, lambda *each: None)
    assert {name: figures["spearman"] for name, figures in found.figures.items()} == dict.fromkeys(found.figures, 1.0)


@pytest.mark.parametrize("name", ["bm25", "gradcos", "gradlayer"])
def test_what_preconditions_nothing_is_refused(engine: Engine, name: str) -> None:
    settings = InverseSettings((name,), 0.01, ROWS, CANDIDATES, 10)
    with pytest.raises(MethodError, match=f"{name} preconditions no gradient"):
        judge_inverses(engine, questions(engine), settings, lambda *each: None)


def test_what_a_model_has_no_tensors_for_is_refused(engine: Engine) -> None:
    settings = InverseSettings(("ekfac-mlp",), 0.01, ROWS, CANDIDATES, 10)
    with pytest.raises(UnsupportedError, match="in MLPs"):
        judge_inverses(engine, questions(engine), settings, lambda *each: None)
