// What is shown: one place that knows, from the run in focus, the slider and the filters, what each edge is.

import { passOf, type Kind, type Model, type Run } from "./data";

/** 0: not shown. Others say how an edge is drawn. */
export enum Status {
  Off,
  /** In the circuit. */
  In,
  /** Still there at this stop of a trace, but not decided yet in this pass. */
  Coming,
  /** In the circuit, but not in the known one. */
  Extra,
  /** In the known circuit only. */
  Missed,
  /** With several runs: in all of them, in some, in one alone. */
  Shared,
  Some,
  Own,
}

export interface State {
  /** The run in focus; -1 for all runs together. */
  focus: number;
  /** The slider's stop; null for the circuit as it was found. */
  stop: number | null;
  kinds: Set<Kind>;
  layers: [low: number, high: number];
  query: string;
  /** Edges are told apart by kind, by what is known, or by run. */
  colour: "kind" | "truth" | "runs";
  missed: boolean;
  node: number | null;
  edge: number | null;
  /** Nodes that are picked to make a group of. */
  picked: Set<number>;
  /** About how many edges of the strongest paths are shown; null for all. */
  limit: number | null;
  /** The node whose neighbourhood alone is shown; `direct` leaves out what is further than an edge away. */
  only: number | null;
  direct: boolean;
  /** Of several runs: what all have, what one alone has (its number), or everything. */
  differ: "any" | "shared" | number;
  /** Layers that were folded or unfolded; others are folded where they have MLPs alone and the picture is high. */
  folds: Map<number, boolean>;
  /** Whether edges between MLPs are drawn as one spine. */
  spine: boolean;
  groups: Group[];
  /** Whether each group is drawn as one box. */
  boxed: boolean;
  /** How far the reader has moved nodes from where they would stand, in the graph's own pixels. */
  moved: Map<number, [dx: number, dy: number]>;
}

/** Nodes under a name, of the reader's own or of the run's. */
export interface Group {
  name: string;
  members: Set<number>;
}

/** A circuit of at most so many edges is shown whole from the start; of a larger one, so many. */
const WHOLE = 90;
export const FIRST = 60;
/** With more edges between MLPs than this, they are drawn as a spine from the start. */
const FEW_ON_SPINE = 8;

export const KINDS: Kind[] = ["q", "k", "v", "mlp", "direct"];
const KIND_NAMES: Record<Kind, string> = { q: "query", k: "key", v: "value", mlp: "MLP", direct: "to logits" };

/** What edges of a kind lead into: of heads that are whole, edges into them are of the last kind too. */
export function kindName(model: Model, kind: Kind): string {
  return kind === "direct" && model.data.graph.whole_heads ? "to heads and logits" : KIND_NAMES[kind];
}

export function start(model: Model): State {
  const several = model.runs.length > 1;
  const truth = several ? null : model.runs[0].truth;
  const largest = Math.max(...model.runs.map((run) => run.in.length + (run.truth ? run.truth.edges - run.truth.found : 0)));
  const mlps = model.edges.filter((edge) => edge.from >= 0 && model.nodes[edge.from].kind === "mlp" && edge.kind === "mlp");
  const told = truth !== null && truth.found < Math.max(truth.edges, model.runs[0].result.edges);
  return {
    focus: several ? -1 : 0,
    stop: null,
    kinds: new Set(KINDS),
    layers: [0, model.data.graph.n_layers - 1],
    query: "",
    colour: several ? "runs" : told ? "truth" : "kind",
    missed: true,
    node: null,
    edge: null,
    picked: new Set(),
    limit: largest > WHOLE ? FIRST : null,
    only: null,
    direct: false,
    differ: "any",
    folds: new Map(),
    spine: mlps.filter((edge) => model.runs.some((run) => run.has[edge.index])).length > FEW_ON_SPINE,
    groups: model.data.groups.map((name, at) => ({ name, members: new Set(model.nodes.flatMap((node, index) => (node.group === at ? [index] : []))) })),
    boxed: false,
    moved: new Map(),
  };
}

/** What every edge is in the run in focus at the slider's stop, before filters. */
export function membership(model: Model, state: State): Uint8Array {
  const found = new Uint8Array(model.edges.length);
  if (state.focus < 0) {
    for (const edge of model.edges) {
      const runs = model.runs.filter((run) => run.has[edge.index]).length;
      if (runs) found[edge.index] = runs === model.runs.length ? Status.Shared : runs === 1 ? Status.Own : Status.Some;
    }
    return found;
  }
  const run = model.runs[state.focus];
  for (const edge of model.edges) {
    const there = present(run, edge.index, state.stop);
    if (there === Status.Coming) found[edge.index] = there;
    else if (there) found[edge.index] = run.known && !run.known[edge.index] ? Status.Extra : Status.In;
    else if (state.missed && run.known?.[edge.index]) found[edge.index] = Status.Missed;
  }
  return found;
}

function present(run: Run, edge: number, stop: number | null): Status {
  if (stop === null || run.slider === null) {
    if (!run.has[edge]) return Status.Off;
    // A search that was stopped keeps every edge that it had not come to.
    return run.finished || decidedIn(run, edge, Infinity) ? Status.In : Status.Coming;
  }
  if (run.slider.kind === "score") {
    const enters = run.slider.enter[edge];
    return enters >= 0 && enters <= stop ? Status.In : Status.Off;
  }
  const after = run.slider.stops[stop];
  const gone = run.slider.gone[edge];
  if (gone >= 0 && gone <= after) return Status.Off;
  return decidedIn(run, edge, after) ? Status.In : Status.Coming;
}

/** Whether the pass that so many decisions led into has come to an edge. */
function decidedIn(run: Run, edge: number, after: number): boolean {
  const pass = passOf(run, after);
  return run.decisions[edge]?.some(({ at }) => at <= after && passOf(run, at) === pass) ?? false;
}

/** How many edges the circuit has at this stop, also those that the page was not sent. */
export function size(model: Model, state: State): number | null {
  if (state.focus < 0) return null;
  const run = model.runs[state.focus];
  return state.stop === null || run.slider === null ? run.result.edges : run.slider.present[state.stop];
}

/** The metric at this stop, where it was measured. */
export function metricAt(run: Run, stop: number | null): number | null {
  if (stop === null || run.slider === null) return run.result.metric;
  if (run.slider.kind === "trace") return run.slider.metric[stop];
  const edges = run.slider.present[stop];
  return run.sizes.find(([size, metric]) => size === edges && metric !== null)?.[1] ?? null;
}

/** Nodes and edges whose name holds the query, or whose group's does. */
export function matches(model: Model, state: State): { nodes: Set<number>; edges: Set<number> } {
  const wanted = state.query.trim().toLowerCase();
  const nodes = new Set<number>();
  const edges = new Set<number>();
  if (!wanted) return { nodes, edges };
  model.nodes.forEach((node, index) => {
    const group = state.groups.find(({ members }) => members.has(index))?.name.toLowerCase() ?? "";
    if (node.id.toLowerCase().includes(wanted) || group.includes(wanted)) nodes.add(index);
  });
  for (const edge of model.edges) if (edge.name.toLowerCase().includes(wanted)) edges.add(edge.index);
  return { nodes, edges };
}
