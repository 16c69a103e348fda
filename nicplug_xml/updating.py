"""The update-device adapter: from how a user's ``<interface>`` is to be, to a plan; pure.

The document is the whole interface, as libvirt's own update-device wants it: what it leaves out is to go.
Excepted is what libvirt fills in by itself.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence

from nicplug_xml import backends, metadata
from nicplug_xml.document import Document, Element
from nicplug_xml.errors import SchemaError, UnsupportedError
from nicplug_xml.frozen import Frozen, replace
from nicplug_xml.model import BACKEND_CHILDREN, Backend, Connection, Interface, Scope
from nicplug_xml.obstacles import obstacles
from nicplug_xml.plan import Plan
from nicplug_xml.planner import Site, same_link
from nicplug_xml.steps import Step, UpdateDevice
from nicplug_xml.stock import as_asked, backend_of, put_children, put_link, swapped

#: What libvirt fills in: a document that leaves it out means what is there.
FILLED_IN = ("mac", "address", "alias", "target", "model", "guest")

#: What libvirt can change of the frontend while the domain runs, besides the link. It takes another
#: trustGuestRxFilters as well, but libvirt 9.0 does nothing with it and calls that success.
CHANGES_LIVE = frozenset(("coalesce",))

#: Host device names that libvirt makes up anew at each start.
_MADE_UP_TARGET = re.compile(r"(vnet|macvtap|macvlan)\d+")

_Shape = tuple[str, frozenset[tuple[str, str]], "str | tuple[_Shape, ...]"]


class Wanted(Frozen):
    """How a pluggable interface is to be, its frontend aside.

    :param connection: whether a backend is to be attached.
    :param backend: the backend to attach, or the intended one; None for none.
    :param link: the administrator's link; None where nothing is said, which is up.
    """

    connection: Connection
    backend: Backend | None
    link: str | None


def parse(xml: str) -> Element:
    """Return the ``<interface>`` that a document is.

    :raises SchemaError: it is malformed, something else, or its connection is neither deferred nor attached.
    """
    root = Document(xml).root
    if root.tag != "interface":
        raise SchemaError(
            f"an <interface> was expected, not <{root.name}>",
            hint="other devices are for 'virsh update-device'",
        )
    connection = root.attributes.get("connection", Connection.DEFERRED.value)
    if connection not in [item.value for item in Connection]:
        raise SchemaError(f"connection='{connection}' means nothing", hint="say deferred or attached")
    return as_asked(root)


def called(given: Element) -> str:
    """Return what a document calls its interface: MAC, else alias, else nothing."""
    return given.get("mac", "address") or given.get("alias", "name") or ""


def matches(given: Element, found: Sequence[Interface]) -> list[Interface]:
    """Return the interfaces that a document can mean.

    The MAC decides; alias and address do where several have it.

    :param given: the ``<interface>``.
    :param found: the domain's interfaces.
    """
    mac = metadata.mac_of(given)
    candidates = [nic for nic in found if mac in ("", nic.mac)]
    for name in ("alias", "address"):
        if len(candidates) > 1:
            candidates = [nic for nic in candidates if _fits(given, nic, name)]
    return candidates


def _fits(given: Element, nic: Interface, name: str) -> bool:
    """Whether what a document says of a child, if anything, is so of an interface, or cannot be told."""
    known = nic.element.find(name) is not None or (name == "alias" and nic.alias)
    return not known or _is_filled_in(given, nic.element, name) or _is_recorded(given, nic, name)


def as_extended(site: Site, given: Element) -> str:
    """Return the document with its connection said: as it is now, where it does not say another."""
    document = Document(given.text)
    connection = given.attributes.get("connection", site.nic.connection.value)
    document.set_attribute(document.root, "connection", connection)
    return document.edited()


def plan(site: Site, given: Element, *, announce: bool = True) -> Plan:
    """Plan to make an interface what a document says.

    :param site: the interface.
    :param given: the ``<interface>`` that it is to be.
    :param announce: whether to announce the NIC when it is plugged in.
    :raises UnsupportedError: something of it cannot change, in this state or on the NIC's plane; or
        connection is given for an interface that is not pluggable.
    :raises SchemaError: it is to be attached, and the document does not say to what.
    """
    nic = site.nic
    if is_stock(site, given):
        key, mark = (nic.key, nic.mark) if site.scope is Scope.LIVE else _identity(site, given)
        step = UpdateDevice("hand it to libvirt", given.text, nic.xml, site.scope)
        return Plan(f"update {site.name}", key, site.scope, (step,), mark=mark)
    wanted = _wanted(site, given)
    changed = list(_changed_frontend(site, given))
    _refuse_frontend(site, given, changed)
    xml = _with_frontend(site, given) if changed else nic.xml
    changes = ", ".join([*_changes(site, wanted), *changed])
    made = _plan(replace(site, nic=replace(nic, xml=xml)), wanted, announce)
    steps = made.steps
    if changed:
        steps = _frontend_steps(steps, UpdateDevice("change its frontend", xml, nic.xml, site.scope))
    return replace(made, steps=steps, summary=f"update {site.name}" + (f": {changes}" if changes else ""))


def _identity(site: Site, given: Element) -> tuple[str, str]:
    """Return the key and the mark that a definition's interface has once libvirt has made it the document."""
    alias, target = (
        "" if _is_made_up(given, name) else given.get(name, attribute) or ""
        for name, attribute in (("alias", "name"), ("target", "dev"))
    )
    return metadata.key_of(given) or site.nic.key, replace(site.nic, alias=alias, target=target).mark


