"""``python -m nicplug_xml`` is the command ``nicplug``."""

from nicplug_xml.cli.main import main

raise SystemExit(main())
