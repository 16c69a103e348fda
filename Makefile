# make demo   the main job, on real guests, in under a minute after set-up
# make test   everything: linters, unit tests, live tests
# make man    the manual pages, from the command and docs/format.md
# make bench  side by side with what one would do otherwise, as ratios
#
# Each installs what it needs and does not find (as root): Debian packages, .venv, a tiny guest.

python := .venv/bin/python
# Whatever a test run leaves behind, the end of its process namespace ends. Where none may be made, the run itself
# tells what that means.
namespaces := unshare --mount --pid --fork --kill-child --mount-proc
contained = $(shell $(namespaces) true 2>/dev/null && echo $(namespaces))
# Each worker has namespaces, an embedded libvirt and a libvirtd of its own.
side_by_side := -n auto --maxprocesses 4 --dist worksteal

.PHONY: help demo test lint unit live bench man clean

help:
	@sed -n 's/^# \{0,1\}//p;/^$$/q' Makefile

demo:
	@tests/setup demo
	@$(contained) .venv/bin/nicplug demo

# Emulated guests on a busy machine miss deadlines now and then: what has failed has to pass alone, once more.
test: lint
	$(contained) $(python) -m pytest -q $(side_by_side) || \
	    $(contained) $(python) -m pytest -q --last-failed --last-failed-no-failures none

lint:
	@tests/setup test
	$(python) -m ruff check .
	$(python) -m mypy --strict nicplug_xml

unit:
	@tests/setup test
	$(python) -m pytest -q tests/unit

live:
	@tests/setup test
	$(contained) $(python) -m pytest -q $(side_by_side) tests/live

man:
	@tests/setup test
	$(python) docs/man/make.py

bench:
	@tests/setup bench
	$(contained) $(python) tests/benchmarks/bench.py $(BENCH)

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis
