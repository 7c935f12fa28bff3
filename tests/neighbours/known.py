"""Differences that are explained, each with the reason.

What stands here is not a difference for the exit status. A reason is a difference between Django's
signals and critical receivers that is documented, and that a test of the package is about.
"""

_EACH = (
    "bulk_create(ignore_conflicts=True) on a model with receivers before the write stores each "
    "object by itself: only then is it known which of them the database leaves out."
)

_TWICE = (
    "bulk_create_with_history() and bulk_update_with_history() write the history that Django's "
    "signals leave out. The critical receivers run for bulk writes and write it, too. With them, "
    "bulk_create() and bulk_update() are enough."
)

_BULK = (
    "The test expects that a bulk write, by bulk_create() or set_…_order(), leaves no history. "
    "Critical receivers run for bulk writes."
)

_MIGRATIONS = (
    "The test brings the migrations of an app back that the settings switch off, and whose tables "
    "are there already. The migration of the app that attaches triggers to them depends on those, "
    "and Django finds it applied before them."
)

_HISTORY = "simple_history.tests.tests."
_CREATE = f"{_HISTORY}test_utils.BulkCreateWithHistoryTestCase."
_CREATE_COMMITTED = f"{_HISTORY}test_utils.BulkCreateWithHistoryTransactionTestCase."
_UPDATE = f"{_HISTORY}test_utils.BulkUpdateWithHistoryTestCase."
_UPDATE_MANAGERS = f"{_HISTORY}test_utils.BulkUpdateWithHistoryAlternativeManagersTestCase."
_VIEWS = f"{_HISTORY}test_middleware.MiddlewareBulkOpsTest."
_MIGRATE = "simple_history.registry_tests.tests.TestMigrate."


def _each(place, names, reason):
    return {f"{place}{name}": reason for name in names.split()}


_WAGTAIL = _each(
    "wagtail.images.tests.test_models.TestRenditions.",
    """
    test_create_renditions
    test_get_renditions_performance_with_rendition_caching_disabled
    test_get_renditions_performance_with_rendition_caching_enabled
    """,
    _EACH,
)

_SIMPLE_HISTORY = {
    **_each(
        _CREATE,
        """
        test_bulk_create_history
        test_bulk_create_history_alternative_manager
        test_bulk_create_history_num_queries_is_two
        test_bulk_create_history_with_batch_size
        test_bulk_create_history_with_default_change_reason
        test_bulk_create_history_with_default_date
        test_bulk_create_history_with_default_user
        test_bulk_create_history_with_duplicates_ignore_conflicts
        test_bulk_create_history_with_no_ids_return
        test_bulk_create_history_with_relation_name
        test_bulk_create_works_with_excluded_fields
        test_num_queries_when_batch_size_is_less_than_total
        """,
        _TWICE,
    ),
    **_each(
        _UPDATE,
        """
        test_bulk_update_history
        test_bulk_update_history_num_queries_is_two
        test_bulk_update_history_with_batch_size
        test_bulk_update_history_with_default_change_reason
        test_bulk_update_history_with_default_date
        test_bulk_update_history_with_default_user
        test_bulk_update_history_without_history_enabled
        test_num_queries_when_batch_size_is_less_than_total
        """,
        _TWICE,
    ),
    **_each(
        _UPDATE_MANAGERS,
        """
        test_bulk_update_history_default_manager
        test_bulk_update_history_other_manager
        """,
        _TWICE,
    ),
    **_each(
        _VIEWS,
        """
        test_request_user_is_overwritten_by_default_user_on_bulk_create_view
        test_user_is_not_set_on_bulk_create_view_not_logged_in
        test_user_is_set_on_bulk_create_view_when_logged_in
        """,
        _TWICE,
    ),
    **_each(
        _CREATE_COMMITTED,
        """
        test_bulk_create_history_on_objects_that_already_exist
        """,
        _BULK,
    ),
    **_each(
        _MIGRATE,
        """
        test_makemigration_command
        test_migrate_command
        """,
        _MIGRATIONS,
    ),
    f"{_HISTORY}test_models.TestOrderWrtField.test_restore_object_with_changed_order": _BULK,
}

#: By the name of the package, the reasons by test.
KNOWN = {"wagtail": _WAGTAIL, "simple-history": _SIMPLE_HISTORY}
