"""The public API is complete, and what is not used is not imported."""

from __future__ import annotations

import subprocess
import sys

import pytest

import nicplug_xml


def test_all_names_are_there_sorted() -> None:
    assert nicplug_xml.__all__ == sorted(nicplug_xml.__all__)
    assert dir(nicplug_xml) == nicplug_xml.__all__
    for name in nicplug_xml.__all__:
        assert getattr(nicplug_xml, name).__doc__
    with pytest.raises(AttributeError, match="nonsense"):
        nicplug_xml.nonsense  # noqa: B018


@pytest.mark.parametrize(
    ("code", "unwanted"),
    [
        ("import nicplug_xml.cli.main", "typing argparse libvirt lxml pyroute2 dataclasses"),
        (
            "import nicplug_xml.cli.commands",
            "lxml pyroute2 libvirt dataclasses inspect socket subprocess struct threading zlib",
        ),
        ("import nicplug_xml as n; n.to_stock('<a/>')", "lxml pyroute2 libvirt"),
        ("import nicplug_xml.testing.plugin", "lxml pyroute2 libvirt"),
    ],
)
def test_imports_stay_where_they_are_used(code: str, unwanted: str) -> None:
    check = f"{code}; import sys; print(*sorted(set({unwanted.split()}) & set(sys.modules)))"
    ran = subprocess.run(
        [sys.executable, "-S", "-c", f"import sys; sys.path[:0] = {sys.path!r}; {check}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout.split() == []


@pytest.mark.parametrize("module", ["model", "rewrite", "plan", "planner", "document", "metadata", "stock"])
def test_the_core_knows_no_host(module: str) -> None:
    code = (
        f"import nicplug_xml.{module}, sys; "
        "print(*[m for m in sys.modules if m.startswith('nicplug_xml.host')], *{'libvirt', 'pyroute2'}"
        " & set(sys.modules))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == []
