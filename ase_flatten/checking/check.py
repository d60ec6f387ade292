"""Check a data set for what would spoil a model; each finding is one sentence.

Reading errors (shapes, NaN, periodic cells, a changing composition) are InputErrors of `io` and `Dataset`.
Findings about single frames list these, and `cleaning` leaves them out; faults of the whole set must be corrected.
"""

from dataclasses import dataclass

import numpy as np
from ase.data import atomic_masses

from ase_flatten.checking.atom_order import atom_order
from ase_flatten.checking.findings import Finding, as_frames, count_reasons, frame_numbers, some
from ase_flatten.checking.force_constants import energy_unit
from ase_flatten.checking.geometries import IDENTICAL, broken_molecules, duplicates, length_unit
from ase_flatten.checking.labels import LabelJudgement, QuickModels
from ase_flatten.data.dataset import Dataset
from ase_flatten.data.energy_force_consistency import (
    TIGHT_RMSD,
    EnergySlope,
    close_pairs,
    energy_shift,
    energy_slope,
    explain_slope,
    rank_correlation,
)
from ase_flatten.geometry.pair_distances import nearest_frames
from ase_flatten.utils.progress import SILENT, Progress
from ase_flatten.utils.typing import FloatArray

USEFUL_FRAMES = 100
NET_FORCE_BAND = (1e-3, 5e-2)
"""Net forces and torques are noted and refused above these fractions of what random atomic forces would sum to."""
SLOPE_BAND = (0.8, 1.25)
"""The slope of ΔE on the work of the forces: unit mistakes are factors of 1.6 and more, or a sign."""
MIN_PAIRS = 20
"""With fewer pairs of close frames, energies and forces cannot be compared."""
MIXED = 0.15
"""Fraction of the work of the forces that energies may contradict if frames are close."""
MIXED_ALIKE = 0.8
"""Fraction of that work above which a single factor, and therefore another unit, explains the contradiction."""
OUTLIER = 20.0
"""Robust standard deviations beyond which a frame is reported."""
SURE_CORRELATION = 0.95
"""Correlation with the predictions of models of the forces above which energies are judged by their slope on these."""
WRONG_LABELS = "wrong labels"
"""The key of the finding that names frames whose labels are wrong beyond doubt."""
TWO_KINDS_SHARE = 0.1
"""From this fraction of the frames on, labels that differ count as a second kind rather than as single mistakes."""
TWO_KINDS_GAP = 6.0
"""Two kinds of energies differ by more than this many times the spread within each."""


@dataclass(frozen=True, eq=False)
class Checkup:
    """Findings of the checks of a data set."""

    findings: list[Finding]
    """Empty when all is well."""
    labels: LabelJudgement | None
    """The judgement of each frame; None if the whole set is at fault, so that single frames cannot be judged."""

    @property
    def refused(self) -> list[Finding]:
        """The findings for which the data should not be trained on."""
        return [finding for finding in self.findings if finding.level == "refused"]

    @property
    def whole_set(self) -> Finding | None:
        """The first fault of the whole set, which leaving out frames cannot correct."""
        return next((finding for finding in self.refused if not finding.frames or finding.mend), None)


def check_dataset(dataset: Dataset, *, rng: np.random.Generator, progress: Progress = SILENT) -> list[Finding]:
    """Check for what would spoil a model: duplicates, wrong units, broken molecules, inconsistent labels.

    Returns
    -------
    list of Finding
        Empty when all is well.
    """
    return check_up(dataset, rng=rng, progress=progress).findings


