"""Figures: what is drawn, and that both files come out whole."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from PIL import Image

from ase_flatten.data.units import KCAL_PER_MOL, output_units
from ase_flatten.evaluation.claims import Claims, make_claims
from ase_flatten.evaluation.frame_groups import Groups, merge_clusters
from ase_flatten.evaluation.held_out import Curve, Evaluation, HeldoutErrors
from ase_flatten.report import figure_style, figures
from ase_flatten.report.figures import plot_comparison, plot_error_curves, plot_learning_curve, plot_outliers
from ase_flatten.report.molecule_drawing import draw_structure, find_bonds, scene, structure_png, superposed, upright
from ase_flatten.selection.cluster_errors import ClusterErrors

KCAL, EV = output_units("kcal/mol"), output_units("eV")
N_CLUSTERS = 20


def curve(scheme: str, n_train: int, rmse: np.ndarray) -> Curve:
    return Curve(scheme, n_train, float(np.nanmean(rmse)), 0.3, rmse, 0.2 * rmse)


@pytest.fixture
def evaluation(rng: np.random.Generator) -> Evaluation:
    """Two schemes, three sizes, three default draws; cluster 3 has few held-out frames and cluster 7 none."""
    n_heldout = rng.integers(20, 300, N_CLUSTERS)
    n_heldout[[3, 7]] = 2, 0
    curves = []
    for n_train in (200, 600, 1000):
        rmse = rng.uniform(1, 8, N_CLUSTERS) * 200 / n_train
        rmse[7] = np.nan
        curves += [curve("default", n_train, rmse), curve("improved", n_train, 0.5 * rmse)]
    final = curves[-2].cluster_force_rmse
    draws = tuple(curve("default", 1000, factor * final) for factor in (0.9, 1.2))
    return Evaluation(tuple(curves), 5 * n_heldout + 1, n_heldout, draws)


@pytest.fixture
def claims(evaluation: Evaluation, rng: np.random.Generator) -> Claims:
    """Claims on frames whose errors give those of the clusters."""
    labels = np.repeat(np.arange(N_CLUSTERS), evaluation.n_heldout)
    of_frame = rng.uniform(0.6, 1.4, len(labels))
    of_frame /= np.sqrt(np.bincount(labels, of_frame**2) / np.maximum(evaluation.n_heldout, 1))[labels]
    forces = {one.scheme: one.cluster_force_rmse[labels] * of_frame for one in evaluation.final}
    drawn = np.array([one.cluster_force_rmse[labels] * of_frame for one in evaluation.default_draws])
    errors = HeldoutErrors(np.arange(len(labels)), labels, forces, forces, drawn, drawn)
    groups = merge_clusters(
        evaluation.n_heldout, np.arange(N_CLUSTERS) // 5, rng.normal(size=(N_CLUSTERS, 3)), evaluation.populations
    )
    return make_claims(errors, groups, evaluation.populations, rng=rng, n_resamples=200)


@pytest.fixture
def grouped(evaluation: Evaluation, claims: Claims) -> Evaluation:
    return evaluation.grouped(claims.groups)


@pytest.fixture
def errors(evaluation: Evaluation) -> ClusterErrors:
    default = evaluation.final[0]
    rmse = default.cluster_force_rmse
    return ClusterErrors(
        rmse, rmse, rmse, rmse, evaluation.n_heldout, evaluation.populations,
        default.force_rmse, 0.0, 0.0, 0.0,
    )  # fmt: skip


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Collect figures instead of writing them."""
    caught: list[Figure] = []

    def catch(figure: Figure, path_stem: str | Path) -> list[Path]:
        caught.append(figure)
        return []

    monkeypatch.setattr(figures, "save", catch)
    return caught


def bars(axes: Axes, colours: str) -> np.ndarray:
    """Give the heights of the bars of some colours, from the left."""
    patches = [patch for container in axes.containers for patch in container.patches]
    return np.array([patch.get_height() for patch in patches if to_hex(patch.get_facecolor()) in colours])


def names(axes: Axes) -> list[str]:
    """Give the names of the bars, from the left."""
    return [label.get_text() for label in axes.get_xticklabels()]


def check_files(paths: list[Path], stem: Path) -> None:
    assert paths == [stem.with_name(stem.name + ".png"), stem.with_name(stem.name + ".pdf")]
    with Image.open(paths[0]) as picture:
        picture.load()
        assert picture.format == "PNG"
        assert picture.info["dpi"][0] >= 150
        assert min(picture.size) > 500
        assert len(picture.convert("RGB").getcolors(maxcolors=2**24)) > 10
    content = paths[1].read_bytes()
    assert content.startswith(b"%PDF")
    assert content.rstrip().endswith(b"%%EOF")
    assert len(content) > 3000


