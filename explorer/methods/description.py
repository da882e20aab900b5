"""What methods there are, what each assumes and costs, and how one is named. It computes nothing; no torch.

A method is named `NAME` or `NAME:VALUE`, where its description says what the value sets.
"""

from dataclasses import asdict
from typing import Any

from explorer.errors import MethodError
from explorer.records import Can, Chosen, Description

DEFAULT = "rapidin"
"""The method that is meant where none is named."""
CURVATURE_ROWS = 16
"""So many training rows stand for all of them in a second-order method, unless it is told otherwise."""


_SKETCHED = (
    "one backward pass over the answer and one scan of the cached sketches; where the cache's normalisation can't "
    "serve, one backward pass over every training example, once"
)
_OWN = "one backward pass over every training example, once; then one over the answer, and one scan of the sketches"
_CHECKPOINT = "the name of the checkpoint (the cache's last)"
_SHARE = (
    "λ of both stages, as a share of a tensor's mean eigenvalue; of the fine-tuning it holds the proximity term (0.1)"
)
_GGN = "that the loss is quadratic around the model, with the damped Gauss-Newton matrix of some training rows"

METHODS: dict[str, Description] = {
    each.name: each
    for each in (
        Description(
            "rapidin",
            "first order",
            "e·η·⟨∇L(t), ∇L(s)⟩ of gradients normalised as the cache was made, by sketches of length K",
            "that one small step on an example tells what training on it did",
            "one backward pass over the answer and one scan of the cached sketches",
            "a shorter K, a power of two (the cache's)",
            token_values=True,
            can=frozenset({Can.FOUR_INFLUENCES, Can.NULLS, Can.SEEDS, Can.CHECKS, Can.POSITIONS, Can.BOTH_WAYS}),
            unnamed=True,
        ),
        Description(
            "rapidin-centred",
            "first order",
            "RapidIn's score less the example's mean score on the cache's unrelated prompts",
            "as rapidin; that what is common to all questions explains none of them",
            "as rapidin, for a cache with unrelated prompts",
            "a shorter K, a power of two (the cache's)",
            token_values=True,
        ),
        Description(
            "random",
            "no gradient",
            "a random number, the same for the same question: what every method has to beat",
            "nothing",
            "nothing",
            "a seed (0)",
        ),
        Description(
            "bm25",
            "no gradient",
            "BM25 of the question's words in prompt and response of the example",
            "that what influenced an answer shares its rarer words",
            "an index of all words, made in memory in the first question",
            can=frozenset({Can.TEXTS}),
        ),
        Description(
            "embedding",
            "no gradient",
            "cosine of the embeddings of question and example",
            "that what influenced an answer means something alike to another model",
            "one pass of a small encoder over every training example, once; then one over the question",
            "the folder of an encoder (all-MiniLM-L6-v2, fetched once)",
            value_is_folder=True,
            fitted=True,
            can=frozenset({Can.TEXTS}),
        ),
        Description(
            "repsim",
            "no gradient",
            "cosine of the model's hidden states, last layer, last token",
            "that examples the model holds alike influenced each other",
            "one forward pass over every training example, once; then one over the answer",
            fitted=True,
        ),
        Description(
            "cka",
            "no gradient",
            "linear CKA of the hidden states, last layer, of all response tokens, centred over hidden units",
            "as repsim, of all tokens at once",
            "as repsim; keeps the hidden states of all response tokens",
            fitted=True,
        ),
        Description(
            "graddot",
            "first order",
            "e·η·⟨∇L(t), ∇L(s)⟩ at one checkpoint, nothing normalised: TracIn at one checkpoint, GDP, GradSim",
            "as rapidin; large gradients win by their size",
            _SKETCHED,
            _CHECKPOINT,
            token_values=True,
        ),
        Description(
            "gradcos",
            "first order",
            "cosine of ∇L(t) and ∇L(s) at one checkpoint",
            "as rapidin; that the size of a gradient tells nothing",
            _SKETCHED,
            _CHECKPOINT,
            token_values=True,
        ),
        Description(
            "gradlayer",
            "first order",
            "⟨∇L(t), ∇L(s)⟩ at one checkpoint, every tensor divided by its own norm (paper, 3.2)",
            "as gradcos, for every tensor by itself",
            _SKETCHED,
            _CHECKPOINT,
            token_values=True,
        ),
        Description(
            "tracincp",
            "first order",
            "Σ_c e_c·η_c·⟨∇L(t), ∇L(s)⟩ over the cache's checkpoints, nothing normalised (TracInCP)",
            "as graddot, step by step along the training",
            _SKETCHED,
            token_values=True,
        ),
        Description(
            "graddot-whole",
            "first order",
            "as graddot, with the prompt's tokens in the loss, as the published code of a paper that doubts influence "
            "functions takes it, but for its padding",
            "as graddot; that what was asked counts as what was answered",
            _OWN,
            _CHECKPOINT,
            fitted=True,
        ),
        Description(
            "gradcos-whole",
            "first order",
            "the cosine of the same gradients",
            "as graddot-whole; that the size of a gradient tells nothing",
            _OWN,
            _CHECKPOINT,
            fitted=True,
        ),
        Description(
            "adam",
            "first order",
            "as rapidin, the question's gradient divided by √v̂ + ε, v̂ the second moments that AdamW had in training "
            "(LESS)",
            "as rapidin; that a step moves each parameter as far as AdamW's history lets it",
            _SKETCHED,
            "a normalisation: layer, cosine or none (the cache's)",
            token_values=True,
        ),
        Description(
            "trak",
            "first order",
            "φ(t)ᵀ(ΦᵀΦ + λ)⁻¹φ(s)·(1 − p(s)), with φ the cached sketch folded to a shorter one (one model)",
            "that the model is linear in its parameters around the trained ones",
            "one reading of all cached sketches, once; then as rapidin",
            "the length of φ, a power of two (1024)",
            fitted=True,
        ),
        Description(
            "datainf",
            "second order",
            "⟨P∇L(t), ∇L(s)⟩, P the mean over rows of every row's own inverse (rank one, damped), tensor by tensor",
            "that the mean of inverses is near the inverse of the mean",
            "a backward pass over every curvature row, once, or of a large model for every question; then as graddot",
            token_values=True,
        ),
        Description(
            "lissa",
            "second order",
            "⟨(G + λ)⁻¹∇L(t), ∇L(s)⟩ by a truncated Neumann series, one curvature row a step",
            _GGN,
            "a Gauss-Newton product (about five forward passes) a step; ten for every curvature row, once",
            "steps (100)",
            fitted=True,
            token_values=True,
        ),
        Description(
            "cg",
            "second order",
            "⟨(G + λ)⁻¹∇L(t), ∇L(s)⟩ by conjugate gradients",
            _GGN,
            "a Gauss-Newton product for every curvature row and iteration; ten for every curvature row, once",
            "iterations at most (10)",
            fitted=True,
            token_values=True,
        ),
        Description(
            "ekfac-cg",
            "second order",
            "⟨(G + λ)⁻¹∇L(t), ∇L(s)⟩ by conjugate gradients that begin where EK-FAC ends",
            _GGN,
            "as cg, and once as ekfac; two Gauss-Newton products more for every curvature row",
            "iterations at most (10)",
            fitted=True,
            token_values=True,
        ),
        Description(
            "arnoldi",
            "second order",
            "⟨P∇L(t), ∇L(s)⟩, P the inverse of G within the space of its largest eigenvectors, by Arnoldi's iteration",
            _GGN + "; that the rest of the space doesn't matter",
            "two products for every eigenvector and curvature row, once; then as graddot",
            "eigenvectors (10)",
            fitted=True,
            token_values=True,
        ),
        Description(
            "ekfac",
            "second order",
            "⟨P∇L(t), ∇L(s)⟩, P the inverse of the eigenvalue-corrected Kronecker factors of every linear layer",
            "that layers don't interact, and that what enters a layer is independent of what comes back",
            "two passes over every curvature row and draw of labels, 64 or more in all, once; then as graddot",
            fitted=True,
            token_values=True,
        ),
        Description(
            "ekfac-mlp",
            "second order",
            "as ekfac, of the linear layers of the MLPs alone",
            "as ekfac; that attention doesn't matter",
            "as ekfac",
            fitted=True,
            token_values=True,
        ),
        Description(
            "multi-stage",
            "second order",
            "⟨P₀P₁∇L(t), ∇L(s)⟩, ∇L(t) at the fine-tuned model, ∇L(s) at the one before it, P₁ and P₀ the inverses of "
            "both trainings' eigenvalue-corrected Kronecker factors",
            "as ekfac, for both trainings; that fine-tuning stayed near the model before it",
            "as ekfac for each of the two trainings, once; then as graddot",
            _SHARE,
            fitted=True,
            token_values=True,
            two_stages=True,
        ),
        Description(
            "single-stage",
            "second order",
            "⟨P₁∇L(t), ∇L(s)⟩, all of it at the fine-tuned model",
            "that the examples had been trained on last",
            "as ekfac for the fine-tuning, and one backward pass over every training example, once; then as graddot",
            _SHARE,
            fitted=True,
            token_values=True,
            two_stages=True,
        ),
        Description(
            "stage-product",
            "first order",
            "⟨∇L(t), ∇L(s)⟩, ∇L(t) at the fine-tuned model, ∇L(s) at the one before it",
            "as graddot; that fine-tuning left the model as it was",
            _SKETCHED,
            token_values=True,
            two_stages=True,
        ),
        Description(
            "unrolled",
            "whole training",
            "∂ log p(t)/∂w, w the weight of an example's loss in the training: exact, by going back through every step "
            "of the recorded training (MAGIC)",
            "that leaving an example out does what its weight does when it changes a little",
            "the training three times for up to 16 questions together, and 1.2 times more for each; what was found is "
            "kept, and a run that was stopped goes on",
        ),
    )
}

