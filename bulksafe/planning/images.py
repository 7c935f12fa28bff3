"""SQL for the image and the key of a row, from all its tables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bulksafe.declarations.lineage import lineage
from bulksafe.declarations.through import links
from bulksafe.planning import fields
from bulksafe.planning.expressions import NEW
from bulksafe.rendering import quoting

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from django.db import models

    Model = type[models.Model]

#: Types with their own cast to JSON, which cannot be reversed.
_KEPT_AS_TEXT = frozenset({"hstore", "geometry", "geography", "raster"})


@dataclass(frozen=True)
class StoredRow:
    """SQL that reads a stored row in the form of a capture; its own table is ``"new"``.

    Attributes:
        key: the row's key.
        image: the row as JSON.
        source: the joined tables.
        aliases: their quoted names, the root parent first: in the order of Django's writes.
    """

    key: str
    image: str
    source: str
    aliases: Sequence[str]


def stored_row(model: Model) -> StoredRow:
    lineage = Lineage(model, {model: NEW}, "JOIN")
    tables = [f"{quoting.relation(model._meta.db_table)} AS {quoting.identifier(NEW)}"]
    for join in lineage.joins:
        alias = quoting.identifier(join["alias"])
        tables.append(f"{join['kind']} {join['table']} AS {alias} ON {join['on']}")
    return StoredRow(
        key_of(model, NEW),
        lineage.image({}),
        "\n".join(tables),
        [quoting.identifier(lineage.aliases[part]) for part in lineage.models],
    )


class Lineage:
    """The tables of a model's rows, joined to the one whose rows are given.

    Args:
        source: the model.
        known: the given table and its alias.
        kind: ``LEFT JOIN`` if the other parts may already be deleted.
    """

    def __init__(self, source: Model, known: Mapping[Model, str], kind: str) -> None:
        # The root first: its columns come first in the image.
        self.models = sorted(lineage(source), key=lambda model: len(model._meta.all_parents))
        self.aliases = dict(known)
        self.joins: list[dict[str, str]] = []
        known_links = [link for model in self.models for link in _links(model)]
        while missing := [link for link in known_links if self._leads_on(link)]:
            self._join(missing[0], NEW if source not in self.aliases else None, kind)

    def _leads_on(self, link: _Link) -> bool:
        return (link.child in self.aliases) != (link.parent in self.aliases)

    def _join(self, link: _Link, source_alias: str | None, kind: str) -> None:
        added = link.parent if link.child in self.aliases else link.child
        is_source = added is self.models[-1]
        alias = (is_source and source_alias) or f"part {len(self.joins) + 1}"
        self.aliases[added] = alias
        child, parent = self.aliases[link.child], self.aliases[link.parent]
        child_column, parent_column = map(quoting.identifier, (link.column, link.target))
        self.joins.append(
            {
                "kind": kind,
                "table": quoting.relation(added._meta.db_table),
                "alias": alias,
                "on": f"{quoting.identifier(child)}.{child_column} = "
                f"{quoting.identifier(parent)}.{parent_column}",
            }
        )

    def image(self, aliases: Mapping[Model, str]) -> str:
        """SQL for the row as JSON; ``aliases`` name the old or the new state of a part."""
        named = self.aliases | dict(aliases)
        return " || ".join(
            row_as_json(model, named[model]) for model in self.models if model in named
        )


@dataclass(frozen=True)
class _Link:
    """The link from a child's row to its parent's row."""

    child: Model
    parent: Model
    column: str
    target: str


def _links(model: Model) -> Iterator[_Link]:
    for parent, link in model._meta.parents.items():
        if link is not None and not parent._meta.proxy:
            target: Any = link.target_field  # type: ignore[attr-defined]
            yield _Link(model, parent, str(link.column), str(target.column))


def row_as_json(model: Model, alias: str) -> str:
    """SQL for a row of a table as its image in JSON."""
    row = quoting.identifier(alias)
    texts = [
        f"{quoting.literal(field.column)}, {row}.{quoting.identifier(str(field.column))}::text"
        for field in model._meta.local_concrete_fields
        if fields.type_of(field).partition("(")[0].rstrip("[]") in _KEPT_AS_TEXT
    ]
    extra = f" || jsonb_build_object({', '.join(texts)})" if texts else ""
    return f"to_jsonb({row}.*){extra}"


def key_of(model: Model, row: str) -> str:
    """SQL for the key of a model's rows as text.

    The rows of a many-to-many table use the key of their instance: a link that is removed and added
    again has a new primary key, and its events must stay in order.
    """
    columns = [f"{quoting.identifier(row)}.{quoting.identifier(key)}" for key in _keys_of(model)]
    if len(columns) == 1:
        return f"{columns[0]}::text"
    return f"jsonb_build_array({', '.join(columns)})::text"


def _keys_of(model: Model) -> list[str]:
    """The columns of the key."""
    linked = links(model)
    link = linked[0] if linked else None
    # It may have no own column, or be in a parent's table.
    if link is None or not link.column or link.model is not model._meta.concrete_model:
        return fields.primary_key_columns(model)
    return [str(link.column)]
