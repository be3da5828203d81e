"""A pipeline's picture: as SVG, drawn here, or as Mermaid's text. Haystack's own `draw` sends it to a public server."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from typing import Any, Final

from .io_mapping import IOMapping, Socket

INPUT: Final = "conversation"
OUTPUT: Final = "answer"
BOX_HEIGHT: Final = 54
ROW_GAP: Final = 74
COLUMN_GAP: Final = 60
MARGIN: Final = 24
CHARACTER: Final = 8
"""Pixels that a character takes at most in the font of the picture."""


@dataclass(frozen=True, slots=True)
class Edge:
    """From a box to another; `label` names the sockets."""

    sender: str
    receiver: str
    label: str


@dataclass(frozen=True, slots=True)
class Graph:
    """The boxes with the types of their components, and what connects them."""

    boxes: Mapping[str, str]
    edges: Sequence[Edge]


def to_graph(pipeline: Any, mapped: IOMapping) -> Graph:
    """The pipeline between the conversation and the answer."""
    boxes = {INPUT: "OpenAI's messages"}
    boxes |= {name: type(instance).__name__ for name, instance in pipeline.walk()}
    boxes[OUTPUT] = "OpenAI's choices"
    edges = [
        Edge(INPUT, place.component, _label(what, place.socket))
        for what, places in mapped.inputs.items()
        for place in places
    ]
    edges += [
        Edge(sender, receiver, _label(edge["from_socket"].name, edge["to_socket"].name))
        for sender, receiver, edge in pipeline.graph.edges(data=True)
    ]
    edges.append(_to_output(mapped.answer, ""))
    if mapped.documents is not None:
        edges.append(_to_output(mapped.documents, " → sources"))
    return Graph(boxes, edges)


def _to_output(place: Socket, what: str) -> Edge:
    return Edge(place.component, OUTPUT, place.socket + what)


def _label(sent: str, received: str) -> str:
    return sent if sent == received else f"{sent} → {received}"


def to_mermaid(graph: Graph) -> str:
    """The text that Mermaid, and GitHub within Markdown, draw a picture of."""
    ids = {name: f"box{number}" for number, name in enumerate(graph.boxes)}
    lines = ["flowchart TD"]
    lines += [f'    {ids[name]}["{_quoted(name)}<br/><i>{_quoted(kind)}</i>"]' for name, kind in graph.boxes.items()]
    lines += [f'    {ids[edge.sender]} -->|"{_quoted(edge.label)}"| {ids[edge.receiver]}' for edge in graph.edges]
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    return text.replace('"', "#quot;")


def to_svg(graph: Graph) -> str:
    """Rows from the top to the bottom, each component below all that it takes something from."""
    layout = _Layout(graph)
    parts = "\n".join([*layout.arrows(), *layout.boxes()])
    return _SVG.format(width=layout.width, height=layout.height, parts=parts)


class _Layout:
    """Where everything goes. An arrow that passes a row has a place of its own in it, a box that nobody sees."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._labels: dict[tuple[str, str], list[str]] = {}
        for edge in graph.edges:
            self._labels.setdefault((edge.sender, edge.receiver), []).append(edge.label)
        self._paths = {link: [link[0], link[1]] for link in self._labels}
        self._widths = {name: self._box_width(name) for name in graph.boxes}
        rows = self._with_passages(_rows(graph))
        row_widths = [sum(self._widths[name] for name in row) + COLUMN_GAP * (len(row) - 1) for row in rows]
        self.width = max(row_widths) + 2 * MARGIN
        self.height = MARGIN * 2 + len(rows) * BOX_HEIGHT + (len(rows) - 1) * ROW_GAP
        self._centres: dict[str, tuple[int, int]] = {}
        for number, row in enumerate(rows):
            left = (self.width - row_widths[number]) // 2
            for name in row:
                y = MARGIN + number * (BOX_HEIGHT + ROW_GAP) + BOX_HEIGHT // 2
                self._centres[name] = (left + self._widths[name] // 2, y)
                left += self._widths[name] + COLUMN_GAP

    def _box_width(self, name: str) -> int:
        return CHARACTER * max(len(name), len(self._graph.boxes[name])) + 2 * MARGIN

    def _with_passages(self, rows: list[list[str]]) -> list[list[str]]:
        """The rows, each in an order in which few arrows cross."""
        row_of = {name: number for number, row in enumerate(rows) for name in row}
        for (sender, receiver), path in self._paths.items():
            for number in range(row_of[sender] + 1, row_of[receiver]):
                passage = f"{sender} {receiver} {number}"
                self._widths[passage] = CHARACTER * max(map(len, self._labels[sender, receiver]))
                path.insert(-1, passage)
                rows[number].append(passage)
        above = {lower: upper for path in self._paths.values() for upper, lower in pairwise(path)}
        place: dict[str, float] = {}
        for row in rows:
            row.sort(key=lambda name: place.get(above.get(name, ""), 0.5))  # each below what it takes from
            place |= {name: (number + 1) / (len(row) + 1) for number, name in enumerate(row)}
        return rows

    def arrows(self) -> Iterator[str]:
        for link, path in self._paths.items():
            points = [self._centres[name] for name in path]
            way = -1 if points[-1][1] < points[0][1] else 1
            points[0] = (points[0][0], points[0][1] + way * BOX_HEIGHT // 2)
            points[-1] = (points[-1][0], points[-1][1] - way * BOX_HEIGHT // 2)
            curve = "".join(
                f" C{x1} {(y1 + y2) // 2} {x2} {(y1 + y2) // 2} {x2} {y2}" for (x1, y1), (x2, y2) in pairwise(points)
            )
            yield f'<path class="arrow" d="M{points[0][0]} {points[0][1]}{curve}"/>'
            (x1, y1), (x2, y2) = points[:2] if len(points) == 2 else (points[1], points[1])
            for number, label in enumerate(self._labels[link]):
                y = (y1 + y2) // 2 + 4 + 14 * number
                yield f'<text class="label" x="{(x1 + x2) // 2}" y="{y}">{escape(label)}</text>'

    def boxes(self) -> Iterator[str]:
        for name, kind in self._graph.boxes.items():
            (x, y), width = self._centres[name], self._widths[name]
            form = ' class="end"' if name in {INPUT, OUTPUT} else ""
            top, left = y - BOX_HEIGHT // 2, x - width // 2
            yield f'<rect{form} x="{left}" y="{top}" width="{width}" height="{BOX_HEIGHT}" rx="8"/>'
            yield f'<text class="name" x="{x}" y="{y - 4}">{escape(name)}</text>'
            yield f'<text class="kind" x="{x}" y="{y + 16}">{escape(kind)}</text>'


def _rows(graph: Graph) -> list[list[str]]:
    """Each box one row below the lowest that it takes from. A loop's way back is left out of account."""
    place = {name: number for number, name in enumerate(graph.boxes)}
    downward = [
        edge
        for edge in graph.edges
        if place[edge.sender] < place[edge.receiver] or not _reaches(graph, edge.receiver, edge.sender)
    ]
    row = dict.fromkeys(graph.boxes, 0)
    for _ in graph.boxes:
        for edge in downward:
            row[edge.receiver] = max(row[edge.receiver], row[edge.sender] + 1)
    return [[name for name in graph.boxes if row[name] == number] for number in range(max(row.values()) + 1)]


def _reaches(graph: Graph, start: str, goal: str) -> bool:
    seen: set[str] = set()
    open_boxes = [start]
    while open_boxes:
        name = open_boxes.pop()
        if name == goal:
            return True
        if name not in seen:
            seen.add(name)
            open_boxes += [edge.receiver for edge in graph.edges if edge.sender == name]
    return False


_SVG: Final = """\
<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">
<defs><marker id="head" markerWidth="9" markerHeight="9" refX="8" refY="4" orient="auto">\
<path d="M0 0 L9 4 L0 8 z" fill="#556"/></marker></defs>
<style>
rect {{ fill: #eef3fb; stroke: #4a6fa5; stroke-width: 1.5 }}
rect.end {{ fill: #f5f0e6; stroke: #a5884a }}
text {{ font-family: ui-monospace, Menlo, Consolas, monospace; text-anchor: middle }}
.name {{ font-size: 13px; font-weight: bold; fill: #223 }}
.kind {{ font-size: 11px; fill: #556 }}
.label {{ font-size: 11px; fill: #334; paint-order: stroke; stroke: #fff; stroke-width: 4px }}
.arrow {{ fill: none; stroke: #556; stroke-width: 1.3; marker-end: url(#head) }}
</style>
<rect width="{width}" height="{height}" style="fill: #fff; stroke: none"/>
{parts}
</svg>
"""
