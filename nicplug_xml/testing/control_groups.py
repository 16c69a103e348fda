"""Control groups of a private libvirtd's own: its LXC driver starts no container without any.

They are made in the groups that we are in ourselves, of version 1, and libvirtd sees nothing above them.
Where the kernel's controllers are used in version 2 none are made, and containers do not start.

Authority: cgroups(7), cgroup_namespaces(7).
"""

from __future__ import annotations

import time
from pathlib import Path

from nicplug_xml.errors import OperationError
from nicplug_xml.testing.commands import run

#: What the LXC driver asks for.
_NEEDED = {"cpuacct", "devices", "memory"}

# That, and what it suspends containers with. Of /proc/self/cgroup, each line is NUMBER:CONTROLLERS:PATH;
# those of version 2 name no controllers.
_EACH = """
each_hierarchy() {
    while IFS=: read -r _ controllers path; do
        case ",$controllers," in
            *,cpuacct,* | *,devices,* | *,memory,* | *,freezer,*) "$@" "$controllers" "$path" || : ;;
        esac
    done </proc/self/cgroup
}
mount_hierarchy() {
    mkdir -p "/sys/fs/cgroup/$1"
    mount -t cgroup -o "$1" cgroup "/sys/fs/cgroup/$1" 2>/dev/null
}
"""

#: Shell commands for a mount namespace with a ``/sys`` of its own: makes groups with the name ``$groups``,
#: and shows nothing but them below ``/sys/fs/cgroup``.
MAKE = f"""{_EACH}
make() {{
    mount_hierarchy "$1" || return
    mkdir "/sys/fs/cgroup/$1$2/$groups" &&
        mount --bind "/sys/fs/cgroup/$1$2/$groups" "/sys/fs/cgroup/$1" && return
    # What is not ours is not to be seen.
    umount "/sys/fs/cgroup/$1"
}}
mount -t tmpfs tmpfs /sys/fs/cgroup
each_hierarchy make
"""

#: Shell commands that put the process into the groups that are shown, as its highest ones, and run ``$@``.
RUN = """
for procs in /sys/fs/cgroup/*/cgroup.procs; do
    [ ! -e "$procs" ] || echo $$ >"$procs"
done
exec unshare --cgroup -- "$@"
"""

_REMOVE = f"""{_EACH}
remove() {{
    mount_hierarchy "$1" || return
    group=/sys/fs/cgroup/$1$2/$groups
    [ ! -d "$group" ] || find "$group" -depth -type d -exec rmdir {{}} + || left="$left $group"
    umount "/sys/fs/cgroup/$1"
}}
left=
mount -t tmpfs tmpfs /sys/fs/cgroup
groups=$1
each_hierarchy remove
[ -z "$left" ] || {{ echo "left:$left"; exit 1; }}
"""


def available() -> bool:
    """Whether this machine has the control groups of version 1 that containers need."""
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    return {name for line in lines for name in line.split(":")[1].split(",")} >= _NEEDED


def remove_groups(name: str, *, timeout: float = 10) -> None:
    """Remove the groups that `MAKE` has made; none being there is fine.

    :param name: their name.
    :param timeout: seconds to wait for the last processes in them to be gone.
    :raises OperationError: they are still in use; the message names them.
    """
    deadline = time.monotonic() + timeout
    while True:
        try:
            run(["unshare", "--mount", "--", "/bin/sh", "-c", _REMOVE, "remove", name])
        except OperationError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return
