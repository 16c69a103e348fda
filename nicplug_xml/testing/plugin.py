"""pytest fixtures for tests with real libvirt guests; see ``docs/testing.md``.

pytest loads this module in every session of everyone who has nicplug installed: it imports nothing that takes
time, and does nothing until a test asks for one of its fixtures.
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, Protocol, TypeVar

import pytest

if TYPE_CHECKING:
    import libvirt
    from pluggy import Result

    from nicplug_xml.testing.daemon import PrivateDaemon
    from nicplug_xml.testing.guest import Guest
    from nicplug_xml.testing.network import Bridge, Peer
    from nicplug_xml.testing.ovs import OvsBridge, PrivateOvs
    from nicplug_xml.testing.saved_boots import SavedBoots

    Define = Callable[[libvirt.virConnect, str], libvirt.virDomain]

_Made = TypeVar("_Made", bound="Bridge | Peer")
_SAVED_BOOTS, _DIRECTORY = "libvirt_saved_boots", "NICPLUG_SAVED_BOOTS"
_guests_of: pytest.StashKey[list[Guest]] = pytest.StashKey()


class GuestFactory(Protocol):
    """What the fixtures ``libvirt_guest`` and ``libvirt_container`` are."""

    def __call__(
        self,
        interfaces_xml: str,
        *,
        name: str | None = None,
        define: Define | None = None,
        memory_mib: int = 160,
        devices_xml: str = "",
        timeout: float | None = 60,
        fresh: bool = False,
    ) -> Guest:
        """Boot a guest, or a container.

        :param interfaces_xml: its ``<interface>`` elements.
        :param name: of the domain; one that is free unless told.
        :param define: makes a domain of a connection and XML; ``virConnect.defineXML`` unless told.
        :param memory_mib: its memory in MiB.
        :param devices_xml: other elements of ``<devices>``.
        :param timeout: seconds to wait for it to be ready, or ``None`` not to wait: boot several, then
            :meth:`~nicplug_xml.testing.guest.Guest.wait_ready` of each.
        :param fresh: boot it, whatever the setting ``libvirt_saved_boots`` says.
        :raises TimeoutError: it was not ready in time; the message has the end of its log.
        :raises OperationError: one of that name runs already.
        :raises libvirt.libvirtError: libvirt refused it.
        """


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the plugin's setting."""
    about = "start guests from where a guest that is the same had booted, instead of booting each of them"
    parser.addini(_SAVED_BOOTS, about, type="bool", default=False)


def pytest_configure(config: pytest.Config) -> None:
    """Make the directory of what is saved; the workers of pytest-xdist have that of their controller."""
    if config.getini(_SAVED_BOOTS) and not hasattr(config, "workerinput"):
        os.environ[_DIRECTORY] = tempfile.mkdtemp(prefix="np")
        config.add_cleanup(lambda: shutil.rmtree(os.environ.pop(_DIRECTORY)))


class BridgeFactory(Protocol):
    """What the fixture ``libvirt_bridge`` is."""

    def __call__(self, address: str | None = None, *, name: str | None = None) -> Bridge:
        """Make a bridge; see :class:`~nicplug_xml.testing.network.Bridge`."""


class OvsBridgeFactory(Protocol):
    """What the fixture ``libvirt_ovs_bridge`` is."""

    def __call__(self, address: str | None = None, *, name: str | None = None) -> OvsBridge:
        """Make an Open vSwitch bridge; see :class:`~nicplug_xml.testing.ovs.OvsBridge`."""


class PeerFactory(Protocol):
    """What the fixture ``libvirt_peer`` is."""

    def __call__(self, bridge: Bridge | str, address: str) -> Peer:
        """Make a peer; see :class:`~nicplug_xml.testing.network.Peer`."""


