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
    check_options,
    visits,
)
from edgewise.discovery.acdc_sweep import AtThreshold, acdc_sweep, acdc_with_edges, decides_alike
from edgewise.discovery.attribution_patching import attribution_patching
from edgewise.discovery.edge_attribution import (
    Attribution,
    clean_corrupted,
    edge_attribution,
    edge_attribution_ig,
    relp,
)
from edgewise.discovery.exact import exact_effects
from edgewise.discovery.gradient_maps import gradient_maps, seconds_to_patch
from edgewise.discovery.head_importance import head_importance
from edgewise.discovery.heat_maps import HeatMaps, heat_maps
from edgewise.discovery.information_flow import information_flow
from edgewise.discovery.methods import ALIASES, METHODS, Method, Scored, method_named
from edgewise.discovery.plan import Estimate, Plan, plan_acdc
from edgewise.discovery.selection import Selected, at_most, by_threshold, greedy, require_count, top
from edgewise.discovery.subnetwork_probing import Probe, probe_sweep
from edgewise.discovery.units import Units, masked, one_by_one, scored_by_units, sweep

__all__ = [
    "ALIASES",
    "DEFAULT_ENGINE",
    "ENGINES",
    "METHODS",
    "ORDER_MODES",
    "AtThreshold",
    "Attribution",
    "Decision",
    "Discovery",
    "Engine",
    "Estimate",
    "HeatMaps",
    "Interrupted",
    "Method",
    "Order",
    "OrderMode",
    "PlainEngine",
    "Plan",
    "Probe",
    "Progress",
    "ProgressCallback",
    "Scored",
    "Selected",
    "Units",
    "Visit",
    "acdc",
    "acdc_sweep",
    "acdc_with_edges",
    "at_most",
    "attribution_patching",
    "by_threshold",
    "check_options",
    "clean_corrupted",
    "decides_alike",
    "edge_attribution",
    "edge_attribution_ig",
    "exact_effects",
    "gradient_maps",
    "greedy",
    "head_importance",
    "heat_maps",
    "information_flow",
    "masked",
    "method_named",
    "one_by_one",
    "plan_acdc",
    "probe_sweep",
    "relp",
    "require_count",
    "scored_by_units",
    "seconds_to_patch",
    "sweep",
    "top",
    "visits",
]
