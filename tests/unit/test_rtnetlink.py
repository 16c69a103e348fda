"""Requests to the kernel are what a netlink library makes of them, and its refusals are told in its words."""

from __future__ import annotations

import errno
import pickle
import struct
from collections.abc import Callable

import pytest
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.tcmsg import tcmsg

from nicplug_xml.host import rtnetlink
from nicplug_xml.host.rtnetlink import RefusedError, Rtnetlink, _require_done


class Recorder(Rtnetlink):
    """Keeps requests instead of making them."""

    def __init__(self) -> None:
        self.requests: list[tuple[int, int, bytes]] = []

    def _ask(self, kind: int, flags: int, body: bytes) -> list[bytes]:
        self.requests.append((kind, flags, body))
        return []


def decoded(decoder: type[ifinfmsg] | type[tcmsg], body: bytes) -> ifinfmsg | tcmsg:
    message = decoder(struct.pack("=IHHII", 16 + len(body), 0, 0, 0, 0) + body)
    message.decode()
    return message


def link(request: Callable[[Rtnetlink], None]) -> ifinfmsg:
    recorder = Recorder()
    request(recorder)
    ((_, _, body),) = recorder.requests
    return decoded(ifinfmsg, body)


def test_links() -> None:
    up = link(lambda kernel: kernel.set_flags(7, 0x1, 0x101))
    assert (up["index"], up["flags"], up["change"]) == (7, 0x1, 0x101)
    assert link(lambda kernel: kernel.set_alias(7, "nicplug: é")).get_attr("IFLA_IFALIAS") == "nicplug: é"
    assert link(lambda kernel: kernel.set_master(7, 9)).get_attr("IFLA_MASTER") == 9
    assert link(lambda kernel: kernel.delete(7))["index"] == 7


def test_an_isolated_port() -> None:
    info = link(lambda kernel: kernel.isolate(7, True)).get_attr("IFLA_LINKINFO")
    assert info.get_attr("IFLA_INFO_SLAVE_KIND") == "bridge"
    assert info.get_attr("IFLA_INFO_SLAVE_DATA").get_attr("IFLA_BRPORT_ISOLATED") == 1


@pytest.mark.parametrize(("mtu", "seen"), [(0, None), (1400, 1400)])
def test_a_macvlan(mtu: int, seen: int | None) -> None:
    made = link(lambda kernel: kernel.add_macvlan("v.np0", 5, "vepa", "52:54:00:00:00:01", mtu))
    assert (made.get_attr("IFLA_IFNAME"), made.get_attr("IFLA_LINK")) == ("v.np0", 5)
    assert (made.get_attr("IFLA_ADDRESS"), made.get_attr("IFLA_MTU")) == ("52:54:00:00:00:01", seen)
    info = made.get_attr("IFLA_LINKINFO")
    assert info.get_attr("IFLA_INFO_KIND") == "macvlan"
    assert info.get_attr("IFLA_INFO_DATA").get_attr("IFLA_MACVLAN_MODE") == "vepa"


def test_a_redirect() -> None:
    recorder = Recorder()
    recorder.redirect(7, 9)
    assert [kind for kind, _, _ in recorder.requests] == [36, 46, 44]
    clsact, _, filtering = (decoded(tcmsg, body) for _, _, body in recorder.requests)
    assert (clsact["index"], clsact.get_attr("TCA_KIND")) == (7, "clsact")
    assert (filtering["index"], filtering["parent"]) == (7, 0xFFFFFFF2)
    assert filtering["info"] == 0x6E70 << 16 | 0x0300  # priority, and all protocols in network order
    action = filtering.get_attr("TCA_OPTIONS").get_attr("TCA_U32_ACT").get_attr("TCA_ACT_PRIO_1")
    assert action.get_attr("TCA_ACT_KIND") == "mirred"
    mirred = action.get_attr("TCA_ACT_OPTIONS").get_attr("TCA_MIRRED_PARMS")
    assert (mirred["ifindex"], mirred["eaction"], mirred["action"]) == (9, 1, 4)


