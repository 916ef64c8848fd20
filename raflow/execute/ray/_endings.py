"""What becomes of a batch that ends without a report, and what is cleared up after it."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Sequence
from typing import Any, Final

import ray
from ray.exceptions import WorkerCrashedError

from raflow.execute._backend import BatchEnded, BatchLost
from raflow.execute._offspring import FORCE_GRACE_SECONDS, end_marked, mark_of
from raflow.execute._processes import wait_until_gone
from raflow.execute._substitute import Verdict, runs_of, substitute
from raflow.execute.ray._absent import gone_among, handles_of, lost_inputs
from raflow.execute.ray._cells import Remains
from raflow.execute.ray._inquest import explain, fell_silent, lost_with_node
from raflow.execute.ray._leases import Speaker
from raflow.execute.ray._losses import PROCESS_DIED, Loss, RayIsGone, classify, timed_out
from raflow.execute.ray._manners import UNFIT
from raflow.execute.ray._progress import Traces
from raflow.execute.ray._tenures import InFlight
from raflow.execute.ray._tools import Tools
from raflow.model import Cause, Outcome

_LAST_WORDS_SECONDS: Final = 0.3
_GOING_SECONDS: Final = 5.0
_NODE_SECONDS: Final = 1.0
_ENDED: Final = "it was cancelled; its process was ended"
_NOT_TAKEN_UP: Final = "its worker process died before it took it up"
_NOT_STARTED: Final = "it was cancelled before it started"


class Endings:
    """Tells of the batches of one flow run that Ray, or nobody, has an answer for."""

    def __init__(
        self,
        number: int,
        flow_run_id: str,
        tools: Tools,
        is_flying: Callable[[InFlight], bool],
        land: Callable[[InFlight, BatchEnded | BatchLost], None],
    ) -> None:
        """Prepare it.

        Args:
            number: Which session of its backend this is.
            flow_run_id: The flow run.
            tools: What the backend shares with it.
            is_flying: Whether the end of a batch is still to be told.
            land: Tells of the end of a batch.
        """
        self._number = number
        self._flow_run_id = flow_run_id
        self._tools = tools
        self._is_flying = is_flying
        self._land = land

    def failed(self, flight: InFlight, error: BaseException) -> None:
        """Take Ray's error about a batch."""
        loss = classify(error)
        if loss.lost and self._lack(flight, _by_id(flight, loss.lost), None, loss.message):
            return
        everything = range(flight.spec.size)
        if loss.outcome in PROCESS_DIED:
            self._process_died(flight, loss)
        elif isinstance(error, RayIsGone) or loss.outcome is not Outcome.LOST:
            # What happens, happens to all of them.
            self.lose(flight, loss, everything)
        elif self._tools.progress.is_all_here:
            # A raylet that is asked to end tells that its node is dead before it does.
            self._tools.alarms.after(_NODE_SECONDS, lambda: self.lose(flight, loss, None))
        else:
            # A node that died may have run any call.
            self.lose(flight, lost_with_node(loss, flight.node_id), None)

    def _process_died(self, flight: InFlight, loss: Loss) -> None:
        if flight.cancelling:
            self._examine(flight, Loss(Outcome.CANCELLED, loss.message))
        elif flight.forced:
            self.end_calls(flight)
        elif any(call.settings.timeout_seconds is not None for call in flight.spec.calls):
            # The last words of the process may still be on their way.
            self._tools.alarms.after(_LAST_WORDS_SECONDS, lambda: self._examine(flight, loss))
        else:
            self._examine(flight, loss)

    def nodes_died(self, flight: InFlight, alive: frozenset[str]) -> None:
        """Hand a batch back that waits for objects that are on no node any more.

        Ray takes a quarter of a minute to tell.
        """
        if flight.began or self._tools.progress.here(self._number, flight.spec.id):
            return  # its process has them
        lost = gone_among(handles_of(flight.spec), alive)
        if self._lack(flight, lost, alive, "it was lost with the node that held it"):
            # Ray has it, and its process takes no other: it was given objects.
            cancel_by_ray(flight, self._tools)

    def _lack(
        self, flight: InFlight, lost: set[object], alive: frozenset[str] | None, message: str
    ) -> bool:
        """Hand back a batch whose inputs are gone; False if it lacks none of them."""
        if not lost:
            return False
        lost |= gone_among(handles_of(flight.spec) - lost, alive)
        verdicts = {
            position: Verdict(
                outcome=Outcome.LOST,
                message=f"a value that it needs is gone: {message}",
                lost_inputs=edges,
                cause=Cause(kind="lost input", facts={"why": message}),
            )
            for position, edges in lost_inputs(flight.spec, lost).items()
            if position not in flight.returned
        }
        if verdicts:
            report = substitute(flight.spec, verdicts)
            self._land(flight, BatchEnded(report, (), tuple(lost)))
        return bool(verdicts)

    def clear_up(self, flights: Sequence[InFlight]) -> None:
        """End what the calls of batches have started that were ended just now."""
        if not flights:
            return
        marks = set().union(*(self._marks(flight, None) for flight in flights))
        since = min(flight.sent_at for flight in flights)
        with contextlib.suppress(OSError):
            end_marked(marks, since=since, grace=FORCE_GRACE_SECONDS)
        if not self._tools.progress.is_all_here and self._tools.probe() is None:
            nodes = {flight.node_id for flight in flights} - {""}
            self._tools.progress.clear_up(nodes, marks, since)

    def lose(self, flight: InFlight, loss: Loss, running: Sequence[int] | None) -> None:
        """Tell of a batch that has no report.

        Args:
            flight: The batch.
            loss: Why.
            running: Positions of the calls that ran; None: not known.
        """
        blameless = loss.outcome is Outcome.CANCELLED or _was_unfit(loss)
        if running is None and flight.spec.size == 1 and not blameless:
            running = (0,)
        lost = BatchLost(flight.spec.id, loss.outcome, loss.message, running, loss.cause)
        self._land(flight, lost)

    def _examine(self, flight: InFlight, loss: Loss) -> None:
        """Find out which call was running when the process died."""
        batch = flight.spec.id
        words = self._tools.mailroom.forget(self._number, batch)
        if words is not None and loss.outcome is Outcome.CRASHED:
            loss = timed_out(words)
        remains = self._tools.progress.here(self._number, batch)
        if loss.outcome is Outcome.CANCELLED and remains is None and not flight.began:
            # It waited for resources.
            self.lose(flight, loss, ())
        else:
            self._on_thread(self._look_after, flight, loss, remains)

    def end_calls(self, flight: InFlight) -> None:
        """Tell of a batch of which some calls are to be cancelled, and that no process has."""
        self._on_thread(self._end_calls, flight)

    def _end_calls(self, flight: InFlight) -> None:
        """Tell of a batch whose process was ended for the sake of some of its calls."""
        remains = self._tools.progress.here(self._number, flight.spec.id)
        self.clear_up([flight])
        ran = (remains.running or ()) if remains is not None else ()
        verdicts = {}
        for position, (run, _) in enumerate(runs_of(flight.spec)):
            if position in flight.unwanted and position not in flight.returned:
                began = flight.began.get(run)
                told = _ENDED if began or position in ran else _NOT_STARTED
                verdicts[position] = Verdict(
                    outcome=Outcome.CANCELLED, message=told, began_at=began
                )
        self._land(flight, BatchEnded(substitute(flight.spec, verdicts), ()))

    def _on_thread(self, work: Callable[..., None], *arguments: object) -> None:
        """Do what takes a while, while the thread that asks for it tells of other batches."""
        run = functools.partial(work, *arguments)
        threading.Thread(target=run, name="raflow-inquest", daemon=True).start()

    def _look_after(self, flight: InFlight, loss: Loss, remains: Remains | None) -> None:
        """End what the calls of a dead process have left, then tell of its end, and why."""
        progress = self._tools.progress
        marks = self._marks(flight, None if remains is None else remains.running)
        asked: Traces | None = None
        if remains is not None or progress.is_all_here:
            with contextlib.suppress(OSError):
                end_marked(marks, since=flight.sent_at)
            if loss.outcome is Outcome.CANCELLED and remains is not None:
                # Until then Ray may give it the next batch, which would be taken for its victim.
                wait_until_gone(remains.pid, _GOING_SECONDS)
        elif self._tools.probe() is None:
            asked = progress.elsewhere(self._number, flight.spec.id, marks, flight.sent_at)
            remains = asked.remains
        unknown = remains is None and not flight.began
        if unknown and progress.was_not_taken_up(self._number, flight.spec.id, asked):
            # Ray gave it to a process that died before it could take it up.
            lost = BatchLost(flight.spec.id, loss.outcome, _NOT_TAKEN_UP, (), loss.cause)
            self._land(flight, lost)
            return
        node_id = flight.node_id or progress.node_id
        loss = explain(loss, remains, is_starved=progress.is_starved, node_id=node_id)
        running = None if remains is None else remains.running
        self.lose(flight, loss, (running or ()) if loss.outcome is Outcome.CANCELLED else running)

    def dead(self, flight: InFlight) -> None:
        """Take note that the process of a batch is gone, of which Ray has said nothing."""
        if give_up(flight, self._tools):
            self._process_died(flight, classify(WorkerCrashedError()))

    def silent(self, flight: InFlight, speaker: Speaker, seconds: float) -> None:
        """Take note that the process of a batch has said nothing for so long."""
        self._on_thread(self._give_up, flight, speaker, seconds)

    def _give_up(self, flight: InFlight, speaker: Speaker, seconds: float) -> None:
        """End a process that does not answer, unless it works where it cannot."""
        progress = self._tools.progress
        vitals = progress.vitals(speaker)
        if vitals is not None and vitals.is_busy:
            return  # a call into C that does not let other threads run
        if not stop_waiting(flight, self._tools):
            return  # it has spoken just now, and may run something else
        # In case it can hear, though not speak.
        self._tools.mailroom.kill(self._number, flight.spec.id)
        progress.put_down(speaker, self._marks(flight, None), flight.sent_at)
        cancel_by_ray(flight, self._tools)
        host, pid, node_id = speaker.host, speaker.process.pid, speaker.node_id
        cause = Cause(kind="no answer", host=host, pid=pid, node_id=node_id)
        loss = fell_silent(seconds, "" if vitals is None else vitals.state, cause)
        remains = progress.here(self._number, flight.spec.id)
        running = None if remains is None else remains.running
        self.lose(flight, loss, running or self._began(flight))

    def _began(self, flight: InFlight) -> list[int] | None:
        """Return the positions of the calls that were told of, and may still run."""
        runs = enumerate(runs_of(flight.spec))
        return [position for position, (run, _) in runs if run in flight.began] or None

    def _marks(self, flight: InFlight, running: Sequence[int] | None) -> set[str]:
        """Return the marks of what calls of a batch have started; of all calls if need be."""
        wanted = None if running is None else set(running)
        return {
            mark_of(self._flow_run_id, run, attempt)
            for position, (run, attempt) in enumerate(runs_of(flight.spec))
            if wanted is None or position in wanted
        }


