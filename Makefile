# forktrace: `make demo` shows what it is, `make test` is what CI runs.

# Debian's and Ubuntu's own Python, for which python3-bpfcc is built; another only where that one is too old.
PYTHON := $(shell /usr/bin/python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo /usr/bin/python3 || echo python3)
PACKAGES := python3 python3-venv python3-bpfcc linux-libc-dev gcc libc6-dev procps strace sudo ca-certificates
JAVA_PACKAGES := maven default-jre-headless
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)
BIN := .venv/bin
COUNT := 10000
SEED := 1

.PHONY: help setup object system demo test test-kafka test-witness test-crashes soak fuzz lint bench golden

help: ## what there is to make
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

setup: .venv/.installed ## install what is missing: distribution packages, then .venv

system:
	@missing=$$(for package in $(PACKAGES); do \
	    dpkg-query -W -f '$${db:Status-Status}' $$package 2>/dev/null | grep -q '^installed$$' || echo $$package; done); \
	if [ -n "$$missing" ]; then \
	    command -v apt-get >/dev/null || { echo "forktrace needs, by the names of Debian: $$missing" >&2; exit 1; }; \
	    set -ex; \
	    $(SUDO) apt-get update -q; \
	    $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends $$missing; \
	fi

.venv/.installed: pyproject.toml | system
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $@

demo: setup ## record the Kafka consumer, print the report, draw the timeline
	$(SUDO) $(BIN)/forktrace demo

test: setup lint ## everything that CI checks; what records needs root (sudo make test)
	$(BIN)/python -m pytest

test-kafka: setup ## the Kafka consumer with a real Apache Kafka, fetched through Maven; needs root
	@{ command -v mvn && command -v java; } >/dev/null || $(MAKE) --no-print-directory system PACKAGES='$(JAVA_PACKAGES)'
	$(BIN)/python -m pytest tests/kafka --kafka

fuzz: setup ## send damaged and hostile traces through every command: make fuzz COUNT=10000 SEED=1
	$(BIN)/python tests/fuzz.py --count $(COUNT) --seed $(SEED)

test-witness: setup ## CPython's own tests of processes under strace and other witnesses: an hour; needs root
	@$(MAKE) --no-print-directory system PACKAGES=libpython$$($(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')-testsuite
	$(BIN)/python -m pytest tests/witness --witness
	$(BIN)/python tests/witness/zombie_times.py

test-crashes: setup ## kill a hundred recorders at random moments, ten of them from their first; needs root
	$(SUDO) $(BIN)/python -m pytest tests/kernel/test_crashes.py -k 'killed or left' --crashes 100 -s

soak: setup ## ten minutes of mixed forks at full speed: no loss, flat memory; needs root
	$(SUDO) $(BIN)/python tests/soak.py $(or $(SECONDS),600)

object: setup ## compile the probes with bcc into probes/probes.object; needs root, after any change of probes/
	$(SUDO) $(BIN)/python -m forktrace.kernel.compile

lint: setup ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: setup ## measure what docs/limits.md prints; needs root
	@set -e; for program in benchmarks/*.py; do echo "$$program"; $(SUDO) $(BIN)/python $$program; done

golden: setup ## record the scenes into tests/data, run the notebooks on them, and the commands of the docs; needs root
	$(SUDO) $(BIN)/python tests/golden.py record
	$(BIN)/python tests/golden.py notebooks
	$(SUDO) $(BIN)/python tests/golden.py pages
