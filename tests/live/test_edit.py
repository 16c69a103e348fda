"""`nicplug edit` with sed for an editor: on a real definition, and on a running guest's NIC."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from nicplug_xml import NotFoundError, UnsupportedError, attach_backend, define, interfaces, set_link
from nicplug_xml.backends import bridge
from nicplug_xml.cli.editor import Terminal, definition, live_interface
from nicplug_xml.cli.main import main
from nicplug_xml.editing import AbandonedError, edit
from tests.live.conftest import everything, master

if TYPE_CHECKING:
    import libvirt

    from nicplug_xml.testing.daemon import PrivateDaemon
    from nicplug_xml.testing.guest import Guest
    from nicplug_xml.testing.plugin import BridgeFactory, GuestFactory

NewMac = Callable[[], str]
SECURE, INACTIVE = 1, 2
MAC = "52:54:00:00:ed:17"


@pytest.fixture
def type_in(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> Callable[..., Path]:
    """Set what the editor does, as sed knows it, and what is answered; returns where texts are kept."""

    def set_up(script: str, answers: str = "") -> Path:
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
        monkeypatch.setenv("VISUAL", f'sed -i -e "{script}"')
        monkeypatch.setattr("sys.stdin", io.StringIO(answers))
        return tmp_path / "nicplug"

    return set_up


@pytest.fixture
def dom(libvirt_embedded: libvirt.virConnect, nic_xml: Callable[..., str]) -> Iterator[libvirt.virDomain]:
    """A domain that is defined, and does not run."""
    xml = f"""<domain type='qemu'><name>edit-me</name><memory>65536</memory><os><type>hvm</type></os>
      <devices><graphics type='vnc' passwd='secret'/>{nic_xml(MAC)}</devices></domain>"""
    dom = define(libvirt_embedded, xml)
    yield dom
    dom.undefine()


def test_definition(dom: libvirt.virDomain, type_in: Callable[..., Path]) -> None:
    subject = definition(dom, dom.connect())

    kept = type_in("s/^/&/")
    assert edit(subject, Terminal("vm")) == "domain 'edit-me' was not changed"
    assert list(kept.iterdir()) == []

    kept = type_in(
        f"s|<mac address='{MAC}'/>|&<source bridge='br7'/>|; s/ connection='deferred'/ type='bridge'&/"
    )
    assert edit(subject, Terminal("vm")) == "Domain 'edit-me' was edited"
    (status,) = interfaces(dom, inactive=True)
    assert status.backend is not None
    assert (status.plane, status.backend.source["bridge"]) == ("tap", "br7")
    assert "passwd='secret'" in dom.XMLDesc(SECURE), "a password is not lost"
    assert list(kept.iterdir()) == []


def test_invalid_definition(
    dom: libvirt.virDomain,
    type_in: Callable[..., Path],
    capfd: pytest.CaptureFixture[str],
) -> None:
    before = dom.XMLDesc(INACTIVE)
    subject = definition(dom, dom.connect())
    for answers in ("abandon\n", "?\na\n", ""):  # the last: nobody is there to be asked
        kept = type_in("s/deferred/defered/", answers)
        with pytest.raises(AbandonedError, match=r"this is not valid \(1 problem\); nothing was changed"):
            edit(subject, Terminal("vm"))
        (text,) = kept.iterdir()
        assert "defered" in text.read_text()
        assert text.stat().st_mode & 0o077 == 0
        said = capfd.readouterr().err
        assert "did you mean 'deferred'?" in said
        assert f"what you wrote is kept in {text}" in said
        text.unlink()
    assert dom.XMLDesc(INACTIVE) == before

    # By force libvirt gets it, which drops what it does not know.
    kept = type_in("s|</devices>|<nonsense/>&|", "force\n")
    edit(subject, Terminal("vm"))
    assert "nonsense" not in dom.XMLDesc(INACTIVE)
    assert list(kept.iterdir()) == []


def test_editor_that_fails(
    dom: libvirt.virDomain,
    type_in: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kept = type_in("")
    for command, why in (("false", "exit code 1"), ("/nowhere/vi", "cannot be started: No such file")):
        monkeypatch.setenv("VISUAL", command)
        with pytest.raises(Exception, match=why):
            edit(definition(dom, dom.connect()), Terminal("vm"))
        assert list(kept.iterdir()) == []


def test_live_interface(
    deferred_guest: Callable[..., Guest],
    libvirt_bridge: BridgeFactory,
    new_mac: NewMac,
    type_in: Callable[..., Path],
) -> None:
    mac, blue = new_mac(), libvirt_bridge("192.0.2.1/24")
    guest = deferred_guest(mac)
    guest.set_address(mac, "192.0.2.2/24")
    config = guest.dom.XMLDesc(INACTIVE)

    kept = type_in(
        "s/ connection='deferred'/ type='bridge' connection='attached'/;"
        f" s|<mac address=.*|&<source bridge='{blue}'/>|"
    )
    said = edit(live_interface(guest.dom, mac), Terminal("vm"))
    (status,) = interfaces(guest.dom)
    assert said == f"{status.target} of {guest.dom.name()} is plugged into bridge {blue}, link up"
    assert master(status.target) == str(blue)
    assert guest.ping("192.0.2.1", count=5)
    assert guest.dom.XMLDesc(INACTIVE) == config, "the definition was not touched"

    # By its target now, and one thing only.
    type_in("/<link /d; s|<model|<link state='down'/>&|")
    edit(live_interface(guest.dom, status.target), Terminal("vm"))
    guest.wait_carrier(mac, up=False)
    assert interfaces(guest.dom)[0].link == "down"
    assert list(kept.iterdir()) == []


def test_live_interface_that_shares_its_mac(
    libvirt_guest: GuestFactory, libvirt_bridge: BridgeFactory, new_mac: NewMac, type_in: Callable[..., Path]
) -> None:
    mac, blue = new_mac(), libvirt_bridge()
    nic = f"<interface type='bridge'><mac address='{mac}'/><source bridge='{blue}'/></interface>"
    guest = libvirt_guest(nic * 2, timeout=None)
    first, second = (status.target for status in interfaces(guest.dom))
    for name, state in ((second, "down"), (first, "down"), (second, "up")):
        type_in(f"/<link /d; s|<model|<link state='{state}'/>&|")
        said = edit(live_interface(guest.dom, name), Terminal("vm"))
        assert said == f"{name} of {guest.name} is plugged into bridge {blue}, link {state}"
    assert [status.link for status in interfaces(guest.dom)] == ["down", "up"]
    assert set_link(guest.dom, second, False).target == second
    assert [status.link for status in interfaces(guest.dom)] == ["down", "down"]


def test_live_interface_that_cannot_be_so(
    deferred_guest: Callable[..., Guest],
    new_mac: NewMac,
    type_in: Callable[..., Path],
    capfd: pytest.CaptureFixture[str],
) -> None:
    mac = new_mac()
    guest = deferred_guest(mac, timeout=None)
    before = everything(guest.dom)
    for script, why in (
        ("s/type='virtio'/type='e1000'/", "while the domain runs"),
        (f"s/{mac}/52:54:00:99:99:99/", "the MAC was"),
        ("s/virtio/&'>/", "this is not valid"),
    ):
        kept = type_in(script)
        with pytest.raises(AbandonedError, match=why):
            edit(live_interface(guest.dom, mac), Terminal("vm"))
        (text,) = kept.iterdir()
        text.unlink()
    assert everything(guest.dom) == before
    with pytest.raises(NotFoundError, match="has no interface 'nope'"):
        live_interface(guest.dom, "nope")


def test_changed_meanwhile(
    deferred_guest: Callable[..., Guest],
    libvirt_bridge: BridgeFactory,
    new_mac: NewMac,
    type_in: Callable[..., Path],
    capfd: pytest.CaptureFixture[str],
) -> None:
    mac, blue = new_mac(), libvirt_bridge()
    guest = deferred_guest(mac, timeout=None)
    kept = type_in("s|<model|<link state='down'/>&|", "a\n")

    class Meanwhile(Terminal):
        def edit(self) -> None:
            super().edit()
            attach_backend(guest.dom, mac, bridge.backend(str(blue)))

    with pytest.raises(AbandonedError, match="was changed meanwhile"):
        edit(live_interface(guest.dom, mac), Meanwhile("vm"))
    assert f"+  <source bridge='{blue}'/>" in capfd.readouterr().err
    assert interfaces(guest.dom)[0].link == "up"
    (text,) = kept.iterdir()
    assert "<link state='down'/>" in text.read_text()


def test_transient_domain(deferred_guest: Callable[..., Guest], new_mac: NewMac) -> None:
    guest = deferred_guest(new_mac(), transient=True, timeout=None)
    with pytest.raises(UnsupportedError, match="is transient"):
        definition(guest.dom, guest.dom.connect())


def test_command(
    libvirt_daemon: PrivateDaemon, type_in: Callable[..., Path], capfd: pytest.CaptureFixture[str]
) -> None:
    conn = libvirt_daemon.connect()
    xml = "<domain type='qemu'><name>edit-me</name><memory>65536</memory><os><type>hvm</type></os></domain>"
    dom = conn.defineXML(xml)
    try:
        command = ["-c", libvirt_daemon.uri, "edit", "edit-me"]
        type_in("s/<name>.*/&<title>edited<\\/title>/")
        assert main(command) == 0
        assert capfd.readouterr().out == "Domain 'edit-me' was edited\n"
        assert "<title>edited</title>" in dom.XMLDesc()
        type_in("s/<memory.*/<memry\\/>/")
        assert main(command) == 1
        error = capfd.readouterr().err.splitlines()[-1]
        assert error == "nicplug: error: this is not valid (2 problems); nothing was changed"
        assert main([*command, "--live", "vnet0"]) == 1
        assert "is not running; start it, or edit its definition" in capfd.readouterr().err
    finally:
        dom.undefine()
