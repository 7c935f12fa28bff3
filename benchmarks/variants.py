"""What is compared: the same table under different rules."""

from __future__ import annotations

from dataclasses import dataclass

BASELINE = "none"
CONTROL = "none-again"
BULKSAFE = "bulksafe"
CHECKS = "bulksafe-checks"
OBSERVED = "bulksafe-observed"
SIGNALS = "signals"

LARGE = 100_000
"""Above this number of rows only the variants marked ``large`` are measured."""

ALL_RULES = frozenset({"discount", "shipped", "net", "number", "initial", "status"})


@dataclass(frozen=True)
class Variant:
    """One way to keep the rules.

    Attributes:
        key: its name in the JSON file.
        label: its name in the tables.
        model: the model of the app ``benchmarks`` that it is declared on.
        rules: the rules that it must keep, by the names in ``proof.py``.
        large: whether it is also measured on large tables.
        per_row: whether the rows are written with ``save()`` and not in bulk.
    """

    key: str
    label: str
    model: str
    rules: frozenset[str] = ALL_RULES
    large: bool = False
    per_row: bool = False


def _single(key: str, label: str, model: str, *rules: str) -> Variant:
    return Variant(key, label, model, frozenset(rules))


VARIANTS = [
    Variant(BASELINE, "no rules", "Plain", frozenset(), large=True),
    Variant(CONTROL, "no rules, again", "PlainAgain", frozenset(), large=True),
    Variant(BULKSAFE, "five invariants", "FiveInvariants", large=True),
    Variant(CHECKS, "four, no Compute", "WithoutCompute", ALL_RULES - {"net"}, large=True),
    Variant(OBSERVED, "four, observed", "Observed", frozenset(), large=True),
    _single("only-discount", "Check discount", "DiscountOnly", "discount"),
    _single("only-shipped", "Check shipped", "ShippedOnly", "shipped"),
    _single("only-net", "Compute net", "NetOnly", "net"),
    _single("only-number", "Immutable number", "NumberOnly", "number"),
    _single("only-status", "Transition status", "StatusOnly", "initial", "status"),
    Variant("hand-functions", "pgtrigger, func", "HandFunctions", large=True),
    Variant("hand-conditions", "pgtrigger, Q", "HandConditions", large=True),
    Variant("hand-one-function", "pgtrigger, one func", "HandOneFunction"),
    Variant("hand-after", "pgtrigger, Q, AFTER", "HandAfter"),
    Variant(SIGNALS, "signal receivers", "Signals", per_row=True),
]
BY_KEY = {variant.key: variant for variant in VARIANTS}
HANDWRITTEN = [variant.key for variant in VARIANTS if variant.key.startswith("hand-")]

BULK_CREATE = "bulk_create"
UPDATE_UNREAD = "update-unread"
UPDATE_INPUT = "update-input"
SAVE_INSERT = "save-insert"
SAVE_UPDATE = "save-update"

OPERATIONS = {
    BULK_CREATE: "bulk_create()",
    UPDATE_UNREAD: "update(), unread column",
    UPDATE_INPUT: "update(), Compute's input",
    SAVE_INSERT: "save() of new rows",
    SAVE_UPDATE: "save() of stored rows",
}
BULK_OPERATIONS = [BULK_CREATE, UPDATE_UNREAD, UPDATE_INPUT]
