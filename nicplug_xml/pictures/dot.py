"""The picture for Graphviz, in its language DOT."""

from __future__ import annotations

from nicplug_xml.graph import Graph, Nic

#: Shapes of places, by their kinds.
_SHAPES = {"bridge": "box3d", "network": "ellipse", "ovs": "component"}


def render(graph: Graph) -> str:
    """Return the picture."""
    lines = ["graph nicplug {", "  rankdir=LR; ranksep=1.5; nodesep=0.15;", '  node [fontname="monospace"];']
    lines.append('  edge [fontname="monospace", fontsize=10];')
    for number, guest in enumerate(graph.guests):
        state = "" if guest.running else " (shut off)"
        lines.append(f"  subgraph cluster_{number} {{")
        style = "rounded" if guest.running else '"rounded,dashed"'
        lines.append(f"    label={_quoted(guest.name + state)}; style={style};")
        if not guest.nics:
            lines.append(f"    none_{number} [style=invis];")
        lines += [f"    {_node(nic)};" for nic in guest.nics]
        lines.append("  }")
    for place in graph.places:
        note = f"\n({place.note})" if place.note else ""
        label = _quoted(f"{place.kind}\n{place.name}{note}")
        lines.append(
            f"  {_id(place.kind, place.name)} [shape={_SHAPES.get(place.kind, 'box')}, label={label}];"
        )
    for guest in graph.guests:
        lines += [f"  {edge}" for nic in guest.nics for edge in _edges(nic)]
    for one, other in graph.cables:
        style = _style(one, other)
        label = " ".join(filter(None, ("cable", one.state or other.state)))
        style += f", penwidth=2, constraint=false, label={_quoted(label)}"
        lines.append(f"  {_nic_id(one)} -- {_nic_id(other)} [{style}];")
    return "\n".join([*lines, "}"])


def _node(nic: Nic) -> str:
    lamp = {True: "●", False: "○", None: "-"}[nic.carrier]
    lines = filter(None, (f"{lamp} {nic.name}", nic.mac if nic.mac != nic.name else "", nic.state))
    style = "filled" if nic.carrier else ("solid" if nic.attached else "dashed")
    fill = ', fillcolor="#e2f0e2"' if nic.carrier else ""
    return f"{_nic_id(nic)} [shape=box, style={style}{fill}, label={_quoted(chr(10).join(lines))}]"


def _edges(nic: Nic) -> list[str]:
    if nic.place is None:
        return []
    label = ", ".join(filter(None, (nic.detail, nic.state if nic.attached else "intended")))
    attributes = f"[{_style(nic)}" + (f", label={_quoted(label)}]" if label else "]")
    if nic.place.kind:
        return [f"{_nic_id(nic)} -- {_id(nic.place.kind, nic.place.name)} {attributes};"]
    own = _id("own", nic.guest, nic.mac, nic.name)
    return [
        f"{own} [shape=plaintext, label={_quoted(nic.place.name)}];",
        f"{_nic_id(nic)} -- {own} {attributes};",
    ]


def _style(*nics: Nic) -> str:
    if not all(nic.attached for nic in nics):
        return "style=dotted"
    return "style=dashed" if any(nic.link == "down" for nic in nics) else "style=solid"


def _nic_id(nic: Nic) -> str:
    return _id("nic", nic.guest, nic.mac, nic.name)


def _id(*parts: str) -> str:
    return _quoted(" ".join(parts))


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
