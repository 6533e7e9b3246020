# Everything runs from .venv, which the first target that needs it makes. `make` alone lists the targets.
SHELL := /bin/sh
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
INSTALLED_DOCS := .venv/.installed-docs
PROSE := $(wildcard src tests benchmarks docs README.md CONTRIBUTING.md CHANGELOG.md Makefile mkdocs.yml)

.DEFAULT_GOAL := help
.PHONY: help venv demo test coverage test-slow lint format docs bench bench-gpu clean

help:  ## list the targets
	@echo "gfocal: make TARGET, where TARGET is one of"
	@echo "  venv       make .venv and install gfocal with its tools (the others do this by themselves)"
	@echo "  demo       train, evaluate and show a small detector; writes runs/demo/report.html"
	@echo "  test       run the tests"
	@echo "  coverage   run the tests and print what of src they reach"
	@echo "  test-slow  run the tests that train for minutes"
	@echo "  lint       ruff, pyright, import layers and spelling"
	@echo "  format     let ruff rewrite the code in the house style"
	@echo "  docs       build the documentation into site/"
	@echo "  bench      time the parts and tell which have got slower; writes runs/bench.json"
	@echo "  bench-gpu  time V1 and V2 on a CUDA device"
	@echo "  clean      remove caches and built files; .venv and runs/ stay"
	@echo "Another Python: make venv PYTHON=/path/to/python3.12"

venv: $(INSTALLED)

$(INSTALLED): pyproject.toml
	@set -e; \
	if ! $(BIN)/python -m pip --version >/dev/null 2>&1; then \
	  found=; \
	  for python in $(PYTHON) python3.13 python3.12 python3.11 python3.10 python; do \
	    if $$python -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then found=$$python; break; fi; \
	  done; \
	  if [ -z "$$found" ]; then \
	    version=$$($(PYTHON) -c 'import platform; print(platform.python_version())' 2>/dev/null || echo missing); \
	    echo "gfocal needs Python 3.10 or newer ($(PYTHON) is $$version): install one, or name it with make PYTHON=/path/to/python3" >&2; \
	    exit 1; \
	  fi; \
	  version=$$($$found -c 'import sys; print("%d.%d" % sys.version_info[:2])'); \
	  if ! $$found -c 'import ensurepip, venv' 2>/dev/null; then \
	    echo "$$found cannot make virtual environments: install its venv package (Debian, Ubuntu: apt install python$$version-venv) and run make again" >&2; \
	    exit 1; \
	  fi; \
	  echo "Making .venv with Python $$version ($$found)"; \
	  $$found -m venv .venv; \
	fi; \
	echo "Installing gfocal and its tools into .venv (the first time this downloads PyTorch: some minutes)"; \
	$(BIN)/python -m pip install --disable-pip-version-check -e '.[dev]'; \
	: > $@; \
	echo "Installed: $(BIN)/gfocal"

$(INSTALLED_DOCS): $(INSTALLED)
	@echo "Installing what builds the documentation into .venv"
	@$(BIN)/python -m pip install --disable-pip-version-check -e '.[docs]'
	@: > $@

demo: $(INSTALLED)
	$(BIN)/gfocal demo

test: $(INSTALLED)
	$(BIN)/python -m pytest -n 2 --dist worksteal --durations=5

coverage: $(INSTALLED)
	$(BIN)/python -m pytest -n 2 --dist worksteal --cov --cov-report=term

test-slow: $(INSTALLED)
	$(BIN)/python -m pytest -m slow --timeout 7200 --durations=0

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(BIN)/codespell $(PROSE)

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(INSTALLED_DOCS)
	$(BIN)/mkdocs build --strict

bench: $(INSTALLED)
	$(BIN)/python benchmarks/guard.py

bench-gpu: $(INSTALLED)
	$(BIN)/python benchmarks/gpu.py

clean:
	rm -rf build dist site .coverage .pytest_cache .ruff_cache .hypothesis .import_linter_cache
