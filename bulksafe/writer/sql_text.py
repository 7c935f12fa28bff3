"""Parses the text of a write statement: pure functions of its tokens."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import lru_cache

from bulksafe.writer.sql_tokens import Token, tokens


@dataclass(frozen=True)
class Statement:
    """One INSERT, UPDATE, DELETE or MERGE.

    Attributes:
        verb: in upper case.
        table: the table that it writes to, without its schema.
        schema: the schema, if it names one.
        alias: the table's alias; empty without one.
        assigned: the columns that an UPDATE, or an update branch of a different statement, sets.
        inserted: the columns of an INSERT; None for all.
        returning: the ``RETURNING`` list; empty without it.
        has_source: whether it takes values from other tables by ``FROM`` or ``USING``.
        has_conflict: whether it has ``ON CONFLICT``.
    """

    verb: str
    table: str
    schema: str
    alias: str
    assigned: tuple[str, ...]
    inserted: tuple[str, ...] | None
    returning: str
    has_source: bool
    has_conflict: bool

    def inserts(self, columns: Iterable[str]) -> bool:
        """Whether it gives values to all of these columns."""
        return self.inserted is None or set(columns) <= set(self.inserted)


#: The maximum length to parse, about 50 ms; and the maximum length to cache.
_LONGEST, _LONG = 50_000, 4000


def parse(text: str) -> Statement | None:
    """The statement of a text; None if it is not a single one of these, or not understood.

    Statement texts recur, without their parameters. A text with literal values may be too long to
    cache or to parse.
    """
    if len(text) > _LONGEST:
        return None
    return _kept(text) if len(text) <= _LONG else _parse(text)


@lru_cache(maxsize=2000)
def _kept(text: str) -> Statement | None:
    return _parse(text)


def _parse(text: str) -> Statement | None:
    found = tokens(text)
    while found and found[-1].text == ";":
        found.pop()
    if not found or any(token.text == ";" for token in found):
        return None
    verb = found[0].text
    place = _after_verb(found)
    if found[0].kind != "word" or place is None:
        return None
    if _is_word(found, place, "ONLY"):
        place += 1
    names, place = _dotted(found, place)
    if not names:
        return None
    if place < len(found) and found[place].text == "*":
        place += 1
    alias, place = _alias(found, place, verb)
    top = [token for token in found[place:] if token.depth == 0]
    words = [token.text if token.kind == "word" else "" for token in top]
    has_conflict = verb == "INSERT" and "CONFLICT" in words
    updates = verb in {"UPDATE", "MERGE"} or has_conflict
    assigned = _assigned(found[place:]) if updates else ()
    if assigned is None:
        return None
    returning = ""
    if "RETURNING" in words:
        last = len(words) - 1 - words[::-1].index("RETURNING")
        end = top[last].start + len("RETURNING")
        returning = text[end:].rstrip().rstrip(";").strip()
    return Statement(
        verb=verb,
        table=names[-1],
        schema=names[-2] if len(names) > 1 else "",
        alias=alias,
        assigned=tuple(dict.fromkeys(assigned)),
        inserted=_inserted(found, place),
        returning=returning,
        has_source=bool({"FROM", "USING"} & set(words)),
        has_conflict=has_conflict,
    )


def writes_once(text: str) -> bool:
    """Whether a text is one statement that writes to one table, perhaps behind a ``WITH``.

    A data-modifying ``WITH`` writes more than once. Writes of functions are not detected here.
    """
    if len(text) > _LONGEST:
        return parse(text) is not None
    found = tokens(text)
    while found and found[-1].text == ";":
        found.pop()
    if any(token.text == ";" for token in found):
        return False
    if found and found[0].text == "MERGE":
        return True
    verbs = [
        token
        for before, token in zip([None, *found], found, strict=False)
        if token.kind == "word"
        and token.text in {"INSERT", "UPDATE", "DELETE", "MERGE"}
        # FOR NO KEY UPDATE, ON CONFLICT DO UPDATE
        and (before is None or before.text not in {"FOR", "KEY", "DO"})
    ]
    return len(verbs) == 1


def _after_verb(found: list[Token]) -> int | None:
    """The position of the table name."""
    match found[0].text:
        case "UPDATE":
            return 1
        case "DELETE":
            return 2 if _is_word(found, 1, "FROM") else None
        case "INSERT" | "MERGE":
            return 2 if _is_word(found, 1, "INTO") else None
    return None


def _is_word(found: list[Token], place: int, word: str) -> bool:
    return place < len(found) and found[place].kind == "word" and found[place].text == word


def _dotted(found: list[Token], place: int) -> tuple[list[str], int]:
    """A possibly qualified name, and the position after it."""
    names: list[str] = []
    while place < len(found) and found[place].is_identifier:
        names.append(found[place].identifier)
        place += 1
        if place >= len(found) or found[place].text != ".":
            break
        place += 1
    return names, place


#: Words that may follow the table name and are not an alias.
_CLAUSES = frozenset({"SET", "WHERE", "USING", "RETURNING", "DEFAULT", "VALUES", "SELECT"})
_MORE_CLAUSES = frozenset({"WITH", "OVERRIDING", "ON", "TABLE", "FROM", "WHEN"})


def _alias(found: list[Token], place: int, verb: str) -> tuple[str, int]:
    if _is_word(found, place, "AS"):
        return found[place + 1].identifier, place + 2
    if verb == "INSERT" or place >= len(found) or not found[place].is_identifier:
        # INSERT takes an alias only after AS.
        return "", place
    token = found[place]
    if token.kind == "word" and token.text in _CLAUSES | _MORE_CLAUSES:
        return "", place
    return token.identifier, place + 1


def _assigned(found: list[Token]) -> list[str] | None:
    """The columns of the SET clauses, in any branch; None if one is not understood."""
    columns: list[str] = []
    for place, token in enumerate(found):
        if token.kind == "word" and token.text == "SET" and token.depth == 0:
            listed = _of_set_clause(found, place + 1)
            if listed is None:
                return None
            columns += listed
    return columns


def _of_set_clause(found: list[Token], place: int) -> list[str] | None:
    columns: list[str] = []
    while place < len(found):
        if found[place].text == "(":
            # Several at once: (a, b) = (…)
            inner = place + 1
            while inner < len(found) and found[inner].text != ")":
                if found[inner].is_identifier:
                    columns.append(found[inner].identifier)
                inner += 1
            place = inner + 1
        elif found[place].is_identifier:
            columns.append(found[place].identifier)
            place += 1
        else:
            return None
        # Skip to the comma before the next target, or to the end of the clause.
        while place < len(found) and not (
            found[place].depth == 0 and (found[place].text == "," or _ends_set(found[place]))
        ):
            place += 1
        if place >= len(found) or found[place].text != ",":
            return columns
        place += 1
    return None


def _inserted(found: list[Token], place: int) -> tuple[str, ...] | None:
    """The columns with values in any branch; none if a value may be ``DEFAULT``."""
    if any(_is_word(found, at, "DEFAULT") for at in range(len(found))):
        return ()
    if found[0].text == "INSERT":
        starts = [place]
    else:
        starts = [at + 1 for at in range(place, len(found)) if _is_word(found, at, "INSERT")]
    columns: list[str] = []
    for start in starts:
        if start >= len(found) or found[start].text != "(":
            return None
        if _is_word(found, start + 1, "SELECT") or _is_word(found, start + 1, "VALUES"):
            return None
        end = next(at for at in range(start, len(found)) if found[at].text == ")")
        columns += [token.identifier for token in found[start:end] if token.is_identifier]
    return tuple(dict.fromkeys(columns))


def names_only(text: str, tables: Collection[str], columns: Collection[str]) -> bool:
    """Whether a list of expressions contains only columns of one table.

    Args:
        tables: the names that may qualify them.
        columns: the columns of the table.
    """
    found = tokens(text)
    place = 0
    while place < len(found):
        token = found[place]
        following = found[place + 1].text if place + 1 < len(found) else ""
        preceding = found[place - 1].text if place else ","
        if token.is_identifier and following == ".":
            if token.identifier not in tables:
                return False
            place += 2
        elif (token.text == "*" and preceding in {",", "("}) or (
            token.is_identifier
            and "AS" not in {preceding, token.text}
            and following != "("
            and token.identifier not in columns
        ):
            return False
        place += 1
    return True


def _ends_set(token: Token) -> bool:
    return token.kind == "word" and token.text in {"FROM", "WHERE", "RETURNING", "WHEN"}
