"""What is said of other sketch seeds is what other seeds do; and each checkpoint's part of a score is its part."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from explorer import gradients
from explorer.cache.store import open_cache
from explorer.gradients import sketch
from explorer.gradients.losses import Gradient
from explorer.gradients.sketch import Sketcher, SketchSettings
from explorer.model.language_model import LanguageModel
from explorer.records import Encoded, Influence, Ranking, Steadiness
from explorer.trust.stability import leading, noise_covariance, redrawn, steadied
from tests.asking import OWN
from tests.conftest import Tiny
from tests.tiny import ROWS

Seeds = tuple[NDArray[np.float64], list[tuple[NDArray[np.float32], NDArray[np.float32]]]]

SHOWN, EXAMINED, LENGTH, SEEDS, PADDED = 3, 5, 64, 300, 1 << 12


def unit(model: LanguageModel, encoded: Encoded) -> Gradient:
    found = gradients.gradient(model, encoded)
    return gradients.normalised(model, found, gradients.norms(found), "cosine")


@pytest.fixture(scope="module")
def seeds(tiny: Tiny) -> Seeds:
    """Exact scores of the seven rows, and their sketches and the question's by many truly different seeds."""
    from explorer.model.loading import load_model

    model = load_model(str(tiny.model), tiny.adapter, device="cpu")
    rows = [unit(model, model.encode(({"role": "user", "content": row["prompt"]},), row["response"])) for row in ROWS]
    asked = ({"role": "user", "content": "What is bright?"},)
    question = unit(model, model.encode(asked, "It is a star of the river."))
    exact = np.array([gradients.inner_product(row, question) for row in rows])
    sketched = []
    with pytest.MonkeyPatch.context() as patched:
        # What pads a gradient of so few numbers to a million would be all of the work.
        patched.setattr(sketch, "_SHORTEST", PADDED)
        for seed in range(SEEDS):
            sketcher = Sketcher(model.fingerprint.layout, SketchSettings(LENGTH, 20, seed), model.device)
            sketched.append((np.stack([sketcher(row) for row in rows]), sketcher(question)))
    return exact, sketched


def covariance(
    exact: NDArray[np.float64], rows: NDArray[np.float32], question: NDArray[np.float32]
) -> NDArray[np.float64]:
    return noise_covariance(float(np.linalg.norm(question)), rows @ rows.T, exact, LENGTH)


def test_the_predicted_share_of_seeds_that_show_a_row_is_the_share_of_real_seeds_that_do(seeds: Seeds) -> None:
    exact, sketched = seeds
    scores = np.stack([rows @ question for rows, question in sketched])
    order = np.argsort(-scores, axis=1)
    for count, name in ((SHOWN, "shown"), (EXAMINED, "examined")):
        observed = np.array([(order[:, :count] == row).any(axis=1).mean() for row in range(len(exact))])
        predicted = np.mean(
            [
                getattr(redrawn(np.arange(7), exact, covariance(exact, *each), SHOWN, EXAMINED, False), name)
                for each in sketched[:30]
            ],
            axis=0,
        )
        sampling = np.sqrt(np.maximum(predicted * (1 - predicted), 1e-3) / SEEDS)
        assert (np.abs(predicted - observed) < 3.5 * sampling + 0.02).all(), (name, predicted, observed)
        assert ((observed > 0.1) & (observed < 0.9)).any(), "the noise decides something here"


def test_the_noise_has_the_predicted_covariance(seeds: Seeds) -> None:
    exact, sketched = seeds
    scores = np.stack([rows @ question for rows, question in sketched])
    expected = np.mean([covariance(exact, *each) for each in sketched], axis=0)
    deviations = np.sqrt(np.outer(np.diag(expected), np.diag(expected)))
    # A correlation found in 300 draws is good to about 1/√300; the entries follow no exact normal law.
    assert (np.abs(np.cov(scores.T) - expected) / deviations).max() < 0.25
    assert (np.abs(np.corrcoef(scores.T) - expected / deviations)).max() < 0.2


def test_resampling_buckets_would_add_the_sum_of_squared_products(seeds: Seeds) -> None:
    """Why the covariance is taken from its formula: with D only five times K the difference is plain."""
    exact, sketched = seeds
    scores = np.stack([rows @ question for rows, question in sketched])
    products = np.stack([rows * question for rows, question in sketched])
    resampled = ((products**2).sum(axis=2) - products.sum(axis=2) ** 2 / LENGTH).mean(axis=0)
    formula = np.mean([np.diag(covariance(exact, *each)) for each in sketched], axis=0)
    observed = scores.var(axis=0)
    assert np.abs(formula / observed - 1).mean() < np.abs(resampled / observed - 1).mean()
    assert resampled.mean() > 1.3 * formula.mean()


