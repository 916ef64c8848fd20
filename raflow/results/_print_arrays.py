"""Fingerprints of NumPy's arrays and scalars; NumPy is never imported here."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any, Final

from raflow.results._digest import Encode, RefusedError, Writer
from raflow.results._print_plain import as_text, write_class

_BLOCK: Final = 1 << 24
"""Bytes that are copied at a time, where an array does not lie in one piece."""


def encoder(cls: type) -> Encode | None:
    """Return what writes objects of a class of NumPy's; None if they have no fingerprint."""
    numpy: Any = sys.modules["numpy"]
    for base, encode in (
        (numpy.ma.MaskedArray, _masked_array),
        (numpy.ndarray, _array),
        (numpy.generic, _scalar),
        (numpy.dtype, as_text("numpy.dtype", dtype_text)),
        (numpy.ufunc, as_text("numpy.ufunc", repr)),
    ):
        if issubclass(cls, base):
            return encode
    return None


def dtype_text(dtype: Any) -> str:
    """Return a text of a type of elements that is the same on every machine."""
    if dtype.names is not None:
        return repr([(name, dtype_text(dtype[name])) for name in dtype.names])
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        return f"{dtype_text(base)}{shape}"
    # Texts of any length have no byte order.
    return str(dtype if dtype.kind == "T" else dtype.newbyteorder("<").str)


def write_elements(writer: Writer, array: Any) -> None:
    """Write the elements of an array in C order; its shape and type must stand before.

    Raises:
        RefusedError: They are Python objects without a fingerprint, or long doubles.
    """
    dtype = array.dtype
    if dtype.names is not None:  # between the fields there may be bytes that mean nothing
        for name in dtype.names:
            try:
                write_elements(writer, array[name])
            except RefusedError as refused:
                refused.inside(f"[{name!r}]")
                raise
    elif dtype.kind in "OT":
        writer.items(array.ravel().tolist())
    elif dtype.char in "gG":
        raise RefusedError(
            f"has elements of type {dtype.name!r}, whose precision differs from machine to "
            "machine. Convert it to float64 or complex128."
        )
    else:
        for block in _blocks(array.astype(dtype.newbyteorder("<"), copy=False)):
            writer.unsized(block)


def _blocks(array: Any) -> Iterator[memoryview]:
    """Yield the bytes of an array in C order."""
    if not array.nbytes:
        return
    if array.flags.c_contiguous:
        yield _bytes(array)
        return
    if array.nbytes <= _BLOCK or array.ndim == 0:
        yield _bytes(array.copy(order="C"))
    elif array.shape[0] == 1:
        yield from _blocks(array[0])
    else:
        step = max(1, _BLOCK * array.shape[0] // array.nbytes)
        for start in range(0, array.shape[0], step):
            yield from _blocks(array[start : start + step])


def _bytes(array: Any) -> memoryview:
    return memoryview(array.reshape(-1).view("u1"))


def _array(writer: Writer, value: Any) -> None:
    numpy: Any = sys.modules["numpy"]
    writer.tag("numpy.ndarray")
    if type(value) not in {numpy.ndarray, numpy.memmap}:
        write_class(writer, type(value))
    _write_array(writer, value.view(numpy.ndarray))


def _write_array(writer: Writer, array: Any) -> None:
    writer.value(array.shape)
    writer.value(dtype_text(array.dtype))
    write_elements(writer, array)


def _masked_array(writer: Writer, value: Any) -> None:
    numpy: Any = sys.modules["numpy"]
    writer.tag("numpy.ma")
    mask = numpy.ma.getmaskarray(value)
    _write_array(writer, mask)
    # What lies under the mask does not count.
    _write_array(writer, numpy.where(mask, numpy.zeros((), value.dtype), value.data))


def _scalar(writer: Writer, value: Any) -> None:
    numpy: Any = sys.modules["numpy"]
    writer.tag("numpy.scalar")
    array = numpy.asarray(value)
    writer.value(dtype_text(array.dtype))
    write_elements(writer, array)
