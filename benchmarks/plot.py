"""Draws growth as lines on two logarithmic axes: a small SVG, without a plotting library."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

WIDTH, HEIGHT, MARGIN = 640, 400, 60
COLOURS = ("#1b7f5c", "#b3541e", "#5b4b9a", "#8a8a8a")


def plot(points: Sequence[Mapping[str, float]], path: Path) -> None:
    """Scan (solid) and cascade (dashed) seconds over rows, one colour for each K."""
    times = [point[name] for point in points for name in ("scan_s", "cascade_s")]
    across = _axis([point["rows"] for point in points], MARGIN, WIDTH - MARGIN)
    upward = _axis(times, HEIGHT - MARGIN, 30)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        f'font-size="12"><rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{WIDTH / 2}" y="{HEIGHT - 15}" text-anchor="middle">training examples</text>',
        f'<text x="{MARGIN}" y="18">seconds a question: scan (solid), cascade (dashed)</text>',
    ]
    for rows in sorted({point["rows"] for point in points}):
        lines.append(f'<text x="{across(rows):.0f}" y="{HEIGHT - 38}" text-anchor="middle">{rows:,}</text>')
    for exponent in range(math.ceil(math.log10(min(times))), math.floor(math.log10(max(times))) + 1):
        y = upward(10.0**exponent)
        lines.append(f'<path d="M{MARGIN} {y:.0f}H{WIDTH - MARGIN}" stroke="#ddd"/>')
        lines.append(f'<text x="{MARGIN - 6}" y="{y + 4:.0f}" text-anchor="end">{10.0**exponent:g}</text>')
    for number, length in enumerate(sorted({point["k"] for point in points})):
        colour = COLOURS[number % len(COLOURS)]
        some = [point for point in points if point["k"] == length]
        for name, dashes in (("scan_s", ""), ("cascade_s", ' stroke-dasharray="5 4"')):
            places = " ".join(f"{across(point['rows']):.1f},{upward(point[name]):.1f}" for point in some)
            lines.append(f'<polyline points="{places}" fill="none" stroke="{colour}" stroke-width="2"{dashes}/>')
        y = upward(some[-1]["scan_s"]) + 4
        lines.append(f'<text x="{WIDTH - MARGIN + 4}" y="{y:.0f}" fill="{colour}">K={length:.0f}</text>')
    path.write_text("\n".join([*lines, "</svg>", ""]), encoding="utf-8")


def _axis(values: Sequence[float], start: float, stop: float):  # type: ignore[no-untyped-def]
    low, high = math.log(min(values)), math.log(max(values))
    return lambda value: start + (math.log(value) - low) / ((high - low) or 1) * (stop - start)
