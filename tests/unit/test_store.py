"""The store runs an expensive query only if a cheap one finds that it may return rows."""

from contextlib import nullcontext

import pytest

from bulksafe.dispatch.worker import Worker
from bulksafe.outbox.known import Known
from bulksafe.outbox.store import Store


@pytest.fixture
def asked(monkeypatch):
    """The queries that were run, by name; ``answers`` has what they return."""

    class Asked(list):
        answers = {}

    found = Asked()

    def rows(self, name, parameters=None, **parts):
        found.append((name, parameters))
        return found.answers[name]

    monkeypatch.setattr(Store, "rows", rows)
    monkeypatch.setattr(Store, "poll", rows)
    return found


def test_without_due_calls_one_query_finds_the_ready_queues(asked):
    asked.answers = {"ready": [("mail", True, False, 9), ("search", False, False, 9)]}

    assert Store("default").ready(["mail", "search"], Known()) == {"mail"}
    assert [name for name, _ in asked] == ["ready"]


def test_due_calls_are_polled_if_the_cursors_have_no_work(asked):
    asked.answers = {
        "ready": [
            ("mail", True, True, 9),
            ("search", False, True, 9),
            ("stock", False, False, 9),
        ],
        "ready_parked": [("search",)],
    }

    assert Store("default").ready(["mail", "search", "stock"], Known()) == {"mail", "search"}
    assert asked[-1][1]["queues"] == ["search"]


def test_a_due_call_that_waits_for_an_earlier_call_is_not_ready(asked):
    asked.answers = {"ready": [("mail", False, True, 9)], "ready_parked": []}

    assert Store("default").ready(["mail"], Known()) == set()


def test_a_worker_takes_no_call_where_none_is_due(asked):
    asked.answers = {"has_due": [(False,)]}
    worker = Worker("default", ["mail"], None, guard=nullcontext)

    assert worker._make_calls_alone() == 0
    assert [name for name, _ in asked] == ["has_due"]
