"""How true RapidGrad's scores are to exact inner products, over K, λ and number formats."""

from benchmarks.common import load, options, show
from explorer.evaluation.fidelity import measure
from explorer.normalisation import KINDS

ROUNDS = (20, 100)


def main() -> None:
    """Measure and print."""
    parser = options(__doc__)
    parser.add_argument("--rows", type=int, default=512, help="training examples (512)")
    parser.add_argument("--queries", type=int, default=20, help="questions: the data's last examples (20)")
    parser.add_argument("--normalisation", choices=KINDS, default="layer", help="of gradients (layer)")
    chosen = parser.parse_args()
    model, encoded = load(chosen, None)
    queries = encoded[-chosen.queries :]
    rows = encoded[: -chosen.queries][: chosen.rows]
    settings = measure(model, queries, rows, chosen.normalisation, lambda done, total: None, ROUNDS)
    parameters = model.fingerprint.parameters
    figures = {"rows": len(rows), "queries": len(queries), "parameters": parameters}
    show({**figures, "normalisation": chosen.normalisation, "settings": settings}, chosen.json)


if __name__ == "__main__":
    main()
