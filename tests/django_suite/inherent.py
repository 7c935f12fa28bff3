"""Tests of Django's that cannot have the same outcome with bulksafe, each with the reason.

What stands here is not a difference for the exit status. Keep it short: what bulksafe can do so
that Django's test passes, it should do.
"""

_WRAPPERS = "It names all execute wrappers of a connection, and bulksafe's are among them."

_STATEMENTS = (
    "It names or counts all statements, and a write with critical receivers is in a transaction or "
    "a savepoint of its own."
)

_SAVEPOINT = (
    "It expects that a failing save() breaks the transaction around it. With critical receivers, "
    "save() is in a savepoint of its own, and the transaction goes on."
)

_NO_HASH = (
    "The primary keys are objects without a hash, by which neither Django's deletions nor "
    "receivers can find a row."
)

_CURSORS = (
    "It compares the class of the driver's cursors. bulksafe's is a subclass of it, which turns "
    "the driver's errors into InvariantViolation where Django's wrappers do not see them."
)

_TIME = "It measures time, and the machine has had something else to do."

INHERENT = {
    "backends.base.test_base.ExecuteWrapperTests.test_wrapper_connection_specific": _WRAPPERS,
    "backends.postgresql.tests.Tests.test_connect_custom_cursor_factory": _CURSORS,
    "backends.postgresql.tests.Tests.test_connect_server_side_binding": _CURSORS,
    "serializers.test_deserialization.TestDeserializer.test_crafted_xml_performance": _TIME,
}

#: With a receiver of every model, in addition.
INHERENT_OF_RECEIVERS = {
    "backends.base.test_base.DatabaseWrapperLoggingTests.test_commit_debug_log": _STATEMENTS,
    "backends.base.test_base.ExecuteWrapperTests.test_nested_wrapper_invoked": _STATEMENTS,
    "backends.base.test_base.ExecuteWrapperTests.test_wrapper_invoked_many": _STATEMENTS,
    "backends.tests.BackendTestCase.test_queries": _STATEMENTS,
    "basic.tests.SelectOnSaveTests.test_select_on_save_lying_update": _SAVEPOINT,
    "custom_pk.tests.CustomPKTests.test_auto_field_subclass_bulk_create": _NO_HASH,
    "transactions.tests.AtomicErrorsTests.test_atomic_prevents_queries_in_broken_transaction": (
        _SAVEPOINT
    ),
}

_FEWER_QUERIES = (
    "Django collects rows for ordinary receivers before it deletes them; critical ones of "
    "post_delete do without."
)

#: For tests that fail with ordinary receivers and pass with critical ones, by what they begin with.
BETTER = {"delete.": _FEWER_QUERIES, "delete_regress.": _FEWER_QUERIES}