def test_without_noise_everything_stays_where_it_is() -> None:
    found = redrawn(np.arange(5), np.array([5.0, 4, 3, 2, 1]), np.zeros((5, 5)), 2, 3, False)
    assert found.shown.tolist() == [1, 1, 0, 0, 0] and found.examined.tolist() == [1, 1, 1, 0, 0]
    assert found.missed == 0
    turned = redrawn(np.arange(5), np.array([5.0, 4, 3, 2, 1]), np.zeros((5, 5)), 2, 3, True)
    assert turned.shown.tolist() == [0, 0, 0, 1, 1]


def test_noise_that_all_share_changes_no_order() -> None:
    found = redrawn(np.arange(4), np.array([4.0, 3, 2, 1]), np.full((4, 4), 100.0), 2, 3, False)
    assert found.shown.tolist() == [1, 1, 0, 0]


def test_an_example_not_examined_is_missed_as_often_as_its_noise_lifts_it() -> None:
    # One standard deviation below the last shown: 0.1587 of a normal distribution lies above that.
    found = redrawn(np.arange(3), np.array([9.0, 5.0, 4.0]), np.eye(3), 2, 2, False)
    assert found.missed == pytest.approx(0.1587, abs=1e-4)
    assert redrawn(np.arange(2), np.array([9.0, 5.0]), np.eye(2), 2, 2, False).missed == 0


def test_more_are_shown_than_there_are_and_all_of_them_are() -> None:
    assert redrawn(np.arange(2), np.array([2.0, 1.0]), np.eye(2), 5, 9, False).shown.tolist() == [1, 1]


def influence(row: int, parts: tuple[float, ...]) -> Influence:
    return Influence(row, sum(parts), exact=True, values=None, parts=parts)


def test_each_checkpoint_alone_shows_those_with_its_largest_parts() -> None:
    parts = [(3.0, 0.0), (2.0, 1.0), (0.0, 2.5)]
    assert leading(parts, 1, False).tolist() == [[True, False, False], [False, False, True]]
    assert leading(parts, 1, True).tolist() == [[False, False, True], [True, False, False]]
    candidates = [influence(row, each) for row, each in enumerate(parts)]
    shown = tuple(candidates[:2])
    ranking = Ranking("id", None, False, np.array([3.1, 2.9, 2.4], dtype=np.float32), shown, 0.1, method=OWN)
    drawn = redrawn(np.arange(3), np.array([3.0, 3.0, 2.5]), 0.01 * np.eye(3), 2, 3, False)
    found = steadied(ranking, drawn, ("1", "2"), candidates).influences
    first, second = found[0].steadiness, found[1].steadiness
    assert first is not None and second is not None
    assert (first.checkpoints, second.checkpoints, first.of) == (("1",), ("1", "2"), ("1", "2"))
    assert first.sketched == pytest.approx(3.1) and first.error == pytest.approx(0.1) and first.examined == 1


def test_checkpoints_are_told_only_where_every_candidate_s_part_is_known() -> None:
    candidates = [influence(0, (1.0, 1.0)), Influence(1, 1.0, exact=False, values=None)]
    ranking = Ranking("id", None, False, np.ones(2, dtype=np.float32), tuple(candidates), 0.1, method=OWN)
    drawn = redrawn(np.arange(2), np.ones(2), np.eye(2), 2, 2, False)
    assert {
        each.steadiness.of for each in steadied(ranking, drawn, ("1", "2"), candidates).influences if each.steadiness
    } == {()}
    alone = [replace(each, parts=(1.0,)) for each in candidates]
    assert steadied(replace(ranking, influences=tuple(alone)), drawn, (), alone).influences[0].steadiness == Steadiness(
        1.0, 1.0, 1.0, 1.0
    )
    assert steadied(ranking, None, (), candidates) is ranking


def test_sketches_of_single_rows_are_those_of_the_shards_folded(tiny: Tiny) -> None:
    store = open_cache(tiny.cache)
    whole = np.concatenate([rows.astype(np.float32) * scale[:, None] for rows, scale in store.sketches()])
    rows = np.array([5, 0, 3])
    found = store.sketches_of(rows, 1024)
    assert found == pytest.approx(whole[rows].reshape(3, 1024, -1).sum(axis=2), rel=1e-5, abs=1e-6)
