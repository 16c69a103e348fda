"""What no grammar says of documents: how interfaces go together, and what planes can have; pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from nicplug_xml import metadata
from nicplug_xml.backends import describe
from nicplug_xml.document import Element, decode, quoted
from nicplug_xml.errors import NicplugError, UnsupportedError
from nicplug_xml.frozen import Frozen
from nicplug_xml.model import Problem
from nicplug_xml.obstacles import obstacles
from nicplug_xml.planes import PLANES, choose
from nicplug_xml.stock import backend_of, interfaces_of, parse_domain

#: The kernel's IFNAMSIZ, without the byte that ends a name.
LONGEST_NAME = 15


class Nic(Frozen):
    """One ``<interface>`` of a document.

    :param file: the document.
    :param domain: the names of its domain: name and UUID, as far as it says.
    :param driver: which driver of libvirt's the domain is for.
    :param element: the interface.
    :param path: where it is in the document.
    """

    file: str
    domain: tuple[str, ...]
    driver: str
    element: Element
    path: str

    @property
    def names(self) -> tuple[str, ...]:
        """What it can be called by: MAC in lower case, alias."""
        return tuple(filter(None, (self.mac, self.element.get("alias", "name"))))

    @property
    def mac(self) -> str:
        """Its MAC in lower case, or an empty string."""
        return metadata.mac_of(self.element)

    def at(self, seen_from: Nic) -> str:
        """Return where it is, in words."""
        line = self.element.place()[0]
        file = "" if self.file == seen_from.file else f"{self.file}:"
        return f"{file or 'line '}{line}"

    def problem(self, code: str, message: str, hint: str, child: str = "", attribute: str = "") -> Problem:
        """Return a problem of it, of a child of it, or of an attribute of either."""
        element, path = self.element, self.path
        found = element.find(child) if child else None
        if found is not None:
            element, path = found, f"{path}/{child}"
        if attribute:
            path += f"/@{attribute}"
        return Problem(*element.place(attribute), path, message, hint, code=code)


def check(documents: Iterable[tuple[str, bytes]], plane: str | None = None) -> list[tuple[str, Problem]]:
    """Check documents together.

    :param documents: their names and their bytes. What cannot be parsed is left out: the grammar tells.
    :param plane: the plane that is to hold the pluggable interfaces, or ``auto``; None asks nothing of it.
    :returns: what is wrong, with the name of the document that it is wrong in.
    :raises UnsupportedError: there is no such plane.
    """
    nics = [nic for name, data in documents for nic in _nics(name, data)]
    problems = [*_same_macs(nics), *_cables(nics)]
    for nic in nics:
        problems += ((nic, problem) for problem in (*_long_names(nic), *_kinds(nic, plane)))
    return [(nic.file, problem) for nic, problem in problems]


def _nics(name: str, data: bytes) -> Iterator[Nic]:
    try:
        root = parse_domain(decode(data)[0]).root
    except NicplugError:
        return
    if root.tag in ("interface", "backend"):
        yield Nic(name, (), "", root, f"/{root.tag}")
    if root.tag != "domain":
        return
    driver = "lxc" if root.attributes.get("type") == "lxc" else "qemu"
    domain = tuple(filter(None, (root.words_of("name"), root.words_of("uuid"))))
    elements = list(interfaces_of(root))
    for number, element in enumerate(elements, 1):
        which = f"[{number}]" if len(elements) > 1 else ""
        yield Nic(name, domain, driver, element, f"/domain/devices/interface{which}")


def _same_macs(nics: Sequence[Nic]) -> Iterator[tuple[Nic, Problem]]:
    holders: dict[str, list[Nic]] = {}
    for nic in nics:
        # An <interface> document may be a state of a NIC that its domain's document has as well.
        if not nic.mac or not nic.domain:
            continue
        others = holders.setdefault(nic.mac, [])
        other = next((other for other in others if not _may_share(nic, other)), None)
        others.append(nic)
        if other is not None:
            message = f"MAC {nic.mac} is also that of {other.domain[0]} ({other.at(nic)})"
            hint = "give each NIC a MAC of its own, or leave <mac> out to have one made"
            yield nic, nic.problem("duplicate-mac", message, hint, "mac", "address")


def _may_share(nic: Nic, other: Nic) -> bool:
    """Whether two NICs may have one MAC: those of a team, or of two files that are states of one domain."""
    if nic.file == other.file:
        return _is_teamed(nic) and _is_teamed(other)
    return nic.domain[0] == other.domain[0]


def _is_teamed(nic: Nic) -> bool:
    return nic.element.find("teaming") is not None


def _cables(nics: Sequence[Nic]) -> Iterator[tuple[Nic, Problem]]:
    of_domain: dict[str, list[Nic]] = {}
    for nic in nics:
        for name in nic.domain:
            of_domain.setdefault(name, []).append(nic)
    for nic in nics:
        source = _cable(nic)
        if source is None or not nic.domain:
            continue
        domain, interface = source
        there = of_domain.get(domain, [])
        if there and domain != there[0].domain[0]:
            message = f"a cable leads to a domain by its name, and {domain} is a UUID"
            hint = f"say domain={quoted(there[0].domain[0])}"
            yield nic, nic.problem("cable-end", message, hint, "source", "domain")
            continue
        # A domain may be in several files, its states; the one in the same file counts.
        there = [other for other in there if other.file == nic.file] or there
        ends = [other for other in there if interface in other.names or interface.lower() == other.mac]
        wrong = "" if ends or not there else f"{domain} ({there[0].file}) has no interface {interface}"
        if nic in ends:
            wrong = "it is its own other end"
        elif ends and not any(_leads_to(end, nic) for end in ends):
            wrong = f"{domain}/{interface} ({ends[0].at(nic)}) {_leads(ends[0])}"
        if wrong:
            end = f"domain={quoted(nic.domain[0])} interface={quoted(_name(nic))}"
            hint = f"have the other end say <source {end}/>"
            message = f"the cable to {domain}/{interface} does not come back: {wrong}"
            yield nic, nic.problem("cable-end", message, hint, "source", "interface")


def _cable(nic: Nic) -> tuple[str, str] | None:
    if nic.element.attributes.get("type") != "cable":
        return None
    domain, interface = nic.element.get("source", "domain"), nic.element.get("source", "interface")
    return (domain, interface) if domain and interface else None


def _leads_to(end: Nic, nic: Nic) -> bool:
    """Whether the other end of a cable has room for it, or is it."""
    if end.element.attributes.get("type") is None:
        return True
    source = _cable(end)
    return source is not None and source[0] in nic.domain and source[1].lower() in map(str.lower, nic.names)


def _leads(end: Nic) -> str:
    backend = backend_of(end.element)
    if "connection" not in end.element.attributes:
        return "is not pluggable"
    return f"is for {describe(backend)}"


def _name(nic: Nic) -> str:
    alias = nic.element.get("alias", "name") or ""
    return alias if alias.startswith(metadata.USER_ALIAS) else nic.mac or "MAC"


def _long_names(nic: Nic) -> Iterator[Problem]:
    target = nic.element.get("target", "dev") or ""
    length = len(target.encode())
    if length > LONGEST_NAME:
        message = (
            f"target '{target}' has {length} bytes, and the kernel's device names have {LONGEST_NAME} at most"
        )
        hint = "shorten it, or leave <target> out to have one made"
        yield nic.problem("target-length", message, hint, "target", "dev")


def _kinds(nic: Nic, name: str | None) -> Iterator[Problem]:
    if name is None:
        return
    kind = nic.element.attributes.get("type")
    pluggable = nic.element.tag == "backend" or "connection" in nic.element.attributes
    try:
        plane = choose(name, kind, nic.driver or getattr(PLANES.get(name), "DRIVER", "qemu"))
    except UnsupportedError as error:
        if name not in PLANES:
            raise
        if pluggable:
            yield nic.problem("plane-kind", error.what, error.hint)
        return
    for obstacle in obstacles(nic.element, plane) if pluggable else ():
        yield nic.problem("plane-kind", obstacle.what, obstacle.hint, obstacle.child, obstacle.attribute)
