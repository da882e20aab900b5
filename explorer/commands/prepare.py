"""`finetune` and `precompute`: the adapter and the cache, which are made once, before any question."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import click

from explorer.commands.options import (
    COUNT,
    MOMENTS,
    PATH,
    POSITIVE,
    RATE,
    Options,
    base_model,
    cache,
    chunk,
    command,
    counting,
    estimate,
    on_ray,
    option,
    together,
    token_count,
    training_data,
)
from explorer.commands.terminal import Bars, announcer, counting_of, ray_of, reading_of, say, say_all
from explorer.errors import Cancelled, ExplorerError
from explorer.normalisation import KINDS


@command(
    examples=(
        "my-adapter --data my.jsonl --model path/or/hub-id",
        "my-adapter --data my.jsonl --epochs 4 --checkpoints 4",
    )
)
@click.argument("out", type=PATH, metavar="OUT", help="The folder for the adapter and the record of its training.")
@training_data
@chunk
@base_model(
    "float32", "mixed", "bfloat16", "float16", auto=", and is mixed for those in float32 where there are units for it"
)
@option("--rank", "The rank of the LoRA matrices.", type=POSITIVE, default=16)
@option("--alpha", "LoRA's alpha.", type=POSITIVE, default=32)
@option("--targets", "The layers that get an adapter.", default="q_proj,k_proj,v_proj,o_proj", metavar="NAMES")
@option("--epochs", "How often the training reads the data.", type=POSITIVE, default=2)
@option("--learning-rate", "The first learning rate; it falls along a cosine.", type=RATE, default=2e-3)
@option("--batch-size", "How many examples a step.", type=POSITIVE, default=4)
@option(
    "--checkpoints",
    "The moments of the training to keep; the last is the adapter itself. A whole number: so many, evenly spaced. "
    "Numbers with a comma or a point: after so many epochs each, such as 0.05,1.",
    type=MOMENTS,
    default=1,
)
@option(
    "--seed",
    "The seed of the adapter and of the order of the examples.",
    type=int,
    default=0,
    show_default=True,
    metavar="N",
)
def finetune(options: Options) -> None:
    """Train a LoRA adapter on the data."""
    from explorer.gradients import MIXED, has_units, weights_in
    from explorer.model.loading import load_model
    from explorer.records import Counting
    from explorer.training.recipe import FinetuneSettings
    from precompute.data import Review, read_examples, readable
    from precompute.finetune import finetune

    review = Review(options.data, skip=options.skip_bad)
    examples = read_examples(options.data, reading_of(options), review)
    precision = weights_in(options.precision)
    model = load_model(options.model, None, options.template, options.device or None, say, precision=precision)
    examples, encoded = readable(model, examples, review, Counting(chunk=options.chunk))
    say_all(review.lines())
    mixed = options.precision == "auto" and model.fingerprint.precision == "float32" and has_units(model.device)
    mixed = mixed or options.precision == MIXED
    settings = FinetuneSettings(
        rank=options.rank,
        alpha=options.alpha,
        targets=tuple(options.targets.split(",")),
        epochs=options.epochs,
        learning_rate=options.learning_rate,
        batch_size=options.batch_size,
        seed=options.seed,
        checkpoints=options.checkpoints,
        mixed_precision=mixed,
    )
    with Bars() as bars:
        finetune(
            model,
            examples,
            Path(options.out),
            settings,
            lambda step, steps, loss: bars.report("steps", step, steps, f"loss {loss:.3f}"),
            encoded,
        )
    say(f"The adapter is in {options.out}; next: rapidin-explorer precompute --adapter {options.out} …")


_adapter = option(
    "--adapter",
    "The folder of a PEFT adapter. Without one, gradients are taken of all parameters.",
    type=PATH,
    metavar="FOLDER",
)
_NORMALISATION = "cosine"
"""Of a new cache, where nothing else is said."""
gradients = together(
    option(
        "--base",
        "The model that --model was fine-tuned from, where all its parameters were trained or an adapter was merged "
        "into it. Gradients can then be taken on the way from the one to the other.",
        type=PATH,
        metavar="MODEL",
        default="",
    ),
    option(
        "--checkpoints",
        "Where gradients are taken: at points on the way from the base to the fine-tuned model, such as 25%,50%; "
        "`final`, at the model itself; `all` checkpoints that `finetune` kept; or some of them, such as 1,final. "
        "Influence is summed over them.",
        metavar="POINTS|final|all|NAMES",
        show_default="the points where the mean loss of the data has fallen by a third and by two thirds",
    ),
    option(
        "--tensors",
        "Take gradients only of the trainable tensors whose names match this regular expression. A dot takes all.",
        metavar="PATTERN",
        show_default="those that change on the way: an adapter's B matrices, or all of a whole model",
    ),
    option(
        "--normalisation",
        "What gradients are divided by: each tensor's norm (layer), the whole gradient's (cosine), or nothing (none).",
        type=click.Choice(KINDS),
        show_default=_NORMALISATION,
    ),
    option(
        "--batch",
        "How many examples a backward pass.",
        type=POSITIVE,
        show_default="the fastest, by measurement",
    ),
)
projections = together(
    option(
        "--k",
        "The length of the random projection of an example's gradient, a power of two.",
        type=POSITIVE,
        default=65_536,
        metavar="K",
    ),
    option(
        "--token-k",
        "The length of the random projection of one token's gradient, a power of two.",
        type=POSITIVE,
        default=4_096,
        metavar="K",
    ),
    option(
        "--coarse-k",
        "The lengths of the coarse levels that questions to a large cache read first. 0: none.",
        metavar="K[,K]",
        show_default="16384,32768 where the projections take more than 1 GB",
    ),
    option("--rounds", "λ, the number of shuffles in the paper's Algorithm 1.", type=POSITIVE, default=20),
    option("--seed", "The seed of the random projection.", type=int, default=0, show_default=True, metavar="N"),
    option("--dtype", "How projections are stored.", type=click.Choice(["float16", "int8"]), default="float16"),
    option(
        "--tokens",
        "Which examples get a random projection of each response token's gradient: all, none, or the N with most "
        "influence on the training set as a whole. One costs a backward pass a token. What is missing is computed "
        "when it is shown.",
        default="all",
        metavar="all|none|N",
    ),
    option(
        "--null-prompts",
        "The number of unrelated prompts that all examples are scored on, to tell how unusual a score is: at most 200, "
        "all there are; 0 for none. The same command adds them to a cache without.",
        type=COUNT,
        default=200,
    ),
)


@command(
    examples=(
        "my-cache --data my.jsonl --adapter my-adapter --estimate",
        "my-cache --data my.jsonl --model path/or/hub-id --adapter my-adapter",
        "my-cache --data my.jsonl --adapter my-adapter --checkpoints 25%,50%,final --tokens none",
    )
)
@cache("The folder to write. After an interruption the same command finishes the work.")
@training_data
@counting
@base_model("float32", "mixed", "bfloat16", "float16", "4bit")
@_adapter
@option(
    "--followed-by",
    "The cache of the fine-tuning that followed on the training which this data is of. The fine-tuned model then gives "
    "the answers, and the methods multi-stage, single-stage and stage-product trace them back to this data. The same "
    "command with another cache takes that.",
    type=PATH,
    metavar="CACHE",
    default="",
)
@gradients
@projections
@estimate
@option(
    "--upload",
    "Also copy the finished cache there (s3://…, gs://… and what else fsspec knows).",
    default="",
    metavar="URL",
)
@on_ray("Where the projections are made: in this process, or by many workers on a Ray cluster.")
def precompute(options: Options) -> None:
    """Make a cache: the projected gradient of every example.

    A random projection shortens each training example's gradient to a few thousand numbers. The command first says
    what it will cost in time and disk.
    """
    from precompute.data import Review, read_examples

    check_lengths(options.k, options.token_k)
    review = Review(options.data, skip=options.skip_bad)
    examples = read_examples(options.data, reading_of(options), review)
    if made(options, examples, review, counting_of(options)):
        say(f"{options.cache} is complete; see it with: rapidin-explorer serve {options.cache}")


def made(
    options: Options,
    examples: Any,
    review: Any,
    counting: Any,
    training: Any = None,
    listed: Callable[[Any], None] | None = None,
) -> bool:
    """Make the cache that the options describe; `training` is what is known of one without a record of ours.

    `listed` is called with the cache as it grows. Whether it is complete: false where only an estimate was asked for.
    """
    from explorer.cache import upload
    from explorer.gradients import weights_in
    from explorer.model.checkpoints import taken_at
    from explorer.model.loading import load_model
    from precompute.build import build_cache
    from precompute.data import readable
    from precompute.stages import following

    load = partial(
        load_model,
        options.model,
        options.adapter,
        options.template,
        options.device or None,
        precision=weights_in(options.precision),
        base=options.base,
        training=training,
    )
    folder, data = Path(options.cache), Path(options.data).name
    checkpoints, tensors, normalisation = _as_kept(folder, options)
    with ray_of(options) as ray, Bars() as bars:
        model, reason = load(say=say, tensors=tensors), ""
        examples, encoded = readable(model, examples, review, counting)
        say_all(review.lines())
        tokens = token_count(options.tokens, len(examples))
        if checkpoints is None:
            checkpoints, reason = _by_rule(model, examples, encoded, bars.report)
        model = taken_at(model, checkpoints, training)
        mixed = _is_mixed(folder, options.precision, model)
        settings = _settings(options, model.tensors, normalisation, len(examples), mixed)
        again = partial(load, checkpoints=checkpoints, tensors=model.tensors)
        try:
            with _executor(options, ray, again, model, settings) as executor:
                store = build_cache(
                    model,
                    examples,
                    folder,
                    settings,
                    tokens,
                    data,
                    bars.report,
                    announcer(options.estimate, reason),
                    options.null_prompts,
                    executor,
                    encoded,
                    counting,
                    following(options.followed_by, folder, model) if options.followed_by else None,
                    listed,
                )
        except Cancelled as stopped:
            say(str(stopped))
            return False
    if options.upload:
        upload(store, options.upload)
        say(f"{options.cache} was copied to {options.upload}")
    return True


def check_lengths(length: int, token_length: int) -> None:
    """Raise ExplorerError for lengths of projections that can't be used."""
    for name, own in (("--k", length), ("--token-k", token_length)):
        if own & (own - 1):
            raise ExplorerError(f"{name} must be a power of two, not {own}.")
    if token_length > length:
        raise ExplorerError(f"--token-k can't be larger than --k ({token_length} > {length}).")


def _as_kept(folder: Path, options: Options) -> tuple[str | None, str | None, str]:
    """Checkpoints, tensors and normalisation; what wasn't said as in the cache that the same command shall finish."""
    from explorer.cache.manifest import MANIFEST
    from explorer.cache.store import load
    from explorer.model.checkpoints import FINAL

    if not (folder / MANIFEST).is_file():
        return options.checkpoints, options.tensors, options.normalisation or _NORMALISATION
    kept = load(folder).manifest
    names = ",".join(name for name, _ in kept.training.checkpoints) or FINAL
    tensors = kept.settings.tensors if options.tensors is None else options.tensors
    return options.checkpoints or names, tensors, options.normalisation or kept.settings.normalisation


def _is_mixed(folder: Path, precision: str, model: Any) -> bool:
    """Whether to compute in mixed precision; where it isn't said, as the cache was begun that the command finishes.

    Raises UnsupportedError where it is asked for and can't be.
    """
    from explorer.cache.manifest import MANIFEST
    from explorer.cache.store import load
    from explorer.gradients import MIXED, mixed_precision

    if precision == "auto" and (folder / MANIFEST).is_file():
        return load(folder).manifest.settings.mixed_precision
    with mixed_precision(model.network, precision == MIXED):
        return precision == MIXED


