# make run: the page at http://127.0.0.1:7860.  make test: every test.  make faults: what breaks on purpose.  make check: format, lint, types, imports.
PYTHON ?= python3
PORT ?= 7860
BIN := .venv/bin

.PHONY: run test fast check bench bench-training screenshots faults clean

run: .venv/installed
	@$(BIN)/tunedesk webui --port $(PORT) $(ARGS)

test: .venv/installed-dev
	@sh tests/install_tools.sh
	@$(BIN)/pytest -m alone $(ARGS) || [ $$? = 5 ]
	@$(BIN)/pytest -m "not alone" -n 3 --dist loadfile $(ARGS)

fast: .venv/installed-dev
	@$(BIN)/pytest -m "not slow and not browser" -n 2 --dist loadfile $(ARGS)

# Everything that tests/faults breaks, and all long tests; `make test` takes a sample. As root it fills disks and memory too.
faults: .venv/installed-dev
	@sh tests/install_tools.sh
	@FAULTS=all $(BIN)/pytest -m "not alone" -n 2 --dist loadfile tests/faults tests/browser $(ARGS)
	@FAULTS=all $(BIN)/pytest -m "thorough and not alone" -n 2 --dist loadfile tests/app tests/trainer tests/nodes tests/npu tests/container $(ARGS)
	@FAULTS=all $(BIN)/pytest -m alone tests/faults tests/browser tests/trainer $(ARGS)

check: .venv/installed-dev
	@$(BIN)/ruff format --check app trainer tests assets
	@$(BIN)/ruff check app trainer tests assets
	@$(BIN)/mypy
	@$(BIN)/lint-imports

bench: .venv/installed-dev
	@$(BIN)/python -m tests.bench.page

bench-training: .venv/installed-dev
	@$(BIN)/python -m tests.bench.training_cpu $(ARGS)

screenshots: .venv/installed-dev
	@sh tests/install_tools.sh
	@FAULTS=all $(BIN)/pytest tests/browser/test_tutorial.py --screenshots assets/screenshots

clean:
	rm -rf .venv build *.egg-info

# torch comes first and by exact version: any looser requirement pulls gigabytes of CUDA packages.
.venv/installed: pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "Installing Tunedesk into .venv (once; a few minutes) …"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check "$$(grep '^torch==' constraints.txt)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $@

.venv/installed-dev: .venv/installed
	@echo "Installing what the tests need into .venv …"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@
