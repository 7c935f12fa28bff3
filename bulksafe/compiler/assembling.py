"""Assembles the SQL of functions and triggers from the templates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bulksafe.rendering import names, quoting, templates

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

#: The steps after a function is created, by its template.
_FURTHER = {"value_function": "value_path", "compute_function": "compute_rights"}

#: The old and the new image of a recorded violation, by the body that records it.
_IMAGES = {"observe_truncate": "subject, NULL"}

#: The arguments of ``format()`` that the body of every function has; conditions come after them.
_ARGUMENTS = 10


@dataclass(frozen=True)
class Assembly:
    """Fills the templates of one trigger.

    Attributes:
        name, invariant, pgid, version, functions, triggers, search_path: as ``Trigger`` has them.
        table: the table that it is installed on; empty if that is not known.
        captures: whether it writes to the outbox.
        observes: whether it records violations.
        buffers: whether it has in-transaction receivers.
    """

    name: str
    invariant: str
    pgid: str
    version: str
    functions: Sequence[Mapping[str, Any]]
    triggers: Sequence[Mapping[str, Any]]
    search_path: Sequence[str]
    table: str
    captures: bool
    observes: bool
    buffers: bool

    def steps(self, digest: str) -> str:
        unmuted = self._fill("unmuted", {"invariant": self.invariant, "pgid": self.pgid})
        caller = templates.read(self.version, "caller")
        asked = {
            "unmuted": unmuted,
            "caller": caller,
            "is_application": self._fill("is_application", {}, caller=caller),
        }
        steps = [templates.read(self.version, "outbox_required")] if self.captures else []
        steps += [templates.read(self.version, "tickets_required")] if self.buffers else []
        steps += [templates.read(self.version, "violations_required")] if self.observes else []
        steps += [self._function_steps(function, asked) for function in self.functions]
        steps += [self._trigger_step(trigger, digest, unmuted) for trigger in self.triggers]
        return "\n\n".join(steps)

    def _trigger_step(self, trigger: Mapping[str, Any], digest: str, unmuted: str) -> str:
        values = {**trigger, "hash": digest}
        ddl = self._fill(trigger["template"], values, unmuted=unmuted)
        if only_for_partitions(trigger):
            return self._execute(ddl, "execute_if_partitioned")
        if "partitioned_template" in trigger:
            partitioned_ddl = self._fill(trigger["partitioned_template"], values)
            steps = {"ddl": ddl, "partitioned_ddl": partitioned_ddl}
            return templates.fill(self.version, "execute_by_kind", steps)
        return self._execute(ddl)

    def _function_steps(self, function: Mapping[str, Any], asked: Mapping[str, str]) -> str:
        """The SQL that creates a function.

        Args:
            asked: expressions about the transaction and the writing role.
        """
        values = {"name": self.name, "invariant": self.invariant, **function}
        trusted = ["pg_catalog", *map(quoting.identifier, self.search_path), "pg_temp"]
        steps, ready = [], {**asked, "trusted_path": quoting.for_format(", ".join(trusted))}
        if is_observing(function):
            ready["images"] = _IMAGES.get(function["body"], "to_jsonb(OLD), to_jsonb(NEW)")
            for part in ("is_recording", "record"):
                ready[part] = self._fill(part, values, **ready)
        elif "key" in function:
            ready["is_readable"] = self._fill("is_readable", {}, **asked)
            message = "message_of_states" if "state_column" in function else "message"
            ready["message_text"] = self._fill(message, values, **ready)
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
            template = "body_with_outbox" if self.captures or self.observes else "body"
            return templates.fill(self.version, template, {"body": body})
        values = {
            "body": body,
            "conditions": text_array(conditions),
            "intruders": self.intruders("condition", "SELECT 'pg_proc'::regclass, held::oid"),
        }
        return templates.fill(self.version, "body_with_conditions", values)

    def dependents(self) -> str:
        values = {
            "functions": text_array(f["function"] for f in self.functions),
            "triggers": text_array(trigger["trigger"] for trigger in self.triggers),
        }
        return templates.fill(self.version, "dependents", values)

    def intruders(self, subject: str, dependents: str) -> str:
        """The step that refuses functions and operators of untrusted owners in ``dependents``."""
        values = {
            "subject": subject,
            "dependents": dependents,
            "trusted": text_array(self.search_path),
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
            ready["model_source"] = source
            ready["changed"] = f"bulksafe_{'old' if stream['operation'] == 'D' else 'new'}"
            ready["notice"] = self._fill("buffer_notice", stream, model_source=source)
        return self._fill(stream["template"], {**stream, "rows": rows}, **ready)

    def _relation(self, table: str) -> str:
        """A different table, quoted, with its schema."""
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

        They are in the schema of the trigger's table. If that table names its schema, they are in
        the schema of the outbox, where all other tables are.
        """
        return 10 if quoting.is_qualified(self.table) else 2

    def _execute(self, ddl: str, template: str = "") -> str:
        template = template or ("execute_with_outbox" if self.captures else "execute")
        return templates.fill(self.version, template, {"ddl": ddl})

    def _fill(self, template: str, values: Mapping[str, Any], **ready: str) -> str:
        """Fill a template that becomes part of a ``format()`` string.

        ``values`` come from the declaration and are escaped here; ``ready`` are escaped already.
        """
        texts = {key: value for key, value in values.items() if isinstance(value, str)}
        escaped = {key: quoting.for_format(value) for key, value in texts.items()}
        return templates.fill(self.version, template, escaped | ready)


