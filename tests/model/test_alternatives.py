"""What the model expected, with its adapter and without; and the matrix of one example."""

import numpy as np
import pytest
import torch

from explorer import gradients
from explorer.engine import Engine
from explorer.methods import matrix
from explorer.model import alternatives
from explorer.model.loading import load_model
from explorer.records import Span, TokenMatrix
from tests.asking import asking
from tests.conftest import Tiny
from tests.test_four_influences import explicit_matrix


def test_candidates_and_log_probabilities_are_the_model_s_own(tiny_engine: Engine) -> None:
    answer = tiny_engine.given_answer("What is bright?", "It is naïve.")
    found = tiny_engine.predict(answer)
    first, ids = answer.encoded.response_start, answer.encoded.ids
    for place in range(len(answer.tokens)):
        before = torch.from_numpy(ids[: first + place])[None]
        with torch.no_grad():
            expected = tiny_engine.model.network(input_ids=before).logits[0, -1].double().log_softmax(-1)
        assert found.said[place] == pytest.approx(float(expected[ids[first + place]]), abs=1e-4)
        best = found.candidates[place]
        assert len(best) == alternatives.CANDIDATES
        assert [one.id for one in best] == expected.argsort(descending=True)[: len(best)].tolist()
        assert [one.probability for one in best] == pytest.approx(
            [float(expected[one.id].exp()) for one in best], rel=1e-3
        )
        for one in best:
            assert one.token == tiny_engine.model.tokens([*ids[first : first + place], one.id])[-1]
    assert tiny_engine.predict(answer) is found


def test_the_base_is_the_model_without_its_adapter(tiny: Tiny, tiny_engine: Engine) -> None:
    answer = tiny_engine.given_answer("What is bright?", "It is the sun.")
    before = gradients.gradient(tiny_engine.model, answer.encoded)
    found = tiny_engine.predict(answer)
    bare = alternatives.predict(load_model(str(tiny.model), None, device="cpu"), answer.encoded)
    assert found.base is not None and found.change is not None
    np.testing.assert_allclose(found.base, bare.said, atol=1e-5)
    np.testing.assert_allclose(found.change, found.said - bare.said, atol=1e-5)
    assert np.abs(found.change).max() > 1e-2
    held = [[one.id for one in best] for best in found.base_candidates]
    assert held == [[one.id for one in best] for best in bare.candidates], "and so is what it held likely"
    assert bare.base_candidates == ()
    assert bare.base is None and bare.change is None, "without an adapter there is nothing to switch off"
    after = gradients.gradient(tiny_engine.model, answer.encoded)
    assert all(torch.equal(after[name], part) for name, part in before.items()), "the adapter is on again"
    chosen = load_model(str(tiny.model), tiny.adapter, device="cpu", tensors="lora_B")
    flags = [tensor.requires_grad for tensor in chosen.network.parameters()]
    np.testing.assert_allclose(alternatives.predict(chosen, answer.encoded).said, found.said, atol=1e-6)
    assert [tensor.requires_grad for tensor in chosen.network.parameters()] == flags, "what was held constant stays so"


def made(engine: Engine, text: str, span: Span | None, row: int, positions: bool = False) -> tuple[TokenMatrix, int]:
    """The matrix, and how many passes it took."""
    answer = engine.given_answer("What is bright?", text)
    *waits, found = matrix.token_matrix(asking(engine), answer, span, row, positions)
    assert found is not None and len(waits) == matrix.passes(engine, answer, span, row, positions)
    return found, len(waits)


@pytest.mark.parametrize("text", ["So.", "It is the sun and the moon, and the star of the river."])
@pytest.mark.parametrize("span", [None, (0, 2), (1, 2)])
def test_the_matrix_equals_explicit_backward_passes(tiny_engine: Engine, text: str, span: Span | None) -> None:
    answer = tiny_engine.given_answer("What is bright?", text)
    found, count = made(tiny_engine, text, span, 0)
    expected = explicit_matrix(tiny_engine, answer, 0)[slice(*(span or (0, None)))]
    assert found.values.shape == expected.shape and count == min(expected.shape)
    np.testing.assert_allclose(found.values, expected, rtol=1e-3, atol=1e-5 * np.abs(expected).max())
    np.testing.assert_allclose(found.by_input, expected.mean(axis=0), rtol=1e-3, atol=1e-5 * np.abs(expected).max())
    np.testing.assert_allclose(found.by_output, expected.mean(axis=1), rtol=1e-3, atol=1e-5 * np.abs(expected).max())
    assert found.checksum * abs(found.score) < 1e-4 * np.abs(expected).mean()
    assert found.score == asking(tiny_engine).refine(answer, span, 0).score


def test_both_sides_of_the_matrix_were_taken(tiny_engine: Engine) -> None:
    columns = tiny_engine.store.examples[0].encoded.response_length
    assert made(tiny_engine, "So.", None, 0)[1] < columns
    assert made(tiny_engine, "It is the sun and the moon, and the star of the river.", None, 0)[1] == columns


@pytest.mark.parametrize("span", [None, (1, 3)])
def test_positions_of_the_matrix_add_up_and_average_to_the_score(tiny_engine: Engine, span: Span | None) -> None:
    found, count = made(tiny_engine, "It is the sun.", span, 1, positions=True)
    answer = tiny_engine.given_answer("What is bright?", "It is the sun.")
    assert found.values.shape == (count, len(tiny_engine.store.examples[1].encoded.ids))
    expected = asking(tiny_engine).locate(answer, span, 1).positions
    assert expected is not None
    size = float(np.abs(found.values).max())
    np.testing.assert_allclose(found.by_input, expected, rtol=1e-3, atol=1e-5 * size)
    singles = [asking(tiny_engine).refine(answer, (j, j + 1), 1).score for j in range(*found.span)]
    np.testing.assert_allclose(found.by_output, singles, rtol=1e-3, atol=1e-5 * size)
    assert found.checksum * abs(found.score) < 1e-4 * size


def test_the_checksum_notices_a_line_that_does_not_belong(tiny_engine: Engine) -> None:
    found, _ = made(tiny_engine, "It is the sun.", None, 0)
    values = found.values.copy()
    values[1] = 0
    assert TokenMatrix(0, found.span, False, values, found.score).checksum > 100 * found.checksum
