"""The process of a runner: `python -m raflow.worker._runner_main FD`.

It has one version of the code of one flow, and works on one flow run after the other. Its death is
told by the operating system, and another one goes on with its run. If its worker dies, it finishes
the run that it has, whose lease is its own, and ends.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from multiprocessing.connection import Connection
from typing import Any, Final, assert_never

import pydantic

from raflow import errors, runtime
from raflow.define import Flow, find_flow
from raflow.model import Claim, Work
from raflow.worker import _messages
from raflow.worker._fit import check_fit

_PERMANENT: Final = (
    errors.DefinitionError,
    errors.InfeasibleResourcesError,
    errors.NotFoundError,
    errors.ParameterError,
    errors.ResumeError,
)
"""What would be no other in another worker."""


def main(descriptor: int) -> int:
    """Serve the worker at the other end of a socket; return the status of the process."""
    os.set_inheritable(descriptor, False)
    # Who stops the worker by its terminal, its group or its service lets the worker decide. Not
    # ignored: what the flow starts would inherit that.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    connection: Connection[Any, Any] = Connection(descriptor)
    begun = time.monotonic()
    load = connection.recv()
    assert isinstance(load, _messages.Load)
    try:
        flow = _loaded(load)
    except errors.RaflowError as error:
        useless = _messages.Useless(message=str(error), permanent=isinstance(error, _PERMANENT))
        _messages.say(connection, useless)
        return 1
    _messages.say(connection, _messages.Ready(seconds=time.monotonic() - begun))
    try:
        while isinstance(message := connection.recv(), _messages.Do):
            _messages.say(connection, _done(flow, message.claim, load))
    except (EOFError, OSError):
        pass  # the worker is gone
    return 0


def _loaded(load: _messages.Load) -> Flow[..., Any]:
    """Load the code, check that it is the right one, and open what it runs on."""
    version = load.version
    check_fit(version)
    os.environ.update(version.spec.environment)
    sys.path.insert(0, load.folder)
    flow = find_flow(version.spec.entrypoint).flow
    if flow.fingerprint() != version.fingerprint:
        raise errors.DefinitionError(
            f"The code of flow {flow.name!r} is not what was deployed ({version.fingerprint[:8]}, "
            f"here {flow.fingerprint()[:8]}): it depends on where it is loaded. Let it not, and "
            "deploy again."
        )
    backend = flow.options.backend or load.settings.backend
    runtime.open_backend(backend, load.settings)
    return flow


def _done(
    flow: Flow[..., Any], claim: Claim, load: _messages.Load
) -> _messages.Ended | _messages.Refused:
    run = claim.flow_run.id
    try:
        state = _work(flow, claim, load)
    except errors.RaflowError as error:
        permanent = isinstance(error, _PERMANENT)
        return _messages.Refused(flow_run_id=run, message=str(error), permanent=permanent)
    return _messages.Ended(flow_run_id=run, state=state)


def _work(flow: Flow[..., Any], claim: Claim, load: _messages.Load) -> str:
    """Do what is to be done for a run; return the state that it is in then."""
    # With the token of the run: nothing that its code does can harm others.
    token = pydantic.SecretStr(claim.token)
    settings = load.settings.model_copy(update={"api_token": token})
    entrypoint = load.version.spec.entrypoint
    match claim.work:
        case Work.RUN:
            outcome = runtime.run_claimed(flow, claim, settings=settings, entrypoint=entrypoint)
            return outcome.flow_run.state.name.value
        case Work.RESUME:
            outcome = runtime.resume_claimed(flow, claim, settings=settings, entrypoint=entrypoint)
            return outcome.flow_run.state.name.value
        case Work.END:
            return runtime.end_claimed(flow, claim, settings=settings).state.name.value
        case _:
            assert_never(claim.work)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