class Answering(Recorder):
    """Answers each request with the same messages, or refuses it."""

    def __init__(self, *answers: bytes, code: int = 0) -> None:
        super().__init__()
        self._answers, self._code = list(answers), code

    def _ask(self, kind: int, flags: int, body: bytes) -> list[bytes]:
        super()._ask(kind, flags, body)
        if self._code:
            raise RefusedError.of(self._code)
        return self._answers


def test_where_a_redirect_leads() -> None:
    recorder = Recorder()
    recorder.redirect(7, 9)
    made = recorder.requests[-1][2]
    answering = Answering(made)
    assert answering.redirected(7) == 9
    ((kind, flags, body),) = answering.requests
    asked = decoded(tcmsg, body)
    # For those of our priority: what a filter's handle is, depends on filters of others.
    assert (kind, flags, asked["handle"]) == (46, 0x300, 0)
    assert [asked[name] for name in ("index", "parent", "info")] == [
        decoded(tcmsg, made)[name] for name in ("index", "parent", "info")
    ]
    # What the kernel tells of the filter's table comes before it; or there is nothing.
    assert Answering(made[:20], made).redirected(7) == 9
    assert Answering(made[:20]).redirected(7) == 0
    assert Answering().redirected(7) == 0
    with pytest.raises(RefusedError, match="takes root"):
        Answering(code=errno.EPERM).redirected(7)


class Ending(Recorder):
    """Has a redirect, and no other filters."""

    def __init__(self) -> None:
        super().__init__()
        self.redirect(7, 9)
        self._made = self.requests[-1][2]
        self.requests.clear()

    def _ask(self, kind: int, flags: int, body: bytes) -> list[bytes]:
        super()._ask(kind, flags, body)
        ours = kind == 46 and decoded(tcmsg, body)["info"]
        return [self._made] if ours and hasattr(self, "_made") else []


def test_an_end_without_filters_of_others_leaves_nothing() -> None:
    ending = Ending()
    ending.stop_redirect(7)
    assert [kind for kind, _, _ in ending.requests] == [46, 45, 46, 46, 37]


def test_an_end_waits_for_who_looks_at_the_filters(monkeypatch: pytest.MonkeyPatch) -> None:
    class Looked(Ending):
        times = 3

        def _ask(self, kind: int, flags: int, body: bytes) -> list[bytes]:
            if kind == 37 and self.times:
                self.times -= 1
                raise RefusedError.of(errno.EBUSY)
            return super()._ask(kind, flags, body)

    looked = Looked()
    looked.stop_redirect(7)
    assert [kind for kind, _, _ in looked.requests] == [46, 45, 46, 46, 37]
    monkeypatch.setattr(rtnetlink, "_PATIENCE", 0)
    looked.times = 1000
    # What stays is empty, and does nothing.
    looked.stop_redirect(7)
    assert [kind for kind, _, _ in looked.requests[5:]] == [46, 45, 46, 46]


def test_a_device_that_is_gone_is_deleted() -> None:
    Answering(code=errno.ENODEV).delete(7)
    with pytest.raises(RefusedError, match="takes root"):
        Answering(code=errno.EPERM).delete(7)


def test_refusals() -> None:
    _require_done(struct.pack("=i", 0), 0)
    with pytest.raises(RefusedError, match=r"the kernel refuses: File exists"):
        _require_done(struct.pack("=i", -17) + bytes(16), 0x100)
    said = b"Invalid handle\0"
    words = struct.pack("=HH", 4 + len(said), 1) + said
    with pytest.raises(RefusedError, match=r"the kernel refuses: Invalid handle") as caught:
        _require_done(struct.pack("=i", -22) + bytes(16) + words, 0x300)
    assert caught.value.code == 22
    assert vars(pickle.loads(pickle.dumps(caught.value))) == vars(caught.value)
    with pytest.raises(RefusedError, match="takes root"):
        _require_done(struct.pack("=i", -1) + bytes(16), 0x100)
