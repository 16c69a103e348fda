"""What is printed when all tests have run, by whichever worker; and that Ctrl-C reaches what tests start."""

from __future__ import annotations

import signal

import pytest


def pytest_configure() -> None:
    """Heed Ctrl-C: what a script starts in the background ignores it, and so does all that this starts."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what the conformance suite has seen: each scenario on each hypervisor and plane."""
    reports = [report for reports in terminalreporter.stats.values() for report in reports]
    properties = [found for report in reports for found in getattr(report, "user_properties", ())]
    told = (found for name, found in properties if name == "conformance")
    seen = {(scenario, on): what for scenario, on, what in told}
    if not seen:
        return
    from tests.live.conformance import PLATFORMS, SCENARIOS

    width = max(len(str(scenario)) for scenario in SCENARIOS)
    terminalreporter.section("conformance")
    terminalreporter.write_line(" " * width + "  " + "  ".join(map(str, PLATFORMS)))
    for scenario in map(str, SCENARIOS):
        cells = (seen.get((scenario, str(on)), "-").ljust(len(str(on))) for on in PLATFORMS)
        terminalreporter.write_line(f"{scenario.ljust(width)}  {'  '.join(cells)}".rstrip())
