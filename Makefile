PYTHON ?= python3
BIN := .venv/bin
DATA := examples/data/salicylic_gfn2_500K.npz
RUN := runs/demo
SCHNETPACK := schnetpack==2.1.1  # it wants a SymPy that no recent PyTorch takes, hence --no-deps

.PHONY: demo test lint bench clean

.venv/installed: requirements.lock setup.cfg pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps $(SCHNETPACK)
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

demo: .venv/installed  ## the main job on the bundled data: at most 10 minutes
	$(BIN)/ase-flatten check $(DATA)
	$(BIN)/ase-flatten train $(DATA) -n 3 -i 40 -s 20 --out $(RUN) --resume
	$(BIN)/python examples/shared_proton.py $(DATA) $(RUN)
	$(BIN)/python -m ase_flatten.md $(RUN) --T 300 400 --protocol quick
	$(BIN)/ase-flatten report $(RUN)

test: .venv/installed  ## the whole test suite: at most 15 minutes
	$(BIN)/python -m pytest --cov --cov-report=term-missing:skip-covered --cov-fail-under=90

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy -p ase_flatten

bench: .venv/installed  ## measurements that are no tests; MD17=DIR adds those of sGDML and SchNet, see benchmarks/README.rst
	$(BIN)/python benchmarks/bench_clustering.py
	$(BIN)/python benchmarks/bench_md_ipi.py
	$(BIN)/python benchmarks/bench_md.py $(DATA) --frames 100
	$(BIN)/python benchmarks/bench_subset.py $(DATA)
	$(BIN)/python benchmarks/bench_schnet.py $(DATA) --rows step batch
	$(if $(MD17),$(BIN)/python benchmarks/bench_sgdml.py --data $(MD17))
	$(if $(MD17),$(BIN)/python benchmarks/bench_schnet.py $(MD17)/md17_ethanol.npz)

clean:
	rm -rf .venv build dist *.egg-info runs
