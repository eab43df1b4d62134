// What the graph draws: nodes as they are, boxes of folded layers and of groups, and the lines between them.

import type { Edge, Kind, Model } from "./data";
import type { Neighbours } from "./paths";
import type { State } from "./state";

export type VisualKind = "bar" | "head" | "shared" | "mlp" | "fold" | "box";

export interface VisualNode {
  key: string;
  kind: VisualKind;
  label: string;
  /** A second line, for boxes. */
  under: string;
  /** The nodes of the model that it stands for; the first one is chosen by a click. */
  nodes: number[];
  /** The layers that it stands in, first and last; -1 for the embedding, Infinity for the logits. */
  layers: [first: number, last: number];
  /** Of a head, or of what heads share: its number. */
  head: number;
  /** The number of its group. */
  group: number | null;
}

export interface VisualEdge {
  from: number;
  to: number;
  kind: Kind | "mixed";
  /** The edges of the model that it stands for. */
  edges: number[];
  /** Between MLPs: part of the spine. */
  spine: boolean;
}

export interface Visual {
  nodes: VisualNode[];
  edges: VisualEdge[];
  /** Of each node of the model, what it is drawn as; -1 where it is not drawn. */
  of: Int32Array;
  /** What shares a key and a value with what: dashes between boxes. */
  ties: [from: number, to: number][];
}

/** Layers of which nothing is drawn, one box, or all. */
export interface Band {
  layers: [first: number, last: number];
  state: "open" | "folded" | "empty";
}

export function seenNodes(model: Model, shown: Uint8Array): boolean[] {
  const seen = new Array<boolean>(model.nodes.length).fill(false);
  for (const edge of model.edges) {
    if (!shown[edge.index]) continue;
    seen[edge.to] = true;
    if (edge.from >= 0) seen[edge.from] = true;
  }
  return seen;
}

/** The layers from first to last, those of one state together. `foldable` says which are folded unless the reader says otherwise. */
export function bandsOf(model: Model, state: State, seen: boolean[], foldable: boolean): Band[] {
  const { n_layers } = model.data.graph;
  const kinds: Set<string>[] = Array.from({ length: n_layers }, () => new Set());
  model.nodes.forEach((node, index) => {
    if (!seen[index] || node.layer < 0 || node.kind === "logits") return;
    if (state.boxed && groupOf(state, index) !== null) kinds[node.layer].add("boxed");
    else kinds[node.layer].add(node.kind);
  });
  const alone = kinds.map((there) => there.size === 1 && there.has("mlp"));
  const quiet = (layer: number, by: number): boolean => {
    let next = layer + by;
    while (kinds[next]?.size === 0) next += by;
    return alone[next] ?? false;
  };
  const bands: Band[] = [];
  for (let layer = 0; layer < n_layers; layer++) {
    const fold = state.folds.get(layer) ?? (foldable && alone[layer] && (quiet(layer, 1) || quiet(layer, -1)));
    const now = kinds[layer].size === 0 ? "empty" : fold ? "folded" : "open";
    const last = bands.at(-1);
    const before = bands.at(-2);
    if (last && last.state === now && now !== "open") last.layers[1] = layer;
    else if (now === "folded" && last?.state === "empty" && before?.state === "folded") {
      before.layers[1] = layer;
      bands.pop();
    } else bands.push({ layers: [layer, layer], state: now });
  }
  return bands;
}

function groupOf(state: State, node: number): number | null {
  const at = state.groups.findIndex((group) => group.members.has(node));
  return at < 0 ? null : at;
}

export function visualOf(model: Model, state: State, shown: Uint8Array, seen: boolean[], bands: Band[], neighbours: Neighbours): Visual {
  const of = new Int32Array(model.nodes.length).fill(-1);
  const nodes: VisualNode[] = [];
  const byKey = new Map<string, number>();
  const folded = new Map<number, Band>();
  for (const band of bands) if (band.state === "folded") for (let at = band.layers[0]; at <= band.layers[1]; at++) folded.set(at, band);
  const put = (node: number, key: string, made: () => Omit<VisualNode, "key" | "nodes">) => {
    let at = byKey.get(key);
    if (at === undefined) {
      at = nodes.length;
      byKey.set(key, at);
      nodes.push({ key, nodes: [], ...made() });
    }
    nodes[at].nodes.push(node);
    of[node] = at;
  };
  const within: number[] = [];
  model.nodes.forEach((node, index) => {
    if (!seen[index]) return;
    const group = groupOf(state, index);
    const band = folded.get(node.layer);
    const inside = node.layer >= 0 && node.kind !== "logits";
    if (state.boxed && group !== null && node.kind !== "logits" && node.layer >= 0) {
      put(index, `box ${group}`, () => ({ kind: "box", label: state.groups[group].name, under: "", layers: [node.layer, node.layer], head: -1, group }));
    } else if (band && inside) {
      put(index, `fold ${band.layers[0]} ${node.span ?? ""}`, () => ({ kind: "fold", label: "", under: "", layers: band.layers, head: -1, group: null }));
    } else if (node.kind === "group" && node.span === null && readersSeen(model, index, seen).length === 1) {
      within.push(index);
    } else put(index, `n ${index}`, () => plainNode(model, index, group));
  });
  // A key and a value that only one of the heads that share it uses are drawn at that head.
  for (const index of within) {
    const [reader] = readersSeen(model, index, seen);
    of[index] = of[reader];
    nodes[of[reader]].nodes.push(index);
  }
  for (const node of nodes) if (node.kind === "fold" || node.kind === "box") nameBox(model, node);
  return { nodes, of, edges: edgesOf(model, shown, nodes, of), ties: tiesOf(model, shown, seen, of, neighbours) };
}

function readersSeen(model: Model, group: number, seen: boolean[]): number[] {
  return model.nodes[group].readers.map((name) => model.byName.get(name) ?? -1).filter((at) => at >= 0 && seen[at]);
}

function plainNode(model: Model, index: number, group: number | null): Omit<VisualNode, "key" | "nodes"> {
  const node = model.nodes[index];
  const head = Number(/[hg](\d+)$/.exec(node.name)?.[1] ?? -1);
  const kind: VisualKind = node.kind === "head" ? "head" : node.kind === "group" ? "shared" : node.kind === "mlp" ? "mlp" : "bar";
  const layer = node.kind === "logits" ? Infinity : node.layer;
  return { kind, label: node.name, under: "", layers: [layer, layer], head, group };
}

function nameBox(model: Model, node: VisualNode): void {
  const members = node.nodes.map((at) => model.nodes[at]);
  const mlps = members.every((one) => one.kind === "mlp");
  const [first, last] = node.layers;
  if (node.kind === "fold") {
    const layers = members.map((one) => one.layer);
    if (mlps) node.label = members.length === 1 ? members[0].name : `m${Math.min(...layers)}–m${Math.max(...layers)}`;
    else node.label = first === last ? `layer ${first}` : `layers ${first}–${last}`;
    node.under = members.length > 1 ? `${members.length} nodes` : "";
  } else {
    const layers = members.map((one) => one.layer).sort((a, b) => a - b);
    const middle = Math.round(layers.reduce((sum, layer) => sum + layer, 0) / layers.length);
    node.layers = [middle, middle];
    const names = members.slice(0, 3).map((one) => one.name);
    node.under = members.length > 3 ? `${names.slice(0, 2).join(", ")} and ${members.length - 2} more` : names.join(", ");
  }
}

function edgesOf(model: Model, shown: Uint8Array, nodes: VisualNode[], of: Int32Array): VisualEdge[] {
  const found = new Map<string, VisualEdge>();
  const plain = (at: number) => nodes[at].kind !== "fold" && nodes[at].kind !== "box";
  for (const edge of model.edges) {
    if (!shown[edge.index] || edge.port) continue;
    const [from, to] = [of[edge.from], of[edge.to]];
    if (from < 0 || to < 0 || from === to) continue;
    const key = `${from} ${to}${plain(from) && plain(to) ? ` ${edge.kind}` : ""}`;
    const there = found.get(key);
    if (there) {
      there.edges.push(edge.index);
      if (there.kind !== edge.kind) there.kind = "mixed";
    } else found.set(key, { from, to, kind: edge.kind, edges: [edge.index], spine: isMlp(model, edge) && onSpine(nodes[from]) && onSpine(nodes[to]) });
  }
  for (const edge of found.values()) edge.spine &&= edge.kind === "mlp";
  return [...found.values()];
}

function isMlp(model: Model, edge: Edge): boolean {
  return model.nodes[edge.from].kind === "mlp" && model.nodes[edge.to].kind === "mlp";
}

function onSpine(node: VisualNode): boolean {
  return node.kind === "mlp" || node.kind === "fold";
}

function tiesOf(model: Model, shown: Uint8Array, seen: boolean[], of: Int32Array, neighbours: Neighbours): [number, number][] {
  const found = new Map<string, [number, number]>();
  model.nodes.forEach((node, index) => {
    if (node.kind !== "group" || !seen[index]) return;
    for (const reader of neighbours.carriedTo(index, shown)) {
      const [from, to] = [of[index], of[reader]];
      if (model.nodes[reader].span === node.span && from >= 0 && to >= 0 && from !== to) found.set(`${from} ${to}`, [from, to]);
    }
  });
  return [...found.values()];
}