def check_up(
    dataset: Dataset,
    *,
    rng: np.random.Generator,
    quick_models: QuickModels | None = None,
    progress: Progress = SILENT,
) -> Checkup:
    """Check for what would spoil a model, and judge the labels of each frame.

    Parameters
    ----------
    quick_models : QuickModels, optional
        Models that judge the labels; by default, models of frames drawn from `rng`.
    """
    with progress.task("checking the data set", 5) as advance:
        distances = dataset.pair_distances
        advance(1)
        findings = _few_frames(dataset) + _outliers(dataset) + _net_forces(dataset)
        advance(1)
        whole = length_unit(dataset, distances, rng=rng)
        if whole:
            # Every other criterion on distances would fail for the same reason.
            advance(3)
            return Checkup(findings + whole, None)
        order = atom_order(dataset, distances)
        # Molecules with exchanged atoms are not broken.
        findings += order or broken_molecules(dataset, distances)
        advance(1)
        nearest, lengths = nearest_frames(distances)
        lengths /= np.sqrt(distances.shape[1])
        findings += duplicates(dataset, distances, lengths)
        advance(1)
        pairs = close_pairs(distances, nearest, lengths, beyond=IDENTICAL, rng=rng)
        advance(1)
    labels = (quick_models or QuickModels(dataset, rng=rng, progress=progress)).judge()
    unsound = np.isin(labels.levels, ("wrong", "doubtful"))
    two_kinds = _two_kinds(labels)
    if two_kinds:
        # Every criterion on energies would fail for the same reason.
        return Checkup(findings + two_kinds, labels)
    about_labels = _labels(labels)
    kept = pairs[~unsound[pairs].any(axis=1)]
    about_set = _energies(
        dataset, energy_slope(dataset, kept), energy_shift(dataset, rng=rng), _predicted_slope(dataset, labels)
    )
    if all(finding.level == "note" for finding in about_set):
        about_set += energy_unit(dataset, distances, rng=rng)
    if any(finding.level == "refused" and not finding.frames for finding in about_set + order):
        return Checkup(findings + about_set, None)
    named = {frame for finding in about_labels for frame in finding.frames}
    findings = [one for one in findings if not (one.what.endswith("outliers") and named.issuperset(one.frames))]
    return Checkup(findings + about_labels + about_set, labels)


def _few_frames(dataset: Dataset) -> list[Finding]:
    message = f"at least {USEFUL_FRAMES} frames are recommended, found {dataset.n_frames}; compute more before training"
    return [Finding("note", "few frames", message)] if dataset.n_frames < USEFUL_FRAMES else []


def _outliers(dataset: Dataset) -> list[Finding]:
    if dataset.n_frames < USEFUL_FRAMES:
        return []
    findings = []
    largest = np.abs(dataset.forces).max(axis=(1, 2))
    for what, values in (("energy", dataset.energies), ("force", largest)):
        deviation = np.abs(values - np.median(values))
        scale = 1.4826 * np.median(deviation)
        far = deviation > OUTLIER * scale
        if scale > 0 and far.any():
            message = (
                f"the {what} must be of similar size in all frames, found it more than {OUTLIER:g} robust standard "
                f"deviations away in {some(far)}, farthest in frame {np.argmax(deviation)}; "
                "check whether these calculations converged"
            )
            findings.append(
                Finding("note", f"{what} outliers", message, as_frames(far), (f"the {what} is an outlier",))
            )
    return findings


def _net_forces(dataset: Dataset) -> list[Finding]:
    """Compare net force and torque with what independent atomic forces of this size would sum to."""
    masses = atomic_masses[dataset.numbers]
    centred = dataset.positions - (np.einsum("a,fax->fx", masses, dataset.positions) / masses.sum())[:, None]
    typical = np.sqrt(dataset.n_atoms * np.mean(np.sum(dataset.forces**2, axis=2)))
    if typical == 0:
        message = "forces must change from frame to frame, found zeros only; store the forces with the structures"
        return [Finding("refused", "no forces", message)]
    radius = np.sqrt(np.mean(np.sum(centred**2, axis=2)))
    torque = _cross_sum(centred, dataset.forces)
    findings = []
    for what, net in (("force", dataset.forces.sum(axis=1) / typical), ("torque", torque / (radius * typical))):
        size = np.linalg.norm(net, axis=1)
        noted, refused = NET_FORCE_BAND
        bad = size > refused
        rms = np.sqrt(np.mean(size**2))
        expected = f"the net {what} on an isolated molecule must vanish"
        if bad.any():
            message = (
                f"{expected}, found more than {refused:.0%} of what random forces would give in {some(bad)}; look "
                "for an external field, constraints, or forces that belong to other frames"
            )
            # If most of the frames are affected, leaving them out is no remedy.
            frames = as_frames(bad) if bad.mean() < 0.5 else ()
            reason = f"the net {what} does not vanish: the forces may belong to another frame"
            findings.append(Finding("refused", f"net {what}", message, frames, (reason,)))
        elif rms > noted:
            message = f"{expected}, found {rms:.1%} of what random forces would give; converge the forces more tightly"
            findings.append(Finding("note", f"net {what}", message))
    return findings


