"""What is true and what is wanted, to a plan; pure."""

from __future__ import annotations

from dataclasses import dataclass, replace

from nicplug_xml import backends
from nicplug_xml.document import Document
from nicplug_xml.endpoints import Descriptor
from nicplug_xml.errors import SchemaError, UnsupportedError
from nicplug_xml.metadata import Entry
from nicplug_xml.model import NEVER_PLUGGABLE, Backend, Connection, Interface, Scope
from nicplug_xml.plan import Plan
from nicplug_xml.planes import PLANES, Plane
from nicplug_xml.steps import Announce, Check, Expected, Record, Step, UpdateDevice
from nicplug_xml.stock import with_link
from nicplug_xml.view import View


@dataclass(frozen=True)
class Site:
    """One interface in one state of its domain, about to be changed.

    :param domain: the domain's name.
    :param scope: which of its states.
    :param nic: the interface.
    :param view: what is true of the domain in that state.
    """

    domain: str
    scope: Scope
    nic: Interface
    view: View

    def attach(
        self,
        given: Backend | None,
        *,
        announce: bool = True,
        link: str | None = None,
        network: str = "",
        descriptor: Descriptor | None = None,
        whole: bool = False,
    ) -> Plan:
        """Plan to plug it in, or to move it when it is plugged in.

        :param given: the backend; None for the intended one.
        :param announce: whether to announce the NIC afterwards.
        :param link: the administrator's link to set with it; None leaves it.
        :param network: XML of the libvirt network that the backend names, where `needs_network` says so.
        :param descriptor: what to plug in for a backend of type ``fd``.
        :param whole: whether `given` is all there is to be; else the guest's rules that it leaves out stay.
        :raises UnsupportedError: the interface, or its plane, cannot do that.
        :raises SchemaError: no backend is known.
        """
        nic, plane, view = self.nic, self.plane(), self.view
        backend = self._wanted(plane, given, whole)
        link = link or nic.link
        attached = nic.connection is Connection.ATTACHED
        summary = f"{'move' if attached else 'plug'} {self.name} into {backends.describe(backend)}"
        steps: list[Step] = []
        same = self.has(backend)
        if descriptor and self.scope is Scope.CONFIG:
            raise UnsupportedError(
                "a descriptor is gone by the next start, and the definition cannot name it",
                hint="plug it into the running domain (--live)",
            )
        if descriptor or not (attached and same and same_link(link, nic.link)):
            carrier = link != "down"
            endpoint = descriptor or backends.endpoint(backend, network)
            join, dispose = plane.attach(nic, backend, endpoint, link, self.scope, view.root, view.netdevs)
            steps = [
                *join,
                self._record(Connection.ATTACHED, link, backend),
                self._check(Connection.ATTACHED, backend, carrier),
                *dispose,
            ]
            if announce and carrier and self.scope is Scope.LIVE:
                steps.append(Announce(nic.alias))
        place = next(iter(backend.source.values()), "")
        return self._plan(summary, steps, place, backends.hint(backend))

    def needs_network(self, given: Backend | None) -> str:
        """Return the libvirt network whose XML `attach` needs, or an empty string.

        :raises UnsupportedError: the interface, or its plane, cannot do that.
        :raises SchemaError: no backend is known.
        """
        plane = self.plane()
        backend = self._wanted(plane, given)
        if backend.type != "network" or not plane.ALWAYS_HELD or self.scope is Scope.CONFIG:
            return ""
        return backend.source.get("network", "")

    def detach(self, parking: str) -> Plan:
        """Plan to unplug it.

        :param parking: which parking place the connection has, ``network`` or ``bridge``.
        :raises UnsupportedError: the interface cannot be unplugged.
        """
        present = self.nic.backend
        return self.defer(parking, backends.intended(present) if present else None, self.nic.link)

    def defer(self, parking: str, intended: Backend | None, link: str | None) -> Plan:
        """Plan to have it unplugged, and to remember what it is to be plugged into next.

        :param parking: as for `detach`.
        :param intended: the intended backend; None for none.
        :param link: the administrator's link; None where nothing is said.
        :raises UnsupportedError: the interface cannot be unplugged.
        """
        nic, plane, view = self.nic, self.plane(), self.view
        steps: list[Step] = []
        # Somebody may have set the link of an unplugged NIC up by hand.
        loose = self.scope is Scope.LIVE and nic.carrier
        plugged = nic.connection is Connection.ATTACHED or loose
        part: list[Step] = []
        dispose: list[Step] = []
        if plugged:
            part, dispose = plane.detach(nic, parking, self.scope, view.root, view.netdevs)
        if plugged or not (self.has(intended) and same_link(link, nic.link)):
            steps = [
                *part,
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
        attached = nic.connection is Connection.ATTACHED
        steps: list[Step] = []
        if not same_link(state, nic.link):
            # What is always held has its link in the stock definition down: it starts unplugged.
            held = nic.plane in PLANES and PLANES[nic.plane].ALWAYS_HELD
            if attached and not (held and self.scope is Scope.CONFIG):
                xml = with_link(nic.xml, state)
                steps.append(UpdateDevice(f"set its link {state}", xml, nic.xml, self.scope))
            if nic.plane is not None:
                steps.append(self._record(nic.connection, state, nic.backend))
            if attached:
                steps.append(self._check(Connection.ATTACHED, nic.backend, state == "up"))
        return self._plan(f"set the link of {self.name} {state}", steps)

    def _plan(self, summary: str, steps: list[Step], place: str = "", hint: str = "") -> Plan:
        return Plan(summary, self.nic.key, self.scope, tuple(steps), place, hint)

    @property
    def name(self) -> str:
        """What to call the interface: with its domain, and with its state unless that is the running one."""
        config = "" if self.scope is Scope.LIVE else " (persistent definition)"
        return f"{self.nic.name} of {self.domain}{config}"

    def plane(self) -> Plane:
        """Return the plane that holds the interface.

        :raises UnsupportedError: the interface is not pluggable, or its plane is not known.
        """
        kind = Document(self.nic.xml).root.attributes.get("type")
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

        What libvirt adds to the source and the virtual port of a running guest need not be named.
        """
        present = self.nic.backend
        if backend is None or present is None:
            return backend is present
        named = [
            child
            for child in backends.intended(present).children
            if Document(child).root.name != "virtualport"
        ]
        return backend.is_within(present) and replace(present, children=tuple(named)).is_within(backend)

    def check_backend(self, backend: Backend) -> None:
        """Check that its plane can be given that backend.

        :raises UnsupportedError: it cannot, or the interface is not pluggable.
        """
        plane = self.plane()
        if backend.type is not None and backend.type not in plane.KINDS:
            raise UnsupportedError(
                f"plane '{plane.NAME}' cannot plug {self.name} into type='{backend.type}'",
                hint=f"it can: {', '.join(sorted(plane.KINDS))}",
            )
        for name in sorted(plane.REFUSED):
            if backend.child(name) is not None:
                raise UnsupportedError(
                    f"plane '{plane.NAME}' of {self.name} cannot carry out <{name}> of a backend",
                    hint="leave it out",
                )

    def _wanted(self, plane: Plane, given: Backend | None, whole: bool = False) -> Backend:
        present = self.nic.backend
        wanted = given or present
        if wanted is None or wanted.type is None:
            raise SchemaError(
                f"{self.name} has no intended backend",
                hint="name one: --bridge, --network, or a <backend> document",
            )
        wanted = wanted.with_policy_of(present) if given and present and not whole else wanted
        self.check_backend(wanted)
        return wanted

    def _check(self, connection: Connection, backend: Backend | None, carrier: bool) -> Check:
        return Check(Expected(self.nic.key, self.scope, connection, backend, carrier))

    def _record(self, connection: Connection, link: str | None, backend: Backend | None) -> Record:
        """Record what the stock XML does not show."""
        entry = next(entry for entry in self.view.entries if entry.key == self.nic.key)
        keys = frozenset(nic.key for nic in self.view.interfaces)
        return Record(_recorded(entry, connection, link, backend), entry, keys, self.scope)


def _recorded(entry: Entry, connection: Connection, link: str | None, backend: Backend | None) -> Entry:
    plane = PLANES.get(entry.plane)
    if plane is not None and plane.ALWAYS_HELD:
        return replace(entry, connection=connection, link=link, backend=backend)
    if connection is Connection.ATTACHED:
        return replace(entry, link=None, backend=None)
    return replace(entry, link=link, backend=backend)


def same_link(one: str | None, other: str | None) -> bool:
    """Whether both say the same: no ``<link>`` says up."""
    return (one == "down") == (other == "down")
