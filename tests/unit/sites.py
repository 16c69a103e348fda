"""What is true of domains that exist in a document only, for the planner."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from nicplug_xml.errors import NotFoundError
from nicplug_xml.facts import Facts
from nicplug_xml.model import Scope
from nicplug_xml.planner import Site
from nicplug_xml.rewrite import to_stock
from nicplug_xml.stock import parse_domain
from nicplug_xml.view import View, view

NETWORK = "<network><name>n</name><forward mode='nat'/><bridge name='virbr0'/></network>"
POOL = "<network><name>pool</name><forward mode='passthrough' dev='eth0'/></network>"
SWITCHED = """<network><name>switched</name><forward mode='bridge'/><bridge name='ovs0'/>
<virtualport type='openvswitch'/></network>"""
LIMITED = """<network><name>limited</name><forward mode='bridge'><interface dev='eth0'/></forward>
<portgroup name='slow' default='yes'><bandwidth><inbound average='9'/></bandwidth></portgroup></network>"""
RULES = """<network><name>rules</name><forward mode='bridge'/><bridge name='br9'/><port isolated='yes'/>
<portgroup name='g'><bandwidth> <inbound average='9'/> </bandwidth></portgroup></network>"""
NETWORKS = {
    "n": NETWORK, "default": NETWORK, "pool": POOL, "switched": SWITCHED, "limited": LIMITED, "rules": RULES,
}  # fmt: skip
OTHER_END = "<interface connection='deferred'><mac address='{}'/><target dev='vnet1'/></interface>"


@dataclass(frozen=True)
class Around:
    """A `nicplug_xml.planner.Surroundings` with networks of several kinds."""

    kind: str = "network"
    mtus: Mapping[str, int] = field(default_factory=dict)

    def parking(self) -> str:
        return self.kind

    def mtu(self, device: str) -> int:
        return self.mtus.get(device, 0)

    def other_end(self, domain: str, interface: str) -> Site:
        stock = to_stock(
            f"<domain><name>{domain}</name><devices>{OTHER_END.format(interface)}</devices></domain>"
        )
        now = seen(stock)
        return Site(domain, Scope.LIVE, now.interfaces[0], now, self)

    def network(self, name: str, *, active: bool = True) -> str:
        if name not in NETWORKS:
            raise NotFoundError(f"there is no network '{name}'")
        return NETWORKS[name]


def seen(stock: str, netdevs: Collection[str] | None = None, **joints: object) -> View:
    """Return what is true of a stock domain, given its QEMU's netdevs and what its taps are joined to."""
    return view(parse_domain(stock).root, Facts(netdevs, joints))  # type: ignore[arg-type]


def site_of(now: View, scope: Scope = Scope.LIVE, parking: str = "network") -> Site:
    """Return the first interface of a domain ``vm1``."""
    return Site("vm1", scope, now.interfaces[0], now, Around(parking))
