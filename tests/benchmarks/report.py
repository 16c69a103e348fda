"""Figures as a table: for a terminal, and for docs/benchmarks.md."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from figures import HEADERS, Figure

from nicplug_xml.cli.output import table
from nicplug_xml.testing.commands import run

_ROOT = Path(__file__).parents[2]
DOCS = _ROOT / "docs" / "benchmarks.md"
PICTURE = _ROOT / "docs" / "swap.svg"
_BEGIN = "<!-- figures: written by 'make bench', down to the next mark -->\n"
_END = "<!-- end of figures -->\n"


def summary(figures: Sequence[Figure], seconds: float) -> str:
    """Say in one line what the numbers are, and how many goals are met."""
    goals = [figure for figure in figures if figure.met is not None]
    met = sum(figure.met is True for figure in goals)
    return f"Medians, p95 in brackets. {met} of {len(goals)} goals met; {seconds:.0f} s in all."


def plain(figures: Sequence[Figure]) -> str:
    """Return the table for a terminal."""
    return table([figure.row() for figure in figures], HEADERS)


def write_docs(figures: Sequence[Figure], seconds: float, options: str) -> None:
    """Put the table, and what it was measured on, into docs/benchmarks.md in the place of the last one.

    :param options: those that the program was run with.
    :raises ValueError: the marks are not there.
    """
    text = DOCS.read_text()
    before, begin, rest = text.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not (begin and end):
        raise ValueError(f"{DOCS} has no marks for the table")
    rows = [HEADERS, ("---",) * len(HEADERS), *(figure.row() for figure in figures)]
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |\n" for row in rows]
    run_on = f"{_machine(options)}\n\n{''.join(lines)}\n{summary(figures, seconds)}\n"
    DOCS.write_text(f"{before}{begin}{run_on}{end}{after}")


def _machine(options: str) -> str:
    """Say when and where this was measured."""
    qemu = run(["qemu-system-x86_64", "--version"]).splitlines()[0].split()[3]
    switch = run(["ovs-vswitchd", "--version"]).splitlines()[0].split()[-1]
    libvirt = run(["libvirtd", "--version"]).split()[-1]
    with open("/etc/os-release") as file:
        names = dict(line.rstrip().split("=", 1) for line in file if "=" in line)
    system = names["PRETTY_NAME"].strip('"')
    return (
        f"{time.strftime('%-d %B %Y')}, {options or 'without options'}, {_commit()}:"
        f" {os.cpu_count()} processors, guests without KVM (under TCG, QEMU's own emulation); {system}, Linux"
        f" {platform.release().partition('-')[0]}, libvirt {libvirt}, QEMU {qemu}, Open vSwitch {switch},"
        f" Python {platform.python_version()}."
    )


def _commit() -> str:
    git = ["git", "-C", str(_ROOT)]
    try:
        commit = subprocess.check_output([*git, "rev-parse", "--short", "HEAD"], text=True).strip()
        changed = subprocess.check_output([*git, "status", "--porcelain", "-uno"], text=True)
    except (OSError, subprocess.CalledProcessError):
        return "no commit"
    return f"commit {commit}" + (" and changes" if changed else "")
