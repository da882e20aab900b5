"""The derivative of an answer's log-probability by the weight of every example, backwards through the whole training.

After MAGIC (Ilyas and Engstrom, 2025). The training is gone through once more as its record says, so it must be one of
`finetune`'s on just the cache's rows. What is found is kept for every question, and what is found halfway is kept, too,
so that the work goes on where it was stopped.
"""

import hashlib
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from explorer.cache import Arrays
from explorer.concurrency import Recent, cached
from explorer.errors import CacheError, MethodError
from explorer.gradients import selected_loss
from explorer.methods.fitted import forget_fitted, key_of, read_fitted, try_to_keep
from explorer.methods.method import Method
from explorer.model.checkpoints import training_record
from explorer.records import Answer, Selection
from explorer.training.backwards import Halfway, begin, by_weights
from explorer.training.recipe import OPTIMIZER, FinetuneSettings
from explorer.training.recorded import recipe_of
from explorer.training.replay import Replay, Trail

TOGETHER = 16
"""Questions that go backwards at once: for each, three vectors as long as the adapter are held."""
_REMEMBERED = 512
"""Questions whose scores are remembered."""
_MOST_DEPARTURE = 0.1
"""A training that is gone through once more may end so far from the adapter, as a share of what training moved."""
_MOST_NATS = 100.0
"""A larger derivative of a mean log-probability is none that foretells anything."""

Asked = tuple[Answer, Selection]


class Unrolled(Method):
    """∂ log p(t)/∂w_k of the mean log-probability of what is asked about, w_k the weight of an example's loss."""

    slow = True

    def fit(self) -> None:
        """Refuse what can't be gone through once more. Raises MethodError or DataError."""
        adapter, store = self.engine.model.adapter, self.engine.store
        # Refused where it isn't known.
        _ = self._recipe
        record = training_record(Path(adapter))
        if record.get("optimizer") != OPTIMIZER:
            raise MethodError(
                f"{adapter} was trained by {record.get('optimizer')}, as its record says, and {self.chosen.name} goes "
                f"back through {OPTIMIZER} alone, as `rapidin-explorer finetune` trains."
            )
        if record.get("data_sha256") != store.manifest.data_sha256:
            raise MethodError(
                f"{self.chosen.name} goes through the whole training, and the cache's {store.manifest.rows:,} rows "
                f"aren't the {record.get('examples')} that the adapter was trained on, in their order; make a cache of "
                "those with `rapidin-explorer precompute`."
            )

    def scores(self, answer: Answer, selection: Selection) -> NDArray[np.float32]:
        """What is kept, or else what the whole training backwards gives."""
        self.fit()
        self.expect([(answer, selection)])
        found = self._found.get(_digest((answer, selection)))
        assert found is not None
        return found

    def expect(self, asked: Sequence[Asked]) -> None:
        """Find the scores of several questions; those that go backwards together share the states of the training."""
        left = [one for digest, one in {_digest(one): one for one in asked}.items() if not self._known(digest)]
        for first in range(0, len(left), TOGETHER):
            some = left[first : first + TOGETHER]
            for one, scores in zip(some, self._derivatives(some), strict=True):
                kept = self.fitted(_name(_digest(one)), partial(_arrays, scores), **self._key)
                self._found.put(_digest(one), kept["scores"])
            self._forget(some)

    def _known(self, digest: str) -> bool:
        if self._found.get(digest) is None and not self.anew:
            kept = read_fitted(self.engine.store, _name(digest), key_of(self.engine.store, **self._key))
            if kept is not None:
                self._found.put(digest, kept["scores"])
        return self._found.get(digest) is not None

    def _derivatives(self, asked: Sequence[Asked]) -> NDArray[np.float32]:
        """The scores (Q, N) of some questions."""
        store, name = self.engine.store, _halfway(asked)
        key = key_of(store, **self._key)
        kept = None if self.anew else read_fitted(store, name, key)
        replay = Replay(self.engine.model, self._recipe, [example.encoded for example in store.examples])
        trail = Trail(replay, len(replay.batches) if kept is None else int(kept["step"][0]), self.report)
        if kept is None:
            known = begin(self._by_end(replay, trail.end[0], asked), trail)
        else:
            adjoint, found = (torch.tensor(kept[each]).to(trail.end) for each in ("adjoint", "found"))
            known = Halfway(int(kept["step"][0]), adjoint, found)

        def keep(halfway: Halfway) -> None:
            arrays = {"adjoint": _numbers(halfway.adjoint), "found": _numbers(halfway.found)}
            try_to_keep(store, name, key, {**arrays, "step": np.array([halfway.step])})

        scores = _numbers(by_weights(trail, known, self.report, keep))
        largest = float(np.abs(scores).max())
        if largest > _MOST_NATS:
            raise MethodError(
                f"The derivative by one example's weight is {largest:.2g} nats, more than any example can do: in this "
                "training small changes grow with every step, so that no derivative tells what leaving an example out "
                "does. A training with a smaller --learning-rate or fewer --epochs can be gone back through."
            )
        return scores

    def _by_end(self, replay: Replay, theta: torch.Tensor, asked: Sequence[Asked]) -> torch.Tensor:
        """The derivatives (Q, D) of log-probabilities by what the training ended with."""
        departure = replay.departure(theta)
        if not departure < _MOST_DEPARTURE:
            raise MethodError(
                f"The training of {self.engine.model.adapter} was gone through once more, and ended {departure:.0%} of "
                "its way from the adapter: it was trained by other versions or on another kind of device. Train it "
                "anew here with `rapidin-explorer finetune`."
            )
        found = []
        for answer, selection in asked:
            end = theta.detach().requires_grad_()
            loss = selected_loss(self.engine.model, answer.encoded, selection, replay.shaped(end))
            found.append(torch.autograd.grad(-loss, end)[0])
        return torch.stack(found)

    def _forget(self, asked: Sequence[Asked]) -> None:
        try:
            forget_fitted(self.engine.store, _halfway(asked))
        except CacheError:
            # In a folder that can't be written nothing was kept.
            return

    @cached
    def _recipe(self) -> FinetuneSettings:
        return recipe_of(self.engine.model.adapter)

    @property
    def _key(self) -> dict[str, object]:
        """What scores depend on besides cache and question."""
        return {"recipe": self._recipe.recorded()}

    @cached
    def _found(self) -> Recent[str, NDArray[np.float32]]:
        """Scores of questions, by their digests."""
        return Recent(_REMEMBERED)


def _digest(asked: Asked) -> str:
    """A name for a question."""
    answer, selection = asked
    return hashlib.sha256(f"{answer.id} {selection}".encode()).hexdigest()[:16]


def _arrays(scores: NDArray[np.float32]) -> Arrays:
    return {"scores": scores}


def _name(digest: str) -> str:
    return f"unrolled-{digest}"


def _halfway(asked: Sequence[Asked]) -> str:
    every = json.dumps([_digest(one) for one in asked])
    return f"unrolled-halfway-{hashlib.sha256(every.encode()).hexdigest()[:16]}"


def _numbers(tensor: torch.Tensor) -> NDArray[np.float32]:
    return tensor.float().cpu().numpy()
