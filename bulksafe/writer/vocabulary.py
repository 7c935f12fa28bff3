"""Recognizes statements on tables with critical receivers."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from django.db.models.constants import OnConflict
from django.utils.functional import cached_property

from bulksafe.caching import per_model
from bulksafe.declarations import receivers
from bulksafe.declarations.lineage import lineage
from bulksafe.dispatch.sources import models_of
from bulksafe.outbox.queries import query
from bulksafe.own_cursor import own_cursor
from bulksafe.statements import WRITES
from bulksafe.writer import relations
from bulksafe.writer.delivering import EARLY, Live

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from django.db.backends.base.base import BaseDatabaseWrapper
    from django.db.models import Model

    from bulksafe.declarations import Receiver

#: Delimiters before and after a table name.
_WORD = r"(?<![\w$]){}(?![\w$])"


#: A statement after which it is too late to deliver earlier changes.
ENDS_PART = re.compile(r"\s*(?:SAVEPOINT|COMMIT|END|PREPARE\s+TRANSACTION)\b", re.IGNORECASE)

_COMMITS = re.compile(r"(?:\A|;)\s*(?:COMMIT|END|PREPARE\s+TRANSACTION)\b", re.IGNORECASE)

#: Parts to skip: function bodies, texts, comments.
_QUOTED = re.compile(r"(\$\w*\$).*?\1|'(?:[^']|'')*'|--[^\n]*|/\*.*?\*/", re.DOTALL)


def _pattern(names: Iterable[str]) -> re.Pattern[str] | None:
    listed = [re.escape(name) for name in sorted(names, key=lambda n: (-len(n), n))]
    return re.compile(_WORD.format(f"(?:{'|'.join(listed)})"), re.IGNORECASE) if listed else None


_WORDS = re.compile(r"[\w$]+")


def _is_odd(name: str) -> bool:
    """Whether a table name is more than a word."""
    return _WORDS.fullmatch(name) is None


def name_of(model: type[Model]) -> str:
    """The table's name in a statement, without its schema."""
    return str(model._meta.db_table).strip('"').rpartition('"."')[2]


@dataclass(frozen=True)
class Vocabulary:
    """The tables with receivers, and the tables whose changes affect them.

    Attributes:
        models: the models with receivers.
        by_name: the models by lower-case table name: their own tables, partitions, and tables whose
            foreign key actions reach them.
    """

    models: tuple[type[Model], ...]
    by_name: dict[str, tuple[type[Model], ...]]
    _odd: re.Pattern[str] | None
    _texts: dict[str, list[type[Model]]] = field(default_factory=dict, compare=False)

    @classmethod
    def of_receivers(cls) -> Vocabulary:
        models = models_of(receivers.inline())
        by_name: dict[str, list[type[Model]]] = {}
        for model in models:
            for table in lineage(model):
                by_name.setdefault(name_of(table).lower(), []).append(model)
        found = {name: tuple(listed) for name, listed in by_name.items()}
        return cls(tuple(models), found, _pattern(filter(_is_odd, found)))

    @cached_property
    def with_early(self) -> tuple[type[Model], ...]:
        """The models with receivers before the write."""
        return tuple(model for model in self.models if _early_of(model))

    def and_others(self, connection: BaseDatabaseWrapper) -> Vocabulary:
        """The same, extended by the catalogs of a database.

        Args:
            connection: Django's.
        """
        if not self.models:
            return self
        names = sorted({name_of(table) for model in self.models for table in lineage(model)})
        with own_cursor(connection) as cursor:
            cursor.execute(query("reaching"), {"names": names})
            rows = cursor.fetchall()
        found = dict(self.by_name)
        for name, reached in rows:
            models = (*found.get(name.lower(), ()), *self.by_name.get(reached.lower(), ()))
            found[name.lower()] = tuple(dict.fromkeys(models))
        return type(self)(self.models, found, _pattern(filter(_is_odd, found)))

    def named(self, text: str) -> list[type[Model]]:
        """The models whose tables occur in a statement."""
        if not self.models:
            return []
        found = self._texts.get(text)
        if found is None:
            found = self._named(text)
            # Statement texts recur, without their parameters.
            if len(text) < _LONG and len(self._texts) < _MANY:
                self._texts[text] = found
        return found

    def _named(self, text: str) -> list[type[Model]]:
        # Looked up word by word: a pattern with all names would take longer with each table.
        names = dict.fromkeys(_WORDS.findall(text.lower()))
        if self._odd is not None:
            names |= dict.fromkeys(match.lower() for match in self._odd.findall(text))
        found = (self.by_name.get(name, ()) for name in names)
        return list(dict.fromkeys(model for models in found for model in models))


