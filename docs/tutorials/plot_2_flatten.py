"""
Flatten the error
=================

Improved training starts from a small training set and adds, step by step, configurations from the clusters where the
model is wrong. The result is a model of a given size, and a default model of the same size to compare it with.
"""

# %%
# Train
# -----
# From 40 frames by 2 steps of 20 to 80. We run the command as one would in a shell. ``--resume`` continues a run
# that was stopped, and returns at once if the run is finished. The length scale of sGDML is fixed by ``--set sigma=20``
# to save time; by default it is chosen on validation frames.

import csv
import subprocess
import sys

import matplotlib.pyplot as plt
import numpy as np

from ase_flatten import load_calculator, read_dataset

DATA, RUN = "../../examples/data/salicylic_gfn2_500K.npz", "../../runs/tutorial"


def run(module, *arguments):
    """Run a command of ase-flatten and return what it prints; the same as typing it in a shell."""
    return subprocess.run(
        [sys.executable, "-m", module, *arguments], check=True, stdout=subprocess.PIPE, text=True
    ).stdout


options = "-n 2 -i 40 -s 20 --set sigma=20 --resume --quiet".split()
print(run("ase_flatten.cli", "train", DATA, "--out", RUN, *options))

# %%
# The last line is the verdict. It compares the two models on held-out frames, which were set aside before anything was
# chosen. *Better* means better beyond the noise of the held-out frames and beyond what another default training
# set would change. *No difference beyond noise* is a result too: such a small run cannot decide the question, and more
# default draws, more frames or more seeds are needed. :doc:`/verdicts` has the details.
#
# Compare the errors on the clusters
# ----------------------------------
# ``errors.csv`` in the run folder has a row for each cluster and a last one over all held-out frames.

with open(f"{RUN}/errors.csv") as file:
    *rows, overall = csv.DictReader(file)
rows = [row for row in rows if int(row["n_heldout"]) >= 20]
fig, ax = plt.subplots(figsize=(6, 3.5), layout="constrained")
for scheme, colour in (("default", "#d95f02"), ("improved", "#1f78b4")):
    curve = sorted(float(row[f"force_rmse_{scheme}"]) for row in rows)
    total = float(overall[f"force_rmse_{scheme}"])
    ax.plot(np.arange(1, len(curve) + 1), curve, color=colour, label=f"{scheme}, all frames: {total:.2f}")
ax.set(xlabel="clusters of at least 20 held-out frames, sorted by error", ylabel="force RMSE (kcal/(mol Å))")
ax.set_ylim(bottom=0)
ax.legend(frameon=False)
plt.show()

# %%
# The aim is a flatter curve: lower on the right, at the price of slightly larger errors on the left, as both models
# have the same number of training frames. This is one run with one seed; another seed may give another picture.
#
# Use the improved model in ASE
# -----------------------------
# The run folder is all that the calculator needs.

atoms = read_dataset(DATA).atoms(0)
atoms.calc = load_calculator(RUN)
print(f"energy: {atoms.get_potential_energy():.3f} eV")
print(f"largest force: {np.linalg.norm(atoms.get_forces(), axis=1).max():.3f} eV/Å")
print(f"extrapolation: {atoms.calc.extrapolation:.2f}")

# %%
# ``extrapolation`` says how far a geometry is from the training geometries. Above 1 it lies outside of them. Let us
# stretch the O-H bond of the phenol group and see.

axis = atoms.positions[15] - atoms.positions[9]
stretches = np.linspace(0, 0.6, 25)
geometries = np.repeat(atoms.positions[None], len(stretches), axis=0)
geometries[:, 15] += stretches[:, None] * axis / np.linalg.norm(axis)
fig, ax = plt.subplots(figsize=(6, 3.5), layout="constrained")
ax.plot(np.linalg.norm(axis) + stretches, atoms.calc.extrapolation_of(geometries), color="#1f78b4")
ax.axhline(1, color="black", linewidth=1)
ax.set(xlabel="O-H distance (Å)", ylabel="extrapolation")
plt.show()

# %%
# A value above 1 does not prove that the prediction is wrong, nor a value below 1 that it is right;
# :doc:`/extrapolation` shows how often it is one or the other. The
# :doc:`next tutorial <plot_3_molecular_dynamics>` runs both models in molecular dynamics.
