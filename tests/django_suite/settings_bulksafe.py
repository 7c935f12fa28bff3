"""The same settings, and bulksafe is installed.

runtests.py sets INSTALLED_APPS itself, from a list of its own. It is the main module, and reads
these settings before it uses the list.
"""

import sys

from tests.django_suite.settings import *  # noqa: F403

sys.modules["__main__"].ALWAYS_INSTALLED_APPS += ["pgtrigger", "bulksafe"]
