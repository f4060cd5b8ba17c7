# forktrace: `make demo` shows what it is, `make test` is what CI runs.

# Debian's and Ubuntu's own Python, for which python3-bpfcc is built; another only where that one is too old.
PYTHON := $(shell /usr/bin/python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo /usr/bin/python3 || echo python3)
DEMO_PACKAGES := python3 python3-venv procps sudo ca-certificates
# Ubuntu has it as a snap only.
CHROMIUM := $(shell grep -qx ID=ubuntu /etc/os-release 2>/dev/null || echo chromium)
NODE := $(shell command -v node >/dev/null || echo nodejs)
PACKAGES := $(DEMO_PACKAGES) python3-bpfcc linux-libc-dev gcc libc6-dev strace $(CHROMIUM) $(NODE)
JAVA_PACKAGES := maven default-jre-headless
BUILD_PACKAGES := gcc libc6-dev libffi-dev libssl-dev zlib1g-dev xz-utils debian-archive-keyring
KERNEL_PACKAGES := qemu-system-x86 qemu-system-arm seabios zstd e2fsprogs debian-archive-keyring gcc-aarch64-linux-gnu libc6-dev-arm64-cross
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)
BIN := .venv/bin
PIP := $(BIN)/pip --disable-pip-version-check
COUNT := 10000
SEED := 1
WORKERS := 2
KERNEL := 6.12-amd64
RUN := forktrace doctor

.PHONY: help setup object system demo test test-page test-fleet test-kafka test-otel test-prometheus test-systemd test-kernels test-libraries test-free-threaded test-distributions kernel test-witness test-crashes soak fuzz lint bench golden

help: ## what there is to make
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

setup: .venv/.installed ## install what is missing: distribution packages, then .venv, with all that tests and notebooks need

system:
	@command -v dpkg-query >/dev/null || { echo "this Makefile knows Debian and Ubuntu only. \
	Fedora: sudo dnf install python3 sudo procps-ng; Arch: sudo pacman -S python sudo procps-ng; \
	then: python3 -m venv .venv && .venv/bin/pip install '.[kafka]' && .venv/bin/forktrace demo" >&2; exit 1; }; \
	missing=$$(for package in $(PACKAGES); do \
	    dpkg-query -W -f '$${db:Status-Status}' $$package 2>/dev/null | grep -q '^installed$$' || echo $$package; done); \
	if [ -n "$$missing" ]; then \
	    [ -z "$(SUDO)" ] || command -v sudo >/dev/null || { echo "there is no sudo: as root type apt-get install -y" $$missing >&2; exit 1; }; \
	    set -ex; \
	    $(SUDO) apt-get update -q; \
	    $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends $$missing; \
	fi

.venv/.demo: pyproject.toml
	@$(MAKE) --no-print-directory system PACKAGES='$(DEMO_PACKAGES)'
	$(PYTHON) -m venv .venv
	@echo "installing what the demo needs into .venv: about 115 MB are downloaded"
	$(PIP) install -e '.[kafka]'
	@touch $@

.venv/.installed: pyproject.toml | system
	$(PYTHON) -m venv .venv
	$(PIP) install --quiet -e '.[dev]'
	@touch .venv/.demo $@

demo: .venv/.demo ## record the Kafka consumer, print the report, draw the timeline; installs no more than that takes
	$(SUDO) $(BIN)/forktrace demo

# What records is run alone: it waits for what other programs do. Status 5: PYTEST_ADDOPTS chose none of a part.
test: setup lint ## everything that CI checks; what records needs root (sudo make test)
	$(BIN)/python -m pytest -m "not root" -n $(WORKERS) --dist loadfile || [ $$? = 5 ]
	$(BIN)/python -m pytest -m root || [ $$? = 5 ]

test-page: setup ## pages of all traces and of large ones in a headless Chromium, and Perfetto's SQL over exported traces
	$(BIN)/python -m pytest tests/page tests/unit/test_perfetto.py --pages

test-fleet: setup ## datasets of many hosts: in a bucket of a server of S3, and read by several workers
	$(PIP) install --quiet -r tests/fleet/requirements.txt
	$(BIN)/python -m pytest tests/fleet tests/unit/test_fleet.py tests/unit/test_fleet_dataset.py --fleet

