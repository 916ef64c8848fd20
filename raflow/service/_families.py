"""Which flow runs belong together: who records a root run records its subflows, and no others."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from raflow import errors
from raflow.store import Store

_MOST: Final = 10_000


class Families:
    """Finds the root of flow runs, and remembers it: it never changes. For use by any thread."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._roots: OrderedDict[str, str] = OrderedDict()

    def root_of(self, flow_run_id: str) -> str:
        """Return the run that began all that a flow run is a part of.

        Raises:
            NotFoundError: No such flow run was recorded.
        """
        known = self._roots.get(flow_run_id)
        if known is None:
            known = self._roots[flow_run_id] = self._store.line_of(flow_run_id)[-1]
            if len(self._roots) > _MOST:
                self._roots.popitem(last=False)
        return known

    def check(self, root_id: str, flow_run_id: str) -> None:
        """Refuse a flow run that is neither this root run nor a part of it.

        Raises:
            NotFoundError: Whether there is such a run or not: that is nobody else's business.
        """
        if flow_run_id != root_id and not self._is_part(root_id, flow_run_id):
            raise errors.NotFoundError.of("flow run", flow_run_id, ())

    def _is_part(self, root_id: str, flow_run_id: str) -> bool:
        try:
            return self.root_of(flow_run_id) == root_id
        except errors.NotFoundError:
            return False
