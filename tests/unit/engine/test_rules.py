from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest

from raflow.engine._rules import Upstream, Verdict, decide
from raflow.model import TriggerRule

W, R, S, U = Verdict.WAIT, Verdict.RUN, Verdict.SKIP, Verdict.UPSTREAM_FAILED

# Two upstream runs; s: succeeded, f: failed, k: skipped, -: not final. Meanings as in Airflow.
TABLE = {
    TriggerRule.ALL_SUCCESS: {"ss": R, "sf": U, "sk": S, "ff": U, "kk": S, "s-": W, "f-": U},
    TriggerRule.ALL_FAILED: {"ss": S, "sf": S, "ff": R, "kk": S, "f-": W, "s-": S},
    TriggerRule.ALL_DONE: {"ss": R, "sf": R, "ff": R, "kk": R, "f-": W},
    TriggerRule.ALL_DONE_MIN_ONE_SUCCESS: {"ss": R, "sf": R, "ff": U, "kk": S, "s-": W},
    TriggerRule.ALL_SKIPPED: {"kk": R, "sk": S, "fk": S, "k-": W},
    TriggerRule.ONE_SUCCESS: {"s-": R, "f-": W, "ff": U, "kk": S, "sf": R},
    TriggerRule.ONE_FAILED: {"f-": R, "s-": W, "ss": S, "sf": R},
    TriggerRule.ONE_DONE: {"s-": R, "f-": R, "k-": W, "kk": S},
    TriggerRule.NONE_FAILED: {"ss": R, "sk": R, "kk": R, "sf": U, "k-": W},
    TriggerRule.NONE_SKIPPED: {"ss": R, "sf": R, "sk": S, "f-": W},
    TriggerRule.NONE_FAILED_MIN_ONE_SUCCESS: {"sk": R, "kk": S, "sf": U, "ss": R, "s-": W},
    TriggerRule.ALWAYS: {"--": R, "ff": R},
    TriggerRule.ALL_DONE_SETUP_SUCCESS: {"ss": R, "ff": R, "kk": R, "f-": W, "s-": W},
}

AIRFLOW: dict[str, Callable[[int, int, int], bool]] = {
    "all_success": lambda s, f, k: s == 3,
    "all_failed": lambda s, f, k: f == 3,
    "all_done": lambda s, f, k: True,
    "all_done_min_one_success": lambda s, f, k: s >= 1,
    "all_skipped": lambda s, f, k: k == 3,
    "one_failed": lambda s, f, k: f >= 1,
    "one_success": lambda s, f, k: s >= 1,
    "one_done": lambda s, f, k: s + f >= 1,
    "none_failed": lambda s, f, k: f == 0,
    "none_failed_min_one_success": lambda s, f, k: f == 0 and s >= 1,
    "none_skipped": lambda s, f, k: k == 0,
    "always": lambda s, f, k: True,
    "all_done_setup_success": lambda s, f, k: True,
}
"""When a task runs whose three upstream tasks are done: so many succeeded, failed, were skipped. As
Airflow's documentation words it."""


def upstream(states: str) -> Upstream:
    return Upstream(
        total=len(states),
        succeeded=states.count("s"),
        failed=states.count("f"),
        skipped=states.count("k"),
    )


def test_the_table_names_every_rule() -> None:
    assert set(TABLE) == set(TriggerRule)


@pytest.mark.parametrize(
    ("rule", "states", "verdict"),
    [(rule, states, v) for rule, cases in TABLE.items() for states, v in cases.items()],
)
def test_rule(rule: TriggerRule, states: str, verdict: Verdict) -> None:
    assert decide(rule, upstream(states)) is verdict


@pytest.mark.parametrize("rule", TriggerRule)
def test_every_rule_decides_once_all_is_done_and_keeps_to_it(rule: TriggerRule) -> None:
    for states in itertools.product("sfk", repeat=3):
        verdicts = [decide(rule, upstream("".join(states[:n]) + "-" * (3 - n))) for n in range(4)]
        assert verdicts[-1] is not Verdict.WAIT
        decided = [v for v in verdicts if v is not Verdict.WAIT]
        # An early decision may be of another kind than the last one would be (a failure beats a
        # skip seen later), but whether the task runs never depends on when it was asked.
        assert (Verdict.RUN in decided) == (decided[0] is Verdict.RUN), (states, verdicts)


@pytest.mark.parametrize("rule", TriggerRule)
def test_every_rule_means_what_it_means_in_airflow(rule: TriggerRule) -> None:
    assert set(AIRFLOW) == {known.value for known in TriggerRule}
    for states in itertools.product("sfk", repeat=3):
        s, f, k = (states.count(state) for state in "sfk")
        runs = AIRFLOW[rule.value](s, f, k)
        verdict = decide(rule, upstream("".join(states)))
        assert (verdict is Verdict.RUN) == runs, (states, verdict)


@pytest.mark.parametrize(
    ("setups", "verdict"), [("", R), ("s", R), ("sf", R), ("sk", R), ("f", U), ("fk", U), ("kk", S)]
)
def test_a_teardown_asks_what_was_set_up(setups: str, verdict: Verdict) -> None:
    rule = TriggerRule.ALL_DONE_SETUP_SUCCESS
    assert decide(rule, upstream("f" + setups), upstream(setups)) is verdict
    assert decide(rule, upstream("-" + setups), upstream(setups)) is W


@pytest.mark.parametrize("rule", TriggerRule)
def test_without_upstream_every_rule_runs(rule: TriggerRule) -> None:
    assert decide(rule, Upstream()) is Verdict.RUN