def _cross_sum(positions: FloatArray, forces: FloatArray) -> FloatArray:
    # The antisymmetric part of the virial: no array of the size of the positions is made.
    virial = positions.transpose(0, 2, 1) @ forces
    return np.stack([virial[:, y, z] - virial[:, z, y] for y, z in ((1, 2), (2, 0), (0, 1))], axis=1)


def _labels(labels: LabelJudgement) -> list[Finding]:
    """Report the frames whose labels are wrong beyond doubt, and those whose labels are doubtful."""
    findings = []
    expected = "labels must agree with models that were trained on other frames"
    for level, found, advice in (
        ("wrong", "contradict them beyond doubt", "leave these frames out or compute them again"),
        ("doubtful", "are doubtful", "inspect these frames, or compute some of them again"),
    ):
        frames = labels.with_level(level)
        if not len(frames):
            continue
        reasons = tuple(reason for reason, one in zip(labels.reasons, labels.levels, strict=True) if one == level)
        message = (
            f"{expected}, found that those of {len(frames)} of {len(labels.frames)} frames {found} "
            f"({frame_numbers(frames)}): {_summary(reasons)}; {advice}"
        )
        findings.append(
            Finding(
                "refused" if level == "wrong" else "note", f"{level} labels", message, tuple(frames.tolist()), reasons
            )
        )
    return findings


def _summary(reasons: tuple[str, ...]) -> str:
    """Format the most frequent reasons, with the number of frames."""
    if len(reasons) == 1:
        return reasons[0]
    counts = count_reasons(reasons)
    others = sum(count for _, count in counts[3:])
    return "; ".join(f"{reason} in {count}" for reason, count in counts[:3]) + (f"; {others} others" if others else "")


def _two_kinds(labels: LabelJudgement) -> list[Finding]:
    """Recognise two kinds of labels in one file: the energies of many frames deviate from all models by one step."""
    residuals = labels.energy_residuals
    if not np.isfinite(residuals).all():
        return []
    offset, high = _gap(residuals)
    share = min(high.mean(), 1 - high.mean())
    if share < TWO_KINDS_SHARE or abs(offset) < 0.05:
        return []
    step = int(np.argmax(high != high[0]))
    in_order = np.mean(high[:step] == high[0]) + np.mean(high[step:] != high[0]) > 1.95
    where = f"from frame {step} on" if in_order else "mixed throughout the file"
    message = (
        f"energies must be those of one method, found two kinds that are {offset:.3g} eV apart, {high.sum()} and "
        f"{(~high).sum()} of {len(high)} frames, {where}: look for another method, basis set or zero of energy, and "
        "keep one kind"
    )
    return [Finding("refused", "two methods", message)]


def _gap(values: FloatArray) -> tuple[float, np.ndarray]:
    """Cut values into two groups at the widest gap; return their distance, 0 if it is small, and the lower group."""
    order = np.sort(values)
    n = len(order)
    margin = max(2, int(TWO_KINDS_SHARE * n))
    if n < 2 * margin + 1:
        return 0.0, np.zeros(n, dtype=bool)
    cuts = np.arange(margin, n - margin + 1)
    cut = int(cuts[np.argmax(order[cuts] - order[cuts - 1])])
    lower, upper = order[:cut], order[cut:]
    distance = float(np.median(upper) - np.median(lower))
    within = max(1.4826 * float(np.median(np.abs(group - np.median(group)))) for group in (lower, upper))
    apart = distance > TWO_KINDS_GAP * max(within, 1e-12)
    return (distance if apart else 0.0), values <= lower[-1] if apart else np.zeros(n, dtype=bool)


