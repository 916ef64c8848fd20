"""Which calls of a rerun take their values from the run that it repeats."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from raflow import errors
from raflow.model import Edge, EdgeKind, FlowRun, GraphNode, NodeKind, StateType
from raflow.runtime.calls import CallEntry
from raflow.runtime.recall._recall import NOTHING, Known, Piece, Recall, completed, wirings

if TYPE_CHECKING:
    from raflow.runtime._ports import RunStore

_TAKEN_FROM: Final = frozenset({EdgeKind.DATA, EdgeKind.ITEM, EdgeKind.CONDITION})


class Trust(NamedTuple):
    """What the values of an earlier run are worth to a later one."""

    in_place: bool = False
    """Calls are the same only in the same place: it is a run that goes on with changed code."""
    same_code: bool = True
    """Its code is that of today. If not, that of each call is compared."""
    same_parameters: bool = True
    """Its parameters are those of today. If not, calls whose arguments are not known run again."""


FULL_TRUST: Final = Trust()


class _Old(NamedTuple):
    """A call of the earlier run, as far as it is reused."""

    node: int
    pieces: Sequence[Piece]
    whole: bool
    """Every run of it is reused."""
    same_code: bool


class Reuse:
    """Finds the calls of an earlier run that a body makes again.

    A call is the same if it has the same key (the name and the count of the task), gets the values
    of the same calls, and the same arguments. Its runs that have completed are reused if all that
    they take values from is reused, too; whatever is new or different just runs.
    """

    def __init__(
        self,
        recall: Recall,
        run: FlowRun,
        again: Iterable[int] = (),
        trust: Trust = FULL_TRUST,
        names: tuple[str, ...] = (),
    ) -> None:
        """Reuse what is on record of a run.

        Args:
            recall: The record.
            run: Whose record it is.
            again: The calls that run again in any case.
            trust: What may have changed since.
            names: How people have named what runs again.
        """
        self.run = run
        self.names = names
        named = "" if run.short_name == run.name else f" ({run.short_name})"
        self.origin = f"reused from {run.name}{named}"
        """What is said of each value."""
        self._again = frozenset(again)
        self._trust = trust
        self._recall = recall
        self._first = min(self._again, default=len(recall.nodes))
        self._by_key = {node.key: node for node in recall.nodes}
        self._same: dict[int, int] = {}
        """The calls made so far that were made before, and which they were."""
        self._old: dict[int, _Old] = {}

    @property
    def is_done(self) -> bool:
        """Whether the run that is reused completed, and so did all that it has called."""
        rows = self._recall.rows
        return self.run.state.type is StateType.COMPLETED and not any(
            row.state.type in {StateType.FAILED, StateType.CRASHED, StateType.CANCELLED}
            for row in rows
        )

    def anew(self) -> Reuse:
        """Return the same for a body that begins again."""
        return Reuse(self._recall, self.run, self._again, self._trust, self.names)

    def takes(self, node: int) -> bool:  # noqa: ARG002 - here it is any
        """Whether what is known of a call is to be recorded."""
        return True

    def check(self, node: int, call: CallEntry) -> None:
        """Take a call of the body, and decide whether it has to run."""
        before = self._by_key.get(call.key)
        if before is None or not self._is_same(before, node, call):
            return
        self._same[node] = before.id
        if before.id in self._again or (call.request.options.teardown and not self._trust.in_place):
            return
        pieces: Sequence[Piece] | None = self._recall.pieces(before.id)
        if not self._same_code(before, call):
            pieces = ()
        elif not self._is_sacred(call):
            pieces = self._left(call.edges, pieces or ())
        if pieces is not None:
            length = before.length if before.kind is NodeKind.MAP else 1
            count = sum(piece.stop - piece.start for piece in pieces)
            self._old[node] = _Old(
                before.id, pieces, count == length, self._same_code(before, call)
            )

    def known(self, node: int) -> Known:
        """Return what is reused of the runs of a call."""
        old = self._old.get(node)
        if old is None or not old.pieces:
            return NOTHING
        return completed(piece._replace(attempts=0) for piece in old.pieces)

    def child(self, node: int) -> FlowRun | None:
        """Return the run of a subflow call that has to run, but of which parts may be reused."""
        return self._recall.child(self._old[node].node) if node in self._old else None

    def below(self, recall: Recall, run: FlowRun) -> Reuse:
        """Return what is reused of the run of a subflow."""
        return Reuse(recall, run, trust=self._trust)

    def is_of_the_same_code(self, node: int) -> bool:
        """Whether the code of a call that is reused is the same as before."""
        return self._old[node].same_code

    def reuses_all(self, node: int) -> bool:
        """Whether all that has completed of a call is reused."""
        old = self._old.get(node)
        return old is not None and list(old.pieces) == list(self._recall.pieces(old.node))

    def _is_same(self, before: GraphNode, node: int, call: CallEntry) -> bool:
        if self._trust.in_place and before.id != node:
            return False
        if before.kind is not call.request.kind or before.name != call.request.target.name:
            return False
        if call.items is not None and call.items.length not in (None, before.length):
            return False
        if self._is_sacred(call):
            return True
        # A subflow that has not completed goes on, and looks at its calls one by one.
        open_ended = before.kind is NodeKind.SUBFLOW and not self._recall.pieces(before.id)
        same_code = open_ended or self._same_code(before, call)
        return same_code and self._same_inputs(before, call)

    def _is_sacred(self, call: CallEntry) -> bool:
        """Whether a call must not be made twice in the same run, whatever has changed."""
        return self._trust.in_place and call.request.options.at_most_once

    def _same_code(self, before: GraphNode, call: CallEntry) -> bool:
        if self._trust.same_code or self._is_sacred(call):
            return True
        return before.code == call.code != ""

    def _same_inputs(self, before: GraphNode, call: CallEntry) -> bool:
        if None in (before.inputs, call.inputs):
            # What the body made of a value that is made anew may be another.
            equal = self._trust.same_code and self._trust.same_parameters
            equal = equal and before.id < self._first
        else:
            equal = before.inputs == call.inputs
        if not equal or any(edge.source not in self._same for edge in call.edges):
            return False
        edges = [edge._replace(source=self._same[edge.source]) for edge in call.edges]
        return wirings(edges) == wirings(self._recall.edges(before.id))

    def _left(self, edges: Iterable[Edge], pieces: Sequence[Piece]) -> Sequence[Piece] | None:
        """Return those of the pieces whose sources are all reused; None if it is to be none."""
        for edge in edges:
            if edge.kind not in _TAKEN_FROM:
                continue
            source = self._old.get(edge.source)
            if source is None:
                return None
            if source.whole:
                continue
            if edge.kind is EdgeKind.ITEM and source.pieces and source.pieces[0].start >= 0:
                pieces = _in_common(pieces, source.pieces)
            elif not _has(source.pieces, edge.source_item):
                if edge.target_item is None:
                    return None
                item = edge.target_item
                pieces = [*_cut(pieces, 0, item), *_cut(pieces, item + 1, None)]
        return pieces


class RerunRecall:
    """What a rerun that goes on knows: its own past, and beyond that what it would have reused."""

    def __init__(self, own: Recall, reuse: Reuse) -> None:
        """Begin with the past of the run, and with what it takes from the one that it repeats."""
        self.origin = reuse.origin
        self._own = own
        self._reuse = reuse
        self._taken: set[int] = set()

    def check(self, node: int, call: CallEntry) -> None:
        """Refuse a call that is not the one that was here before; see `Recall` and `Reuse`."""
        self._own.check(node, call)
        self._reuse.check(node, call)

    def takes(self, node: int) -> bool:
        """Whether what is known of a call is from the other run, and to be recorded."""
        return node in self._taken

    def known(self, node: int) -> Known:
        """Return what is known of the runs of a call."""
        own = self._own.known(node)
        if own.answers:
            return own
        self._taken.add(node)
        return self._reuse.known(node)


class ChangedRecall(Recall):
    """The past of a flow run that goes on with other code than it began with.

    What was the same call in the same place is answered from the record. Any other call runs, and
    what is on record of the one that was in its place is dropped.
    """

    def __init__(self, store: RunStore, run: FlowRun) -> None:
        """Read it; see `Recall`."""
        super().__init__(store, run.id)
        trust = Trust(in_place=True, same_code=False)
        self._reuse = Reuse(self, run, trust=trust)

    def check(self, node: int, call: CallEntry) -> None:
        """Decide whether it is the call that was here before."""
        self._reuse.check(node, call)

    def knows(self, node: int) -> bool:
        """Whether the body made the same call before, of the same code."""
        return self._reuse.reuses_all(node) and self._reuse.is_of_the_same_code(node)

    def has_other(self, node: int) -> bool:
        """See `Recall`."""
        return node < len(self.nodes) and not self._reuse.reuses_all(node)

    def known(self, node: int) -> Known:
        """Return what is on record of the runs of a call."""
        return super().known(node) if self._reuse.reuses_all(node) else NOTHING

    def child(self, node: int) -> FlowRun | None:
        """Return the flow run that stands for a subflow call that has not completed."""
        return super().child(node) if self._reuse.reuses_all(node) else None


def to_run_again(recall: Recall, run: FlowRun, names: Sequence[str]) -> frozenset[int]:
    """Return the calls that these names mean, and all that depends on them.

    Args:
        recall: The record of the run.
        run: The run, for errors.
        names: Names of tasks and subflows, keys of calls, and names of task runs.

    Raises:
        NotFoundError: The run has no such call; lists what is like it.
    """
    again: set[int] = set()
    for name in names:
        meant = {node.id for node in recall.nodes if name in (node.name, node.key)}
        meant |= {row.key.node for row in recall.rows if row.label == name}
        meant |= {node.id for node in recall.nodes if name.startswith(f"{node.key}[")}
        if not meant:
            known = dict.fromkeys(n for node in recall.nodes for n in (node.name, node.key))
            hint = (
                f"Name a task of flow run {run.name!r}, or a call of it as `raflow runs show` "
                "lists them."
            )
            raise errors.NotFoundError.of("task or call", name, known, hint)
        again |= meant
    for node in recall.nodes:  # a source is called before whatever depends on it
        if any(edge.source in again for edge in recall.edges(node.id)):
            again.add(node.id)
    return frozenset(again)


def _has(pieces: Iterable[Piece], item: int | None) -> bool:
    return item is not None and any(piece.start <= item < piece.stop for piece in pieces)


def _in_common(pieces: Iterable[Piece], others: Iterable[Piece]) -> list[Piece]:
    others = list(others)
    found: list[Piece] = []
    for other in others:
        found += _cut(pieces, other.start, other.stop)
    return sorted(found, key=lambda piece: piece.start)


def _cut(pieces: Iterable[Piece], start: int, stop: int | None) -> list[Piece]:
    """Return what of the pieces is from one item to another."""
    found: list[Piece] = []
    for piece in pieces:
        first, last = max(piece.start, start), piece.stop if stop is None else min(piece.stop, stop)
        if first < last:
            found.append(piece.part(first, last))
    return found
