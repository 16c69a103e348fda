"""Reading libvirt's own XML in parts finds what reading it as a whole finds."""

from __future__ import annotations

from itertools import permutations

import pytest

from nicplug_xml import document, metadata
from nicplug_xml.document import Document, Element
from nicplug_xml.errors import SchemaError
from nicplug_xml.stock import interfaces_of, parse_domain, read_domain

#: As libvirt lays it out.
DOMAIN = """<domain type='qemu' id='1' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>vm1</name>
  <description>a &lt;devices&gt; b
  &lt;metadata&gt;</description>{metadata}
  <os>
    <cmdline>x
  &lt;devices&gt;</cmdline>
  </os>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <interface type='bridge'>
      <mac address='52:54:00:00:00:01'/>
      <source bridge='a &lt;interface b'/>
    </interface>
    <interface type='user'>
      <mac address='52:54:00:00:00:02'/>
    </interface>
    <input type='mouse' bus='ps2'/>
  </devices>
  <seclabel type='none'/>
  <qemu:commandline>
    <qemu:arg value='-netdev'/>
  </qemu:commandline>
</domain>
"""
OURS = """<nicplug:interfaces xmlns:nicplug="urn:nicplug:domain:1.0">
      <nicplug:interface mac="52:54:00:00:00:01" plane="tap"/>
    </nicplug:interfaces>"""
#: What others may have put beside ours.
OTHERS = (
    "",
    "<o:x xmlns:o='u'>\n  <devices>\n    <interface type='user'/>\n  </devices>\n</o:x>",
    "<o:x xmlns:o='u'><![CDATA[</metadata>\n  <devices>\n    <interface type='x'>\n    </interface>]]></o:x>",
    "<!--\n  </metadata>\n  <devices>\n  </devices>\n  <metadata>\n-->",
    "<o:x xmlns:o='u'><metadata>\n  <metadata/>\n</metadata></o:x>",
    "<qemu:x/>",
    "<?pi </metadata> <devices> ?>",
)


@pytest.fixture(autouse=True)
def skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have parts skipped that are as short as here."""
    monkeypatch.setattr(document, "_WORTH_IT", 0)


def found(domain: Element) -> list[str]:
    """Return what is asked of a domain, as text."""
    ours = metadata.find(domain)
    behind = [child.text for child in domain if child.tag not in ("metadata", "devices")][-2:]
    return ["" if ours is None else ours.text, *(nic.text for nic in interfaces_of(domain)), *behind]


@pytest.mark.parametrize("others", OTHERS)
@pytest.mark.parametrize("where", ["\n  <metadata>{}</metadata>", "\n  <metadata>\n    {}\n  </metadata>"])
def test_parts_are_the_whole(where: str, others: str) -> None:
    for content in (OURS + others, others + OURS):
        xml = DOMAIN.format(metadata=where.format(content))
        whole = found(Document(xml).root)
        assert len(whole) == 5
        assert whole[0] == OURS
        assert found(parse_domain(xml).root) == found(read_domain(xml)) == whole


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("", ""),
        ("<domain", "<!-- > --><domain"),
        ("\n  <devices>", "<devices>"),
        ("\n    <interface", "<interface"),
        ("\n    </interface>", "</interface>"),
        ("    <input type='mouse' bus='ps2'/>\n", "    <interface/>\n"),
        ("\n  </devices>", "</devices>"),
        ("\n  <metadata", "<metadata"),
        ("  <devices>", "  <!-- </os> -->\n  <devices>"),
        ("  <os>", "  <qemu:override/>\n  <os>"),
        ("\n  <seclabel type='none'/>", f"\n  <metadata>{OURS}</metadata>"),
    ],
)
def test_another_layout_is_read_as_a_whole(old: str, new: str) -> None:
    xml = DOMAIN.format(metadata="" if "seclabel" in old else f"\n  <metadata>{OURS}</metadata>")
    xml = xml.replace(old, new) if old else xml
    assert found(read_domain(xml)) == found(parse_domain(xml).root) == found(Document(xml).root)


@pytest.mark.parametrize("damage", ["'52:54:00:00:00:01'", "</domain>", "</nicplug:interfaces>"])
def test_what_is_malformed_is_refused(damage: str) -> None:
    xml = DOMAIN.format(metadata=f"\n  <metadata>{OURS}</metadata>")
    with pytest.raises(SchemaError):
        read_domain(xml.replace(damage, "", 1))


def test_the_order_of_a_domains_children_is_the_users() -> None:
    os = "<os><type>hvm</type></os>"
    devices = "<devices><interface type='user'/><disk><a/></disk></devices>"
    options = "<commandline xmlns='http://libvirt.org/schemas/domain/qemu/1.0'><arg value='x'/></commandline>"
    rest = "<features/><metadata/><name>x</name>"
    for parts in permutations((os, devices, options, rest)):
        xml = f"<domain>{''.join(parts)}</domain>"
        skipped, whole = parse_domain(xml).root, Document(xml).root
        for name in ("metadata", "name", "commandline"):
            one, other = skipped.find(name), whole.find(name)
            assert one is not None
            assert other is not None
            assert one.text == other.text
        assert [nic.text for nic in interfaces_of(skipped)] == [nic.text for nic in interfaces_of(whole)]
