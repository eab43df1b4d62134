"""Who matters: the algorithms that find circuits."""

from edgewise.discovery.engines import DEFAULT_ENGINE, ENGINES
from edgewise.discovery.found import Discovery, Interrupted, Progress, ProgressCallback
from edgewise.discovery.heads import HeadParts, head_parts
from edgewise.discovery.heat import HeatMaps, heat_maps
from edgewise.discovery.heat_by_gradients import gradient_maps, seconds_to_patch
from edgewise.discovery.integer_selection import by_integer_programming
from edgewise.discovery.journal import Journal
from edgewise.discovery.method import Found, Method, Option, Scored, StepProgress
from edgewise.discovery.methods import ALIASES, METHODS, RANDOM, method_named, register_method, require_level
from edgewise.discovery.methods.attribution_patching import attribution_patching
from edgewise.discovery.methods.bootstrapped_attribution import bootstrapped_attribution
from edgewise.discovery.methods.clean_corrupted import clean_corrupted
from edgewise.discovery.methods.edge_attribution import edge_attribution
from edgewise.discovery.methods.edge_attribution_ig import edge_attribution_ig
from edgewise.discovery.methods.edge_pruning import edge_pruning
from edgewise.discovery.methods.ensemble import ensemble
from edgewise.discovery.methods.exact import exact_effects
from edgewise.discovery.methods.head_importance import head_importance
from edgewise.discovery.methods.information_flow import information_flow
from edgewise.discovery.methods.relp import relp
from edgewise.discovery.methods.subnetwork_probing import Probe, probe_sweep, subnetwork_probing
from edgewise.discovery.methods.uniform_gradient_sampling import uniform_gradient_sampling
from edgewise.discovery.neuron_search import acdc_by_neuron
from edgewise.discovery.neuron_selection import choose_neurons
from edgewise.discovery.node_search import acdc_by_node
from edgewise.discovery.node_selection import choose_nodes
from edgewise.discovery.order import ORDER_MODES, Order, OrderMode, Visit, visits
from edgewise.discovery.plan import Estimate, NodePlan, Plan, plan_acdc, plan_nodes
from edgewise.discovery.rule import Rule, check_budget
from edgewise.discovery.search import acdc, check_options, without_dead_ends
from edgewise.discovery.selection import Selected, at_most, by_threshold, greedy, require_count, top
from edgewise.discovery.thresholds import AtThreshold, acdc_sweep, acdc_with_edges, decides_alike
from edgewise.discovery.units import Units, masked, one_by_one, scored_by_units, sweep
from edgewise.graph import Decision
from edgewise.patching import Engine, PlainEngine

__all__ = [
    "ALIASES",
    "DEFAULT_ENGINE",
    "ENGINES",
    "METHODS",
    "ORDER_MODES",
    "RANDOM",
    "AtThreshold",
    "Decision",
    "Discovery",
    "Engine",
    "Estimate",
    "Found",
    "HeadParts",
    "HeatMaps",
    "Interrupted",
    "Journal",
    "Method",
    "NodePlan",
    "Option",
    "Order",
    "OrderMode",
    "PlainEngine",
    "Plan",
    "Probe",
    "Progress",
    "ProgressCallback",
    "Rule",
    "Scored",
    "Selected",
    "StepProgress",
    "Units",
    "Visit",
    "acdc",
    "acdc_by_neuron",
    "acdc_by_node",
    "acdc_sweep",
    "acdc_with_edges",
    "at_most",
    "attribution_patching",
    "bootstrapped_attribution",
    "by_integer_programming",
    "by_threshold",
    "check_budget",
    "check_options",
    "choose_neurons",
    "choose_nodes",
    "clean_corrupted",
    "decides_alike",
    "edge_attribution",
    "edge_attribution_ig",
    "edge_pruning",
    "ensemble",
    "exact_effects",
    "gradient_maps",
    "greedy",
    "head_importance",
    "head_parts",
    "heat_maps",
    "information_flow",
    "masked",
    "method_named",
    "one_by_one",
    "plan_acdc",
    "plan_nodes",
    "probe_sweep",
    "register_method",
    "relp",
    "require_count",
    "require_level",
    "scored_by_units",
    "seconds_to_patch",
    "subnetwork_probing",
    "sweep",
    "top",
    "uniform_gradient_sampling",
    "visits",
    "without_dead_ends",
]