def _plan(site: Site, wanted: Wanted, announce: bool) -> Plan:
    nic, link = site.nic, wanted.link
    if wanted.connection is Connection.DEFERRED:
        return site.defer(wanted.backend, link)
    if nic.connection is Connection.ATTACHED and site.is_at(wanted.backend):
        return site.set_link(link or "up")
    link = "up" if link is None and nic.link == "down" else link
    return site.attach(wanted.backend, announce=announce, link=link, whole=True)


def is_stock(site: Site, given: Element) -> bool:
    """Whether an interface that is not pluggable is to be left to libvirt."""
    return site.nic.plane is None and "connection" not in given.attributes


def _wanted(site: Site, given: Element) -> Wanted:
    backend = backend_of(given, site.plane().KEPT)
    connection = Connection(given.attributes.get("connection", site.nic.connection))
    if backend is not None:
        # The document may come from a running guest, where libvirt adds to it.
        backend = backends.intended(backend)
        site.check_backend(backend)
    if connection is Connection.ATTACHED and (backend is None or backend.type is None):
        raise SchemaError(
            f"{site.name} is to be attached, and the <interface> has no type: to what?",
            hint="name the backend, or say connection='deferred'",
        )
    return Wanted(connection, backend, given.get("link", "state"))


def _changes(site: Site, wanted: Wanted) -> Iterator[str]:
    """Yield what is to change, the frontend aside, in words."""
    if wanted.connection is not site.nic.connection:
        yield f"connection ({wanted.connection.value})"
    if not site.has(wanted.backend):
        yield f"backend ({backends.describe(wanted.backend)})"
    if not same_link(wanted.link, site.nic.link):
        yield f"link ({wanted.link or 'up'})"


def _changed_frontend(site: Site, given: Element) -> Iterator[str]:
    """Yield the names of the frontend's attributes and children in which a document differs."""
    present, kept = site.nic.element, site.plane().KEPT
    for name in sorted((present.attributes.keys() | given.attributes.keys()) - {"type", "connection"}):
        if present.attributes.get(name) != given.attributes.get(name):
            yield name
    swapped_names = BACKEND_CHILDREN - kept | {"link"}
    for name in dict.fromkeys(child.name for child in (*present, *given) if child.name not in swapped_names):
        if name in FILLED_IN:
            same = _is_filled_in(given, present, name) or _is_recorded(given, site.nic, name)
            same = same or (site.scope is Scope.CONFIG and _is_made_up(given, name))
        else:
            same = _shapes(given, name) == _shapes(present, name)
        if not same:
            yield name


