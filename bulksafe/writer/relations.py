"""Determines what a statement reads and writes: its tables, and everything they lead to.

A view leads to its tables, a function to what its body names, a written table to its triggers, its
partitions and the actions of foreign keys. This information comes from the database's catalogs,
which a process reads once per database, and again after migrations.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from bulksafe.outbox.queries import query
from bulksafe.own_cursor import own_cursor

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from django.db.backends.base.base import BaseDatabaseWrapper

#: A relation or function by its unqualified name in lower case, and whether it is written.
_Use: TypeAlias = tuple[str, bool]

#: A row of the query "definitions": the kind of a name, and a text or a second name.
Definition: TypeAlias = tuple[str, str, str]

_WRITES = re.compile(r"\b(?:INSERT|UPDATE|DELETE|MERGE|TRUNCATE|COPY)\b", re.IGNORECASE)
#: A body with dynamic SQL.
_DYNAMIC = re.compile(r"\bEXECUTE\b", re.IGNORECASE)
#: The languages whose function bodies show their tables.
_READABLE = re.compile(r"\bLANGUAGE\s+(?:sql|plpgsql)\b", re.IGNORECASE)

#: A statement that writes to one table, up to the table's name.
_TARGET = re.compile(
    r"\s*(?:INSERT\s+INTO|UPDATE|DELETE\s+FROM|MERGE\s+INTO)\s+(?:ONLY\s+)?", re.IGNORECASE
)
_READS = re.compile(r"\s*\(*\s*(?:SELECT|TABLE|VALUES|FETCH|DECLARE|EXPLAIN)\b", re.IGNORECASE)


@dataclass(frozen=True)
class Touched:
    """What a statement reads and writes.

    Attributes:
        reads: names of relations and functions, in lower case.
        writes: the same.
        is_opaque: it runs a function that may touch any table.
    """

    reads: frozenset[str] = frozenset()
    writes: frozenset[str] = frozenset()
    is_opaque: bool = False

    def __or__(self, other: Touched) -> Touched:
        return Touched(
            self.reads | other.reads,
            self.writes | other.writes,
            self.is_opaque or other.is_opaque,
        )

    def conflicts_with(self, other: Touched) -> bool:
        """Whether the order of the two matters."""
        return (
            self.is_opaque
            or other.is_opaque
            or not self.writes.isdisjoint(other.reads | other.writes)
            or not self.reads.isdisjoint(other.writes)
        )


@dataclass
class Relations:
    """The relations and functions of one database.

    Args:
        definitions: rows of the query ``definitions``.
    """

    definitions: Iterable[Definition]
    _leads: dict[_Use, set[_Use]] = field(default_factory=lambda: defaultdict(set))
    _opaque: set[str] = field(default_factory=set)
    _names: frozenset[str] = frozenset()
    _schemas: frozenset[str] = frozenset()
    #: Names that are not single words, which must be searched for in every text.
    _odd: frozenset[str] = frozenset()
    _patterns: dict[frozenset[str], re.Pattern[str]] = field(default_factory=dict)
    _touched: dict[str, Touched] = field(default_factory=dict)

    def __post_init__(self) -> None:
        listed = [(kind, name.lower(), text) for kind, name, text in self.definitions]
        self._names = frozenset(name for kind, name, _ in listed if kind != "schema")
        self._schemas = frozenset(name for kind, name, _ in listed if kind == "schema")
        self._odd = frozenset(name for name in self._names if not _WORD.fullmatch(name))
        for kind, name, text in listed:
            for one, other in self._steps(kind, name, text):
                self._leads[one].add(other)

    def _steps(self, kind: str, name: str, text: str) -> Iterator[tuple[_Use, _Use]]:
        """The names that using a name leads to."""
        match kind:
            case "view":
                for found in self._named(text):
                    yield (name, False), (found, False)
                    yield (name, True), (found, True)
            case "function":
                if _READABLE.search(text) is None or _DYNAMIC.search(text):
                    self._opaque.add(name)
                writes = _WRITES.search(text) is not None
                for found in self._named(text) - {name}:
                    yield (name, False), (found, writes)
            case "sequence":
                # nextval() changes the result for others.
                yield (name, False), (name, True)
            case "trigger":
                yield (name, True), (text.lower(), False)
            case "action":
                yield (name, True), (text.lower(), True)
            case "partition":
                for is_written in (False, True):
                    yield (name, is_written), (text.lower(), is_written)
                    yield (text.lower(), is_written), (name, is_written)

    def touched(self, text: str) -> Touched:
        """What a statement touches, directly and indirectly."""
        found = self._touched.get(text)
        if found is None:
            found = self._closed(self._uses(text))
            # The text of a statement comes again, without its parameters.
            if len(text) < _LONG and len(self._touched) < _MANY:
                self._touched[text] = found
        return found

    def closed(self, name: str) -> Touched:
        """What writing to a table touches."""
        return self._closed({(name.lower(), True)})

    def _uses(self, text: str) -> set[_Use]:
        """The names in a statement, with a flag for written ones if the text shows it."""
        target = _TARGET.match(text)
        if target is None:
            is_read = _READS.match(text) is not None
            return {(name, not is_read) for name in self._named(text)}
        written = self._first(text[target.end() :])
        return {(name, name == written) for name in self._named(text)}

    def _closed(self, uses: set[_Use]) -> Touched:
        seen: set[_Use] = set()
        waiting = list(uses)
        while waiting:
            use = waiting.pop()
            if use not in seen:
                seen.add(use)
                waiting += self._leads.get(use, ())
                # Writing a row also reads it.
                waiting += self._leads.get((use[0], False), ()) if use[1] else ()
        return Touched(
            reads=frozenset(name for name, is_written in seen if not is_written),
            writes=frozenset(name for name, is_written in seen if is_written),
            is_opaque=any(name in self._opaque for name, _ in seen),
        )

    def _named(self, text: str) -> set[str]:
        pattern = self._pattern_for(text)
        return {name.lower() for name in pattern.findall(text)} if pattern else set()

    def _first(self, text: str) -> str:
        pattern = self._pattern_for(text)
        found = pattern.match(text) if pattern else None
        return found[1].lower() if found else ""

    def _pattern_for(self, text: str) -> re.Pattern[str] | None:
        """A pattern for the names whose words are in the text; one for all compiles slowly."""
        names = self._names.intersection(_WORD.findall(text.lower())) | self._odd
        if not names:
            return None
        if names not in self._patterns:
            self._patterns[names] = _pattern(names, self._schemas)
        return self._patterns[names]


_LONG, _MANY = 4000, 2000


_WORD = re.compile(r"[\w$]+")


def _pattern(names: frozenset[str], schemas: frozenset[str]) -> re.Pattern[str]:
    """A pattern for names with or without a schema, but not columns."""
    ordered, qualifiers = (
        "|".join(map(re.escape, sorted(some, key=lambda n: (-len(n), n))))
        for some in (names, schemas or frozenset({"public"}))
    )
    return re.compile(
        rf'(?<![\w$."])(?:"?(?:{qualifiers})"?\s*\.\s*)?"?({ordered})"?(?![\w$])',
        re.IGNORECASE,
    )


_of_databases: dict[str, Relations] = {}


def relations_of(connection: BaseDatabaseWrapper) -> Relations:
    """The relations of a database: read once, and again after ``forget``."""
    found = _of_databases.get(connection.alias)
    if found is None:
        with own_cursor(connection) as cursor:
            cursor.execute(query("definitions"))
            found = _of_databases[connection.alias] = Relations(cursor.fetchall())
    return found


def forget(alias: str) -> None:
    """Read the catalogs of a database again."""
    _of_databases.pop(alias, None)
