"""What is asked of a flow run reaches it, and what it asks of people is answered once."""

from __future__ import annotations

import dataclasses
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from raflow import errors
from raflow.model import InputRequest, RequestKind, StateName
from raflow.store import Store
from tests.store import records

RUN = records.RUN


@pytest.fixture
def running(store: Store) -> Store:
    """A store with a run that is under way."""
    assert store.apply(records.batch(records.flow_run()))
    return store


def end(store: Store) -> None:
    assert store.apply(records.batch(records.flow_run(state_name=StateName.CANCELLED), seq=50))


# --- Of a run -------------------------------------------------------------------------------------


def test_a_request_and_what_became_of_it(running: Store) -> None:
    asked = running.requests.ask(RUN, RequestKind.CANCEL, by="ann@host", message="wrong day\0")
    assert (asked.kind, asked.by, asked.outcome) == (RequestKind.CANCEL, "ann@host", "")
    assert asked.message == "wrong day\\x00"
    assert running.requests.of(RUN) == running.requests.of(RUN, open_only=True) == (asked,)
    running.requests.answered(asked.id, "nothing new starts")
    assert running.requests.of(RUN, open_only=True) == ()
    (answered,) = running.requests.of(RUN)
    assert answered == dataclasses.replace(asked, outcome="nothing new starts")
    assert running.requests.of("nothing") == ()


def test_the_same_request_twice_is_one(running: Store) -> None:
    ask = running.requests.ask
    first = ask(RUN, RequestKind.PAUSE, by="ann@host")
    assert ask(RUN, RequestKind.PAUSE, by="ann@host") == first
    kinds = [RequestKind.UNPAUSE, RequestKind.PAUSE]
    others = [
        ask(RUN, RequestKind.PAUSE, by="bob@host"),
        ask(RUN, RequestKind.PAUSE, by="bob@host", message="lunch"),
        *(ask(RUN, kind, by="ann@host") for kind in kinds),
    ]
    assert running.requests.of(RUN) == (first, *others)
    running.requests.answered(others[-1].id, "paused")
    again = ask(RUN, RequestKind.PAUSE, by="ann@host")
    assert again.id > others[-1].id


def test_a_run_that_is_over_takes_no_request(running: Store) -> None:
    end(running)
    with pytest.raises(errors.RunHasEndedError, match=r"over \(Cancelled\).*cancel it") as caught:
        running.requests.ask(RUN, RequestKind.CANCEL, by="ann@host")
    assert pickle.loads(pickle.dumps(caught.value)).state == "Cancelled"
    assert running.requests.of(RUN) == ()


def test_requests_of_nothing(running: Store) -> None:
    with pytest.raises(errors.NotFoundError, match="No flow run 'nothing'"):
        running.requests.ask("nothing", RequestKind.CANCEL, by="ann@host")
    with pytest.raises(errors.NotFoundError, match="No request '7'"):
        running.requests.answered(7, "done")


def test_a_request_is_refused_or_answered_but_never_forgotten(running: Store) -> None:
    ready = threading.Barrier(9)

    def ask(number: int) -> bool:
        ready.wait()
        try:
            running.requests.ask(RUN, RequestKind.CANCEL, by=f"user-{number}")
        except errors.RunHasEndedError:
            return False
        return True

    with ThreadPoolExecutor(9) as pool:
        asking = [pool.submit(ask, number) for number in range(8)]
        ready.wait()
        end(running)
        accepted = sum(one.result() for one in asking)
    assert len(running.requests.of(RUN)) == accepted
    assert running.requests.of(RUN, open_only=True) == ()


# --- Of people ------------------------------------------------------------------------------------

QUESTION = InputRequest(
    flow_run_id=RUN,
    number=0,
    title="Approval",
    form={"type": "object", "properties": {"ok": {"type": "boolean"}}},
    asked_at=100.0,
    expires_at=200.0,
    default=b'{"ok":false}',
    assignees=("ann", "bob"),
)


def test_a_question_and_its_answer(running: Store) -> None:
    assert running.requests.ask_person(QUESTION) == QUESTION
    answered = running.requests.answer_person(RUN, 0, answer=b'{"ok":true}', by="ann")
    assert answered.answered_at is not None
    assert answered == dataclasses.replace(
        QUESTION, answer=b'{"ok":true}', answered_by="ann", answered_at=answered.answered_at
    )
    # A resumed run asks the same again, and finds what was said.
    assert running.requests.ask_person(QUESTION) == answered
    changed = dataclasses.replace(QUESTION, title="Another", asked_at=300.0)
    assert running.requests.ask_person(changed) == answered