@pytest.mark.parametrize("plot", [plot_comparison, plot_learning_curve])
def test_figure_files(plot: Callable, grouped: Evaluation, claims: Claims, tmp_path: Path) -> None:
    # A dot in the name is no suffix.
    check_files(plot(grouped, claims, tmp_path / "new" / "run.1"), tmp_path / "new" / "run.1")
    check_files(plot_error_curves(grouped, tmp_path / "new" / "curves"), tmp_path / "new" / "curves")


@pytest.mark.parametrize("structure", [None, upright(molecule("CH3CH2OH"))], ids=["bare", "structure"])
def test_outlier_files(structure: Atoms | None, errors: ClusterErrors, tmp_path: Path) -> None:
    paths = plot_outliers(errors, tmp_path / "outliers", units=KCAL, title="ethanol", structure=structure)
    check_files(paths, tmp_path / "outliers")
    with Image.open(paths[0]) as picture:
        pixels = np.asarray(picture.convert("RGB")).reshape(-1, 3)
    worst = np.all(pixels == [0x88, 0x22, 0x55], axis=1)
    assert worst.sum() > 500  # the worst cluster's bar


def test_same_numbers_give_same_files(grouped: Evaluation, claims: Claims, tmp_path: Path) -> None:
    first, second = (plot_comparison(grouped, claims, tmp_path / name) for name in ("a", "b"))
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes()


def test_style_does_not_leak(grouped: Evaluation, claims: Claims, tmp_path: Path) -> None:
    from matplotlib import rcParams

    before = dict(rcParams)
    plot_comparison(grouped, claims, tmp_path / "comparison")
    assert dict(rcParams) == before


def test_outliers_ascend_to_the_worst(errors: ClusterErrors, drawn: list[Figure]) -> None:
    plot_outliers(errors, "unused", units=KCAL)
    axes = drawn[0].axes[0]
    heights = bars(axes, figure_style.COLOURS["default"] + figure_style.WORST)
    assert len(heights) == N_CLUSTERS - 1
    np.testing.assert_allclose(heights, np.sort(errors.rmse[np.isfinite(errors.rmse)]) / KCAL_PER_MOL)
    np.testing.assert_allclose(bars(axes, figure_style.WORST), np.nanmax(errors.rmse) / KCAL_PER_MOL)
    assert axes.get_ylabel() == "force RMSE [kcal/(mol Å)]"
    np.testing.assert_allclose(axes.lines[0].get_ydata(), errors.overall_rmse / KCAL_PER_MOL)
    shares = bars(drawn[0].axes[1], figure_style.POPULATION)
    np.testing.assert_allclose(shares, 100 * errors.populations[errors.ascending] / errors.populations.sum())
    assert names(drawn[0].axes[1]) == [str(cluster) for cluster in errors.ascending]
    assert not [line for line in drawn[0].axes[1].lines if len(line.get_xdata()) > 2]  # clusters have no order


def test_outliers_inset_hides_nothing(errors: ClusterErrors, drawn: list[Figure]) -> None:
    flat = ClusterErrors(**{**vars(errors), "rmse": np.linspace(0.9, 1.0, N_CLUSTERS), "overall_rmse": 0.95})
    plot_outliers(flat, "unused", units=EV, structure=upright(molecule("C6H6")))
    axes = drawn[0].axes[0]
    assert 0.95 / axes.get_ylim()[1] < 0.5  # the inset begins at half of the height
    assert axes.child_axes[0].get_position().y0 > 0.5


def test_comparison_is_ordered_by_the_default_model(grouped: Evaluation, claims: Claims, drawn: list[Figure]) -> None:
    plot_comparison(grouped, claims, "unused", units=EV)
    axes = drawn[0].axes[0]
    default, improved = (bars(axes, figure_style.COLOURS[scheme]) for scheme in ("default", "improved"))
    assert len(default) == len(improved) == len(claims.groups.members)
    assert np.all(np.diff(default) >= 0)
    np.testing.assert_allclose(improved, 0.5 * default)
    np.testing.assert_allclose(default.max(), grouped.final[0].worst)
    handles = [text.get_text() for text in drawn[0].legends[0].get_texts()]
    assert "95 % interval" in handles and "3 default draws" in handles
    (points,) = [line for line in axes.lines if line.get_label() == "3 default draws"]
    assert points.get_linestyle() == "None"  # groups have no order that a line could follow
    heights = points.get_ydata().reshape(3, -1)
    np.testing.assert_allclose(heights, np.outer([1, 0.9, 1.2], default))
    order = np.argsort(claims.group_rmse["default"], kind="stable")
    assert names(axes) == [claims.groups.numbers(group) for group in order]
    # Each bar lies within its interval.
    for lines, heights in zip(axes.collections[:2], (default, improved), strict=True):
        ends = np.array([segment[:, 1] for segment in lines.get_segments()])
        assert np.all((ends[:, 0] <= heights) & (heights <= ends[:, 1]))


