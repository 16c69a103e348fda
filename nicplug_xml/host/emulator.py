"""What the QEMU of a domain that does not run yet can do: its program is asked, by QMP."""

from __future__ import annotations

import json
import os
import subprocess
from functools import lru_cache
from typing import TYPE_CHECKING

from nicplug_xml.document import Document
from nicplug_xml.errors import UnsupportedError
from nicplug_xml.host.connection import domain_capabilities, remote_host
from nicplug_xml.host.monitor import commands_of
from nicplug_xml.planes import swap

if TYPE_CHECKING:
    import libvirt

_QUESTIONS = ("qmp_capabilities", "query-qmp-schema", "quit")
_PATIENCE = 30


def require_replacing(conn: libvirt.virConnect, xml: str) -> None:
    """Check that the QEMU of a domain document can replace a NIC's netdev; on another host it is not asked.

    :raises UnsupportedError: it cannot, or does not run.
    """
    program = _emulator(conn, xml)
    if program and swap.COMMAND not in _commands(program):
        raise UnsupportedError(
            f"plane '{swap.NAME}' takes a QEMU that has {swap.COMMAND}, and {program} has not",
            hint="name one in <emulator> (patches/README.md), or use plane hub",
        )


def can_replace(conn: libvirt.virConnect, xml: str) -> bool:
    """Tell whether the QEMU of a domain document is known to replace a NIC's netdev."""
    program = _emulator(conn, xml)
    try:
        return bool(program) and swap.COMMAND in _commands(program)
    except UnsupportedError:
        return False


def _emulator(conn: libvirt.virConnect, xml: str) -> str:
    """Return the program that is to run a domain document; an empty string where it is not this host's."""
    if remote_host(conn):
        return ""
    root = Document(xml).root
    devices = root.find("devices")
    named = devices.find("emulator") if devices is not None else None
    if named is not None:
        return named.words
    capabilities = domain_capabilities(conn, xml)
    return "" if capabilities is None else capabilities.words_of("path")


def _commands(program: str) -> frozenset[str]:
    """Return the monitor commands of a QEMU.

    :raises UnsupportedError: it does not run.
    """
    try:
        return _asked(program, os.stat(program).st_mtime_ns)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        raise UnsupportedError(f"the QEMU {program} does not run: {error}") from error


@lru_cache
def _asked(program: str, _changed: int) -> frozenset[str]:
    done = subprocess.run(
        [program, "-machine", "none", "-nodefaults", "-display", "none", "-S", "-qmp", "stdio"],
        input="".join(json.dumps({"execute": question}) for question in _QUESTIONS),
        capture_output=True, check=True, text=True, timeout=_PATIENCE,
    )  # fmt: skip
    for reply in map(json.loads, done.stdout.splitlines()):
        if isinstance(reply, dict) and isinstance(schema := reply.get("return"), list):
            return commands_of(schema)
    raise ValueError("it does not tell what it can do")
