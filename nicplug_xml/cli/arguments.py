"""The command line: commands, their arguments and their help. virsh's names where virsh has one."""

from __future__ import annotations

TYPE_CHECKING = False  # as typing.TYPE_CHECKING, whose import takes longer than all else here
if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence

_USAGE = "nicplug [-c URI] [--json] COMMAND [ARGUMENT...]"

_HELP = """usage: {usage}

Plug, move and unplug the NICs of libvirt guests while they run.

commands:
{commands}

'nicplug COMMAND --help' says more of each.

options:
  -c, --connect URI  libvirt connection URI; else virsh's default, which LIBVIRT_DEFAULT_URI may set
  --json             print JSON
  -v, --version      print the version and exit
  -h, --help         print this help and exit

examples:
  nicplug define vm1.xml                                   a guest whose NIC is not plugged in
  virsh start vm1                                          ... boots without a carrier
  nicplug list vm1
  nicplug attach-backend vm1 52:54:00:11:22:33 --bridge br0
  nicplug attach-backend vm1 vnet0 --network default       move it
  nicplug detach-backend vm1 vnet0                         pull the cable
  nicplug attach-backend vm1 vnet0                         back to where it was

Exit codes: 0 done, 1 refused or failed, 2 bad usage (validate: or a file that could not be read),
128 and the number of the signal that interrupted (Ctrl-C: 130)."""


