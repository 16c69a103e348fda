"""libvirt is lost at each of the calls of an operation: the error is ours, and the next operation works."""

from __future__ import annotations

import itertools
import re
import socket
import threading
import warnings
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import libvirt
import pytest

from nicplug_xml import (
    NicplugError,
    OperationError,
    attach_backend,
    create,
    define,
    detach_backend,
    interfaces,
    set_link,
    watching,
    xml_desc,
)
from nicplug_xml.backends import bridge, direct
from nicplug_xml.cli.main import main
from nicplug_xml.model import Scope
from nicplug_xml.testing.commands import short_directory
from tests.live.conftest import devices, veth
from tests.live.test_remote import copy

if TYPE_CHECKING:
    from nicplug_xml.testing.daemon import PrivateDaemon
    from nicplug_xml.testing.guest import Guest
    from nicplug_xml.testing.plugin import BridgeFactory

pytestmark = [
    pytest.mark.parametrize("libvirt_connection", ["daemon"], indirect=True),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


#: The program that libvirt's calls are for, in its remote protocol; signs of life are for another one.
_CALL = b"\x20\x00\x80\x86"

Operation = Callable[[libvirt.virDomain], object]


class Line:
    """A line to libvirtd that is cut at a call.

    :param place: a directory for its socket.
    :param libvirtd: the path of libvirtd's.
    """

    def __init__(self, place: Path, libvirtd: str) -> None:
        self.uri = f"qemu+unix:///system?socket={place}/socket"
        #: How many calls it passes on; None for any number.
        self.calls: int | None = None
        self.is_cut = False
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(f"{place}/socket")
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve, args=(libvirtd,), daemon=True)
        self._thread.start()

    def _serve(self, libvirtd: str) -> None:
        near, _ = self._listener.accept()
        with near, socket.socket(socket.AF_UNIX) as far:
            far.connect(libvirtd)
            back = threading.Thread(target=copy, args=(far, near), daemon=True)
            back.start()
            while len(length := near.recv(4, socket.MSG_WAITALL)) == 4:
                packet = near.recv(int.from_bytes(length, "big") - 4, socket.MSG_WAITALL)
                if packet.startswith(_CALL) and self.calls is not None:
                    self.is_cut = self.calls == 0
                    if self.is_cut:
                        break
                    self.calls -= 1
                far.sendall(length + packet)
            far.shutdown(socket.SHUT_RDWR)
            back.join()

    def close(self) -> None:
        """End it, once the client has hung up."""
        self._thread.join(timeout=10)
        self._listener.close()


def at_each_call(daemon: PrivateDaemon, name: str, prepare: Callable[[], object], operate: Operation) -> None:
    """Carry out an operation that loses libvirt at its first call, then one that loses it at its second, ….

    :param name: a domain's.
    :param prepare: makes all as it was, and has libvirt.
    :param operate: does it.
    """
    libvirtd = daemon.uri.partition("socket=")[2]
    for calls in itertools.count():
        prepare()
        with short_directory() as place, closing(Line(place, libvirtd)) as line:
            dom = libvirt.open(line.uri).lookupByName(name)
            line.calls = calls
            said = ""
            try:
                operate(dom)
            except NicplugError as error:
                said = str(error)
            assert "the connection to libvirt is lost" in said or not said
            # That is what comes of the calls after the one that failed.
            assert "failed: internal error: client socket is closed" not in said
            del dom
        if not line.is_cut:
            break
    assert calls > 2


def look(dom: libvirt.virDomain) -> None:
    """Look at a domain as ``watch`` does: at both of its states, or at none."""
    assert watching._look(dom).keys() == {Scope.LIVE, Scope.CONFIG}


def test_operations(
    libvirt_daemon: PrivateDaemon,
    deferred_guest: Callable[..., Guest],
    libvirt_bridge: BridgeFactory,
    new_mac: Callable[[], str],
) -> None:
    blue, mac = libvirt_bridge(), new_mac()
    dom = deferred_guest(mac, timeout=None).dom
    plug = bridge.backend(blue.name)
    (nic,) = interfaces(dom)
    with veth("nplow", blue.name) as lower:
        join = direct.backend(lower)
        operations: list[tuple[Callable[[], object], Operation]] = [
            (lambda: detach_backend(dom, mac, flags=3), lambda it: attach_backend(it, mac, plug, flags=3)),
            (lambda: attach_backend(dom, mac, plug), lambda it: attach_backend(it, mac, join)),
            (lambda: attach_backend(dom, mac, join), lambda it: detach_backend(it, mac)),
            (lambda: set_link(dom, mac, True, flags=2), lambda it: set_link(it, nic.target, False, flags=2)),
            (lambda: None, lambda it: (interfaces(it), xml_desc(it))),
            (lambda: None, look),
        ]
        for prepare, operate in operations:
            at_each_call(libvirt_daemon, dom.name(), prepare, operate)
        detach_backend(dom, mac)
    assert f"{nic.target}.np0" not in devices()


def test_new_domains(
    libvirt_daemon: PrivateDaemon, deferred_guest: Callable[..., Guest], new_mac: Callable[[], str]
) -> None:
    dom = deferred_guest(new_mac(), timeout=None).dom
    conn, xml = dom.connect(), xml_desc(dom, libvirt.VIR_DOMAIN_XML_INACTIVE)
    xml = re.sub("<uuid>.*</uuid>", "", xml).replace(f"<name>{dom.name()}<", "<name>npnew<")

    def end() -> None:
        with suppress(libvirt.libvirtError):
            conn.lookupByName("npnew").destroy()

    def start(it: libvirt.virDomain) -> None:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            try:
                create(it.connect(), xml)
            except NicplugError:
                left = [one for one in conn.listAllDomains() if one.name() == "npnew"]
                assert bool(left) <= bool(told)
                raise

    at_each_call(libvirt_daemon, dom.name(), end, start)
    end()


@pytest.mark.parametrize("command", ["list", "graph"])
def test_what_is_shown_is_all_there_is(
    libvirt_daemon: PrivateDaemon,
    libvirt_connection: libvirt.virConnect,
    nic_xml: Callable[..., str],
    new_mac: Callable[[], str],
    capsys: pytest.CaptureFixture[str],
    command: str,
) -> None:
    xml = "<domain type='qemu'><name>{}</name><memory>65536</memory><os><type>hvm</type></os><devices>{}"
    doms = [
        define(libvirt_connection, f"{xml.format(name, nic_xml(new_mac()))}</devices></domain>")
        for name in ("npone", "nptwo", "npthree")
    ]
    libvirtd = libvirt_daemon.uri.partition("socket=")[2]
    try:
        for calls in itertools.count():
            with short_directory() as place, closing(Line(place, libvirtd)) as line:
                line.calls = calls
                code = main(["-c", line.uri, command])
            told = capsys.readouterr().out
            # The last call is to say good-bye.
            is_whole = all(dom.name() in told for dom in doms)
            assert (code, bool(told)) == ((0, True) if is_whole else (1, False))
            if not line.is_cut:
                break
        assert is_whole
    finally:
        for dom in doms:
            dom.undefine()


def test_a_connection_that_the_program_itself_has_closed(
    libvirt_daemon: PrivateDaemon, deferred_guest: Callable[..., Guest], new_mac: Callable[[], str]
) -> None:
    name = deferred_guest(new_mac(), timeout=None).name
    conn = libvirt_daemon.connect()
    dom = conn.lookupByName(name)
    conn.close()
    with pytest.raises(OperationError, match="has closed its connection to libvirt: open another one"):
        interfaces(dom)
