"""Who matters: the algorithms that find circuits."""

from edgewise.discovery.acdc import (
    DEFAULT_ENGINE,
    ENGINES,
    ORDER_MODES,
    Decision,
    Discovery,
    Engine,
    Interrupted,
    Order,
    OrderMode,
    PlainEngine,
    Progress,
    ProgressCallback,
    Visit,
    acdc,
    acdc_with_edges,
    check_options,
    visits,
)
from edgewise.discovery.plan import Estimate, Plan, plan_acdc

METHODS: dict[str, str] = {
    "acdc": "prune edges one by one from the logits back (Conmy et al. 2023)",
}
"""Methods by name, each with a line on what it does."""

__all__ = [
    "DEFAULT_ENGINE",
    "ENGINES",
    "METHODS",
    "ORDER_MODES",
    "Decision",
    "Discovery",
    "Engine",
    "Estimate",
    "Interrupted",
    "Order",
    "OrderMode",
    "PlainEngine",
    "Plan",
    "Progress",
    "ProgressCallback",
    "Visit",
    "acdc",
    "acdc_with_edges",
    "check_options",
    "plan_acdc",
    "visits",
]
