# make demo   the main job, on real guests, in under a minute after set-up
# make test   everything: linters, unit tests, live tests
# make man    the manual pages and docs/commands.md, from the command and docs/format.md
# make patched       apply, build, test and install the patch series; what is done is kept (part of make test)
# make patched-each  the same, and every patch alone; make patched-sanitized: QEMU's new tests with ASan and UBSan
# make site   the documents as a site, in build/site; no warning and no link to nowhere
# make bench  side by side with what one would do otherwise, as ratios
#
# Each installs what it needs and does not find (as root): Debian packages, .venv, a tiny guest.

python := .venv/bin/python
# Whatever a test run leaves behind, the end of its process namespace ends. Where none may be made, the run itself
# tells what that means.
namespaces := unshare --mount --pid --fork --kill-child --mount-proc
contained = $(shell $(namespaces) true 2>/dev/null && echo $(namespaces))
# Each worker has namespaces, an embedded libvirt and a libvirtd of its own. Two of them leave two processors idle for a
# quarter of the time, waiting for guests; four are no faster than three.
side_by_side := -n 3 --dist worksteal

# The source of these is Debian's own package; of those below, a tarball that has to be put where patches/build looks.
series := libvirt-9.0.0 qemu-7.2
proposals := libvirt-11.3.0 qemu-10.0

.PHONY: help demo test lint unit live bench man site patched patched-each patched-sanitized clean

help:
	@sed -n 's/^# \{0,1\}//p;/^$$/q' Makefile

demo:
	@tests/setup demo
	@$(contained) .venv/bin/nicplug demo

# Emulated guests on a busy machine miss deadlines now and then: what has failed has to pass alone, once more.
# Status 1 says that tests have failed, and after any other not all of them were run; but 1 is also what unshare makes
# of a run that is killed. That notes no failures, and with none of an earlier run either nothing is run again: status 5.
test: lint patched
	@rm -f .pytest_cache/v/cache/lastfailed
	$(contained) $(python) -m pytest -q $(side_by_side) || \
	    { [ $$? -eq 1 ] && $(contained) $(python) -m pytest -q --last-failed --last-failed-no-failures none; }

lint:
	@tests/setup test
	$(python) -m ruff check .
	$(python) -m mypy --strict nicplug_xml docs/examples

unit:
	@tests/setup test
	$(python) -m pytest -q tests/unit

live:
	@tests/setup test
	$(contained) $(python) -m pytest -q $(side_by_side) tests/live

# 3 says that the source is not at hand.
patched patched-each:
	@for series in $(series); do patches/build $$series $(subst patched-,--,$(filter-out patched,$@)) >/dev/null || exit; done
	@for series in $(proposals); do patches/build $$series $(subst patched-,--,$(filter-out patched,$@)) >/dev/null || [ $$? -eq 3 ] || exit 1; done

patched-sanitized:
	@for series in qemu-7.2 qemu-10.0; do patches/build $$series --sanitize || [ $$? -eq 3 ] || exit 1; done

man:
	@tests/setup test
	$(python) docs/man/make.py

# Read anew each time: a page that is not read gives no warning.
site:
	@tests/setup site
	$(python) -m sphinx -W --keep-going -E -q -b html docs build/site
	@echo "file://$(CURDIR)/build/site/index.html"

bench:
	@tests/setup bench
	$(contained) $(python) tests/benchmarks/bench.py $(BENCH)

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis
