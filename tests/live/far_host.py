"""Another host: a libvirtd in namespaces of its own, and commands that are run there.

It is a program, for its namespaces are those of a process: it tells its URI, and runs what it is told.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from nicplug_xml.testing.commands import short_directory


class FarHost:
    """Another host, seen from here.

    :param program: it, running.
    """

    def __init__(self, program: subprocess.Popen[str]) -> None:
        assert program.stdin
        assert program.stdout
        self._to, self._from = program.stdin, program.stdout
        self.uri = self._from.readline().strip()

    def run(self, *command: str) -> str:
        """Run a command there, and return what it prints; virsh and nicplug know whom to talk to."""
        print(json.dumps(command), file=self._to, flush=True)
        status, printed, complaint = json.loads(self._from.readline())
        assert status == 0, complaint
        return str(printed)


@contextmanager
def far_host() -> Iterator[FarHost]:
    """Have another host, for as long as the block runs."""
    # What is mounted by who makes the directory would not be seen there.
    with short_directory() as directory:
        # libvirt migrates no guest to a host of the same name.
        there = f"hostname npfar; exec {sys.executable} -m {__name__} {directory}"
        program = subprocess.Popen(
            ["unshare", "--uts", "sh", "-c", there],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        with program:
            yield FarHost(program)


def main() -> None:
    """Be the host, until nobody tells it anything any more."""
    from nicplug_xml.testing.daemon import PrivateDaemon
    from nicplug_xml.testing.namespace import isolate

    isolate()
    with closing(PrivateDaemon(Path(sys.argv[1]), hook=False)) as daemon:
        daemon.start()
        print(daemon.uri, flush=True)
        os.environ["LIBVIRT_DEFAULT_URI"] = daemon.uri
        for line in sys.stdin:
            done = subprocess.run(json.loads(line), capture_output=True, text=True, check=False)
            print(json.dumps([done.returncode, done.stdout, done.stderr]), flush=True)


if __name__ == "__main__":
    main()
