"""From waiting to ready: what becomes of task runs as their sources end."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from raflow.engine import _codes as codes
from raflow.engine import _commands as commands
from raflow.engine._dispatch import Dispatch
from raflow.engine._events import CallMade, ItemsArrived
from raflow.engine._ledger import Ended, Ledger, News
from raflow.engine._recall import Recall
from raflow.engine._recompute import Recompute
from raflow.engine._release import Releases
from raflow.engine._rules import Upstream, Verdict, decide, trigger_rule
from raflow.engine._runs import EDGED, WANTED, WATCHED, Mapped, Runs, Waiting
from raflow.engine._teardown import setups_of, teardown_made
from raflow.engine._waiting import NoItems, failed_sources, map_length
from raflow.model import Edge, EdgeKind, NodeKind, TaskRunEvent, TriggerRule


class Judge:
    """Connects runs to what they wait for, and decides about them."""

    def __init__(
        self, ledger: Ledger, dispatch: Dispatch, releases: Releases, values: Recompute
    ) -> None:
        """Begin with nothing to decide."""
        self._ledger = ledger
        self._dispatch = dispatch
        self._releases = releases
        self._values = values
        self._recall = Recall(ledger)

    # A call is made -----------------------------------------------------------------------------

    def call_made(self, call: CallMade, at: float) -> None:
        """Take a call whose row is there."""
        if call.edges:
            self._releases.used(call.edges)
        if call.options.teardown:
            teardown_made(call, self._ledger)
        if call.kind is NodeKind.MAP:
            self._map_made(call, at)
            return
        ledger, node = self._ledger, call.node
        ledger.open_calls += 1
        if call.answers:
            self._recall.call(call, at)
            if codes.ENDS[ledger.calls.states[node]]:
                ledger.calls.marks[node] |= EDGED if call.edges else 0
                return
        if call.edges:
            ledger.calls.marks[node] |= EDGED
            waiting = ledger.waiting[node] = Waiting(total=len(call.edges))
            self._connect(call.edges, lambda _: waiting)
        self.consider(node, at, front=False)

    def _connect(self, edges: Sequence[Edge], waiting: Callable[[Edge], Waiting]) -> None:
        """Count sources that have ended, and wait for the rest."""
        ledger = self._ledger
        for edge in edges:
            end = ledger.end_of(edge)
            source = ledger.maps.get(edge.source)
            if end:
                ledger.count(waiting(edge), edge, end)
            if end in (codes.SUCCEEDED, codes.SKIPPED):
                continue
            if source is None:
                ledger.calls.waiters.setdefault(edge.source, []).append(edge)
                ledger.calls.marks[edge.source] |= WATCHED
            elif edge.source_item is None:
                source.whole.append(edge)
            else:
                source.waiters.setdefault(edge.source_item, []).append(edge)

    def _map_made(self, call: CallMade, at: float) -> None:
        ledger, node = self._ledger, call.node
        ledger.calls.states[node] = codes.MAPPED
        ledger.calls.calls[node] = None
        ledger.calls.unfinished -= 1
        ledger.open_maps += 1
        fed = [edge for edge in call.edges if edge.kind is EdgeKind.ITEM]
        sources = [(edge, ledger.maps[edge.source]) for edge in fed if edge.source in ledger.maps]
        mapped = ledger.maps[node] = Mapped(call, sources)
        for source in dict.fromkeys(source for _, source in sources):
            source.followers.append(mapped)
        others = [edge for edge in call.edges if edge not in [edge for edge, _ in sources]]
        for edge in others:
            self._waiting_of(mapped, edge).total += 1
        self._connect(others, lambda edge: self._waiting_of(mapped, edge))
        if call.streamed and not ledger.stops(node):
            mapped.expanded = mapped.grows = True
        elif call.streamed:
            ledger.give_up(mapped, TaskRunEvent.CANCELLED, at, ledger.stopping)
        elif not fed:
            self._expand(mapped, call.length or 0, at, front=False)
        else:
            for source_node in dict.fromkeys(edge.source for edge in fed):
                ledger.expecting.setdefault(source_node, []).append(mapped)
                ledger.calls.marks[source_node] |= WATCHED
            self._try_to_expand(mapped, at, front=False)
            if len(fed) == len(sources) == 1 and call.length is None and sources[0][1].grows:
                mapped.grows = not mapped.complete
                self._follow(sources[0][1], at)

    @staticmethod
    def _waiting_of(mapped: Mapped, edge: Edge) -> Waiting:
        if edge.target_item is None:
            return mapped.shared
        return mapped.special.setdefault(edge.target_item, Waiting())

    # The items of a map -------------------------------------------------------------------------

    def _try_to_expand(self, mapped: Mapped, at: float, *, front: bool) -> None:
        """Make the items of a map over task values, once it is known how many there are."""
        ledger = self._ledger
        if mapped.complete:
            return
        if ledger.stops(mapped.node):
            ledger.give_up(mapped, TaskRunEvent.CANCELLED, at, ledger.stopping)
            return
        length = map_length(mapped, ledger)
        if isinstance(length, NoItems):
            ledger.give_up(mapped, length.event, at, length.message)
        elif length is not None:
            self._expand(mapped, length, at, front=front)

    def _expand(self, mapped: Mapped, length: int, at: float, *, front: bool) -> None:
        before = mapped.length
        self._grow(mapped, length, at)
        self.complete(mapped)
        self.judge(mapped, before, length, at, front=front)

    def _grow(self, mapped: Mapped, length: int, at: float) -> None:
        """Give a map items, of which some may be known already."""
        before = mapped.length
        self._ledger.grow(mapped, length, at)
        if mapped.call.answers:
            self._recall.items(mapped, before, length, at)

    def complete(self, mapped: Mapped) -> None:
        """Note that a map has all its items."""
        mapped.complete = True
        ledger, node = self._ledger, mapped.node
        ledger.out.append(commands.MapExpanded(node=node, length=mapped.length))
        if node in ledger.expecting:
            ledger.news.append(mapped)
        ledger.close(mapped)

    def items_arrived(self, event: ItemsArrived) -> None:
        """Take more items of a streamed map."""
        ledger, at = self._ledger, event.at
        mapped = ledger.maps.get(event.node)
        if mapped is None or mapped.complete:
            return
        before = mapped.length
        self._grow(mapped, event.length, at)
        if event.error and not mapped.end(event.length - 1):
            ledger.finish(mapped, event.length - 1, TaskRunEvent.FAILED, at, event.error)
        self._follow(mapped, at)
        if event.complete or event.error:
            self.complete(mapped)
        self.judge(mapped, before, event.length, at, front=False)

    def _follow(self, source: Mapped, at: float) -> None:
        """Give maps over the items of one that grows the items that it has so far."""
        grown = [source]
        while grown:
            source = grown.pop()
            for mapped in source.followers:
                before = mapped.length
                if mapped.grows and not mapped.complete and before <= source.length:
                    self._grow(mapped, source.length, at)
                    self.judge(mapped, before, source.length, at, front=False)
                    grown.append(mapped)

    # Decisions ----------------------------------------------------------------------------------

    def consider(self, node: int, at: float, *, front: bool = True) -> None:
        """Decide about a single call that waits for its inputs."""
        ledger = self._ledger
        calls = ledger.calls
        if calls.states[node] != codes.PENDING:
            return
        call = calls.call(node)
        waiting = ledger.waiting.get(node)
        verdict = self._verdict(call, waiting)
        if verdict is Verdict.RUN:
            ledger.waiting.pop(node, None)
            if not self._conditions_end(calls, node, [waiting] if waiting else [], at):
                self._make_ready(call, at, front=front)
        elif verdict is not Verdict.WAIT:
            self._end(calls, node, verdict, call, at)

    def _verdict(self, call: CallMade, waiting: Upstream | None, item: int = -1) -> Verdict:
        ledger = self._ledger
        if (ledger.stopping and ledger.stops(call.node)) or not call.runnable:
            return Verdict.SKIP
        if waiting is None:
            return Verdict.RUN
        if call.options.teardown:
            return decide(trigger_rule(call.options), waiting, setups_of(call, item, ledger))
        return decide(call.options.trigger_rule, waiting)

    def _conditions_end(self, runs: Runs, index: int, asked: Sequence[Waiting], at: float) -> bool:
        """End a run whose `run_if` says so."""
        for waiting in asked:
            if waiting.odd:
                message = (
                    f"run_if needs a plain value, but that of {waiting.odd} is neither true nor "
                    "false. Return a bool from it."
                )
                self._ledger.finish(runs, index, TaskRunEvent.FAILED, at, message)
                return True
        for waiting in asked:
            if waiting.falsy:
                message = f"run_if: {waiting.falsy} is false"
                self._ledger.finish(runs, index, TaskRunEvent.SKIPPED, at, message)
                return True
        return False

    def _make_ready(self, call: CallMade, at: float, *, front: bool) -> None:
        node, ledger = call.node, self._ledger
        if call.kind is NodeKind.SUBFLOW:
            self._dispatch.gate.admit(ledger.calls, node, node + 1, at, front=front)
        else:
            self._dispatch.push(ledger.calls, node, node + 1, at, front=front)

    def _end(self, runs: Runs, index: int, verdict: Verdict, call: CallMade, at: float) -> None:
        """End a run that is not to run."""
        ledger = self._ledger
        if ledger.stops(call.node):
            ledger.finish(runs, index, TaskRunEvent.CANCELLED, at, ledger.stopping)
        elif not call.runnable:
            ledger.finish(runs, index, TaskRunEvent.SKIPPED, at, "run_if is false")
        elif verdict is Verdict.SKIP:
            rule = trigger_rule(call.options).value
            message = f"what it needs ended so that the trigger rule {rule!r} skips it"
            ledger.finish(runs, index, TaskRunEvent.SKIPPED, at, message)
        else:
            mapped = runs if isinstance(runs, Mapped) else None
            edges = [edge for edge in call.edges if edge.source in call.teardown_of] or call.edges
            message = failed_sources(edges, mapped, index if mapped else -1, ledger)
            ledger.finish(runs, index, TaskRunEvent.UPSTREAM_FAILED, at, message)

    def judge(
        self, mapped: Mapped, start: int, stop: int, at: float, *, front: bool = True
    ) -> None:
        """Decide about items of a map that wait."""
        stop = min(stop, mapped.length)
        call, shared = mapped.call, mapped.shared
        plain = trigger_rule(call.options) is TriggerRule.ALL_SUCCESS and not mapped.special
        sound = not (shared.failed or shared.skipped or shared.falsy or shared.odd)
        if not (plain and sound and call.runnable) or self._ledger.stopping:
            for item in codes.marked(mapped.states[start:stop].translate(codes.IS_PENDING)):
                self._consider_item(mapped, start + item, at, front=front)
        elif shared.all_done:
            self._judge_plainly(mapped, start, stop, at, front=front)

    def _judge_plainly(
        self, mapped: Mapped, start: int, stop: int, at: float, *, front: bool
    ) -> None:
        """Decide about items that need nothing but the success of their own sources."""
        waiting = bytes(mapped.states[start:stop].translate(codes.IS_PENDING))
        ready = waiting
        for _, source in mapped.sources:
            states = source.states[start:stop]
            decided = codes.both(waiting, states.translate(codes.IS_DECIDED))
            for item in codes.marked(decided):
                self._consider_item(mapped, start + item, at, front=front)
            ready = codes.both(ready, states.translate(codes.IS_SUCCEEDED))
        for first, last in codes.stretches(ready):
            runs = mapped.states[start + first : start + last]
            if runs.count(codes.PENDING) == last - first:
                self._dispatch.push(mapped, start + first, start + last, at, front=front)

    def _consider_item(self, mapped: Mapped, item: int, at: float, *, front: bool) -> None:
        if mapped.states[item] != codes.PENDING:
            return
        special = mapped.special.get(item)
        asked = [mapped.shared] if special is None else [mapped.shared, special]
        verdict = self._verdict(mapped.call, self._upstream(mapped, item, asked), item)
        if verdict is Verdict.RUN:
            if not self._conditions_end(mapped, item, asked, at):
                self._dispatch.push(mapped, item, item + 1, at, front=front)
        elif verdict is not Verdict.WAIT:
            self._end(mapped, item, verdict, mapped.call, at)

    def _upstream(self, mapped: Mapped, item: int, counted: Sequence[Waiting]) -> Upstream:
        """Count what one item waits for."""
        upstream = Upstream()
        for waiting in counted:
            upstream.add(waiting)
        for edge, source in mapped.sources:
            upstream.total += 1
            end = source.end(item)
            if edge.allow_failure and end == codes.FAILED:
                end = codes.SUCCEEDED
            upstream.succeeded += end == codes.SUCCEEDED
            upstream.failed += end == codes.FAILED
            upstream.skipped += end == codes.SKIPPED
        return upstream

    # What has ended -----------------------------------------------------------------------------

    def tell(self, news: News, at: float) -> None:
        """Tell those who wait for something that has ended, or whose length is known now."""
        if isinstance(news, Mapped):
            self._map_news(news, at)
        elif isinstance(news.runs, Mapped):
            self._items_ended(news.runs, news, at)
        else:
            self._calls_ended(news, at)

    def _calls_ended(self, news: Ended, at: float) -> None:
        calls, start, stop = self._ledger.calls, news.start, news.stop
        if any(calls.marks[start:stop]):
            for node in range(start, stop):
                if calls.marks[node]:
                    self._call_ended(node, at)
        self._releases.calls_are_final(start, stop)
        calls.calls[start:stop] = [None] * (stop - start)

    def _call_ended(self, node: int, at: float) -> None:
        ledger, calls = self._ledger, self._ledger.calls
        for mapped in ledger.expecting.pop(node, ()):
            self._try_to_expand(mapped, at, front=True)
        self._told(calls, node, at)
        marks, calls.marks[node] = calls.marks[node], 0
        if marks & EDGED:
            self._releases.user_is_final(calls.call(node).edges)
        if marks & WANTED:
            self._values.ended(calls, node, at)

    def _told(self, runs: Runs, index: int, at: float) -> None:
        failed = runs.end(index) == codes.FAILED
        edges = runs.waiters.get(index, ()) if failed else runs.waiters.pop(index, ())
        for edge in tuple(edges):
            self._count(edge, at)

    def _items_ended(self, mapped: Mapped, news: Ended, at: float) -> None:
        if mapped.waiters:
            for item in sorted(mapped.waiters.keys() & range(news.start, news.stop)):
                self._told(mapped, item, at)
        for follower in mapped.followers:
            if follower.expanded:
                self.judge(follower, news.start, news.stop, at)
        self._releases.items_are_final(mapped, news.start, news.stop)
        if mapped.wanted:
            for item in sorted(mapped.wanted & set(range(news.start, news.stop))):
                self._values.ended(mapped, item, at)

    def _map_news(self, mapped: Mapped, at: float) -> None:
        ledger, node = self._ledger, mapped.node
        for waiting in ledger.expecting.pop(node, ()):
            self._try_to_expand(waiting, at, front=True)
        told = mapped.told
        if not mapped.closed or (told and not mapped.reopened):
            return
        # Of a map that was told before, some items have run again, and others came to wait.
        mapped.told, mapped.reopened = True, False
        fresh, mapped.counted = mapped.whole[mapped.counted :], len(mapped.whole)
        for edge in fresh:
            self._count(edge, at)
        for item in [item for item in mapped.waiters if item >= mapped.length and not told]:
            for edge in mapped.waiters[item]:
                self._count(edge, at)
        self._releases.map_is_final(mapped)
        if ledger.calls.marks[node] & WANTED:
            self._values.ended(ledger.calls, node, at)

    def _count(self, edge: Edge, at: float) -> None:
        """Count a source that has ended, and decide again."""
        ledger = self._ledger
        end = ledger.end_of(edge)
        mapped = ledger.maps.get(edge.target)
        if mapped is not None:
            ledger.count(self._waiting_of(mapped, edge), edge, end)
            if mapped.expanded and not mapped.given_up:
                item = edge.target_item
                start, stop = (0, mapped.length) if item is None else (item, item + 1)
                self.judge(mapped, start, stop, at)
        elif edge.target in ledger.waiting:
            ledger.count(ledger.waiting[edge.target], edge, end)
            self.consider(edge.target, at)
