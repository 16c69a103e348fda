"""The operations: read what is true, plan what is wanted, carry it out, and say what is true then."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, nullcontext, suppress
from functools import lru_cache, partial
from typing import TYPE_CHECKING

from nicplug_xml import backends
from nicplug_xml.backends import fd
from nicplug_xml.endpoints import Descriptor
from nicplug_xml.errors import NicplugError, NotFoundError, OperationError, SchemaError, UnsupportedError
from nicplug_xml.facts import NOT_ASKED
from nicplug_xml.frozen import replace
from nicplug_xml.host.connection import (
    default_plane,
    ensure_parking,
    find_beside,
    network_xml,
    offered_planes,
    parking_kind,
)
from nicplug_xml.host.domain import Domain, recorded_planes, replaced_by
from nicplug_xml.host.errors import translated
from nicplug_xml.host.locking import locked
from nicplug_xml.model import (
    NEVER_PLUGGABLE,
    Backend,
    Connection,
    Interface,
    InterfaceStatus,
    Scope,
    identified,
    the_one,
)
from nicplug_xml.plan import Observer, Plan, carry_out, is_final
from nicplug_xml.planes import hub, native, netdevs, swap, tap, veth
from nicplug_xml.planes.joining import JOINED
from nicplug_xml.planner import Site
from nicplug_xml.stock import backend_of, interfaces_of, parse_domain
from nicplug_xml.surroundings import Surroundings
from nicplug_xml.view import View, view

if TYPE_CHECKING:
    import libvirt


_XML_SECURE = 1  # libvirt's VIR_DOMAIN_XML_SECURE
_XML_INACTIVE = 2  # libvirt's VIR_DOMAIN_XML_INACTIVE

#: Seconds that who only looks waits for an operation to be over.
_PATIENCE = 5


def define(
    conn: libvirt.virConnect, xml: str, *, plane: str = "auto", check: bool = True
) -> libvirt.virDomain:
    """Define a persistent domain from extended XML.

    In the place of virDomainDefineXML
    (https://libvirt.org/html/libvirt-libvirt-domain.html#virDomainDefineXML).

    :param conn: the connection, libvirt-python's own object.
    :param xml: extended (or stock) domain XML.
    :param plane: the plane to hold the pluggable interfaces, or ``auto``.
    :param check: whether to hold the XML against the schema; libvirt by itself drops what it does not know.
    :returns: the domain; plain ``virsh start`` boots it with its deferred interfaces unplugged.
    :raises SchemaError: the XML is not valid; nothing was defined.
    :raises NicplugError: libvirt refuses, or the parking place cannot be made; nothing was defined.
    """
    return _make(conn, xml, plane, conn.defineXML, check)


def create(
    conn: libvirt.virConnect, xml: str, *, plane: str = "auto", check: bool = True
) -> libvirt.virDomain:
    """Start a transient domain from extended XML.

    In the place of virDomainCreateXML
    (https://libvirt.org/html/libvirt-libvirt-domain.html#virDomainCreateXML). Attached interfaces that
    libvirt does not plug in by itself are plugged in once the domain runs.

    :param conn: the connection, libvirt-python's own object.
    :param xml: extended (or stock) domain XML.
    :param plane: the plane to hold the pluggable interfaces, or ``auto``.
    :param check: as for `define`.
    :returns: the running domain.
    :raises SchemaError: the XML is not valid; nothing was started.
    :raises NicplugError: libvirt refuses, or an interface could not be plugged in; no domain runs,
        unless the connection is lost meanwhile.
    """
    dom = _make(conn, xml, plane, lambda stock: conn.createXML(stock, 0), check)
    try:
        now = Domain(dom).read(Scope.LIVE)
        attached = {entry.key for entry in now.entries if entry.attached}
        # Those to unplug come first: a cable of one that is plugged in may lead to them.
        for nic in sorted(now.interfaces, key=lambda nic: nic.key in attached):
            if nic.key in attached:
                attach_backend(dom, nic.name)
            elif nic.plane == veth.NAME:
                # libvirt gives every container a carrier at first.
                detach_backend(dom, nic.name)
    except BaseException as error:
        if _end(dom) and isinstance(error, NicplugError):
            # It tells of the NIC as it was before that.
            what = f"domain '{dom.name()}' was ended again: {error.what}"
            raise type(error)(what, hint=error.hint) from error
        raise
    return dom


def _end(dom: libvirt.virDomain) -> bool:
    """End a transient domain, if it runs, and return whether it has ended; why is what its caller tells."""
    try:
        with translated():
            dom.destroy()
    except NotFoundError:
        pass
    except NicplugError as error:
        warnings.warn(f"domain '{dom.name()}' may still run: {error}", stacklevel=3)
        return False
    return True


def xml_desc(dom: libvirt.virDomain, flags: int = 0) -> str:
    """Return a domain's extended XML.

    In the place of virDomainGetXMLDesc
    (https://libvirt.org/html/libvirt-libvirt-domain.html#virDomainGetXMLDesc).

    :param dom: the domain, libvirt-python's own object.
    :param flags: libvirt's VIR_DOMAIN_XML_{INACTIVE,SECURE,…}.
    :returns: the document: of a running domain what is true now, with VIR_DOMAIN_XML_INACTIVE its definition.
    :raises NicplugError: libvirt refuses.
    """
    from nicplug_xml.rewrite import to_extended

    with translated():
        stock = dom.XMLDesc(flags)
        live = dom.isActive() and not flags & _XML_INACTIVE
    facts = Domain(dom).facts(parse_domain(stock).root) if live else NOT_ASKED
    return to_extended(stock, restore_generated=False, facts=facts)


def interface_xml(dom: libvirt.virDomain, interface: str) -> tuple[InterfaceStatus, str]:
    """Return one interface of a running domain, and its extended ``<interface>``.

    :param interface: MAC, alias or target device.
    :raises NotFoundError: no such interface, or the name is ambiguous.
    :raises NicplugError: the domain does not run, or libvirt refuses.
    """
    domain = Domain(dom)
    (scope,) = domain.scopes(1)
    found = domain.read(scope).interfaces
    nic = _find(interface, domain, scope, found)
    elements = list(interfaces_of(parse_domain(xml_desc(dom, _XML_SECURE)).root))
    return _status(domain, nic, scope), elements[found.index(nic)].text


def interfaces(dom: libvirt.virDomain, *, inactive: bool = False) -> list[InterfaceStatus]:
    """Return what is true of each interface of a domain, stock interfaces included.

    It warns (`UserWarning`) of metadata that matches no interface, and of a carrier that leads nowhere.

    :param dom: the domain, libvirt-python's own object.
    :param inactive: look at the persistent definition, also when the domain runs.
    :returns: one object for each ``<interface>``, in the order of the XML.
    :raises UnsupportedError: there is no such definition.
    :raises NicplugError: libvirt refuses.
    """
    domain = Domain(dom)
    (scope,) = domain.scopes(2 * inactive)
    now = domain.read(scope)
    if odd := list(_oddities(domain.name, scope, now)):
        # In the middle of an operation, that is as it should be.
        with suppress(OperationError), locked(dom.UUIDString(), _PATIENCE):
            now = domain.read(scope)
            odd = list(_oddities(domain.name, scope, now))
    for text in odd:
        warnings.warn(text, stacklevel=2)
    return [_status(domain, nic, scope) for nic in now.interfaces]


def _oddities(domain: str, scope: Scope, now: View) -> Iterator[str]:
    """Yield what is not as it should be of a domain's interfaces, and what to do about it."""
    for key in {entry.key for entry in now.entries} - {nic.key for nic in now.interfaces}:
        yield (
            f"the metadata of domain '{domain}' names an interface {key}, which it does not have; the next"
            " change drops that entry"
        )
    for nic in now.interfaces:
        name = f"{nic.name} of '{domain}'"
        if scope is Scope.LIVE and nic.plane and nic.connection is Connection.DEFERRED and nic.carrier:
            yield (
                f"the guest sees a carrier on {name}, and nothing is plugged in; attach-backend or"
                " detach-backend make that right"
            )
        if netdevs.has_ended(nic, now.facts):
            place = backends.describe(nic.backend)
            again = "it in again" if nic.backend != fd.backend() else "in another one"
            yield f"{name} is plugged into {place}, which has hung up; attach-backend plugs {again}"
        if netdevs.was_cut_short(nic, now.facts):
            yield (
                f"a move of {name} was cut short, and it may be plugged into another backend than"
                f" {backends.describe(nic.backend)}; attach-backend plugs it in again"
            )
        if tap.has_fallen_off(nic, now.facts):
            kind = None if nic.backend is None or nic.shown else nic.backend.type
            ways = {"direct": "on no device of that name", "network": "is not where that leads"}
            off = ways.get(kind or "", "is no port of its bridge")
            yield (
                f"{name} is plugged into {backends.describe(nic.backend)}, and {off} any more;"
                " attach-backend plugs it in again"
            )
        joint = now.facts.joints.get(nic.target)
        if nic.shown and joint and not joint.gone:
            yield (
                f"{name} was plugged into another backend, not by nicplug, and its frames still go to"
                f" {joint.device}; attach-backend or detach-backend make that right"
            )


def statuses(dom: libvirt.virDomain, scope: Scope) -> list[InterfaceStatus]:
    """Return what is true of each interface of a domain in one of its states; it warns of nothing."""
    domain = Domain(dom)
    return [_status(domain, nic, scope) for nic in domain.read(scope).interfaces]


def plan_attach(
    dom: libvirt.virDomain,
    interface: str,
    backend: str | Backend | object | None = None,
    *,
    flags: int = 0,
    fds: Iterable[int] = (),
    announce: bool = True,
    link: str | None = None,
) -> Plan:
    """Return the plan that `attach_backend` carries out; arguments and errors as there. Nothing is changed.

    :returns: the plan, for `carry_out_plan`; without steps when everything is so already.
    """
    if link not in (None, "up", "down"):
        raise SchemaError(f"there is no link {link!r}", hint="say 'up' or 'down', or None to leave it")
    given = None if backend is None else _given(backend)
    descriptor = _descriptor(tuple(fds))
    if descriptor is not None:
        if given is not None:
            raise SchemaError("a descriptor and a backend were given", hint="give one of them")
        given = fd.backend()

    def attach(site: Site) -> Plan:
        return site.attach(given, announce=announce, link=link, descriptor=descriptor)

    return _plan(dom, partial(_find, interface), flags, attach)


def attach_backend(
    dom: libvirt.virDomain,
    interface: str,
    backend: str | Backend | object | None = None,
    *,
    flags: int = 0,
    fds: Iterable[int] = (),
    announce: bool = True,
    link: str | None = None,
) -> InterfaceStatus:
    """Plug an interface in; one that is attached is moved, and comes back when the move fails.

    :param dom: the domain, libvirt-python's own object.
    :param interface: MAC, alias or target device.
    :param backend: a ``<backend>`` document, such an lxml element, or a `Backend`; None for the intended one.
        Bandwidth, filter, port and VLAN that it does not name stay as they are.
    :param flags: libvirt's VIR_DOMAIN_AFFECT_{CURRENT,LIVE,CONFIG}.
    :param fds: an open file descriptor to plug in instead: a tap, a macvtap or a connected stream socket. It
        stays the caller's. Plane ``hub`` takes one, plane ``swap`` one for each of the NIC's queues; plane
        ``tap`` keeps its own.
    :param announce: have QEMU announce the NIC to its new neighbours.
    :param link: ``up`` or ``down`` sets the administrator's link as well; None leaves it.
    :returns: what is true afterwards; its `changed` is false when everything was so before.
    :raises NotFoundError: no such interface or network, or the name is ambiguous; nothing was touched.
    :raises UnsupportedError: the interface is not pluggable, or its plane cannot take the backend.
    :raises SchemaError: the backend or the link is malformed, or no backend is known.
    :raises OperationError: a step failed, and those before it were undone; the message says what is so now.
    """
    fds = tuple(fds)
    return plan_and_carry_out(
        dom,
        lambda: plan_attach(dom, interface, backend, flags=flags, fds=fds, announce=announce, link=link),
    )


def plan_detach(dom: libvirt.virDomain, interface: str, *, flags: int = 0) -> Plan:
    """Return the plan that `detach_backend` carries out; arguments and errors as there. Nothing is changed.

    :returns: the plan, for `carry_out_plan`; without steps when everything is so already.
    """
    return _plan(dom, partial(_find, interface), flags, Site.detach)


def detach_backend(dom: libvirt.virDomain, interface: str, *, flags: int = 0) -> InterfaceStatus:
    """Unplug an interface; what it was plugged into becomes its intended backend.

    :param dom: the domain, libvirt-python's own object.
    :param interface: MAC, alias or target device.
    :param flags: libvirt's VIR_DOMAIN_AFFECT_{CURRENT,LIVE,CONFIG}.
    :returns: what is true afterwards; its `changed` is false when it was unplugged before.
    :raises NotFoundError: no such interface, or the name is ambiguous; nothing was touched.
    :raises UnsupportedError: the interface is not pluggable.
    :raises OperationError: a step failed, and those before it were undone; the message says what is so now.
    """
    return plan_and_carry_out(dom, lambda: plan_detach(dom, interface, flags=flags))


def plan_set_link(dom: libvirt.virDomain, interface: str, up: bool, *, flags: int = 0) -> Plan:
    """Return the plan that `set_link` carries out; arguments and errors as there. Nothing is changed.

    :returns: the plan, for `carry_out_plan`; without steps when everything is so already.
    """
    if up not in (True, False):
        raise SchemaError(f"there is no link {up!r}", hint="say True for up, False for down")
    state = "up" if up else "down"
    return _plan(dom, partial(_find, interface), flags, lambda site: site.set_link(state))


def set_link(dom: libvirt.virDomain, interface: str, up: bool, *, flags: int = 0) -> InterfaceStatus:
    """Set the administrator's link; it survives plugging and unplugging.

    :param dom: the domain, libvirt-python's own object.
    :param interface: MAC, alias or target device; one that is not pluggable will do.
    :param up: whether the guest is to see a carrier while the interface is attached.
    :param flags: libvirt's VIR_DOMAIN_AFFECT_{CURRENT,LIVE,CONFIG}.
    :returns: what is true afterwards; its `changed` is false when the link was so before.
    :raises NotFoundError: no such interface, or the name is ambiguous; nothing was touched.
    :raises SchemaError: `up` is neither True nor False.
    :raises OperationError: a step failed, and those before it were undone; the message says what is so now.
    """
    return plan_and_carry_out(dom, lambda: plan_set_link(dom, interface, up, flags=flags))


def plan_update(dom: libvirt.virDomain, xml: str, flags: int = 0, *, announce: bool = True) -> Plan:
    """Return the plan that `update_device` carries out; arguments and errors as there. Nothing is changed.

    :returns: the plan, for `carry_out_plan`; without steps when everything is so already.
    """
    from nicplug_xml import updating

    given = updating.parse(xml)

    def find(domain: Domain, _scope: Scope, found: Sequence[Interface]) -> Interface:
        name = updating.called(given) or "an <interface> without MAC and alias"
        return the_one(domain.name, name, updating.matches(given, found), found)

    def update(site: Site) -> Plan:
        if not updating.is_stock(site, given):
            if (kind := given.attributes.get("type")) in NEVER_PLUGGABLE:
                # The grammar would have it without a connection, which nobody may have given it.
                site.check_backend(Backend(kind))
            _require_valid(updating.as_extended(site, given))
        return updating.plan(site, given, announce=announce)

    return _plan(dom, find, flags, update)


def update_device(
    dom: libvirt.virDomain, xml: str, flags: int = 0, *, announce: bool = True
) -> InterfaceStatus:
    """Change an interface to what its XML says, as virDomain.updateDeviceFlags does, to any backend.

    In the place of virDomainUpdateDeviceFlags
    (https://libvirt.org/html/libvirt-libvirt-domain.html#virDomainUpdateDeviceFlags). An interface that is
    not pluggable is left to libvirt: it gets the XML as it is.

    :param dom: the domain, libvirt-python's own object.
    :param xml: the whole ``<interface>``, found by its MAC (by alias and address where several have that).
        What it leaves out is to go, but for address, alias, target and model. Without ``connection`` it stays
        as it is: attached is moved, and of deferred the intended backend changes.
    :param flags: libvirt's VIR_DOMAIN_AFFECT_{CURRENT,LIVE,CONFIG}.
    :param announce: have QEMU announce the NIC to its new neighbours.
    :returns: what is true afterwards; its `changed` is false when everything was so before.
    :raises NotFoundError: no such interface or network, or several interfaces fit; nothing was touched.
    :raises UnsupportedError: what is to change cannot; the message names it. Nothing was touched.
    :raises SchemaError: the XML is malformed, or does not say what to attach to.
    :raises OperationError: a step failed, and those before it were undone; the message says what is so now.
    """
    return plan_and_carry_out(dom, lambda: plan_update(dom, xml, flags, announce=announce))


def _require_valid(interface: str) -> None:
    from nicplug_xml.schema import validate

    before = "<domain type='qemu'><name>x</name><memory>1</memory><os><type>hvm</type></os><devices>"
    for problem in validate(f"{before}{interface}</devices></domain>"):
        raise SchemaError(
            f"the <interface> is not valid: line {problem.line}: {problem.message}", hint=problem.hint
        )


def _plan(
    dom: libvirt.virDomain,
    find: Callable[[Domain, Scope, Sequence[Interface]], Interface],
    flags: int,
    operation: Callable[[Site], Plan],
) -> Plan:
    domain = Domain(dom)
    plans = []
    for scope in domain.scopes(flags):
        now = domain.read(scope)
        nic = find(domain, scope, now.interfaces)
        plans.append(operation(Site(domain.name, scope, nic, now, Surroundings(dom.connect()))))
    steps = (step for plan in plans for step in plan.steps)
    return replace(plans[0], steps=tuple(sorted(steps, key=is_final)))


def plan_and_carry_out(dom: libvirt.virDomain, make: Callable[[], Plan]) -> InterfaceStatus:
    """Make a plan and carry it out, both while no other operation changes a domain that it changes.

    :param dom: the domain, libvirt-python's own object.
    :param make: makes the plan.
    :returns: as `carry_out_plan`.
    :raises NicplugError: as the operation that the plan is of.
    """
    held = {dom.UUIDString()}
    with ExitStack() as stack:
        while True:
            for uuid in sorted(held):  # in one order: nobody waits for who waits for him
                stack.enter_context(locked(uuid))
            plan = make()
            missing = {find_beside(dom.connect(), name).UUIDString() for name in plan.others} - held
            if not missing:
                return carry_out_plan(dom, plan)
            stack.close()
            held |= missing


def carry_out_plan(dom: libvirt.virDomain, plan: Plan, observer: Observer | None = None) -> InterfaceStatus:
    """Carry out a plan that a ``plan_…`` function made for that domain.

    A plan is of what was true when it was made: carry it out at once.

    :param dom: the domain, libvirt-python's own object.
    :param plan: the plan.
    :param observer: told of each step that is done, with the seconds it took.
    :returns: what is true of the interface afterwards; its `changed` is false for a plan without steps.
    :raises NicplugError: as the operation that the plan is of.
    """
    domain = Domain(dom)
    with closing(domain):
        carry_out(plan, domain, observer)
    nic = domain.checked.get(plan.scope)
    nic = nic or identified(domain.read(plan.scope).interfaces, plan.key, plan.mark)
    if nic is None:
        raise OperationError(f"all is done, and the NIC is no longer in the XML of domain '{domain.name}'")
    return replace(_status(domain, nic, plan.scope), changed=bool(plan.steps))


def _given(backend: object) -> Backend:
    """Return the backend that a caller names; a document is held against the schema, an object is read."""
    if isinstance(backend, Backend):
        # It may be what libvirt has told, which a schema need not know.
        return Backend.of(backend.to_xml())
    return _valid_backend(backend if isinstance(backend, str) else Backend.of(backend).to_xml())


@lru_cache(maxsize=256)
def _valid_backend(xml: str) -> Backend:
    from nicplug_xml.schema import validate

    backend = Backend.of(xml)
    for problem in validate(backend.to_xml()):
        raise SchemaError(f"the backend is not valid: {problem.path}: {problem.message}", hint=problem.hint)
    return backend


def _descriptor(fds: tuple[int, ...]) -> Descriptor | None:
    if not fds:
        return None
    from nicplug_xml.host.tap import netdev_type

    return Descriptor(fds, netdev_type(fds))


def _find(name: str, domain: Domain, scope: Scope, found: Sequence[Interface]) -> Interface:
    matches = _named(name, found)
    if not matches and scope is Scope.CONFIG and domain.scopes(0) == [Scope.LIVE]:
        # Targets and most aliases exist in the live XML only: go by what the interface is recorded as.
        keys = {nic.key for nic in _named(name, domain.read(Scope.LIVE).interfaces)}
        matches = [nic for nic in found if nic.key in keys]
    return the_one(domain.name, name, matches, found)


def _named(name: str, found: Sequence[Interface]) -> list[Interface]:
    if not name:
        raise NotFoundError("no interface was named", hint="give its MAC, alias or target device")
    mac = name.lower().replace("-", ":")
    return [nic for nic in found if name in (nic.alias, nic.target) or mac == nic.mac]


def _status(domain: Domain, nic: Interface, scope: Scope) -> InterfaceStatus:
    return InterfaceStatus(
        domain=domain.name,
        interface=nic.name,
        mac=nic.mac,
        alias=nic.alias,
        target=nic.target,
        model=nic.model,
        plane=nic.plane,
        connection=nic.connection,
        backend=nic.backend,
        link=nic.link or "up",
        carrier=nic.carrier if scope is Scope.LIVE else None,
    )


def _make(
    conn: libvirt.virConnect,
    xml: str,
    plane: str,
    make: Callable[[str], libvirt.virDomain],
    check: bool,
) -> libvirt.virDomain:
    from nicplug_xml.rewrite import to_stock
    from nicplug_xml.schema import validate

    problems = validate(xml) if check else []
    if problems:
        raise SchemaError(
            f"the domain XML is not valid: {problems[0]}",
            hint="'nicplug validate' shows all that is wrong; where libvirt is newer than the schemas here,"
            " --skip-validate leaves that to it",
        )
    chosen, offered = _chosen(conn, xml, plane)
    replaced = replaced_by(conn, xml)
    with locked(replaced.UUIDString()) if replaced else nullcontext():
        stock = to_stock(
            xml,
            plane=chosen,
            parking=parking_kind(conn),
            recorded=recorded_planes(replaced) if replaced else {},
            offered=offered,
            joined=_joined(conn, xml),
        )
        planes = {nic.plane for nic in view(parse_domain(stock).root).interfaces}
        if native.NAME in planes and native.NAME not in (offered or offered_planes(conn, xml)):
            raise UnsupportedError(
                f"plane '{native.NAME}' takes a libvirt that knows connection='deferred', and this one does"
                " not: it would start the guest plugged in",
                hint="leave the choice to nicplug (auto), or use a libvirt with our patches",
            )
        if swap.NAME in planes:
            from nicplug_xml.host.emulator import require_replacing

            require_replacing(conn, stock)
        if planes & {tap.NAME, veth.NAME}:
            ensure_parking(conn)
        with translated():
            return make(stock)


def _joined(conn: libvirt.virConnect, xml: str) -> set[str]:
    """Return which libvirt networks that a document attaches NICs to are for nicplug to join."""
    if "connection" not in xml:
        return set()
    attached = (
        backend_of(nic)
        for nic in interfaces_of(parse_domain(xml).root)
        if (nic.attributes.get("connection"), nic.attributes.get("type")) == ("attached", "network")
    )
    found = {backend.source.get("network", ""): backend for backend in attached if backend is not None}
    return {name for name, backend in found.items() if _is_joined(conn, name, backend)}


def _is_joined(conn: libvirt.virConnect, name: str, backend: Backend) -> bool:
    try:
        network = network_xml(conn, name, active=False)
    except (NotFoundError, UnsupportedError):
        return False
    return type(backends.endpoint(backend, network)) in JOINED


def _chosen(conn: libvirt.virConnect, xml: str, plane: str) -> tuple[str, Collection[str]]:
    """Return which plane a user's choice means on a connection; and for ``auto`` what is offered there."""
    if plane != "auto" or "connection" not in xml:
        return plane, ()
    chosen = default_plane(conn)
    offered = set(offered_planes(conn, xml) if chosen == "auto" else ())
    kinds = {
        nic.attributes.get("type")
        for nic in interfaces_of(parse_domain(xml).root)
        if "connection" in nic.attributes
    }
    # Only for what no tap can be is QEMU asked, which takes its time.
    if chosen == hub.NAME or kinds - tap.KINDS - {None}:
        from nicplug_xml.host.emulator import can_replace

        if can_replace(conn, xml):
            offered.add(swap.NAME)
            chosen = swap.NAME if chosen == hub.NAME else chosen
    return chosen, offered
