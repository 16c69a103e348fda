"""Completion: what is offered where, and that each shell offers it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from nicplug_xml.cli.arguments import COMMANDS, command_parser
from nicplug_xml.cli.completing import FILES, candidates, connection_of
from nicplug_xml.cli.main import main
from nicplug_xml.host.names import Name


class FakeNames:
    """Names as of a host with two domains."""

    def domains(self) -> Iterable[Name]:
        return [Name("vm1", "running"), Name("vm2", "shut off")]

    def interfaces(self, domain: str) -> Iterable[Name]:
        return [Name(f"ua-{domain}", "unplugged"), Name("52:54:00:00:00:01", "unplugged")]

    def bridges(self) -> Iterable[Name]:
        return [Name("br-blue"), Name("br-green")]

    def ovs_bridges(self) -> Iterable[Name]:
        return [Name("ovs-br0")]

    def networks(self) -> Iterable[Name]:
        return [Name("default", "active")]

    def devices(self) -> Iterable[Name]:
        return [Name("eth0")]


def offered(line: str) -> list[str]:
    return [name.word for name in candidates(line.split(" "), FakeNames())]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("de", ["define", "detach-backend", "demo"]),
        ("-c x att", ["attach-backend"]),
        ("-c lxc", ["lxc:///system"]),
        ("--connect=lxc", ["--connect=lxc:///system"]),
        ("--js", ["--json"]),
        ("attach-backend ", ["vm1", "vm2"]),
        ("attach-backend vm2", ["vm2"]),
        ("attach-backend vm1 ", ["ua-vm1", "52:54:00:00:00:01"]),
        ("attach-backend vm1 52:54", ["52:54:00:00:00:01"]),
        ("attach-backend vm1 ua-vm1 ", [FILES]),
        ("attach-backend vm1 ua-vm1 --bridge ", ["br-blue", "br-green"]),
        ("attach-backend vm1 ua-vm1 --bridge=br-g", ["--bridge=br-green"]),
        ("attach-backend vm1 ua-vm1 --ovs ", ["ovs-br0"]),
        ("attach-backend vm1 ua-vm1 --network ", ["default"]),
        ("attach-backend vm1 ua-vm1 --direct ", ["eth0"]),
        ("attach-backend vm1 ua-vm1 --direct eth0 --mode v", ["vepa"]),
        ("attach-backend vm1 ua-vm1 --cable ", ["vm2/ua-vm2", "vm2/52:54:00:00:00:01"]),
        ("attach-backend --no-announce vm1 ", ["ua-vm1", "52:54:00:00:00:01"]),
        ("attach-backend --bridge br-blue vm1 ua", ["ua-vm1"]),
        ("attach-backend vm1 x --bridge br-blue --br", []),
        ("attach-backend vm1 x --vlan 3 --vl", ["--vlan"]),
        ("set-link vm1 ua-vm1 ", ["up", "down"]),
        ("list vm1 ", ["vm2"]),
        ("graph --format s", ["svg"]),
        ("define --plane h", ["hub"]),
        ("completion f", ["fish"]),
        ("frobnicate ", []),
    ],
)
def test_what_is_offered(line: str, expected: list[str]) -> None:
    assert offered(line) == expected


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_of_every_command_is_offered(command: str) -> None:
    wanted = {
        action.option_strings[-1] for action in command_parser(command)._actions if action.option_strings
    }
    assert wanted >= {"--help"}
    assert set(offered(f"{command} --")) == wanted


def test_the_connection_is_the_one_of_the_line() -> None:
    assert connection_of(["-c", "lxc:///", "list"]) == "lxc:///"
    assert connection_of(["list", "--connect=lxc:///"]) == "lxc:///"
    assert (
        connection_of(["-cqemu+tcp://host/system?mode=direct", "list"])
        == "qemu+tcp://host/system?mode=direct"
    )
    assert connection_of(["list", "-c"]) is None


def test_names_are_libvirts(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["__complete", "-c", "test:///default", "dumpxml", ""]) == 0
    assert capsys.readouterr().out == "test\trunning\n"
    assert main(["__complete", "-c", "test:///default", "detach-backend", "test", ""]) == 0
    assert "network default" in capsys.readouterr().out
    assert main(["__complete", "-c", "test:///default", "attach-backend", "test", "x", "--network", ""]) == 0
    assert capsys.readouterr().out == "default\tactive\n"


def test_what_cannot_be_known_is_not_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    main(["__complete", "-c", "qemu+unix:///system?socket=/nowhere", "dumpxml", ""])
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")


# What the shells do with the script, given a line that ends in a word of a MAC.
_BASH = """
source <("$NICPLUG" completion bash)
complete_line() {
    COMP_LINE=$1 COMP_POINT=${#1}
    _nicplug
    printf '%s\\n' "${COMPREPLY[@]}"
}
complete_line "nicplug -c test:///default dum"
complete_line "nicplug -c test:///default detach-backend test aa:bb:"
complete_line "nicplug attach-backend --link=d"
complete_line "nicplug -c test://$NODE dumpxml a"
complete_line "nicplug -c test://$NODE dumpxml my\\\\ "
"""

_FISH = """
$NICPLUG completion fish | source
complete -C "nicplug -c test:///default dum"
complete -C "nicplug -c test:///default detach-backend test aa:bb:"
"""

_ZSH = """
_describe() { print -rl -- "${candidates[@]}" }
compdef() { : }
source <($NICPLUG completion zsh)
words=(nicplug -c test:///default dum); CURRENT=4; _nicplug
words=(nicplug -c test:///default detach-backend test aa:bb:); CURRENT=6; _nicplug
words=(nicplug -c test://$NODE dumpxml 'my\\ '); CURRENT=5; _nicplug
"""

_NODE = """<node>
<domain type='test'><name>a$(touch b)</name><memory>1024</memory><os><type>hvm</type></os></domain>
<domain type='test'><name>my vm</name><memory>1024</memory><os><type>hvm</type></os></domain>
</node>"""


@pytest.mark.parametrize(
    ("shell", "script", "expected"),
    [
        ("bash", _BASH, ["dumpxml", "cc:dd:ee:ff", "down", r"a\$\(touch\ b\)", r"my\ vm"]),
        ("fish", _FISH, ["dumpxml\tprint a domain's extended XML", "aa:bb:cc:dd:ee:ff\tnetwork default"]),
        (
            "zsh",
            _ZSH,
            [
                "dumpxml:print a domain's extended XML",
                r"aa\:bb\:cc\:dd\:ee\:ff:network default",
                "my vm:running",
            ],
        ),
    ],
)
def test_the_shells_offer_it(shell: str, script: str, expected: list[str], tmp_path: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    nicplug = Path(sys.executable).with_name("nicplug")
    node = tmp_path / "node.xml"
    node.write_text(_NODE)
    environment = {
        **os.environ,
        "NODE": str(node),
        "NICPLUG": str(nicplug),
        "PATH": f"{nicplug.parent}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
    }
    ran = subprocess.run(
        [shell, "-c", script], env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    assert (ran.stdout.splitlines(), ran.stderr) == (expected, "")
