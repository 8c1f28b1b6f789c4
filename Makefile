# The commands of the book. `make help` lists them; the work is done by tools/*.py.
PYTHON ?= python3
VENV   ?= .venv
ARGS   ?=
SEEDS  ?= 20
BIN    := $(VENV)/bin
RUN    := OMP_NUM_THREADS=1 $(BIN)/python -m

.DEFAULT_GOAL := help
.PHONY: help lab test book chapters claims bench lint constraints clean

help:  ## List the commands
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "%-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# One stamp per set of extras: nothing is installed again until the dependencies change.
$(VENV)/.installed-%: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --constraint constraints.txt --editable '.[$(subst -,$(comma),$*)]'
	touch $@ $(VENV)/.installed-lab
comma := ,

lab: $(VENV)/.installed-lab  ## Open JupyterLab at chapter 01; ARGS="--no-browser --port 8899" passes on
	$(BIN)/python -m jupyterlab $(ARGS) chapters/01-everything-is-a-mapping.ipynb

test: $(VENV)/.installed-lab-book-test  ## Everything that CI runs: style, library, notebooks, site
	$(RUN) tools.check $(ARGS)

book: $(VENV)/.installed-lab-book-test  ## Execute the notebooks in parallel, then build the site
	$(RUN) tools.book $(ARGS)

chapters: $(VENV)/.installed-lab-book-test  ## Derive chapters/*.ipynb from chapters/src/*.md
	$(RUN) tools.chapters $(ARGS)

claims: $(VENV)/.installed-lab-book-test  ## Run every claim under SEEDS=20 seeds; ARGS=01 takes one chapter
	$(RUN) tools.claims --seeds $(SEEDS) $(ARGS)

bench: $(VENV)/.installed-lab-book-test  ## Benchmarks: fit against a hand-written loop, import time
	$(RUN) pytest tests/benchmarks --benchmark-enable $(ARGS)

lint: $(VENV)/.installed-lab-book-test  ## Style of the code
	$(RUN) ruff check .
	$(RUN) ruff format --check .

constraints: $(VENV)/.installed-lab-book-test  ## Resolve the tested versions; ARGS=--upgrade takes the newest
	$(BIN)/python -m pip install --quiet uv
	$(RUN) tools.constraints $(ARGS)

clean:  ## Remove what was built (the environment stays)
	rm -rf _build dist pages/generated .pytest_cache .ruff_cache .hypothesis .benchmarks
