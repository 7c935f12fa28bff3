"""The compiled form of an invariant."""

from __future__ import annotations

import copy
import hashlib
from typing import TYPE_CHECKING, Any

from bulksafe.compat import PgTrigger
from bulksafe.rendering import names, quoting, templates

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from django.db import models

#: The template version that new migrations are made with.
VERSION = "v1"

#: What the comments of our triggers begin with.
MARK = "bulksafe:"


class Trigger(PgTrigger):
    """The compiled form of one invariant, as ``pgtrigger.migrations.AddTrigger`` stores it.

    One invariant may own several triggers and functions. They are described, not spelled out, so
    that a reviewer reads the rule itself in the migration; ``sqlmigrate`` shows the whole SQL.

    This is a ``pgtrigger.Trigger`` and not a ``pgtrigger.compiler.Trigger``: pgtrigger asks the
    former for its SQL *with the model at hand*, so the table is the one that the migration state
    knows at that point. A frozen table name would be wrong after the table was renamed, and when
    such a migration is reversed.

    Args:
        name: the invariant's name.
        invariant: its label, ``"shop.Order:discount_within_amount"``.
        pgid: the first trigger's name in PostgreSQL, which ``pgtrigger.ignore`` goes by.
        version: the folder of ``migrations_templates`` that it is made with.
        functions: what each function is made of: ``function`` (its name), ``template`` and the
            template's variables.
        triggers: the same for each trigger, with ``trigger`` for its name.
        reads: the columns that a computed value is made from, with their types.
        column: the computed column.
        column_type: its type. Another one makes another trigger.
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

    # What pgtrigger asks for.

    def compile(self, model: type[models.Model]) -> Trigger:
        """The same trigger for the table that ``model`` has now."""
        bound = copy.copy(self)
        bound.table = model._meta.db_table
        return bound

    def in_any_table(self) -> Trigger:
        """The same to uninstall where its table is no longer known.

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
        text = f"{self.reads}\n{self._steps('')}"
        return MARK + hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()

    @property
    def install_sql(self) -> str:
        body = templates.fill(
            self.version,
            "install",
            {
                "table": quoting.relation(self.table),
                "column": self.column,
                "reads": _text_array(self.reads),
                "search_path": ", ".join(map(quoting.identifier, self.search_path)),
                "statements": self._steps(self.hash),
                "functions": _text_array(f["function"] for f in self.functions),
                "intruders": self._intruders("invariant", self._dependents()),
            },
        )
        return f"{self.uninstall_sql}\n{_do(body)}"

    @property
    def uninstall_sql(self) -> str:
        body = templates.fill(
            self.version,
            "uninstall",
            {
                "table": quoting.relation(self.table),
                "functions": _text_array(f["function"] for f in self.functions),
            },
        )
        return _do(body)

    @property
    def enable_sql(self) -> str:
        return self._for_each_trigger("enable")

    @property
    def disable_sql(self) -> str:
        return self._for_each_trigger("disable")

    @property
    def trigger_names(self) -> list[str]:
        """The triggers that it may own in the database, in the order of their creation."""
        return [trigger["trigger"] for trigger in self.triggers]

    @property
    def expected_names(self) -> list[str]:
        """Those that it owns on every kind of table."""
        return [t["trigger"] for t in self.triggers if not _only_for_partitions(t)]

    def deconstruct(self) -> tuple[str, list[Any], dict[str, Any]]:
        # Not the module that the class is in, which may change.
        return f"bulksafe.compiler.{type(self).__qualname__}", [], self.arguments()

    def arguments(self) -> dict[str, Any]:
        """What a migration stores."""
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

    # How the SQL is put together.

    def _steps(self, digest: str) -> str:
        unmuted = self._fill("unmuted", {"invariant": self.invariant, "pgid": self.pgid})
        caller = templates.read(self.version, "caller")
        asked = {
            "unmuted": unmuted,
            "caller": caller,
            "is_application": self._fill("is_application", {}, caller=caller),
        }
        steps = [templates.read(self.version, "outbox_required")] if self.captures else []
        steps += [templates.read(self.version, "tickets_required")] if self.buffers else []
        steps += [self._function_steps(function, asked) for function in self.functions]
        steps += [self._trigger_step(trigger, digest, unmuted) for trigger in self.triggers]
        return "\n\n".join(steps)

    @property
    def captures(self) -> bool:
        """Whether it writes to the outbox, which has to be there before."""
        return any("streams" in function for function in self.functions)

    @property
    def buffers(self) -> bool:
        """Whether it has receivers in the writer's transaction."""
        streams = [stream for function in self.functions for stream in function.get("streams", ())]
        return any("refusing" in stream for stream in streams)

    def _trigger_step(self, trigger: Mapping[str, Any], digest: str, unmuted: str) -> str:
        values = {**trigger, "hash": digest}
        ddl = self._fill(trigger["template"], values, unmuted=unmuted)
        if _only_for_partitions(trigger):
            return self._execute(ddl, "execute_if_partitioned")
        if "partitioned_template" in trigger:
            partitioned_ddl = self._fill(trigger["partitioned_template"], values)
            steps = {"ddl": ddl, "partitioned_ddl": partitioned_ddl}
            return templates.fill(self.version, "execute_by_kind", steps)
        return self._execute(ddl)

    def _function_steps(self, function: Mapping[str, Any], asked: Mapping[str, str]) -> str:
        """The SQL that creates a function.

        Args:
            asked: what functions ask about the transaction and the role that writes.
        """
        values = {"name": self.name, "invariant": self.invariant, **function}
        trusted = ["pg_catalog", *map(quoting.identifier, self.search_path), "pg_temp"]
        steps, ready = [], {**asked, "trusted_path": quoting.for_format(", ".join(trusted))}
        if "key" in function:
            ready["is_readable"] = self._fill("is_readable", {}, **asked)
            ready["violation"] = self._fill("violation", values, **ready)
        conditions: list[str] = []
        if "streams" in function:
            tests = [_tests(stream, conditions) for stream in function["streams"]]
            for level in ("by_row", "by_statement"):
                parts = [
                    self._stream(stream, stream[level], tested)
                    for stream, tested in zip(function["streams"], tests, strict=True)
                ]
                ready[level] = "\n".join(parts)
        if "query" in function:
            # The query is a format() string inside the function, and the function is one in turn.
            query = self._fill(function["query"], values)
            ready["query"] = quoting.for_format(query)
        if "body" in function:
            body = self._fill(function["body"], values, **ready)
            steps.append(self._body_step(body, conditions))
        steps.append(self._execute(self._fill(function["template"], values, **ready)))
        if further := _FURTHER.get(function["template"]):
            path = {"function": function["function"], "trusted_path": ", ".join(trusted)}
            steps.append(templates.fill(self.version, further, path))
        return "\n".join(steps)

    def _body_step(self, body: str, conditions: Sequence[str]) -> str:
        if not conditions:
            template = "body_with_outbox" if self.captures else "body"
            return templates.fill(self.version, template, {"body": body})
        values = {
            "body": body,
            "conditions": _text_array(conditions),
            "intruders": self._intruders("condition", "SELECT 'pg_proc'::regclass, held::oid"),
        }
        return templates.fill(self.version, "body_with_conditions", values)

    def _dependents(self) -> str:
        values = {
            "functions": _text_array(f["function"] for f in self.functions),
            "triggers": _text_array(self.trigger_names),
        }
        return templates.fill(self.version, "dependents", values)

    def _intruders(self, subject: str, dependents: str) -> str:
        """Refuses what ``dependents`` use of somebody's whom nobody need trust."""
        values = {
            "subject": subject,
            "dependents": dependents,
            "trusted": _text_array(self.search_path),
        }
        return templates.fill(self.version, "intruders", values)

    def _stream(self, stream: Mapping[str, Any], rows: str, tests: Mapping[str, str]) -> str:
        """The INSERT into the outbox for the ``rows`` of one model."""
        joins = [
            self._fill("capture_join", join, relation=self._relation(join["table"]))
            for join in stream["joins"]
        ]
        ready = {**tests, "joins": "\n".join(joins)}
        source = "bulksafe.source"
        if "source" in stream:
            ready["child"] = self._relation_name(stream["source"])
            source = f"to_regclass({ready['child']})"
        if "refusing" in stream:
            ready["tell"] = self._fill("buffer_tell", stream, told_source=source)
        return self._fill(stream["template"], {**stream, "rows": rows}, **ready)

    def _relation(self, table: str) -> str:
        """Another quoted table, with its schema."""
        text = quoting.for_format(table)
        return text if quoting.is_qualified(table) else f"%{self._home}$I.{text}"

    def _relation_name(self, table: str) -> str:
        """SQL for the same as text."""
        name = quoting.for_format(quoting.literal(table))
        return (
            name if quoting.is_qualified(table) else f"format('%%I.%%s', %{self._home}$L, {name})"
        )

    @property
    def _home(self) -> int:
        """Which argument of ``format()`` is the schema of tables that name none.

        They lie beside the trigger's table; if that names a schema, beside the outbox, which was
        made where all others are.
        """
        return 10 if quoting.is_qualified(self.table) else 2

    def _execute(self, ddl: str, template: str = "") -> str:
        template = template or ("execute_with_outbox" if self.captures else "execute")
        return templates.fill(self.version, template, {"ddl": ddl})

    def _fill(self, template: str, values: Mapping[str, Any], **ready: str) -> str:
        """Fill a template that becomes part of a ``format()`` string.

        ``values`` come from the declaration and are escaped for it, ``ready`` are.
        """
        texts = {key: value for key, value in values.items() if isinstance(value, str)}
        escaped = {key: quoting.for_format(value) for key, value in texts.items()}
        return templates.fill(self.version, template, escaped | ready)

    def _for_each_trigger(self, template: str) -> str:
        return "\n".join(
            templates.fill(
                self.version,
                template,
                {"table": quoting.relation(self.table), "trigger": trigger},
            )
            for trigger in self.expected_names
        )


