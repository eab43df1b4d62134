// The strongest paths of a circuit: the strongest edges, each with what joins it to the embedding and to the logits.

import { type Model, type NodeKind, type Run, weight } from "./data";
import type { Neighbours } from "./paths";

/** How much every edge matters: in a run, or in that run which makes most of it, each by its own largest. */
export function strengths(model: Model, focus: number): Float64Array {
  const found = new Float64Array(model.edges.length);
  for (const run of focus < 0 ? model.runs : [model.runs[focus]]) {
    const largest = focus < 0 ? largestOf(run) : 1;
    for (const { index } of model.edges) {
      if (focus < 0 && !run.has[index]) continue;
      found[index] = Math.max(found[index], Math.abs(weight(run, index) ?? 0) / largest);
    }
  }
  return found;
}

function largestOf(run: Run): number {
  return run.in.reduce((most, edge) => Math.max(most, Math.abs(weight(run, edge) ?? 0)), 0) || 1;
}

const STEP: Record<NodeKind, number> = { input: 0, tok: 0, pos: 0, group: 0, head: 1, mlp: 2, logits: 3 };

/** Widest paths: of each node the edge by which it is best reached, and the one by which it best goes on. */
export class Strongest {
  private readonly early: number[];

  constructor(
    private readonly model: Model,
    private readonly neighbours: Neighbours,
  ) {
    const rank = (node: number) => {
      const { kind, layer } = model.nodes[node];
      return kind === "logits" ? Infinity : 4 * Math.max(layer, -1) + STEP[kind];
    };
    this.early = model.nodes.map((_, node) => node).sort((a, b) => rank(a) - rank(b));
  }

  /**
   * About `count` edges of `among`. Edges are taken from the strongest on, and each brings the widest path through it.
   * Paths begin at the embedding and end at the logits, or at the nodes named.
   */
  pick(among: Uint8Array, strength: Float64Array, count: number, start: number | null = null, end: number | null = null): Set<number> {
    const { edges } = this.model;
    const order = edges.filter((edge) => !edge.port && among[edge.index]).map((edge) => edge.index);
    if (order.length <= count) return new Set(order);
    order.sort((a, b) => strength[b] - strength[a] || a - b);
    const below = this.reached(among, strength, start);
    const above = this.goingOn(among, strength, end);
    const found = new Set<number>();
    for (const edge of order) {
      if (found.size >= count) break;
      found.add(edge);
      for (let at = below[edges[edge].from]; at >= 0 && !found.has(at); at = below[edges[at].from]) found.add(at);
      for (let at = above[edges[edge].to]; at >= 0 && !found.has(at); at = above[edges[at].to]) found.add(at);
    }
    return found;
  }

  private reached(among: Uint8Array, strength: Float64Array, start: number | null): Int32Array {
    const { model, neighbours } = this;
    const width = new Float64Array(model.nodes.length).fill(-1);
    const into = new Float64Array(model.nodes.length).fill(-1);
    const by = new Int32Array(model.nodes.length).fill(-1);
    const own = new Int32Array(model.nodes.length).fill(-1);
    for (const node of this.early) {
      const { kind } = model.nodes[node];
      for (const index of neighbours.into[node]) {
        const edge = model.edges[index];
        if (edge.port || !among[index]) continue;
        const wide = Math.min(strength[index], width[edge.from]);
        if (wide > into[node]) [into[node], own[node]] = [wide, index];
      }
      const begins = start === null ? kind === "input" || kind === "tok" || kind === "pos" : node === start;
      if (begins) {
        width[node] = Infinity;
        continue;
      }
      for (const at of [node, ...neighbours.reads[node]]) if (into[at] > width[node]) [width[node], by[node]] = [into[at], own[at]];
    }
    return by;
  }

  private goingOn(among: Uint8Array, strength: Float64Array, end: number | null): Int32Array {
    const { model, neighbours } = this;
    const width = new Float64Array(model.nodes.length).fill(-1);
    const outOf = new Float64Array(model.nodes.length).fill(-1);
    const by = new Int32Array(model.nodes.length).fill(-1);
    const own = new Int32Array(model.nodes.length).fill(-1);
    for (const node of [...this.early].reverse()) {
      for (const index of neighbours.outOf[node]) {
        if (!among[index]) continue;
        const wide = Math.min(strength[index], width[model.edges[index].to]);
        if (wide > outOf[node]) [outOf[node], own[node]] = [wide, index];
      }
      const ends = end === null ? model.nodes[node].kind === "logits" : node === end;
      if (ends) {
        width[node] = Infinity;
        continue;
      }
      for (const at of [node, ...neighbours.readers[node]]) if (outOf[at] > width[node]) [width[node], by[node]] = [outOf[at], own[at]];
    }
    return by;
  }
}
