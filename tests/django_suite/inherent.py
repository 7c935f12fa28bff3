"""Tests of Django's that cannot have the same outcome with bulksafe, each with the reason.

What stands here is not a difference for the exit status. Keep it short: what bulksafe can do so
that Django's test passes, it should do.
"""

_WRAPPERS = "It names all execute wrappers of a connection, and bulksafe's are among them."

_EACH = (
    "It counts the calls of an execute wrapper for executemany(). With critical receivers each of "
    "its statements is executed by itself."
)

_SAVEPOINT = (
    "It expects that a failing save() breaks the transaction around it. With critical receivers, "
    "save() is in a savepoint of its own, and the transaction goes on."
)

_FIRST_ROW = (
    "The first bulk write writes its first row alone: it finds out whether the receivers' work "
    "depends on the order of the rows."
)

_NO_ROW = (
    "The rows whose order it sets are in the other database. With critical receivers the rows are "
    "read first, and without any nothing is written."
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
    "backends.base.test_base.ExecuteWrapperTests.test_nested_wrapper_invoked": _EACH,
    "backends.base.test_base.ExecuteWrapperTests.test_wrapper_invoked_many": _EACH,
    "basic.tests.SelectOnSaveTests.test_select_on_save_lying_update": _SAVEPOINT,
    "backends.postgresql.test_compilation.BulkCreateUnnestTests.test_non_literal": _FIRST_ROW,
    "backends.postgresql.test_compilation.BulkCreateUnnestTests."
    "test_unnest_eligible_foreign_keys": _FIRST_ROW,
    "bulk_create.tests.BulkCreateTests.test_efficiency": _FIRST_ROW,
    "contenttypes_tests.test_order_with_respect_to.OrderWithRespectToGFKTests."
    "test_database_routing": _NO_ROW,
    "order_with_respect_to.tests.OrderWithRespectToBaseTests.test_database_routing": _NO_ROW,
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
