# The commands of the book. `make help` lists them; the work is done by tools/*.py.
PYTHON ?= python3
VENV   ?= .venv
ARGS   ?=
SEEDS  ?= 20
OLDEST ?= python3.10
NEWEST ?= python3.13
BIN    := $(VENV)/bin
RUN    := OMP_NUM_THREADS=1 $(BIN)/python -m

.DEFAULT_GOAL := help
.PHONY: help lab test library oldest newest book links chapters claims bench lint constraints report clean

help:  ## List the commands
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "%-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# One stamp per set of packages: nothing is installed again until the dependencies change.
# Groups, which only those who work on the book need, want a pip of 2025 or later.
INSTALL := $(BIN)/python -m pip install --constraint constraints.txt --editable '.[lab]'

$(VENV)/.installed-lab: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(INSTALL)
	touch $@

$(VENV)/.installed-all: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(INSTALL) --group book --group test
	touch $@ $(VENV)/.installed-lab

lab: $(VENV)/.installed-lab  ## Open JupyterLab at the start page; ARGS="--no-browser --port 8899" passes on
	$(BIN)/python -m jupyterlab $(ARGS) chapters/start.ipynb

test: $(VENV)/.installed-all  ## Everything that CI runs: style, library, notebooks, site
	$(RUN) tools.system
	$(RUN) tools.check $(ARGS)

library: $(VENV)/.installed-all  ## The library's tests alone
	$(RUN) $(LIBRARY) $(ARGS)
LIBRARY := pytest -q -p no:cacheprovider tests --ignore=tests/book --ignore=tests/site --ignore=tests/benchmarks

oldest:  ## The library's tests with the oldest versions that pyproject.toml allows, on OLDEST=python3.10
	$(call alone,$(OLDEST),.venv-oldest,--resolution lowest-direct)

newest:  ## The same with the newest versions, on NEWEST=python3.13
	$(call alone,$(NEWEST),.venv-newest,)

# In an environment of its own, $(2), made by the Python $(1); uv chooses the versions anew each time, by $(3).
define alone
test -x $(2)/bin/python || $(1) -m venv $(2)
$(2)/bin/python -m pip install --quiet uv
$(2)/bin/python -m uv pip install --quiet --python $(2)/bin/python --upgrade $(3) --editable '.[lab,teach]' --group test
OMP_NUM_THREADS=1 $(2)/bin/python -m $(LIBRARY) $(ARGS)
endef

book: $(VENV)/.installed-all  ## Execute the notebooks in parallel, then build the site
	$(RUN) tools.book $(ARGS)

links: $(VENV)/.installed-all  ## Ask for every page that the site and the README link to; needs a network
	$(RUN) tools.links

chapters: $(VENV)/.installed-all  ## Derive notebooks, and the README's table, from chapters/src
	$(RUN) tools.chapters $(ARGS)

claims: $(VENV)/.installed-all  ## Run every claim under SEEDS=20 seeds; ARGS=01 takes one chapter, --week new seeds
	$(RUN) tools.claims --seeds $(SEEDS) $(ARGS)

bench: $(VENV)/.installed-all  ## Benchmarks: fit against a hand-written loop, import time
	$(RUN) pytest tests/benchmarks --benchmark-enable $(ARGS)

lint: $(VENV)/.installed-all  ## Style and types of the code
	$(RUN) tools.check lint

constraints: $(VENV)/.installed-all  ## Resolve the tested versions; ARGS=--upgrade takes the newest
	$(BIN)/python -m pip install --quiet uv
	$(RUN) tools.constraints $(ARGS)

report:  ## What a scheduled run does after a failure: open an issue, or comment on the open one
	$(PYTHON) -m tools.report

clean:  ## Remove what was built (the environment stays)
	rm -rf _build dist pages/generated .pytest_cache .ruff_cache .hypothesis .benchmarks
