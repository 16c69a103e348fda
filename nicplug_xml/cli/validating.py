"""``nicplug validate``: read the files, check each and all together, and report."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from nicplug_xml.cli.reports import FORMATS, Report
from nicplug_xml.errors import SchemaError
from nicplug_xml.frozen import replace

if TYPE_CHECKING:
    import argparse

    from nicplug_xml.model import Problem


def run(options: argparse.Namespace) -> int:
    """Validate files.

    :returns: 0 all are valid, 1 some are not, 2 some could not be read, or held against libvirt's schemas.
    """
    reports = [_read(name) for name in _names(options.files)]
    try:
        reports = _checked(reports, options.plane)
    except SchemaError as error:
        reports = [replace(report, unreadable=report.unreadable or str(error)) for report in reports]
    for report in reports:
        if report.unreadable:
            print(f"nicplug: error: {report.file}: {report.unreadable}", file=sys.stderr)
    print(FORMATS["json" if options.json else options.format](reports), end="")
    if any(report.unreadable for report in reports):
        return 2
    return int(any(report.problems for report in reports))


def _checked(reports: Sequence[Report], plane: str | None) -> list[Report]:
    from nicplug_xml.checks import check
    from nicplug_xml.schema import validate

    readable = [(report.file, report.data) for report in reports if not report.unreadable]
    together: dict[str, list[Problem]] = {}
    for file, problem in check(readable, plane):
        together.setdefault(file, []).append(problem)
    checked = []
    for report in reports:
        problems = [] if report.unreadable else validate(report.data)
        problems += together.get(report.file, [])
        problems.sort(key=lambda problem: (problem.line, problem.column))
        checked.append(replace(report, problems=tuple(problems)))
    return checked


def _names(given: Sequence[str]) -> Iterator[str]:
    """Yield each file once; patterns that the shell has left are expanded here."""
    import os
    from glob import glob, has_magic

    seen: set[str] = set()
    for name in given:
        names = [name]
        if has_magic(name) and not os.path.lexists(name):
            names = sorted(path for path in glob(name, recursive=True) if not os.path.isdir(path)) or names
        for one in names:
            if one not in seen:
                seen.add(one)
                yield one


def _read(name: str) -> Report:
    from glob import has_magic

    try:
        if name == "-":
            return Report(name, sys.stdin.buffer.read(), ())
        with open(name, "rb") as file:
            return Report(name, file.read(), ())
    except OSError as error:
        why = error.strerror or str(error)
        if isinstance(error, FileNotFoundError) and has_magic(name):
            why = "no file matches this pattern"
        elif isinstance(error, IsADirectoryError):
            why = f"{why}; name its files, as in '{name.rstrip('/')}/**/*.xml'"
        return Report(name, b"", (), why)
    except ValueError as error:  # a name with a NUL
        return Report(name, b"", (), str(error))