def _tests(stream: Mapping[str, Any], conditions: list[str]) -> dict[str, str]:
    """The row conditions of a stream, and the condition ids to store.

    Args:
        stream: the planned stream.
        conditions: those of the function; the stream's are added.
    """
    first = _ARGUMENTS + len(conditions) + 1
    conditions += stream["conditions"].values()
    places = {key: f"%{first + n}$s" for n, key in enumerate(stream["conditions"])}
    refused = _any(stream.get("refusing", False), places)
    marks = list(_marks(stream, places))
    if not places:
        matched = f"array_remove(ARRAY[{', '.join(marks)}], NULL)" if marks else "NULL::text[]"
        return {"matched": matched, "condition": "true", "refused": refused}
    cases = [f"CASE WHEN {place} THEN {quoting.literal(key)} END" for key, place in places.items()]
    asked = quoting.literal(names.set_id(places))
    return {
        "matched": f"array_remove(ARRAY[{', '.join([asked, *cases, *marks])}], NULL)",
        "condition": "true" if stream["all_rows"] else " OR ".join(places.values()),
        "refused": refused,
    }


def _any(keys: bool | Sequence[str], places: Mapping[str, str]) -> str:
    """Whether one of the conditions is met."""
    if isinstance(keys, bool):
        return str(keys).lower()
    return " OR ".join(f"({places[key]}) IS TRUE" for key in keys) or "false"


def _marks(stream: Mapping[str, Any], places: Mapping[str, str]) -> Iterator[str]:
    """Names for ``matched``: receivers whose missed calls are recorded, and whether that is all."""
    for receiver, key in stream.get("observing", {}).items():
        mark = quoting.for_format(quoting.literal(f"observe:{receiver}"))
        yield f"CASE WHEN {places[key]} THEN {mark} END" if key else mark
    if "observing" in stream:
        yield f"CASE WHEN NOT ({_any(stream['handing'], places)}) THEN 'observed' END"


def is_observing(function: Mapping[str, Any]) -> bool:
    """Whether the function records violations."""
    return str(function.get("body", "")).startswith("observe")


def only_for_partitions(trigger: Mapping[str, Any]) -> bool:
    return bool(trigger["template"] == "move_trigger")


def text_array(names: Iterable[str]) -> str:
    return f"ARRAY[{', '.join(quoting.literal(name) for name in names)}]::pg_catalog.text[]"
