"""The documents are true: their sessions are run as they stand.

What is run is marked in a fenced block's first line; blocks of one document belong together and run in order:

- ``xml guest=vm1``: an ``<interface>``; the domain with it, the tiny guest, is written to ``vm1.xml``.
- ``xml patched=vm1``: the same, and the guest's QEMU is the one that has our patches.
- ``xml file=NAME``, ``python file=NAME``, ``json file=NAME``: a file of that name.
- ``python part=NAME``: what is in a script of docs/examples; tests/unit/test_examples.py looks.
- ``console run``: after ``# `` a command for the host, after ``vm1# `` one for the guest vm1; below it what
  it prints.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from nicplug_xml.testing.commands import short_directory
from nicplug_xml.testing.guest import Guest, channel_path, console_path, guest_xml, remove_domain
from tests.live.conftest import emulator
from tests.patched import prefix

if TYPE_CHECKING:
    from nicplug_xml.testing.daemon import PrivateDaemon
    from nicplug_xml.testing.ovs import PrivateOvs

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([ROOT / "README.md", *ROOT.glob("docs/*.md")])

BLOCK = re.compile(r"^```(\w+)(?: (\w+)(?:=(\S+))?)?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"^(?:(\w+)|)# (.*(?:(?<=\\)\n.*)*)\n((?:(?!\w*# ).*\n)*)", re.MULTILINE)

#: What may differ from one run to the next, and what is compared in its place.
VOLATILE = (
    (r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "UUID"),
    (r"\bvnet\d+\b", "vnetN"),
    (r"[\d./]*\d ?ms\b", "N ms"),
    (r"[ \t]+", " "),
)


class Block(NamedTuple):
    kind: str
    value: str
    text: str


def blocks(document: Path) -> list[Block]:
    """Return the marked blocks of a document."""
    return [Block(*found) for _language, *found in BLOCK.findall(document.read_text()) if found[0]]


class Session:
    """A directory, with our schemas as in a checkout, and the libvirtd that a document's commands reach."""

    def __init__(self, directory: Path, daemon: PrivateDaemon) -> None:
        self._directory = directory
        self._daemon = daemon
        (directory / "xmlschema").symlink_to(ROOT / "xmlschema")
        (directory / "docs").symlink_to(ROOT / "docs")
        path = f"{Path(sys.executable).parent}:/usr/sbin:/sbin:{os.environ['PATH']}"
        ours = {"PATH": path, "LC_ALL": "C.UTF-8", "LIBVIRT_DEFAULT_URI": daemon.uri}
        self._environment = {**os.environ, **ours}

    def prepare(self, block: Block) -> None:
        """Write the file that a block ``guest``, ``patched`` or ``file`` is."""
        name, text = block.value, block.text
        if block.kind in ("guest", "patched"):
            qemu = prefix("qemu-7.2") / "bin" / "qemu-system-x86_64" if block.kind == "patched" else None
            devices = emulator(qemu) if qemu else ""
            name, text = f"{name}.xml", guest_xml(name, text, workdir=self._directory, devices_xml=devices)
        (self._directory / name).write_text(text)

    def run(self, guest: str, command: str) -> str:
        """Run a command, on the host or in a guest, and return what it prints."""
        if guest:
            return self._guest(guest).run(f"{{ {command}\n}} 2>&1 || true", timeout=30)
        done = subprocess.run(
            ["sh", "-c", command], cwd=self._directory, env=self._environment, timeout=120, check=False,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        return done.stdout

    def _guest(self, name: str) -> Guest:
        dom = self._daemon.connect().lookupByName(name)
        guest = Guest(dom, console_path(name, self._directory), channel_path(name, self._directory))
        guest.wait_ready()
        return guest


@pytest.fixture
def switch(document: Path, request: pytest.FixtureRequest) -> Iterator[None]:
    """An Open vSwitch, for a document that has commands for one; no bridge of it is left afterwards."""
    if not re.search(r"^# ovs-vsctl", document.read_text(), re.MULTILINE):
        yield
        return
    ovs: PrivateOvs = request.getfixturevalue("libvirt_ovs")
    ovs.start_vswitchd()
    yield
    for bridge in ovs.vsctl("list-br").split():
        ovs.vsctl("del-br", bridge)


@pytest.fixture
def session(libvirt_daemon: PrivateDaemon, switch: None) -> Iterator[Session]:
    """A session, of which nothing is left afterwards: no domain and no bridge."""
    libvirt_daemon.start()
    before = set(os.listdir("/sys/class/net"))
    with short_directory() as directory:
        yield Session(directory, libvirt_daemon)
        for dom in libvirt_daemon.connect().listAllDomains():
            if (directory / f"{dom.name()}.xml").exists():
                remove_domain(dom)
    for device in set(os.listdir("/sys/class/net")) - before:
        if Path(f"/sys/class/net/{device}/bridge").exists() and not device.startswith("nicplug"):
            subprocess.run(["ip", "link", "delete", device], check=True)


def lines(text: str) -> list[str]:
    """Return a text's lines without what is volatile in them, and without empty ones."""
    for pattern, substitute in VOLATILE:
        text = re.sub(pattern, substitute, text)
    return [line.strip() for line in text.splitlines() if line.strip()]


RUNNABLE = [document for document in DOCUMENTS if any(block.kind == "run" for block in blocks(document))]


@pytest.mark.parametrize("document", RUNNABLE, ids=lambda path: path.name)
def test_the_session_is_true(document: Path, session: Session) -> None:
    for block in blocks(document):
        if block.kind in ("guest", "patched", "file"):
            session.prepare(block)
        if block.kind != "run":
            continue
        assert not COMMAND.sub("", block.text), f"{document.name}: what is before the first prompt?"
        for guest, command, told in COMMAND.findall(block.text):
            seen = session.run(guest, command)
            # A guest takes a moment to notice a carrier.
            deadline = time.monotonic() + 5
            while guest and lines(seen) != lines(told) and time.monotonic() < deadline:
                time.sleep(0.2)
                seen = session.run(guest, command)
            assert lines(seen) == lines(told), f"{document.name}: {guest}# {command}"
