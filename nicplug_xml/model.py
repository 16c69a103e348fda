"""The words of nicplug as data: frozen, and without I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from functools import cached_property

from nicplug_xml.document import Document, Element, quoted
from nicplug_xml.errors import NotFoundError, SchemaError
from nicplug_xml.frozen import Frozen, replace

#: Children of ``<interface>`` that are the backend's half; all others are the frontend's.
BACKEND_CHILDREN = frozenset(
    (
        "source",
        "virtualport",
        "vlan",
        "bandwidth",
        "filterref",
        "port",
        "portForward",
        "ip",
        "route",
        "backend",
    )
)

#: Interface types on which the guest's device is the backend itself, so that nothing can be plugged.
NEVER_PLUGGABLE = ("hostdev", "vdpa", "vhostuser")

#: NIC models whose guest goes on seeing a carrier that is gone: QEMU sends e1000e's link interrupt only once.
UNTRUTHFUL_MODELS = frozenset(("e1000e",))


class _Word(str, Enum):
    """A word out of a few; it is a string, and its repr is what one writes for it."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}.{self.name}"


class Connection(_Word):
    """Whether a backend is attached to an interface: ``deferred`` (not yet, or no longer) or ``attached``."""

    DEFERRED = "deferred"
    ATTACHED = "attached"


class Scope(_Word):
    """Which of a domain's two states: libvirt's VIR_DOMAIN_AFFECT_LIVE or VIR_DOMAIN_AFFECT_CONFIG."""

    LIVE = "live"
    CONFIG = "config"


class Backend(Frozen):
    """The host's half of an interface.

    Two are equal that say the same, however it is written: libvirt has other quotes in metadata.

    :param type: as in ``<interface type=…>``; None where only children are known, as for a deferred
        interface that names a bandwidth and no place.
    :param children: the child elements, each as XML text.
    """

    type: str | None
    children: tuple[str, ...] = ()

    @classmethod
    def of(cls, source: str | Backend | object) -> Backend:
        """Make a backend of what a caller may hand in.

        :param source: a `Backend`, a ``<backend type='…'>`` document, or such an lxml element.
        :raises SchemaError: it is not well-formed, or not a ``<backend>`` with a type.
        """
        if isinstance(source, Backend):
            return source
        if not isinstance(source, str):
            from lxml import etree

            source = str(etree.tostring(source, encoding="unicode", with_tail=False))
        root = Document(source).root
        if root.tag != "backend":
            raise SchemaError(
                f"a backend was expected, not <{root.name}>",
                hint="write <backend type='bridge'><source bridge='br0'/></backend>",
            )
        if not root.attributes.get("type"):
            raise SchemaError("<backend> has no type", hint="say type='bridge' or another of docs/format.md")
        unknown = [child.name for child in root if child.name not in BACKEND_CHILDREN]
        if unknown:
            raise SchemaError(
                f"<{unknown[0]}> is no part of a backend",
                hint=f"a backend has {', '.join(sorted(BACKEND_CHILDREN))}",
            )
        return cls(root.attributes["type"], tuple(child.text for child in root))

    @cached_property
    def element(self) -> Element:
        """The parsed ``<backend>`` document."""
        return Document(self.to_xml()).root

    @property
    def source(self) -> Mapping[str, str]:
        """The attributes of ``<source>``; empty without one."""
        child = self.child("source")
        return {} if child is None else child.attributes

    def child(self, name: str) -> Element | None:
        """Return the parsed child element of that name, or None."""
        return self.element.find(name)

    def with_policy_of(self, other: Backend) -> Backend:
        """Return this backend with those of `other`'s bandwidth, filter, port and VLAN that it does not name.

        They are rules for the guest rather than a place to be plugged into, so a move keeps them. A VLAN
        belongs to the kind of switch as well: it stays only where the virtualport type does.
        """
        named = {child.name for child in self.element}
        kept = {"bandwidth", "filterref", "port"}
        if _virtualport(self) == _virtualport(other):
            kept.add("vlan")
        rest = [child.text for child in other.element if child.name in kept - named]
        return replace(self, children=(*self.children, *rest)) if rest else self

    def with_vlan(self, tags: Sequence[int]) -> Backend:
        """Return this backend with those VLAN tags instead of its own; more than one make a trunk."""
        trunk = " trunk='yes'" if len(tags) > 1 else ""
        vlan = f"<vlan{trunk}>{''.join(f'<tag id={quoted(str(tag))}/>' for tag in tags)}</vlan>"
        rest = (child.text for child in self.element if child.name != "vlan")
        return replace(self, children=(*rest, vlan))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Backend):
            return NotImplemented
        same = (self.type, self.children) == (other.type, other.children)
        return same or (self.is_within(other) and other.is_within(self))

    def __hash__(self) -> int:
        return hash(self.type)

    def is_within(self, present: Backend) -> bool:
        """Whether everything that this backend names is so in `present`, which libvirt may have added to."""
        return self.type == present.type and within(self.element, present.element)

    def to_xml(self) -> str:
        """Return the ``<backend>`` document."""
        kind = f" type={quoted(self.type)}" if self.type else ""
        return f"<backend{kind}>{''.join(self.children)}</backend>"


