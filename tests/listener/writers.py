"""Writers that change random rows in transactions of all kinds, several at a time."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field
from threading import Condition, Thread

import psycopg

_COUNT = "UPDATE counting_counter SET version = version + 1 WHERE id = %s"


class _UndoneError(Exception):
    """The transaction is rolled back."""


@dataclass
class Traffic:
    """Writers at work.

    Attributes:
        url: of the database.
        rows: the ids of the rows that are changed.
        seed: of the writers' choices.
        connects_again: whether the server may go away.
        ended: how many transactions have ended, one way or the other.
        failures: unexpected errors of the writers.
    """

    url: str
    rows: list[int]
    seed: int = 0
    connects_again: bool = False
    ended: int = 0
    failures: list[BaseException] = field(default_factory=list)
    _news: Condition = field(default_factory=Condition)
    _threads: list[Thread] = field(default_factory=list)

    def start(self, writers, transactions):
        """Have ``writers`` write, each in so many transactions."""
        for number in range(writers):
            writer = _Writer(self, random.Random(f"{self.seed} {number}"))
            thread = Thread(target=writer.run, args=[transactions], name=f"writer {number}")
            self._threads.append(thread)
            thread.start()

    def join(self, seconds=120):
        for thread in self._threads:
            thread.join(seconds)
            assert not thread.is_alive(), f"{thread.name} is not done after {seconds} s"
        assert not self.failures, self.failures

    def has_ended(self):
        with self._news:
            self.ended += 1
            self._news.notify_all()

    def until_others_ended(self, number):
        """Wait until so many more transactions have ended; not for ever: all may be waiting."""
        with self._news:
            wanted = self.ended + number
            self._news.wait_for(lambda: self.ended >= wanted, timeout=0.2)


class _Writer:
    def __init__(self, traffic, choice):
        self.traffic = traffic
        self.choice = choice

    def run(self, transactions):
        left = transactions
        end = time.monotonic() + 60
        while left:
            try:
                with psycopg.connect(self.traffic.url, autocommit=True) as connection:
                    while left:
                        self._write(connection)
                        left -= 1
            except psycopg.OperationalError as error:
                if not self.traffic.connects_again or time.monotonic() > end:
                    self.traffic.failures.append(error)
                    return
                time.sleep(0.05)
            except BaseException as error:
                self.traffic.failures.append(error)
                return

    def _write(self, connection):
        kind = self.choice.choice([self._one, self._one, self._several, self._bulk])
        try:
            with connection.transaction():
                if self.choice.random() < 0.3:
                    # The number now, the changes when later ones have been made.
                    connection.execute("SELECT pg_current_xact_id()")
                    self.traffic.until_others_ended(self.choice.randint(1, 4))
                kind(connection)
                if self.choice.random() < 0.15:
                    raise _UndoneError
                if self.choice.random() < 0.2:
                    self.traffic.until_others_ended(self.choice.randint(1, 3))
        except _UndoneError:
            pass
        finally:
            self.traffic.has_ended()

    def _one(self, connection):
        row = self.choice.choice(self.traffic.rows)
        for _ in range(self.choice.randint(1, 4)):
            connection.execute(_COUNT, [row])

    def _several(self, connection):
        rows = sorted(self.choice.sample(self.traffic.rows, 4))
        for row in rows:  # in one order everywhere: no deadlocks
            connection.execute(_COUNT, [row])
        for row in self.choice.choices(rows, k=5):
            with connection.transaction(force_rollback=self.choice.random() < 0.4):
                connection.execute(_COUNT, [row])

    def _bulk(self, connection):
        rows = self.choice.sample(self.traffic.rows, len(self.traffic.rows) // 3)
        connection.execute(
            "SELECT FROM counting_counter WHERE id = ANY (%s) ORDER BY id FOR UPDATE", [rows]
        )
        for _ in range(self.choice.randint(1, 2)):
            connection.execute(
                "UPDATE counting_counter SET version = version + 1 WHERE id = ANY (%s)", [rows]
            )
