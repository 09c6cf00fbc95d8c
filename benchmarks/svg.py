"""Two kinds of charts as SVG: bars around a line, and lines over logarithmic axes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape
from typing import Final

import msgspec

_COLOURS: Final = ("#1b6ca8", "#d1495b", "#2e8b57", "#8d5a97", "#c77d0a", "#3a3a3a", "#5aa9a9", "#a0522d")
_MET, _MISSED = "#2e8b57", "#d1495b"
_ROW = 22


class Line(msgspec.Struct, frozen=True):
    name: str
    points: Sequence[tuple[float, float]]
    is_reference: bool = False


def bars(title: str, rows: Sequence[tuple[str, float]]) -> str:
    """Return a chart of how far each row is from 1: to the right what reaches it, to the left what does not."""
    left, middle, width = 450, 700, 220
    furthest = max([1.0, *(abs(math.log10(value)) for _, value in rows)])
    parts = [_text(10, 24, title, size=16), f'<line x1="{middle}" x2="{middle}" y1="40" y2="100%" stroke="#888"/>']
    for index, (name, value) in enumerate(rows):
        y, length = 48 + index * _ROW, width * abs(math.log10(value)) / furthest
        x, colour = (middle, _MET) if value >= 1 else (middle - length, _MISSED)
        parts.append(_text(left, y + 12, name, anchor="end"))
        parts.append(f'<rect x="{x:.1f}" y="{y}" width="{max(length, 1):.1f}" height="15" fill="{colour}"/>')
        parts.append(_text(middle + width + 15, y + 12, f"{value:.2g} x"))
    return _document(middle + width + 80, 60 + len(rows) * _ROW, parts)


def lines(title: str, x_label: str, y_label: str, drawn: Sequence[Line]) -> str:
    """Return a chart with lines through points, both axes logarithmic; a reference is dashed."""
    x0, y0, width, height = 70, 340, 460, 290
    xs = [math.log10(x) for line in drawn for x, _ in line.points]
    ys = [math.log10(y) for line in drawn for _, y in line.points]
    x_min, x_max, y_min, y_max = min(xs), max(xs), math.floor(min(ys)), math.ceil(max(ys))

    def at(x: float, y: float) -> tuple[float, float]:
        right = (math.log10(x) - x_min) / ((x_max - x_min) or 1) * width
        up = (math.log10(y) - y_min) / ((y_max - y_min) or 1) * height
        return x0 + right, y0 - up

    parts = [_text(10, 24, title, size=16), _text(x0 + width / 2, y0 + 38, x_label, anchor="middle")]
    parts.append(_text(x0 + 4, y0 - height - 6, y_label))
    for power in range(y_min, y_max + 1):
        _, y = at(10**x_min, 10**power)
        parts.append(f'<line x1="{x0}" x2="{x0 + width}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>')
        parts.append(_text(x0 - 8, y + 4, f"{10.0**power:g}", anchor="end"))
    for size in sorted({x for line in drawn for x, _ in line.points}):
        x, _ = at(size, 10**y_min)
        parts.append(_text(x, y0 + 18, f"{size:,.0f}", anchor="middle"))
    for index, line in enumerate(drawn):
        colour = "#999" if line.is_reference else _COLOURS[index % len(_COLOURS)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (at(*point) for point in line.points))
        dash = ' stroke-dasharray="5 4"' if line.is_reference else ""
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>')
        parts.append(_text(x0 + width + 15, 60 + index * _ROW, line.name, colour=colour))
    return _document(x0 + width + 260, y0 + 50, parts)


def _text(x: float, y: float, text: str, *, anchor: str = "start", size: int = 12, colour: str = "#222") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" fill="{colour}">{escape(text)}</text>'
    )


def _document(width: float, height: float, parts: Iterable[str]) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif">'
    return "\n".join([head, '<rect width="100%" height="100%" fill="white"/>', *parts, "</svg>", ""])