class Interface(Frozen):
    """One interface of a domain, read from stock XML and our metadata.

    :param xml: the ``<interface>`` element as libvirt has it.
    :param mac: MAC address in lower case, or an empty string where the XML has none.
    :param alias: device alias, or an empty string.
    :param key: what our metadata names it by: its user alias where it has one, else its MAC.
    :param target: host device name, or an empty string.
    :param model: guest device model, or an empty string.
    :param plane: the plane that holds it; None for a stock interface.
    :param connection: whether a backend is attached.
    :param backend: the backend that is attached, or the intended one; None where there is none.
    :param link: the administrator's wish for the carrier, ``up`` or ``down``; None where nothing was said.
    :param carrier: whether the guest sees a carrier when the domain runs.
    :param shown: whether the stock XML itself tells of the backend that is attached.
    """

    xml: str
    mac: str
    alias: str
    key: str
    target: str
    model: str
    plane: str | None
    connection: Connection
    backend: Backend | None
    link: str | None
    carrier: bool
    shown: bool = True

    def __repr__(self) -> str:
        names = " = ".join(dict.fromkeys(filter(None, (self.target, self.alias, self.mac))))
        return f"<Interface {names}: {self.connection.value}, {self.backend!r}>"

    @cached_property
    def element(self) -> Element:
        """The parsed ``<interface>``."""
        return Document(self.xml).root

    @property
    def name(self) -> str:
        """What to call it: its target device, else its alias, else its MAC."""
        return self.target or self.alias or self.mac

    @property
    def mark(self) -> str:
        """What tells it from others with its MAC: its alias, else its target device, else its address."""
        if self.alias or self.target:
            return self.alias or self.target
        address = self.element.find("address")
        return "" if address is None else address.text


def identified(found: Sequence[Interface], key: str, mark: str) -> Interface | None:
    """Return the interface of that `Interface.key`, or None; of several the one of that `Interface.mark`."""
    candidates = [nic for nic in found if nic.key == key]
    marked = (nic for nic in candidates if len(candidates) == 1 or nic.mark == mark)
    return next(marked, candidates[0] if candidates else None)


def the_one(domain: str, name: str, matches: Sequence[Interface], found: Sequence[Interface]) -> Interface:
    """Return the one interface that a name matches.

    :param domain: the domain's name.
    :param name: what the interface was called.
    :param matches: those that it matches.
    :param found: all that the domain has.
    :raises NotFoundError: it matches none or several; the error lists what there is to choose from.
    """
    if len(matches) == 1:
        return matches[0]
    listed = ", ".join(" = ".join(filter(None, (nic.target, nic.alias, nic.mac))) for nic in matches or found)
    if matches:
        raise NotFoundError(
            f"'{name}' names {len(matches)} interfaces of domain '{domain}': {listed}",
            hint="use a name that only one of them has",
        )
    raise NotFoundError(
        f"domain '{domain}' has no interface '{name}'",
        hint=f"it has {listed}" if listed else "it has none",
    )


class InterfaceStatus(Frozen):
    """What is true of one interface now; a row of ``nicplug list``.

    :param domain: the domain's name.
    :param interface: target device, alias or MAC, the first that it has.
    :param mac: MAC address in lower case.
    :param alias: device alias, or an empty string.
    :param target: host device name, or an empty string.
    :param model: guest device model, or an empty string.
    :param plane: the plane that holds it; None for a stock interface.
    :param connection: whether a backend is attached.
    :param backend: the attached or the intended backend, or None.
    :param link: the administrator's wish, ``up`` or ``down``.
    :param carrier: whether the guest sees a carrier; None while the domain does not run.
    :param changed: whether the operation that returned this changed anything.
    """

    domain: str
    interface: str
    mac: str
    alias: str
    target: str
    model: str
    plane: str | None
    connection: Connection
    backend: Backend | None
    link: str
    carrier: bool | None
    changed: bool = False


class Problem(Frozen):
    """One thing that is wrong with a document.

    :param line: line in the source, from 1.
    :param column: column in the source, from 1; 0 when only the line is known.
    :param path: where in the document, as ``/domain/devices/interface[2]``.
    :param message: what is wrong, in one sentence.
    :param hint: what was probably meant, or what to do; or an empty string.
    :param allowed: what is allowed in that place: elements, attributes, values; empty where nothing is, or
        where it is not about that.
    :param code: what kind of problem it is, as docs/validate.md lists them.
    """

    line: int
    column: int
    path: str
    message: str
    hint: str = ""
    allowed: tuple[str, ...] = ()
    code: str = "schema"

    def __str__(self) -> str:
        place = f"{self.line}:{self.column}" if self.column else f"{self.line}"
        hint = f" ({self.hint})" if self.hint else ""
        return f"{place}: {self.path}: {self.message}{hint}"


def _virtualport(backend: Backend) -> str | None:
    child = backend.child("virtualport")
    return None if child is None else child.attributes.get("type", "")


def within(wanted: Element, present: Element) -> bool:
    """Whether all attributes and children of an element are in another one, whatever more that has.

    A child that says nothing, as ``<bandwidth/>``, need not be there: libvirt drops it.
    """
    if not wanted.attributes.items() <= present.attributes.items():
        return False
    return all(
        not (child.attributes or child.children or child.words)
        or any(child.name == other.name and within(child, other) for other in present)
        for child in wanted
    )
