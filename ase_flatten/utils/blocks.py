"""Large computations in blocks of limited memory."""

from collections.abc import Iterator

BLOCK_BYTES = 2**27
"""Memory of one block."""


def blocks(n_rows: int, bytes_per_row: int) -> Iterator[slice]:
    """Cut `n_rows` into slices that take about `BLOCK_BYTES` each.

    The slices are those of scikit-learn's `gen_batches`, whose import alone would take longer than loading a
    calculator.
    """
    step = max(1, BLOCK_BYTES // bytes_per_row)
    for start in range(0, n_rows, step):
        yield slice(start, min(start + step, n_rows))
