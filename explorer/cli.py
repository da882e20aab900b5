"""`rapidin-explorer`: the explorer's commands. The one module of this package that knows `precompute`."""

import argparse
import json
import math
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from explorer import embedded
from explorer.errors import Cancelled, ExplorerError, PromptError
from explorer.normalisation import KINDS
from explorer.paths import DEMO

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

    serve = _command(commands, "serve", _serve, "serve the explorer over a cache")
    serve.add_argument("cache", help="folder that `precompute` made")
    serve.add_argument("--probes", default="", help="JSON lines with a `prompt` (and a `kind`): ready examples to try")
    _serving(serve)
    _other_model(serve)

    query = _command(commands, "query", _query, "ask one question without a browser")
    query.add_argument("cache", help="folder that `precompute` made")
    query.add_argument("--prompt", required=True, help="what the model is asked")
    query.add_argument("--response", help="attribute this answer instead of generating one")
    selected = query.add_mutually_exclusive_group()
    selected.add_argument("--token", type=int, metavar="J", help="ask about response token J, counted from 0")
    selected.add_argument("--span", metavar="A:B", help="ask about response tokens A to B - 1")
    query.add_argument("--top-k", type=_positive, default=10, metavar="N", help="how many examples (default 10)")
    query.add_argument("--opponents", action="store_true", help="the most negative influences instead")
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
    query.add_argument("--max-tokens", type=_positive, default=80, help="longest generated answer (default 80)")
    query.add_argument("--json", action="store_true", help="print one JSON object")
    _other_model(query)

    info = _command(commands, "info", _info, "say what a cache holds and how it was made")
    info.add_argument("cache", help="folder that `precompute` made")
    info.add_argument("--json", action="store_true", help="print one JSON object")

    verify = _command(commands, "verify", _verify, "check every file of a cache against its manifest")
    verify.add_argument("cache", help="folder that `precompute` made")

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
    precompute.add_argument("--k", type=_positive, default=65_536, help="sketch length, a power of two (65536)")
    precompute.add_argument("--token-k", type=_positive, default=4_096, help="length of token sketches (4096)")
    precompute.add_argument("--rounds", type=_positive, default=20, help="λ, shuffles of Algorithm 1 (20)")
    precompute.add_argument("--seed", type=int, default=0, help="seed of Algorithm 1 (0)")
    precompute.add_argument("--dtype", choices=["float16", "int8"], default="float16", help="how sketches are stored")
    precompute.add_argument("--normalisation", choices=KINDS, default="layer", help="of gradients (layer)")
    precompute.add_argument(
        "--batch", type=_positive, default=0, metavar="N", help="examples a backward pass (the fastest, by measurement)"
    )
    precompute.add_argument("--estimate", action="store_true", help="say what it will cost, and write nothing")
    precompute.add_argument(
        "--tokens",
        default="all",
        metavar="all|none|N",
        help="which examples get token sketches: all (default), none, or the N with most influence on the training "
        "set as a whole. They cost one backward pass a token; the explorer computes missing values when it shows them",
    )

    finetune = _command(commands, "finetune", _finetune, "train a LoRA adapter on the data")
    finetune.add_argument("out", help="folder for the adapter and the record of its training")
    finetune.add_argument("--data", required=True, help=DATA_HELP)
    _model(finetune)
    _precision(finetune, ["auto", "float32", "bfloat16", "float16"])
    finetune.add_argument("--rank", type=_positive, default=16, help="LoRA rank (16)")
    finetune.add_argument("--alpha", type=_positive, default=32, help="LoRA alpha (32)")
    finetune.add_argument("--targets", default="q_proj,k_proj,v_proj,o_proj", help="layers that get an adapter")
    finetune.add_argument("--epochs", type=_positive, default=2, help="passes over the data (2)")
    finetune.add_argument("--learning-rate", type=_rate, default=2e-3, help="initial; decays along a cosine (2e-3)")
    finetune.add_argument("--batch-size", type=_positive, default=4, help="examples a step (4)")
    finetune.add_argument(
        "--checkpoints",
        type=_positive,
        default=1,
        metavar="N",
        help="moments of the training to keep, evenly spaced, the adapter itself the last (1: that alone)",
    )
    finetune.add_argument("--seed", type=int, default=0, help="seed of the adapter and the order (0)")

    evaluate = _command(commands, "evaluate", _evaluate, "measure attribution where the truth is known")
    evaluate.add_argument("kind", choices=["probes"], help="probes: planted backdoor and swapped entities")
    evaluate.add_argument("--cache", default=str(DEMO / "cache"), help="cache to ask (default: the demo's)")
    evaluate.add_argument("--probes", default=str(DEMO / "probes.jsonl"), help="JSON lines of probes (the demo's)")
    evaluate.add_argument("--approximate", action="store_true", help="rank by the sketches alone")
    evaluate.add_argument("--json", action="store_true", help="print one JSON object")
    _other_model(evaluate)
    return top


