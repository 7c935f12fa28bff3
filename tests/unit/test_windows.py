"""The reader's arithmetic against a model of PostgreSQL's transactions, in any order of steps."""

from dataclasses import dataclass, field

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    rule,
    run_state_machine_as_test,
)

from bulksafe.outbox.windows import Mark, Snapshot, Window


@dataclass
class Server:
    """Transactions, the numbers that they take, and what each snapshot sees of them."""

    next_xid: int = 3
    last_ended: int = 2
    last_number: int = 0
    running: set[int] = field(default_factory=set)
    committed: set[int] = field(default_factory=set)
    events: list[tuple[int, int]] = field(default_factory=list)  # (number, xid)

    def begin(self):
        xid, self.next_xid = self.next_xid, self.next_xid + 1
        self.running.add(xid)
        return xid

    def write(self, xid):
        self.last_number += 1
        self.events.append((self.last_number, xid))

    def end(self, xid, *, commit):
        self.running.discard(xid)
        self.last_ended = max(self.last_ended, xid)
        if commit:
            self.committed.add(xid)

    def snapshot(self):
        """As ``GetSnapshotData`` does it: xmax is one more than the last that has *ended*."""
        xmax = self.last_ended + 1
        running = frozenset(xid for xid in self.running if xid < xmax)
        return Snapshot(min([*running, xmax]), xmax, running)

    def fetch(self, window, limit):
        """What the query ``fetch`` returns."""
        found = [
            number
            for number, xid in sorted(self.events)
            if xid in self.committed
            and number > window.start
            and window.upper.sees(xid)
            and not window.lower.sees(xid)
        ]
        return found[:limit]


class Reading(RuleBasedStateMachine):
    """Writers and one reader take turns at every step."""

    open_transactions = Bundle("open_transactions")

    def __init__(self):
        super().__init__()
        self.server = Server()
        self.window = Window(self.server.snapshot(), 0)
        self.seen = []
        self.own = None
        self.mark = None

    @rule(target=open_transactions)
    def begin(self):
        return self.server.begin()

    @rule(xid=open_transactions)
    def write(self, xid):
        if xid in self.server.running:
            self.server.write(xid)

    @rule(xid=consumes(open_transactions), commit=st.booleans())
    def end(self, xid, commit):
        self.server.end(xid, commit=commit)

    # The reader: its number, its transaction, its snapshot and its progress are steps of their own.

    @rule()
    def read_the_number(self):
        if self.own is None:
            self.number = self.server.last_number
            self.own = "numbered"

    @rule()
    def lock_the_cursor(self):
        if self.own == "numbered":
            self.own = self.server.begin()

    def floor(self, snapshot):
        return self.mark.floor(snapshot) if self.mark else 0

    @rule(limit=st.integers(1, 4), crash=st.booleans())
    def read_and_move_on(self, limit, crash):
        if not isinstance(self.own, int):
            return
        snapshot = self.server.snapshot()
        window = self.window.opened(snapshot, self.floor(snapshot))
        self.mark = Mark(self.own, self.number)
        found = self.server.fetch(window, limit)
        fresh = [number for number in found if number not in window.skip]
        self.server.end(self.own, commit=not crash)
        self.own = None
        if crash:
            return
        self.seen += fresh
        self.window = window.closed() if len(found) < limit else window.moved(found[-1])

    @invariant()
    def nothing_comes_twice(self):
        assert len(self.seen) == len(set(self.seen))

    @invariant()
    def nothing_uncommitted_is_seen(self):
        committed = {n for n, xid in self.server.events if xid in self.server.committed}
        assert committed.issuperset(self.seen)

    @invariant()
    def what_is_left_has_higher_numbers(self):
        """An event of a transaction that runs, or that the reader has not come to."""
        alive = self.server.running | self.server.committed
        left = {n for n, xid in self.server.events if xid in alive} - set(self.seen)
        assert all(number > self.window.floor_of_rest for number in left)

    def teardown(self):
        """When all have ended, the reader sees the rest: nothing is lost."""
        if isinstance(self.own, int):
            self.server.end(self.own, commit=False)
        self.own = None
        for xid in list(self.server.running):
            self.server.end(xid, commit=True)
        for _ in range(len(self.server.events) + 3):
            self.read_the_number()
            self.lock_the_cursor()
            self.read_and_move_on(3, False)
        committed = {n for n, xid in self.server.events if xid in self.server.committed}
        assert set(self.seen) == committed


Reading.TestCase.settings = settings(max_examples=200, stateful_step_count=60, deadline=None)
TestReading = Reading.TestCase


class TrustingReading(Reading):
    """Takes a snapshot's xmax for the first transaction that has not begun."""

    def floor(self, snapshot):
        return self.number


class ForgetfulReading(Reading):
    """Reads events with higher numbers than the last one that it has read."""

    def floor(self, snapshot):
        return max(self.seen, default=0)

    def read_and_move_on(self, limit, crash):
        super().read_and_move_on(limit, crash)
        self.window = Window(self.window.lower, self.window.floor, {}, position=None)


@pytest.mark.parametrize("reader", [TrustingReading, ForgetfulReading])
def test_the_model_finds_readers_that_lose_events(reader):
    quick = settings(
        Reading.TestCase.settings,
        max_examples=5000,  # ends with the first that shows it
        phases=[Phase.generate],
        derandomize=True,
        database=None,
        print_blob=False,
    )
    with pytest.raises(AssertionError):
        run_state_machine_as_test(reader, settings=quick)


def test_the_model_finds_the_reader_that_trusts_xmax():
    """A transaction beyond xmax has begun, and has numbered an event below the number read."""
    server = Server()
    window = Window(server.snapshot(), 0)
    early = server.begin()
    server.write(early)
    number = server.last_number

    naive = window.opened(server.snapshot(), number).closed()
    right = window.opened(server.snapshot(), Mark(server.begin(), number).floor(server.snapshot()))
    server.end(early, commit=True)

    later = server.snapshot()
    assert server.fetch(naive.opened(later, number), 10) == []
    assert server.fetch(right.closed().opened(later, 0), 10) == [1]


@pytest.mark.parametrize("text", ["3:3:", "10:20:10,14,19", "5:9:6"])
def test_snapshots_are_read_and_written_as_postgresql_does(text):
    assert str(Snapshot.parse(text)) == text


@pytest.mark.parametrize(
    ("xid", "seen"), [(9, True), (10, False), (11, True), (14, False), (19, False), (20, False)]
)
def test_what_a_snapshot_sees(xid, seen):
    assert Snapshot.parse("10:20:10,14,19").sees(xid) == seen


def test_a_window_that_is_not_open():
    window = Window(Snapshot(3, 3), 0)

    with pytest.raises(ValueError, match="no window is open"):
        window.closed()


def test_events_handled_ahead_are_forgotten_when_the_reader_reaches_them():
    window = Window(Snapshot(3, 3), 0).opened(Snapshot(9, 9), 0).moved(5, ahead=[7, 9])

    assert window.moved(8).skip == (9,)
    assert window.moved(9).closed().skip == ()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("762:764:", "762:764:762"),
        ("762:762:", "762:762:"),
        ("763:764:", "762:764:762"),
        ("760:764:760", "760:764:760,762"),
        ("760:765:762", "760:765:762"),
    ],
)
def test_the_querying_transaction_counts_as_running(text, expected):
    snapshot = Snapshot.parse(text).without(762)

    assert str(snapshot) == expected
    assert not snapshot.sees(762)
