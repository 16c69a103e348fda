"""What may come next on a command line: read off the parsers, with the names that are there now."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Sequence

from nicplug_xml.cli.arguments import COMMANDS, command_parser, default_uri, split
from nicplug_xml.host.names import Name, PresentNames

#: In place of candidates: the shell knows how files are completed.
FILES = ":files"

_URIS = ("qemu:///system", "qemu:///session", "qemu:///embed", "lxc:///system", "qemu+ssh://")
_GLOBAL = (
    ("--connect", "libvirt connection URI"),
    ("--json", "print JSON"),
    ("--version", "print the version and exit"),
    ("--help", "print this help and exit"),
)


def complete(words: Sequence[str]) -> int:
    """Print what may come next, a candidate a line with what it is behind a tab; never an error.

    :param words: the words behind ``nicplug``; the last one is being written, and may be empty.
    :returns: the exit code.
    """
    words = words or [""]
    try:
        for candidate in candidates(words, PresentNames(connection_of(words[:-1]))):
            print("\t".join(filter(None, candidate)))
    except Exception:  # whoever presses a key wants no traceback
        return 1
    return 0


def connection_of(words: Sequence[str]) -> str | None:
    """Return the libvirt URI that a command line or the environment names, or None."""
    for number, word in enumerate(words):
        option, _, value = word.partition("=") if word.startswith("--") else (word[:2], "", word[2:])
        if option in ("-c", "--connect"):
            return value or next(iter(words[number + 1 :]), None)
    return default_uri()


def candidates(words: Sequence[str], names: PresentNames) -> list[Name]:
    """Return what may stand in the place of the last word.

    :param words: the words behind ``nicplug``.
    """
    *before, word = words
    option, equals, value = word.partition("=")
    prefix = f"{option}=" if equals and option.startswith("--") else ""
    found = _after(before, option if prefix else None, value if prefix else word, names)
    matching = [one for one in found if one.word == FILES or (prefix + one.word).startswith(word)]
    return [one if one.word == FILES else Name(prefix + one.word, one.about) for one in matching]


def _after(words: Sequence[str], option: str | None, word: str, names: PresentNames) -> Iterable[Name]:
    """Return what may follow.

    :param option: the option whose value `word` is, where one is written with it.
    """
    _, command, rest = split(words)
    if command is None:
        if option == "--connect" or (words and words[-1] in ("-c", "--connect")):
            return [Name(uri) for uri in _URIS]
        if word.startswith("-"):
            return [Name(*found) for found in _GLOBAL]
        return [Name(name, about) for name, (about, _, _) in COMMANDS.items()]
    if command not in COMMANDS:
        return []
    parser = command_parser(command)
    by_option = {name: action for action in parser._actions for name in action.option_strings}
    given: list[str] = []
    pending: argparse.Action | None = by_option.get(option or "")
    for one in rest:
        action = by_option.get(one)
        if pending is not None and option is None:
            pending = None
        elif action is not None:
            pending = action if action.nargs != 0 else None
        elif not one.startswith("-") or one == "-":
            given.append(one)
    if pending is not None:
        return _values(pending, given, names)
    if word.startswith("-"):
        return _options(parser, set(rest))
    positionals = [action for action in parser._actions if not action.option_strings]
    if len(given) < len(positionals):
        return _values(positionals[len(given)], given, names)
    if positionals and positionals[-1].nargs in ("*", "+"):
        return [one for one in _values(positionals[-1], given, names) if one.word not in given]
    return _options(parser, set(rest))


def _options(parser: argparse.ArgumentParser, given: set[str]) -> Iterator[Name]:
    for action in parser._actions:
        again = isinstance(action, argparse._AppendAction)
        if action.option_strings and (again or not given & set(action.option_strings)):
            about = (action.help or "").replace("%(default)s", str(action.default))
            yield Name(action.option_strings[-1], about)


def _values(action: argparse.Action, given: Sequence[str], names: PresentNames) -> Iterable[Name]:
    """Return what an argument may be: its parser says what it is called, and that says what it is."""
    if action.choices:
        return [Name(str(choice)) for choice in action.choices]
    if action.dest == "plane":
        from nicplug_xml.planes import PLANES

        return [Name("auto"), *map(Name, PLANES)]
    if action.dest == "ovs":
        return names.ovs_bridges()
    if action.metavar == "DOMAIN":
        return names.domains()
    if action.metavar == "INTERFACE":
        return names.interfaces(given[0]) if given else []
    if action.metavar == "DOMAIN/INTERFACE":
        return _cable_ends(names, given[0] if given else "")
    simple = {"BRIDGE": names.bridges, "NETWORK": names.networks, "DEV": names.devices}
    if action.metavar in simple:
        return simple[str(action.metavar)]()
    if action.metavar == "URI":
        return [Name(uri) for uri in _URIS]
    return [Name(FILES)] if action.metavar == "FILE" else []


def _cable_ends(names: PresentNames, own: str) -> Iterator[Name]:
    for domain in names.domains():
        if domain.word != own:
            for nic in names.interfaces(domain.word):
                yield Name(f"{domain.word}/{nic.word}", nic.about)
