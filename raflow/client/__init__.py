"""The service from afar: the record of runs over HTTP, with a spool for when it is away.

- `_http`: the connection, and errors of the service as those of raflow.
- `_calls`: what a run asks: with the token of the run, again where that makes sense.
- `_spool`: batches on disk that the service has not confirmed; `_outbox` sends them in order.
- `_mailbox`: what others ask of a run, as soon as they do.
- `_work`: what a worker asks.
- `_remote_store`, `_groups`: what stands for the store, for the runtime.
"""

from __future__ import annotations

from raflow.client._http import Connection, check_url
from raflow.client._remote_store import RemoteStore
from raflow.client._spool import Spool, Waiting
from raflow.client._work import WorkClient

__all__ = ["Connection", "RemoteStore", "Spool", "Waiting", "WorkClient", "check_url"]
