"""A chart of one thing over time, as SVG, with marks at what happened meanwhile."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple
from xml.sax.saxutils import escape

_WIDTH, _HEIGHT = 760, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 16, 66, 34
_STYLE = """
text { font: 11px 'DejaVu Sans', Helvetica, Arial, sans-serif; fill: #222; }
.title { font-size: 13px; font-weight: bold; }
.axis { stroke: #777; } .grid { stroke: #ddd; }
.mark { stroke: #d55e00; stroke-dasharray: 3 3; } .named { fill: #a63c00; }
.line { fill: none; stroke: #0072b2; stroke-width: 2; stroke-linejoin: round; }
"""


class Mark(NamedTuple):
    """Something that happened.

    :param at: seconds from the start.
    :param name: what it was.
    """

    at: float
    name: str


def line(title: str, points: Sequence[tuple[float, float]], marks: Sequence[Mark]) -> str:
    """Return the chart.

    :param points: seconds from the start, and the value then.
    :param marks: in their order.
    """
    step = _step(max(value for _, value in points))
    top = step * -(-max(value for _, value in points) // step)
    end = points[-1][0]

    def x(at: float) -> float:
        return _LEFT + at / end * (_WIDTH - _LEFT - _RIGHT)

    def y(value: float) -> float:
        return _HEIGHT - _BOTTOM - value / top * (_HEIGHT - _TOP - _BOTTOM)

    def elements() -> Iterator[str]:
        yield _text(_LEFT, 20, title, "title")
        for number in range(round(top / step) + 1):
            yield _line(_LEFT, y(number * step), _WIDTH - _RIGHT, y(number * step), "grid")
            yield _text(_LEFT - 6, y(number * step) + 4, f"{number * step:g}", anchor="end")
        for second in range(0, int(end) + 1, 2):
            yield _line(x(second), y(0), x(second), y(0) + 4, "axis")
            yield _text(x(second), y(0) + 17, str(second), anchor="middle")
        yield _line(_LEFT, y(0), _WIDTH - _RIGHT, y(0), "axis")
        for number, mark in enumerate(marks):
            # In two rows, that names of what was soon after each other do not overlap.
            row = 40 + 14 * (number % 2)
            yield _line(x(mark.at), row + 3, x(mark.at), y(0), "mark")
            yield _text(x(mark.at) + 3, row, mark.name, "named")
        path = " ".join(f"{x(at):.1f},{y(value):.1f}" for at, value in points)
        yield f'<polyline class="line" points="{path}"/>'

    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{_HEIGHT}"'
        f' viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">'
    )
    return "\n".join(
        [
            head,
            f"<title>{escape(title)}</title>",
            f"<style>{_STYLE}</style>",
            f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#fff"/>',
            *elements(),
            "</svg>\n",
        ]
    )


def _step(highest: float) -> float:
    """Return a round number that divides what is up to the highest value into 4 to 10 parts."""
    step = 1.0
    while highest / step > 10:
        step *= 2.5 if str(step)[0] == "2" else 2
    return step


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    named = f' class="{kind}"' if kind else ""
    return f'<text{named} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
