"""nicplug(1): what the parsers of the command line say, as a manual page."""

from __future__ import annotations

import argparse

from roff import bold, escape, example, page

from nicplug_xml.cli.arguments import COMMANDS, command_parser, help_text

_ENVIRONMENT = (
    ("LIBVIRT_DEFAULT_URI", "The libvirt connection URI when there is no --connect, as for virsh."),
    ("NO_COLOR", "Where it is set and not empty, there are no colours on a terminal either."),
    ("NICPLUG_LIBVIRT_SCHEMAS", "The directory of libvirt's schemas, when it is not the installed one."),
)


def render(version: str) -> str:
    """Return the page."""
    summary, options, examples, exit_codes = _top()
    body = [".SH SYNOPSIS", escape("nicplug [-c URI] [--json] COMMAND [ARGUMENT...]")]
    body += [".SH DESCRIPTION", escape(summary)]
    body += ["What the XML and the documents are, is in", ".BR nicplug\\-xml (7)."]
    body += [".SH OPTIONS", *options, ".SH COMMANDS"]
    for name in COMMANDS:
        body += _command(name)
    body += [".SH EXIT STATUS", escape(exit_codes), ".SH ENVIRONMENT"]
    for name, about in _ENVIRONMENT:
        body += [".TP", bold(name), escape(about)]
    body += [".SH EXAMPLES", *example(examples)[1:]]
    body += [".SH SEE ALSO", ".BR nicplug\\-xml (7),", ".BR virsh (1),", ".BR libvirtd (8)"]
    return page(
        "nicplug", 1, version, "plug, move and unplug the NICs of libvirt guests while they run", body
    )


def _top() -> tuple[str, list[str], list[str], str]:
    """Return of ``nicplug --help``: what it is, options, examples, and the exit codes."""
    sections = help_text().split("\n\n")
    titled = {title: text for title, _, text in (section.partition(":\n") for section in sections) if text}
    options = []
    for line in titled["options"].splitlines():
        option, about = line.strip().split("  ", 1)
        options += [".TP", bold(option), escape(about.strip())]
    examples = [line[2:] for line in titled["examples"].splitlines()]
    return sections[1], options, examples, sections[-1].removeprefix("Exit codes: ")


def _command(name: str) -> list[str]:
    summary, examples, _ = COMMANDS[name]
    parser = command_parser(name)
    parser.formatter_class = lambda prog: argparse.HelpFormatter(prog, width=10_000)
    usage = parser.format_usage().removeprefix("usage: ").strip()
    lines = [f".SS {name}", escape(usage), ".PP", escape(f"{summary[0].upper()}{summary[1:]}.")]
    for action in parser._actions:
        if action.dest in ("connect", "json", "help"):
            continue  # said once, above
        lines += [".TP", _named(action), escape(_about(action)) or "\\&"]
    return lines + example(examples.splitlines())


def _named(action: argparse.Action) -> str:
    value = action.metavar or ("{" + ",".join(map(str, action.choices)) + "}" if action.choices else None)
    value = value or action.dest.upper()
    if not action.option_strings:
        return bold(str(value))
    taken = "" if action.nargs == 0 else f" {escape(str(value))}"
    return ", ".join(bold(option) for option in action.option_strings) + taken


def _about(action: argparse.Action) -> str:
    said = (action.help or "").replace("%(default)s", str(action.default))
    choices = f"one of {', '.join(map(str, action.choices))}" if action.choices and action.metavar else ""
    return ". ".join(part[0].upper() + part[1:] for part in (said, choices) if part)
