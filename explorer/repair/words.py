"""A repair's report in words: what became of the behaviour, and what else changed. Texts in it are untrusted."""

from collections.abc import Iterator, Sequence
from typing import Any

from explorer.visible import one_line

_WIDE = 100
_MOST = 5
"""So many changed answers of a kind are shown."""


def sentence(report: dict[str, Any]) -> str:
    """The finding in one sentence."""
    rows = report["rows"]
    done = [f"{len(rows['dropped']):,} of {rows['all']:,} rows dropped"] if rows["dropped"] else []
    done += [f"{len(rows['replaced']):,} replaced"] if rows["replaced"] else []
    what = f"Trained with {' and '.join(done)}"
    told = [
        f"of {kind or 'all'} prompts {each['shown']['after']} of {each['probes']} show the behaviour, "
        f"{each['shown']['before']} before"
        for kind, each in report["kinds"].items()
    ]
    return f"{what}: {'; '.join(told)}." if told else f"{what}. No probes were given, so no behaviour was looked for."


def as_text(report: dict[str, Any]) -> str:
    """The report for a terminal, before and after side by side."""
    return "\n".join(_lines(report))


def _lines(report: dict[str, Any]) -> Iterator[str]:
    yield one_line(sentence(report), 1000)
    for kind, each in report["kinds"].items():
        shown, loss, same = each["shown"], each["loss"], each["same_answers"]
        yield ""
        yield _row(f"{one_line(kind, 30) or 'all'}, {each['probes']} prompts", "before", "after")
        yield _row("  show the behaviour", shown["before"], shown["after"], shown["seeds"])
        yield _row("  loss of the original's answers", *(_nats(loss[name]) for name in ("before", "after", "seeds")))
        yield _row("  the same answer", each["probes"], same["after"], same["seeds"])
    yield ""
    for name, each in report["losses"].items():
        if each["rows"]:
            yield (
                f"Mean loss of {each['rows']:,} {name} rows: {each['before']:.3f} before, {each['after']:.3f} after "
                "(nats a token)."
            )
    for kind in report["kinds"]:
        other = [one for one in report["answers"] if one["kind"] == kind and one["before"] != one["after"]]
        if other:
            yield f"\nOther answers, {one_line(kind, 40) or 'all'}: {len(other)}"
        for one in other[:_MOST]:
            yield f"  {one_line(one['prompt'], _WIDE)}"
            yield f"    before: {one_line(one['before'], _WIDE)}"
            yield f"    after:  {one_line(one['after'], _WIDE)}"


def _row(name: str, before: Any, after: Any, seeds: Sequence[Any] = ()) -> str:
    """One line of the table; behind it what trainings on all rows with other seeds have."""
    more = f"   other seeds on all rows: {', '.join(map(str, seeds))}" if seeds else ""
    return f"{name:40}{before!s:>8}{after!s:>8}{more}"


def _nats(loss: Any) -> Any:
    return [f"{each:.3f}" for each in loss] if isinstance(loss, list) else f"{loss:.3f}"