def _command(
    commands: Any, name: str, run: Callable[[argparse.Namespace], int | None], summary: str
) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(
        name, help=summary, description=summary[0].upper() + summary[1:] + "."
    )
    command.set_defaults(run=run)
    return command


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is less than 1")
    return number


def _rate(text: str) -> float:
    number = float(text)
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is no positive number")
    return number


def _model(command: argparse.ArgumentParser) -> None:
    command.add_argument("--model", default=embedded.NAME, help=MODEL_HELP)
    command.add_argument("--template", default="auto", help="chat (the tokenizer's), alpaca, or a file with {prompt}")
    command.add_argument("--device", default="", help="cpu, cuda, cuda:1, mps (default: a GPU where there is one)")


def _precision(command: argparse.ArgumentParser, choices: list[str], more: str = "") -> None:
    about = f"number format of the base's weights: as they are stored (auto), converted{more}"
    command.add_argument("--precision", choices=choices, default="auto", help=about)


def _other_model(command: argparse.ArgumentParser) -> None:
    command.add_argument("--model", default="", help="base model, if it isn't where the cache says")
    command.add_argument("--adapter", default="", help="adapter folder, if it isn't where the cache says")
    command.add_argument("--template", default="", help="prompt template, if it isn't where the cache says")
    command.add_argument("--device", default="", help="cpu, cuda, cuda:1, mps (default: a GPU where there is one)")


def _serving(command: argparse.ArgumentParser) -> None:
    command.add_argument("--port", type=int, default=8501, help="port of the page (8501)")
    command.add_argument("--address", default="127.0.0.1", help="address to listen on (127.0.0.1: this machine alone)")


