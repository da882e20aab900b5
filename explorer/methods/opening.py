"""Opens a method by its name."""

from explorer.engine import Engine
from explorer.errors import MethodError
from explorer.methods.description import CURVATURE_ROWS, OF_PART, choose
from explorer.methods.first_order.adam import Adam
from explorer.methods.first_order.inner_products import Centred, Folded, TracIn, WholeSequence
from explorer.methods.first_order.rapidin import RapidIn
from explorer.methods.first_order.trak import Trak
from explorer.methods.likeness.lexical import Bm25, Random
from explorer.methods.likeness.similarity import Cka, Embedding, RepSim
from explorer.methods.method import Method, Report, silent
from explorer.methods.second_order.ekfac import Ekfac
from explorer.methods.second_order.influence import Arnoldi, ConjugateGradients, DataInf, Lissa
from explorer.methods.second_order.stages import MultiStage, SingleStage, StageProduct
from explorer.methods.second_order.started import FromEkfac
from explorer.methods.unrolled import Unrolled

CLASSES: dict[str, type[Method]] = {
    "rapidin": RapidIn,
    "rapidin-centred": Centred,
    "random": Random,
    "bm25": Bm25,
    "embedding": Embedding,
    "repsim": RepSim,
    "cka": Cka,
    "graddot": TracIn,
    "gradcos": TracIn,
    "gradlayer": TracIn,
    "tracincp": TracIn,
    "graddot-whole": WholeSequence,
    "gradcos-whole": WholeSequence,
    "adam": Adam,
    "trak": Trak,
    "datainf": DataInf,
    "lissa": Lissa,
    "cg": ConjugateGradients,
    "ekfac-cg": FromEkfac,
    "arnoldi": Arnoldi,
    "ekfac": Ekfac,
    "ekfac-mlp": Ekfac,
    "multi-stage": MultiStage,
    "single-stage": SingleStage,
    "stage-product": StageProduct,
    "unrolled": Unrolled,
}
VALUED: dict[str, type[Method]] = {"rapidin": Folded}
"""Those that a value makes another method of."""


def open_method(engine: Engine, name: str, rows: int = CURVATURE_ROWS, report: Report = silent) -> Method:
    """The method of this name, `NAME` or `NAME:VALUE`, over an engine's cache.

    `rows` training rows stand for all where curvature is needed; `report` is
    told how far slow work has come. Raises MethodError where there is no such method, or it needs all rows of a cache
    that isn't finished.
    """
    chosen = choose(name)
    name = chosen.description.name
    if engine.store.awaited and name not in OF_PART:
        raise MethodError(
            f"{chosen.written or name} needs all training examples, and {engine.store.manifest.rows:,} of "
            f"{engine.store.total:,} are read so far; wait until the cache is finished, or take one of "
            f"{', '.join(OF_PART)}."
        )
    kind = VALUED.get(name, CLASSES[name]) if chosen.value else CLASSES[name]
    return kind(engine, chosen, min(rows, engine.store.manifest.rows), report)
