"""The picture as SVG: without scripts, fonts or anything else from elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from xml.sax.saxutils import escape, quoteattr

from nicplug_xml.graph import Graph, Nic, Place
from nicplug_xml.pictures.layout import (
    CHARACTER,
    HEAD,
    MARGIN,
    PADDING,
    PLATE,
    ROW,
    Box,
    Bus,
    Lane,
    Layout,
    Port,
    kind_line,
    lay_out,
    plate_width,
    title,
)

#: Told apart with every kind of colour vision; names and dots say the same.
_COLOURS = ("#0072b2", "#d55e00", "#008060", "#b0508f", "#3d4f9f", "#8a6d00", "#5b2a86", "#8c3b2e", "#2f7f8f")
_INK = "#222"
_GREY = "#777"

_STYLE = """
text { font: 11px 'DejaVu Sans Mono', Menlo, Consolas, monospace; fill: #222; }
.name { font-weight: bold; }
.small { fill: #666; }
.state { fill: #a00; font-weight: bold; }
.wire, .halo, .intended { fill: none; }
.halo { stroke-width: 6; }
.wire { stroke-width: 2; }
.intended { stroke-width: 1.2; stroke-dasharray: 2 4; }
.cut { stroke-width: 2.2; }
"""

#: From the port to where a wire is cut.
_CUT = 16

_LEGEND = (
    ("plugged in, carrier", Nic("", "", "", True, "up", True, Place("", ""))),
    ("plugged in, no carrier", Nic("", "", "", True, "up", False, Place("", ""))),
    ("plugged in, link down", Nic("", "", "", True, "down", False, Place("", ""))),
    ("unplugged, and for where", Nic("", "", "", False, "up", False, Place("", ""))),
    ("unplugged", Nic("", "", "", False, "up", False, None)),
    ("plugged in, guest shut off", Nic("", "", "", True, "up", None, Place("", ""))),
)
_LEGEND_WIDTH = 248


def render(graph: Graph) -> str:
    """Return the picture."""
    layout = lay_out(graph)
    buses = {bus.place: bus for bus in layout.buses}
    columns = max(1, int((max(layout.width, 560) - 2 * MARGIN) // _LEGEND_WIDTH))
    width = max(layout.width, 2 * MARGIN + min(columns, len(_LEGEND) + 1) * _LEGEND_WIDTH)
    height = layout.height + ROW * -(-(len(_LEGEND) + 1) // columns) + MARGIN / 2
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}"'
            f' viewBox="0 0 {width:.0f} {height:.0f}" role="img">',
            "<title>Who is plugged into what</title>",
            f"<style>{_STYLE}</style>",
            f'<rect width="{width:.0f}" height="{height:.0f}" fill="#fff"/>',
            *(_bus(bus) for bus in layout.buses),
            *_wires(layout, buses),
            *(_plate(bus, y) for bus in layout.buses for y in bus.plates),
            *(line for box in layout.boxes for line in _box(box)),
            *_legend(layout.height, columns),
            "</svg>",
        ]
    )


def colour(bus: Bus) -> str:
    """Return the colour of a bus and of the wires that end there."""
    return _COLOURS[bus.number % len(_COLOURS)]


def _bus(bus: Bus) -> str:
    return (
        f'<line x1="{bus.x:.1f}" y1="{bus.top:.1f}" x2="{bus.x:.1f}" y2="{bus.bottom:.1f}"'
        f' stroke="{colour(bus)}" stroke-width="5" stroke-linecap="round"/>'
    )


def _plate(bus: Bus, y: float) -> str:
    width = plate_width(bus.place)
    left, top = bus.x - width / 2, y - PLATE / 2
    return (
        f'<g><rect x="{left:.1f}" y="{top:.1f}" width="{width:.1f}" height="{PLATE}" rx="5" fill="#fff"'
        f' stroke="{colour(bus)}" stroke-width="2"/>'
        + _text(bus.x, y - 4, kind_line(bus.place), "small", "middle")
        + _text(bus.x, y + 10, bus.place.name, "name", "middle")
        + "</g>"
    )


def _wires(layout: Layout, buses: dict[Place, Bus]) -> Iterator[str]:
    lanes = {id(port.nic): lane for lane in layout.lanes for port in (lane.one, lane.other)}
    for lane in layout.lanes:
        yield from _cable(lane)
    for box in layout.boxes:
        for port in box.ports:
            if id(port.nic) in lanes:
                continue
            bus = buses.get(port.nic.place) if port.nic.place else None
            end = bus.x if bus else port.x + port.way * 44
            yield from _wire(port, end, colour(bus) if bus else _INK, bus is not None)


def _wire(port: Port, end: float, stroke: str, dot: bool) -> Iterator[str]:
    nic, x, y = port.nic, port.x, port.y
    if not nic.attached:
        # The plug hangs in the air, and a ring shows where it belongs.
        hanging = x + port.way * _CUT
        yield _line("wire", x, y, hanging, y, _GREY)
        yield _ring(hanging, y, 3.5, _GREY)
        if nic.place is None:
            return
        yield _line("intended", hanging + port.way * 6, y, end, y, _GREY)
        if dot:
            yield _ring(end, y, 5, stroke)
    else:
        yield _line("halo", x, y, end, y, "#fff") + _line("wire", x, y, end, y, stroke)
        yield from _cut(port)
        if dot:
            yield f'<circle cx="{end:.1f}" cy="{y:.1f}" r="5.5" fill="{stroke}"/>'
    if port.own:
        yield _text(end + port.way * 5, y + 4, port.own, "small", "start" if port.way > 0 else "end")


def _cable(lane: Lane) -> Iterator[str]:
    one, other, x = lane.one, lane.other, lane.x
    path = f"M{one.x:.1f} {one.y:.1f} H{x:.1f} V{other.y:.1f} H{other.x:.1f}"
    yield (
        f'<path class="halo" d="{path}" stroke="#fff"/>'
        f'<path d="{path}" fill="none" stroke="{_INK}" stroke-width="3.5" stroke-linejoin="round"/>'
        f'<path d="{path}" fill="none" stroke="#fff" stroke-width="1.2" stroke-linejoin="round"/>'
    )
    yield from _cut(one)
    yield from _cut(other)


def _cut(port: Port) -> Iterator[str]:
    """Cut the wire of a NIC whose link is down."""
    if port.nic.link != "down":
        return
    x, y = port.x + port.way * _CUT, port.y
    yield f'<rect x="{x - 6:.1f}" y="{y - 5:.1f}" width="12" height="10" fill="#fff"/>'
    for sign in (-1, 1):
        yield _line("cut", x - 5, y - 5 * sign, x + 5, y + 5 * sign, "#a00")


def _box(box: Box) -> Iterator[str]:
    guest = box.guest
    dashes = "" if guest.running else ' stroke-dasharray="5 4"'
    yield (
        f'<rect x="{box.x:.1f}" y="{box.y:.1f}" width="{box.width:.1f}" height="{box.height:.1f}" rx="7"'
        f' fill="{"#f4f6f9" if guest.running else "#fff"}" stroke="#556" stroke-width="1.4"{dashes}/>'
    )
    yield _text(box.x + 12, box.y + 18, guest.name, "name")
    if not guest.running:
        yield _text(box.x + box.width - 12, box.y + 18, "shut off", "small", "end")
    yield _line("thin", box.x, box.y + HEAD, box.x + box.width, box.y + HEAD, "#ccd")
    if not guest.nics:
        yield _text(box.x + 12, box.y + HEAD + PADDING + ROW - 6, "no NIC", "small")
    names = max((len(nic.name) for nic in guest.nics), default=0)
    for port in box.ports:
        yield from _nic(box, port, names)


def _nic(box: Box, port: Port, names: int) -> Iterator[str]:
    nic, y = port.nic, port.y + 4
    yield f"<g><title>{escape(_tooltip(nic))}</title>"
    yield _lamp(box.x + 16, port.y, nic.carrier)
    yield _text(box.x + 28, y, nic.name)
    if nic.mac != nic.name:
        yield _text(box.x + 28 + (names + 2) * CHARACTER, y, nic.mac, "small")
    x = box.x + 28 + (names + 4 + len(nic.mac)) * CHARACTER
    if nic.detail:
        yield _text(x, y, nic.detail, "small")
        x += (len(nic.detail) + 2) * CHARACTER
    if nic.state:
        yield _text(x, y, nic.state, "state" if nic.attached or nic.carrier else "small")
    yield _port(port) + "</g>"


def _port(port: Port) -> str:
    fill = _INK if port.nic.attached else "#fff"
    return (
        f'<rect x="{port.x - 4:.1f}" y="{port.y - 5:.1f}" width="8" height="10" fill="{fill}"'
        f' stroke="{_INK}" stroke-width="1.4"/>'
    )


def _lamp(x: float, y: float, carrier: bool | None) -> str:
    """Draw a lamp: a full circle when the guest sees a carrier, a ring when not, a dash when it is off."""
    if carrier is None:
        return _line("wire", x - 4, y, x + 4, y, _GREY)
    if not carrier:
        return _ring(x, y, 4, _GREY)
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="#1a8f3c" stroke="#0d5c25"/>'


def _ring(x: float, y: float, radius: float, stroke: str) -> str:
    return (
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" fill="#fff" stroke="{stroke}" stroke-width="1.8"/>'
    )


def _legend(y: float, columns: int) -> Iterator[str]:
    for number, (said, nic) in enumerate(_LEGEND):
        x, row = MARGIN + (number % columns) * _LEGEND_WIDTH, y + (number // columns) * ROW
        port = Port(nic, x + 26, row, 1, "")
        yield "<g>" + _lamp(x + 8, row, nic.carrier)
        yield from _wire(port, x + 62, _INK, nic.place is not None)
        yield _port(port) + _text(x + 74, row + 4, said, "small") + "</g>"
    number = len(_LEGEND)
    x, row = MARGIN + (number % columns) * _LEGEND_WIDTH, y + (number // columns) * ROW
    line = f'x1="{x + 26:.1f}" y1="{row:.1f}" x2="{x + 62:.1f}" y2="{row:.1f}"'
    yield f'<line {line} stroke="{_INK}" stroke-width="3.5"/><line {line} stroke="#fff" stroke-width="1.2"/>'
    yield _text(x + 74, row + 4, "cable", "small")


def _tooltip(nic: Nic) -> str:
    where = title(nic.place) if nic.place else ""
    plug = "plugged in" if nic.attached else "unplugged"
    carrier = {True: "carrier up", False: "carrier down", None: "shut off"}[nic.carrier]
    return ", ".join(
        filter(None, (f"{nic.guest} {nic.name} {nic.mac}", plug, where, f"link {nic.link}", carrier))
    )


def _line(kind: str, x1: float, y1: float, x2: float, y2: float, stroke: str) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{stroke}"/>'


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    kind = f" class={quoteattr(kind)}" if kind else ""
    place = "" if anchor == "start" else f' text-anchor="{anchor}"'
    return f'<text x="{x:.1f}" y="{y:.1f}"{kind}{place}>{escape(text)}</text>'
