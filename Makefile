# An active virtual environment is reused; otherwise `make setup` builds .venv.
.DEFAULT_GOAL := help
VENV := $(if $(VIRTUAL_ENV),$(VIRTUAL_ENV),.venv)
PYTHON := $(VENV)/bin/python
READY := $(VENV)/.kd_mil-ready
SINGLE := OMP_NUM_THREADS=1

help: ## show this help
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(READY) ## make the virtual environment and install the package with its development tools

# PyTorch's Linux builds bring CUDA along: most of the download. CPU=URL takes PyTorch from the index of CPU builds that
# the selector on pytorch.org/get-started shows (its --index-url).
$(READY): pyproject.toml
	@test -x $(PYTHON) || python3 -m venv $(VENV)
ifdef CPU
	@echo "installing into $(VENV): about 0.6 GB to download (PyTorch for CPUs), 2 GB on disk, 2 to 10 minutes"
	$(PYTHON) -m pip install --disable-pip-version-check --index-url '$(CPU)' torch torchvision
else
	@echo "installing into $(VENV): about 3 GB to download (PyTorch with CUDA), 7 GB on disk, 5 to 20 minutes; without a GPU: make setup CPU=URL"
endif
	$(PYTHON) -m pip install --disable-pip-version-check --editable '.[dev]'
	@touch $@

demo: $(READY) ## WENO on slides made here, end to end, in one to two minutes
	$(PYTHON) -m kd_mil.run experiment=weno_transport data=synthetic_slides aggregator=dsmil optimizer.lr=5e-4 \
		method.instance_score=validation trainer.max_epochs=10 loading.num_workers=2 paths.cache_dir=.cache/demo \
		hydra.run.dir=runs/demo
	$(PYTHON) -m kd_mil.predict ckpt=runs/demo out=runs/demo/predictions \
		'slides=.cache/demo/synthetic_slides_*/slides/*_0*0.tif'

test: $(READY) ## all tests
	$(SINGLE) $(PYTHON) -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-fast: $(READY) ## tests without the slow ones
	$(SINGLE) $(PYTHON) -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m 'not slow'

lowest: ## all tests on the oldest dependencies that pyproject.toml allows, in .venv-lowest; needs uv
	uv venv --allow-existing --python 3.11 .venv-lowest
	uv pip install --python .venv-lowest --resolution lowest-direct --editable '.[dev]'
	$(SINGLE) .venv-lowest/bin/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

lint: $(READY) ## style and types
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy

format: $(READY) ## rewrite the code in the project's style
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .

bench: $(READY) ## speed, memory and time-to-accuracy, written to experiments/benchmarks/
	$(PYTHON) -m benchmarks

docs: $(READY) ## the documentation site, in site/index.html
	NO_MKDOCS_2_WARNING=1 $(PYTHON) -m mkdocs build --quiet
	@echo "site/index.html"

campaign: $(READY) ## odd and hostile inputs, killed processes, 1 to 4 ranks; recorded in experiments/faults/
	$(SINGLE) $(PYTHON) -m tests.campaign record=experiments/faults

clean: ## remove what commands made, virtual environment and runs included
	rm -rf .venv .venv-lowest runs multirun .cache build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: help setup demo test test-fast lowest lint format bench docs campaign clean
