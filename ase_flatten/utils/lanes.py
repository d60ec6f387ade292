"""Vectors of numbers as values within functions compiled by numba: `LANES` numbers at a time.

Loops over arrays that might overlap are not vectorised by the compiler, or with checks that cost more than short loops.
Here a row of a two-dimensional array of `LANES` columns is read into registers by `get`, computed with, and written by
`put`. The compiler turns the operations into those of the processor, whatever its registers hold.

numba keeps compiled functions on disk until the file that defines them changes. It does not see that one of these
operations has changed, so a module that uses them states their digest, and a test compares it.
"""

import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, overload, register_model

LANES = 64
"""Several registers wide, so that loops and addresses cost little beside the arithmetic."""

_VECTOR = ir.VectorType(ir.DoubleType(), LANES)
_INTEGERS = ir.VectorType(ir.IntType(64), LANES)
_FUSED = ("contract",)  # a product and a sum may become one operation


_intrinsic: Any = intrinsic  # the signatures below are the compiler's, not the caller's


class Lanes(types.Type):
    """Type of `LANES` float64 numbers."""

    def __init__(self) -> None:
        super().__init__(name="Lanes")


_LANES = Lanes()


@register_model(Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _VECTOR)


def _row(context: Any, builder: Any, kinds: Any, arguments: Any) -> Any:
    array = context.make_array(kinds[0])(context, builder, arguments[0])
    row = context.cast(builder, arguments[1], kinds[1], types.intp)
    first = builder.gep(array.data, [builder.mul(row, ir.Constant(row.type, LANES))])
    return builder.bitcast(first, _VECTOR.as_pointer())


@_intrinsic
def get(typing: Any, array: Any, row: Any) -> Any:
    """Read a row of a contiguous array, (n_rows, LANES); the number of the row is not checked."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load(_row(context, builder, signature.args, arguments), align=8)

    return _LANES(array, row), code


@_intrinsic
def put(typing: Any, array: Any, row: Any, value: Any) -> Any:
    """Write a row of a contiguous array, (n_rows, LANES)."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.store(arguments[2], _row(context, builder, signature.args, arguments), align=8)
        return context.get_dummy_value()

    return types.void(array, row, value), code


@_intrinsic
def same(typing: Any, number: Any) -> Any:
    """Return a number in all lanes."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _same(context, builder, signature.args[0], arguments[0])

    return _LANES(number), code


@_intrinsic
def square_root(typing: Any, vector: Any) -> Any:
    """Return the square root of the absolute value."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = ir.FunctionType(_VECTOR, [_VECTOR])
        for name in ("fabs", "sqrt"):
            function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.{name}.v{LANES}f64")
            arguments = [builder.call(function, arguments)]
        return arguments[0]

    return _LANES(vector), code


@_intrinsic
def at_most(typing: Any, vector: Any, limit: Any) -> Any:
    """Return the smaller of two vectors; what is not a number in the first remains so."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        vector, limit = arguments
        return builder.select(builder.fcmp_ordered("<", limit, vector), limit, vector)

    return _LANES(vector, limit), code


@_intrinsic
def power_of_two(typing: Any, number: Any) -> Any:
    """Return 2^n from n + 1.5 * 2^52, whose lowest bits are those of the integer n."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        bits = builder.bitcast(arguments[0], _INTEGERS)
        exponent = builder.add(bits, ir.Constant(_INTEGERS, [1023] * LANES))
        return builder.bitcast(builder.shl(exponent, ir.Constant(_INTEGERS, [52] * LANES)), _VECTOR)

    return _LANES(number), code


def _same(context: Any, builder: Any, kind: Any, value: Any) -> Any:
    if kind == _LANES:
        return value
    undefined, first = ir.Constant(_VECTOR, ir.Undefined), ir.Constant(ir.IntType(32), 0)
    one = builder.insert_element(undefined, context.cast(builder, value, kind, types.float64), first)
    places = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
    return builder.shuffle_vector(one, undefined, places)


def _define(operation: Callable[..., Any], name: str) -> None:
    @_intrinsic
    def compute(typing: Any, left: Any, right: Any) -> Any:
        def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            pairs = zip(signature.args, arguments, strict=True)
            vectors = [_same(context, builder, kind, value) for kind, value in pairs]
            return getattr(builder, name)(*vectors, flags=_FUSED)

        return _LANES(left, right), code

    @overload(operation, strict=False)
    def implementation(left: Any, right: Any) -> Any:
        return (lambda left, right: compute(left, right)) if _LANES in (left, right) else None


for _operation, _name in ((operator.add, "fadd"), (operator.sub, "fsub"), (operator.mul, "fmul")):
    _define(_operation, _name)