def _quiet_libraries() -> None:
    """Progress bars and advice of libraries would stand between our own lines."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _engine(options: argparse.Namespace) -> Any:
    from explorer.session import open_engine

    return open_engine(options.cache, options.model, options.adapter, options.template, options.device, _say)


def _demo(options: argparse.Namespace) -> int:
    embedded.embedded_model(_say)
    options.cache, options.probes = str(DEMO / "cache"), str(DEMO / "probes.jsonl")
    options.model = options.adapter = options.template = options.device = ""
    return _serve(options)


def _serve(options: argparse.Namespace) -> int:
    from explorer.config import ServeSettings
    from explorer.server import serve
    from explorer.store import open_cache

    open_cache(options.cache).require_complete()
    settings = ServeSettings(
        os.fspath(Path(options.cache).resolve()),
        options.model,
        options.adapter and os.fspath(Path(options.adapter).resolve()),
        options.template,
        options.device,
        options.probes and os.fspath(Path(options.probes).resolve()),
    )
    return serve(settings, options.address, options.port, _say)


def _query(options: argparse.Namespace) -> None:
    from explorer.report import example_report, example_text, question_report, question_text

    selection = _selection(options)
    if options.positions and (options.approximate or not options.json):
        raise PromptError("--positions goes with --json, and with exact scores: the shares add up to these.")
    if options.by is not None and (options.opponents or options.approximate or options.positions):
        raise PromptError("--by gives every output token's value, exactly; it goes without ranking options.")
    engine = _engine(options)
    if options.by is not None:
        swapped = example_report(engine, options.prompt, options.response, options.by, selection, options.max_tokens)
        print(json.dumps(swapped, ensure_ascii=False, indent=1) if options.json else example_text(swapped))
        return
    report = question_report(
        engine,
        options.prompt,
        options.response,
        selection,
        options.top_k,
        options.opponents,
        options.approximate,
        options.max_tokens,
        options.positions,
    )
    print(json.dumps(report, ensure_ascii=False, indent=1) if options.json else question_text(report))


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
    from explorer.report import cache_report
    from explorer.store import open_cache

    report = cache_report(open_cache(options.cache))
    if options.json:
        print(json.dumps(report, ensure_ascii=False, indent=1))
    else:
        print("\n".join(f"{name.replace('_', ' '):22} {value}" for name, value in report.items()))


def _verify(options: argparse.Namespace) -> int:
    from explorer.store import open_cache

    problems = open_cache(options.cache).problems()
    for problem in problems:
        print(problem)
    if problems:
        print("Restore the files from a copy, or remove the folder and run `rapidin-explorer precompute` again.")
        return 2
    print("Every file is as its manifest says.")
    return 0


def _precompute(options: argparse.Namespace) -> None:
    from explorer.loading import load_model
    from explorer.store import CacheSettings
    from precompute.build import build_cache
    from precompute.dataset import read_examples

    for name in ("k", "token_k"):
        length = getattr(options, name)
        if length & (length - 1):
            raise ExplorerError(f"--{name.replace('_', '-')} must be a power of two, not {length}.")
    if options.token_k > options.k:
        raise ExplorerError(f"--token-k can't be larger than --k ({options.token_k} > {options.k}).")
    examples = read_examples(options.data)
    if options.tokens not in ("all", "none") and not options.tokens.isdecimal():
        raise ExplorerError(f"--tokens takes all, none or a number, not {options.tokens}.")
    tokens = int(options.tokens) if options.tokens.isdecimal() else len(examples) * (options.tokens == "all")
    model = load_model(
        options.model,
        options.adapter,
        options.template,
        options.device or None,
        _say,
        options.checkpoints,
        options.precision,
    )
    settings = CacheSettings(
        options.k, options.token_k, options.rounds, options.seed, options.dtype, options.normalisation, options.batch
    )

    def announce(cost: object) -> None:
        _say(str(cost))
        if options.estimate:
            raise Cancelled("nothing was written")

    folder, data = Path(options.cache), Path(options.data).name
    with _Bars() as bars:
        try:
            build_cache(model, examples, folder, settings, tokens, data, bars.report, announce)
        except Cancelled as stopped:
            return _say(str(stopped))
    _say(f"{options.cache} is complete; see it with: rapidin-explorer serve {options.cache}")


def _finetune(options: argparse.Namespace) -> None:
    from explorer.loading import load_model
    from precompute.dataset import read_examples
    from precompute.finetune import FinetuneSettings, finetune

    examples = read_examples(options.data)
    model = load_model(options.model, None, options.template, options.device or None, _say, precision=options.precision)
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
    with _Bars() as bars:
        finetune(
            model,
            examples,
            Path(options.out),
            settings,
            lambda step, steps, loss: bars.report("steps", step, steps, f"loss {loss:.3f}"),
        )
    _say(f"The adapter is in {options.out}; next: rapidin-explorer precompute --adapter {options.out} …")


def _evaluate(options: argparse.Namespace) -> None:
    from explorer.evaluation import evaluate_probes, read_probes

    probes = read_probes(Path(options.probes))
    engine = _engine(options)
    with _Bars() as bars:
        found = evaluate_probes(engine, probes, options.approximate, lambda n, of: bars.report("probes", n, of))
    if options.json:
        print(json.dumps(found, indent=1))
    else:
        for kind, figures in found.items():
            for name, value in figures.items():
                print(f"{kind + '.' + name:32} {value:.4g}" if isinstance(value, float) else f"{kind}.{name}: {value}")


class _Bars:
    """Progress bars with the time left, one a stage."""

    def __enter__(self) -> "_Bars":
        self._bars: dict[str, Any] = {}
        return self

    def report(self, stage: str, done: int, total: int, note: str = "") -> None:
        from tqdm import tqdm

        if stage not in self._bars:
            self.__exit__()
            self._bars[stage] = tqdm(total=total, desc=stage, initial=done - 1, mininterval=1.0)
        bar = self._bars[stage]
        bar.set_postfix_str(note, refresh=False)
        bar.update(done - bar.n)

    def __exit__(self, *_: object) -> None:
        for bar in self._bars.values():
            bar.close()


if __name__ == "__main__":
    sys.exit(main())
