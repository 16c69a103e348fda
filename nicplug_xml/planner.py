"""What is true and what is wanted, to a plan; pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import ModuleType

from nicplug_xml import backends, metadata
from nicplug_xml.document import Document
from nicplug_xml.errors import SchemaError, UnsupportedError
from nicplug_xml.metadata import Entry
from nicplug_xml.model import NEVER_PLUGGABLE, Backend, Connection, Interface, Scope
from nicplug_xml.plan import Announce, Check, Expected, Plan, Record, Step, UpdateDevice
from nicplug_xml.planes import PLANES
from nicplug_xml.stock import with_link


@dataclass(frozen=True)
class Site:
    """One interface in one state of its domain, about to be changed.

    :param domain: the domain's name.
    :param scope: which of its states.
    :param nic: the interface.
    :param interfaces: all interfaces in that state.
    :param entries: all entries of our metadata in that state.
    """

    domain: str
    scope: Scope
    nic: Interface
    interfaces: tuple[Interface, ...]
    entries: tuple[Entry, ...]

    def attach(self, given: Backend | None, announce: bool, link: str | None) -> Plan:
        """Plan to plug it in, or to move it when it is plugged in.

        :param given: the backend; None for the intended one.
        :param announce: whether to announce the NIC afterwards.
        :param link: the administrator's link to set with it; None leaves it.
        :raises UnsupportedError: the interface, or its plane, cannot do that.
        :raises SchemaError: no backend is known.
        """
        nic, plane = self.nic, self._plane()
        backend = self._wanted(plane, given)
        where = backends.describe(backend)
        link = link or nic.link
        attached = nic.connection is Connection.ATTACHED
        summary = f"{'move' if attached else 'plug'} {self._name} into {where}"
        steps: list[Step] = []
        if not (attached and nic.backend and backend.is_within(nic.backend) and _same_link(link, nic.link)):
            carrier = link != "down"
            steps = [
                *(backends.prepare(backend) if self.scope is Scope.LIVE else ()),
                *plane.attach(nic, backend, link, self.scope, where),
                self._check(Connection.ATTACHED, backend, carrier),
                self._record(Entry(nic.key, plane.NAME)),
            ]
            if announce and carrier and self.scope is Scope.LIVE:
                steps.append(Announce(nic.alias))
        place = next(iter(backend.source.values()), "")
        return self._plan(summary, steps, place, backends.hint(backend))

    def detach(self, parking: str) -> Plan:
        """Plan to unplug it.

        :param parking: which parking place the connection has, ``network`` or ``bridge``.
        :raises UnsupportedError: the interface cannot be unplugged.
        """
        nic, plane = self.nic, self._plane()
        steps: list[Step] = []
        if nic.connection is Connection.ATTACHED and nic.backend:
            intended = backends.intended(nic.backend)
            steps = [
                *plane.detach(nic, parking, self.scope),
                self._check(Connection.DEFERRED, None, carrier=False),
                self._record(Entry(nic.key, plane.NAME, nic.link, intended)),
            ]
        return self._plan(f"unplug {self._name}", steps)

    def set_link(self, state: str) -> Plan:
        """Plan to set the administrator's link.

        :param state: ``up`` or ``down``.
        """
        nic = self.nic
        steps: list[Step] = []
        if not _same_link(state, nic.link):
            entry = next((entry for entry in self.entries if entry.key == nic.key), None)
            if nic.connection is Connection.ATTACHED:
                xml = with_link(nic.xml, state)
                steps = [
                    UpdateDevice(f"set its link {state}", xml, nic.xml, self.scope),
                    self._check(Connection.ATTACHED, nic.backend, state == "up"),
                ]
            elif entry is not None:
                entry = replace(entry, link=state)
            if entry is not None:
                steps.append(self._record(entry))
        return self._plan(f"set the link of {self._name} {state}", steps)

    def _plan(self, summary: str, steps: list[Step], place: str = "", hint: str = "") -> Plan:
        return Plan(summary, self.nic.key, self.scope, tuple(steps), place, hint)

    @property
    def _name(self) -> str:
        config = "" if self.scope is Scope.LIVE else " (persistent definition)"
        return f"{self.nic.name} of {self.domain}{config}"

    def _plane(self) -> ModuleType:
        kind = Document(self.nic.xml).root.attributes.get("type")
        if kind in NEVER_PLUGGABLE:
            raise UnsupportedError(
                f"{self._name} is of type '{kind}': there the guest's device is the"
                " backend itself, and nothing can be plugged"
            )
        if self.nic.plane is None:
            raise UnsupportedError(
                f"{self._name} was not provisioned as pluggable",
                hint="add connection='attached' to its <interface>, define that, and start the domain anew",
            )
        if self.nic.plane not in PLANES:
            raise UnsupportedError(
                f"{self._name} is held by plane '{self.nic.plane}', which this version of"
                " nicplug does not know",
                hint="use a newer nicplug",
            )
        return PLANES[self.nic.plane]

    def _wanted(self, plane: ModuleType, given: Backend | None) -> Backend:
        present = self.nic.backend
        wanted = given or present
        if wanted is None or wanted.type is None:
            raise SchemaError(
                f"{self._name} has no intended backend",
                hint="name one: --bridge, --network, or a <backend> document",
            )
        if wanted.type not in plane.KINDS:
            raise UnsupportedError(
                f"plane '{plane.NAME}' cannot plug {self._name} into type='{wanted.type}'",
                hint=f"it can: {', '.join(sorted(plane.KINDS))}",
            )
        for name in plane.KEPT:
            if wanted.child(name) is not None:
                raise UnsupportedError(
                    f"<{name}> says how the NIC's tap was opened, and cannot change now",
                    hint="leave it out of the backend, and put it into the <interface>",
                )
        return wanted.with_policy_of(present) if given and present else wanted

    def _check(self, connection: Connection, backend: Backend | None, carrier: bool) -> Check:
        return Check(Expected(self.nic.key, self.scope, connection, backend, carrier))

    def _record(self, entry: Entry) -> Record:
        keys = {nic.key for nic in self.interfaces}
        new = [entry if old.key == entry.key else old for old in self.entries if old.key in keys]
        return Record(
            metadata.format_entries(new, alone=True),
            metadata.format_entries(self.entries, alone=True),
            self.scope,
        )


def _same_link(one: str | None, other: str | None) -> bool:
    """Whether both say the same: no ``<link>`` says up."""
    return (one == "down") == (other == "down")
