"""What guests with the models of NICs that libvirt offers for x86 see of plugging, on each plane."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from nicplug_xml import NicplugError, attach_backend, define, detach_backend, set_link
from nicplug_xml.backends import bridge
from nicplug_xml.testing.commands import cache_directory, short_directory
from nicplug_xml.testing.guest import Guest, GuestImage, channel_path, console_path, guest_xml
from nicplug_xml.testing.namespace import run_outside

if TYPE_CHECKING:
    import libvirt

    from nicplug_xml.testing.plugin import BridgeFactory

MODELS = ("virtio", "e1000", "rtl8139")


@pytest.fixture(scope="session")
def image(libvirt_isolated: None) -> GuestImage:
    """A guest whose kernel has drivers for all models; built once, and kept."""
    place = cache_directory() / "guest-models"
    script = Path(__file__).parents[1] / "guest" / "build"
    run_outside(["sh", str(script), str(place), "linux-image-amd64"])
    return GuestImage(place / "vmlinux", place / "initrd")


@pytest.fixture
def guest_with(
    libvirt_embedded: libvirt.virConnect, image: GuestImage
) -> Iterator[Callable[[str, dict[str, str]], Guest]]:
    """A factory of guests on a plane, with a deferred NIC of each model."""
    guests: list[Guest] = []
    with short_directory() as directory:

        def make(plane: str, macs: dict[str, str]) -> Guest:
            nics = "".join(
                f"<interface connection='deferred'><mac address='{mac}'/><model type='{model}'/>"
                "<rom enabled='no'/></interface>"
                for model, mac in macs.items()
            )
            name = f"npmodels-{plane}"
            xml = guest_xml(name, nics, workdir=directory, memory_mib=256, image=image)
            dom = define(libvirt_embedded, xml, plane=plane)
            guests.append(Guest(dom, console_path(name, directory), channel_path(name, directory)))
            dom.create()
            guests[0].wait_ready(120)
            return guests[0]

        yield make
        for guest in guests:
            guest.remove()


@pytest.mark.parametrize("plane", ["tap", "hub"])
def test_every_model_tells_its_guest_the_truth(
    guest_with: Callable[[str, dict[str, str]], Guest],
    libvirt_bridge: BridgeFactory,
    new_mac: Callable[[], str],
    plane: str,
) -> None:
    blue, macs = libvirt_bridge("192.0.2.1/24"), {model: new_mac() for model in MODELS}
    guest = guest_with(plane, macs)
    seen: dict[str, list[str]] = {model: [] for model in MODELS}

    def look(state: str, model: str, up: bool) -> None:
        try:
            guest.wait_carrier(macs[model], up=up, timeout=10)
        except TimeoutError:
            seen[model].append(f"{state}: carrier {'down' if up else 'up'}")

    for model, mac in macs.items():
        look("at boot", model, up=False)
        attach_backend(guest.dom, mac, bridge.backend(blue.name))
        look("attached", model, up=True)
        guest.set_address(mac, "192.0.2.2/24")
        if not guest.ping("192.0.2.1", count=5):
            seen[model].append("attached: no answer")
        set_link(guest.dom, mac, up=False)
        look("link down", model, up=False)
        set_link(guest.dom, mac, up=True)
        look("link up", model, up=True)
        detach_backend(guest.dom, mac)
        look("detached", model, up=False)
        guest.run(f"ip addr flush dev {guest.nic(mac).name}")
    guest.dom.reset()
    guest.wait_ready(120)
    for model in MODELS:
        look("after a reset", model, up=False)
    assert seen == {model: [] for model in MODELS}


def test_a_model_that_would_lie_is_refused(libvirt_embedded: libvirt.virConnect, image: GuestImage) -> None:
    nic = "<interface connection='deferred'><model type='e1000e'/></interface>"
    with short_directory() as directory:
        xml = guest_xml("npmodels", nic, workdir=directory, image=image)
        with pytest.raises(NicplugError, match="'e1000e' does not tell its guest when the carrier goes"):
            define(libvirt_embedded, xml)
    assert not libvirt_embedded.listAllDomains()