def _predicted_slope(dataset: Dataset, labels: LabelJudgement) -> float | None:
    """Return the slope of the energies on those that models of the forces predict; None if their correlation is low."""
    sound = np.array([level == "sound" for level in labels.levels]) & np.isfinite(labels.energy_residuals)
    if sound.sum() < USEFUL_FRAMES / 2:
        return None
    energies = dataset.energies[sound]
    predicted = energies + labels.energy_residuals[sound]
    correlation = rank_correlation(predicted, energies)
    if abs(correlation) < SURE_CORRELATION:
        return None
    return float(np.sign(correlation) * np.std(energies) / np.std(predicted))


def _energies(dataset: Dataset, slope: EnergySlope, shift: int, predicted: float | None) -> list[Finding]:
    """Judge the correlation of energies and forces, then their slope, as far as close frames allow."""
    expected = "energies and forces must agree"
    found = f"(correlation {slope.correlation:.2f} over {slope.n_pairs} pairs of close frames)"
    message = (
        f"{expected}, which could not be decided {found}: frames are too few or too far apart; "
        "add some that are close, or check units and signs yourself"
    )
    undecided = Finding("note", "energies undecided", message)
    notes: list[Finding] = []
    if predicted is not None and SLOPE_BAND[0] < predicted < SLOPE_BAND[1]:
        return []
    if slope.n_pairs < MIN_PAIRS:
        return [undecided]
    if shift:
        message = (
            f"{expected}, found that the forces of each frame fit the energy of the "
            f"{'next' if shift > 0 else 'previous'} frame: the lists are shifted relative to each other; align them"
        )
        return [Finding("refused", "energies and forces", message)]
    # Sound data reach 0.99 where frames are close, and 0.85 where they are not.
    tight = slope.rmsd < TIGHT_RMSD
    required = 0.8 if tight else 0.6
    largest = np.tanh(np.arctanh(min(abs(slope.correlation), 1 - 1e-12)) + 3 / np.sqrt(slope.n_pairs - 3))
    if largest < required:
        advice = (
            "they hardly change, as the total energy (with the kinetic) of a trajectory would; give potential energies"
            if slope.flat
            else "they do not belong to these forces; look for shuffled labels or two methods"
        )
        return [Finding("refused", "energies and forces", f"{expected}, found unrelated energies {found}: {advice}")]
    if tight and slope.outside > MIXED:
        message = (
            f"{expected}, found that they disagree in some of the frames {found}: look for two units, two methods "
            "or shuffled labels in one file, and keep one kind"
        )
        # Stiff bonds far from their minimum scatter; a second unit differs by a single factor.
        if slope.shared > MIXED_ALIKE:
            return [Finding("refused", "energies and forces", message)]
        notes.append(Finding("note", "energies in part", message))
    if abs(slope.correlation) < required:
        return [undecided]
    low, high = sorted([slope.low, slope.high])
    margin = np.exp(2 * slope.spread)
    if low > 0 and low / margin < SLOPE_BAND[1] and high * margin > SLOPE_BAND[0]:
        return notes
    # A slope within a factor of four of one is uncertain where frames are far apart; models may confirm that it is off.
    if not tight and low > 0.25 and high < 4:
        options = {explain_slope(value, dataset.n_atoms) for value in np.geomspace(low / margin, high * margin, 20)}
        named = sorted(option for option in options if option)
        advice = "no single mistake explains this" if not named else named[0] if len(named) == 1 else _one_of(named)
        message = (
            f"{expected}, found that energies seem to change {high:.2g} times as much as the forces imply: {advice}"
        )
        return [Finding("note" if predicted is None else "refused", "energies and forces", message)]
    explained = explain_slope(slope.high, dataset.n_atoms) or explain_slope(slope.low, dataset.n_atoms)
    advice = explained or "no single mistake of units or sign explains this; compute some of the labels again"
    message = f"{expected}, found that energies change {slope.high:.3g} times as much as the forces imply: {advice}"
    return [Finding("refused", "energies and forces", message)]


def _one_of(explanations: list[str]) -> str:
    return f"one of these may be the reason: {', or '.join(explanations)}"
