"""From declarations to triggers: which events, which columns, in which order.

Pure: it needs models, but no database.
"""

from bulksafe.declarations import Invariant
from bulksafe.planning import (  # noqa: F401  (register their plans)
    capture as _capture,
)

# These register their plans.
from bulksafe.planning import check_triggers as _check_triggers  # noqa: F401
from bulksafe.planning import compute_triggers as _compute_triggers  # noqa: F401
from bulksafe.planning.plan import plan, problems_of
from bulksafe.planning.problems import Problem, Refused, shown

__all__ = ["Problem", "Refused", "plan", "problems_of", "shown"]

Invariant.planner = staticmethod(plan)
