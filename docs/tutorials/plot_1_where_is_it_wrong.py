"""
Where is my model wrong?
========================

A force field is usually judged by one number, its error over all test data. That number hides where the model fails.
Here we split a data set into clusters of similar geometry and energy, train a small model, and look at its error on
each cluster.

The data are 10,000 configurations of salicylic acid from molecular dynamics at 500 K with GFN2-xTB.
"""

# %%
# Read the data and cluster them
# ------------------------------
# A data set holds one molecule: positions in Å, energies in eV and forces in eV/Å. The clusters are made in two steps:
# ten clusters by the distances between atoms, and five by energy within each of these.

import matplotlib.pyplot as plt
import numpy as np
from ase.units import kcal, mol

from ase_flatten import cluster, cluster_errors, read_dataset
from ase_flatten.models import family

data = read_dataset("../../examples/data/salicylic_gfn2_500K.npz")
clusters = cluster(data, rng=np.random.default_rng(0))
print(f"{data.n_frames} frames of {data.formula} in {clusters.n_clusters} clusters")
print("frames in the largest and the smallest cluster:", clusters.populations.max(), clusters.populations.min())

# %%
# Most configurations lie in a few large clusters. The small ones hold what is rare, often because its energy is high.

energies = (data.energies - data.energies.min()) / (kcal / mol)
means = [energies[clusters.members(number)].mean() for number in range(clusters.n_clusters)]
fig, ax = plt.subplots(figsize=(6, 3.5), layout="constrained")
geometries = [clusters.geometry[clusters.members(number)[0]] for number in range(clusters.n_clusters)]
ax.scatter(means, clusters.populations, c=geometries, cmap="tab10")
ax.set(xlabel="mean energy of the cluster (kcal/mol)", ylabel="frames in the cluster", yscale="log")
ax.set_title("One dot per cluster, coloured by geometry", fontsize=10)
plt.show()

# %%
# Train a model in the usual way
# ------------------------------
# An sGDML model of 100 frames. Its training set is the family's default: a random sample with the same distribution of
# energies as the data. We keep 1,000 frames for validation and 5,000 for the test.

rng = np.random.default_rng(1)
order = rng.permutation(data.n_frames)
test, valid, pool = np.sort(order[:5000]), np.sort(order[5000:6000]), np.sort(order[6000:])
trainer = family("sgdml").trainer(sigma=20)
frames = trainer.default_frames(data, pool, 100, rng=rng)
model = trainer.fit(data, frames, valid, rng=rng)

# %%
# Look at the error on each cluster
# ---------------------------------

errors = cluster_errors(model, data, clusters, frames=test)
print(f"force RMSE over all test frames: {errors.overall_rmse / (kcal / mol):.2f} kcal/(mol Å)")
print("the five clusters with the largest error:")
for number in errors.ascending[::-1][:5]:
    rmse = errors.rmse[number] / (kcal / mol)
    print(f"  cluster {number}: {rmse:.2f} kcal/(mol Å) on {errors.counts[number]} test frames")

rmse = errors.rmse[errors.ascending] / (kcal / mol)
fig, ax = plt.subplots(figsize=(6, 3.5), layout="constrained")
ax.bar(np.arange(1, len(rmse) + 1), rmse, color="#d95f02")
ax.axhline(errors.overall_rmse / (kcal / mol), color="black", linewidth=1, label="all test frames")
ax.set(xlabel="clusters, by rising error", ylabel="force RMSE (kcal/(mol Å))")
ax.legend(frameon=False)
plt.show()

# %%
# The clusters on the right hold few frames, so they hardly count in the overall error; but a simulation that enters
# them meets forces that are wrong by much more than the overall error says.
#
# Mind the number of frames in a cluster before you read much into its error: an RMSE of a handful of frames is noisy.
# ``ase-flatten train`` therefore merges clusters with fewer than 20 held-out frames and states intervals.
#
# The same analysis works for any model: ``ase-flatten errors DATASET MODEL``, see :doc:`/howto/judge`. The
# :doc:`next tutorial <plot_2_flatten>` trains a model whose error is more even.
