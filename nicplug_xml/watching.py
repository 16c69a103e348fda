"""Changes as they happen: libvirt's and the kernel's events say when to look, and what is seen is compared.

libvirt has no event for a changed interface. Whatever nicplug changes, it records, and libvirt tells of that;
so does the kernel of a tap that changes its bridge. Of a link that somebody sets with virsh, nobody tells:
that is seen at the domain's next event.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from nicplug_xml.backends import intended
from nicplug_xml.errors import NicplugError, NotFoundError
from nicplug_xml.frozen import Frozen, replace
from nicplug_xml.host.connection import open_connection
from nicplug_xml.host.errors import translated
from nicplug_xml.host.events import Occurrence, Subscription, kernel_told, subscribe
from nicplug_xml.host.locking import is_locked
from nicplug_xml.model import Backend, Connection, InterfaceStatus, Scope
from nicplug_xml.planes import native

if TYPE_CHECKING:
    import libvirt

#: Seconds between an event that says what has happened and the look at the domain: an operation of nicplug's
#: is over by then.
SETTLE = 0.5
#: The same for an event that does not, as one of the kernel's: where nicplug is at work, its record follows.
PATIENCE = 1.5
#: Seconds that an operation may be at work before what it has done is told of all the same.
LONGEST = 15
#: Seconds between two attempts to reach a libvirt that is away.
RETRY = 0.5
#: Seconds after which a wait begins anew: it does not end by a signal (Ctrl-C, say) that came just before it.
ATTENTION = 1.0

_LIFECYCLE = ("defined", "undefined", "started", "stopped")

#: A domain's interfaces by their names, in each of the states that it has.
Seen = Mapping[Scope, Mapping[str, InterfaceStatus]]


class Change(Frozen):
    """One thing that has happened.

    :param kind: of a domain ``defined``, ``undefined``, ``started``, ``stopped``; of an interface
        ``plugged``, ``moved``, ``unplugged``, ``intended`` (what it is to be plugged into), ``changed``
        (rules of the backend, as its bandwidth), ``link``, ``carrier``, ``added``, ``removed``; of libvirt
        ``connected``, ``disconnected``.
    :param at: when it was told, in seconds since the epoch.
    :param domain: the domain's name; an empty string for libvirt itself.
    :param scope: which of the domain's two states an interface has changed in.
    :param before: the interface before; None when there was none.
    :param after: the interface afterwards; None when it is gone.
    :param by: ``nicplug``, ``other`` when it was somebody else, as with virsh; None when that cannot be told.
    :param interfaces: of a domain that has started, and its interfaces.
    """

    kind: str
    at: float
    domain: str = ""
    scope: Scope | None = None
    before: InterfaceStatus | None = None
    after: InterfaceStatus | None = None
    by: str | None = None
    interfaces: tuple[InterfaceStatus, ...] = ()


def watch(
    uri: str | None = None,
    *,
    domains: Collection[str] = (),
    reconnect: bool = True,
    readonly: bool = False,
) -> Iterator[Change]:
    """Tell what happens to the domains of a libvirt and to their NICs, until the caller stops asking.

    The first change is ``connected``; everything after that is told. What happens while libvirt is away is
    told once it is back.

    :param uri: a libvirt URI; None for LIBVIRT_DEFAULT_URI or libvirt's own default.
    :param domains: names of those to tell about; empty for all.
    :param reconnect: wait for a libvirt that goes away; else the change ``disconnected`` is the last.
    :param readonly: connect for reading alone, which libvirt may allow to those to whom it denies more.
    :returns: an iterator that waits for what happens next.
    :raises NicplugError: libvirt cannot be reached at first, or it tells of no events.
    """
    connect = partial(open_connection, uri, readonly=readonly)
    queue: SimpleQueue[Occurrence] = SimpleQueue()
    watcher = _Watcher(queue, domains)
    with kernel_told(queue):
        conn, subscription = subscribe(connect, queue)
        while True:
            with closing(subscription):
                yield from watcher.catch_up(conn)
                yield from watcher.follow(conn)
            yield Change("disconnected", time.time())
            if not reconnect:
                return
            conn, subscription = _wait_for(connect, queue)


def differences(before: Seen, after: Seen, domain: str, at: float, by: str | None) -> Iterator[Change]:
    """Compare two looks at a domain; a state that it has in one of them only is not compared.

    :param by: who has changed it, as in `Change`.
    """
    for scope in (Scope.LIVE, Scope.CONFIG):
        if scope not in before or scope not in after:
            continue
        old, new = before[scope], after[scope]
        for name in [*old, *(name for name in new if name not in old)]:
            one, other = old.get(name), new.get(name)
            for kind in _kinds(one, other):
                yield Change(kind, at, domain, scope, one, other, by)


def who(changed: int, kinds: Sequence[str]) -> str | None:
    """Tell who has changed interfaces, as in `Change`, by the kinds of the events that came with that.

    :param changed: how many interfaces have changed, each state of a domain by itself.
    """
    ours = kinds.count("ours")
    if ours >= changed:
        return "nicplug"
    # A definition is replaced as a whole, by nicplug define or by virsh; and where nicplug changed one NIC
    # and two have changed, the other one may be either.
    return None if ours or "defined" in kinds or not kinds else "other"


def _is_under_way(uuid: str, occurrences: Sequence[Occurrence]) -> bool:
    """Whether an operation of nicplug's is at work on a domain, and its record is still to come.

    What it has done so far would be taken for somebody else's doing.
    """
    recent = time.time() - occurrences[0].at < LONGEST
    return recent and all(one.kind != "ours" for one in occurrences) and is_locked(uuid)


def _kinds(one: InterfaceStatus | None, other: InterfaceStatus | None) -> Iterator[str]:
    if one is None or other is None:
        yield "added" if one is None else "removed"
        return
    attached = other.connection is Connection.ATTACHED
    if one.connection is not other.connection:
        yield "plugged" if attached else "unplugged"
    elif _place(one.backend) != _place(other.backend):
        yield "moved" if attached else "intended"
    elif _backend(one.backend) != _backend(other.backend):
        yield "changed"
    if one.link != other.link:
        yield "link"
    if None not in (one.carrier, other.carrier) and one.carrier != other.carrier:
        yield "carrier"


def _place(backend: Backend | None) -> tuple[str | None, Mapping[str, str]] | None:
    found = _backend(backend)
    return None if found is None else (found.type, found.source)


def _backend(backend: Backend | None) -> Backend | None:
    """Return a backend without what libvirt makes anew each time."""
    return None if backend is None else intended(backend)


def _plane(change: Change) -> str | None:
    status = change.after or change.before
    return status.plane if status else None


def _changed(change: Change) -> str:
    status = change.after or change.before
    return _name(status) if status else ""


def _name(status: InterfaceStatus) -> str:
    """Return what an interface is told by from one look to the next: several may have one MAC."""
    return f"{status.mac} {status.alias or status.target}"


def _devices(status: InterfaceStatus) -> tuple[str | None, ...]:
    """Return the host devices without which an interface is not what it is."""
    return status.target, status.backend.source.get("dev") if status.backend else None


def _by_name(found: Sequence[InterfaceStatus]) -> dict[str, InterfaceStatus]:
    names: dict[str, InterfaceStatus] = {}
    for status in found:
        name = _name(status)
        # In a definition nothing else may be there: the order tells them apart.
        while name in names:
            name += "+"
        names[name] = status
    return names


class _Watcher:
    def __init__(self, queue: SimpleQueue[Occurrence], domains: Collection[str]) -> None:
        self._queue = queue
        self._wanted = frozenset(domains)
        #: What was seen of each domain, and its name, by UUID; None before the first look at all.
        self._seen: dict[str, tuple[str, Seen]] | None = None

    def catch_up(self, conn: libvirt.virConnect) -> Iterator[Change]:
        """Look at all domains; tell what has changed while libvirt was away."""
        at, before = time.time(), self._seen
        try:
            with translated():
                domains = {dom.UUIDString(): (dom.name(), dom) for dom in conn.listAllDomains()}
        except NicplugError:
            if before is None:
                raise
            # It is away again: what there is, is seen once it is back.
            yield Change("connected", at)
            self._queue.put(Occurrence("gone", time.time()))
            return
        now = {}
        for uuid, (name, dom) in domains.items():
            try:
                now[uuid] = (name, _look(dom))
            except NotFoundError:  # it has ended meanwhile
                continue
            except NicplugError:  # it is ending, or libvirt is: the next event will tell
                now[uuid] = (before or {}).get(uuid, (name, {}))
        self._seen = now
        yield Change("connected", at)
        if before is None:
            for missing in sorted(self._wanted - {name for name, _ in now.values()}):
                warnings.warn(
                    f"there is no domain of the name '{missing}' yet; one that is made will be told of",
                    stacklevel=2,
                )
            return
        for uuid in [*before, *(uuid for uuid in now if uuid not in before)]:
            name = (now.get(uuid) or before[uuid])[0]
            old, new = (seen[uuid][1] if uuid in seen else {} for seen in (before, now))
            for kind, scope, state in (
                ("undefined", Scope.CONFIG, old), ("stopped", Scope.LIVE, old),
                ("defined", Scope.CONFIG, new), ("started", Scope.LIVE, new),
            ):  # fmt: skip
                if scope in state and scope not in (new if state is old else old):
                    yield from self._told(self._of_domain(Occurrence(kind, at, uuid, name)))
            yield from self._told(*differences(old, new, name, at, None))

    def follow(self, conn: libvirt.virConnect) -> Iterator[Change]:
        """Tell what happens until the connection is lost."""
        pending: dict[str, list[Occurrence]] = {}
        due: dict[str, float] = {}
        while True:
            now = time.monotonic()
            for uuid in [uuid for uuid, moment in due.items() if moment <= now]:
                if _is_under_way(uuid, pending[uuid]):
                    due[uuid] = now + SETTLE
                    continue
                del due[uuid]
                yield from self._settled(conn, uuid, pending.pop(uuid))
            try:
                occurrence = self._queue.get(timeout=min(due.values()) - now if due else ATTENTION)
            except Empty:
                continue
            if occurrence.kind == "gone":
                return
            for uuid in self._concerned(occurrence):
                pending.setdefault(uuid, []).append(occurrence)
                telling = occurrence.kind in ("ours", *_LIFECYCLE)
                moment = time.monotonic() + (SETTLE if telling else PATIENCE)
                due[uuid] = min(due.get(uuid, moment), moment)

    def _concerned(self, occurrence: Occurrence) -> list[str]:
        """Return the UUIDs of the domains that something is about."""
        if occurrence.uuid:
            return [occurrence.uuid]
        return [
            uuid
            for uuid, (_, seen) in (self._seen or {}).items()
            if any(occurrence.name in ("", *_devices(nic)) for nic in seen.get(Scope.LIVE, {}).values())
        ]

    def _settled(
        self, conn: libvirt.virConnect, uuid: str, occurrences: Sequence[Occurrence]
    ) -> Iterator[Change]:
        """Look at a domain that something has happened to, and tell what."""
        assert self._seen is not None
        name, before = self._seen.get(uuid, ("", {}))
        name = next((one.name for one in reversed(occurrences) if one.uuid), name)
        try:
            with translated():
                now = _look(conn.lookupByUUIDString(uuid))
        except NotFoundError:
            now = {}
        except NicplugError:
            now = before  # it is ending, or libvirt is: the next event will tell
        self._seen[uuid] = (name, now)
        if not now:
            del self._seen[uuid]
        kinds = [one.kind for one in occurrences]
        for occurrence in occurrences:
            if occurrence.kind in _LIFECYCLE:
                yield from self._told(self._of_domain(occurrence))
        if "started" in kinds or "stopped" in kinds:
            # What runs now is another machine, and is not compared.
            before = {scope: state for scope, state in before.items() if scope is not Scope.LIVE}
        found = tuple(differences(before, now, name, occurrences[-1].at, None))
        by = who(len({(change.scope, _changed(change)) for change in found}), kinds)
        for change in found:
            # Nothing is recorded of what libvirt itself holds: there it may have been either.
            either = _plane(change) == native.NAME
            yield from self._told(replace(change, by=None if either else by))

    def _of_domain(self, occurrence: Occurrence) -> Change:
        seen: Seen = (self._seen or {}).get(occurrence.uuid, ("", {}))[1]
        interfaces = tuple(seen.get(Scope.LIVE, {}).values()) if occurrence.kind == "started" else ()
        return Change(occurrence.kind, occurrence.at, occurrence.name, interfaces=interfaces)

    def _told(self, *changes: Change) -> Iterator[Change]:
        return (change for change in changes if not self._wanted or change.domain in self._wanted)


def _wait_for(
    connect: Callable[[], libvirt.virConnect], queue: SimpleQueue[Occurrence]
) -> tuple[libvirt.virConnect, Subscription]:
    while True:
        time.sleep(RETRY)
        while not queue.empty():
            queue.get()  # all domains are looked at afterwards
        try:
            return subscribe(connect, queue)
        except NicplugError:
            continue


def _look(dom: libvirt.virDomain) -> Seen:
    """Look at a domain's interfaces in each of the states that it has; at none of them when it is ending."""
    from nicplug_xml.operations import statuses

    seen = {}
    with translated():
        scopes = [Scope.LIVE] * bool(dom.isActive()) + [Scope.CONFIG] * bool(dom.isPersistent())
    for scope in scopes:
        try:
            # What is odd, 'nicplug list' is there to tell.
            seen[scope] = _by_name(statuses(dom, scope))
        except NicplugError:
            with translated():
                if not dom.connect().isAlive():
                    raise  # what is not seen is there all the same
    return seen
