"""
Is it stable in molecular dynamics?
===================================

Small errors on held-out frames do not guarantee stable dynamics: a simulation goes where the forces lead it. Here we
run the default and the improved model of the :doc:`previous tutorial <plot_2_flatten>` at 400 K and read the verdict.
"""

# %%
# Run both models
# ---------------
# The first command continues the run of the previous tutorial, or returns at once if it is finished. The second starts
# 16 replicas of each model from the same geometries with the same random numbers, for 2 ps each.

import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from ase.units import kcal, mol

from ase_flatten.md.result_files import read_summary

DATA, RUN = "../../examples/data/salicylic_gfn2_500K.npz", "../../runs/tutorial"


def run(*arguments):
    """Run a command of ase-flatten without its output; the same as typing it in a shell."""
    subprocess.run([sys.executable, "-m", "ase_flatten.cli", *arguments], check=True, stdout=subprocess.DEVNULL)


options = "-n 2 -i 40 -s 20 --set sigma=20 --resume --quiet".split()
run("train", DATA, "--out", RUN, *options)
run("md", RUN, "--T", "400", "--protocol", "quick", "--quiet")

# %%
# Read the verdict
# ----------------
# ``summary.json`` has the verdict of each model and the reasons for it. A model is *stable* if no replica failed and
# its mean energy and its drift are right within the tolerances, *unstable* if a replica failed or one of these is wrong
# beyond noise. Otherwise the run cannot tell.

for scheme in ("default", "improved"):
    summary = read_summary(Path(RUN, "md", "400K", scheme, "summary.json"))
    print(f"{scheme}: {summary.verdict}; {summary.n_failed} of {summary.n_replicas} replicas failed")
    print(*summary.why, sep="\n")
    if summary.outside_training is not None:
        print(f"{summary.outside_training:.0%} of the frames lie outside the training geometries")

# %%
# If nothing failed in such a short run, that is weak evidence: the quick protocol can tell a model that fails every
# 4 ps from one that never does, and misses rarer failures. ``--protocol auto`` continues until the question is decided.
#
# Look at the energies
# --------------------
# ``energies.npz`` holds the potential and the kinetic energy of every replica in eV. Both should fluctuate about a
# constant mean after a short transient.

fig, axes = plt.subplots(1, 2, figsize=(8, 3.5), sharey=True, layout="constrained")
arrays = {scheme: np.load(f"{RUN}/md/400K/{scheme}/energies.npz") for scheme in ("default", "improved")}
lowest = min(array["potential"][0].min() for array in arrays.values())
for ax, (scheme, array), colour in zip(axes, arrays.items(), ("#d95f02", "#1f78b4"), strict=True):
    total = (array["potential"] - lowest + array["kinetic"]) / (kcal / mol)
    ax.plot(array["time_ps"], total, color=colour, linewidth=0.5, alpha=0.4)
    ax.plot(array["time_ps"], np.nanmean(total, axis=1), color="black", label="mean of the replicas")
    ax.set(title=scheme, xlabel="time (ps)")
axes[0].set_ylabel("total energy (kcal/mol)")
axes[0].legend(frameon=False)
plt.show()

# %%
# To know whether the mean energy is right, compare with the reference method: ``--reference tblite:GFN2-xTB`` runs it
# beside the models and computes the true errors on frames that the models visited; see
# :doc:`/howto/molecular_dynamics`.
