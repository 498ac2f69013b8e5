# make demo    install into .venv and predict the bundled image
# make check   install what the tests need; lint and the fast tests, under three minutes
# make test    the same and all other tests
# make nano    train a network of the shape of the bundled one from random numbers: hours; a stopped run continues
# A fresh machine needs Python 3.11 or newer with venv, and a package index. PYTHON=python3.12 selects an interpreter.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo check test lint nano clean

demo: $(VENV)/demo.stamp
	$(BIN)/dav2 predict dav2_jax/assets/room.jpg --model nano --out demo --format color side-by-side
	@echo "The picture: $(CURDIR)/demo/room.jpg.side-by-side.png"
	@echo "nano is small and bundled. For the released model, with network: $(BIN)/dav2 predict YOUR_PHOTO"

check: $(VENV)/test.stamp lint
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not slow"

test: $(VENV)/test.stamp lint
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

lint: $(VENV)/test.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# Complete outputs are kept and unfinished ones continued.
nano: export XLA_FLAGS = --xla_force_host_platform_device_count=2
nano: $(VENV)/test.stamp
	$(BIN)/dav2 data prepare 'procedural?count=7000&seed=3&height=252&width=336' scenes/clean
	$(BIN)/dav2 data prepare 'procedural?count=9000&seed=5&height=252&width=336' scenes/more
	$(BIN)/dav2 data prepare 'procedural?count=1500&seed=4&height=252&width=336&style=worn' scenes/worn
	$(BIN)/dav2 data prepare 'procedural?count=256&seed=7001&height=252&width=336' scenes/held-out
	$(BIN)/dav2 train nano --out runs/nano-70
	$(BIN)/dav2 train nano_98 --out runs/nano-98
	$(BIN)/dav2 train nano_182 --out runs/nano-182
	$(BIN)/dav2 train nano_252 --out runs/nano-252
	$(BIN)/dav2 convert runs/nano-252 dav2_jax/assets/nano.ckpt --dtype float16 --license Apache-2.0 --overwrite

clean:
	rm -rf $(VENV) demo build *.egg-info

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/demo.stamp: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(VENV)/test.stamp: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	@touch $@ $(VENV)/demo.stamp