def _refuse_frontend(site: Site, given: Element, changed: Collection[str]) -> None:
    present, whole = site.nic.element, f"change the whole domain: 'nicplug edit {site.domain}'"
    if site.scope is Scope.CONFIG:
        if "alias" in changed:
            raise UnsupportedError(
                f"cannot change {_text(present, 'alias')} of {site.name} to {_text(given, 'alias')}:"
                " what is recorded of it goes by its name",
                hint=whole,
            )
        for obstacle in obstacles(given, site.plane()):
            if obstacle.child in changed:
                raise UnsupportedError(f"{site.name}: {obstacle.what}", hint=obstacle.hint)
        return
    fixed = [name for name in changed if name not in CHANGES_LIVE]
    if fixed:
        texts = (f"{_text(present, name)} to {_text(given, name)}" for name in fixed)
        raise UnsupportedError(
            f"cannot change {', '.join(texts)} of {site.name} while the domain runs",
            hint=whole
            if "alias" in fixed
            else "change the persistent definition alone, for the next start (--config)",
        )


def _with_frontend(site: Site, given: Element) -> str:
    """Return the document as a stock ``<interface>``: what holds the NIC, and its link, stay as they are."""
    present, kept = site.nic.element, site.plane().KEPT
    document = Document(given.text)
    interface = document.root
    for name in ("connection", "type"):
        document.set_attribute(interface, name, present.attributes.get(name))
    for child in swapped(interface, kept):
        document.remove(child)
    filled_in = (present.find(name) for name in FILLED_IN if interface.find(name) is None)
    added = [*swapped(present, kept), *filter(None, filled_in)]
    put_children(document, interface, [child.text for child in added])
    put_link(document, interface, present.get("link", "state"))
    return document.edited()


def _frontend_steps(steps: Sequence[Step], update: UpdateDevice) -> tuple[Step, ...]:
    """Return the steps so that one of them changes the frontend, and all of them undo that."""
    if any(isinstance(step, UpdateDevice) for step in steps):
        return tuple(
            replace(step, undo_xml=update.undo_xml) if isinstance(step, UpdateDevice) else step
            for step in steps
        )
    return (update, *steps)


def _is_filled_in(given: Element, present: Element, name: str) -> bool:
    """Whether a document leaves a child out, or says of it what is so."""
    wanted, found = given.find(name), present.find(name)
    if wanted is None:
        return True
    return found is not None and _attributes(wanted) <= _attributes(found)


def _is_recorded(given: Element, nic: Interface, name: str) -> bool:
    """Whether it is the alias, which our metadata alone has where libvirt's driver knows none of a user's."""
    return name == "alias" and given.get(name, "name") == nic.alias != ""


def _is_made_up(given: Element, name: str) -> bool:
    """Whether it is one of the names that libvirt makes up at each start, and keeps out of the definition."""
    if name == "alias":
        return not (given.get(name, "name") or "").startswith(metadata.USER_ALIAS)
    return name == "target" and _MADE_UP_TARGET.fullmatch(given.get(name, "dev") or "") is not None


def _shapes(interface: Element, name: str) -> list[_Shape]:
    return [_shape(child) for child in interface if child.name == name]


def _shape(element: Element) -> _Shape:
    inside = tuple(_shape(child) for child in element) or element.words
    return element.name, _attributes(element), inside


def _attributes(element: Element) -> frozenset[tuple[str, str]]:
    """Return the attributes so that they compare: libvirt writes numbers its own way, MACs in lower case."""
    return frozenset(
        (name, _number(value.lower() if name == "address" else value))
        for name, value in element.attributes.items()
    )


def _number(value: str) -> str:
    try:
        return str(int(value, 8 if re.fullmatch("0[0-7]+", value) else 0))  # as C reads it
    except ValueError:
        return value


def _text(interface: Element, name: str) -> str:
    """Return a child or an attribute as it is written, in one line."""
    if name in interface.attributes:
        return f"{name}='{interface.attributes[name]}'"
    child = interface.find(name)
    return f"no {name}" if child is None else re.sub(r"\s+", " ", child.text)