SPELLED = {
    "rapidin": "RapidIn, projected normalised gradients",
    "rapidin-centred": "RapidIn less its mean on unrelated prompts",
    "random": "Chance, a random order",
    "bm25": "BM25, word overlap",
    "embedding": "Likeness of meaning, by a text encoder",
    "repsim": "Likeness of the model's last hidden state",
    "cka": "Likeness of all hidden states (CKA)",
    "graddot": "TracIn, dot product of gradients",
    "gradcos": "Cosine of gradients",
    "gradlayer": "Dot product of gradients, each tensor normalised",
    "tracincp": "TracInCP, dot products over checkpoints",
    "graddot-whole": "TracIn, prompt in the loss",
    "gradcos-whole": "Cosine of gradients, prompt in the loss",
    "adam": "RapidIn, the question as AdamW's steps scale it",
    "trak": "TRAK, projected gradients with a linear model",
    "datainf": "DataInf, inverse Hessians of single rows",
    "lissa": "Influence function by LiSSA",
    "cg": "Influence function by conjugate gradients",
    "ekfac-cg": "Influence function by conjugate gradients from EK-FAC on",
    "arnoldi": "Influence function by Arnoldi iteration",
    "ekfac": "Influence function by EK-FAC",
    "ekfac-mlp": "Influence function by EK-FAC, MLP layers alone",
    "multi-stage": "Influence of an earlier stage, by EK-FAC of both",
    "single-stage": "Influence as if there had been one stage",
    "stage-product": "Dot product of gradients of two stages",
    "unrolled": "Exact derivative, back through the whole training",
}
"""Every method in a few words."""


