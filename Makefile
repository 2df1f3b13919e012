# make up      sets up, then runs the control plane with its embedded store and simulated nodes
# make test    sets up, then runs the tests
# others       make test-long, test-sim, test-clients, test-pure, fuzz, bench, bench-sched, bench-reads, bench-etcd,
#              bench-micro, check-instructions, profile, lint, format, clean

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CORES := $(wildcard fastkube/_*.pyx)
NODES ?= 3

.PHONY: up test test-long test-sim test-clients test-pure fuzz bench bench-sched bench-controllers bench-reads bench-etcd bench-micro check-instructions profile lint format setup setup-dev kubectl clean
.DEFAULT_GOAL := up

up: setup
	@$(BIN)/fastkube up --nodes $(NODES)

# A file per state of the environment: what is up to date is not done again.
# Bytecode is written here even where the environment tells Python not to: compiling all modules doubles a start.
BYTECODE = @$(BIN)/python -m compileall -q fastkube
setup: $(VENV)/.installed
	$(BYTECODE)
setup-dev: $(VENV)/.installed-dev
	$(BYTECODE)

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "fastkube needs Python 3.11 or later (set PYTHON=...)"; exit 1; }
	@command -v $${CC:-cc} >/dev/null || { echo "a C compiler is needed: apt-get install gcc python3-dev"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo "python3-venv is needed: apt-get install python3-venv"; exit 1; }
	@$(BIN)/python -m pip install --quiet --upgrade pip setuptools cython

$(VENV)/.installed: pyproject.toml setup.py $(CORES) | $(VENV)/bin/python
	@echo "setting up (once): packages and compiled cores"
	@$(BIN)/python -m pip install --quiet --no-build-isolation --editable .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@$(BIN)/python -m pip install --quiet --no-build-isolation --editable '.[dev]'
	@touch $@

# The tests drive the real kubectl: the one on PATH or, where there is none, one built from its Go module.
KUBECTL_VERSION := 0.34.3
kubectl: | $(VENV)/bin/python
	@command -v kubectl >/dev/null || test -x $(BIN)/kubectl || { \
	  command -v go >/dev/null || { echo "kubectl (1.32 or newer) on PATH, or Go to build it, is needed for the tests"; exit 1; }; \
	  echo "building kubectl (once)"; cd tools/kubectl && go build -trimpath \
	    -ldflags "-s -w -X k8s.io/component-base/version.gitVersion=v1.$(patsubst 0.%,%,$(KUBECTL_VERSION))" -o ../../$(BIN)/kubectl . ; }

# On all cores; four processes at most, as each has servers of its own. Without WORKERS: one after the other.
WORKERS := -n logical --maxprocesses 4 --dist worksteal
test: setup-dev kubectl
	$(BIN)/python -m pytest $(WORKERS)

test-long: setup-dev kubectl
	$(BIN)/python -m pytest -m long --timeout 3600

test-sim: setup-dev
	$(BIN)/python -m pytest -m long tests/sim --timeout 21600

test-clients: setup-dev kubectl
	@$(BIN)/python -m pip install --quiet --no-build-isolation --editable '.[dev,clients]'
	$(BIN)/python -m pytest -m clients --timeout 2400 tests/clients/test_clients.py tests/clients/test_clients_scheduler.py tests/etcd/test_etcd_etcdctl.py

# Requests made from the served OpenAPI documents: FUZZ_EXAMPLES of each operation, about 15 minutes with 10.
fuzz: setup-dev
	@$(BIN)/python -m pip install --quiet --no-build-isolation --editable '.[dev,fuzz]'
	$(BIN)/python -m pytest -m fuzz --timeout 7200 tests/fuzz

test-pure: setup-dev
	FASTKUBE_PURE=1 $(BIN)/python -m pytest tests/api tests/store tests/sched tests/raft tests/etcd

# All subjects, this checkout compiled and pure beside the peers that are found: about 12 minutes on a quiet machine.
bench: setup-dev
	$(BIN)/python bench/suite.py

# Scheduling: decisions of both builds over the number of nodes, and Pods bound end to end: about 4 minutes.
bench-sched: setup-dev
	$(BIN)/python -m bench.sched

# Deployments, rollouts, namespaces: the work of the controllers in a whole control plane.
bench-controllers: setup-dev
	$(BIN)/python -m bench.controllers

# Lists of 100,000 Pods, a million objects, the heartbeats of 5,000 nodes, rest, frontends: about five minutes.
bench-reads: setup-dev
	$(BIN)/python -m bench.reads

# The etcd v3 API beside the real etcd (on PATH; the load needs Go): about 4 minutes.
bench-etcd: setup-dev
	$(BIN)/python bench/etcd.py

# Single operations: their time, and the instructions they take against bench/micro/instructions.json (needs valgrind).
bench-micro: setup-dev
	$(BIN)/python -m pytest bench/micro
	$(BIN)/python -m bench.micro.instructions

# The hot ones alone; fails when one takes a tenth more than its reference (needs valgrind): half a minute.
check-instructions: setup-dev
	$(BIN)/python -m bench.micro.instructions --hot

profile: setup-dev
	$(BIN)/python bench/profile.py

lint: setup-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	MYPYPATH=tests/sched $(BIN)/mypy tests/sched

format: setup-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) build dist *.egg-info fastkube/*.so fastkube/*.c .fastkube
