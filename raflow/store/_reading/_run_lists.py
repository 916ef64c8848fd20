"""Lists of flow runs, page by page, and how many there are."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import orjson
import sqlalchemy as sa

from raflow import errors, model
from raflow.store._record import _tallies
from raflow.store._rows import _service_tables, _tables, _values

if TYPE_CHECKING:
    from raflow.store._database._engine import Database

MOST: Final = 200
"""Flow runs on a page."""

_runs = _tables.flow_runs
_tags = _service_tables.run_tags
_tagged = _tags.alias("tagged")
_kept = _service_tables.run_tallies
_COLUMNS: Final = (
    *(_runs.c.id, _runs.c.flow, _runs.c.name),
    *(_runs.c.state, _runs.c.state_at, _runs.c.state_message, _runs.c.state_reason),
    *(_runs.c.created_at, _runs.c.started_at, _runs.c.ended_at, _runs.c.begins_at),
    *(_runs.c.trigger, _runs.c.tags, _runs.c.deployment, _runs.c.deployment_version, _runs.c.pool),
    *(_runs.c.parent_id, _runs.c.schedule_id, _runs.c.slot),
    *(_runs.c.error_type, _runs.c.error_message),
)
"""What lists show; not the parameters, the values and the errors, which may be large."""
_OVER: Final = frozenset(name for name in model.StateName if name.type.is_final)


class Runs:
    """Flow runs as lists show them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def page(
        self,
        which: model.RunFilter | None = None,
        *,
        sort: model.Sort = model.Sort.NEWEST,
        cursor: str = "",
        limit: int = 50,
        seconds: float | None = None,
    ) -> model.Page[model.RunSummary]:
        """Return a page of flow runs.

        Flow runs that are made meanwhile do not move those of later pages.

        Args:
            which: Which flow runs. Default: all.
            sort: In which order. Default: newest first.
            cursor: That of the page before. Default: the first page.
            limit: At most so many, 1 to 200. Default: 50.
            seconds: How long the database may take over it. Default: as long as it takes.

        Raises:
            TooSlowError: It took longer.
            CursorError: The cursor is that of a list with another filter or order.
            ConfigError: The limit is too small or too large.
        """
        wanted = which or model.RunFilter()
        if not 1 <= limit <= MOST:
            raise errors.ConfigError(f"A page has 1 to {MOST} flow runs, not {limit}.")
        mark = _mark(wanted, sort)
        after = _read_cursor(cursor, mark) if cursor else None
        # One more than asked for tells whether there is another page.
        rows = self._database.read(
            lambda c: c.execute(_page(c.dialect.name, wanted, sort, after, limit + 1)).all(),
            seconds=seconds,
        )
        items = tuple(_summary(row) for row in rows[:limit])
        more = len(rows) > limit
        last = items[-1] if more else None
        return model.Page(items=items, next_cursor=_cursor(last, mark) if last else "")

    def count(
        self,
        which: model.RunFilter | None = None,
        *,
        most: int = 10_000,
        seconds: float | None = None,
    ) -> model.Count:
        """Return how many flow runs there are.

        Args:
            which: Which flow runs. Default: all.
            most: Where counting one by one stops. Flow, deployment, states and whole hours are
                counted beforehand, however many there are.
            seconds: How long the database may take over it. Default: as long as it takes.

        Raises:
            TooSlowError: It took longer.
        """
        wanted = which or model.RunFilter()
        kept = self.counts(wanted)
        if kept is not None:
            return model.Count(sum(kept.values()), exact=True)
        n = self._database.read(lambda c: _count(c, wanted, most + 1), seconds=seconds)
        return model.Count(min(n, most), exact=n <= most)

    def counts(self, which: model.RunFilter | None = None) -> dict[model.StateName, int] | None:
        """Return how many flow runs are in which state, whatever their number.

        Args:
            which: Which flow runs, by nothing but flow, deployment, states and whole hours.
                Default: all.

        Returns:
            The numbers by state, without zeros; None if the filter names anything else.
        """
        wanted = which or model.RunFilter()
        if not _is_kept(wanted):
            return None
        found = self._database.read(lambda c: _kept_counts(c, wanted))
        return {model.StateName(state): n for state, n, _ in found if n}

    def by_hour(
        self, which: model.RunFilter | None = None
    ) -> dict[int, dict[model.StateName, int]] | None:
        """Return what `counts` does, by the hour in which the flow runs were made.

        The keys are whole hours since the Unix epoch.
        """
        wanted = which or model.RunFilter()
        if not _is_kept(wanted):
            return None
        counts: dict[int, dict[model.StateName, int]] = defaultdict(dict)
        for state, n, at in self._database.read(lambda c: _kept_counts(c, wanted, by_hour=True)):
            if n:
                counts[at][model.StateName(state)] = n
        return dict(counts)

    def recount(self, *, since: float = 0.0) -> int:
        """Count the flow runs that are over anew.

        Args:
            since: Only those made in the hour of this time or later. Default: all.

        Returns:
            In how many places the count was wrong.
        """
        return self._database.write(lambda c: _recount(c, int(since // _tallies.SECONDS)))


def _summary(row: sa.Row[Any]) -> model.RunSummary:
    return model.RunSummary(
        id=row.id,
        flow=row.flow,
        name=row.name,
        state=_values.read_state(row.state, row.state_at, row.state_message, row.state_reason),
        created_at=row.created_at,
        started_at=row.started_at,
        ended_at=row.ended_at,
        begins_at=row.begins_at,
        trigger=model.Trigger(row.trigger),
        tags=tuple(_values.from_json(row.tags)),
        deployment=row.deployment,
        version=row.deployment_version,
        pool=row.pool,
        parent_id=row.parent_id,
        schedule_id=row.schedule_id,
        slot=row.slot,
        error_type=row.error_type,
        error_message=row.error_message,
    )


# --- Pages ----------------------------------------------------------------------------------------


def _page(
    dialect: str,
    which: model.RunFilter,
    sort: model.Sort,
    after: tuple[float, str] | None,
    limit: int,
) -> sa.Select[Any] | sa.CompoundSelect[Any]:
    newest = sort is model.Sort.NEWEST
    query = sa.select(*_COLUMNS).where(*_conditions(dialect, which, ranges=False))
    made = _runs.c.created_at
    if which.tags:
        query = _of_tagged(query, which)
        made = _tagged.c.created_at
    key = (made, _runs.c.id)
    if after is not None:
        behind = sa.tuple_(*key) < after if newest else sa.tuple_(*key) > after
        # Said again, as an index knows only this of the two.
        query = query.where(behind, made <= after[0] if newest else made >= after[0])
    query = query.order_by(*(column.desc() if newest else column for column in key)).limit(limit)
    ranges = _ranges(which)
    if len(ranges) == 1:
        return query.where(*ranges[0])
    # Each of them is a range of an index in this order; all of them together are not.
    parts = [sa.select(query.where(*one).subquery()) for one in ranges]
    merged = sa.union_all(*parts)
    columns = (merged.selected_columns["created_at"], merged.selected_columns["id"])
    return merged.order_by(*(c.desc() if newest else c for c in columns)).limit(limit)


def _of_tagged(query: sa.Select[Any], which: model.RunFilter) -> sa.Select[Any]:
    # Those with a tag are few: in their own order, not looked up for each run there is.
    tag = _values.text(min(which.tags))
    having = sa.and_(_tagged.c.flow_run == _runs.c.number, _tagged.c.tag == tag)
    return query.join_from(_tagged, _runs, having)


def _ranges(which: model.RunFilter) -> list[list[sa.ColumnElement[bool]]]:
    """Return conditions of which each flow run fulfils one: the states, or else the triggers."""
    triggers, states = sorted(which.triggers), sorted(which.states)
    if states:
        triggered = [_runs.c.trigger.in_(triggers)] if triggers else []
        return [[_runs.c.state == state.value, *triggered] for state in states]
    return [[_runs.c.trigger == trigger.value] for trigger in triggers] or [[]]


def _count(connection: sa.Connection, which: model.RunFilter, most: int) -> int:
    """Count flow runs one by one, up to a number."""
    if len(which.tags) == 1 and which == model.RunFilter(tags=which.tags):
        found = sa.select(_tags.c.flow_run).where(_tags.c.tag == _values.text(*which.tags))
    else:
        found = sa.select(_runs.c.number).where(*_conditions(connection.dialect.name, which))
        found = _of_tagged(found, which) if which.tags else found
    some = found.limit(most).subquery()
    return connection.execute(sa.select(sa.func.count()).select_from(some)).scalar_one()


def _conditions(
    dialect: str, which: model.RunFilter, *, ranges: bool = True
) -> list[sa.ColumnElement[bool]]:
    exact = {
        _runs.c.flow: which.flow,
        _runs.c.deployment: which.deployment,
        _runs.c.pool: which.pool,
        _runs.c.schedule_id: which.schedule_id,
        _runs.c.backfill_id: which.backfill_id,
        _runs.c.parent_id: which.parent,
    }
    conditions = [column == value for column, value in exact.items() if value is not None]
    if ranges and which.states:
        conditions.append(_runs.c.state.in_(sorted(state.value for state in which.states)))
    if ranges and which.triggers:
        conditions.append(_runs.c.trigger.in_(sorted(which.triggers)))
    if which.since is not None:
        conditions.append(_runs.c.created_at >= which.since)
    if which.until is not None:
        conditions.append(_runs.c.created_at < which.until)
    if which.roots:
        conditions.append(_is_root(dialect))
    if which.name:
        conditions.append(_begins(dialect, _values.text(which.name)))
    if which.name_contains:
        # Not LIKE: SQLite's ignores case and PostgreSQL's does not.
        without = sa.func.replace(_runs.c.name, _values.text(which.name_contains), "")
        conditions.append(without != _runs.c.name)
    conditions.extend(_has_tag(_values.text(tag)) for tag in sorted(which.tags))
    return conditions


def _is_root(dialect: str) -> sa.ColumnElement[bool]:
    if dialect == "sqlite":
        # By its index on this column it would find nearly all, and sort them for each page.
        return sa.func.ifnull(_runs.c.parent_id, "") == ""
    return _runs.c.parent_id.is_(None)


def _begins(dialect: str, text: str) -> sa.ColumnElement[bool]:
    """Return the condition that a name begins like this, as an index finds it."""
    if dialect == "sqlite":
        # LIKE would ignore case, and find nothing by the index.
        return sa.and_(_runs.c.name >= text, _runs.c.name < text + _LAST)
    return _runs.c.name.startswith(text, autoescape=True)


_LAST: Final = chr(0x10FFFF)


def _has_tag(tag: str) -> sa.ColumnElement[bool]:
    # Its whole key, so that either side may be looked up by the other.
    found = sa.select(_tags.c.flow_run).where(
        _tags.c.tag == tag,
        _tags.c.created_at == _runs.c.created_at,
        _tags.c.flow_run == _runs.c.number,
    )
    return found.exists()


def _mark(which: model.RunFilter, sort: model.Sort) -> str:
    """Return what tells a list from others."""
    parts = [
        [name, sorted(value) if isinstance(value, frozenset) else value]
        for name in which.__slots__
        if (value := getattr(which, name)) or value == 0.0
    ]
    return hashlib.sha256(orjson.dumps([sort, parts])).hexdigest()[:16]


def _cursor(last: model.RunSummary, mark: str) -> str:
    told = orjson.dumps([mark, last.created_at, last.id])
    return base64.urlsafe_b64encode(told).decode().rstrip("=")


def _read_cursor(cursor: str, mark: str) -> tuple[float, str]:
    try:
        told = orjson.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        of, created_at, run_id = told
        if of == mark:
            return float(created_at), _values.text(str(run_id))
    except (ValueError, TypeError, binascii.Error) as error:
        raise errors.CursorError(_BAD_CURSOR.format(cursor)) from error
    raise errors.CursorError(_BAD_CURSOR.format(cursor))


_BAD_CURSOR: Final = (
    "The cursor {!r} is not one of this list: it holds for the filter and the order of the page "
    "that it came with. Begin with the first page."
)


# --- Counts ---------------------------------------------------------------------------------------


def _is_kept(which: model.RunFilter) -> bool:
    """Whether it asks for nothing but what is counted beforehand."""
    of_keys = model.RunFilter(
        flow=which.flow,
        deployment=which.deployment,
        states=which.states,
        since=which.since,
        until=which.until,
    )
    times = (which.since or 0.0, which.until or 0.0)
    return which == of_keys and all(at % _tallies.SECONDS == 0 for at in times)


def _kept_counts(
    connection: sa.Connection, which: model.RunFilter, *, by_hour: bool = False
) -> list[tuple[str, int, int]]:
    """Return states, how many flow runs are in them, and in which hour they were made."""
    states = which.states or frozenset(model.StateName)
    since, until = (
        None if at is None else int(at // _tallies.SECONDS) for at in (which.since, which.until)
    )
    hours = _kept.c.hour, _tallies.hour_of(connection, _runs.c.created_at)
    at_kept, at_run = hours if by_hour else (sa.literal_column("0"), sa.literal_column("0"))
    over = sa.select(_kept.c.state, sa.func.sum(_kept.c.n).label("n"), at_kept.label("at"))
    over = over.where(_kept.c.state.in_(sorted(states & _OVER)))
    for column, value in ((_kept.c.flow, which.flow), (_kept.c.deployment, which.deployment)):
        if value is not None:
            over = over.where(column == value)
    if by_hour:
        over = over.where(_tallies.is_hour(_kept.c.hour))
        over = over if since is None else over.where(_kept.c.hour >= since)
        over = over if until is None else over.where(_kept.c.hour < until)
    else:
        over = over.where(_tallies.within(_kept.c.hour, since, until))
    others = sa.select(_runs.c.state, sa.func.count().label("n"), at_run.label("at"))
    others = others.where(*_conditions(connection.dialect.name, which, ranges=False))
    others = others.where(_runs.c.state.in_(sorted(states - _OVER)))
    # One statement, so that a run that ends meanwhile counts once.
    both = sa.union_all(*(query.group_by(sa.text("1"), sa.text("3")) for query in (over, others)))
    total: Counter[tuple[str, int]] = Counter()
    for state, n, at in connection.execute(both):
        total[state, at] += int(n)
    return [(state, n, at) for (state, at), n in total.items()]


_KEY: Final = (_kept.c.hour, _kept.c.flow, _kept.c.deployment, _kept.c.state)


def _recount(connection: sa.Connection, since: int) -> int:
    if connection.dialect.name == "postgresql":
        # Whoever has counted is waited for, and whoever has yet to count waits.
        connection.execute(sa.text("LOCK TABLE run_tallies IN SHARE ROW EXCLUSIVE MODE"))
    total = sa.select(*_KEY, sa.func.sum(_kept.c.n)).group_by(*_KEY)
    total = total.where(sa.or_(_kept.c.hour >= since, ~_tallies.is_hour(_kept.c.hour)))
    before = {tuple(row[:4]): int(row[4]) for row in connection.execute(total) if row[4]}
    _count_anew(connection, since)
    after = {tuple(row[:4]): int(row[4]) for row in connection.execute(total)}
    return sum(before.get(key) != after.get(key) for key in _keys(before, after))


def _count_anew(connection: sa.Connection, since: int) -> None:
    hour = _tallies.hour_of(connection, _runs.c.created_at)
    deployment = sa.func.coalesce(_runs.c.deployment, "")
    rows = sa.select(
        hour, _runs.c.flow, deployment, _runs.c.state, sa.literal_column("0"), sa.func.count()
    )
    rows = rows.where(_runs.c.state.in_(sorted(_OVER)))
    rows = rows.where(_runs.c.created_at >= float(since * _tallies.SECONDS))
    rows = rows.group_by(sa.text("1"), _runs.c.flow, sa.text("3"), _runs.c.state)
    together = ~_tallies.is_hour(_kept.c.hour)
    connection.execute(sa.delete(_kept).where(sa.or_(_kept.c.hour >= since, together)))
    connection.execute(sa.insert(_kept).from_select([c.name for c in _kept.c], rows))
    _tallies.fill_together(connection)


def _keys(*counts: Mapping[tuple[Any, ...], int]) -> set[tuple[Any, ...]]:
    return {key for some in counts for key in some}
