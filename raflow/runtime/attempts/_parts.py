"""What an attempt of a flow run consists of, put together."""

from __future__ import annotations

import dataclasses
import functools
import sys
from concurrent.futures import Future
from typing import Final

from raflow import engine, errors, execute
from raflow.model import (
    FlowRun,
    ResultInfo,
    ResultPolicy,
    StateChange,
    StateName,
    TaskRunKey,
    Trigger,
)
from raflow.results import Keeper
from raflow.runtime.attempts._children import Children, MakeChild
from raflow.runtime.attempts._identity import claimed_flow_run, new_flow_run, version_record
from raflow.runtime.attempts._origin import Origin
from raflow.runtime.attempts._tenure import Tenure
from raflow.runtime.body import BY_ITSELF, RunContext
from raflow.runtime.desk import Desk
from raflow.runtime.driver import Driver, Memory
from raflow.runtime.ending import reap_in_background
from raflow.runtime.recall import Recall, RerunRecall
from raflow.runtime.record import History, Steward

_PARAMETERS: Final = TaskRunKey(-2)


class Parts:
    """Driver, desk, body and children of one attempt; nothing is recorded or started yet."""

    def __init__(self, origin: Origin, make_child: MakeChild) -> None:
        """Create the run, or go on with one; `make_child` creates the run of a subflow call."""
        scope, flow, resumed = origin.scope, origin.flow, origin.resumed
        self._origin = origin
        now = scope.clock()
        self.version = version_record(flow, scope.entrypoint, now)
        run = resumed.flow_run if resumed else self._first_run(now)
        self.id = run.id
        self.past: list[StateChange] = scope.store.open().states(run.id) if resumed else []
        """The states of the run so far."""
        self.keeper = self._keeper_of(run)
        self.driver = self._made_driver(run)
        self.steward = Steward()
        self.desk = Desk(
            run,
            origin.parameters,
            store=scope.store,
            steward=self.steward,
            recorder=scope.recorder,
            post=self.driver.post,
            clock=scope.clock,
            refreshes=origin.refreshes,
        )
        self.context = RunContext(
            self.driver,
            scope.capacity,
            self.desk,
            flow_run_id=run.id,
            keep_all=origin.is_durable,
            suspended_before=self._suspended_before(),
        )
        self.children = Children(self.driver, make_child)
        self.tenure = self._made_tenure()

    def known_pace(self) -> engine.Pace:
        """Return what earlier runs of the same code have taught."""
        known = self._origin.scope.store.paces(self._origin.flow.name, self.version.fingerprint)
        return engine.Pace(
            {task: engine.Learned(pace.seconds, pace.bytes) for task, pace in known.items()}
        )

    def _first_run(self, now: float) -> FlowRun:
        """Return a new run, or what this process adds to one of a deployment."""
        origin = self._origin
        run = new_flow_run(origin.flow, self.version, origin.parameters, name=origin.name, now=now)
        if origin.claim is None:
            return self._new_run(run)
        run = claimed_flow_run(run, origin.claim.flow_run, origin.claim.incarnation)
        inputs = self._kept_parameters(self._keeper_of(run))
        return dataclasses.replace(run, backend=origin.scope.backend.name, inputs=inputs)

    def _new_run(self, run: FlowRun) -> FlowRun:
        origin = self._origin
        parent, reuse = origin.parent, origin.reuse
        return dataclasses.replace(
            run,
            backend=origin.scope.backend.name,
            trigger=Trigger.PARENT if parent else Trigger.MANUAL,
            parent_id=parent.flow_run_id if parent else None,
            parent_node=parent.node if parent else None,
            inputs=self._kept_parameters(self._keeper_of(run)),
            rerun_of=reuse.run.id if reuse else None,
            rerun_from=reuse.names if reuse else (),
        )

    def _made_driver(self, run: FlowRun) -> Driver:
        scope, origin = self._origin.scope, self._origin
        recall = origin.resumed.recall if origin.resumed else None
        numbers = origin.claim.numbers if origin.claim else None
        environment = execute.RunEnvironment(
            flow_run_id=run.id,
            flow=origin.flow.name,
            flow_run_name=run.name,
            keeper=self.keeper,
            sys_path=tuple(path for path in sys.path if path),
            log_level=scope.settings.log_number,
            parameters=run.parameters,
        )
        both = RerunRecall(recall, origin.reuse) if recall and origin.reuse else None
        memory = Memory(
            recall=both or recall or origin.reuse,
            look_back=self._look_back,
            commit=scope.recorder.flush,
            is_durable=origin.is_durable,
            values=origin.values,
        )
        return Driver(
            backend=scope.backend,
            capacity=scope.capacity,
            environment=environment,
            history=History(run, scope.recorder, scope.observers, recall, numbers),
            memory=memory,
            pace=self.known_pace() if scope.store.is_open else engine.Pace(),
            clock=scope.clock,
            cancel_grace=scope.settings.cancel_grace_seconds,
        )

    def _made_tenure(self) -> Tenure:
        scope = self._origin.scope
        look_around = functools.partial(reap_in_background, settings=scope.settings)
        return Tenure(
            scope.store,
            self.driver,
            self.steward,
            self.desk,
            is_child=self._origin.parent is not None,
            flush=scope.recorder.flush,
            processes=scope.backend.processes,
            look_around=look_around if scope.settings.reap else None,
        )

    def _keeper_of(self, run: FlowRun) -> Keeper:
        return Keeper(
            flow_run_id=run.id,
            storage=self._origin.scope.settings.results,
            signing_key=self._origin.scope.signing_key,
            incarnation=run.incarnation,
        )

    def _kept_parameters(self, keeper: Keeper) -> ResultInfo | None:
        """Keep the parameters, for a process that may have to go on with the run."""
        policy = ResultPolicy(persist=True)
        try:
            return keeper.keep(dict(self._origin.parameters), policy, run=_PARAMETERS, attempt=1)
        except errors.SerializationError:
            return None  # such a run cannot be resumed, and says so then

    def _look_back(self) -> Future[Recall]:
        store, run_id = self._origin.scope.store, self.id
        return self._origin.scope.recorder.ask(lambda: Recall(store.open(), run_id))

    def _suspended_before(self) -> int:
        """Return how many times the body has suspended the run before."""
        own = [change for change in self.past if change.state.reason == BY_ITSELF]
        return sum(1 for change in own if change.state.name is StateName.SUSPENDED)
