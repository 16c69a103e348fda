"""Pictures of a `nicplug_xml.graph.Graph`. One module each, one table."""

from __future__ import annotations

from collections.abc import Callable

from nicplug_xml.graph import Graph
from nicplug_xml.pictures import dot, mermaid, svg, text

#: What renders each format.
FORMATS: dict[str, Callable[[Graph], str]] = {
    "text": text.render,
    "svg": svg.render,
    "dot": dot.render,
    "mermaid": mermaid.render,
}

#: What the name of a file of that format ends in.
SUFFIXES = {".txt": "text", ".svg": "svg", ".dot": "dot", ".gv": "dot", ".mmd": "mermaid"}