#: What is done to a function after it was created, by its template.
_FURTHER = {"value_function": "value_path", "compute_function": "compute_rights"}

#: The arguments of ``format()`` that the body of every function has; conditions come after them.
_ARGUMENTS = 10


def _tests(stream: Mapping[str, Any], conditions: list[str]) -> dict[str, str]:
    """Which rows of a stream are wanted, and what is noted of them.

    Args:
        stream: what planning says of it.
        conditions: those of the function; the stream's are added.
    """
    first = _ARGUMENTS + len(conditions) + 1
    conditions += stream["conditions"].values()
    places = {key: f"%{first + n}$s" for n, key in enumerate(stream["conditions"])}
    refusing = stream.get("refusing", False)
    if not isinstance(refusing, bool):
        refused = " OR ".join(f"({places[key]}) IS TRUE" for key in refusing)
    else:
        refused = str(refusing).lower()
    if not places:
        return {"matched": "NULL::text[]", "condition": "true", "refused": refused}
    cases = [f"CASE WHEN {place} THEN {quoting.literal(key)} END" for key, place in places.items()]
    asked = quoting.literal(names.set_id(places))
    return {
        "matched": f"array_remove(ARRAY[{', '.join([asked, *cases])}], NULL)",
        "condition": "true" if stream["all_rows"] else " OR ".join(places.values()),
        "refused": refused,
    }


def _only_for_partitions(trigger: Mapping[str, Any]) -> bool:
    return bool(trigger["template"] == "move_trigger")


def _do(body: str) -> str:
    return f"DO {quoting.dollar_quoted(body, 'bulksafe')};"


def _text_array(names: Iterable[str]) -> str:
    return f"ARRAY[{', '.join(quoting.literal(name) for name in names)}]::pg_catalog.text[]"
