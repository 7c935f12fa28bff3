"""Fixtures for pytest-django: the functions of ``bulksafe.testing``.

Installed with bulksafe; imports nothing from Django before a test uses a fixture.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from bulksafe.dispatch.calls import Call


@pytest.fixture
def bulksafe_deliver(db: None) -> Callable[..., int]:
    """``bulksafe.testing.deliver``: run the after-commit receivers for what was written."""
    from bulksafe import testing  # noqa: PLC0415

    return testing.deliver


@pytest.fixture
def bulksafe_captured(db: None) -> Callable[..., AbstractContextManager[list[Call]]]:
    """``bulksafe.testing.captured``: collect the calls that a block causes."""
    from bulksafe import testing  # noqa: PLC0415

    return testing.captured


@pytest.fixture
def bulksafe_muted() -> Callable[..., AbstractContextManager[None]]:
    """``bulksafe.testing.muted``: do not call receivers for events."""
    from bulksafe import testing  # noqa: PLC0415

    return testing.muted