def test_many_bars_and_long_names_are_labelled_without_overlap(drawn: list[Figure]) -> None:
    n_clusters = 150
    rmse = np.linspace(1, 2, n_clusters)
    counts = np.full(n_clusters, 5)
    plot_outliers(ClusterErrors(rmse, rmse, rmse, rmse, counts, counts, 1.5, 0.0, 0.0, 0.0), "unused")
    assert names(drawn[0].axes[1]) == [str(cluster) for cluster in range(0, n_clusters, 3)]
    groups = Groups((tuple(range(0, 18, 2)), (1, 3), (5,)), np.array([20, 20, 20]))
    few = rmse[:3]
    plot_outliers(
        ClusterErrors(few, few, few, few, counts[:3], counts[:3], 1.5, 0.0, 0.0, 0.0), "unused", groups=groups
    )
    assert names(drawn[1].axes[1]) == ["0, …", "1, 3", "5"]


def test_marked_atoms_and_numbers_are_drawn() -> None:
    figure = Figure()
    axes = draw_structure(figure.add_subplot(), molecule("CH3CH2OH"), marked=(2, 8))
    assert sorted(text.get_text() for text in axes.texts) == sorted(map(str, range(9)))
    assert [patch.get_linewidth() for patch in axes.patches if isinstance(patch, Circle)].count(1.8) == 2
    large = scene(molecule("C60"), marked=(3,))
    assert large["numbered"] == list(range(60)) and large["marked"] == [3]
    chain = Atoms("C20H42", np.random.default_rng(0).normal(scale=9, size=(62, 3)))
    assert scene(chain, marked=(30,))["numbered"] == [*range(20), 30]
    assert not draw_structure(figure.add_subplot(), molecule("H2O"), numbered=False).texts


def test_error_curves_are_each_ordered(evaluation: Evaluation, drawn: list[Figure]) -> None:
    plot_error_curves(evaluation, "unused", units=KCAL)
    left, right = drawn[0].axes
    assert "3 draws\nof 1,000" in [text.get_text() for text in drawn[0].legends[0].get_texts()]
    assert left.get_ylim() == right.get_ylim()
    for axes, scheme in ((left, "default"), (right, "improved")):
        assert [line.get_label() for line in axes.lines] == ["200", "600", "1,000"]
        for line, of in zip(axes.lines, evaluation.of(scheme), strict=True):
            np.testing.assert_allclose(
                line.get_ydata(), np.sort(of.cluster_force_rmse)[:-1] / KCAL_PER_MOL
            )  # NaN comes last
    for one, other in zip(left.lines, right.lines, strict=True):
        assert to_hex(one.get_color()) == to_hex(other.get_color())


def test_many_sizes_show_three(drawn: list[Figure]) -> None:
    rmse = np.linspace(1, 2, 4)
    curves = [curve("improved", size, rmse) for size in range(200, 1001, 100)]
    curves += [curve("default", size, rmse) for size in (200, 600, 1000)]
    plot_error_curves(Evaluation(tuple(curves), np.full(4, 9), np.full(4, 9)), "unused")
    assert [line.get_label() for line in drawn[0].axes[1].lines] == ["200", "600", "1,000"]


def test_learning_curve_holds_both_errors(grouped: Evaluation, claims: Claims, drawn: list[Figure]) -> None:
    plot_learning_curve(grouped, claims, "unused", units=EV)
    axes = drawn[0].axes[0]
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    lines = {line.get_label(): line.get_ydata() for line in axes.lines}
    for scheme in ("default", "improved"):
        of = grouped.of(scheme)
        np.testing.assert_allclose(lines[f"{scheme}, worst group"], [one.worst for one in of])
        np.testing.assert_allclose(lines[f"{scheme}, all frames"], [one.force_rmse for one in of])


def test_one_size_and_one_cluster(tmp_path: Path, rng: np.random.Generator) -> None:
    one, zeros = np.array([1.5]), np.zeros(6, dtype=np.int64)
    evaluation = Evaluation((curve("default", 50, one), curve("improved", 50, one)), np.array([30]), np.array([6]))
    forces = {scheme: np.full(6, 1.5) for scheme in ("default", "improved")}
    groups = merge_clusters(np.array([6]), np.array([0]), np.zeros((1, 3)), np.array([30]))
    claims = make_claims(HeldoutErrors(np.arange(6), zeros, forces, forces), groups, np.array([30]), rng=rng)
    for plot in (plot_comparison, plot_learning_curve):
        check_files(plot(evaluation, claims, tmp_path / plot.__name__), tmp_path / plot.__name__)
    check_files(plot_error_curves(evaluation, tmp_path / "curves"), tmp_path / "curves")


