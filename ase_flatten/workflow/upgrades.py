"""Upgrades: what earlier versions wrote into a run folder, made into what this version reads.

`ase_flatten.workflow.run_folder.FORMAT` is the version of run.json and of the files beside it. A change that the
readers here cannot follow raises it, and the function that brings the former version up to date is added to this
module. Entries that were only added since are optional where they are read.
"""

from collections.abc import Mapping
from typing import Any


def upgrade_settings(content: Mapping[str, Any]) -> dict[str, Any]:
    """Complete the settings in run.json of runs that were begun before labels were judged: nothing was set aside."""
    return {"quarantine": "off", **content}


def former_defaults(trainer: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a run's trainer that were its defaults and no longer are.

    Parameters
    ----------
    trainer : mapping
        All settings of the trainer, from run.json. The symmetries of sGDML were true (matching) or false, and graph
        is the default since.
    """
    return {name: value for name, value in trainer.items() if name == "symmetries" and isinstance(value, bool)}
