"""What libvirt and the kernel tell of their own accord, as occurrences in one queue."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, NamedTuple

from nicplug_xml.host.connection import start_event_loop
from nicplug_xml.host.errors import translated
from nicplug_xml.host.netlink_messages import LINKS, links_in
from nicplug_xml.metadata import URI

if TYPE_CHECKING:
    import socket
    from queue import SimpleQueue

    import libvirt

#: Seconds without a sign of life after which libvirt is asked for one, and how often that may fail.
_KEEP_ALIVE = (5, 3)

# virDomainEventType
_LIFECYCLE = {0: "defined", 1: "undefined", 2: "started", 5: "stopped"}
_METADATA_ELEMENT = 2


class Occurrence(NamedTuple):
    """Something that happened.

    :param kind: ``defined``, ``undefined``, ``started``, ``stopped``; ``ours`` for a change of our metadata;
        ``link`` for one of a network device of this host; ``other`` for anything else of a domain's; ``gone``
        when the connection is lost.
    :param at: seconds since the epoch.
    :param uuid: the domain's, or an empty string.
    :param name: the domain's, or the device's; an empty string where the kernel has lost count of which.
    """

    kind: str
    at: float
    uuid: str = ""
    name: str = ""


class Subscription:
    """A connection whose events go to a queue until it is closed.

    :param conn: a connection that was opened after `start_event_loop`.
    :param queue: gets an `Occurrence` for each event, from another thread.
    :raises NicplugError: the connection tells of no events.
    """

    def __init__(self, conn: libvirt.virConnect, queue: SimpleQueue[Occurrence]) -> None:
        import libvirt

        self._conn = conn
        self._queue = queue
        self._ids: list[int] = []
        with translated("nothing can be watched there"):
            for event, callback in (
                (libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, self._lifecycle),
                (libvirt.VIR_DOMAIN_EVENT_ID_METADATA_CHANGE, self._metadata),
            ):
                self._ids.append(conn.domainEventRegisterAny(None, event, callback, None))
        for event in (
            libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_ADDED,
            libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED,
            libvirt.VIR_DOMAIN_EVENT_ID_AGENT_LIFECYCLE,
            libvirt.VIR_DOMAIN_EVENT_ID_REBOOT,
            libvirt.VIR_DOMAIN_EVENT_ID_TUNABLE,
        ):
            # Each is one more occasion to look; a driver need not have it.
            with suppress(libvirt.libvirtError):
                self._ids.append(conn.domainEventRegisterAny(None, event, self._other, None))
        # Connections without a daemon cannot be lost.
        with suppress(libvirt.libvirtError):
            conn.registerCloseCallback(self._gone, None)
        with suppress(libvirt.libvirtError):
            conn.setKeepAlive(*_KEEP_ALIVE)

    def close(self) -> None:
        """End it, and the connection."""
        import libvirt

        with suppress(libvirt.libvirtError):
            self._conn.unregisterCloseCallback()
        for callback in self._ids:
            with suppress(libvirt.libvirtError):
                self._conn.domainEventDeregisterAny(callback)
        with suppress(libvirt.libvirtError):
            self._conn.close()

    def _put(self, kind: str, dom: libvirt.virDomain) -> None:
        self._queue.put(Occurrence(kind, time.time(), dom.UUIDString(), dom.name()))

    def _lifecycle(self, _conn: object, dom: libvirt.virDomain, event: int, *_: object) -> None:
        self._put(_LIFECYCLE.get(event, "other"), dom)

    def _metadata(self, _conn: object, dom: libvirt.virDomain, kind: int, uri: str | None, _: object) -> None:
        self._put("ours" if kind == _METADATA_ELEMENT and uri == URI else "other", dom)

    def _other(self, _conn: object, dom: libvirt.virDomain, *_: object) -> None:
        self._put("other", dom)

    def _gone(self, *_: object) -> None:
        self._queue.put(Occurrence("gone", time.time()))


def subscribe(
    open_connection: Callable[[], libvirt.virConnect], queue: SimpleQueue[Occurrence]
) -> tuple[libvirt.virConnect, Subscription]:
    """Open a connection, and have its events put into a queue.

    :param open_connection: opens it.
    :raises NicplugError: it cannot be opened, or tells of no events.
    """
    start_event_loop()
    conn = open_connection()
    try:
        return conn, Subscription(conn, queue)
    except BaseException:
        conn.close()
        raise


@contextmanager
def kernel_told(queue: SimpleQueue[Occurrence]) -> Iterator[None]:
    """Put an occurrence into a queue whenever a network device of this thread's namespace changes.

    It lasts as long as the block. Where the kernel refuses, nothing is put.
    """
    import socket

    try:
        listener = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        listener.bind((0, LINKS))
    except OSError:
        yield
        return
    told, tell = socket.socketpair()
    thread = threading.Thread(target=_put_links, args=(listener, told, queue), daemon=True)
    with listener, told, tell:
        thread.start()
        try:
            yield
        finally:
            tell.close()
            thread.join()


def _put_links(listener: socket.socket, ended: socket.socket, queue: SimpleQueue[Occurrence]) -> None:
    from select import POLLIN, poll

    # Unlike select(2), poll(2) takes any descriptor: a service may have more than 1024 of them.
    either = poll()
    either.register(listener, POLLIN)
    either.register(ended, POLLIN)
    while ended.fileno() not in dict(either.poll()):
        try:
            names = [link.name for link in links_in(listener.recv(65536)) if link.name]
        except OSError:
            names = [""]  # ENOBUFS: more has happened than fits
        for name in names:
            queue.put(Occurrence("link", time.time(), name=name))
