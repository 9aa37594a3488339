# course · lab · chat · test · test-all · bench · gpu-check · lock · clean. Each sets up what it needs.
PYTHON ?= python3
BIN := .venv/bin
GPU := $(shell nvidia-smi --query-gpu=name --format=csv,noheader 2>/dev/null | head -n 1)
SET := $(if $(GPU),requirements.txt,requirements/cpu.txt)
TORCH := $(shell grep '^torch==' requirements/cpu.txt)
# Where PyTorch's CPU builds live if the configured package index has none.
TORCH_CPU_INDEX ?= https://download.pytorch.org/whl/cpu
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-input

.PHONY: course lab chat test test-all bench gpu-check lock clean distclean

course: .venv/.installed
	@$(BIN)/python -m helpers.course run

lab: .venv/.installed
	@$(BIN)/jupyter lab --config=notebooks/lab/jupyter_lab_config.py notebooks

chat: .venv/.installed
	@$(BIN)/python -m helpers.bot --trained

test: .venv/.installed .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest
	rm -rf outputs/smoke
	COMPANION_PROFILE=smoke $(BIN)/python -m pytest --nbval-lax --nbval-cell-timeout=900 -o addopts= -v notebooks

test-all: test
	$(BIN)/python -m pytest -m slow

bench: .venv/.installed
	$(BIN)/python tests/bench_lm_head.py
	$(BIN)/python tests/bench_corpus.py
	$(BIN)/python tests/bench_generate.py
	$(BIN)/python tests/bench_quantized.py
	$(BIN)/python tests/bench_adapters.py

gpu-check: .venv/.installed
	@$(BIN)/python tests/gpu/check.py

lock: .venv/.dev
	{ grep -vE '^(#|vllm==)' requirements.txt | sed 's/^torch==.*/&+cpu/'; grep -v '^#' requirements/cpu.in; } > .venv/both.in
	$(BIN)/uv pip compile --quiet .venv/both.in --override requirements/leave-out.txt --python-version 3.11 \
	    --no-annotate --no-header --no-emit-find-links $(LOCK_OPTIONS) --output-file requirements/cpu.txt

clean:
	rm -rf outputs/* .pytest_cache .ruff_cache

distclean: clean
	rm -rf .venv *.egg-info

.venv/.installed: $(SET) pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || { echo "Python 3.11, 3.12 or 3.13 is needed, for which all packages have builds; $(PYTHON) is $$($(PYTHON) -V). Name another: make PYTHON=python3.12"; exit 1; }
	@echo "$(if $(GPU),NVIDIA GPU found ($(GPU)): taking the GPU set,No NVIDIA GPU found: taking the CPU set), $(SET). This takes some minutes, once."
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv
ifeq ($(GPU),)
	@$(PIP) --no-deps '$(TORCH)' 2>/dev/null || $(PIP) --no-deps --index-url $(TORCH_CPU_INDEX) '$(TORCH)'
	@$(PIP) --no-deps -r $(SET)
else
	@$(PIP) -r $(SET)
endif
	@$(PIP) --no-deps --editable .
	@touch $@

.venv/.dev: requirements/dev.txt .venv/.installed
	@$(PIP) -r requirements/dev.txt
	@touch $@
