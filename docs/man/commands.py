"""What the parsers of the command line say: as the manual page nicplug(1), and as docs/commands.md."""

from __future__ import annotations

import argparse

from roff import bold, escape, example, page

from nicplug_xml.cli.arguments import COMMANDS, command_parser, help_text

#: Said once for all commands.
_GLOBAL = ("connect", "json", "help")

_ENVIRONMENT = (
    (
        "VIRSH_DEFAULT_CONNECT_URI, LIBVIRT_DEFAULT_URI",
        "The libvirt connection URI when there is no --connect, as for virsh: the first that is set.",
    ),
    ("NO_COLOR", "Where it is set and not empty, there are no colours on a terminal either."),
    ("NICPLUG_LIBVIRT_SCHEMAS", "The directory of libvirt's schemas, when it is not the installed one."),
    ("OVS_RUNDIR", "The directory of Open vSwitch's db.sock; else /var/run/openvswitch."),
    ("VISUAL, EDITOR", "The editor of nicplug edit; else vi."),
    ("XDG_STATE_HOME", "Where nicplug edit keeps edited texts, in nicplug/; else ~/.local/state."),
)


def render(version: str) -> str:
    """Return the manual page."""
    summary, options, examples, exit_codes = _top()
    body = [".SH SYNOPSIS", escape("nicplug [-c URI] [--json] COMMAND [ARGUMENT...]")]
    body += [".SH DESCRIPTION", escape(summary)]
    body += ["What the XML and the documents are, is in", ".BR nicplug\\-xml (7)."]
    body += [".SH OPTIONS"]
    for option, about in options:
        body += [".TP", bold(option), escape(about)]
    body += [".SH COMMANDS"]
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


def render_markdown() -> str:
    """Return docs/commands.md."""
    summary, options, examples, exit_codes = _top()
    lines = [
        "# Commands",
        '<!-- made by "make man"; what it says is said in the command -->',
        f"`nicplug [-c URI] [--json] COMMAND [ARGUMENT...]`: {summary[0].lower()}{summary[1:]}",
        "",
        "| option | |",
        "| --- | --- |",
        *(f"| `{option}` | {_cell(about)} |" for option, about in options),
        "",
        f"**Exit codes**: {exit_codes}",
        "",
        "| environment | |",
        "| --- | --- |",
        *(f"| `{name}` | {_cell(about)} |" for name, about in _ENVIRONMENT),
        "",
        *_block(examples),
    ]
    for name, (about, shown, _) in COMMANDS.items():
        parser = _parser(name)
        lines += ["", f"## {name}", f"{about[0].upper()}{about[1:]}.", "", *_block([_usage(parser)])]
        actions = _actions(parser)
        lines += ["", "| | |", "| --- | --- |"] if actions else []
        for action in actions:
            names, value = _named(action)
            lines.append(f"| {', '.join(f'`{one}{value}`' for one in names)} | {_cell(_about(action))} |")
        lines += ["", *_block(shown.splitlines())]
    return "\n".join(lines) + "\n"


def _block(lines: list[str]) -> list[str]:
    return ["```text", *lines, "```"]


def _cell(text: str) -> str:
    """Return text as a cell of a table shows it."""
    return text.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")


def _top() -> tuple[str, list[tuple[str, str]], list[str], str]:
    """Return of ``nicplug --help``: what it is, options, examples, and the exit codes."""
    sections = help_text().split("\n\n")
    titled = {title: text for title, _, text in (section.partition(":\n") for section in sections) if text}
    options = []
    for line in titled["options"].splitlines():
        option, about = line.strip().split("  ", 1)
        options.append((option, about.strip()))
    examples = [line[2:] for line in titled["examples"].splitlines()]
    return sections[1], options, examples, sections[-1].removeprefix("Exit codes: ")


def _command(name: str) -> list[str]:
    summary, examples, _ = COMMANDS[name]
    parser = _parser(name)
    lines = [f".SS {name}", escape(_usage(parser)), ".PP", escape(f"{summary[0].upper()}{summary[1:]}.")]
    for action in _actions(parser):
        names, value = _named(action)
        named = ", ".join(map(bold, names)) + escape(value)
        lines += [".TP", named, escape(_about(action)) or "\\&"]
    return lines + example(examples.splitlines())


def _parser(name: str) -> argparse.ArgumentParser:
    parser = command_parser(name)
    parser.formatter_class = lambda prog: argparse.HelpFormatter(prog, width=10_000)
    return parser


def _usage(parser: argparse.ArgumentParser) -> str:
    return parser.format_usage().removeprefix("usage: ").strip()


def _actions(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    return [action for action in parser._actions if action.dest not in _GLOBAL]


def _named(action: argparse.Action) -> tuple[list[str], str]:
    """Return an argument's names, and what an option takes behind them."""
    value = action.metavar or ("{" + ",".join(map(str, action.choices)) + "}" if action.choices else None)
    value = value or action.dest.upper()
    if not action.option_strings:
        return [str(value)], ""
    return list(action.option_strings), "" if action.nargs == 0 else f" {value}"


def _about(action: argparse.Action) -> str:
    said = (action.help or "").replace("%(default)s", str(action.default))
    return said[:1].upper() + said[1:]