def test_the_first_answer_counts(running: Store) -> None:
    running.requests.ask_person(QUESTION)
    answered = running.requests.answer_person(RUN, 0, answer=b"1", by="ann")
    with pytest.raises(errors.AlreadyAnsweredError, match="was answered by ann at ") as caught:
        running.requests.answer_person(RUN, 0, answer=b"2", by="bob")
    assert pickle.loads(pickle.dumps(caught.value)).answered_by == "ann"
    with pytest.raises(errors.AlreadyAnsweredError):
        running.requests.answer_person(RUN, 0, answer=b"2", by="ann")
    assert running.requests.answer_person(RUN, 0, answer=b"1", by="ann") == answered


def test_the_default_is_an_answer_of_nobody(running: Store) -> None:
    running.requests.ask_person(QUESTION)
    assert QUESTION.default is not None
    running.requests.answer_person(RUN, 0, answer=QUESTION.default, by="")
    with pytest.raises(errors.AlreadyAnsweredError, match="was answered by the default"):
        running.requests.answer_person(RUN, 0, answer=b"1", by="ann")


def test_of_several_who_answer_one_does(running: Store) -> None:
    running.requests.ask_person(QUESTION)
    ready = threading.Barrier(8)

    def answer(number: int) -> bool:
        ready.wait()
        try:
            running.requests.answer_person(RUN, 0, answer=b"%d" % number, by=f"user-{number}")
        except errors.AlreadyAnsweredError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        won = [n for n, is_first in enumerate(pool.map(answer, range(8))) if is_first]
    (question,) = running.requests.input_requests(open_only=False)
    assert won == [int(question.answer or b"-1")]


def test_which_questions_are_open(running: Store) -> None:
    other = records.flow_run("other")
    running.apply(records.batch(other, flow_run_id="other"))
    late, early, answered = (
        dataclasses.replace(QUESTION, number=number, asked_at=at)
        for number, at in ((0, 300.0), (1, 100.0), (2, 200.0))
    )
    elsewhere = dataclasses.replace(QUESTION, flow_run_id="other", asked_at=150.0)
    for question in (late, early, answered, elsewhere):
        running.requests.ask_person(question)
    running.requests.answer_person(RUN, 2, answer=b"1", by="ann")
    assert running.requests.input_requests() == [early, elsewhere, late]
    assert running.requests.input_requests(flow_run_id=RUN) == [early, late]
    numbers = [q.number for q in running.requests.input_requests(flow_run_id=RUN, open_only=False)]
    assert numbers == [1, 2, 0]
    end(running)
    assert running.requests.input_requests() == [elsewhere]
    assert len(running.requests.input_requests(open_only=False)) == 4


def test_questions_that_are_not_there(running: Store) -> None:
    running.requests.ask_person(QUESTION)
    with pytest.raises(errors.NotFoundError, match="has no question 1; it has asked: 0"):
        running.requests.answer_person(RUN, 1, answer=b"1", by="ann")
    with pytest.raises(errors.NotFoundError, match="No flow run 'nothing'"):
        running.requests.answer_person("nothing", 0, answer=b"1", by="ann")
    with pytest.raises(errors.NotFoundError, match="No flow run 'nothing'"):
        running.requests.ask_person(dataclasses.replace(QUESTION, flow_run_id="nothing"))


def test_a_run_that_is_over_takes_no_answer(running: Store) -> None:
    running.requests.ask_person(QUESTION)
    end(running)
    with pytest.raises(errors.RunHasEndedError, match="nobody is there to take the answer"):
        running.requests.answer_person(RUN, 0, answer=b"1", by="ann")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(data=st.data())
def test_questions_come_back_as_they_were(running: Store, data: st.DataObject) -> None:
    number = data.draw(records.counts)
    question = InputRequest(
        flow_run_id=RUN,
        number=number,
        title=data.draw(records.texts),
        form=data.draw(records.json_objects),
        asked_at=data.draw(records.times),
        expires_at=data.draw(st.none() | records.times),
        default=data.draw(st.none() | st.binary(max_size=20)),
        assignees=tuple(data.draw(st.lists(records.texts, max_size=3))),
    )
    written = records.written(question)
    known = running.requests.input_requests(flow_run_id=RUN, open_only=False)
    asked = running.requests.ask_person(question)
    assert asked == next((q for q in known if q.number == number), written)