def kinds(atoms: Atoms) -> dict[frozenset[int], str]:
    return {frozenset((bond.first, bond.second)): bond.kind for bond in find_bonds(atoms)}


def test_bonds_of_a_whole_molecule() -> None:
    bonds = find_bonds(molecule("CH3CH2OH"))
    assert len(bonds) == 8
    assert {bond.kind for bond in bonds} == {"bond"}


@pytest.mark.parametrize(("name", "n_bonds"), [("C2H2", 3), ("C6H6", 12), ("HCN", 2), ("H2", 1), ("C60", 90)])
def test_number_of_bonds(name: str, n_bonds: int) -> None:
    assert list(kinds(molecule(name)).values()) == ["bond"] * n_bonds


def test_shared_proton_is_stretched_on_both_sides() -> None:
    shared = kinds(Atoms("OHOHH", [[0, 0, 0], [1.2, 0, 0], [2.4, 0, 0], [-0.3, 0.9, 0], [2.7, 0.9, 0]]))
    assert shared[frozenset((0, 1))] == shared[frozenset((1, 2))] == "stretched"
    assert shared[frozenset((0, 3))] == "bond"


def test_long_short_and_broken_bonds_are_stretched() -> None:
    for length, kind in ((0.6, "stretched"), (0.97, "bond"), (1.3, "stretched"), (1.8, "stretched")):
        atoms = Atoms("OHH", [[0, 0, 0], [0.97, 0, 0], [-0.3, length, 0]])
        assert kinds(atoms)[frozenset((0, 2))] == kind


def test_hydrogen_bonds_but_not_within_a_carboxyl_group() -> None:
    dimer = Atoms("OHHOHH", [[0, 0, 0], [0.97, 0, 0], [-0.3, 0.9, 0], [2.8, 0, 0], [3.2, 0.9, 0], [3.2, -0.9, 0]])
    assert kinds(dimer)[frozenset((1, 3))] == "contact"
    acid = molecule("HCOOH")
    acid.positions[3] += 0.15 * (acid.positions[2] - acid.positions[3])  # the acid's hydrogen towards the other oxygen
    assert acid.get_distance(2, 3) < 2.0
    assert "contact" not in kinds(acid).values()


def test_upright_keeps_the_molecule_and_its_hand(rng: np.random.Generator) -> None:
    for _ in range(5):
        atoms = Atoms("CHFClBr", rng.normal(size=(5, 3)) * [2, 1, 1])
        turned = upright(atoms)
        np.testing.assert_allclose(turned.get_all_distances(), atoms.get_all_distances(), atol=1e-12)
        volumes = [np.linalg.det(one.positions[1:4] - one.positions[0]) for one in (atoms, turned)]
        assert volumes[0] == pytest.approx(volumes[1])


def test_upright_is_idempotent(rng: np.random.Generator) -> None:
    atoms = upright(Atoms("CHFClBr", rng.normal(size=(5, 3)) * [3, 2, 1]))
    np.testing.assert_allclose(upright(atoms).positions, atoms.positions, atol=1e-12)


def test_upright_shows_a_flat_molecule_in_full() -> None:
    atoms = molecule("C6H6")
    atoms.rotate(50, "x")
    assert np.ptp(upright(atoms).positions[:, 2]) < 1e-6


def test_superposed_undoes_a_rotation() -> None:
    atoms = upright(molecule("CH3CH2OH"))
    moved = atoms.copy()
    moved.rotate(70, (1, 2, 3))
    moved.translate([5, 0, 0])
    np.testing.assert_allclose(superposed(moved, atoms).positions, atoms.positions, atol=1e-6)
    assert np.ptp(moved.positions[:, 0] - atoms.positions[:, 0]) > 0.1  # what came in stays as it was


def test_scene_and_picture() -> None:
    atoms = upright(molecule("H2O"))
    numbers = scene(atoms)
    assert len(numbers["positions"]) == len(numbers["radii"]) == len(numbers["colours"]) == 3
    assert numbers["colours"][0] == "#ff0d0d"
    assert [bond[2] for bond in numbers["bonds"]] == ["bond", "bond"]
    for one in (atoms, Atoms("He"), Atoms("N2", [[0, 0, 0], [0, 0, 1.1]])):  # one bond along the line of sight
        assert structure_png(one).startswith(b"\x89PNG")
