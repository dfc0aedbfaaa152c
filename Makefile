# `make run` and `make test` do everything from a fresh clone. Needs Python 3.11 or newer with venv, and make.

PYTHON ?= python3
PORT ?= 9000
DEMO_PORT_A ?= 9101
DEMO_PORT_B ?= 9102
ARGS ?=
FUZZ_SECONDS ?= 60

VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
# Another Python gets a venv beside the usual one, so that `make test PYTHON=python3.13` disturbs nothing.
VENV := $(if $(filter python3,$(PYTHON)),.venv,.venv-$(VERSION))
BIN := $(VENV)/bin
LOCK := $(wildcard constraints/python$(VERSION).txt)
CONSTRAINTS := $(if $(LOCK),--constraint $(LOCK))
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

# Settings as in production, for checks that need no server.
PRODUCTION := HTTPS_ONLY=true ALLOWED_HOSTS=router.example.com ROUTER_STATUS_ACCESS=staff ROUTER_METRICS_ACCESS=staff REDIS_URL=redis://localhost/0 \
	DATABASE_URL=postgres://router:secret@localhost/router \
	SECRET_KEY=check-only-$$($(BIN)/python -c 'import secrets; print(secrets.token_urlsafe(64))')

.DEFAULT_GOAL := help
.PHONY: help run test check audit install lock format clean fuzz bench bench-quick

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1 - /' | sort

# `exec`: a signal for make's child reaches the process that ends all the others, not a shell before it.
run: $(VENV)/.for-run ## start the router, its prober and two demo replicas, on port 9000 (PORT=…)
	@exec env PATH="$(abspath $(BIN)):$$PATH" python manage.py preparedemo '$(PORT)' '$(DEMO_PORT_A)' '$(DEMO_PORT_B)'
	@exec env PATH="$(abspath $(BIN)):$$PATH" PYTHONUNBUFFERED=1 ROUTER_PORT='$(PORT)' \
		DEMO_PORT_A='$(DEMO_PORT_A)' DEMO_PORT_B='$(DEMO_PORT_B)' python -m demo.start

test: $(VENV)/.for-all ## run all tests (ARGS="tests/unit -k name", PYTHON=python3.13)
	@$(BIN)/python -m pytest $(ARGS)

check: $(VENV)/.for-all ## lint, format, types, production settings, missing migrations
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(PRODUCTION) $(BIN)/python manage.py check --deploy --fail-level WARNING
	ROUTER_VAR_DIR=$$(mktemp -d) $(BIN)/python manage.py makemigrations --check --dry-run
	@$(MAKE) --no-print-directory audit

# What it has found fails, whatever else it could not reach. Offline it can reach nothing (some mirrors say so of each
# package by itself): then it is skipped by name, and does not fail the checks.
audit: $(VENV)/.for-all ## known vulnerabilities of what the constraints name
	@said=$$(timeout 60 $(BIN)/pip-audit --progress-spinner off --disable-pip --no-deps -r $(LOCK) 2>&1); code=$$?; \
	if [ $$code -ne 0 ] && echo "$$said" | grep -qE 'Found [0-9]+ known'; then echo "$$said"; exit $$code; fi; \
	without=$$(echo "$$said" | grep -c 'could not be audited'); \
	if [ $$code -eq 124 ] || [ "$$without" -ge "$$(grep -c == $(LOCK))" ] || { [ $$code -ne 0 ] && \
		echo "$$said" | grep -qE 'Could not connect|Connection|Max retries|[Tt]imed out'; }; then \
		echo 'pip-audit: skipped, its data cannot be reached'; \
	else echo "$$said"; exit $$code; fi

fuzz: $(VENV)-fuzz/.ready ## send the router what strangers can, made up at random, for some 45 minutes (ARGS="-k files")
	@$(VENV)-fuzz/bin/python -m pytest -q --hypothesis-profile=fuzz $(ARGS) tests/fuzz
	@if $(VENV)-fuzz/bin/python -c 'import atheris' 2> /dev/null; \
		then $(VENV)-fuzz/bin/python -m tests.fuzz.coverage_guided --seconds $(FUZZ_SECONDS); \
		else echo 'atheris does not install on Python $(VERSION): nothing was guided by coverage.'; fi

bench: $(VENV)-bench/.ready ## the router beside its peers, 10 minutes; writes bench/results.* (wants a quiet machine)
	@$(VENV)-bench/bin/python -m bench $(ARGS)

bench-quick: $(VENV)-bench/.ready ## a selection of the bench, within a minute; writes var/bench/results.*
	@$(VENV)-bench/bin/python -m bench --quick --out var/bench $(ARGS)

install: $(VENV)/.for-all ## only the venv, with everything

format: $(VENV)/.for-all ## put the code into its format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: ## resolve the ranges of pyproject.toml anew, into constraints/ (one file a Python: PYTHON=…)
	rm -rf .venv-lock && $(PYTHON) -m venv .venv-lock
	.venv-lock/bin/python -m pip --quiet install --upgrade pip
	.venv-lock/bin/python -m pip --quiet install '.[demo,run,test,bench,dev]'
	mkdir -p constraints
	.venv-lock/bin/python -m pip freeze --exclude stream-router > constraints/python$(VERSION).txt
	rm -rf .venv-lock build *.egg-info

clean: ## remove what the targets above made, but not var/ (the database)
	rm -rf .venv .venv-* build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(VENV)/.pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo 'The router needs Python 3.11 or newer; $(PYTHON) is "$(VERSION)". Try: make PYTHON=python3.13 …'; exit 1; }
	@echo 'Making $(VENV) …'
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo 'The venv module is missing: install python3-venv.'; exit 1; }
	@$(PIP) install --upgrade pip
	@touch $@

$(VENV)/.for-run: $(VENV)/.pip pyproject.toml $(LOCK)
	@echo 'Installing what the router and its demo need …'
	@$(if $(LOCK),,echo 'No constraints for Python $(VERSION): installing the newest versions that pyproject.toml allows.')
	@$(PIP) install $(CONSTRAINTS) '.[demo,run]'
	@rm -rf build *.egg-info; touch $@

$(VENV)/.for-all: $(VENV)/.for-run
	@echo 'Installing what tests and checks need …'
	@$(PIP) install $(CONSTRAINTS) '.[demo,run,test,dev]'
	@rm -rf build *.egg-info; touch $@

# A venv of its own: atheris is a large binary that not every Python has.
$(VENV)-fuzz/.ready: pyproject.toml $(LOCK)
	@echo 'Installing what the fuzzing needs …'
	@$(PYTHON) -m venv $(VENV)-fuzz
	@$(VENV)-fuzz/bin/python -m pip --disable-pip-version-check --quiet install $(CONSTRAINTS) '.[test]'
	@$(VENV)-fuzz/bin/python -m pip --disable-pip-version-check --quiet install $(CONSTRAINTS) '.[fuzz]' || true
	@rm -rf build *.egg-info; touch $@

# A venv of its own: uvicorn takes uvloop where it finds it, and the tests are to run on what the router itself needs.
$(VENV)-bench/.ready: pyproject.toml $(LOCK)
	@echo 'Installing what the bench needs …'
	@$(PYTHON) -m venv $(VENV)-bench
	@$(VENV)-bench/bin/python -m pip --disable-pip-version-check --quiet install $(CONSTRAINTS) '.[bench]'
	@rm -rf build *.egg-info; touch $@
