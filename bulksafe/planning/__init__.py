"""From declarations to triggers: which events, which columns, in which order.

Pure: it needs models, but no database.
"""

from bulksafe.declarations import Invariant
from bulksafe.planning import capture as _capture  # noqa: F401  (registers its plan)
from bulksafe.planning.plan import plan, problems_of
from bulksafe.planning.problems import Problem, Refused, shown

__all__ = ["Problem", "Refused", "plan", "problems_of", "shown"]

Invariant.planner = staticmethod(plan)
