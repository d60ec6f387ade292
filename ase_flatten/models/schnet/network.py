"""SchNet for one molecule: all pairs of atoms are known in advance, and each filter serves both directions.

The layers are SchNetPack's (doi:10.1063/1.5019779, doi:10.1063/5.0138367). A single molecule needs no neighbour
lists, batch indices or dictionaries of inputs.
"""

from typing import Any

import torch
from torch import Tensor, nn

from ase_flatten.utils.typing import IntArray


class MoleculeNetwork(nn.Module):
    """A SchNetPack potential for configurations of one molecule.

    The weights are shared with the potential.

    Parameters
    ----------
    potential : schnetpack.model.NeuralNetworkPotential
        With a `SchNet` representation and an `Atomwise` energy.
    numbers : (n_atoms,) int array
    """

    representation: Any  # SchNetPack declares no types
    atomwise: nn.Module
    numbers: Tensor
    first: Tensor
    second: Tensor
    neighbours: Tensor
    pairs: Tensor

    def __init__(self, potential: Any, numbers: IntArray) -> None:
        super().__init__()
        self.representation = potential.representation
        self.atomwise = potential.output_modules[0].outnet
        self.n_atoms = len(numbers)
        first, second = torch.triu_indices(self.n_atoms, self.n_atoms, 1)
        pair_of = torch.zeros(self.n_atoms, self.n_atoms, dtype=torch.long)
        pair_of[first, second] = pair_of[second, first] = torch.arange(len(first))
        others = torch.tensor([[j for j in range(self.n_atoms) if j != i] for i in range(self.n_atoms)])
        indices = {
            "numbers": torch.tensor(numbers),
            "first": first,
            "second": second,
            "neighbours": others.flatten(),
            "pairs": pair_of.gather(1, others).flatten(),
        }
        for name, index in indices.items():
            self.register_buffer(name, index, persistent=False)

    @property
    def weight(self) -> Tensor:
        """One of the weights, which shows device and precision."""
        weight: Tensor = self.representation.embedding.weight
        return weight

    @property
    def pair_features(self) -> int:
        """Elements of an array with the features of all ordered pairs of one configuration."""
        return int(self.n_atoms**2 * self.representation.n_filters)

    def energies(self, distances: Tensor) -> Tensor:
        """Return energies, (n_frames,), from distances, (n_pairs, n_frames), in the order of the upper triangle."""
        n_frames, schnet = distances.shape[1], self.representation
        radial = schnet.radial_basis(distances)
        cutoff = schnet.cutoff_fn(distances)[..., None]
        x = schnet.embedding(self.numbers)[:, None].expand(-1, n_frames, -1)
        for interaction in schnet.interactions:
            filters = interaction.filter_network(radial) * cutoff
            messages = interaction.in2f(x).index_select(0, self.neighbours) * filters.index_select(0, self.pairs)
            x = x + interaction.f2out(messages.unflatten(0, (self.n_atoms, self.n_atoms - 1)).sum(1))
        atomic: Tensor = self.atomwise(x)
        return atomic.sum(0).squeeze(-1)

    def distances(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Return the distances of all pairs, (n_pairs, n_frames), and the vectors between their atoms."""
        by_atom = positions.transpose(0, 1)
        vectors = by_atom.index_select(0, self.first) - by_atom.index_select(0, self.second)
        return vectors.norm(dim=2), vectors

    def forward(self, positions: Tensor, *, differentiable: bool = False) -> tuple[Tensor, Tensor]:
        """Return energies, (n_frames,), and forces of positions, (n_frames, n_atoms, 3).

        Parameters
        ----------
        differentiable : bool
            Whether the results can be differentiated with respect to the weights, as training requires.
        """
        distances, vectors = self.distances(positions)
        with torch.enable_grad():
            distances = distances.detach().requires_grad_()
            energies = self.energies(distances)
            (slopes,) = torch.autograd.grad(energies.sum(), distances, create_graph=differentiable)
            pulls = (slopes / distances.detach())[..., None] * vectors
        forces = torch.zeros_like(positions.transpose(0, 1))
        forces = forces.index_add(0, self.second, pulls).index_add(0, self.first, -pulls)
        return energies if differentiable else energies.detach(), forces.transpose(0, 1)
