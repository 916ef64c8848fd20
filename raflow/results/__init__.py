"""What is known about the values of task runs, and where they are kept."""

from __future__ import annotations

from raflow.results._fingerprint import Fingerprinter, fingerprint
from raflow.results._keeper import Keeper, read_result, read_results, result_exists
from raflow.results._keys import signing_key
from raflow.results._litter import remove_unrecorded
from raflow.results._sparing import inputs_fingerprint
from raflow.results._storage import check_storage

__all__ = [
    "Fingerprinter",
    "Keeper",
    "check_storage",
    "fingerprint",
    "inputs_fingerprint",
    "read_result",
    "read_results",
    "remove_unrecorded",
    "result_exists",
    "signing_key",
]
