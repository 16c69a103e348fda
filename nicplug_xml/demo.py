"""``nicplug demo``: two real guests whose NICs are plugged, moved and unplugged, on embedded libvirt.

Everything happens in network and mount namespaces of this process's own, and is gone when it ends. What is
told is looked at from inside the guests, and a telling that proves wrong makes the demo fail.
"""

from __future__ import annotations

import json
import re
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from nicplug_xml import operations
from nicplug_xml.backends import bridge
from nicplug_xml.cli.output import table
from nicplug_xml.errors import NicplugError
from nicplug_xml.plan import Plan
from nicplug_xml.steps import Step

if TYPE_CHECKING:
    import libvirt

    from nicplug_xml.testing.guest import Guest

BLUE, GREEN = "br-blue", "br-green"
_MACS = {"alice": "52:54:00:00:00:0a", "bob": "52:54:00:00:00:0b"}
_ADDRESSES = {
    "alice": {BLUE: "192.0.2.10", GREEN: "198.51.100.10"},
    "bob": {BLUE: "192.0.2.11", GREEN: "198.51.100.11"},
}
_SPINNER = "|/-\\"
_ROUTERS = {BLUE: "192.0.2.1", GREEN: "198.51.100.1"}
_INTERFACE = """<interface connection='deferred'>
      <mac address='{mac}'/>
      <model type='virtio'/>
      <rom enabled='no'/>
    </interface>"""


def demo(*, as_json: bool = False) -> int:
    """Run the demonstration.

    :param as_json: print the table of what was seen as JSON, and nothing else.
    :returns: 0 when all was as told, else 1.
    :raises UnsupportedError: this machine cannot run it; the message says what is missing.
    """
    from nicplug_xml.testing.namespace import isolate

    story = _Story(quiet=as_json)
    isolate()
    try:
        with ExitStack() as resources:
            _tell(story, resources)
    except (NicplugError, TimeoutError) as error:
        story.check("the demo runs to its end", False)
        print(f"nicplug: error: {error}", file=sys.stderr)
    return story.end(as_json)


def _tell(story: _Story, resources: ExitStack) -> None:
    from nicplug_xml.testing.commands import short_directory
    from nicplug_xml.testing.embedded import embedded_connection
    from nicplug_xml.testing.guest import guest_image
    from nicplug_xml.testing.network import Bridge

    with story.waiting("finding the guest's kernel (built at the first run)"):
        guest_image()
    conn = resources.enter_context(embedded_connection())
    workdir = resources.enter_context(short_directory())
    for name, address in _ROUTERS.items():
        resources.callback(Bridge(f"{address}/24", name=name).close)
    with story.waiting("booting alice and bob, their NICs not plugged in"):
        alice, bob = _boot(conn, workdir)
    identity = alice.interfaces()
    hotplugs = len(alice.events("added")) + len(alice.events("removed"))
    for guest in (alice, bob):
        story.check(f"{guest.name} has a NIC and sees no carrier", not guest.carrier(_MACS[guest.name]))
    _plug_and_ping(story, alice, bob)
    _move(story, alice, bob)
    _unplug(story, alice, bob)
    story.title("Was that a hotplug? Not for the guest")
    after = alice.interfaces()
    same = {mac: nic._replace(carrier=False) for mac, nic in after.items()} == identity
    story.check("alice has the same NIC as at boot: name and ifindex", same)
    events = len(alice.events("added")) + len(alice.events("removed"))
    story.check("alice's kernel saw no NIC come or go", events == hotplugs)


def _boot(conn: libvirt.virConnect, workdir: Path) -> tuple[Guest, Guest]:
    from nicplug_xml.testing.guest import boot_guest

    guests = [
        boot_guest(conn, name, _INTERFACE.format(mac=mac), workdir=workdir, define=operations.define)
        for name, mac in _MACS.items()
    ]
    for guest in guests:
        guest.wait_ready()
        for address in _ADDRESSES[guest.name].values():
            guest.set_address(_MACS[guest.name], f"{address}/24")
    return guests[0], guests[1]


def _plug_and_ping(story: _Story, alice: Guest, bob: Guest) -> None:
    story.title("Plug both into the blue network")
    for guest in (alice, bob):
        story.attach(guest, BLUE)
        story.check_carrier(guest, up=True)
    story.check_ping(alice, _ADDRESSES["bob"][BLUE], "bob", answered=True)


def _move(story: _Story, alice: Guest, bob: Guest) -> None:
    story.title("Move alice to the green network")
    story.attach(alice, GREEN)
    story.check_carrier(alice, up=True)
    story.check_ping(alice, _ROUTERS[GREEN], "the green router", answered=True)
    story.check_ping(alice, _ADDRESSES["bob"][BLUE], "bob, who is on blue", answered=False)
    story.title("Bob follows")
    story.attach(bob, GREEN)
    story.check_ping(alice, _ADDRESSES["bob"][GREEN], "bob", answered=True)


