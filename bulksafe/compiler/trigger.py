"""The compiled form of an invariant."""

from __future__ import annotations

import copy
import hashlib
from typing import TYPE_CHECKING, Any

from bulksafe.compat import PgTrigger
from bulksafe.compiler.assembling import Assembly, is_observing, only_for_partitions, text_array
from bulksafe.rendering import quoting, templates

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from django.db import models

#: The template version of new migrations.
VERSION = "v1"

#: The prefix of our triggers' comments.
MARK = "bulksafe:"


class Trigger(PgTrigger):
    """The compiled form of one invariant, as ``pgtrigger.migrations.AddTrigger`` stores it.

    One invariant may own several triggers and functions. They are described, not spelled out, so
    that a reviewer reads the rule itself in the migration; ``sqlmigrate`` shows the whole SQL.

    This is a ``pgtrigger.Trigger`` and not a ``pgtrigger.compiler.Trigger``: pgtrigger asks the
    former for its SQL *with the model at hand*, so the table is that of the migration state at that
    point. A frozen table name would be wrong after the table was renamed, and when such a migration
    is reversed.

    Args:
        name: the invariant's name.
        invariant: its label, ``"shop.Order:discount_within_amount"``.
        pgid: the first trigger's name in PostgreSQL, which ``pgtrigger.ignore`` goes by.
        version: the folder in ``migrations_templates``.
        functions: for each function, ``function`` (its name), ``template`` and the
            template's variables.
        triggers: the same for each trigger, with ``trigger`` for its name.
        reads: the input columns of a computed value, with their types.
        column: the computed column.
        column_type: its type. A changed type changes the trigger.
        search_path: schemas that ``BULKSAFE["SEARCH_PATH"]`` added.
    """

    def __init__(
        self,
        *,
        name: str,
        invariant: str,
        pgid: str,
        version: str,
        functions: Sequence[Mapping[str, Any]],
        triggers: Sequence[Mapping[str, Any]],
        reads: Mapping[str, str] | None = None,
        column: str = "",
        column_type: str = "",
        search_path: Iterable[str] = (),
    ) -> None:
        self.name = name
        self.invariant = invariant
        self.pgid = pgid
        self.version = version
        self.functions = [dict(function) for function in functions]
        self.triggers = [dict(trigger) for trigger in triggers]
        self.reads = dict(reads or {})
        self.column = column
        self.column_type = column_type
        self.search_path = tuple(search_path)
        self.table = ""

    # pgtrigger's interface.

    def compile(self, model: type[models.Model]) -> Trigger:
        """The same trigger for the table that ``model`` has now."""
        bound = copy.copy(self)
        bound.table = model._meta.db_table
        return bound

    def in_any_table(self) -> Trigger:
        """The same trigger, for uninstalling when its table is no longer known.

        Uninstalling finds the triggers by their functions, and only the schema by the table: the
        outbox is in that of the tables.
        """
        bound = copy.copy(self)
        bound.table = "bulksafe_outbox"
        return bound

    def get_pgid(self, model: type[models.Model]) -> str:
        return self.pgid

    @property
    def hash(self) -> str:
        """Identifies the installed SQL, whatever the table is called; the triggers' comment."""
        text = f"{self.reads}\n{self._assembly.steps('')}"
        return MARK + hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()

    @property
    def install_sql(self) -> str:
        body = templates.fill(
            self.version,
            "install",
            {
                "table": quoting.relation(self.table),
                "column": self.column,
                "reads": text_array(self.reads),
                "search_path": ", ".join(map(quoting.identifier, self.search_path)),
                "statements": self._assembly.steps(self.hash),
                "functions": text_array(f["function"] for f in self.functions),
                "intruders": self._assembly.intruders("invariant", self._assembly.dependents()),
            },
        )
        return f"{self.uninstall_sql}\n{do_block(body)}"

    @property
    def uninstall_sql(self) -> str:
        body = templates.fill(
            self.version,
            "uninstall",
            {
                "table": quoting.relation(self.table),
                "functions": text_array(f["function"] for f in self.functions),
            },
        )
        return do_block(body)

    @property
    def enable_sql(self) -> str:
        return self._for_each_trigger("enable")

    @property
    def disable_sql(self) -> str:
        return self._for_each_trigger("disable")

    @property
    def switch_off_sql(self) -> str:
        """Disables it while receivers are rolled out, see ``bulksafe.switching``."""
        return self.disable_sql

    @property
    def trigger_names(self) -> list[str]:
        """The triggers that it may own in the database, in creation order."""
        return [trigger["trigger"] for trigger in self.triggers]

    @property
    def expected_names(self) -> list[str]:
        """The triggers that it owns on every kind of table."""
        return [t["trigger"] for t in self.triggers if not only_for_partitions(t)]

    def deconstruct(self) -> tuple[str, list[Any], dict[str, Any]]:
        # A stable path: the module of the class may change.
        return f"bulksafe.compiler.{type(self).__qualname__}", [], self.arguments()

    def arguments(self) -> dict[str, Any]:
        """The arguments that a migration stores."""
        kwargs: dict[str, Any] = {
            "name": self.name,
            "invariant": self.invariant,
            "pgid": self.pgid,
            "version": self.version,
            "functions": self.functions,
            "triggers": self.triggers,
        }
        optional = {
            "reads": self.reads,
            "column": self.column,
            "column_type": self.column_type,
            "search_path": self.search_path,
        }
        return kwargs | {key: value for key, value in optional.items() if value}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Trigger) and self.deconstruct() == other.deconstruct()

    def __hash__(self) -> int:
        return hash((self.invariant, self.pgid))

    # Its effects on rows.

    @property
    def captures(self) -> bool:
        """Whether it writes to the outbox, which must exist before."""
        return any("streams" in function for function in self.functions)

    @property
    def observes(self) -> bool:
        """Whether it records violations; the table for them must exist before."""
        return any(map(is_observing, self.functions))

    @property
    def buffers(self) -> bool:
        """Whether it has in-transaction receivers."""
        streams = [stream for function in self.functions for stream in function.get("streams", ())]
        return any("refusing" in stream for stream in streams)

    @property
    def _assembly(self) -> Assembly:
        return Assembly(
            name=self.name,
            invariant=self.invariant,
            pgid=self.pgid,
            version=self.version,
            functions=self.functions,
            triggers=self.triggers,
            search_path=self.search_path,
            table=self.table,
            captures=self.captures,
            observes=self.observes,
            buffers=self.buffers,
        )

    def _for_each_trigger(self, template: str) -> str:
        return "\n".join(
            templates.fill(
                self.version,
                template,
                {"table": quoting.relation(self.table), "trigger": trigger},
            )
            for trigger in self.expected_names
        )


def do_block(body: str) -> str:
    return f"DO {quoting.dollar_quoted(body, 'bulksafe')};"
