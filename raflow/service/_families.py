"""Which flow runs belong together: who records a root run records its subflows, and no others."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

from raflow import errors
from raflow.store import Store

_MOST: Final = 10_000


class Families:
    """Finds what flow runs are a part of, and remembers it: it never changes. For any thread."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lines: OrderedDict[str, Sequence[str]] = OrderedDict()

    def line_of(self, flow_run_id: str) -> Sequence[str]:
        """Return a flow run, the one that it is a part of, and so on to the one that began all.

        Raises:
            NotFoundError: No such flow run was recorded.
        """
        known = self._lines.get(flow_run_id)
        if known is None:
            known = self._lines[flow_run_id] = self._store.line_of(flow_run_id)
            if len(self._lines) > _MOST:
                self._lines.popitem(last=False)
        return known

    def check(self, root_id: str, flow_run_id: str) -> None:
        """Refuse a flow run that is neither this one nor a part of it.

        Raises:
            NotFoundError: Whether there is such a run or not: that is nobody else's business.
        """
        if flow_run_id != root_id and not self._is_part(root_id, flow_run_id):
            raise errors.NotFoundError.of("flow run", flow_run_id, ())

    def _is_part(self, root_id: str, flow_run_id: str) -> bool:
        try:
            return root_id in self.line_of(flow_run_id)
        except errors.NotFoundError:
            return False
