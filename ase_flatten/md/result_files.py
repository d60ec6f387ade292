"""Files of results: each is read into an object of `ase_flatten.md.results`, or refused in a sentence.

Each file has a format version. Files of earlier versions are completed when they are read.
"""

import re
from dataclasses import replace
from pathlib import Path

from ase_flatten.md.analysis.stability import plus_minus
from ase_flatten.md.results import FORMAT, Comparison, Failure, ReferenceErrors, Summary, Verdict
from ase_flatten.utils.records import read_record


def read_summary(path: Path) -> Summary:
    """Read a summary.json; raise InputError if it is missing, damaged, or of a later format."""
    what = "the summary of a molecular dynamics run"
    summary = read_record(path, Summary, what=what, remedy=remedy(path.parent), version=FORMAT)
    return summary if summary.format else _upgraded(summary)


def read_comparison(path: Path) -> Comparison:
    """Read a comparison.json; raise InputError if it is missing, damaged, or of a later format."""
    what = "a comparison of molecular dynamics runs"
    comparison = read_record(path, Comparison, what=what, remedy=remedy(path), version=FORMAT)
    return comparison if comparison.format else replace(comparison, format=FORMAT)


def read_reference_errors(path: Path) -> ReferenceErrors:
    """Read a reference_errors.json; raise InputError if it is missing or damaged."""
    return read_record(path, ReferenceErrors, what="errors against the reference method", remedy=remedy(path))


def remedy(path: Path) -> str:
    """Return what to do about a damaged file or folder of molecular dynamics."""
    return f"delete {path} and run ase-flatten md again"


def _upgraded(summary: Summary) -> Summary:
    """Complete a summary written before format 1.

    The earliest ones only said whether a run was stable, not why, and described its failures only in words.
    """
    verdict: dict[bool | None, Verdict] = {True: "stable", False: "unstable", None: "cannot tell"}
    return replace(
        summary,
        format=FORMAT,
        verdict=verdict[summary.stable],
        failures=summary.failures or _failures(summary),
        why=summary.why or (_why(summary),),
    )


def _failures(summary: Summary) -> tuple[Failure, ...]:
    """Read the failures from their sentences, such as "replica 1 after 0.310 ps: the bond C3-H9 is 2.1 Å long"."""
    found = (
        re.fullmatch(r"replica (\d{1,6}) after (-?\d{1,9}\.\d{3}) ps: (.*)", text, re.S) for text in summary.reasons
    )
    return tuple(
        Failure(int(match[1]), round(1000 * float(match[2]) / summary.timestep_fs), float(match[2]), match[3])
        for match in found
        if match is not None and int(match[1]) < summary.n_replicas
    )


def _why(summary: Summary) -> str:
    found = f"{summary.n_failed} of {summary.n_replicas} replicas failed"
    if summary.n_failed or summary.drift is None or summary.drift_error is None:
        return found
    return f"{found}, its total energy drifts by {plus_minus(summary.drift, summary.drift_error)} kcal/mol/ps"
