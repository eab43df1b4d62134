// Which of a circuit's edges are shown: kinds, layers, runs, one node's neighbourhood, and of those the strongest paths.

import type { Model } from "./data";
import type { Neighbours } from "./paths";
import { type State, Status } from "./state";
import { Strongest, strengths } from "./strongest";

export interface Shown {
  shown: Uint8Array;
  /** What the choice of the strongest was made from. */
  among: Uint8Array;
}

export class Filter {
  private readonly strongest: Strongest;
  private strength: Float64Array | null = null;
  private strengthOf = NaN;

  constructor(
    private readonly model: Model,
    private readonly neighbours: Neighbours,
  ) {
    this.strongest = new Strongest(model, neighbours);
  }

  apply(state: State, members: Uint8Array): Shown {
    const let_through = this.through(state, members);
    const among = state.only === null ? let_through : this.around(state, state.only, let_through);
    const counted = among.reduce((sum, status) => sum + (status ? 1 : 0), 0);
    if (state.limit === null || state.stop !== null || counted <= state.limit) return { shown: among, among };
    return { shown: this.strong(state, state.limit, among), among };
  }

  private through(state: State, members: Uint8Array): Uint8Array {
    const { model } = this;
    const [low, high] = state.layers;
    const inside = model.nodes.map((node) => node.layer < 0 || node.kind === "logits" || (node.layer >= low && node.layer <= high));
    const found = new Uint8Array(members.length);
    for (const { index, kind, from, to } of model.edges) {
      const status = members[index];
      if (!status || !state.kinds.has(kind) || !inside[to] || (from >= 0 && !inside[from])) continue;
      if (state.focus < 0 && state.differ !== "any") {
        const wanted = state.differ === "shared" ? status === Status.Shared : status === Status.Own && model.runs[state.differ].has[index];
        if (!wanted) continue;
      }
      found[index] = status;
    }
    return found;
  }

  /** What reaches a node and what it reaches. */
  private around(state: State, node: number, among: Uint8Array): Uint8Array {
    const { model, neighbours } = this;
    const found = new Uint8Array(among.length);
    const nodes = [node, ...neighbours.reads[node].filter((other) => model.nodes[other].kind === "group")];
    const edges = state.direct ? nodes.flatMap((one) => [...neighbours.into[one], ...neighbours.outOf[one]]) : neighbours.through([node], among).edges;
    for (const edge of edges) found[edge] = among[edge];
    return found;
  }

  private strong(state: State, limit: number, among: Uint8Array): Uint8Array {
    const { model } = this;
    if (this.strengthOf !== state.focus) {
      this.strength = strengths(model, state.focus);
      this.strengthOf = state.focus;
    }
    const strength = this.strength!;
    // Missed edges have no place among the strongest of what was found.
    const own = among.map((status) => (status === Status.Missed ? 0 : status));
    const chosen = state.only === null ? this.strongest.pick(own, strength, limit) : this.nearest(state.only, own, strength, limit);
    const found = new Uint8Array(among.length);
    for (const edge of chosen) found[edge] = among[edge];
    for (const edge of model.edges) {
      if (edge.port && among[edge.index]) {
        const used = this.neighbours.into[edge.to].some((other) => found[other] && model.edges[other].kind === edge.kind && !model.edges[other].port);
        if (used) found[edge.index] = among[edge.index];
      }
    }
    return found;
  }

  /** Half of the paths that lead to a node, and half of those that go on from it. */
  private nearest(node: number, among: Uint8Array, strength: Float64Array, limit: number): Set<number> {
    const below = this.half(node, among, false);
    const above = this.half(node, among, true);
    const into = this.strongest.pick(below, strength, limit / 2, null, node);
    const outOf = this.strongest.pick(above, strength, limit - Math.min(into.size, limit / 2), node, null);
    return new Set([...into, ...outOf]);
  }

  private half(node: number, among: Uint8Array, up: boolean): Uint8Array {
    const found = new Uint8Array(among.length);
    for (const edge of this.neighbours.side(node, among, up)) found[edge] = among[edge];
    return found;
  }
}
