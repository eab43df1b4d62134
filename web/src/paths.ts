// Paths up and down from a node or an edge, along the edges that are shown.

import type { Model, NodeKind } from "./data";

export interface Paths {
  nodes: Set<number>;
  edges: Set<number>;
}

export class Neighbours {
  readonly into: number[][];
  readonly outOf: number[][];
  /** Query heads that read a shared key/value head, and the other way about. */
  private readonly readers: number[][];
  private readonly reads: number[][];
  /** The other heads and shared keys and values of a layer whose heads are coupled. */
  private readonly together: number[][];

  constructor(private readonly model: Model) {
    const lists = () => model.nodes.map((): number[] => []);
    this.into = lists();
    this.outOf = lists();
    this.readers = lists();
    this.reads = lists();
    this.together = model.nodes.map((node, index) =>
      model.data.graph.coupled && isAttention(node.kind)
        ? model.nodes.flatMap((other, at) => (at !== index && other.layer === node.layer && isAttention(other.kind) ? [at] : []))
        : [],
    );
    for (const edge of model.edges) {
      this.into[edge.to].push(edge.index);
      if (edge.from >= 0) this.outOf[edge.from].push(edge.index);
    }
    model.nodes.forEach((node, index) => {
      for (const name of node.readers) {
        const reader = model.byName.get(name);
        if (reader === undefined) continue;
        this.readers[index].push(reader);
        this.reads[reader].push(index);
      }
    });
  }

  /** Everything on a path through these nodes. */
  through(starts: Iterable<number>, shown: Uint8Array): Paths {
    const found: Paths = { nodes: new Set(), edges: new Set() };
    for (const start of starts) {
      this.follow(start, shown, true, found, new Set());
      this.follow(start, shown, false, found, new Set());
    }
    return found;
  }

  /** Everything on a path through this edge. */
  along(edge: number, shown: Uint8Array): Paths {
    const found: Paths = { nodes: new Set(), edges: new Set([edge]) };
    const { from, to } = this.model.edges[edge];
    if (from < 0) return this.through([to], shown);
    this.follow(from, shown, false, found, new Set());
    this.follow(to, shown, true, found, new Set(), true);
    return found;
  }

  /** What moves with a node, and goes on from there. */
  private siblings(node: number, shown: Uint8Array, up: boolean): number[] {
    return this.together[node].filter((other) => (up ? this.outOf : this.into)[other].some((index) => shown[index]));
  }

  /** `entered`: the way up starts with an edge into the node, which moves what its siblings write, too. */
  private follow(start: number, shown: Uint8Array, up: boolean, found: Paths, seen: Set<number>, entered = false): void {
    const stack = entered ? [start, ...this.siblings(start, shown, up)] : [start];
    while (stack.length) {
      const node = stack.pop()!;
      if (seen.has(node)) continue;
      seen.add(node);
      found.nodes.add(node);
      for (const index of up ? this.outOf[node] : this.into[node]) {
        if (!shown[index]) continue;
        found.edges.add(index);
        const edge = this.model.edges[index];
        if (edge.from < 0) continue;
        stack.push(up ? edge.to : edge.from);
        if (up) stack.push(...this.siblings(edge.to, shown, up));
      }
      if (!up) stack.push(...this.siblings(node, shown, up));
      for (const other of up ? this.readers[node] : this.reads[node]) stack.push(other);
    }
  }
}

function isAttention(kind: NodeKind): boolean {
  return kind === "head" || kind === "group";
}