def _was_unfit(loss: Loss) -> bool:
    """Tell whether the process ended itself, unless a call of the batch did that, as unfit."""
    return loss.cause is not None and loss.cause.exit_code == UNFIT


def _by_id(flight: InFlight, lost: str) -> set[object]:
    """Find an object that a batch needs by Ray's id."""
    return {handle for handle in handles_of(flight.spec) if _id_of(handle) == lost}


def _id_of(handle: Any) -> str:
    return str(handle.hex())


def end_by_ray(flight: InFlight, tools: Tools) -> None:
    """Have Ray drop a batch that waits, or kill the process that runs it.

    Always with force: without it Ray aborts this process if the task happens to end in that moment
    ("Tried to complete task that was not pending", Ray 2.60, within a second of trying).
    """
    if tools.tenures.hold(flight):
        cancel_by_ray(flight, tools)


def cancel_by_ray(flight: InFlight, tools: Tools) -> None:
    """Do so with a batch that nothing follows."""
    tenure = flight.tenure
    if tenure is not None and tools.probe() is None:
        with contextlib.suppress(Exception):  # it has ended just now
            ray.cancel(tenure.report, force=True)


def stop_waiting(flight: InFlight, tools: Tools) -> bool:
    """Do not ask Ray any more what becomes of a batch, and have nothing follow it.

    Returns:
        False if no process has it, or one that runs something else by now.
    """
    held = tools.tenures.hold(flight)
    if held and flight.tenure is not None:
        tools.poll.drop(flight.tenure)
    return held


def give_up(flight: InFlight, tools: Tools) -> bool:
    """Have Ray drop a batch, or kill the process that runs it, and do not ask what became of it.

    Returns:
        False if no process has it, or one that runs something else by now.
    """
    held = stop_waiting(flight, tools)
    if held:
        cancel_by_ray(flight, tools)
    return held
