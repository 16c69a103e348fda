"""What is true and what is wanted, to a plan; pure."""

from __future__ import annotations

from functools import cached_property
from typing import Protocol

from nicplug_xml import backends
from nicplug_xml.backends import cable, network, ovs
from nicplug_xml.document import Document
from nicplug_xml.endpoints import (
    BridgePort,
    CableTo,
    Descriptor,
    Endpoint,
    LibvirtsOwn,
    MacvtapOn,
    OvsPort,
)
from nicplug_xml.errors import NotFoundError, SchemaError, UnsupportedError
from nicplug_xml.frozen import Frozen, replace
from nicplug_xml.joints import Joint
from nicplug_xml.model import NEVER_PLUGGABLE, Backend, Connection, Interface, Scope
from nicplug_xml.plan import Plan
from nicplug_xml.planes import PLANES, Plane, native, netdevs, tap
from nicplug_xml.planes.held import Held
from nicplug_xml.steps import Announce, Check, Expected, OfOther, Part, Record, Step
from nicplug_xml.view import View


class Surroundings(Protocol):
    """What a plan may need to know of a connection; only what is needed is asked."""

    def parking(self) -> str:
        """Return which parking place plane tap has, ``network`` or ``bridge``."""

    def mtu(self, device: str) -> int:
        """Return the MTU of a network device; 0 where there is none, or the domain is on another host."""

    def network(self, name: str, *, active: bool = True) -> str:
        """Return the XML of a libvirt network.

        :param active: whether it has to be active.
        :raises NotFoundError: there is none of that name, or it is not active.
        """

    def other_end(self, domain: str, interface: str) -> Site:
        """Return a NIC of a running domain.

        :param interface: its MAC or alias.
        :raises NotFoundError: there is no such domain, it does not run, or has no such NIC.
        """


#: Parameters of a virtual port that libvirt gives it.
_MADE_UP = frozenset(("interfaceid", "instanceid"))


