"""A verdict in plain words. Names of labels and words are untrusted text, to be shown as text."""

from explorer.records import NEAR, Can, Contrast, NullTest, Ranking
from explorer.trust.verdict import LEAST_PROMPTS, Shared, Verdict
from explorer.views import shortened

HEADLINES = {"strong": "Strong evidence", "some": "Some evidence", "none": "No clear source"}
AVERAGED = "Averaged over the answer; click a word for more."
"""What a page adds where the whole response was asked about."""
_LONGEST = 60
_UNKNOWN = "so how strong this evidence is isn't known."


def headline(verdict: Verdict) -> str:
    """The verdict in two or three words; where it is about what lowered the answer's probability, it says so."""
    return HEADLINES[verdict.state] + (" of what lowered it" if verdict.opponents and verdict.state != "none" else "")


def sentences(verdict: Verdict) -> str:
    """What the first examples share, where the evidence isn't nothing, and how unrelated prompts do."""
    said = [common(verdict.shared)] if verdict.shared and verdict.state != "none" else []
    return " ".join([*said, beside(verdict)])


def common(shared: Shared) -> str:
    """What the first examples share, with its share of all the data."""
    name = shortened(shared.name, _LONGEST)
    if shared.kind == "label":
        are = "example is" if shared.of == 1 else "examples are"
        return f"{shared.shown} of these {shared.of} {are} {name} ({_share(shared)} of the data)."
    who = f"All {shared.of}" if shared.shown == shared.of else f"{shared.shown} of these {shared.of}"
    return f"{who} contain “{name}” ({_share(shared)} of the data do)."


def beside(verdict: Verdict) -> str:
    """How many unrelated prompts have ten examples as strong."""
    reached, of, end = verdict.test.reached, verdict.test.prompts, "bottom" if verdict.opponents else "top"
    if verdict.test.together > 1:
        return _beside_sets(verdict.test, end)
    if verdict.state == "none":
        return f"{reached} of {of} unrelated prompts have an equally strong {end} {NEAR}."
    if reached == 0:
        return f"None of {of} unrelated prompts is this strong."
    return f"{reached} of {of} unrelated prompts {'is' if reached == 1 else 'are'} as strong."


def _beside_sets(test: NullTest, end: str) -> str:
    has = "has" if test.reached < 2 else "have"
    return (
        f"{test.reached or 'None'} of {test.prompts:,} sets of {test.together} answers, drawn from these and unrelated "
        f"prompts, {has} an equally strong {end} {NEAR}."
    )


NOT_YET = (
    "How strong this evidence is isn't known yet: unrelated prompts are scored when all training examples are read."
)
"""Said of a ranking over a cache in the making."""


def unknown(ranking: Ranking, in_the_making: bool = False) -> str:
    """Why a ranking has no verdict, in a sentence; empty where it has one, or shows no example."""
    if not ranking.influences:
        return ""
    if not ranking.method.can(Can.NULLS):
        return f"{ranking.method.name} has no comparison with unrelated prompts, {_UNKNOWN}"
    if isinstance(ranking.selection, Contrast):
        return f"One word against another has no comparison with unrelated prompts, {_UNKNOWN}"
    if ranking.test is None and in_the_making:
        return NOT_YET
    if ranking.test is None:
        return f"The cache has no scores of unrelated prompts to compare with, {_UNKNOWN}"
    if ranking.test.prompts < LEAST_PROMPTS:
        return f"The cache has only {ranking.test.prompts} unrelated prompts to compare with, {_UNKNOWN}"
    return ""


def _share(shared: Shared) -> str:
    share = shared.holders / shared.examples
    return "under 1%" if share < 0.01 else f"{share:.0%}"
