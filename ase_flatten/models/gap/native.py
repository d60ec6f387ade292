"""The native files of a GAP: `model.xml`, and beside it one file of sparse points for each element.

The XML of a potential can name other potentials, one of which runs a command. Therefore QUIP is only given files
that hold a GAP with SOAP and its own sparse points, of the declared sizes.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from xml.sax.saxutils import quoteattr

import numpy as np

from ase_flatten.utils.atomic_files import writing
from ase_flatten.utils.exceptions import InputError, printable
from ase_flatten.utils.typing import IntArray

MODEL_FILE = "model.xml"
LOG_FILE = "gap_fit.log"
LABEL = "GAP"
_OURS = "ase_flatten"
"""The element of model.xml for what QUIP does not record: the order of the atoms and the settings."""

_E0 = re.compile(r'(<e0 Z="\d+" value=")([^"]+)(")')
_SPARSE_FILE = re.compile(re.escape(MODEL_FILE) + r"\.sparseX\.\w+")
_ELEMENTS = {LABEL, "Potential", "GAP_params", "GAP_data", "e0", "gpSparse", "gpCoordinates", "descriptor",
             "permutation", "sparseX", "command_line", _OURS}  # fmt: skip


@dataclass(frozen=True, eq=False)
class NativeFiles:
    """Native files of a model of one molecule.

    Parameters
    ----------
    contents : mapping of file names to bytes
    numbers : (n_atoms,) int array
        Atomic numbers, in the order of the atoms of the data set.
    settings : dict
        The settings of the trainer.
    """

    contents: Mapping[str, bytes]
    numbers: IntArray
    settings: dict[str, Any]

    @property
    def digest(self) -> str:
        """SHA-256 over the names and the contents."""
        digest = hashlib.sha256()
        for name, content in sorted(self.contents.items()):
            digest.update(f"{name} {len(content)} ".encode() + content)
        return digest.hexdigest()

    def write(self, folder: Path) -> None:
        """Write the files into an existing folder."""
        for name, content in self.contents.items():
            with writing(folder / name) as beside:
                beside.write_bytes(content)


def read_native(folder: Path) -> NativeFiles:
    """Read the files of a model folder, or of the folder of a model.xml, and check all that they say.

    Raises
    ------
    InputError
        A file is missing or damaged, or is not a GAP of this project.
    """
    path = folder / MODEL_FILE if folder.is_dir() else folder
    folder = path.parent
    try:
        text = path.read_bytes()
        contents = {MODEL_FILE: text}
        root = _parsed(text)
        for coordinates in root.iter("gpCoordinates"):
            name = coordinates.attrib["sparseX_filename"]
            if not _SPARSE_FILE.fullmatch(name):
                raise ValueError(f"{name!r} is not the name of a file of sparse points")
            contents[name] = (folder / name).read_bytes()
            _check_sparse_points(coordinates, contents[name])
        numbers, settings = _ours(root)
        if (folder / LOG_FILE).is_file():
            contents[LOG_FILE] = (folder / LOG_FILE).read_bytes()
    except (OSError, ValueError, KeyError, AttributeError, ElementTree.ParseError) as error:
        raise InputError(f"expected a GAP model in {path}, could not read it: {printable(error)}") from error
    return NativeFiles(contents, numbers, settings)


def take_native(folder: Path, numbers: IntArray, settings: Mapping[str, Any]) -> NativeFiles:
    """Read the files that `gap_fit` wrote; rename them without the time, and add what QUIP does not record."""
    text = (folder / MODEL_FILE).read_text(encoding="utf-8")
    label = ElementTree.fromstring(text).tag
    ours = (
        f'  <{_OURS} numbers="{" ".join(map(str, numbers))}" settings={quoteattr(json.dumps(settings))}/>\n'
        "</GAP_params>"
    )
    text = text.replace(label, LABEL).replace("</GAP_params>", ours)
    contents = {MODEL_FILE: text.encode(), LOG_FILE: (folder / LOG_FILE).read_bytes()}
    for path in sorted(folder.glob(f"{MODEL_FILE}.sparseX.*")):
        contents[path.name.replace(label, LABEL)] = path.read_bytes()
    return NativeFiles(contents, numbers, dict(settings))


def shifted(files: NativeFiles, shift: float) -> NativeFiles:
    """Return the files of a model with all energies of the molecule raised by `shift`, eV.

    The shift is distributed equally over the reference energies e0 of the atoms, which QUIP adds to the energy.
    """
    per_atom = shift / len(files.numbers)

    def raise_e0(found: re.Match[str]) -> str:
        return f"{found[1]}{float(found[2]) + per_atom!r}{found[3]}"

    text, n_found = _E0.subn(raise_e0, files.contents[MODEL_FILE].decode())
    assert n_found, "gap_fit writes e0 of every element"
    return replace(files, contents={**files.contents, MODEL_FILE: text.encode()})


def soap_dimensions(n_species: int, n_max: int, l_max: int) -> int:
    """Return the number of components of a SOAP vector, including the one for the baseline."""
    n_channels = n_species * n_max
    return n_channels * (n_channels + 1) // 2 * (l_max + 1) + 1


def _parsed(text: bytes) -> ElementTree.Element:
    """Parse model.xml; raise ValueError for anything but a GAP."""
    if b"<!DOCTYPE" in text or b"<!ENTITY" in text:
        raise ValueError("it declares a document type, which QUIP's files do not")
    root = ElementTree.fromstring(text)
    foreign = {element.tag for element in root.iter()} - _ELEMENTS
    if root.tag != LABEL or foreign:
        raise ValueError(f"it holds {sorted(foreign or {root.tag})[0]}, which a GAP of ase-flatten does not")
    potentials = [element.attrib for element in root.iter("Potential")]
    if potentials != [{"label": LABEL, "init_args": f"IP GAP label={LABEL}"}]:
        raise ValueError("it describes another potential than one GAP")
    if [element.attrib.get("do_core") for element in root.iter("GAP_data")] != ["F"]:
        raise ValueError("it adds another potential to the GAP")
    return root


def _check_sparse_points(coordinates: ElementTree.Element, content: bytes) -> None:
    """Compare the sparse points of one element with their declaration in model.xml."""
    attributes = coordinates.attrib
    words = (coordinates.findtext("descriptor") or "").split()
    declared = dict(word.split("=", 1) for word in words if "=" in word)
    dimensions, n_sparse = int(attributes["dimensions"]), int(attributes["n_sparseX"])
    expected = soap_dimensions(int(declared["n_species"]), int(declared["n_max"]), int(declared["l_max"]))
    if words[:1] != ["soap"] or dimensions != expected:
        raise ValueError("its descriptor is not the SOAP of its sparse points")
    weights = [float(point.attrib["alpha"]) for point in coordinates.iter("sparseX")]
    if len(weights) != n_sparse or not np.isfinite(weights).all():
        raise ValueError(f"it should hold {n_sparse} finite weights of sparse points")
    if content.count(b"\n") < dimensions * n_sparse:
        raise ValueError(f"{attributes['sparseX_filename']} is too short")
    if hashlib.md5(content, usedforsecurity=False).hexdigest() != attributes["sparseX_md5sum"]:
        raise ValueError(f"{attributes['sparseX_filename']} is damaged")


def _ours(root: ElementTree.Element) -> tuple[IntArray, dict[str, Any]]:
    """Read the order of the atoms and the settings."""
    element = root.find(f".//{_OURS}")
    if element is None:
        raise ValueError("it was not made by ase-flatten: it does not say in which order the atoms are")
    settings = json.loads(element.attrib["settings"])
    if not isinstance(settings, dict):
        raise ValueError("its settings are damaged")
    numbers = np.array(element.attrib["numbers"].split(), dtype=np.int64)
    if not len(numbers) or numbers.min() < 1 or numbers.max() > 118:
        raise ValueError("its atomic numbers are damaged")
    return numbers, settings
