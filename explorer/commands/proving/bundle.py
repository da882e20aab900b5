"""`bundle`: saved answers with all that was found about them, as one sealed file."""

import json
import sys
from pathlib import Path
from typing import Any

import click

from explorer.commands.options import PATH, Exclusive, Group, Options, as_json, cache, command, option, other_model
from explorer.commands.terminal import Bars, engine_of, say
from explorer.errors import BundleError

_file = click.argument("file", type=PATH, metavar="FILE", help="The bundle.")


@command(
    examples=(
        "my-cache -o evidence.bundle.json",
        "my-cache --history audit.sqlite --of 3f2a9c01d4e5b6a7,91c0ffee00112233 -o evidence.bundle.json",
    )
)
@cache("The folder that `precompute` made, which the answers were asked of.")
@option(
    "--history",
    "The file that the questions were saved in.",
    type=PATH,
    metavar="FILE",
    default="",
    show_default="one in your data folder",
)
@option(
    "--of",
    "The ids of the saved answers, or of their questions, with commas; the History page shows them.",
    metavar="IDS",
    show_default="all that were asked of this cache",
)
@click.option("-o", "--out", help="The file to write.", type=PATH, metavar="FILE", required=True)
def create(options: Options) -> None:
    """Write saved answers as one sealed file.

    It holds questions, answers, rankings, verdicts and notes, what trainings without some rows found (`counterfactual`,
    the page's *Train without these*), the hashes of model, adapter, data, cache and every shown row, and its own
    checksum.
    """
    from explorer.absence.kept import Shelf
    from explorer.bundles.sealed import bundle_of, write
    from explorer.bundles.words import summary
    from explorer.cache import open_cache
    from explorer.history import History, origin_of
    from explorer.methods.description import described
    from explorer.paths import data_home

    path = Path(options.history or data_home() / "history.sqlite")
    if not path.is_file():
        raise BundleError(f"There are no saved answers in {path}; give the file that has them with --history.")
    store, kept = open_cache(options.cache), History(path, described)
    made = origin_of(store).cache_sha256
    names = options.of.split(",") if options.of else [one.id for one in kept.find()[0]]
    answers = [kept.answer(name.strip()) for name in names]
    others = [saved.id for saved in answers if saved.origin.cache_sha256 != made]
    if options.of and others:
        raise BundleError(
            f"The saved answer {others[0]} was asked of another cache than {options.cache}; leave it out."
        )
    found = {saved.id: saved for saved in reversed(answers) if saved.id not in others}
    if not found:
        raise BundleError(
            f"{kept.path} has no answer that was asked of {options.cache} as it is now; ask on the page or with "
            "`rapidin-explorer audit`, or give another file with --history."
        )
    bundle = bundle_of(list(found.values()), Shelf(store).retrainings())
    checksum = write(Path(options.out), bundle)
    say(f"{options.out} holds {summary(bundle)}. Its SHA-256, to be told on another way than the file: {checksum}")


@command(examples=("evidence.bundle.json",))
@_file
def verify(options: Options) -> None:
    """Say whether a bundle is as it was written.

    The exit status is 2 where a byte was changed. The checksum finds damage; who wrote a bundle it can't say, so
    compare it with the one that its sender names.
    """
    from explorer.bundles.sealed import read
    from explorer.bundles.words import summary
    from explorer.methods.description import described

    found = read(Path(options.file), described)
    print(f"{options.file} is as it was written: {summary(found)}.\nSHA-256 {found.sha256}")


@command(name="open", examples=("evidence.bundle.json", "evidence.bundle.json --html report.html"))
@_file
@as_json
@option(
    "--html",
    "Write the report that the History page makes, to be read in a browser.",
    type=PATH,
    metavar="REPORT",
    cls=Exclusive,
    excluded_by="--json",
)
def open_bundle(options: Options) -> None:
    """Show a bundle, without model and cache."""
    from explorer.bundles.sealed import plain, read
    from explorer.bundles.words import as_text
    from explorer.cache.files import write_whole
    from explorer.history import json_bytes
    from explorer.history.export import to_html
    from explorer.methods.description import described

    found = read(Path(options.file), described)
    if options.json:
        sys.stdout.buffer.write(json_bytes(plain(Path(options.file))))
    elif options.html:
        write_whole(Path(options.html), to_html(found.answers, found.retrainings))
        say(f"{options.html} is written.")
    else:
        print(as_text(found))


@command(examples=("evidence.bundle.json my-cache", "evidence.bundle.json my-cache --json"))
@_file
@cache("The cache that the answers were asked of, or one made anew in the same way.")
@as_json
@other_model
def replay(options: Options) -> int:
    """Ask a bundle's questions again, and say whether ranks and numbers agree.

    What has another hash is named first. Numbers agree where they differ by at most 0.001 of the largest of their kind,
    approximate scores by a quarter of their own error. Rows whose scores can't be told apart may change places.
    Trainings aren't repeated: `counterfactual` does that. The exit status is 2 where something doesn't agree.
    """
    from explorer.bundles.replay import TOLERANCE, plain, replay, sentences
    from explorer.bundles.sealed import read
    from explorer.methods.bench import Bench
    from explorer.methods.description import described

    bundle, done = read(Path(options.file), described), list[Any]()
    with Bars() as bars:
        for found in replay(bundle, Bench(engine_of(options)), bars.report):
            done.append(found)
            if not options.json:
                print("\n".join(sentences(found)))
    agree = sum(found.agrees for found in done)
    if options.json:
        kept = {"sha256": bundle.sha256, "tolerance": TOLERANCE, "agrees": agree == len(done)}
        print(json.dumps(kept | {"answers": [plain(each) for each in done]}, ensure_ascii=False, indent=1))
    else:
        print(f"\n{agree} of {len(done)} answers agree in all their ranks and numbers.")
    return 0 if agree == len(done) else 2


bundle = Group(
    "bundle",
    {"Make it": (create,), "Look at it": (verify, open_bundle), "Ask again": (replay,)},
    help="Seal saved answers in one file for others.\n\nWho gets it needs neither model nor "
    "cache to read it, and can ask everything again with them.",
)
