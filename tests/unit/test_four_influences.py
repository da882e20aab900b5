"""The four influences of Eq. 5 to 8 against explicit per-token backward passes."""

import numpy as np
import pytest

from explorer import gradients
from explorer.engine import Engine
from explorer.records import Answer, Selection


def explicit_matrix(engine: Engine, answer: Answer, row: int) -> np.ndarray:
    """M[j, i] = e·η·⟨∇L(t^j)/‖∇L(t)‖, ∇L(s^i)/‖∇L(s)‖⟩ with one backward pass for every token (G_t × G_k)."""
    model, example = engine.model, engine.store.examples[row]

    def normalised(encoded):
        whole, _ = gradients.example_gradient(model, encoded)
        norms = gradients.norms(whole)
        return [gradients.divided(g, norms) for g in gradients.token_gradients(model, encoded)]

    outputs, inputs = normalised(answer.encoded), normalised(example.encoded)
    matrix = np.array([[gradients.inner_product(q, g) for g in inputs] for q in outputs])
    return matrix * engine.store.manifest.training.scale


@pytest.mark.parametrize("selection", [None, (0, 1), (2, 3), (1, 5)])
def test_exact_influences_equal_explicit_backward_passes(tiny_engine: Engine, selection: Selection) -> None:
    answer = tiny_engine.given_answer("What is bright?", "It is the sun.")
    for row in range(3):
        matrix = explicit_matrix(tiny_engine, answer, row)
        expected = matrix.mean(axis=0) if selection is None else matrix[selection[0] : selection[1]].mean(axis=0)
        found = tiny_engine.refine(answer, selection, row)
        assert found.values is not None
        np.testing.assert_allclose(found.values, expected, rtol=2e-4, atol=1e-7)
        assert found.score == pytest.approx(expected.mean(), rel=2e-4, abs=1e-7)
