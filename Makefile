# make demo    install into .venv and predict the bundled picture
# make test    install what the tests need and run them
# A fresh machine needs Python 3.11 or newer with venv, and a package index. PYTHON=python3.12 picks another one.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test lint clean

demo: $(VENV)/demo.stamp
	$(BIN)/dav2 predict dav2_jax/assets/room.jpg --model untrained-small --out demo --format color side-by-side
	@echo "The picture: $(CURDIR)/demo/room.jpg.side-by-side.png"
	@echo "It comes from RANDOM weights: it shows that everything runs, not depth. With network: $(BIN)/dav2 predict YOUR_PHOTO"

test: $(VENV)/test.stamp lint
	$(BIN)/python -m pytest -n 2 --dist loadfile

lint: $(VENV)/test.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

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
