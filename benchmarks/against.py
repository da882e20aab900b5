"""How often rows that state the true country are found beside those that swapped it, without the data's labels.

The model answers each swap probe. `swapped`: it says the wrong country; then rows that say the true one ought to stand
against it. `right`: it says the true country itself; then they ought to stand for it. What neither says counts as
missed. `found_of_swapped` and `found_of_all` are shares, `first_word` of swapped answers the share where the true
country is the first of the other words.
"""

from pathlib import Path

from benchmarks.common import options, show
from explorer.corpus.contrary import Contrary, alternatives, contrary
from explorer.corpus.corpus import Corpus
from explorer.corpus.verbatim import as_characters
from explorer.engine import Engine
from explorer.evaluation.probes import Probe, read_probes, word_span
from explorer.paths import DEMO
from explorer.serving.session import open_engine


def main() -> None:
    """Answer, look up and print."""
    parser = options(__doc__)
    parser.add_argument("--cache", default=str(DEMO / "cache"), help="cache (the demo's)")
    parser.add_argument("--probes", default=str(DEMO / "probes.jsonl"), help="probes (the demo's)")
    chosen = parser.parse_args()
    engine = open_engine(chosen.cache, device=chosen.device or "")
    corpus = Corpus(engine.store.examples)
    for _ in corpus.prepare():
        pass
    probes = [probe for probe in read_probes(Path(chosen.probes)) if probe.kind == "swap"]
    swapped, right, against, first, supported = 0, 0, 0, 0, 0
    for probe in probes:
        wrong, said = judged(engine, corpus, probe)
        if wrong and said is not None:
            words = [other.word for other in said.others]
            against += probe.right in words
            first += words[:1] == [probe.right]
        supported += not wrong and said is not None and bool(said.said.rows)
        swapped += wrong
        right += not wrong and said is not None
    figures = {
        "probes": len(probes),
        "swapped": swapped,
        "right": right,
        "found_of_swapped": against / max(1, swapped),
        "found_of_all": (against + supported) / len(probes),
        "first_word": first / max(1, swapped),
    }
    show(figures, chosen.json)


def judged(engine: Engine, corpus: Corpus, probe: Probe) -> tuple[bool, Contrary | None]:
    """Whether the wrong country was said; and the rows for and against the country that was, None without one."""
    answer = engine.answered(probe.prompt, None, max_tokens=60)
    wrong = word_span(answer, probe.wrong)
    span = wrong or word_span(answer, probe.right)
    if span is None:
        return False, None
    others = alternatives(engine.predict(answer), span[0])
    characters = as_characters(answer.tokens, span)
    return wrong is not None, contrary(corpus.verbatim, answer.asked.question, answer.text, characters, others)


if __name__ == "__main__":
    main()
