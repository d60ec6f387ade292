"""The driver's side of i-PI's socket protocol.

A header of 12 bytes names the message: STATUS asks for the state of the driver, INIT may announce batches, POSDATA
brings cells and positions, GETFORCE asks for energies, forces, virials and an extra text, EXIT ends the connection.
Numbers are float64 and int32 in the byte order of the machine, in Hartree and Bohr. Elements are not
sent, only the number of atoms. See the i-PI manual, "Communication protocol", and doi:10.1016/j.cpc.2018.09.020.
"""

import math
import select
import socket
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from ase import units

from ase_flatten.utils.exceptions import InputError, printable
from ase_flatten.utils.typing import FloatArray

HEADER_BYTES = 12
LARGEST_TEXT = 65_536
"""Most bytes in an INIT message; i-PI sends a few."""

LARGEST_BATCH = 4096

Answer = Callable[[FloatArray], tuple[FloatArray, FloatArray]]
"""From (n, n_atoms, 3) positions in Å to (n,) energies in eV and (n, n_atoms, 3) forces in eV/Å."""

Address = str | tuple[str, int]
"""Path of a Unix socket, or host and port."""


def connect(address: Address, *, wait_s: float) -> socket.socket:
    """Connect to i-PI, which may not have started yet.

    Raises
    ------
    InputError
        No server was there for `wait_s` seconds, or the time or the address makes no sense.
    """
    if not (math.isfinite(wait_s) and wait_s >= 0):
        raise InputError(f"the time to wait for i-PI must be 0 s or longer, got {wait_s:g} s; 60 s is usual")
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    shown = address if isinstance(address, str) else f"{address[0]}:{address[1]}"
    deadline = time.monotonic() + wait_s
    while True:
        connection = socket.socket(family, socket.SOCK_STREAM)
        connection.settimeout(max(wait_s, 1.0))
        try:
            connection.connect(address)
        except (ConnectionError, FileNotFoundError, TimeoutError) as error:
            connection.close()
            if time.monotonic() > deadline:
                raise InputError(
                    f"expected i-PI at {shown}, found no server for {wait_s:g} s ({error.strerror or error}); start "
                    "i-pi, or check the address of its ffsocket"
                ) from error
            time.sleep(0.05)
        except (OSError, OverflowError) as error:
            connection.close()
            raise InputError(
                f"expected i-PI at {shown}, found that there is no such address ({error}); check it"
            ) from error
        else:
            connection.settimeout(None)
            if family == socket.AF_INET:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return connection


def serve(connection: socket.socket, answer: Answer, n_atoms: int, *, wait_s: float | None = None) -> bool:
    """Answer i-PI until it disconnects.

    Parameters
    ----------
    wait_s : float, optional
        How long the first message may take, s; between messages i-PI takes the time that it needs.

    Returns
    -------
    bool
        Whether it sent its EXIT.

    Raises
    ------
    InputError
        A server that stays silent, a message that is not part of the protocol, or another number of atoms.
    """
    batch, ready, asked, reply = 1, False, None, b""
    if wait_s is not None and not select.select([connection], [], [], wait_s)[0]:
        raise InputError(
            f"expected a message from i-PI, found its server silent for {wait_s:g} s; check that i-PI, "
            "and nothing else, is at this address"
        )
    while (header := _receive(connection, HEADER_BYTES)) is not None:
        # i-PI sends GETFORCE along with the positions, older servers ask for the STATUS between the two. Were
        # anything left unread while the model works, i-PI would not survive the sudden death of this process.
        if asked is not None:
            reply, asked = _reply(*answer(asked)), None
        sent = True
        match header.rstrip(b" "):
            case b"STATUS":
                sent = _send(connection, _header("HAVEDATA" if reply else "READY" if ready else "NEEDINIT"))
            case b"INIT":
                batch, ready = _batch(connection), True
            case b"POSDATA":
                asked = _positions(connection, n_atoms, batch)
            case b"GETFORCE" if reply:
                sent, reply = _send(connection, reply), b""
            case b"EXIT":
                return True
            case other:
                raise InputError(
                    f"expected a message of i-PI's protocol, found {bytes(other)!r}; check that i-PI, and nothing "
                    "else, is at this address"
                )
        if not sent:
            break
    return False


