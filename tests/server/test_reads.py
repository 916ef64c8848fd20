"""What is on record, over HTTP: the same as the store says, in each kind of database."""

from __future__ import annotations

from typing import Any

from raflow.model import (
    Attempt,
    Chunk,
    Edge,
    ErrorInfo,
    GraphRecord,
    Limit,
    LogLine,
    LogSegment,
    Outcome,
    ResultInfo,
    SlotRequest,
    StateName,
    TaskRunKey,
    encode_log,
)
from tests.server.conftest import Served, record
from tests.store.records import block, flow_version, mapped, node, state_change, task_run

RUN = "0198c1f2-run"


def log(served: Served, number: int, lines: list[LogLine], key: TaskRunKey | None = None) -> Any:
    blob = encode_log(lines)
    file, offset = served.store.append_log(RUN, blob)
    return LogSegment(
        flow_run_id=RUN,
        number=number,
        key=key,
        attempt=0 if key is None else 1,
        file=file,
        offset=offset,
        length=len(blob),
        lines=len(lines),
        first_at=lines[0].at,
        last_at=lines[-1].at,
        level=max(line.level for line in lines),
    )


def etl(served: Served) -> None:
    """Record a run with a call that failed, and a map of three items."""
    failed = Attempt(
        flow_run_id=RUN,
        key=TaskRunKey(0),
        number=1,
        outcome=Outcome.FAILED,
        submitted_at=1.0,
        started_at=2.0,
        ended_at=3.0,
        error=ErrorInfo(type="builtins.ValueError", message="no", traceback="Traceback ..."),
    )
    kept = ResultInfo(
        type="builtins.dict", size=9, preview="{...}", serializer="json", inline=b'{"a": [1]}'
    )
    record(
        served.store,
        RUN,
        flow_version(),
        node(0),
        mapped(1, 3),
        GraphRecord(flow_run_id=RUN, edges=(Edge(source=0, target=1, parameter="x"),)),
        task_run(0, state_name=StateName.FAILED, result=kept),
        failed,
        block(0, Chunk(1, 0, 2)),
        state_change(0, None, StateName.RUNNING),
        state_change(1, TaskRunKey(0), StateName.FAILED),
    )


def test_a_run_and_what_is_inside_it(served: Served) -> None:
    etl(served)
    run = served.get(f"/runs/{RUN}")
    assert (run["flow"], run["state"]["name"], run["created_at"]) == (
        "etl",
        "Running",
        "1970-01-01T00:00:01Z",
    )
    first = served.get(f"/runs/{RUN}/task-runs?limit=2")
    assert [item["key"] for item in first["items"]] == ["0", "1:0"]
    rest = served.get(f"/runs/{RUN}/task-runs?limit=2&after={first['next_cursor']}")
    assert [item["key"] for item in rest["items"]] == ["1:1", "1:2"]
    assert rest["next_cursor"] is None
    assert [item["state"]["type"] for item in rest["items"]] == ["COMPLETED", "PENDING"]
    failed = served.get(f"/runs/{RUN}/task-runs?state=FAILED")
    assert [item["key"] for item in failed["items"]] == ["0"]
    counts = served.get(f"/runs/{RUN}/counts")["nodes"]
    assert counts == [
        {"node": 0, "counts": {"FAILED": 1}},
        {"node": 1, "counts": {"COMPLETED": 2, "PENDING": 1}},
    ]
    attempts = served.get(f"/runs/{RUN}/task-runs/0/attempts")["items"]
    assert attempts[0]["error"]["message"] == "no"
    states = served.get(f"/runs/{RUN}/task-runs/0/states")["items"]
    assert [state["name"] for state in states] == ["Failed"]
    assert [s["name"] for s in served.get(f"/runs/{RUN}/states")["items"]] == ["Running"]
    result = served.get(f"/runs/{RUN}/task-runs/0/result")
    assert (result["has_value"], result["value"]) == (True, {"a": [1]})
    assert served.get(f"/runs/{RUN}/result") is None
    assert served.get(f"/runs/{RUN}/task-runs/1:1")["map_index"] == 1


