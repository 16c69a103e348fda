"""What ``nicplug validate`` prints: problems as text, JSON, annotations of GitHub's, JUnit XML."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence

from nicplug_xml.document import decode
from nicplug_xml.errors import NicplugError
from nicplug_xml.frozen import Frozen
from nicplug_xml.model import Problem

#: Columns of a source line that are shown, and of what is allowed.
_WIDTH = 100
_MOST_ALLOWED = 300

_TOKEN = re.compile(r"""[^\s=<>/]+\s*=\s*("[^"]*"|'[^']*')|</?[^\s<>/]+|\S""")


class Report(Frozen):
    """What was found in one file.

    :param file: its name.
    :param data: its bytes.
    :param problems: what is wrong with it.
    :param unreadable: why it could not be read or checked, or an empty string.
    """

    file: str
    data: bytes
    problems: tuple[Problem, ...]
    unreadable: str = ""


def text(reports: Sequence[Report]) -> str:
    """Return each problem with the line of the source, and a mark below it."""
    return "".join(f"{_block(report, problem)}\n" for report in reports for problem in report.problems)


def as_json(reports: Sequence[Report]) -> str:
    """Return a list of problems, as ``docs/validate.md`` describes them."""
    problems = [
        {
            "file": report.file,
            "line": problem.line,
            "column": problem.column,
            "path": problem.path,
            "code": problem.code,
            "message": problem.message,
            "hint": problem.hint,
            "allowed": list(problem.allowed),
        }
        for report in reports
        for problem in report.problems
    ]
    return json.dumps(problems, indent=2) + "\n"


def github(reports: Sequence[Report]) -> str:
    """Return workflow commands, which GitHub shows beside the lines of a pull request."""
    lines = []
    for report in reports:
        file = _escaped(report.file, in_property=True)
        if report.unreadable:
            lines.append(f"::error file={file},title=nicplug (unreadable)::{_escaped(report.unreadable)}")
        for problem in report.problems:
            column = f",col={problem.column}" * bool(problem.column)
            place = f"file={file},line={problem.line}{column},title=nicplug ({problem.code})"
            message = _escaped(f"{_sentence(problem)}\nat {problem.path}{_allowed(problem)}")
            lines.append(f"::error {place}::{message}")
    return "".join(f"{line}\n" for line in lines)


def junit(reports: Sequence[Report]) -> str:
    """Return a test suite: a case for each file, which fails when there are problems in it."""
    from xml.etree import ElementTree

    suite = ElementTree.Element(
        "testsuite",
        name="nicplug validate",
        tests=str(len(reports)),
        failures=str(sum(bool(report.problems) for report in reports)),
        errors=str(sum(bool(report.unreadable) for report in reports)),
    )
    for report in reports:
        case = ElementTree.SubElement(
            suite, "testcase", classname="nicplug.validate", name=_printable(report.file)
        )
        if report.unreadable:
            ElementTree.SubElement(case, "error", type="unreadable", message=_printable(report.unreadable))
        if report.problems:
            # A case has one failure at most, as most readers of the format see it.
            first, codes = report.problems[0], sorted({problem.code for problem in report.problems})
            more = f" (and {len(report.problems) - 1} more)" if len(report.problems) > 1 else ""
            message = _printable(f"{first}{more}")
            failure = ElementTree.SubElement(case, "failure", type=", ".join(codes), message=message)
            failure.text = _printable(text([report]))
    ElementTree.indent(suite)
    return "<?xml version='1.0' encoding='UTF-8'?>\n" + ElementTree.tostring(suite, encoding="unicode") + "\n"


#: How the reports of a run are printed, by the names that ``--format`` knows.
FORMATS: dict[str, Callable[[Sequence[Report]], str]] = {
    "text": text,
    "json": as_json,
    "github": github,
    "junit": junit,
}


def _sentence(problem: Problem) -> str:
    return problem.message + (f"; {problem.hint}" if problem.hint else "")


def _allowed(problem: Problem) -> str:
    if not problem.allowed:
        return ""
    words = ", ".join(problem.allowed)
    if len(words) > _MOST_ALLOWED:
        words = words[:_MOST_ALLOWED].rpartition(",")[0] + ", …"
    return f"; allowed there: {words}"


def _block(report: Report, problem: Problem) -> str:
    place = f"{problem.line}:{problem.column}" if problem.column else str(problem.line)
    lines = [f"{report.file}:{place}: {_sentence(problem)} [{problem.code}]", *_marked(report.data, problem)]
    lines.append(f"    at {problem.path}{_allowed(problem)}")
    return "\n".join(lines)


def _marked(data: bytes, problem: Problem) -> list[str]:
    """Return the line of the source, and below it a caret; nothing where the line is not known."""
    source = _lines(data)
    if not 0 < problem.line <= len(source):
        return []
    # What is no XML may have anything in it, for a terminal as well.
    line, at = _printable(source[problem.line - 1].rstrip()), problem.column - 1
    if not 0 <= at < len(line):
        return [f"    {line[:_WIDTH].strip()}"]
    found = _TOKEN.match(line, at)
    end = found.end() if found else at + 1
    # Of a long line the part around the place is shown.
    start = max(0, min(at - _WIDTH // 2, len(line) - _WIDTH)) if len(line) > _WIDTH else 0
    shown = line[start : start + _WIDTH]
    indent = len(shown) - len(shown.lstrip())
    before = "".join("\t" if char == "\t" else " " for char in shown[indent : at - start])
    mark = "^" + "~" * (min(end, start + _WIDTH) - at - 1)
    return [f"    {shown[indent:]}", f"    {before}{mark}"]


def _lines(data: bytes) -> list[str]:
    try:
        source = decode(data)[0]
    except NicplugError:
        source = data.decode("utf-8", "replace")
    return source.removeprefix("\ufeff").split("\n")


def _escaped(value: str, *, in_property: bool = False) -> str:
    for raw, escaped in (("%", "%25"), ("\r", "%0D"), ("\n", "%0A")):
        value = value.replace(raw, escaped)
    return value.replace(":", "%3A").replace(",", "%2C") if in_property else value


def _printable(value: str) -> str:
    """Return a text without what no XML document can hold."""
    return re.sub("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\ufffd", value)
