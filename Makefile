# The whole daily vocabulary of the project. `make` alone lists it. Every target sets up what it needs.

SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -c
VENV := .venv/bin
# More words for the tool behind a target: make test ARGS="-k disks"
ARGS ?=
# Most of what tests do is wait, for guests and for Ceph, so this many run side by side; the first does the quick ones.
WORKERS ?= 3

.DEFAULT_GOAL := help
# The targets share .venv and one libvirt: never at the same time.
.NOTPARALLEL:
.PHONY: help run lab test check docs screenshots vendor bench soak clean clean-machine

help:
	@echo 'make run            set everything up and serve this machine on 127.0.0.1 (Ctrl-C ends it)'
	@echo 'make lab            make a real cluster on this machine (as root); ARGS="--hosts 5" for another one'
	@echo 'make test           all tests that this machine can run; ARGS="-k name" for some of them, VORCH_THOROUGH=1 for the longest, too'
	@echo 'make check          style, types, import rules'
	@echo 'make docs           write the generated parts of docs/ again'
	@echo 'make screenshots    take the pictures of the page in docs/page/ again'
	@echo 'make vendor         copy what the page takes from npm to api/page/vendor, as its lock file says'
	@echo 'make bench          run the benchmarks'
	@echo 'make soak           an hour of real faults on a lab, nothing lost (as root); ARGS="--for 10m --seed 7"'
	@echo 'make clean-machine  try `make run` in a fresh Debian that has only make and git (as root)'
	@echo 'make clean          remove what was made here (.venv, caches); never virtual machines or state'

run:
	@packaging/prepare.sh run
	@packaging/serve.sh

lab:
	@packaging/prepare.sh lab
	@$(VENV)/vorch lab up $(ARGS)

test:
	@packaging/prepare.sh test
	@packaging/test.sh $(WORKERS) $(ARGS)

check:
	@packaging/prepare.sh check
	$(VENV)/ruff check .
	$(VENV)/ruff format --check .
	@# The links that mypy finds the packages by would be in every path it prints.
	@echo $(VENV)/mypy; $(VENV)/mypy | sed -e "s,^.venv/types/vorch_api/,api/," -e "s,^.venv/types/vorch_cli/,cli/," -e "s,^.venv/types/vorch_install_time/,benchmarks/install_time/," -e "s,^.venv/types/,,"
	$(VENV)/lint-imports
	@if command -v shellcheck >/dev/null; then echo shellcheck packaging/*.sh vorch/drivers/*.sh .ci/run && shellcheck packaging/*.sh vorch/drivers/*.sh .ci/run; fi

docs:
	@packaging/prepare.sh check docs
	$(VENV)/python -m vorch_cli.reference docs/cli.md
	$(VENV)/python -m vorch_cli.rights_page docs/users.md
	$(VENV)/python -m vorch_api.reference docs/api.md

screenshots:
	@packaging/prepare.sh test screenshots
	$(VENV)/python -m tests.page.screenshots $(ARGS)

vendor:
	@packaging/vendor.sh

bench:
	@packaging/prepare.sh test bench
	@set -e; for file in benchmarks/[!_]*.py; do \
		[ -e "$$file" ] || { echo 'make bench: cannot run benchmarks: there are none in benchmarks/; write one' >&2; exit 1; }; \
		name=$$(basename "$$file" .py); echo "== $$name"; $(VENV)/python -m "benchmarks.$$name" $(ARGS); done

soak:
	@packaging/prepare.sh test
	@$(VENV)/python -m tests.lab.soak $(ARGS)

clean-machine:
	@packaging/clean-machine.sh $(or $(ARGS),run)

clean:
	rm -rf .venv build dist *.egg-info .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find api benchmarks cli tests vorch -name __pycache__ -type d -prune -exec rm -rf {} +