def test_the_graph_in_full_and_by_columns(served: Served) -> None:
    etl(served)
    full = served.get(f"/runs/{RUN}/graph")
    assert [n["key"] for n in full["nodes"]] == ["extract-0", "extract-1"]
    columns = served.get(f"/runs/{RUN}/graph?form=columns")
    assert columns["ids"] == [0, 1]
    assert columns["edges"] == [[0, 1]]
    assert columns["states"][1] == {"COMPLETED": 2, "PENDING": 1}


def test_what_is_not_there_says_what_was_looked_for(served: Served) -> None:
    etl(served)
    for path in ("/runs/none", "/runs/none/logs", f"/runs/{RUN}/task-runs/7", "/flows/elt"):
        answer = served.ask("GET", path)
        assert (answer.status_code, answer.json()["code"]) == (404, "raflow.not_found")
    assert served.ask("GET", "/flows/elt").json()["closest"] == ["etl"]
    unknown = served.ask("GET", "/limits/none")
    assert (unknown.status_code, unknown.json()["code"]) == (404, "raflow.unknown_limit")
    for path in (f"/runs/{RUN}/task-runs?after=x", f"/runs/{RUN}/logs?after=x"):
        answer = served.ask("GET", path)
        assert (answer.status_code, answer.json()["code"]) == (400, "raflow.bad_cursor")
    assert served.ask("GET", "/runs/a%00b").status_code == 400
    for path in ("/flows?limit=1", "/events?limit=0", f"/runs/{RUN}/logs?colour=red"):
        answer = served.ask("GET", path)
        assert (answer.status_code, answer.json()["code"]) == (422, "raflow.invalid")


def test_flows_and_their_versions(served: Served) -> None:
    etl(served)
    served.store.apply(_version("f2", created_at=2.0))
    flows = served.get("/flows")["items"]
    assert [(flow["name"], flow["versions"], flow["counts"]) for flow in flows] == [
        ("etl", 2, {"RUNNING": 1})
    ]
    assert served.get("/flows/etl")["last_run"]["id"] == RUN
    versions = served.get("/flows/etl/versions")["items"]
    assert [version["fingerprint"] for version in versions] == ["f2", "f1"]
    assert served.get("/flow-versions/f2")["flow"] == "etl"


def _version(fingerprint: str, created_at: float) -> Any:
    from tests.store.records import batch

    version = flow_version(fingerprint=fingerprint, created_at=created_at)
    return batch(version, seq=1)


def test_logs_by_page_level_and_text_forwards_and_backwards(served: Served) -> None:
    body = [LogLine(float(n), 20 + 10 * (n % 2), "root", f"line {n}") for n in range(6)]
    call = [LogLine(10.0 + n, 20, "stdout", f"Call {n}") for n in range(3)]
    record(
        served.store,
        RUN,
        log(served, 0, body[:4]),
        log(served, 1, call, TaskRunKey(0)),
        log(served, 2, body[4:]),
    )

    def texts(query: str) -> list[str]:
        return [line["text"] for line in served.get(f"/runs/{RUN}/logs?{query}")["lines"]]

    every = [line.text for line in (*body[:4], *call, *body[4:])]
    seen: list[str] = []
    position = ""
    for _ in range(9):
        page = served.get(f"/runs/{RUN}/logs?limit=2{position}")
        assert page["total_lines"] == 9
        seen += [line["text"] for line in page["lines"]]
        position = f"&after={page['next']}"
        if page["at_end"]:
            break
    assert seen == every
    assert served.get(f"/runs/{RUN}/logs?{position[1:]}")["lines"] == []
    assert texts("before=2.0&limit=2") == every[5:7]
    assert texts("before=1.1&limit=100") == every[:5]
    assert texts("level=30") == ["line 1", "line 3", "line 5"]
    assert texts("q=CALL") == ["Call 0", "Call 1", "Call 2"]
    assert texts("key=0") == ["Call 0", "Call 1", "Call 2"]
    assert texts("key=body&q=4") == ["line 4"]
    assert texts("since=1970-01-01T00:00:11Z&until=1970-01-01T00:00:12Z") == ["Call 1", "Call 2"]
    raw = served.ask("GET", f"/runs/{RUN}/logs/raw")
    assert raw.headers["content-type"] == "text/plain; charset=utf-8"
    assert [line.rpartition("  ")[2][-6:] for line in raw.text.splitlines()] == every


