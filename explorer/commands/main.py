"""`rapidin-explorer`: the explorer's commands. The one module of this package that knows `precompute`."""

import argparse
import json
import os
import shlex
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from explorer.commands import evaluate as evaluating
from explorer.commands.terminal import Bars, count, engine_of, moments, other_model, positive, rate, say
from explorer.errors import Cancelled, DataError, ExplorerError, FilterError, MethodError, ModelError, PromptError
from explorer.methods.description import CURVATURE_ROWS, DEFAULT, METHODS, choose, in_words
from explorer.model import embedded
from explorer.normalisation import KINDS
from explorer.paths import DEMO
from explorer.records import Can

# Idle OpenMP threads spin, which keeps cores from other processes; not at all would halve our own speed.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

MODEL_HELP = f"base model: {embedded.NAME} (embedded, the default), a folder, or a model hub id"
DATA_HELP = (
    "training data: .jsonl, .json, .parquet or .csv with prompt/response, instruction/(input)/output or messages; "
    "or a data hub id. Further columns are kept; a `source` column is shown on the cards"
)


def main(arguments: list[str] | None = None) -> int:
    """Run one command; 0 when it did its work, 2 when the person has to mend something."""
    options = parser().parse_args(arguments)
    options.command = shlex.join(["rapidin-explorer", *(sys.argv[1:] if arguments is None else arguments)])
    _quiet_libraries()
    try:
        return int(options.run(options) or 0)
    except ExplorerError as problem:
        print(f"rapidin-explorer: {problem}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # Whoever read our output has seen enough; nothing more is to be flushed into it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("\nstopped; what was finished is kept", file=sys.stderr)
        return 130


def parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    top = argparse.ArgumentParser(
        prog="rapidin-explorer",
        description="Which training examples made this model say that? RapidIn (ACL 2024) in a browser.",
        epilog="First `finetune` (or bring your own model), then `precompute`, then `serve`. `demo` shows all of it.",
    )
    commands = top.add_subparsers(title="commands", required=True, metavar="COMMAND")

    demo = _command(commands, "demo", _demo, "prepare the embedded demo and serve it")
    _serving(demo)

    serve = _command(commands, "serve", _serve, "serve the explorer over one cache, or several to choose from")
    serve.add_argument("cache", nargs="+", help="folder that `precompute` made; each comes with its own model")
    serve.add_argument("--probes", default="", help="JSON lines with a `prompt` (and a `kind`): ready examples to try")
    _serving(serve)
    other_model(serve)

    history = _command(commands, "history", _history, "serve the saved questions alone, without cache and model")
    _serving(history)

    query = _command(commands, "query", _query, "ask one question without a browser")
    query.add_argument("cache", help="folder that `precompute` made")
    query.add_argument("--prompt", required=True, help="what the model is asked")
    query.add_argument("--response", help="attribute this answer instead of generating one")
    selected = query.add_mutually_exclusive_group()
    selected.add_argument("--token", type=int, metavar="J", help="ask about response token J, counted from 0")
    selected.add_argument("--span", metavar="A:B", help="ask about response tokens A to B - 1")
    query.add_argument(
        "--instead",
        default="",
        metavar="WORD",
        help="why --token or --span says what it says, and not WORD: proponents pushed towards what was said",
    )
    query.add_argument("--top-k", type=positive, default=10, metavar="N", help="how many examples (default 10)")
    query.add_argument("--opponents", action="store_true", help="the most negative influences instead")
    query.add_argument("--source", action="append", default=[], metavar="VALUE", help="short for --where source=VALUE")
    query.add_argument(
        "--where",
        action="append",
        default=[],
        metavar="COLUMN=VALUE",
        help="only examples with this value in a column of the data; repeated: any value of a column, all columns",
    )
    query.add_argument("--text", default="", help="only examples with this text in prompt or response, in any case")
    query.add_argument("--approximate", action="store_true", help="scores from the sketches alone: fast, not exact")
    query.add_argument(
        "--positions", action="store_true", help="also the share of every position of the examples, prompts included"
    )
    query.add_argument(
        "--by",
        type=int,
        metavar="ROW",
        help="the other way round: what training example ROW did to every token of the answer; "
        "--token and --span then choose among the example's tokens",
    )
    query.add_argument("--max-tokens", type=positive, default=80, help="longest generated answer (default 80)")
    query.add_argument(
        "--method",
        default=DEFAULT,
        metavar="NAME[:VALUE]",
        help=f"how examples are scored; `rapidin-explorer methods` lists what there is ({DEFAULT})",
    )
    query.add_argument(
        "--curvature-rows",
        type=positive,
        default=CURVATURE_ROWS,
        metavar="N",
        help=f"training rows that stand for all of them in second-order methods ({CURVATURE_ROWS})",
    )
    query.add_argument("--json", action="store_true", help="print one JSON object")
    other_model(query)
    _on_ray(query, "where the sketches are read: in this process (default), or by workers on a Ray cluster")

    methods = _command(
        commands, "methods", _methods, "list the methods of `query --method`: what each is, assumes, costs"
    )
    methods.add_argument("--json", action="store_true", help="print one JSON object")

    audit = _command(commands, "audit", _audit, "answer many prompts, and say what influenced each answer")
    audit.add_argument("cache", help="folder that `precompute` made")
    audit.add_argument(
        "--prompts",
        required=True,
        metavar="FILE",
        help="a .txt file, one prompt a line, or .jsonl or .csv with `prompt`",
    )
    audit.add_argument(
        "--label", default="source", metavar="COLUMN", help="column that examples are counted by (source)"
    )
    audit.add_argument(
        "--planted",
        action="append",
        default=[],
        metavar="VALUE",
        help="a value of it whose share is wanted; repeatable",
    )
    audit.add_argument("--exact", action="store_true", help="scores without sketch noise: slower, see `query`")
    audit.add_argument(
        "--method", default=DEFAULT, metavar="NAME[:VALUE]", help=f"how examples are scored, as for `query` ({DEFAULT})"
    )
    audit.add_argument("--max-tokens", type=positive, default=80, help="longest generated answer (default 80)")
    shape = audit.add_mutually_exclusive_group()
    shape.add_argument("--json", action="store_true", help="print one JSON object")
    shape.add_argument("--csv", action="store_true", help="print one line of CSV a prompt")
    other_model(audit)

    info = _command(commands, "info", _info, "say what a cache holds and how it was made")
    info.add_argument("cache", help="folder that `precompute` made")
    info.add_argument("--json", action="store_true", help="print one JSON object")

    verify = _command(commands, "verify", _verify, "check every file of a cache against its manifest")
    verify.add_argument("cache", help="folder that `precompute` made")

    mend = _command(commands, "mend", _mend, "make the damaged files of a cache anew, and nothing else")
    mend.add_argument("cache", help="folder that `precompute` made")
    mend.add_argument(
        "--data", nargs="+", default=[], help="the training data, all of it, needed only when the examples are damaged"
    )
    other_model(mend)

    append = _command(commands, "append", _append, "append training data to a finished cache")
    append.add_argument("cache", help="folder that `precompute` made; the same command finishes what a stop left")
    append.add_argument("--data", required=True, help=DATA_HELP)
    append.add_argument("--estimate", action="store_true", help="say what it will cost, and write nothing")
    append.add_argument(
        "--tokens", metavar="all|none|N", help="which of the new examples get token sketches (all if all others have)"
    )
    other_model(append)

    drop = _command(commands, "drop", _drop, "drop training examples from a cache")
    drop.add_argument("cache", help="folder that `precompute` made")
    which = drop.add_mutually_exclusive_group(required=True)
    which.add_argument(
        "--rows",
        metavar="3,5,8-10",
        help="ids of the examples: the row that each had, from 0, in all data that came into the cache. They never "
        "change, so that the same command again drops nothing more",
    )
    which.add_argument("--source", metavar="NAME", help="all examples with this in their `source` column")

    precompute = _command(commands, "precompute", _precompute, "make a cache: the gradient sketch of every example")
    precompute.add_argument("cache", help="folder to write; the same command finishes what a stopped run left")
    precompute.add_argument("--data", required=True, help=DATA_HELP)
    _model(precompute)
    _precision(precompute, ["auto", "float32", "bfloat16", "float16", "4bit"], ", or quantised as for QLoRA (4bit)")
    precompute.add_argument("--adapter", help="PEFT adapter folder; without one, all parameters are differentiated")
    precompute.add_argument(
        "--checkpoints",
        default="final",
        metavar="final|all|NAMES",
        help="where gradients are taken: the final adapter (default), or the checkpoints that `finetune` kept, over "
        "which influence is then summed: all, or names such as 1,final",
    )
    precompute.add_argument(
        "--tensors",
        default="",
        metavar="PATTERN",
        help="take gradients of the trainable tensors alone whose names match this regular expression, such as lora_B "
        "(all)",
    )
    precompute.add_argument("--k", type=positive, default=65_536, help="sketch length, a power of two (65536)")
    precompute.add_argument("--token-k", type=positive, default=4_096, help="length of token sketches (4096)")
    precompute.add_argument(
        "--coarse-k",
        metavar="K[,K]",
        help="lengths of the coarse levels that questions to a large cache read first; 0: none "
        "(16384,32768 where the sketches take more than 1 GB)",
    )
    precompute.add_argument("--rounds", type=positive, default=20, help="λ, shuffles of Algorithm 1 (20)")
    precompute.add_argument("--seed", type=int, default=0, help="seed of Algorithm 1 (0)")
    precompute.add_argument("--dtype", choices=["float16", "int8"], default="float16", help="how sketches are stored")
    precompute.add_argument("--normalisation", choices=KINDS, default="layer", help="of gradients (layer)")
    precompute.add_argument(
        "--batch", type=positive, default=0, metavar="N", help="examples a backward pass (the fastest, by measurement)"
    )
    precompute.add_argument("--estimate", action="store_true", help="say what it will cost, and write nothing")
    precompute.add_argument(
        "--tokens",
        default="all",
        metavar="all|none|N",
        help="which examples get token sketches: all (default), none, or the N with most influence on the training "
        "set as a whole. They cost one backward pass a token; the explorer computes missing values when it shows them",
    )

    precompute.add_argument(
        "--null-prompts",
        type=count,
        default=200,
        metavar="N",
        help="unrelated prompts that all examples are scored on, so that the explorer can say how unusual a score is: "
        "200 (default, all there are), fewer, or 0 for none. The same command adds them to a cache without",
    )
    precompute.add_argument(
        "--upload", default="", metavar="URL", help="copy the finished cache there, too (s3://…, gs://…: fsspec's)"
    )
    _on_ray(precompute, "where sketches are made: in this process (default), or by many workers on a Ray cluster")

    finetune = _command(commands, "finetune", _finetune, "train a LoRA adapter on the data")
    finetune.add_argument("out", help="folder for the adapter and the record of its training")
    finetune.add_argument("--data", required=True, help=DATA_HELP)
    _model(finetune)
    _precision(finetune, ["auto", "float32", "bfloat16", "float16"])
    finetune.add_argument("--rank", type=positive, default=16, help="LoRA rank (16)")
    finetune.add_argument("--alpha", type=positive, default=32, help="LoRA alpha (32)")
    finetune.add_argument("--targets", default="q_proj,k_proj,v_proj,o_proj", help="layers that get an adapter")
    finetune.add_argument("--epochs", type=positive, default=2, help="passes over the data (2)")
    finetune.add_argument("--learning-rate", type=rate, default=2e-3, help="initial; decays along a cosine (2e-3)")
    finetune.add_argument("--batch-size", type=positive, default=4, help="examples a step (4)")
    finetune.add_argument(
        "--checkpoints",
        type=moments,
        default=1,
        metavar="N|EPOCHS",
        help="moments of the training to keep, the adapter itself the last: so many, evenly spaced (1: that alone), or "
        "those after so many epochs, with commas, such as 0.05,1",
    )
    finetune.add_argument("--seed", type=int, default=0, help="seed of the adapter and the order (0)")

    evaluate = _command(commands, "evaluate", _evaluate, "measure attribution where the truth is known")
    evaluating.add_options(evaluate)
    return top


def _command(
    commands: Any, name: str, run: Callable[[argparse.Namespace], int | None], summary: str
) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(
        name, help=summary, description=summary[0].upper() + summary[1:] + "."
    )
    command.set_defaults(run=run)
    return command


def _model(command: argparse.ArgumentParser) -> None:
    command.add_argument("--model", default=embedded.NAME, help=MODEL_HELP)
    command.add_argument("--template", default="auto", help="chat (the tokenizer's), alpaca, or a file with {prompt}")
    command.add_argument("--device", default="", help="cpu, cuda, cuda:1, mps (default: a GPU where there is one)")


def _precision(command: argparse.ArgumentParser, choices: list[str], more: str = "") -> None:
    about = f"number format of the base's weights: as they are stored (auto), converted{more}"
    command.add_argument("--precision", choices=choices, default="auto", help=about)


def _serving(command: argparse.ArgumentParser) -> None:
    command.add_argument("--port", type=int, default=8501, help="port of the page (8501)")
    command.add_argument("--history", default="", metavar="FILE", help="where questions are kept (your data folder)")
    command.add_argument("--address", default="127.0.0.1", help="address to listen on (127.0.0.1: this machine alone)")


def _on_ray(command: argparse.ArgumentParser, what: str) -> None:
    command.add_argument("--engine", choices=["in-process", "ray"], default="in-process", help=what)
    command.add_argument("--address", default="", help="a running Ray cluster (default: one on this machine alone)")
    command.add_argument("--workers", type=positive, default=0, metavar="N", help="how many (as there is room for)")


def _ray(options: argparse.Namespace) -> AbstractContextManager[Any]:
    """A connection to Ray where that was asked for."""
    from explorer.retrieval.cluster import cluster

    return cluster(options.address) if options.engine == "ray" else nullcontext()


def _quiet_libraries() -> None:
    """Progress bars and advice of libraries would stand between our own lines."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")


def _demo(options: argparse.Namespace) -> int:
    embedded.embedded_model(say)
    options.cache, options.probes = [str(DEMO / "cache")], str(DEMO / "probes.jsonl")
    options.model = options.adapter = options.template = options.device = ""
    return _serve(options)


def _serve(options: argparse.Namespace) -> int:
    from explorer.cache import open_cache
    from explorer.serving.config import ServeSettings
    from explorer.serving.server import serve

    if len(options.cache) > 1 and (options.model or options.adapter or options.template):
        raise ModelError(
            "Of several caches each is served with the model that it names; --model, --adapter and --template go with "
            "one cache alone. Serve that one by itself, on a port of its own."
        )
    for cache in options.cache:
        open_cache(cache).require_complete()
    settings = ServeSettings(
        tuple(dict.fromkeys(os.fspath(Path(cache).resolve()) for cache in options.cache)),
        options.model,
        options.adapter and os.fspath(Path(options.adapter).resolve()),
        options.template,
        options.device,
        options.probes and os.fspath(Path(options.probes).resolve()),
        options.history and os.fspath(Path(options.history).resolve()),
    )
    return serve(settings, options.address, options.port, say)


def _history(options: argparse.Namespace) -> int:
    from explorer.serving.config import ServeSettings
    from explorer.serving.server import serve

    settings = ServeSettings(history=options.history and os.fspath(Path(options.history).resolve()))
    return serve(settings, options.address, options.port, say)


def _query(options: argparse.Namespace) -> None:
    selection = _selection(options)
    if options.positions and (options.approximate or not options.json):
        raise PromptError("--positions goes with --json, and with exact scores: the shares add up to these.")
    if options.by is not None and (options.opponents or options.approximate or options.positions):
        raise PromptError("--by gives every output token's value, exactly; it goes without ranking options.")
    if options.instead and (selection is None or options.by is not None):
        raise PromptError("--instead goes with --token or --span, which choose what was said in the word's place.")
    chosen, wanted = choose(options.method), _filter(options)
    wants = {Can.BOTH_WAYS: options.by is not None, Can.POSITIONS: options.positions}
    wants |= {Can.FOUR_INFLUENCES: options.engine == "ray"}
    if any(wanted and not chosen.can(ability) for ability, wanted in wants.items()):
        raise MethodError(f"--by, --positions and --engine ray go with {DEFAULT} alone, not with {options.method}.")
    if options.by is not None and not wanted.empty:
        raise FilterError("--by names its one example; it goes without --source, --where and --text.")
    with _ray(options) as ray:
        _say_answer(options, engine_of(options, ray), selection, wanted)


def _say_answer(options: argparse.Namespace, engine: Any, selection: tuple[int, int] | None, wanted: Any) -> None:
    from explorer.commands.report import Asked, example_report, example_text, question_report, question_text
    from explorer.methods.attributor import Attributor
    from explorer.methods.opening import open_method

    asked = Asked(
        options.prompt,
        options.response,
        selection,
        options.instead,
        options.top_k,
        options.opponents,
        options.approximate,
        options.positions,
        wanted,
        options.max_tokens,
    )
    with Bars() as bars:
        attributor = Attributor(open_method(engine, options.method, options.curvature_rows, bars.report))
        if options.by is not None:
            report, text = example_report(asked, attributor, options.by), example_text
        else:
            report, text = question_report(asked, attributor), question_text
    print(json.dumps(report, ensure_ascii=False, indent=1) if options.json else text(report))


def _methods(options: argparse.Namespace) -> None:
    if options.json:
        print(json.dumps([in_words(each) for each in METHODS.values()], ensure_ascii=False, indent=1))
        return
    for each in METHODS.values():
        print(f"{each.name}{':VALUE' if each.value else ''}  ({each.family}{', fitted once' if each.fitted else ''})")
        print(f"    {each.what}")
        print(f"    assumes: {each.assumes}")
        print(f"    costs: {each.costs}")
        if each.value:
            print(f"    VALUE: {each.value}")


def _audit(options: argparse.Namespace) -> None:
    from explorer.auditing.findings import Audited, Label, as_text, read_prompts, to_csv, to_json
    from explorer.auditing.run import AuditSettings, audit
    from explorer.history import origin_of
    from explorer.methods.bench import Bench
    from explorer.methods.method import Stage
    from explorer.model.generation import GenerationSettings

    try:
        prompts = read_prompts(Path(options.prompts).name, Path(options.prompts).read_bytes())
    except OSError as problem:
        raise DataError(f"The prompts {options.prompts} can't be read: {problem.strerror}.") from None
    engine = engine_of(options)
    examples, origin = engine.store.examples, origin_of(engine.store)
    label = Label(options.label, tuple(options.planted))
    label.check(examples)
    settings = AuditSettings(GenerationSettings(options.max_tokens), options.exact, method=choose(options.method))
    bench, done = Bench(engine), list[Audited]()
    bench.of(settings.method).cost()  # Refuses what this cache can't serve, before the first answer.
    with Bars() as bars:
        for found in audit(bench, prompts, settings, origin, lambda saved: None, Stage()):
            if found is not None:
                done.append(found)
                bars.report("prompts", len(done), len(prompts))
    if options.json:
        sys.stdout.buffer.write(to_json(done, label, examples, origin))
    elif options.csv:
        sys.stdout.buffer.write(to_csv(done, label, origin))
    else:
        print(as_text(done, label, examples))


def _filter(options: argparse.Namespace) -> Any:
    from explorer.corpus import Filter

    where: dict[str, tuple[str, ...]] = {}
    for pair in [*(f"source={value}" for value in options.source), *options.where]:
        column, equals, value = pair.partition("=")
        if not equals:
            raise FilterError(f"--where takes COLUMN=VALUE, such as source=facts, not {pair}.")
        where[column] = (*where.get(column, ()), value)
    return Filter(tuple(where.items()), options.text)


def _selection(options: argparse.Namespace) -> tuple[int, int] | None:
    if options.token is not None:
        return options.token, options.token + 1
    if options.span is None:
        return None
    start, colon, stop = options.span.partition(":")
    if not (colon and start.isdecimal() and stop.isdecimal()):
        raise PromptError(f"--span takes two token numbers such as 3:7, not {options.span}.")
    return int(start), int(stop)


def _info(options: argparse.Namespace) -> None:
    from explorer.cache import cache_report, open_cache

    report = cache_report(open_cache(options.cache))
    if options.json:
        print(json.dumps(report, ensure_ascii=False, indent=1))
    else:
        print("\n".join(f"{name.replace('_', ' '):22} {value}" for name, value in report.items()))


def _verify(options: argparse.Namespace) -> int:
    from explorer.cache.verify import verify

    problems = verify(Path(options.cache))
    for problem in problems:
        print(problem)
    if any(problem.harmful for problem in problems):
        return 2
    print("Every file is as its manifest says.")
    return 0


def _mend(options: argparse.Namespace) -> None:
    from explorer.serving.session import model_for
    from precompute.dataset import read_examples
    from precompute.mend import mend_cache

    def model(store: Any) -> Any:
        return model_for(store, options.model, options.adapter, options.template, options.device, say)

    with Bars() as bars:
        lines = mend_cache(Path(options.cache), model, [read_examples(data) for data in options.data], bars.report)
    say("\n".join(lines or ["There is nothing to mend."]))


def _append(options: argparse.Namespace) -> None:
    from explorer.cache import open_cache
    from explorer.serving.session import model_for
    from precompute.build import append_examples
    from precompute.dataset import read_examples

    examples, folder = read_examples(options.data), Path(options.cache)
    store = open_cache(folder)
    store.require_complete()
    every = "all" if store.manifest.token_rows == store.manifest.rows else "none"
    tokens = _token_count(options.tokens or every, len(examples))
    _say_abandoned(folder, Path(options.data).name)
    model = model_for(store, options.model, options.adapter, options.template, options.device, say)
    with Bars() as bars:
        try:
            announce = _announcer(options.estimate)
            grown = append_examples(model, examples, folder, tokens, Path(options.data).name, bars.report, announce)
        except Cancelled as stopped:
            return say(str(stopped))
    if grown.manifest == store.manifest:
        return say(f"{options.cache} holds that data already; nothing was changed.")
    say(f"{options.cache} now holds {grown.manifest.rows:,} examples, {len(examples):,} of them new.")


def _drop(options: argparse.Namespace) -> None:
    from explorer.cache import drop

    folder = Path(options.cache)
    _say_abandoned(folder)
    gone = drop(folder, () if options.rows is None else _numbers(options.rows), options.source)
    say(f"{gone:,} examples were dropped." if gone else "There is no such example (any more); nothing was changed.")


def _say_abandoned(folder: Path, data: str = "") -> None:
    from explorer.cache import open_cache
    from explorer.cache.generations import pending

    unfinished = pending(open_cache(folder))
    if unfinished and unfinished.manifest.parts[-1].name != data:
        say(f"The unfinished append of {unfinished.manifest.parts[-1].name} is given up.")


def _numbers(text: str) -> list[int]:
    """`3,5,8-10` as 3, 5, 8, 9, 10."""
    numbers: list[int] = []
    for part in text.split(","):
        first, dash, last = part.partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise PromptError(f"--rows takes numbers and ranges such as 3,5,8-10, not {text}.")
        numbers += range(int(first), int(last or first) + 1)
    return numbers


def _coarse_lengths(given: str, length: int) -> tuple[int, ...]:
    """What --coarse-k lists, in ascending order."""
    try:
        coarse = sorted({int(one) for one in given.split(",")} - {0})
    except ValueError:
        coarse = [0]
    if any(one < 1 or one & (one - 1) or one >= length for one in coarse):
        raise ExplorerError(f"--coarse-k must be 0 or powers of two below --k, not {given}.")
    return tuple(coarse)


def _precompute(options: argparse.Namespace) -> None:
    from explorer.cache import CacheSettings, upload
    from explorer.model.loading import load_model
    from explorer.retrieval import coarse_lengths
    from precompute.build import build_cache
    from precompute.dataset import read_examples

    for name in ("k", "token_k"):
        length = getattr(options, name)
        if length & (length - 1):
            raise ExplorerError(f"--{name.replace('_', '-')} must be a power of two, not {length}.")
    if options.token_k > options.k:
        raise ExplorerError(f"--token-k can't be larger than --k ({options.token_k} > {options.k}).")
    examples = read_examples(options.data)
    coarse = coarse_lengths(len(examples), options.k, options.dtype)
    if options.coarse_k is not None:
        coarse = _coarse_lengths(options.coarse_k, options.k)
    tokens = _token_count(options.tokens, len(examples))
    load = partial(
        load_model,
        options.model,
        options.adapter,
        options.template,
        options.device or None,
        checkpoints=options.checkpoints,
        precision=options.precision,
        tensors=options.tensors,
    )
    settings = CacheSettings(
        options.k,
        options.token_k,
        options.rounds,
        options.seed,
        options.dtype,
        options.normalisation,
        options.batch,
        options.tensors,
        coarse,
    )
    folder, data = Path(options.cache), Path(options.data).name
    with _ray(options) as ray, Bars() as bars:
        model = load(say=say)
        try:
            with _executor(options, ray, load, model, settings) as executor:
                store = build_cache(
                    model,
                    examples,
                    folder,
                    settings,
                    tokens,
                    data,
                    bars.report,
                    _announcer(options.estimate),
                    options.null_prompts,
                    executor,
                )
        except Cancelled as stopped:
            return say(str(stopped))
    if options.upload:
        upload(store, options.upload)
        say(f"{options.cache} was copied to {options.upload}")
    say(f"{options.cache} is complete; see it with: rapidin-explorer serve {options.cache}")


def _executor(
    options: argparse.Namespace, ray: Any, load: Callable[[], Any], model: Any, settings: Any
) -> AbstractContextManager[Any]:
    """What makes shards elsewhere, where that was asked for."""
    if not ray:
        return nullcontext()
    from precompute.ray_executor import RayExecutor

    return RayExecutor(ray, load, model.fingerprint, settings, options.device, options.workers)


def _token_count(asked: str, examples: int) -> int:
    """How many of the examples shall have token sketches."""
    if asked not in ("all", "none") and not asked.isdecimal():
        raise ExplorerError(f"--tokens takes all, none or a number, not {asked}.")
    return int(asked) if asked.isdecimal() else examples * (asked == "all")


def _announcer(estimate: bool) -> Callable[[object], None]:
    """Says what something will cost, and that is all when only an estimate was asked for."""

    def announce(cost: object) -> None:
        say(str(cost))
        if estimate:
            raise Cancelled("nothing was written")

    return announce


def _finetune(options: argparse.Namespace) -> None:
    from explorer.model.loading import load_model
    from precompute.dataset import read_examples
    from precompute.finetune import FinetuneSettings, finetune

    examples = read_examples(options.data)
    model = load_model(options.model, None, options.template, options.device or None, say, precision=options.precision)
    settings = FinetuneSettings(
        rank=options.rank,
        alpha=options.alpha,
        targets=tuple(options.targets.split(",")),
        epochs=options.epochs,
        learning_rate=options.learning_rate,
        batch_size=options.batch_size,
        seed=options.seed,
        checkpoints=options.checkpoints,
    )
    with Bars() as bars:
        finetune(
            model,
            examples,
            Path(options.out),
            settings,
            lambda step, steps, loss: bars.report("steps", step, steps, f"loss {loss:.3f}"),
        )
    say(f"The adapter is in {options.out}; next: rapidin-explorer precompute --adapter {options.out} …")


def _evaluate(options: argparse.Namespace) -> None:
    from precompute.dataset import read_examples

    evaluating.evaluate(options, read_examples)
