"""django-import-export: a refused row is an invalid row, with the message of the rule."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from django.core.exceptions import NON_FIELD_ERRORS, ValidationError
from django.db import connections, transaction

from bulksafe.exceptions import InvariantViolation
from bulksafe.refusals import REFUSALS, Refusal, is_about, validation_error

try:
    from import_export.results import RowResult
except ModuleNotFoundError as missing:
    if (missing.name or "").partition(".")[0] != "import_export":
        raise
    raise ImportError(
        "bulksafe.import_export needs django-import-export. Run: pip install django-import-export"
    ) from missing

if TYPE_CHECKING:
    from collections.abc import Mapping

    from django.db.models import Model

    class _Resource:
        """The part of import-export's ``ModelResource`` that the mixin extends."""

        _meta: Any

        def import_row(
            self, row: Mapping[str, Any], instance_loader: Any, **kwargs: Any
        ) -> RowResult:
            raise NotImplementedError

        def handle_import_error(
            self, result: Any, error: Exception, raise_errors: bool = False
        ) -> None:
            raise NotImplementedError

        def after_import(self, dataset: Any, result: Any, **kwargs: Any) -> None:
            raise NotImplementedError

        def get_db_connection_name(self) -> str:
            raise NotImplementedError

else:
    _Resource = object


class RefusedImport(Exception):  # noqa: N818
    """A refused bulk write, or a refusal at the end of the import; the text is the message.

    Attributes:
        refusal: what was raised.
    """

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(" ".join(validation_error(refusal).messages))
        self.refusal = refusal


class RefusalMessagesMixin(_Resource):
    """A resource whose import shows the message of the rule or receiver that refuses a row.

    Without it, the row shows PostgreSQL's error with its ``DETAIL`` and ``CONTEXT``. Deferred
    rules are checked at the end of the import, in the preview too. With ``use_bulk``, a message
    stands for the whole batch.

    Put it before import-export's class: ``class OrderResource(RefusalMessagesMixin,
    resources.ModelResource)``.
    """

    def import_row(self, row: Mapping[str, Any], instance_loader: Any, **kwargs: Any) -> RowResult:
        using = self.get_db_connection_name()
        # Not in autocommit, where a refused write is rolled back, nor in bulk, which writes later.
        is_nested = connections[using].in_atomic_block and not self._meta.use_bulk
        with transaction.atomic(using) if is_nested else nullcontext():
            result = super().import_row(row, instance_loader, **kwargs)
            refusal = result.errors[-1].error if result.errors else result.validation_error
            if isinstance(refusal, REFUSALS):
                result.errors = []
                result.import_type = RowResult.IMPORT_TYPE_INVALID
                result.validation_error = _by_field(refusal, self._meta.model)
                if is_nested:
                    # A receiver may refuse a row after it is written.
                    transaction.set_rollback(True, using)
        return result

    def handle_import_error(
        self, result: Any, error: Exception, raise_errors: bool = False
    ) -> None:
        shown = error
        if isinstance(error, REFUSALS):
            shown = RefusedImport(error)
        super().handle_import_error(result, shown, raise_errors)

    def after_import(self, dataset: Any, result: Any, **kwargs: Any) -> None:
        super().after_import(dataset, result, **kwargs)
        connection = connections[self.get_db_connection_name()]
        # In autocommit, deferred rules were checked with each row.
        if connection.vendor == "postgresql" and connection.in_atomic_block:
            connection.check_constraints()


def _by_field(refusal: Refusal, model: type[Model]) -> ValidationError:
    """For import-export's list of the errors of a row, which is by field."""
    error = validation_error(refusal)
    if hasattr(error, "error_dict"):
        return error
    field = None
    if isinstance(refusal, InvariantViolation) and is_about(refusal, model):
        field = refusal.field
    return ValidationError({field or NON_FIELD_ERRORS: error})