class Site(Frozen):
    """One interface in one state of its domain, about to be changed.

    :param domain: the domain's name.
    :param scope: which of its states.
    :param nic: the interface.
    :param view: what is true of the domain in that state.
    :param surroundings: what is asked of the connection when it is needed.
    """

    domain: str
    scope: Scope
    nic: Interface
    view: View
    surroundings: Surroundings

    def attach(
        self,
        given: Backend | None,
        *,
        announce: bool = True,
        link: str | None = None,
        descriptor: Descriptor | None = None,
        whole: bool = False,
    ) -> Plan:
        """Plan to plug it in, or to move it when it is plugged in.

        :param given: the backend; None for the intended one.
        :param announce: whether to announce the NIC afterwards.
        :param link: the administrator's link to set with it; None leaves it.
        :param descriptor: what to plug in for a backend of type ``fd``.
        :param whole: whether `given` is all there is to be; else the guest's rules that it leaves out stay.
        :raises UnsupportedError: the interface, or its plane, cannot do that.
        :raises SchemaError: no backend is known.
        """
        nic, plane = self.nic, self.plane()
        backend = self._wanted(given, whole)
        link = link or nic.link
        attached = nic.connection is Connection.ATTACHED
        summary = f"{'move' if attached else 'plug'} {self.name} into {backends.describe(backend)}"
        if descriptor and self.scope is Scope.CONFIG:
            raise UnsupportedError(
                "a descriptor is gone by the next start, and the definition cannot name it",
                hint="plug it into the running domain (--live)",
            )
        if attached and not descriptor and self.is_at(backend):
            # Made anew, a socket would hang up, and who is connected through a user-mode network as well.
            return self._plan(summary, []) if self._has_link(link) else self.set_link(link or "up")
        carrier = link != "down"
        endpoint, far_end = self._far_end(descriptor or self._endpoint(backend))
        self.check_backend(backend, endpoint)
        join, dispose = plane.attach(self._held(), backend, endpoint, link)
        steps = [
            *join,
            *far_end,
            *self._unplug_far_end(),
            self._record(Connection.ATTACHED, link, backend, plane.shows(backend, endpoint)),
            self._check(Connection.ATTACHED, backend, carrier),
            *dispose,
        ]
        # It is QEMU that announces.
        if announce and carrier and self.scope is Scope.LIVE and plane.DRIVER == "qemu":
            steps.append(Announce(nic.alias))
        return self._plan(summary, steps, *_place(backend))

    def detach(self) -> Plan:
        """Plan to unplug it.

        :raises UnsupportedError: the interface cannot be unplugged.
        """
        present = self.backend
        return self.defer(backends.intended(present) if present else None, self.nic.link)

    def defer(self, intended: Backend | None, link: str | None) -> Plan:
        """Plan to have it unplugged, and to remember what it is to be plugged into next.

        :param intended: the intended backend; None for none.
        :param link: the administrator's link; None where nothing is said.
        :raises UnsupportedError: the interface cannot be unplugged.
        """
        nic, plane, held = self.nic, self.plane(), self._held()
        # Somebody may have set the link of an unplugged NIC up by hand; what was interrupted leaves a joint
        # or a netdev.
        left = held.joint is not None or netdevs.delete_all(nic.key, self.view.facts.netdevs or ())
        loose = self.scope is Scope.LIVE and bool(nic.carrier or left)
        plugged = nic.connection is Connection.ATTACHED or loose
        part, dispose = plane.detach(held) if plugged else ([], [])
        steps: list[Step] = []
        if plugged or not (self.has(intended) and same_link(link, nic.link)):
            steps = [
                *part,
                *self._unplug_far_end(),
                self._record(Connection.DEFERRED, link, intended),
                self._check(Connection.DEFERRED, None, carrier=False),
                *dispose,
            ]
        return self._plan(f"unplug {self.name}", steps)

    def set_link(self, state: str) -> Plan:
        """Plan to set the administrator's link.

        :param state: ``up`` or ``down``.
        """
        nic = self.nic
        # A carrier that leads nowhere goes with the link: what it led to has gone, say.
        changed = nic.connection is Connection.ATTACHED or not self._is_seen(state)
        steps: list[Step] = []
        if not self._has_link(state):
            # What the stock definition does not show starts unplugged: there its link is down.
            if changed and (nic.shown or self.scope is Scope.LIVE):
                # Any NIC has a link, one that no plane holds included.
                steps += (self.plane() if nic.plane else tap).carrier(self._held(), state)
            if nic.plane is not None:
                steps.append(self._record(nic.connection, state, nic.backend, nic.shown))
            if changed:
                # Newer libvirts have a new port of its network for it after each update.
                backend = nic.backend and backends.intended(nic.backend)
                if tap.has_fallen_off(nic, self.view.facts):
                    backend = None  # that is not for the link to mend
                steps.append(self._check(nic.connection, backend, state == "up"))
        # libvirt changes nothing of a NIC whose network is not active.
        place, hint = _place(nic.backend) if nic.backend else ("", "")
        return self._plan(f"set the link of {self.name} {state}", steps, place, hint)

    def _has_link(self, state: str | None) -> bool:
        """Whether the administrator's link is that, and the guest sees it."""
        return self._is_seen(state) and same_link(state, self.nic.link)

    def _is_seen(self, state: str | None) -> bool:
        """Whether a running guest sees a link; it does not see that of an unplugged NIC up."""
        up, unplugged = state != "down", self.nic.connection is Connection.DEFERRED
        return self.scope is not Scope.LIVE or self.nic.carrier == up or (up and unplugged)

    def _plan(self, summary: str, steps: list[Step], place: str = "", hint: str = "") -> Plan:
        return Plan(summary, self.nic.key, self.scope, tuple(steps), place, hint, self.nic.mark)

    @property
    def name(self) -> str:
        """What to call the interface: with its domain, and with its state unless that is the running one."""
        config = "" if self.scope is Scope.LIVE else " (persistent definition)"
        return f"{self.nic.name} of {self.domain}{config}"

    @cached_property
    def backend(self) -> Backend | None:
        """The backend as it was asked for; libvirt shows a running guest's with what its network gives it."""
        nic, present = self.nic, self.nic.backend
        told = nic.shown and nic.connection is Connection.ATTACHED and self.scope is Scope.LIVE
        inherits = told and present is not None and present.type == "network"
        if present is None or not (inherits and any(map(present.child, network.INHERITED))):
            return present
        try:
            name = present.source.get("network", "")
            # Of one that somebody has stopped under the NIC, it is what the NIC has from it all the same.
            return network.own(present, self.surroundings.network(name, active=False))
        except NotFoundError:
            return present

    def plane(self) -> Plane:
        """Return the plane that holds the interface.

        :raises UnsupportedError: the interface is not pluggable, or its plane is not known.
        """
        kind = self.nic.element.attributes.get("type")
        if kind in NEVER_PLUGGABLE:
            raise UnsupportedError(
                f"{self.name} is of type '{kind}': there the guest's device is the"
                " backend itself, and nothing can be plugged"
            )
        if self.nic.plane is None:
            raise UnsupportedError(
                f"{self.name} was not provisioned as pluggable",
                hint="add connection='attached' to its <interface>, define that, and start the domain anew",
            )
        if self.nic.plane not in PLANES:
            raise UnsupportedError(
                f"{self.name} is held by plane '{self.nic.plane}', which this version of"
                " nicplug does not know",
                hint="use a newer nicplug",
            )
        return PLANES[self.nic.plane]

    def has(self, backend: Backend | None) -> bool:
        """Whether that is its backend, attached or intended, and nothing of it is missing in `backend`.

        What libvirt adds to the source and the virtual port of a running guest need not be named, nor what
        its network gives it.
        """
        present, shown = self.backend, self.nic.backend
        if backend is None or present is None or shown is None:
            return backend is present
        told = self.scope is Scope.LIVE and self.nic.shown
        named = _without_made_up(backends.intended(present), told)
        return backend.is_within(shown) and named.is_within(backend)

    def is_at(self, backend: Backend | None) -> bool:
        """Whether it has that backend, which is still there, and is joined to nothing else beside it.

        Somebody may have had libvirt put the tap of a NIC that the kernel joins into a bridge.
        """
        there = self.has(backend) or self._is_that_cable(backend)
        beside = self.nic.shown and self._held().joint
        ways = (netdevs.has_ended, netdevs.was_cut_short, tap.has_fallen_off)
        lost = any(is_so(self.nic, self.view.facts) for is_so in ways)
        return there and not beside and not lost and not self._leads_elsewhere()

    def _leads_elsewhere(self) -> bool:
        """Whether its network, started anew, leads to another place than where it was plugged in."""
        nic, joint = self.nic, self._held().joint
        if nic.backend is None or nic.backend.type != "network":
            return False
        match self._present if self.scope is Scope.LIVE else None:
            case BridgePort(bridge=bridge) if nic.shown:
                return nic.element.get("source", "bridge") not in (None, bridge)
            case BridgePort(bridge=bridge):
                return joint is not None and joint.device != bridge
            case MacvtapOn(device=place, mode=mode):
                return nic.shown or (joint is not None and (joint.place, joint.mode) != (place, mode))
            case OvsPort(bridge=place):
                return nic.shown or (joint is not None and joint.place != place)
        return False

    def _is_that_cable(self, backend: Backend | None) -> bool:
        """Whether it is a cable to the NIC that this one is joined to, by another name of that."""
        joint = self._held().joint
        if backend is None or backend.type != "cable" or joint is None or joint.kind != "cable":
            return False
        source = backend.source
        try:
            far = self.surroundings.other_end(source.get("domain", ""), source.get("interface", ""))
        except (NotFoundError, UnsupportedError):
            return False
        return far.nic.target == joint.device

    def check_backend(self, backend: Backend, endpoint: Endpoint | None = None) -> None:
        """Check that its plane can be given that backend.

        :param endpoint: what the backend looks like from the host, where that is known.
        :raises UnsupportedError: it cannot, or the interface is not pluggable.
        """
        plane = self.plane()
        if backend.type is not None and backend.type not in plane.KINDS:
            raise UnsupportedError(
                f"plane '{plane.NAME}' cannot plug {self.name} into type='{backend.type}'",
                hint=f"it can: {', '.join(sorted(plane.KINDS))}",
            )
        if backend.type != "cable" and not tap.PARKING_PLACES.isdisjoint(backend.source.values()):
            raise UnsupportedError(
                f"{backends.describe(backend)} is where NICs are that are not plugged in, and no backend",
                hint="'nicplug dumpxml' shows what virsh does not: the intended backend",
            )
        for name in sorted(plane.refused(backend, endpoint)):
            if (child := backend.child(name)) is not None:
                hint = "leave it out; update-device takes away what stays on a move"
                if ovs.is_ovs(child):
                    hint = "a NIC on plane tap can be plugged into Open vSwitch"
                raise UnsupportedError(
                    f"plane '{plane.NAME}' of {self.name} cannot carry out <{name}> of a backend", hint=hint
                )
            if isinstance(endpoint, (BridgePort, MacvtapOn, OvsPort)) and name in endpoint.given:
                raise UnsupportedError(
                    f"{backends.describe(backend)} gives its NICs <{name}>, which plane '{plane.NAME}' of"
                    f" {self.name} cannot carry out there",
                    hint="use a network without it",
                )

    def _far_end(self, endpoint: Endpoint) -> tuple[Endpoint, list[Step]]:
        """Return the endpoint with what is found at the other end of a cable; and plan that end's part."""
        if not isinstance(endpoint, CableTo) or self.scope is Scope.CONFIG:
            return endpoint, []
        far = self.surroundings.other_end(endpoint.domain, endpoint.interface)
        if (far.domain, far.nic.key) == (self.domain, self.nic.key):
            raise UnsupportedError(f"{self.name} is both ends of that cable", hint="name another NIC")
        far.check_backend(back := cable.backend(self.domain, self.nic.key))
        if far.nic.connection is Connection.ATTACHED and not far._leads_to(self):
            raise UnsupportedError(
                f"{far.name} is plugged into {backends.describe(far.nic.backend)}",
                hint=f"unplug it first: 'nicplug detach-backend {far.domain} {far.nic.name}'",
            )
        # What somebody who was killed has left of its former place is let go of as well.
        here = CableTo(self.domain, self.nic.key, self.nic.target)
        join, dispose = far.plane().attach(far._held(), back, here, far.nic.link)
        steps: list[Step] = [
            *join,
            far._record(Connection.ATTACHED, far.nic.link, back),
            far._check(Connection.ATTACHED, back, far.nic.link != "down"),
            *dispose,
        ]
        found = CableTo(endpoint.domain, endpoint.interface, far.nic.target)
        return found, [OfOther(far.domain, step) for step in steps]

    def _unplug_far_end(self) -> list[Step]:
        """Plan the part of the other end of the cable, if one is attached and has two ends."""
        present = self._present if self.scope is Scope.LIVE else None
        if not isinstance(present, CableTo):
            return []
        try:
            far = self.surroundings.other_end(present.domain, present.interface)
        except (NotFoundError, UnsupportedError):
            return []
        back = cable.backend(self.domain, self.nic.key)
        if far.nic.connection is Connection.DEFERRED or not far._leads_to(self):
            return []
        steps: list[Step] = [
            *far.plane().carrier(far._held(), "down"),
            Part(far.nic.target, Joint("cable", self.nic.target)),
            far._record(Connection.DEFERRED, far.nic.link, back),
            far._check(Connection.DEFERRED, None, carrier=False),
        ]
        return [OfOther(far.domain, step) for step in steps]

    def _leads_to(self, other: Site) -> bool:
        """Whether its backend is a cable to that NIC, by whichever of its names."""
        backend, nic = self.nic.backend, other.nic
        if backend is None or backend.type != "cable" or backend.source.get("domain") != other.domain:
            return False
        return backend.source.get("interface", "").lower() in (nic.key.lower(), nic.mac, nic.alias.lower())

    def _held(self) -> Held:
        around = self.surroundings
        facts = self.view.facts
        return Held(
            self.nic, self.scope, self.view.root, facts, around.parking, around.mtu, lambda: self._present
        )

    @cached_property
    def _present(self) -> Endpoint | None:
        """What the backend that is attached looks like from the host; None where that is not known."""
        backend = self.nic.backend
        if (
            self.nic.connection is Connection.DEFERRED
            or backend is None
            or backend.type not in backends.BACKENDS
        ):
            return None
        try:
            # Of a network that somebody has stopped under the NIC, the NIC is where it leads to all the same.
            return self._endpoint(backend, active=False)
        except (NotFoundError, SchemaError, UnsupportedError):
            return None

    def _endpoint(self, backend: Backend, *, active: bool = True) -> Endpoint:
        """Return what a backend looks like from the host, when the domain runs.

        :param active: whether its network has to be active.
        """
        if self.nic.plane == native.NAME:
            return LibvirtsOwn()
        endpoint = backends.endpoint(backend, self._network_of(backend, active))
        trusts = self.nic.element.attributes.get("trustGuestRxFilters") == "yes"
        if trusts and isinstance(endpoint, MacvtapOn) and endpoint.mode != "passthru":
            raise UnsupportedError(
                f"{self.name} has trustGuestRxFilters='yes', and in mode {endpoint.mode} frames to other"
                " MACs than its own would not reach it",
                hint="use mode passthrough, or leave trustGuestRxFilters out",
            )
        return endpoint

    def _network_of(self, backend: Backend, active: bool) -> str:
        """Return the XML of the libvirt network that a backend names; for a definition it may be missing."""
        if backend.type != "network":
            return ""
        name = backend.source.get("network", "")
        if self.scope is Scope.LIVE:
            return self.surroundings.network(name, active=active)
        try:
            return self.surroundings.network(name, active=False)
        except (NotFoundError, UnsupportedError):
            return ""

    def _wanted(self, given: Backend | None, whole: bool = False) -> Backend:
        present = self.backend
        # It may be what a running guest has, where libvirt adds to it.
        backend = given or present
        wanted = backends.intended(backend) if backend else None
        if wanted is None or wanted.type is None:
            raise SchemaError(
                f"{self.name} has no intended backend",
                hint="name one: --bridge, --network, or a <backend> document",
            )
        wanted = wanted.with_policy_of(present) if given and present and not whole else wanted
        self.check_backend(wanted)
        return wanted

    def _check(self, connection: Connection, backend: Backend | None, carrier: bool) -> Check:
        return Check(Expected(self.nic.key, self.scope, connection, backend, carrier, self.nic.mark))

    def _record(
        self, connection: Connection, link: str | None, backend: Backend | None, shown: bool = False
    ) -> Step:
        """Record what the stock XML does not show; a libvirt that shows it all carries it out."""
        if self.nic.plane == native.NAME:
            return native.update(self.nic, connection, backend, link, self.scope)
        entry = next(entry for entry in self.view.entries if entry.key == self.nic.key)
        keys = frozenset(nic.key for nic in self.view.interfaces)
        if connection is Connection.ATTACHED and shown:
            new = replace(entry, link=None, backend=None, attached=False)
        else:
            new = replace(entry, link=link, backend=backend, attached=connection is Connection.ATTACHED)
        return Record(new, entry, keys, self.scope)


def _without_made_up(backend: Backend, told: bool) -> Backend:
    """Return a backend without what of its virtual port libvirt may have made up.

    :param told: whether libvirt's XML of a running guest tells of the backend: then it may be any of that.
    """
    port = backend.child("virtualport")
    if port is None:
        return backend
    rest = tuple(child.text for child in backend.element if child.name != "virtualport")
    if told:
        return replace(backend, children=rest)
    document = Document(port.text)
    parameters = document.root.find("parameters")
    if parameters is not None and parameters.attributes.keys() <= _MADE_UP:
        document.remove(parameters)
    elif parameters is not None:
        for name in _MADE_UP:
            document.set_attribute(parameters, name, None)
    return replace(backend, children=(*rest, document.edited()))


def _place(backend: Backend) -> tuple[str, str]:
    """Return the name of what a backend plugs into, and what to look at when a failure names that."""
    return next(iter(backend.source.values()), ""), backends.hint(backend)


def same_link(one: str | None, other: str | None) -> bool:
    """Whether both say the same: no ``<link>`` says up."""
    return (one == "down") == (other == "down")
