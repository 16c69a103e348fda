"""The picture for Mermaid, as it is drawn where Markdown is shown."""

from __future__ import annotations

from nicplug_xml.graph import Graph, Nic, Place

#: What surrounds the label of a place, by its kind: each has a shape of its own.
_SHAPES = {"bridge": ("[[", "]]"), "network": ("([", "])"), "ovs": ("{{", "}}"), "direct": (">", "]")}


def render(graph: Graph) -> str:
    """Return the picture."""
    nics = {
        (nic.guest, nic.mac, nic.name): f"nic{number}"
        for number, nic in enumerate(nic for guest in graph.guests for nic in guest.nics)
    }
    places = {place: f"place{number}" for number, place in enumerate(graph.places)}
    lines = ["graph LR"]
    for number, guest in enumerate(graph.guests):
        state = "" if guest.running else " (shut off)"
        lines.append(f"  subgraph guest{number}[{_quoted(guest.name + state)}]")
        lines += [f"    {nics[_key(nic)]}[{_quoted(_label(nic))}]" for nic in guest.nics]
        if not guest.nics:
            lines.append(f"    none{number}[{_quoted('no NIC')}]")
        lines.append("  end")
    for place, name in places.items():
        start, end = _SHAPES.get(place.kind, ("[", "]"))
        note = f"<br>({place.note})" if place.note else ""
        lines.append(f"  {name}{start}{_quoted(f'{place.kind}<br>{place.name}{note}')}{end}")
    for guest in graph.guests:
        for nic in guest.nics:
            if nic.place is None:
                continue
            line, label = _line(nic)
            lines.append(f"  {nics[_key(nic)]} {line}{label} {_end(nic.place, places, nics[_key(nic)])}")
    for one, other in graph.cables:
        state = one.state or other.state
        line = "-.-" if state == "link down" else "==="
        label = _quoted(f"cable, {state}" if state else "cable")
        lines.append(f"  {nics[_key(one)]} {line}|{label}| {nics[_key(other)]}")
    return "\n".join(lines)


def _key(nic: Nic) -> tuple[str, str, str]:
    return nic.guest, nic.mac, nic.name


def _label(nic: Nic) -> str:
    lamp = {True: "●", False: "○", None: "-"}[nic.carrier]
    return "<br>".join(
        filter(None, (f"{lamp} {nic.name}", nic.mac if nic.mac != nic.name else "", nic.state))
    )


def _line(nic: Nic) -> tuple[str, str]:
    said = ", ".join(filter(None, (nic.detail, nic.state if nic.attached else "intended")))
    line = "-.-" if not nic.attached or nic.link == "down" else "---"
    return line, f"|{_quoted(said)}|" if said else ""


def _end(place: Place, places: dict[Place, str], nic: str) -> str:
    return places[place] if place.kind else f"own{nic}[{_quoted(place.name)}]"


def _quoted(text: str) -> str:
    """Return a label; Mermaid knows entities by ``#``, and takes what ``<br>`` stands for as it is."""
    escaped = text.replace("#", "#35;").replace('"', "#quot;").replace("<", "#lt;").replace(">", "#gt;")
    return '"' + escaped.replace("#lt;br#gt;", "<br>") + '"'
