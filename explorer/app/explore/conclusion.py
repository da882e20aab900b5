"""What was found behind a question, in a sentence above the examples, and how sure that is, one click away."""

from explorer import views
from explorer.app.desk.desk import Desk
from explorer.app.desk.work import Explaining, Question
from explorer.app.session import resources
from explorer.app.widgets.component import verdict_box
from explorer.app.widgets.polling import duration, queued
from explorer.cache import Store
from explorer.concurrency import Place
from explorer.records import Can, Chosen, Ranking
from explorer.trust import Verdict, wording

KEY = "verdict_box"
ALONE = (
    "Scores have units of the method's own: compare ranks, not numbers, with another's. How sure and how stable its "
    "ranking is, isn't known."
)
"""Said of a method that knows nothing of unrelated prompts."""


def show(desk: Desk, questions: list[Question], rankings: list[Ranking], explaining: Explaining) -> bool:
    """Say what was found behind one selection's questions, as far as their rankings are known.

    Returns whether nothing was found, so that the examples wait until someone asks for them.
    """
    one = questions[0]
    opponents = None if len(questions) > 1 else one.opponents
    asked = views.heading(one.answer, one.selection, opponents, one.method)
    if not rankings:
        verdict_box(
            KEY,
            asked=asked,
            state="",
            headline="",
            sentence=waiting(one.method, desk.place(explaining.asked)),
            progress="",
            sure=(),
        )
        return False
    found = [desk.verdict(*pair) for pair in zip(questions, rankings, strict=False)]
    first = found[0]
    verdict_box(
        KEY,
        asked=asked,
        state=first.state if first else "",
        headline=wording.headline(first) if first else "",
        sentence=" ".join(_sentences(rankings, found, desk.engine.store)),
        progress=progress(desk, questions, explaining),
        sure=sure(desk, questions, rankings),
    )
    return len(found) == 1 and first is not None and first.state == "none"


def waiting(method: Chosen, place: Place | None) -> str:
    """What is said before the first cards are there."""
    said = f"Asking {method.written} …" if method.written else "Computing the gradient of what you asked about …"
    return f"{said} {queued(place)}".strip()


def _sentences(rankings: list[Ranking], found: list[Verdict | None], store: Store) -> list[str]:
    # Of a part of the data, that comes first.
    among = views.ranked_among(store.manifest.rows, store.total)
    making = None in found and resources.in_the_making()
    said = list[str]()
    for ranking, each in zip(rankings, found, strict=True):
        sentence = wording.sentences(each) if each else wording.unknown(ranking, making)
        # Beside the first one, whose headline stands before them all.
        said.append(f"{wording.headline(each)}: {sentence}" if each and said else sentence)
    if rankings[0].selection is None and found[0] is not None:
        said.append(wording.AVERAGED)
    return [sentence for sentence in (among, *said) if sentence]


def sure(desk: Desk, questions: list[Question], rankings: list[Ranking]) -> list[str]:
    """What stands behind "How sure is this?": the evidence, the ranking, and how scores come about."""
    one, settings = questions[0], desk.engine.store.manifest.settings
    training = desk.engine.store.manifest.training
    lines = [views.standing_out(ranking) for ranking in rankings] if one.method.can(Can.NULLS) else [ALONE]
    lines.append(order(*_exact(desk, questions), rankings[0]))
    lines += [
        views.stability(ranking, redrawn.missed if (redrawn := desk.redrawn(question)) else 0.0)
        for question, ranking in zip(questions, rankings, strict=False)
    ]
    lines.append(views.scores_kind(one.selection, one.method, one.positions))
    if one.method.can(Can.FOUR_INFLUENCES):
        lines.append(views.gradient_kind(settings.normalisation, training.names, bool(settings.tensors)))
        lines.append(views.training_scale(training.scale, training.known))
        if rankings[0].coarse_error:
            lines.append(views.coarse_kind(rankings[0].coarse_error))
    return [line for line in lines if line]


def _exact(desk: Desk, questions: list[Question]) -> tuple[int, int]:
    """How many candidates of all the questions are exact, of how many."""
    exact, candidates = zip(*(desk.progress(question) for question in questions), strict=True)
    return sum(exact), sum(candidates)


def order(exact: int, candidates: int, ranking: Ranking) -> str:
    """How the examples were put in order, in a sentence; empty for a method whose scores are all it knows."""
    if not candidates:
        return "No example is left to rank."
    if not ranking.method.token_values:
        return "" if ranking.exact else "The ranking is approximate: by compressed gradients."
    if exact < candidates:
        noise = views.noise(ranking.sketch_error)
        return f"The ranking is approximate{noise}; {exact} of {candidates} candidates are exact so far."
    return f"Scores and ranking are exact, among the {candidates} best candidates of the approximate ranking."


def progress(desk: Desk, questions: list[Question], explaining: Explaining) -> str:
    """How far the ranking is from exact, and how long that will take; empty once it is."""
    exact, candidates = _exact(desk, questions)
    if explaining.finished or exact == candidates:
        return ""
    left = explaining.pace.seconds_left(exact, candidates)
    return f"Approximate ranking; refining {exact} of {candidates}" + (f", about {duration(left)} left" if left else "")
