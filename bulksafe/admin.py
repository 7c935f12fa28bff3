"""The admin: a refused write is a message on the page."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from django.contrib import messages
from django.contrib.admin.options import IS_POPUP_VAR
from django.contrib.admin.templatetags.admin_urls import add_preserved_filters
from django.core.exceptions import ValidationError
from django.db import connections, router, transaction
from django.http import HttpResponseRedirect
from django.urls import reverse

from bulksafe import compat
from bulksafe.exceptions import InvariantViolation
from bulksafe.refusals import REFUSALS, Refusal, is_about, validation_error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from django.contrib.admin import ModelAdmin
    from django.db.models import Model, QuerySet
    from django.forms import BaseModelFormSet, ModelForm
    from django.http import HttpRequest, HttpResponse
    from django.http.response import HttpResponseBase

    _ModelAdmin = ModelAdmin[Any]
else:
    _ModelAdmin = object


class RefusalMessagesMixin(_ModelAdmin):
    """Shows the message of the rule or receiver that refuses a write, in place of an error page.

    A refused form comes back with the message and what was typed in; a refused deletion or action
    leads back with a message that names the object. Nothing of the request is stored, the entries
    of the history included. For that, actions run in a transaction. Rules at the commit count too.

    Put it before Django's class: ``class OrderAdmin(RefusalMessagesMixin, admin.ModelAdmin)``.
    """

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> Any:
        view = super().changeform_view
        return self._repeated(request, lambda: view(request, object_id, form_url, extra_context))

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> Any:
        view = super().changelist_view
        if "_save" not in request.POST:
            return view(request, extra_context)
        return self._repeated(request, lambda: view(request, extra_context))

    def _repeated(self, request: HttpRequest, view: Callable[[], HttpResponse]) -> HttpResponseBase:
        """If the write is refused, let the view show the form again, with the error.

        The view validates its form again, which is invalid now, so it saves nothing.
        """
        if request.method != "POST":
            return view()
        try:
            with self._undone_if_refused(request):
                return view()
        except REFUSALS as refusal:
            error = _Error(refusal, router.db_for_write(self.model))
        for file in (file for _, files in request.FILES.lists() for file in files):
            file.seek(0)
        request.bulksafe_error = error  # type: ignore[attr-defined]
        try:
            with self._undone_if_refused(request):
                return view()
        except REFUSALS:
            # The class builds its form without get_form().
            self.message_user(request, error.text(), messages.ERROR)
            return HttpResponseRedirect(request.get_full_path())

    def get_form(
        self, request: HttpRequest, obj: Model | None = None, change: bool = False, **kwargs: Any
    ) -> type[ModelForm[Any]]:
        form = super().get_form(request, obj, change=change, **kwargs)
        error: _Error | None = getattr(request, "bulksafe_error", None)
        return form if error is None else _refused_form(form, error)

    def get_changelist_formset(
        self, request: HttpRequest, **kwargs: Any
    ) -> type[BaseModelFormSet[Any, Any]]:
        formset = super().get_changelist_formset(request, **kwargs)
        error: _Error | None = getattr(request, "bulksafe_error", None)
        return formset if error is None else _refused_formset(formset, error)

    def delete_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> Any:
        if request.method != "POST":
            return super().delete_view(request, object_id, extra_context)
        try:
            with self._undone_if_refused(request):
                return super().delete_view(request, object_id, extra_context)
        except REFUSALS as refusal:
            self._report(request, refusal)
        return HttpResponseRedirect(self._change_url(request, object_id))

    def response_action(
        self, request: HttpRequest, queryset: QuerySet[Any], *args: Any, **kwargs: Any
    ) -> Any:
        try:
            with self._undone_if_refused(request):
                return super().response_action(request, queryset, *args, **kwargs)
        except REFUSALS as refusal:
            self._report(request, refusal)
        return HttpResponseRedirect(request.get_full_path())

    @contextmanager
    def _undone_if_refused(self, request: HttpRequest) -> Iterator[None]:
        """Roll a refused write back, with the success messages of the view.

        Within another transaction (``ATOMIC_REQUESTS``) the commit would come too late for a
        message, so the rules at the commit are checked here.
        """
        using = router.db_for_write(self.model)
        connection = connections[using]
        is_nested = connection.in_atomic_block and connection.vendor == "postgresql"
        queued = compat.queued_messages(request)
        count = len(queued)
        try:
            with transaction.atomic(using=using):
                yield
                if is_nested:
                    connection.check_constraints()
        except REFUSALS:
            del queued[count:]
            raise

    def _report(self, request: HttpRequest, refusal: Refusal) -> None:
        error = _Error(refusal, router.db_for_write(self.model))
        self.message_user(request, error.text(), messages.ERROR)

    def _change_url(self, request: HttpRequest, object_id: str) -> str:
        name = f"{self.opts.app_label}_{self.opts.model_name}"
        if not self.has_view_or_change_permission(request):
            return reverse("admin:index", current_app=self.admin_site.name)
        url = reverse(f"admin:{name}_change", args=(object_id,), current_app=self.admin_site.name)
        filters: dict[str, Any] = {
            "preserved_filters": self.get_preserved_filters(request),
            "opts": self.opts,
        }
        return add_preserved_filters(filters, url, popup=IS_POPUP_VAR in request.POST)


class _Error:
    """A refusal and, for a rule, the object that it is about.

    Args:
        refusal: what was raised.
        using: the database.
    """

    def __init__(self, refusal: Refusal, using: str) -> None:
        self.error = validation_error(refusal)
        self.violation = refusal if isinstance(refusal, InvariantViolation) else None
        self.stored = _stored(self.violation, using) if self.violation else None

    def is_own(self, instance: Model) -> bool:
        """Whether a rule refuses ``instance``, and no other row."""
        if self.violation is None or not is_about(self.violation, type(instance)):
            return False
        return self.stored is None or self.stored.pk == instance.pk

    def text(self) -> str:
        """The message, with the object and the rule."""
        said = " ".join(self.error.messages)
        if self.violation is None or self.violation.model is None:
            return said
        name = self.violation.model._meta.verbose_name
        subject = f"{name} “{self.stored}”" if self.stored else f"{name} {self.violation.row}"
        rule = self.violation.invariant.rpartition(":")[2]
        return f"{said} ({subject.strip()}, rule “{rule}”)"

    def add_to(self, form: ModelForm[Any]) -> None:
        if hasattr(self.error, "error_dict"):
            for name, errors in self.error.error_dict.items():
                form.add_error(name if name in form.fields else None, ValidationError(errors))
        elif self.violation and self.is_own(form.instance):
            field = self.violation.field
            form.add_error(field if field in form.fields else None, self.error)
        else:
            form.add_error(None, ValidationError(self.text(), code=self.error.code))


def _stored(violation: InvariantViolation, using: str) -> Model | None:
    """The refused row as it is stored; None if it is a new one, or its key has several columns."""
    column, _, key = violation.row.partition("=")
    model = violation.model
    if model is None or len(model._meta.pk_fields) > 1 or column != model._meta.pk.column:
        return None
    return model._base_manager.using(using).filter(pk=key).first()


def _refused_form(form: type[ModelForm[Any]], error: _Error) -> type[ModelForm[Any]]:
    class RefusedForm(form):  # type: ignore[misc, valid-type]
        def full_clean(self) -> None:
            super().full_clean()
            if self.is_bound:
                error.add_to(self)

    return RefusedForm


def _refused_formset(
    formset: type[BaseModelFormSet[Any, Any]], error: _Error
) -> type[BaseModelFormSet[Any, Any]]:
    class RefusedFormSet(formset):  # type: ignore[misc, valid-type]
        def clean(self) -> None:
            super().clean()
            raise ValidationError(error.text(), code="refused")

    return RefusedFormSet