_PLANE = "plane to hold the NICs: tap, hub, swap, native, for containers veth, or auto (default: %(default)s)"


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse a command line; exit with 2 when it is not one of ours, with 0 after ``--help``.

    Only what is needed is imported and built: that keeps the start fast.

    :param arguments: the command line without the program's name.
    :returns: the options; `command` names the command.
    """
    if arguments and arguments[0] in ("-h", "--help"):
        print(help_text())
        raise SystemExit(0)
    before, name, behind = split(arguments)
    top = _top()
    options, rest = top.parse_known_args(before)
    if options.help:
        print(help_text())
        raise SystemExit(0)
    if options.version:
        from importlib.metadata import version

        print(f"nicplug {version('nicplug')}")
        raise SystemExit(0)
    if name is None:
        top.error("no command was given; 'nicplug --help' lists them")
    if name not in COMMANDS:
        top.error(f"there is no command '{name}'; 'nicplug --help' lists them")
    options.command = name
    parser, given = command_parser(name), [*rest, *behind]
    # Intermixed, argparse would forget that there was a --, and take for options what comes behind it.
    parse_all = parser.parse_args if "--" in given else parser.parse_intermixed_args
    return parse_all(given, options)


def split(words: Sequence[str]) -> tuple[Sequence[str], str | None, Sequence[str]]:
    """Return the words before the command, the command, None for none, and the words behind it."""
    is_uri = False
    for number, word in enumerate(words):
        if not is_uri and not word.startswith("-"):
            return words[:number], word, words[number + 1 :]
        # Options may be abbreviated.
        is_uri = not is_uri and (word == "-c" or (word[:3] == "--c" and "--connect".startswith(word)))
    return words, None, ()


def help_text() -> str:
    """Return what ``nicplug --help`` prints."""
    width = max(map(len, COMMANDS))
    commands = "\n".join(f"  {name.ljust(width)}  {summary}" for name, (summary, _, _) in COMMANDS.items())
    return _HELP.format(usage=_USAGE, commands=commands)


def command_parser(name: str) -> argparse.ArgumentParser:
    """Return the parser of one of `COMMANDS`."""
    import argparse

    summary, examples, add_arguments = COMMANDS[name]
    command = argparse.ArgumentParser(
        prog=f"nicplug {name}",
        description=summary[0].upper() + summary[1:] + ".",
        epilog="examples:\n" + "".join(f"  {line}\n" for line in examples.splitlines()),
        formatter_class=_formatter,
    )
    add_arguments(command)
    # These are accepted behind the command as well; SUPPRESS keeps what was said before it.
    _add_global(command, argparse.SUPPRESS)
    return command


def default_uri() -> str | None:
    """Return virsh's own default of --connect, or None: then it is libvirt's, with LIBVIRT_DEFAULT_URI."""
    import os

    return os.environ.get("VIRSH_DEFAULT_CONNECT_URI")


def _top() -> argparse.ArgumentParser:
    import argparse

    top = argparse.ArgumentParser(prog="nicplug", usage=_USAGE, add_help=False, formatter_class=_formatter)
    top.add_argument("-h", "--help", action="store_true")
    top.add_argument("-v", "--version", action="store_true")
    _add_global(top, None)
    top.set_defaults(connect=default_uri())
    return top


def _formatter(prog: str) -> argparse.HelpFormatter:
    """Make a formatter as wide as the terminal: argparse would import shutil, a slow thing, to know that."""
    import argparse
    import os

    columns = os.environ.get("COLUMNS", "")
    width = int(columns) if columns.isdecimal() else 0
    if not width:
        try:
            width = os.get_terminal_size().columns or 80  # 0: nobody has told the terminal its size
        except OSError:
            width = 80
    return argparse.RawDescriptionHelpFormatter(prog, width=width - 2)


def _add_global(command: argparse.ArgumentParser, default: str | None) -> None:
    command.add_argument("-c", "--connect", metavar="URI", default=default, help="libvirt connection URI")
    command.add_argument("--json", action="store_true", default=default or False, help="print JSON")


def _validate(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "files",
        nargs="+",
        metavar="FILE",
        help="a <domain>, <interface> or <backend> document, or a pattern such as 'guests/**/*.xml';"
        " - is standard input",
    )
    command.add_argument(
        "--format",
        choices=("text", "json", "github", "junit"),
        default="text",
        help="how problems are printed (default: %(default)s)",
    )
    command.add_argument(
        "--plane",
        help="check as well that this plane can have the NICs: tap, hub, veth, swap, native, or auto",
    )


def _rewrite(command: argparse.ArgumentParser) -> None:
    command.add_argument("file", metavar="FILE", help="extended domain XML; - is standard input")
    command.add_argument("--plane", default="auto", help=_PLANE)
    command.add_argument(
        "--parking",
        choices=("network", "bridge"),
        default="network",
        help="where plane tap parks: our libvirt network, or a plain bridge for connections"
        " without a network driver (default: %(default)s)",
    )


def _restore(command: argparse.ArgumentParser) -> None:
    command.add_argument("file", metavar="FILE", help="stock domain XML; - is standard input")


def _domain_file(command: argparse.ArgumentParser) -> None:
    command.add_argument("file", metavar="FILE", help="extended domain XML; - is standard input")
    command.add_argument("--plane", default="auto", help=_PLANE)
    command.add_argument(
        "--skip-validate",
        action="store_true",
        help="leave it to libvirt to find what is wrong; a newer one knows more than the schemas here",
    )


def _edit(command: argparse.ArgumentParser) -> None:
    command.add_argument("domain", metavar="DOMAIN", help="name, UUID or id")
    command.add_argument(
        "--live",
        metavar="INTERFACE",
        help="edit this interface of the running domain, and have it changed as update-device does;"
        " without this, the persistent definition is edited",
    )


def _readonly(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "-r", "--readonly", action="store_true", help="connect to libvirt for reading alone, as virsh -r does"
    )


def _dumpxml(command: argparse.ArgumentParser) -> None:
    command.add_argument("domain", metavar="DOMAIN", help="name, UUID or id")
    command.add_argument("--inactive", action="store_true", help="the persistent definition")
    command.add_argument(
        "--security-info", action="store_true", help="passwords as well, as that of a VNC display"
    )
    _readonly(command)


def _list(command: argparse.ArgumentParser) -> None:
    command.add_argument("domains", nargs="*", metavar="DOMAIN", help="name, UUID or id (default: all)")
    command.add_argument("--inactive", action="store_true", help="the persistent definition")
    _readonly(command)


def _watch(command: argparse.ArgumentParser) -> None:
    command.add_argument("domains", nargs="*", metavar="DOMAIN", help="name (default: all)")
    command.add_argument(
        "--no-reconnect", action="store_true", help="end when libvirt goes away, and do not wait for it"
    )
    _readonly(command)


def _graph(command: argparse.ArgumentParser) -> None:
    command.add_argument("domains", nargs="*", metavar="DOMAIN", help="name, UUID or id (default: all)")
    command.add_argument("--inactive", action="store_true", help="the persistent definitions")
    command.add_argument(
        "--format",
        choices=("text", "svg", "dot", "mermaid"),
        help="what to print (default: what the name of FILE ends in, else text)",
    )
    command.add_argument("-o", "--output", metavar="FILE", help="write to a file: .svg, .dot, .mmd or .txt")
    _readonly(command)


def _completion(command: argparse.ArgumentParser) -> None:
    command.add_argument("shell", metavar="SHELL", choices=("bash", "zsh", "fish"), help="bash, zsh or fish")


def _attach(command: argparse.ArgumentParser) -> None:
    _interface(command)
    # It excludes the options below as well, but may not be in their group: options and it may be intermixed.
    command.add_argument("file", metavar="FILE", nargs="?", help="a <backend> document; - is standard input")
    backend = command.add_mutually_exclusive_group()
    backend.add_argument("--bridge", metavar="BRIDGE", help="a Linux bridge of the host")
    backend.add_argument("--network", metavar="NETWORK", help="a libvirt network")
    backend.add_argument("--ovs", metavar="BRIDGE", help="an Open vSwitch bridge of the host")
    backend.add_argument("--direct", metavar="DEV", help="a macvlan or macvtap on a device of the host")
    backend.add_argument("--cable", metavar="DOMAIN/INTERFACE", help="another NIC, point to point")
    backend.add_argument("--netdev", metavar="DEV", help="a device of the host, whatever it is")
    backend.add_argument("--user", action="store_true", help="QEMU's own user-mode network")
    backend.add_argument(
        "--fd",
        metavar="N",
        type=int,
        action="append",
        default=[],
        help="an inherited descriptor of a tap, a macvtap or a socket; once for each queue",
    )
    command.add_argument(
        "--mode",
        choices=("bridge", "private", "vepa", "passthrough"),
        help="mode of the macvtap (default: bridge)",
    )
    command.add_argument("--interfaceid", metavar="UUID", help="what a controller knows the port of --ovs by")
    command.add_argument(
        "--vlan",
        metavar="TAG",
        type=int,
        action="append",
        default=[],
        help="VLAN tag; more than one make a trunk",
    )
    command.add_argument("--link", choices=("up", "down"), help="set the administrator's link as well")
    _no_announce(command)
    _affect(command)


def _detach(command: argparse.ArgumentParser) -> None:
    _interface(command)
    _affect(command)


def _set_link(command: argparse.ArgumentParser) -> None:
    _interface(command)
    command.add_argument(
        "state", metavar="{up,down}", choices=("up", "down"), help="what the administrator wants"
    )
    _affect(command)


def _update(command: argparse.ArgumentParser) -> None:
    command.add_argument("domain", metavar="DOMAIN", help="name, UUID or id")
    command.add_argument("file", metavar="FILE", help="the whole <interface>; - is standard input")
    _no_announce(command)
    _affect(command)


def _demo(_command: argparse.ArgumentParser) -> None:
    pass


def _interface(command: argparse.ArgumentParser) -> None:
    command.add_argument("domain", metavar="DOMAIN", help="name, UUID or id")
    command.add_argument("interface", metavar="INTERFACE", help="MAC, alias or target device")


def _no_announce(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--no-announce", action="store_true", help="do not have QEMU announce the NIC to its new neighbours"
    )


def _affect(command: argparse.ArgumentParser) -> None:
    command.add_argument("--live", action="store_true", help="affect the running domain")
    command.add_argument("--config", action="store_true", help="affect the next boot")
    command.add_argument(
        "--persistent",
        action="store_true",
        help="affect the next boot and, when the domain runs, the running domain",
    )
    command.add_argument("--current", action="store_true", help="affect the current state (the default)")
    command.add_argument("--dry-run", action="store_true", help="print the plan and change nothing")


#: Each command: what it does, examples, and what adds its arguments.
COMMANDS: dict[str, tuple[str, str, Callable[[argparse.ArgumentParser], None]]] = {
    "validate": (
        "check extended domain XML and backend documents, and explain what is wrong",
        (
            "nicplug validate vm1.xml backends/*.xml\n"
            "nicplug validate 'guests/**/*.xml' --format github    annotations for a pull request\n"
            "nicplug validate vm1.xml vm2.xml --plane tap          cables, MACs, what a plane can have\n"
            "virsh dumpxml vm1 | nicplug validate -"
        ),
        _validate,
    ),
    "rewrite": (
        "print what stock libvirt understands of an extended domain XML",
        "nicplug rewrite vm1.xml > stock.xml",
        _rewrite,
    ),
    "restore": (
        "print the extended XML that a stock domain XML stands for",
        "virsh dumpxml vm1 | nicplug restore -",
        _restore,
    ),
    "define": (
        "define a persistent domain from extended XML",
        "nicplug define vm1.xml && virsh start vm1",
        _domain_file,
    ),
    "create": (
        "start a transient domain from extended XML",
        "nicplug create vm1.xml",
        _domain_file,
    ),
    "edit": (
        "edit a domain's extended XML in $VISUAL or $EDITOR, as virsh edit does",
        "nicplug edit vm1\nEDITOR=nano nicplug edit vm1 --live vnet0     one NIC of the running guest",
        _edit,
    ),
    "dumpxml": (
        "print a domain's extended XML",
        "nicplug dumpxml vm1 --inactive",
        _dumpxml,
    ),
    "list": (
        "list interfaces and what they are plugged into",
        "nicplug list\nnicplug list vm1 --inactive --json",
        _list,
    ),
    "watch": (
        "print what is plugged, moved, unplugged, started and stopped, as it happens",
        "nicplug watch\nnicplug watch vm1 vm2 --json | jq .event",
        _watch,
    ),
    "graph": (
        "draw who is plugged into what",
        "nicplug graph\nnicplug graph -o network.svg\nnicplug graph --format dot | dot -Tpdf -o network.pdf",
        _graph,
    ),
    "attach-backend": (
        "plug an interface in, or move it to another backend",
        (
            "nicplug attach-backend vm1 52:54:00:11:22:33 --bridge br0\n"
            "nicplug attach-backend vm1 vnet0 backend.xml --persistent\n"
            "nicplug attach-backend vm1 vnet0                 the intended backend, or the last one"
        ),
        _attach,
    ),
    "detach-backend": (
        "unplug an interface",
        "nicplug detach-backend vm1 vnet0",
        _detach,
    ),
    "set-link": (
        "set the administrator's link, which plugging leaves alone",
        "nicplug set-link vm1 vnet0 down",
        _set_link,
    ),
    "update-device": (
        "make an interface what its XML says, as virsh update-device does, to any backend",
        "nicplug update-device vm1 nic.xml --live\nnicplug update-device vm1 nic.xml --dry-run",
        _update,
    ),
    "completion": (
        "print the completion script of a shell",
        (
            "source <(nicplug completion bash)                 in ~/.bashrc\n"
            "source <(nicplug completion zsh)                  in ~/.zshrc, behind compinit\n"
            "nicplug completion fish | source                  in ~/.config/fish/config.fish"
        ),
        _completion,
    ),
    "demo": (
        "boot two guests, and plug, move and unplug their NICs (as root)",
        "nicplug demo",
        _demo,
    ),
}
