"""Draws quality and training loss along the way from the base to the fine-tuned model, a panel a data set, as SVG.

python -m benchmarks.way_figure docs/way.svg docs/results/way-*.json
"""

import json
import sys
from pathlib import Path

from explorer.model.way import point_of

WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 330, 230, 40, 30, 40
LINES = {
    "loss": "#8a8a8a",
    "precision": "#1b7f5c",
    "auROC 5": "#b3541e",
    "coverage": "#1b7f5c",
    "accuracy": "#b3541e",
}
"""What is drawn: the loss as what is left of its fall, the others as they are."""


def main() -> None:
    """Read the figures that `benchmarks.way report --keep` wrote, and draw them side by side."""
    out, *kept = map(Path, sys.argv[1:])
    panels = [panel(path, number) for number, path in enumerate(kept)]
    high = HEIGHT * -(-len(panels) // 2)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {2 * WIDTH} {high}" font-family="sans-serif"'
    lines = [f'{head} font-size="11"><rect width="100%" height="100%" fill="white"/>', *panels, "</svg>", ""]
    out.write_text("\n".join(lines), encoding="utf-8")


def panel(path: Path, number: int) -> str:
    """One data set: α to the right."""
    found = json.loads(path.read_text(encoding="utf-8"))
    losses = {place: loss for name, loss in found["losses"].items() if (place := alpha(name)) is not None}
    first, last = max(losses.values()), losses[1.0]
    drawn: dict[str, list[tuple[float, float]]] = {
        "loss": [(place, (loss - last) / (first - last)) for place, loss in losses.items()]
    }
    for row in found["figures"]:
        place = alpha(row["moments"])
        if place is not None and (row["tensors"], row["normalisation"]) == ("moving", "cosine"):
            for name in row:
                short = next((each for each in LINES if name.endswith(each) and "top" not in name), None)
                if short and not name.startswith("fresh"):
                    drawn.setdefault(short, []).append((place, row[name]))
    shift = f'<g transform="translate({WIDTH * (number % 2)} {HEIGHT * (number // 2)})">'
    title = path.stem.removeprefix("way-")
    parts = [shift, f'<text x="{LEFT}" y="16" font-weight="bold">{title}</text>', *axes()]
    for row, (name, points) in enumerate(drawn.items()):
        places = " ".join(f"{across(x):.1f},{upward(y):.1f}" for x, y in sorted(points))
        dots = "".join(f'<circle cx="{across(x):.1f}" cy="{upward(y):.1f}" r="2"/>' for x, y in points)
        colour = LINES[name]
        parts.append(f'<polyline points="{places}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        parts.append(f'<g fill="{colour}">{dots}<text x="{WIDTH - 92}" y="{44 + 13 * row}">{said(name)}</text></g>')
    return "\n".join([*parts, "</g>"])


def said(name: str) -> str:
    """What a line is called."""
    return {"loss": "loss left", "precision": "avg. precision", "auROC 5": "auROC at 5"}.get(name, name)


def axes() -> list[str]:
    """The frame, with both axes from 0 to 1."""
    lines = [f'<text x="{WIDTH / 2}" y="{HEIGHT - 8}" text-anchor="middle">α, from the base to the model</text>']
    for value in (0.0, 0.25, 0.5, 0.75, 1.0):
        x, y = across(value), upward(value)
        lines.append(f'<path d="M{LEFT} {y:.0f}H{WIDTH - 15}" stroke="#ddd"/>')
        lines.append(f'<text x="{LEFT - 5}" y="{y + 4:.0f}" text-anchor="end">{value:g}</text>')
        lines.append(f'<text x="{x:.0f}" y="{HEIGHT - BOTTOM + 15}" text-anchor="middle">{value:g}</text>')
    return lines


def across(value: float) -> float:
    """Where an α lies."""
    return LEFT + value * (WIDTH - 15 - LEFT)


def upward(value: float) -> float:
    """Where a share lies."""
    return HEIGHT - BOTTOM - value * (HEIGHT - BOTTOM - TOP)


def alpha(moments: str) -> float | None:
    """α of a single moment on the way; None for sums and checkpoints."""
    return 1.0 if moments == "final" else point_of(moments)


if __name__ == "__main__":
    main()
