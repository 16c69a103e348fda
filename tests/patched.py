"""Where the libvirt and the QEMU are that have our patches."""

from __future__ import annotations

import os
import re
from functools import cache
from pathlib import Path

from nicplug_xml.testing.namespace import run_outside

BUILD = Path(__file__).parents[1] / "patches" / "build"

#: Seconds that the first build of a series may take; the next time it is there at once.
_LONGEST = 3600


@cache
def prefix(series: str) -> Path:
    """Return where a series is installed, and build it first where it is not.

    :param series: a directory of ``patches``. ``NICPLUG_PREFIX_LIBVIRT_9_0_0`` in the environment, or its
        like, names an installation that is to be used instead.
    :raises OperationError: it cannot be built; the message has the end of the build's log.
    """
    named = os.environ.get(f"NICPLUG_PREFIX_{re.sub(r'[^A-Za-z0-9]', '_', series).upper()}")
    return Path(named or run_outside([str(BUILD), series], timeout=_LONGEST).splitlines()[-1])
