"""Directories of code as archives that are named after their contents."""

from __future__ import annotations

from raflow.bundles._archive import Archive
from raflow.bundles._bundle_store import BundleStore
from raflow.bundles._manifest import Entry, Limits, Manifest
from raflow.bundles._pack import Packed, pack
from raflow.bundles._unpack import unpack

__all__ = [
    "Archive",
    "BundleStore",
    "Entry",
    "Limits",
    "Manifest",
    "Packed",
    "pack",
    "unpack",
]
