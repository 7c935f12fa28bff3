"""Django REST framework: refused writes are answered with status 400.

Set ``"EXCEPTION_HANDLER": "bulksafe.rest_framework.exception_handler"`` in ``REST_FRAMEWORK``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.core.exceptions import NON_FIELD_ERRORS
from django.utils.deprecation import MiddlewareMixin

from bulksafe.exceptions import InvariantViolation
from bulksafe.refusals import REFUSALS, Refusal, is_about, logger, validation_error

try:
    from rest_framework import exceptions, generics, serializers, views
    from rest_framework.settings import api_settings
except ModuleNotFoundError as missing:
    if (missing.name or "").partition(".")[0] != "rest_framework":
        raise
    raise ImportError(
        "bulksafe.rest_framework needs Django REST framework. Run: pip install djangorestframework"
    ) from missing

if TYPE_CHECKING:
    from collections.abc import Mapping

    from django.db.models import Model
    from django.http import HttpRequest, HttpResponse


def exception_handler(exc: Exception, context: Mapping[str, Any]) -> HttpResponse | None:
    """Handle a refused write like a serializer's validation error, and the rest as DRF does.

    The response is ``{"status": ["…"]}`` if the rule is about one field of the view's model, and
    ``{"non_field_errors": ["…"]}`` otherwise, with the name of the rule as the error's code. As
    for every error that DRF handles, the transaction of ``ATOMIC_REQUESTS`` is rolled back.

    Args:
        exc: what the view raised. Handled are ``InvariantViolation``, ``ReceiversNotRun`` and
            Django's ``ValidationError``, which receivers raise.
        context: DRF's, with the ``view``.

    Returns:
        the response; None for an error that DRF's own handler does not handle either.
    """
    if isinstance(exc, REFUSALS):
        exc = exceptions.ValidationError(_detail(exc, context.get("view")))
    response: HttpResponse | None = views.exception_handler(exc, context)
    return response


def _detail(refusal: Refusal, view: Any) -> dict[str, Any]:
    detail: dict[str, Any] = serializers.as_serializer_error(validation_error(refusal))
    key = api_settings.NON_FIELD_ERRORS_KEY
    serializer_class = _serializer_class(view)
    names = _names(serializer_class)
    if isinstance(refusal, InvariantViolation):
        model = _model_of(view, serializer_class)
        is_own = model is None or is_about(refusal, model)
        field = refusal.field if is_own else None
        return {key if field is None else names.get(field, field): detail[key]}
    # Its fields are those of the model that the receiver has checked, which is mostly the view's.
    names[NON_FIELD_ERRORS] = key
    return {names.get(name, name): errors for name, errors in detail.items()}


def _names(serializer_class: Any) -> dict[str, str]:
    """The names that the client knows, by those of the model's fields."""
    meta = getattr(serializer_class, "Meta", None)
    declared = getattr(serializer_class, "_declared_fields", {})
    sources: dict[str, str] = {field.source or name: name for name, field in declared.items()}
    for name, options in getattr(meta, "extra_kwargs", {}).items():
        sources.setdefault(options.get("source", name), name)
    return sources


def _serializer_class(view: Any) -> Any:
    """The class that the view chooses for this request, or the one that it declares."""
    declared = getattr(view, "serializer_class", None)
    choose = getattr(view, "get_serializer_class", None)
    if choose is None or (declared is None and _is_default(choose)):
        return declared
    try:
        return choose()
    except Exception:
        # It may know only the actions that have a serializer. The answer is still a refusal.
        logger.debug("%r has no serializer class for this request", view, exc_info=True)
        return declared


def _is_default(choose: Any) -> bool:
    """Whether it is the method of REST framework, which insists on the attribute."""
    default: Any = generics.GenericAPIView.get_serializer_class
    return getattr(choose, "__func__", None) is default


def _model_of(view: Any, serializer_class: Any) -> type[Model] | None:
    meta = getattr(serializer_class, "Meta", None)
    model = getattr(getattr(view, "queryset", None), "model", None) or getattr(meta, "model", None)
    return model if isinstance(model, type) else None


class CommitErrorMiddleware(MiddlewareMixin):
    """Handles refusals that come at the commit of ``ATOMIC_REQUESTS``.

    Django commits after the view has returned, so DRF does not see the error. This middleware
    passes it to the exception handler of the view, and renders the response as the view would.
    """

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse | None:
        match = request.resolver_match
        view_class = getattr(match and match.func, "cls", None)
        if not isinstance(error, REFUSALS) or not isinstance(view_class, type):
            return None
        if match is None or not issubclass(view_class, views.APIView):
            return None
        view: Any = view_class(**getattr(match.func, "initkwargs", {}))
        # View sets find the name of their action here.
        view.action_map = getattr(match.func, "actions", {})
        view.setup(request, *match.args, **match.kwargs)
        view.request = view.initialize_request(request, *match.args, **match.kwargs)
        view.headers = view.default_response_headers
        handler, context = view.get_exception_handler(), view.get_exception_handler_context()
        response = handler(error, context)
        if response is None:
            return None
        response.exception = True
        finalized: HttpResponse = view.finalize_response(view.request, response)
        return finalized