@pytest.fixture(scope="session")
def libvirt_isolated() -> Iterator[None]:
    """Network and mount namespaces of the test session's own, for the rest of the session; needs root.

    A session that is ended with SIGTERM then tidies up as one that is ended with Ctrl-C does.
    """
    if os.geteuid() != 0:
        pytest.skip("only root may make network namespaces and bridges: run pytest as root")
    from nicplug_xml.testing.namespace import isolate

    isolate()
    before = signal.getsignal(signal.SIGTERM)
    ours = before is signal.SIG_DFL and threading.current_thread() is threading.main_thread()
    if ours:
        signal.signal(signal.SIGTERM, _interrupt)
    yield
    if ours:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


@pytest.fixture(scope="session")
def libvirt_embedded(libvirt_isolated: None) -> Iterator[libvirt.virConnect]:
    """A connection to libvirt's QEMU driver inside the test process; it has no network driver."""
    from nicplug_xml.testing.embedded import embedded_connection

    with embedded_connection() as conn:
        yield conn


@pytest.fixture(scope="session")
def libvirt_daemon(libvirt_isolated: None) -> Iterator[PrivateDaemon]:
    """A libvirtd of the test session's own: a ``nicplug_xml.testing.daemon.PrivateDaemon``."""
    from nicplug_xml.testing.daemon import private_daemon

    with private_daemon() as daemon:
        yield daemon


@pytest.fixture(params=["embedded", "daemon"])
def libvirt_connection(request: pytest.FixtureRequest) -> Iterator[libvirt.virConnect]:
    """A libvirt connection; a test that asks for it runs twice, on embedded libvirt and on a libvirtd.

    For one of them: ``@pytest.mark.parametrize("libvirt_connection", ["daemon"], indirect=True)``.
    """
    if request.param == "embedded":
        yield request.getfixturevalue("libvirt_embedded")
        return
    daemon: PrivateDaemon = request.getfixturevalue("libvirt_daemon")
    # A test before this one may have stopped it.
    daemon.start()
    conn = daemon.connect()
    yield conn
    daemon.disconnect(conn)


@pytest.fixture
def libvirt_containers(libvirt_daemon: PrivateDaemon) -> Iterator[libvirt.virConnect]:
    """A connection to the LXC driver of the libvirtd of the test session's own."""
    from nicplug_xml.testing.control_groups import available

    if not available():
        pytest.skip("containers need the control groups memory, cpuacct and devices of version 1")
    libvirt_daemon.start()
    conn = libvirt_daemon.connect_containers()
    yield conn
    libvirt_daemon.disconnect(conn)


@pytest.fixture(scope="session")
def _libvirt_saved_boots(pytestconfig: pytest.Config) -> SavedBoots | None:
    if not pytestconfig.getini(_SAVED_BOOTS):
        return None
    from nicplug_xml.testing.saved_boots import SavedBoots

    return SavedBoots(Path(os.environ[_DIRECTORY]))


@pytest.fixture
def libvirt_guest(
    libvirt_connection: libvirt.virConnect,
    _libvirt_saved_boots: SavedBoots | None,
    request: pytest.FixtureRequest,
) -> Iterator[GuestFactory]:
    """A factory of tiny guests on ``libvirt_connection``: see :class:`GuestFactory`.

    They are destroyed and undefined after the test; the report of a test that failed has their logs.
    """
    from nicplug_xml.testing.guest import boot_guest

    with _factory(libvirt_connection, boot_guest, request, _libvirt_saved_boots) as make:
        yield make


@pytest.fixture
def libvirt_container(
    libvirt_containers: libvirt.virConnect, request: pytest.FixtureRequest
) -> Iterator[GuestFactory]:
    """A factory of tiny containers on ``libvirt_containers``, as ``libvirt_guest`` is one of guests."""
    from nicplug_xml.testing.container import boot_container

    with _factory(libvirt_containers, boot_container, request) as make:
        yield make


@pytest.fixture
def libvirt_bridge(libvirt_isolated: None) -> Iterator[BridgeFactory]:
    """A factory of Linux bridges, removed after the test: see :class:`BridgeFactory`."""
    from nicplug_xml.testing.network import Bridge

    with _closed_afterwards(Bridge) as make:
        yield make