_LONG, _MANY = 4000, 2000

_kept: list[tuple[int, Vocabulary]] = []
_of_databases: dict[str, tuple[int, Vocabulary]] = {}
_NONE = None, None


def vocabulary() -> Vocabulary:
    """The current vocabulary; rebuilt after new receivers are declared."""
    changes = receivers.changes()
    if not _kept or _kept[0][0] != changes:
        _kept[:] = [(changes, Vocabulary.of_receivers())]
    return _kept[0][1]


def vocabulary_of(connection: BaseDatabaseWrapper) -> Vocabulary:
    """The same for a database: read once, and again after ``forget``."""
    known = known_vocabulary_of(connection.alias)
    if known is not None:
        return known
    # Before the query: receivers that another thread declares meanwhile are not in the result.
    changes = receivers.changes()
    found = vocabulary().and_others(connection)
    _of_databases[connection.alias] = changes, found
    return found


def known_vocabulary_of(alias: str) -> Vocabulary | None:
    """The vocabulary of a database, if no query is necessary."""
    changes, found = _of_databases.get(alias, _NONE)
    return found if changes == receivers.changes() else None


def forget(alias: str) -> None:
    """Read the catalogs of a database again, because its tables have changed."""
    _of_databases.pop(alias, None)
    relations.forget(alias)


def is_write(text: str) -> bool:
    return WRITES.match(text) is not None


def is_insert(text: str) -> bool:
    return _INSERTS.match(text) is not None


def is_deletion(text: str) -> bool:
    return text.lstrip()[:6].upper() == "DELETE"


def commits(text: str) -> bool:
    """Whether a string of several statements commits between them."""
    return _COMMITS.search(_QUOTED.sub("", text)) is not None


_DO_NOTHING = re.compile(r"\bON\s+CONFLICT\b.*\bDO\s+NOTHING\b", re.IGNORECASE | re.DOTALL)
_INSERTS = re.compile(r"\s*INSERT\b", re.IGNORECASE)


def on_conflict(text: str) -> dict[str, Any]:
    """The conflict handling of new rows, in the form of ``QuerySet._insert``."""
    ignores = _DO_NOTHING.search(text) is not None
    return {"on_conflict": OnConflict.IGNORE} if ignores else {}


def has_early(models: Iterable[type[Model]]) -> bool:
    """Whether any of the models has a connected receiver before the write."""
    known = vocabulary()
    if models is known.models:
        # All of them: few have such receivers.
        models = known.with_early
    is_live = Live(EARLY)
    return any(is_live(receiver, model) for model in models for receiver in _early_of(model))


@per_model(receivers.changes)
def _early_of(model: type[Model]) -> Sequence[Receiver]:
    return receivers.of_model(model, _is_early)


def _is_early(receiver: Receiver) -> bool:
    return receiver.is_inline and receiver.signal_name in EARLY


def names_of(model: type[Model]) -> re.Pattern[str]:
    """A pattern for the tables of a model's rows in a statement."""
    found = _pattern({name_of(table) for table in lineage(model)})
    assert found is not None  # noqa: S101
    return found
