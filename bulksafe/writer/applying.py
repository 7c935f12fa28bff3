"""Builds the statement of a collected write from its staged rows, by their keys."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bulksafe.rendering import quoting
from bulksafe.writer.storing import placeholder

if TYPE_CHECKING:
    from django.db.backends.base.base import BaseDatabaseWrapper
    from django.db.models import Field, Model

    from bulksafe.writer.sql_text import Statement

#: The alias of the rows in the statement, which cannot clash with returned names.
_ROWS = '"bulksafe rows"'


@dataclass(frozen=True)
class Assigned:
    """The values that receivers assigned to the instance of one row.

    Attributes:
        number: the row's number.
        instance: has the values.
        names: the attributes.
        taken: the columns that get the collected values; None for columns that differ from the
            stored row.
    """

    number: int
    instance: Model
    names: Collection[str]
    taken: Collection[str] | None = None


@dataclass(frozen=True)
class Applying:
    """Writes the rows of one table.

    Attributes:
        model: the concrete model.
        home: the schema of bulksafe's own tables, quoted.
        relation: the table, or partition, that the rows were collected from, as SQL names it.
        root: the table that they are written to.
        statement: the collected statement.
        is_assigning: whether an UPDATE writes all its columns, including unchanged values.
        connection: Django's.
    """

    model: type[Model]
    home: str
    relation: str
    root: str
    statement: Statement
    is_assigning: bool
    connection: BaseDatabaseWrapper

    def update(self, numbers: Sequence[int], assigned: Sequence[Assigned]) -> tuple[str, list[Any]]:
        """An UPDATE of the columns in the statement and of the assigned columns."""
        fields = self._fields(assigned)
        by_column = {str(field.column): place for place, field in enumerate(fields)}
        names = list(dict.fromkeys([*self.statement.assigned, *by_column]))
        known = {str(field.column) for field in self.model._meta.local_concrete_fields}
        is_taken = any(one.taken is not None for one in assigned)
        sets, selected = [], self._keys()
        for place, name in enumerate(names):
            column = quoting.identifier(name)
            value = f"{_ROWS}.v{place}"
            selected.append(f"(w.r).{column} AS v{place}")
            if name not in self.statement.assigned:
                value = f"{self._target}.{column}"
            elif not self.is_assigning:
                # As text: not every type can be compared.
                selected.append(
                    f"((o.r).{column})::pg_catalog.text IS DISTINCT FROM "
                    f"((w.r).{column})::pg_catalog.text AS c{place}"
                )
                test = f"{_ROWS}.c{place}"
                if is_taken and name in known:
                    test = f"COALESCE({quoting.literal(name)} = ANY ({_ROWS}.taken), {test})"
                value = f"CASE WHEN {test} THEN {value} ELSE {self._target}.{column} END"
            if name in by_column:
                value = self._chosen(by_column[name], value)
            sets.append(f"{column} = {value}")
        rows, params = self._rows(selected, numbers, fields, assigned)
        head = f"UPDATE {self.root}{self._alias} SET {', '.join(sets)} FROM ".replace("%", "%%")  # noqa: S608
        return f"{head}{rows}{self._where}{self._returning}", params

    def delete(self, numbers: Sequence[int]) -> tuple[str, list[Any]]:
        rows, params = self._rows(self._keys(), numbers, (), ())
        head = f"DELETE FROM {self.root}{self._alias} USING ".replace("%", "%%")  # noqa: S608
        return f"{head}{rows}{self._where}{self._returning}", params

    def insert(
        self, numbers: Sequence[int], assigned: Sequence[Assigned], columns: Sequence[str]
    ) -> tuple[str, list[Any]]:
        """An INSERT of whole rows.

        Args:
            columns: all columns of the table except generated ones.
        """
        fields = self._fields(assigned)
        by_column = {str(field.column): place for place, field in enumerate(fields)}
        quoted = [quoting.identifier(name) for name in columns]
        selected = [f"(w.r).{column} AS v{place}" for place, column in enumerate(quoted)]
        values = []
        for place, name in enumerate(columns):
            value = f"{_ROWS}.v{place}"
            values.append(self._chosen(by_column[name], value) if name in by_column else value)
        rows, params = self._rows(selected, numbers, fields, assigned)
        head = (
            f"INSERT INTO {self.root}{self._alias} ({', '.join(quoted)}) "  # noqa: S608
            f"OVERRIDING SYSTEM VALUE SELECT {', '.join(values)} FROM "
        ).replace("%", "%%")
        return f"{head}{rows} ORDER BY {_ROWS}.n{self._returning}", params

    # Its parts.

    def _rows(
        self,
        selected: Sequence[str],
        numbers: Sequence[int],
        fields: Sequence[Field[Any, Any]],
        assigned: Sequence[Assigned],
    ) -> tuple[str, list[Any]]:
        columns = ["s.n", *selected]
        given, params = "", [list(numbers)]
        if assigned:
            columns += ["a.assigned", "a.taken", *(f"a.a{n}" for n in range(len(fields)))]
            texts = []
            for one in assigned:
                text, values = self._values(one, fields)
                texts.append(text)
                params += values
            names = ", ".join(["n", "assigned", "taken", *(f"a{n}" for n in range(len(fields)))])
            given = f" LEFT JOIN (VALUES {', '.join(texts)}) AS a ({names}) ON a.n = s.n"
        text = (
            f"(SELECT {', '.join(columns)} "  # noqa: S608
            # The limit gives the planner the number of rows: it would read the whole table for
            # the thousand that it expects, and at SERIALIZABLE conflict with all its writers.
            f"FROM (SELECT * FROM {self.home}.bulksafe_unstage(%s::pg_catalog.int8[]) "
            f"LIMIT {len(numbers)}) AS s "
            # OFFSET 0: the text is parsed into a row once, not for each column.
            f"CROSS JOIN LATERAL (SELECT s.old::{self.relation} AS r OFFSET 0) AS o "
            f"CROSS JOIN LATERAL (SELECT s.new::{self.relation} AS r OFFSET 0) AS w"
        )
        text = text.replace("%", "%%").replace("%%s::pg_catalog.int8[]", "%s::pg_catalog.int8[]")
        return f"{text}{given}) AS {_ROWS}", params

    def _values(self, one: Assigned, fields: Sequence[Field[Any, Any]]) -> tuple[str, list[Any]]:
        """A row of VALUES: which of the fields were assigned, and their values."""
        places = [place for place, field in enumerate(fields) if field.attname in one.names]
        taken = None if one.taken is None else list(one.taken)
        texts = ["%s::pg_catalog.int8", "%s::pg_catalog.int4[]", "%s::pg_catalog.text[]"]
        params: list[Any] = [one.number, places, taken]
        for place, field in enumerate(fields):
            value = getattr(one.instance, field.attname) if place in places else None
            texts.append(placeholder(field, value, self.connection))
            params.append(
                field.get_db_prep_save(value, self.connection) if place in places else None
            )
        return f"({', '.join(texts)})", params

    def _fields(self, assigned: Sequence[Assigned]) -> list[Field[Any, Any]]:
        names = {name for one in assigned for name in one.names}
        return [field for field in self.model._meta.local_concrete_fields if field.attname in names]

    @staticmethod
    def _chosen(place: int, value: str) -> str:
        """The assigned value, if any."""
        return f"CASE WHEN {place} = ANY ({_ROWS}.assigned) THEN {_ROWS}.a{place} ELSE {value} END"

    def _keys(self) -> list[str]:
        keys = self.model._meta.pk_fields
        return [f"(o.r).{quoting.identifier(str(k.column))} AS k{n}" for n, k in enumerate(keys)]

    @property
    def _target(self) -> str:
        """The name of the table in the statement."""
        return quoting.identifier(self.statement.alias or self._name)

    @property
    def _name(self) -> str:
        return self.statement.table

    @property
    def _alias(self) -> str:
        return f" AS {self._target}"

    @property
    def _where(self) -> str:
        keys = self.model._meta.pk_fields
        pairs = (
            f"{self._target}.{quoting.identifier(str(key.column))} = {_ROWS}.k{place}"
            for place, key in enumerate(keys)
        )
        return f" WHERE {' AND '.join(pairs)}".replace("%", "%%")

    @property
    def _returning(self) -> str:
        return f" RETURNING {self.statement.returning}" if self.statement.returning else ""
