"""Search spaces: parameters, rules, and the legal configs of a problem. May import core and template."""

from hktune.space.domain import Domain, Order
from hktune.space.rules import Constraint, Parameter, Violation
from hktune.space.search_space import SearchSpace, explain, load_space, require_legal, template_folder, template_of
from hktune.space.spaces import Spaces, load_spaces

__all__ = [
    "Constraint",
    "Domain",
    "Order",
    "Parameter",
    "SearchSpace",
    "Spaces",
    "Violation",
    "explain",
    "load_space",
    "load_spaces",
    "require_legal",
    "template_folder",
    "template_of",
]