def unix_address(name: str, prefix: str = "/tmp/ipi_") -> str:
    """Return the path of a Unix socket as i-PI makes it of its prefix and an address.

    Raises
    ------
    InputError
        Too long for a Unix socket.
    """
    path = prefix + name
    if len(path.encode()) > 100:
        raise InputError(f"expected a Unix socket's path of at most 100 bytes, found {path}; choose a shorter one")
    return str(Path(path))


def check_count(found: int, n_atoms: int) -> None:
    """Refuse another number of atoms than the model's; raise InputError."""
    if found != n_atoms:
        raise InputError(
            f"expected {n_atoms} atoms, as the model has, found {found} in i-PI; use the same molecule for both"
        )


def _header(word: str) -> bytes:
    return word.ljust(HEADER_BYTES).encode()


def _receive(connection: socket.socket, n_bytes: int) -> bytearray | None:
    """Read a message of known length; return None when the other side has disconnected."""
    content = bytearray(n_bytes)
    view, filled = memoryview(content), 0
    while filled < n_bytes:
        try:
            got = connection.recv_into(view[filled:])
        except ConnectionError:
            got = 0
        if got == 0:
            return None
        filled += got
    return content


def _send(connection: socket.socket, content: bytes) -> bool:
    """Send a message; return whether the other side was still connected."""
    try:
        connection.sendall(content)
    except ConnectionError:
        return False
    return True


def _needed(connection: socket.socket, n_bytes: int) -> bytearray:
    content = _receive(connection, n_bytes)
    if content is None:
        raise InputError("expected the rest of a message from i-PI, found that it disconnected; see its log")
    return content


def _integer(connection: socket.socket) -> int:
    return int(np.frombuffer(_needed(connection, 4), np.int32)[0])


def _batch(connection: socket.socket) -> int:
    """Read an INIT message; return the number of configurations in each later message."""
    _integer(connection)
    length = _integer(connection)
    if not 0 <= length <= LARGEST_TEXT:
        raise InputError(f"expected an INIT message of at most {LARGEST_TEXT} bytes, found {length}; check the server")
    words = bytes(_needed(connection, length)).decode(errors="replace")
    for word in words.split(","):
        key, _, value = word.partition(":")
        if key.strip() == "batch_size":
            text = value.strip()
            if not (text.isdecimal() and len(text) <= 9 and 1 <= int(text) <= LARGEST_BATCH):
                raise InputError(
                    f"expected a batch size from 1 to {LARGEST_BATCH}, found {printable(repr(text), most=30)}; lower it"
                )
            return int(text)
    return 1


def _positions(connection: socket.socket, n_atoms: int, batch: int) -> FloatArray:
    """Read a POSDATA message; return the positions, (batch, n_atoms, 3) in Å. The cell is not used for molecules."""
    cells = 2 * 9 * 8 * batch
    if batch == 1:
        _needed(connection, cells)
    found = _integer(connection)
    check_count(found, n_atoms)
    if batch > 1:
        _needed(connection, cells)
    content = _needed(connection, 3 * 8 * n_atoms * batch)
    return np.frombuffer(content, np.float64).reshape(batch, n_atoms, 3) * units.Bohr


def _reply(energies: FloatArray, forces: FloatArray) -> bytes:
    """Return the answer to GETFORCE, with zero virials and empty texts."""
    n_frames, n_atoms = forces.shape[:2]
    return b"".join(
        (
            _header("FORCEREADY"),
            np.ascontiguousarray(energies / units.Hartree, np.float64).tobytes(),
            np.int32(n_atoms).tobytes(),
            np.ascontiguousarray(forces / (units.Hartree / units.Bohr), np.float64).tobytes(),
            bytes(9 * 8 * n_frames),
            bytes(4 * n_frames),
        )
    )
