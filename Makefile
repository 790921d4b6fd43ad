# make TARGET (PYTHON=/path/to/python selects the interpreter of the environment)
#   setup      create the environment in .venv (the targets below do so if it is missing)
#   demo       run every step on synthetic slides
#   test       run all tests
#   check      lint, format, types, import layers
#   coverage   run all tests, and measure their branch coverage
#   pipelines  run the small recipes as their pages say, and steps of all full recipes
#   torture    run long tests of kills and faults
#   fuzz       run parsers on generated input
#   audit      look for known vulnerabilities of installed packages
#   bench      run the quick benchmarks; bench-full: all; bench-env: libraries to compare with
#   viewer     get the library of the viewer's page from npm, for wheels and images
#   azurite    get a server of Azure's object store from npm, for tests
#   docs       build the site in site/; a broken link fails

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help setup demo test coverage torture pipelines fuzz audit check bench bench-full bench-env viewer azurite docs

help:
	@sed -n '1,15s/^# //p' Makefile

setup: $(STAMP)

# A name on PATH proves nothing (pyenv leaves shims that fail), so each candidate is run.
$(BIN)/python:
	@for python in $(if $(PYTHON),"$(PYTHON)",python3.13 python3.12 python3.14 python3); do \
	  if "$$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 12))' 2>/dev/null; then \
	    echo "setup: $$("$$python" --version) in $(VENV)"; \
	    exec "$$python" -m venv --clear $(VENV); \
	  fi; \
	done; \
	echo "error: got no Python that runs, is 3.12 or newer and has venv" \
	  "(tried $(if $(PYTHON),$(PYTHON),python3.13 python3.12 python3.14 python3));" \
	  "install one, or name it: make setup PYTHON=/path/to/python" >&2; exit 1

$(STAMP): pyproject.toml constraints.txt | $(BIN)/python
	@echo "setup: installs the packages of constraints.txt in $(VENV): about 8 GB, some minutes"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	  -e '.[all,dev,docs]' -c constraints.txt
	@touch $@

demo: $(STAMP)
	$(BIN)/wsi-seg demo --out demo

test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

# Fails below 90 % of the package, and below 100 % of geometry and blending.
coverage: $(STAMP)
	$(BIN)/python -m pytest --cov --cov-report=
	$(BIN)/coverage report --skip-covered --fail-under 100 --include 'wsi_seg/geometry/*,wsi_seg/inference/blend.py'
	$(BIN)/coverage report --fail-under 90

pipelines: $(STAMP)
	$(BIN)/python -m pytest -m pipelines tests/pipelines --timeout 1800
	$(BIN)/python pipelines/run.py

torture: $(STAMP)
	$(BIN)/python -m pytest -m torture --timeout 1800

fuzz: $(STAMP)
	HYPOTHESIS_PROFILE=fuzz $(BIN)/python -m pytest tests/fuzz --timeout 3600

# Asks a public list of vulnerabilities for each installed package, so it needs the network.
audit: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check pip-audit
	$(BIN)/python -m pip_audit --local --skip-editable

check: $(STAMP)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	PYTHONPATH=. $(BIN)/lint-imports

docs: $(STAMP)
	$(BIN)/mkdocs build

# The other libraries need other versions than ours, so they have their own environment (7 GB).
bench-env: | $(BIN)/python
	$(BIN)/python -m venv .venv-peers
	.venv-peers/bin/python -m pip install --quiet --disable-pip-version-check \
	  -r benchmarks/peers/requirements.txt

# Quick ones, compared with benchmarks/baseline.json; times never fail it.
bench: $(STAMP)
	$(BIN)/python benchmarks/run.py

bench-full: $(STAMP)
	$(BIN)/python benchmarks/run.py --full

# The library is BSD-3-Clause; its licence is kept next to it.
OPENSEADRAGON := 5.0.1
VENDOR := wsi_seg/viewer/static/vendor

viewer: $(VENDOR)/openseadragon.min.js

$(VENDOR)/openseadragon.min.js:
	@mkdir -p $(VENDOR)
	@cd $(VENDOR) && npm pack --silent openseadragon@$(OPENSEADRAGON) >/dev/null \
	  || { echo "error: cannot get openseadragon $(OPENSEADRAGON) with npm; install npm, or get on-line" >&2; exit 1; }
	@cd $(VENDOR) && tar -xzf openseadragon-$(OPENSEADRAGON).tgz --strip-components=1 package/LICENSE.txt \
	  && tar -xzf openseadragon-$(OPENSEADRAGON).tgz --strip-components=3 package/build/openseadragon/openseadragon.min.js \
	  && rm openseadragon-$(OPENSEADRAGON).tgz && touch openseadragon.min.js

# A store of Azure on loopback, for tests (MIT licence): 190 MB, which is not committed.
AZURITE := 3.35.0

azurite: .azurite/node_modules/.bin/azurite-blob

.azurite/node_modules/.bin/azurite-blob:
	@npm install --silent --no-fund --no-audit --prefix .azurite azurite@$(AZURITE) \
	  || { echo "error: cannot get azurite $(AZURITE) with npm; install npm, or get on-line" >&2; exit 1; }
