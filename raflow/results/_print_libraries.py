"""Fingerprints of values of other libraries, none of which is imported here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from raflow.results import _print_arrays, _print_arrow, _print_pandas
from raflow.results._digest import Encode

_FINDERS: Final[dict[str, Callable[[type], Encode | None]]] = {
    "numpy": _print_arrays.encoder,
    "pandas": _print_pandas.encoder,
    "polars": _print_arrow.polars_encoder,
    "pyarrow": _print_arrow.encoder,
}


def encoder(cls: type) -> Encode | None:
    """Return what writes objects of a class of one of the libraries, or derived from one."""
    for base in cls.__mro__:
        # A value of a library can only exist if the library is loaded.
        find = _FINDERS.get(base.__module__.partition(".")[0])
        if find is not None:
            return find(cls)
    return None
