"""Methods that look at texts alone: chance, and BM25."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from explorer.concurrency import cached
from explorer.corpus.words import words
from explorer.gradients.sketch import generator
from explorer.methods.method import Method
from explorer.records import Answer, Selection, span_of


def question_text(answer: Answer, selection: Selection) -> str:
    """What a question is to a method that reads text: prompt and response, or the selected words alone."""
    span = span_of(selection)
    if span is None:
        return f"{answer.prompt}\n{answer.text}"
    return "".join(token.text for token in answer.tokens[slice(*span)])


def example_texts(method: Method) -> list[str]:
    """Prompt and response of every training example (N)."""
    return [f"{example.prompt}\n{example.response}" for example in method.engine.store.examples]


class Random(Method):
    """A random score, a pure function of question and seed."""

    def scores(self, answer: Answer, selection: Selection) -> NDArray[np.float32]:
        """Uniform between 0 and 1 (N)."""
        random = generator(self.chosen.number(0, least=0), "random method", answer.id, repr(selection))
        return random.random(self.engine.store.manifest.rows, dtype=np.float32)


class Bm25(Method):
    """BM25 (Lucene's, k₁ = 1.5, b = 0.75) of the question's words in every example."""

    def scores(self, answer: Answer, selection: Selection) -> NDArray[np.float32]:
        """BM25 (N); 0 where no word is shared."""
        self.refuse_contrasts(selection)
        asked = _folded(question_text(answer, selection))
        if self._index is None or not asked:
            return np.zeros(self.engine.store.manifest.rows, dtype=np.float32)
        return np.asarray(self._index.get_scores(asked), dtype=np.float32)

    @cached
    def _index(self) -> Any:
        """An index of all words; None where no example has any."""
        import bm25s

        texts = [_folded(text) for text in example_texts(self)]
        if not any(texts):
            return None
        index = bm25s.BM25()
        index.index(texts, show_progress=False)
        return index


def _folded(text: str) -> list[str]:
    """The words of a text in order, as they are compared."""
    return [word.casefold() for word in words(text)]
