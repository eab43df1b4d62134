// Paths up and down from a node or an edge, along the edges that are shown.

import type { Model } from "./data";

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

  constructor(private readonly model: Model) {
    const lists = () => model.nodes.map((): number[] => []);
    this.into = lists();
    this.outOf = lists();
    this.readers = lists();
    this.reads = lists();
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
    this.follow(to, shown, true, found, new Set());
    return found;
  }

  private follow(start: number, shown: Uint8Array, up: boolean, found: Paths, seen: Set<number>): void {
    const stack = [start];
    while (stack.length) {
      const node = stack.pop()!;
      if (seen.has(node)) continue;
      seen.add(node);
      found.nodes.add(node);
      for (const index of up ? this.outOf[node] : this.into[node]) {
        if (!shown[index]) continue;
        found.edges.add(index);
        const edge = this.model.edges[index];
        if (edge.from >= 0) stack.push(up ? edge.to : edge.from);
      }
      for (const other of up ? this.readers[node] : this.reads[node]) stack.push(other);
    }
  }
}
