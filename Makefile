PYTHON ?= python3
BIN := .venv/bin
DATA := examples/data/salicylic_gfn2_500K.npz
RUN := runs/demo
TUTORIALS := 1
SCHNETPACK := schnetpack==2.1.1  # it wants a SymPy that no recent PyTorch takes, hence --no-deps

.PHONY: demo test first-hour fuzz lint docs bench results clean

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
	$(BIN)/ase-flatten md $(RUN) --T 300 400 --protocol quick
	$(BIN)/ase-flatten report $(RUN)

test: .venv/installed  ## the whole test suite: about 8 minutes on two cores; COVERAGE=1 measures coverage too
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal --durations=10 \
		$(if $(COVERAGE),--cov --cov-report=term-missing:skip-covered --cov-fail-under=97)

first-hour: .venv/installed  ## what a new user does, as commands: docs/first_hour.rst
	rm -rf runs/first-hour
	PATH="$(CURDIR)/$(BIN):$$PATH" examples/first_hour/first_hour.sh $(DATA) runs/first-hour

fuzz: .venv/installed  ## a thousand damaged files: each is read or refused in a sentence; SEED=2 makes others
	$(BIN)/python tests/fuzz/mutations.py --n 1000 --seed $(or $(SEED),1)
	ASE_FLATTEN_FUZZ=1000 $(BIN)/python -m pytest -q tests/formats/test_damaged_run.py

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy -p ase_flatten

docs: .venv/installed  ## the site, in docs/_build/html; warnings are errors. TUTORIALS=0 does not execute the tutorials
	rm -rf docs/_build docs/auto_tutorials docs/generated runs/tutorial
	$(BIN)/python -m sphinx -b html -W --keep-going -q -D plot_gallery=$(TUTORIALS) docs docs/_build/html

bench: .venv/installed  ## measurements that are no tests; MD17=DIR adds those of sGDML and SchNet, see benchmarks/README.rst
	$(BIN)/python benchmarks/bench_clustering.py
	$(BIN)/python benchmarks/bench_md_ipi.py
	$(BIN)/python benchmarks/bench_md.py $(DATA) --frames 100
	$(BIN)/python benchmarks/bench_subset.py $(DATA)
	$(BIN)/python benchmarks/bench_schnet.py $(DATA) --rows step batch
	$(if $(MD17),$(BIN)/python benchmarks/bench_sgdml.py --data $(MD17))
	$(if $(MD17),$(BIN)/python benchmarks/bench_schnet.py $(MD17)/md17_ethanol.npz)

results: .venv/installed  ## the tables of docs/results.rst from DIR with the data sets: make results DIR=...; about 4 hours
	$(BIN)/python examples/seeds.py $(DIR)/salicylic_gfn2_500K.npz -n 3 -i 40 -s 20 --seeds 5 --out runs/salicylic
	cp runs/salicylic/seeds.rst docs/tables/salicylic.rst
	$(BIN)/python benchmarks/corrupted_labels.py $(DIR)/md17_ethanol.npz --sigma 20 --rst docs/tables/corrupted_ethanol.rst
	$(BIN)/python benchmarks/corrupted_labels.py $(DATA) --sigma 20 -n 3 -i 60 -s 20 --rst docs/tables/corrupted_salicylic.rst
	$(BIN)/python benchmarks/data_checks.py --data $(DIR) --out runs/data_checks.jsonl
	$(BIN)/python benchmarks/data_checks.py --table runs/data_checks.jsonl
	$(BIN)/python examples/table1.py --data $(DIR) --out runs/table1
	$(BIN)/python examples/stability.py $(DIR)/acala3nhme_gfn2_500K.npz -n 6 -i 50 -s 25 --sigma 20 --symmetries matching --first-seed 1 --seeds 3 \
		--T 300 400 500 --ps 20 --data-temperature 500 --out runs/peptide
	for table in stability findings claims; do cp runs/peptide/$$table.rst docs/tables/peptide_$$table.rst; done

clean:
	rm -rf .venv build dist *.egg-info runs
