# One word each. `make demo` and `make test` need only Python 3.10+, a C++ compiler and the package index.

PYTHON ?= python3
VENV   ?= .venv
RUN     = $(VENV)/bin/python

.PHONY: help demo test slow clients readme unit lint types check format docs clean

help:
	@echo "make demo    install, convert the demo model, serve it, ask it three things"
	@echo "make test    everything that tests need, and the tests"
	@echo "make slow    thousands of random schemas and requests (minutes)"
	@echo "make clients real client libraries against the daemon, each in its own environment (minutes); ONLY=\"fast\", or names"
	@echo "make readme  the README's commands on a bare Debian (minutes; needs root and debootstrap)"
	@echo "make unit    the tests that need no model (seconds)"
	@echo "make lint    ruff;  make types  mypy --strict;  make check  all of it"
	@echo "make docs    write the tables of docs/ from the types that check requests"
	@echo "make format  let ruff rewrite the code;  make clean  forget what was made"

demo:
	@$(PYTHON) scripts/bootstrap.py $(VENV)
	@$(RUN) scripts/demo.py

test:
	@$(PYTHON) scripts/bootstrap.py $(VENV) dev
	$(RUN) -m pytest

slow:
	@$(PYTHON) scripts/bootstrap.py $(VENV) dev
	$(RUN) -m pytest -m slow -s

clients:
	@$(PYTHON) scripts/bootstrap.py $(VENV) dev
	@$(RUN) -m tests.clients.run $(ONLY)

readme:
	@$(PYTHON) scripts/bootstrap.py $(VENV) dev
	$(RUN) -m pytest -m readme -s

unit:
	@$(PYTHON) scripts/bootstrap.py $(VENV) dev
	$(RUN) -m pytest -m "not model and not shared and not readme"

lint:
	@$(PYTHON) scripts/bootstrap.py $(VENV) dev
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

types:
	@$(PYTHON) scripts/bootstrap.py $(VENV) dev
	$(RUN) -m mypy

check: lint types test

format:
	@$(PYTHON) scripts/bootstrap.py $(VENV) dev
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

docs:
	@$(PYTHON) scripts/bootstrap.py $(VENV) dev
	$(RUN) -m scripts.api_tables

clean:
	rm -rf $(VENV) build *.egg-info models/*.gguf models/*.gguf.json .pytest_cache .mypy_cache .ruff_cache .hypothesis