def _by_rule(model: Any, examples: Sequence[Any], encoded: Sequence[Any], report: Any) -> tuple[str, str]:
    """Where gradients are taken by the rule, and a line that says why."""
    from precompute.moments import moments_by_rule, sampled
    from precompute.sketches import named_as_in

    with named_as_in(examples):
        found = moments_by_rule(model, {row: encoded[row] for row in sampled(len(encoded))}, report)
    return found.names, found.reason


def _settings(options: Options, tensors: str, normalisation: str, examples: int, mixed: bool) -> Any:
    """The settings of a cache of so many examples."""
    from explorer.cache import CacheSettings
    from explorer.retrieval import coarse_lengths

    coarse = coarse_lengths(examples, options.k, options.dtype)
    if options.coarse_k is not None:
        coarse = _coarse_lengths(options.coarse_k, options.k)
    return CacheSettings(
        options.k,
        options.token_k,
        options.rounds,
        options.seed,
        options.dtype,
        normalisation,
        options.batch or 0,
        tensors,
        coarse,
        mixed_precision=mixed,
    )


def _coarse_lengths(given: str, length: int) -> tuple[int, ...]:
    """What --coarse-k lists, in ascending order."""
    try:
        coarse = sorted({int(one) for one in given.split(",")} - {0})
    except ValueError:
        coarse = [0]
    if any(one < 1 or one & (one - 1) or one >= length for one in coarse):
        raise ExplorerError(f"--coarse-k must be 0 or powers of two below --k, not {given}.")
    return tuple(coarse)


def _executor(
    options: Options, ray: Any, load: Callable[[], Any], model: Any, settings: Any
) -> AbstractContextManager[Any]:
    """What makes shards elsewhere, where that was asked for."""
    if not ray:
        return nullcontext()
    from precompute.ray_executor import RayExecutor

    return RayExecutor(ray, load, model.fingerprint, settings, options.device, options.workers or 0)