def _unplug(story: _Story, alice: Guest, bob: Guest) -> None:
    story.title("Unplug alice")
    story.operate(alice, operations.plan_detach(alice.dom, _MACS["alice"]))
    story.check_carrier(alice, up=False)
    story.check_ping(bob, _ADDRESSES["alice"][GREEN], "alice", answered=False)
    story.title("Plug her in again, where she was")
    story.operate(alice, operations.plan_attach(alice.dom, _MACS["alice"]))
    story.check_carrier(alice, up=True)
    story.check_ping(alice, _ADDRESSES["bob"][GREEN], "bob", answered=True)


class _Story:
    """What is told, what was seen of it, and how long it took."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._started = time.monotonic()
        self._rows: list[tuple[str, str, bool]] = []
        self._took = ""

    def title(self, text: str) -> None:
        """Begin a part."""
        self._say(f"\n{text}")

    @contextmanager
    def waiting(self, what: str) -> Iterator[None]:
        """Show that something is going on for as long as the block takes, and how long it took."""
        started = time.monotonic()
        done = threading.Event()
        spinner = threading.Thread(target=self._spin, args=(what, done))
        spinner.start()
        try:
            yield
        finally:
            done.set()
            spinner.join()
        self._say(f"{what}: {time.monotonic() - started:.1f} s")

    def attach(self, guest: Guest, name: str) -> None:
        """Plug a guest's NIC into a bridge."""
        mac = _MACS[guest.name]
        self.operate(guest, operations.plan_attach(guest.dom, mac, bridge.backend(name)))

    def operate(self, guest: Guest, plan: Plan) -> None:
        """Carry out a plan and print what happened below."""
        lines: list[str] = []

        def observe(step: Step, seconds: float) -> None:
            lines.append(f"      {seconds * 1000:6.2f} ms  {_shortened(step.describe())}")

        started = time.perf_counter()
        operations.carry_out_plan(guest.dom, plan, observe)
        self._took = f"{(time.perf_counter() - started) * 1000:.1f} ms"
        self._say(f"  {plan.summary}: {self._took}")
        for line in lines:
            self._say(line)
        self._rows.append((plan.summary, self._took, True))

    def check_carrier(self, guest: Guest, *, up: bool) -> None:
        """Look from inside the guest whether it sees a carrier; it has a second to notice."""
        try:
            guest.wait_carrier(_MACS[guest.name], up, timeout=1)
            seen = True
        except TimeoutError:
            seen = False
        self.check(f"{guest.name} sees {'a' if up else 'no'} carrier", seen)

    def check_ping(self, guest: Guest, address: str, whom: str, *, answered: bool) -> None:
        """Ping from inside the guest; the first pings may be lost while switches and neighbours learn."""
        count = 5 if answered else 2
        got = bool(guest.ping(address, count=count, interval=0.2, timeout=1))
        self.check(f"{guest.name} pings {whom}: {'an' if answered else 'no'} answer", got == answered)

    def check(self, told: str, seen: bool) -> None:
        """Note whether what is told is so."""
        self._rows.append((told, "", seen))
        self._say(f"  {'✓' if seen else '✗ NOT SO:'} {told}")

    def end(self, as_json: bool) -> int:
        """Print the table, and return the exit code."""
        seconds = time.monotonic() - self._started
        good = all(seen for _, _, seen in self._rows)
        if as_json:
            rows = [{"told": told, "took": took or None, "seen": seen} for told, took, seen in self._rows]
            print(json.dumps({"steps": rows, "seconds": round(seconds, 1), "ok": good}, indent=2))
        else:
            rows_of_text = [(told, took, "yes" if seen else "NO") for told, took, seen in self._rows]
            print("\n" + table(rows_of_text, ("WHAT", "TOOK", "SEEN")))
            print(
                f"\n{'All was as told' if good else 'NOT ALL WAS AS TOLD'}; {seconds:.0f} s in all,"
                " and nothing is left of it."
            )
        return 0 if good else 1

    def _say(self, text: str) -> None:
        if not self._quiet:
            print(text, flush=True)

    def _spin(self, what: str, done: threading.Event) -> None:
        if self._quiet or not sys.stderr.isatty():
            return
        started = time.monotonic()
        while not done.wait(0.1):
            elapsed = time.monotonic() - started
            line = f"\r{_SPINNER[int(elapsed * 10) % 4]} {what} {elapsed:.1f} s "
            print(line, end="", file=sys.stderr, flush=True)
        print("\r\033[K", end="", file=sys.stderr, flush=True)


def _shortened(call: str) -> str:
    """Leave out of a call's XML what it does not change: all but type, source and link."""
    xml = call.find("<interface type")
    if xml == -1:
        return call if len(call) <= 100 else call[:99] + "…"
    return call[:xml] + "…".join(re.findall(r"<(?:interface|source|link|port) [^>]*>", call[xml:])) + "…"
