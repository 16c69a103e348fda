"""The public API is complete, and what is not used is not imported."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import nicplug_xml
from nicplug_xml import Backend, SchemaError
from nicplug_xml.cli.main import main

ROOT = Path(__file__).parents[2]


def test_all_names_are_there_sorted() -> None:
    assert nicplug_xml.__all__ == sorted(nicplug_xml.__all__)
    assert dir(nicplug_xml) == nicplug_xml.__all__
    for name in nicplug_xml.__all__:
        assert getattr(nicplug_xml, name).__doc__
    with pytest.raises(AttributeError, match="nonsense"):
        nicplug_xml.nonsense  # noqa: B018


def test_type_checkers_know_the_names_and_no_others() -> None:
    pytest.importorskip("mypy")
    program = f"from nicplug_xml import {', '.join(nicplug_xml.__all__)}, nonsense"
    command = [sys.executable, "-m", "mypy", "--strict", "-c", program]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.stdout.startswith('<string>:1: error: Module "nicplug_xml" has no attribute "nonsense"')
    assert "Found 1 error" in ran.stdout


FUNCTIONS = [name for name in nicplug_xml.__all__ if inspect.isfunction(getattr(nicplug_xml, name))]
CLASSES = [name for name in nicplug_xml.__all__ if hasattr(getattr(nicplug_xml, name), "_fields")]


def documented(docstring: str | None) -> list[str]:
    return re.findall(r"^\s*:param (\w+):", docstring or "", re.MULTILINE)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_docstrings_say_what_is_taken_returned_and_raised(name: str) -> None:
    function = getattr(nicplug_xml, name)
    said = function.__doc__
    assert ":returns: " in said
    if other := re.search(r"that `(\w+)` carries out; arguments and errors as there\.", said):
        same = inspect.signature(getattr(nicplug_xml, other[1])).parameters
        assert inspect.signature(function).parameters == same
        return
    assert documented(said) == list(inspect.signature(function).parameters)
    assert re.search(r":raises \w+: ", said)


@pytest.mark.parametrize("name", CLASSES)
def test_docstrings_say_what_the_fields_are(name: str) -> None:
    cls = getattr(nicplug_xml, name)
    assert documented(cls.__doc__) == list(cls._fields)
    for member, value in vars(cls).items():
        if not member.startswith("_") and callable(getattr(value, "__func__", value)):
            function = getattr(cls, member)
            taken = [one for one in inspect.signature(function).parameters if one != "self"]
            assert all(one in function.__doc__ for one in taken), member


def test_every_name_is_in_the_reference() -> None:
    document = (ROOT / "docs" / "api.md").read_text()
    listed = re.findall(r"^\.\. auto\w+:: (\w+)$", document, re.MULTILINE)
    assert sorted(listed) == nicplug_xml.__all__


@pytest.mark.parametrize("link", ["Down", "", "no", True, False])
def test_a_link_is_up_or_down(link: Any) -> None:
    with pytest.raises(SchemaError, match="say 'up' or 'down', or None"):
        nicplug_xml.plan_attach(None, "net0", link=link)


@pytest.mark.parametrize("up", ["down", "up", "", None])
def test_a_link_is_set_by_a_truth_value(up: Any) -> None:
    with pytest.raises(SchemaError, match="say True for up"):
        nicplug_xml.plan_set_link(None, "net0", up)


@pytest.mark.parametrize(
    ("backend", "said"),
    [
        (
            Backend("bridge", ("<source bridge='b'/>", "<model type='e1000'/>")),
            "<model> is no part of a backend",
        ),
        (Backend("bridge", ("<source bridge='b'",)), "not well-formed"),
        (Backend("bridge", ("</backend><backend>",)), "not well-formed"),
        (Backend(None), "<backend> has no type"),
    ],
)
def test_a_backend_that_is_made_by_hand_is_read(backend: Backend, said: str) -> None:
    with pytest.raises(SchemaError, match=said):
        nicplug_xml.plan_attach(None, "net0", backend)


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


def test_libvirts_libraries_are_loaded_meanwhile() -> None:
    code = """
import sys, threading
from nicplug_xml.cli.main import _load_libvirt
_load_libvirt()
def libraries():
    files = {name: str(getattr(module, "__file__", "")) for name, module in sys.modules.items()}
    return {name for name, file in files.items() if file.endswith(".so")}
before = libraries()
import nicplug_xml.cli.commands
more = libraries() - before
[thread.join() for thread in threading.enumerate() if thread is not threading.main_thread()]
print("/libvirt.so." in open("/proc/self/maps").read(), "libvirt" in sys.modules, *more)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    # A library that one of our own modules needs would have the main thread wait for the other one.
    assert ran.stdout == "True False\n"


@pytest.mark.parametrize(
    ("arguments", "loaded"),
    [(("-c", "test:///default", "list"), True), (("completion", "bash"), False), (("list", "--help"), False)],
)
def test_who_needs_libvirt_has_it_loaded(
    arguments: tuple[str, ...], loaded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []
    monkeypatch.setattr("nicplug_xml.cli.main._load_libvirt", lambda: asked.append(True))
    assert main(arguments) == 0
    assert bool(asked) is loaded


@pytest.mark.parametrize("module", ["model", "rewrite", "plan", "planner", "document", "metadata", "stock"])
def test_the_core_knows_no_host(module: str) -> None:
    code = (
        f"import nicplug_xml.{module}, sys; "
        "print(*[m for m in sys.modules if m.startswith('nicplug_xml.host')], *{'libvirt', 'pyroute2'}"
        " & set(sys.modules))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == []
