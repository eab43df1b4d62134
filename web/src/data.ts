// What `edgewise report` puts into the page. Written by reports/page/data.py and measure.py; the two go together.

export type Kind = "q" | "k" | "v" | "mlp" | "direct";
export type NodeKind = "input" | "tok" | "pos" | "head" | "group" | "mlp" | "logits";
export type Box = [x: number, y: number, width: number, height: number];

export interface NodeData {
  /** What no other node is called: `a3.h7`, or `a3.h7@S1` where positions are told apart. */
  id: string;
  /** `a3.h7`, at all spans. */
  name: string;
  span: string | null;
  kind: NodeKind;
  layer: number;
  /** What sees the key and the value that it reads, in other nodes. */
  readers: string[];
  group: number | null;
  /** Where it stands in the columns of spans: with everything that was sent, and with circuits alone. */
  wide: Box | null;
  close: Box | null;
}

export interface TraceSlider {
  kind: "trace";
  stops: number[];
  /** After how many decisions each pass began. */
  passes: number[];
  present: number[];
  metric: (number | null)[];
  gone: number[];
}

export interface ScoreSlider {
  kind: "score";
  stops: (number | null)[];
  present: number[];
  enter: number[];
  found: number;
}

/** A circuit against the known one: rates of what was found. */
export interface Point {
  tpr: number;
  fpr: number;
  precision: number;
}

/** A group of components: its nodes, those in the circuit, and the point of the edges that touch it. */
export interface GroupData {
  name: string;
  members: string[];
  found: string[];
  point: Point | null;
}

export interface Truth {
  /** Who worked it out, or the file that a user gave. */
  source: string;
  given: boolean;
  edges: number;
  in: number[];
  found: number;
  point: Point;
  nodes: { known: number; found: number; extra: number };
  curve: [fpr: number, tpr: number][] | null;
}

export interface PromptData {
  row: number;
  text: { clean: string; corrupt: string };
  answers: string[];
  wrong: string[];
  scored: number[];
  clean: string[];
  corrupt: string[];
}

export interface Attention {
  prompts: PromptData[];
  causal: boolean;
  heads: Record<string, { clean: string[]; corrupt: string[] }>;
}

export type Which = "circuit" | "full" | "ablated";

export interface Values {
  metrics: Record<string, Record<Which, (number | null)[]>>;
  texts: string[];
  rows: number;
}

export interface Example {
  clean: string;
  corrupt: string;
  answers: string[];
  wrong: string[];
}

export interface RunData {
  label: string;
  folder: string;
  finished: boolean;
  stopped: { why: string; at: string; decided: number; of: number; tests: number } | null;
  date: string | null;
  command: string | null;
  settings: [string, string][];
  versions: [string, string][];
  task: string;
  model: string;
  method: string;
  threshold: number | null;
  budget: number | null;
  ablation: string;
  metric: string;
  examples: number;
  result: {
    edges: number;
    connected: number | null;
    of: number;
    metric: number | null;
    full: number | null;
    ablated: number | null;
    accuracy: number | null;
    tests: number | null;
    seconds: number | null;
  };
  in: number[];
  sent: boolean;
  tested: { edge: number[]; at: number[]; before: number[]; after: number[]; kept: boolean[] };
  scores: (number | null)[] | null;
  /** Edges that the search chose from, where those were not all of the graph's. */
  shortlist: number | null;
  slider: TraceSlider | ScoreSlider | null;
  sizes: [edges: number, metric: number | null, threshold: number | null][];
  truth: Truth | null;
  groups: GroupData[];
  values: Values | null;
  attention: Attention | null;
  /** The first prompt pair, where it could be had. */
  example: Example | null;
  notes: string[];
}

/** A column of nodes at one span: where it begins, and how wide it is. */
export type Column = [span: string, left: number, width: number, top: number, height: number];

/** A line of attention from one node to another: x and y of its corners, one after another. */
export type Arc = [from: string, to: string, ...corners: number[]];

export interface Columns {
  columns: Column[];
  arcs: Arc[];
}

export type Layout = "close" | "wide";

export interface PageData {
  form: number;
  version: string;
  graph: { n_layers: number; n_heads: number; ports: boolean; coupled: boolean; n_kv_heads: number; whole_heads: boolean; spans: string[]; words: string; edges: number };
  nodes: NodeData[];
  columns: Record<Layout, Columns>;
  groups: string[];
  edges: { from: number[]; to: number[]; kind: Kind[] };
  runs: RunData[];
  jaccard: number[][];
  /** Metrics whose negative a search takes. They are turned round as they are read: people see what the name says. */
  negated: string[];
  /** Where the documentation is, if anywhere. */
  docs: string | null;
  /** The page that leads to this one and others, beside it. */
  gallery: string | null;
}

export interface Edge {
  index: number;
  /** The sending node's index; -1 for a port edge, which leads from a head's own input into the head. */
  from: number;
  to: number;
  kind: Kind;
  port: boolean;
  name: string;
}

export interface Decision {
  at: number;
  before: number;
  after: number;
  /** How much worse the metric was without the edge. */
  effect: number;
  kept: boolean;
}

/** A run with what is looked up edge by edge. */
export interface Run extends RunData {
  has: boolean[];
  known: boolean[] | null;
  /** The last decision about each edge, and all of them: one for every pass that tested it. */
  decision: (Decision | undefined)[];
  decisions: (Decision[] | undefined)[];
  /** Whether higher is better. */
  higher: boolean;
}

export interface Model {
  data: PageData;
  nodes: NodeData[];
  edges: Edge[];
  runs: Run[];
  byName: Map<string, number>;
}

const KIND_LETTER: Partial<Record<Kind, string>> = { q: "<q>", k: "<k>", v: "<v>" };

export function read(text: string): Model {
  const data = JSON.parse(text) as PageData;
  const edges = data.edges.kind.map((kind, index): Edge => {
    const from = data.edges.from[index];
    const to = data.edges.to[index];
    const { name: reader, span } = data.nodes[to];
    const place = reader + (KIND_LETTER[kind] ?? "") + (span === null ? "" : `@${span}`);
    const name = from < 0 ? `${place}->${reader}` : `${data.nodes[from].name}->${place}`;
    return { index, from, to, kind, port: from < 0, name };
  });
  const flags = (chosen: number[]) => {
    const found = new Array<boolean>(edges.length).fill(false);
    for (const at of chosen) found[at] = true;
    return found;
  };
  const runs = data.runs.map((sent): Run => {
    const run = asRead(sent, data.negated);
    const higher = data.negated.includes(run.metric);
    const sign = higher ? -1 : 1;
    const decisions: (Decision[] | undefined)[] = new Array(edges.length);
    run.tested.edge.forEach((edge, at) => {
      const { at: when, before, after, kept } = run.tested;
      (decisions[edge] ??= []).push({ at: when[at], before: sign * before[at], after: sign * after[at], effect: after[at] - before[at], kept: kept[at] });
    });
    const decision = Array.from(decisions, (all) => all?.at(-1));
    return { ...run, has: flags(run.in), known: run.truth && flags(run.truth.in), decision, decisions, higher };
  });
  const byName = new Map(data.nodes.map((node, index) => [node.id, index]));
  return { data, nodes: data.nodes, edges, runs, byName };
}

/** A run with the signs that people read. */
function asRead(run: RunData, negated: string[]): RunData {
  const turned = <One extends number | null>(value: One): One => (value === null ? value : (0 - (value as number))) as One;
  const values = run.values && {
    ...run.values,
    metrics: Object.fromEntries(
      Object.entries(run.values.metrics).map(([name, by]) => [name, negated.includes(name) ? { circuit: by.circuit.map(turned), full: by.full.map(turned), ablated: by.ablated.map(turned) } : by]),
    ),
  };
  if (!negated.includes(run.metric)) return { ...run, values };
  const { metric, full, ablated } = run.result;
  return {
    ...run,
    values,
    result: { ...run.result, metric: turned(metric), full: turned(full), ablated: turned(ablated) },
    sizes: run.sizes.map(([size, value, threshold]) => [size, turned(value), threshold]),
    slider: run.slider?.kind === "trace" ? { ...run.slider, metric: run.slider.metric.map(turned) } : run.slider,
  };
}

/** What a metric does where something that mattered is gone. */
export function worse(run: Run): string {
  return `${run.higher ? "fall" : "rise"} of ${run.metric}`;
}

/** The pass, counted from 0, in which a decision was taken. */
export function passOf(run: Run, at: number): number {
  const passes = run.slider?.kind === "trace" ? run.slider.passes : [0];
  return Math.max(0, passes.filter((began) => began < at).length - 1);
}

/** How much an edge matters in a run: its score, or how much the metric rose without it. */
export function weight(run: Run, edge: number): number | null {
  if (run.scores) return run.scores[edge];
  const decision = run.decision[edge];
  return decision ? decision.effect : null;
}