def test_a_log_that_is_away_is_no_bug_of_the_server(one: Served) -> None:
    gone = log(one, 0, [LogLine(1.0, 20, "root", "x")])
    record(one.store, RUN, gone)
    for file in (one.app.state.home / "logs").iterdir():
        file.unlink()
    answer = one.ask("GET", f"/runs/{RUN}/logs")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert one.ask("GET", f"/runs/{RUN}/logs/raw").status_code == 503


def test_limits_with_those_who_hold_them(served: Served) -> None:
    set_ = served.ask("PUT", "/limits/warehouse", json={"slots": 1})
    assert (set_.status_code, set_.json()["slots"]) == (200, 1)
    for holder in ("first", "second"):
        wanted = SlotRequest(holder=holder, flow_run_id=RUN, label=holder, amounts={"warehouse": 1})
        served.store.limits.acquire(wanted, seconds=60)
    limit = served.get("/limits/warehouse")
    assert [slot["holder"] for slot in limit["holders"]] == ["first"]
    assert [slot["holder"] for slot in limit["waiters"]] == ["second"]
    assert [item["name"] for item in served.get("/limits")["items"]] == ["warehouse"]
    assert served.ask("DELETE", "/limits/warehouse").status_code == 204
    assert served.ask("DELETE", "/limits/warehouse").status_code == 404
    served.store.limits.set(Limit(name="rate", slots=2, per_seconds=1.5))
    assert served.get("/limits/rate")["per_seconds"] == 1.5


def test_values_that_no_json_can_carry_are_shown_all_the_same(one: Served) -> None:
    odd = ResultInfo(
        type="x", size=1, preview="p", serializer="json", inline=b'["\\ud800", NaN, 1e999]'
    )
    record(one.store, RUN, node(0), task_run(0, result=odd))
    value = one.get(f"/runs/{RUN}/task-runs/0/result")["value"]
    assert value == ["\\ud800", None, None]


def test_lists_of_runs_by_page_with_filters(served: Served) -> None:
    for n in range(7):
        state = StateName.FAILED if n % 3 == 0 else StateName.COMPLETED
        record(served.store, f"run-{n}", created_at=float(n), state_name=state, name=f"etl-{n}")
    seen: list[str] = []
    cursor = ""
    while True:
        page = served.get(f"/runs?limit=3&count=true{cursor}")
        assert page["count"] == {"n": 7, "exact": True}
        seen += [run["id"] for run in page["items"]]
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert seen == [f"run-{n}" for n in range(6, -1, -1)]

    def ids(query: str) -> list[str]:
        return [run["id"] for run in served.get(f"/runs?{query}")["items"]]

    assert ids("state=Failed&sort=created_at") == ["run-0", "run-3", "run-6"]
    assert ids("state=Failed&state=Completed&limit=1") == ["run-6"]
    assert ids("since=1970-01-01T00:00:02Z&until=1970-01-01T00:00:04Z") == ["run-3", "run-2"]
    assert ids("name=etl-5") == ["run-5"]
    assert ids("flow=none") == ids("parent=run-1") == []
    assert len(ids("roots=true&trigger=manual")) == 7
    assert served.get("/runs")["count"] is None
    other = served.ask("GET", f"/runs?flow=etl&limit=3{cursor}")
    assert (other.status_code, other.json()["code"]) == (400, "raflow.bad_cursor")
    for query in ("limit=0", "limit=201", "state=Done", "since=yesterday", "since=2026-01-01"):
        assert served.ask("GET", f"/runs?{query}").status_code == 422, query