test-kafka: setup ## the Kafka consumer with a real Apache Kafka, fetched through Maven; needs root
	@{ command -v mvn && command -v java; } >/dev/null || $(MAKE) --no-print-directory system PACKAGES='$(JAVA_PACKAGES)'
	$(BIN)/python -m pytest tests/kafka --kafka

test-otel: setup ## spans at a real OpenTelemetry Collector, which Go builds from its modules: minutes the first time
	@command -v go >/dev/null || { echo "there is no go: install Go 1.26 or newer" >&2; exit 1; }
	$(BIN)/python -m pytest tests/collector --collector

test-prometheus: setup ## metrics, alerts and dashboard with Debian's Prometheus and node_exporter, fetched by apt
	$(BIN)/python -m pytest tests/prometheus --prometheus

test-libraries: setup ## other people's libraries from PyPI (rq, celery, joblib, gevent, ...), recorded: what made and reaped; needs root
	$(BIN)/python -m pytest tests/libraries --libraries

test-free-threaded: setup ## Python 3.13 without its global lock, built from Debian's source (minutes, the first time); needs root
	@$(MAKE) --no-print-directory system PACKAGES='$(BUILD_PACKAGES)'
	PYTHONPATH=tests/kernels $(BIN)/python tests/free_threaded.py
	FORKTRACE_TEST_PYTHONS=3.13t $(BIN)/python -m pytest -k '3.13t or every_stack or runtimes or consumers_that_run' \
	    tests/kernel/test_python_stacks.py tests/kernel/test_several_interpreters.py tests/kernel/test_crowds.py \
	    tests/kernel/test_fork_servers.py tests/kernel/test_libraries.py tests/kernel/test_attach.py tests/kernel/test_why_now.py \
	    tests/unit/test_mp_children.py tests/unit/test_remote_stack.py

test-kernels: setup ## tests on other kernels and processors, booted in QEMU: 90 minutes; make test-kernels SET=smoke: six
	@$(MAKE) --no-print-directory system PACKAGES='$(KERNEL_PACKAGES)'
	$(BIN)/python -m pytest tests/kernels --kernels=$(or $(SET),all)

test-systemd: setup ## the unit of docs/service.md under a running systemd, in a machine that QEMU boots
	@$(MAKE) --no-print-directory system PACKAGES='$(KERNEL_PACKAGES)'
	$(BIN)/python -m pytest tests/kernels/test_systemd.py --systemd

test-distributions: ## README's commands on fresh Debian systems, under sudo and sudo-rs; needs root
	@$(MAKE) --no-print-directory system PACKAGES='debootstrap git python3'
	$(SUDO) $(PYTHON) tests/distributions/try_out.py

kernel: setup ## run a command on another kernel: make kernel KERNEL=6.1-amd64 RUN='forktrace doctor'
	@$(MAKE) --no-print-directory system PACKAGES='$(KERNEL_PACKAGES)'
	$(BIN)/python tests/kernels/machine.py $(KERNEL) "$(RUN)"

fuzz: setup ## send damaged and hostile traces through every command: make fuzz COUNT=10000 SEED=1
	$(BIN)/python tests/fuzz.py --count $(COUNT) --seed $(SEED)

test-witness: setup ## CPython's own tests of processes under strace and other witnesses: an hour; needs root
	@$(MAKE) --no-print-directory system PACKAGES=libpython$$($(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')-testsuite
	$(BIN)/python -m pytest tests/witness --witness
	$(BIN)/python tests/witness/zombie_times.py

test-crashes: setup ## kill a hundred recorders at random moments, ten of them from their first; needs root
	$(SUDO) $(BIN)/python -m pytest tests/kernel/test_crashes.py -k 'killed or left' --crashes 100 -s

soak: setup ## ten minutes of mixed forks at full speed: no loss, flat memory; needs root
	$(SUDO) $(BIN)/python tests/soak.py $(or $(SECONDS),600) $(if $(ROTATE),--rotate $(ROTATE))

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