@pytest.fixture(scope="session")
def libvirt_ovs(libvirt_isolated: None) -> Iterator[PrivateOvs]:
    """An Open vSwitch of the test session's own: a ``nicplug_xml.testing.ovs.PrivateOvs``."""
    from nicplug_xml.testing.ovs import private_ovs

    with private_ovs() as ovs:
        yield ovs


@pytest.fixture
def libvirt_ovs_bridge(libvirt_ovs: PrivateOvs) -> Iterator[OvsBridgeFactory]:
    """A factory of Open vSwitch bridges, removed after the test: see :class:`OvsBridgeFactory`."""
    from nicplug_xml.testing.ovs import OvsBridge

    # A test before this one may have stopped it.
    libvirt_ovs.start_vswitchd()
    with _closed_afterwards(partial(OvsBridge, libvirt_ovs)) as make:
        yield make
        # So may this one have, and without it its bridges cannot be removed.
        libvirt_ovs.start_vswitchd()


@pytest.fixture
def libvirt_peer(libvirt_isolated: None) -> Iterator[PeerFactory]:
    """A factory of peers on a bridge, removed after the test: see :class:`PeerFactory`."""
    from nicplug_xml.testing.network import Peer

    with _closed_afterwards(Peer) as make:
        yield make


@contextmanager
def _closed_afterwards(kind: Callable[..., _Made]) -> Iterator[Callable[..., _Made]]:
    """Make a factory; what it has made is closed at the end of the block, the last one first."""
    with ExitStack() as removals:
        yield lambda *values, **named: removals.enter_context(closing(kind(*values, **named)))


@contextmanager
def _factory(
    conn: libvirt.virConnect,
    boot: Callable[..., Guest],
    request: pytest.FixtureRequest,
    boots: SavedBoots | None = None,
) -> Iterator[GuestFactory]:
    from nicplug_xml.errors import OperationError
    from nicplug_xml.testing.commands import short_directory

    guests = request.node.stash.setdefault(_guests_of, [])
    daemon: PrivateDaemon | None = None
    if "libvirt_daemon" in request.fixturenames:
        daemon = request.getfixturevalue("libvirt_daemon")
    with short_directory() as workdir, ExitStack() as removals:

        def make(
            interfaces_xml: str,
            *,
            name: str | None = None,
            define: Define | None = None,
            memory_mib: int = 160,
            devices_xml: str = "",
            timeout: float | None = 60,
            fresh: bool = False,
        ) -> Guest:
            options = {} if boots is None or fresh else {"start": boots.start}
            # What is saved has a name, and workers share it.
            prefix = "np" if boots else f"np{os.getpid()}"
            taken = {dom.name(): dom for dom in conn.listAllDomains()}
            if name in taken and taken[name].isActive():
                # It would be defined anew, and be the same guest.
                raise OperationError(f"a guest '{name}' runs already", hint="give this one another name")
            names = (f"{prefix}-{number}" for number in itertools.count(len(guests) + 1))
            guest = boot(
                conn,
                name or next(free for free in names if free not in taken),
                interfaces_xml,
                workdir=workdir,
                define=define,
                memory_mib=memory_mib,
                devices_xml=devices_xml,
                **options,
            )
            removals.callback(guest.remove)
            guests.append(guest)
            if timeout is not None:
                guest.wait_ready(timeout)
                if boots is not None and not fresh and boots.keep(guest):
                    guest.wait_ready(timeout)
            return guest

        yield make
        # The test may have stopped it, and without it its guests cannot be removed.
        if daemon is not None:
            daemon.start()


# The newer way to wrap a hook, "wrapper", is one that Debian 12's own pytest does not know.
@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Result[pytest.TestReport], None]:
    """Add the logs of the test's guests to the report of a failure."""
    outcome = yield
    report = outcome.get_result()
    guests = item.stash.get(_guests_of, [])
    if report.failed:
        for guest in guests:
            if log := guest.log():
                report.sections.append((f"log of guest {guest.name}", log))
    if report.when == "teardown":
        # pytest keeps the test until the session ends, and a guest keeps its connection to libvirt open.
        guests.clear()


def _interrupt(signum: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt
