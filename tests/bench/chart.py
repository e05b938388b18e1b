# SPDX-License-Identifier: ISC
"""Charts as SVG: panels in a grid, in each a line per workload with our figure and QEMU's on one
logarithmic axis, and how far the repeats were apart. Colours follow the reader's light or dark scheme;
shapes differ as well."""

import dataclasses
import html
import math

LEFT, TOP, GAP = 96, 78, 18
PANEL_WIDTH, LINE_HEIGHT, PANEL_HEAD, AXIS_HEIGHT = 196, 24, 24, 40
MARK = 5
TICKS = (1, 2, 5)

LIGHT = {"ground": "#ffffff", "text": "#1f2328", "faint": "#59636e", "grid": "#d8dee4",
         "ours": "#0b5cad", "peer": "#b35900"}
DARK = {"ground": "#0d1117", "text": "#e6edf3", "faint": "#9198a1", "grid": "#30363d",
        "ours": "#6cb6ff", "peer": "#f0a35e"}
SHAPES = """text { font: 12px system-ui, sans-serif } .title { font-size: 16px; font-weight: 600 }
.limit { stroke-dasharray: 4 3 } .range { stroke-width: 2; opacity: 0.6 } .mark { stroke-width: 2 }"""


def _colours(c):
    """Plain rules, without variables: not every viewer of SVG knows those."""
    return (f"text {{ fill: {c['text']} }} .faint {{ fill: {c['faint']} }} "
            f".ground {{ fill: {c['ground']} }} .grid {{ stroke: {c['grid']} }} "
            f".limit {{ stroke: {c['faint']} }} .ours {{ stroke: {c['ours']}; fill: {c['ours']} }} "
            f".peer {{ stroke: {c['peer']}; fill: {c['ground']} }}")


def _style():
    dark = f"@media (prefers-color-scheme: dark) {{ {_colours(DARK)} }}"
    return f"<style>{SHAPES}\n{_colours(LIGHT)}\n{dark}</style>"


@dataclasses.dataclass
class Point:
    """A figure with its least and most; value None: there was no end in time."""

    value: float
    least: float = 0.0
    most: float = 0.0


@dataclasses.dataclass
class Panel:
    """Entries are (label, our Point, QEMU's Point); limit: a line to compare with, or None."""

    title: str
    entries: list
    limit: float = None


class Axis:
    """A logarithmic axis over all panels, from a little below the least to a little above the most."""

    def __init__(self, panels):
        values = [v for p in panels for _, a, b in p.entries for point in (a, b)
                  if point.value is not None for v in (point.least, point.most)]
        values += [p.limit for p in panels if p.limit]
        values = [v for v in values if v > 0] or [1, 10]
        self.least, self.most = min(values) / 1.3, max(values) * 1.6

    def x(self, value):
        """Offset in a panel."""
        value = max(value, self.least)
        span = math.log(self.most / self.least)
        return PANEL_WIDTH * math.log(value / self.least) / span

    def ticks(self):
        """Values to label: 1, 2, 5 times powers of ten."""
        decades = range(math.floor(math.log10(self.least)), math.ceil(math.log10(self.most)) + 1)
        return [t * 10 ** d for d in decades for t in TICKS
                if self.least <= t * 10 ** d <= self.most]

    def labelled(self):
        """Those ticks that have room for a number: all, or the powers of ten alone."""
        ticks = self.ticks()
        return ticks if len(ticks) <= 6 else [t for t in ticks if f"{t:e}".startswith("1")]


def _text(x, y, text, cls="", anchor="start"):
    return (f'<text x="{x:.1f}" y="{y:.1f}" class="{cls}" text-anchor="{anchor}">'
            f"{html.escape(text)}</text>")


def _line(x1, y1, x2, y2, cls):
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{cls}"/>'


def _mark(x, y, ours):
    if ours:
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{MARK}" class="mark ours"/>'
    points = ((0, -MARK - 1), (MARK + 1, 0), (0, MARK + 1), (-MARK - 1, 0))
    text = " ".join(f"{x + dx:.1f},{y + dy:.1f}" for dx, dy in points)
    return f'<polygon points="{text}" class="mark peer"/>'


def _no_end(x, y, ours):
    """An arrow that leaves the panel."""
    cls = "ours" if ours else "peer"
    x += PANEL_WIDTH - 4
    return (_line(x - 18, y, x, y, f"mark {cls}") +
            f'<polygon points="{x + 3},{y} {x - 5},{y - 5} {x - 5},{y + 5}" class="mark {cls}"/>')


def _point(axis, left, y, point, ours):
    if point.value is None:
        return _no_end(left, y, ours)
    cls = "range ours" if ours else "range peer"
    return (_line(left + axis.x(point.least), y, left + axis.x(point.most), y, cls) +
            _mark(left + axis.x(point.value), y, ours))


def _panel_grid(axis, left, top, height, unit):
    out = [_line(left + axis.x(t), top, left + axis.x(t), top + height, "grid")
           for t in axis.ticks()]
    out += [_text(left + axis.x(t), top + height + 15, f"{t:g}", "faint", "middle")
            for t in axis.labelled()]
    out.append(_text(left + PANEL_WIDTH / 2, top + height + 31, unit, "faint", "middle"))
    return out


def _panel(axis, panel, left, top, unit, labels):
    height = LINE_HEIGHT * len(panel.entries)
    out = [_text(left, top + 15, panel.title)]
    top += PANEL_HEAD
    out += _panel_grid(axis, left, top, height, unit)
    if panel.limit:
        x = left + axis.x(panel.limit)
        out.append(_line(x, top, x, top + height, "limit"))
    for i, (label, ours, peer) in enumerate(panel.entries):
        y = top + LINE_HEIGHT * (i + 0.5)
        if labels:
            out.append(_text(LEFT - 10, y + 4, label, "", "end"))
        out += [_point(axis, left, y, peer, False), _point(axis, left, y, ours, True)]
    return out


def _legend(note):
    return [_mark(LEFT + 6, 48, True), _text(LEFT + 18, 52, "migrd"), _mark(LEFT + 82, 48, False),
            _text(LEFT + 94, 52, "QEMU"), _text(LEFT + 146, 52, note, "faint")]


def draw(title, unit, note, grid):
    """The SVG: `grid` is a list of lists of Panel, all on one axis."""
    axis = Axis([p for line in grid for p in line])
    width = LEFT + max(len(line) for line in grid) * (PANEL_WIDTH + GAP) + GAP
    out, top = [_text(LEFT, 26, title, "title"), *_legend(note)], TOP
    for line in grid:
        for i, panel in enumerate(line):
            out += _panel(axis, panel, LEFT + i * (PANEL_WIDTH + GAP), top, unit, i == 0)
        top += PANEL_HEAD + LINE_HEIGHT * max(len(p.entries) for p in line) + AXIS_HEIGHT + GAP
    head = (f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{top}" '
            f'viewBox="0 0 {width} {top}" role="img" aria-label="{html.escape(title)}">')
    ground = f'<rect width="{width}" height="{top}" class="ground"/>'
    return "\n".join([head, _style(), ground, *out, "</svg>", ""])
