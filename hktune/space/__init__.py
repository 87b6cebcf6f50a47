"""Search spaces: the parameters of a template, the rules a config keeps, and the legal configs of a problem."""

from hktune.space.domain import Domain
from hktune.space.rules import Constraint, Parameter, Violation
from hktune.space.search_space import SearchSpace, explain, load_space, require_legal

__all__ = [
    "Constraint",
    "Domain",
    "Parameter",
    "SearchSpace",
    "Violation",
    "explain",
    "load_space",
    "require_legal",
]