OF_PART = ("rapidin", "graddot", "gradcos", "gradlayer", "tracincp", "bm25", "random")
"""What scores each row by itself, or by texts alone, with nothing fitted that is kept: right of a part of the rows."""


def askable(followed: bool, of_part: bool = False) -> dict[str, Description]:
    """The methods that a cache can be asked by; `followed` says whether it names the fine-tuning that followed.

    Of a cache in the making only some can (`of_part`).
    """
    known = {name: each for name, each in METHODS.items() if followed or not each.two_stages}
    return {name: each for name, each in known.items() if name in OF_PART} if of_part else known


def choose(name: str) -> Chosen:
    """The method of this name, as `NAME` or `NAME:VALUE`. Raises MethodError where there is none."""
    own, colon, value = name.partition(":")
    if own not in METHODS:
        raise MethodError(f"There is no method {own}; `rapidin-explorer methods` lists them: {', '.join(METHODS)}.")
    if colon and not (value and METHODS[own].value):
        takes = f"VALUE: {METHODS[own].value}" if METHODS[own].value else "no value"
        raise MethodError(f"{own} takes {takes}; {name} can't be used.")
    return Chosen(METHODS[own], value)


def described(name: str) -> Chosen:
    """The method of a name that was kept; the default where none was, and one of which nothing is known for others."""
    own, _, value = name.partition(":")
    known = METHODS.get(own or DEFAULT)
    return Chosen(known or Description(own, "not known", "", "", "", token_values=True), value)


def in_words(description: Description) -> dict[str, Any]:
    """What a method is, assumes and costs, as plain values."""
    return {name: value for name, value in asdict(description).items() if name not in ("can", "unnamed")}
