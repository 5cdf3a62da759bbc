# make demo and make test each work as the very first command in a fresh clone: the environment
# (.venv, about 2 GB) is made when it is missing or when what it is made from has changed.

PYTHON ?= python3
VENV ?= .venv
EXTRAS ?= bpg,fec,dev
CONFIG ?= sqlink/training/configs/streets.yaml
WORKERS ?= 2

BIN := $(VENV)/bin
READY := $(VENV)/.ready
SOURCES := channels sqlink experiments tests docs

.PHONY: demo test lint train clean help

help:
	@echo "make demo     curves, pictures and a page of SQ-GAN, JPEG2000 and BPG in results/quickstart"
	@echo "make test     lint, types and tests"
	@echo "make lint     ruff and mypy alone"
	@echo "make train    train from CONFIG=$(CONFIG)"
	@echo "make clean    remove caches and build output (keeps $(VENV) and results)"
	@echo "Settings: PYTHON=$(PYTHON) VENV=$(VENV) EXTRAS=$(EXTRAS) WORKERS=$(WORKERS)"

demo: $(READY)
	$(BIN)/sqlink demo

# One thread a process: the workers already fill the cores.
test: lint
	OMP_NUM_THREADS=1 $(BIN)/pytest -n $(WORKERS) --dist worksteal --durations 10

lint: $(READY)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy
	$(BIN)/mkdocs build --strict --quiet

train: $(READY)
	$(BIN)/sqlink train $(CONFIG)

clean:
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find $(SOURCES) -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): setup.cfg pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("SQLink needs Python 3.11 or newer: make PYTHON=python3.12 ..." if sys.version_info < (3, 11) else 0)'
	@echo "Making the environment in $(VENV), once; this takes some minutes"
	test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[$(EXTRAS)]'
	@touch $(READY)
