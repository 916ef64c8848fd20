from __future__ import annotations

import itertools

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
}


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
def test_without_upstream_every_rule_runs(rule: TriggerRule) -> None:
    assert decide(rule, Upstream()) is Verdict.RUN
