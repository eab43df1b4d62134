// Paths up and down from a node or an edge, along the edges that are shown, and along what attention carries on.

import type { Model, NodeKind } from "./data";

export interface Paths {
  nodes: Set<number>;
  edges: Set<number>;
}

export class Neighbours {
  readonly into: number[][];
  readonly outOf: number[][];
  /** What sees a node's key and value: query heads that share them, a head at other spans. And the other way about. */
  readonly readers: number[][];
  readonly reads: number[][];
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
        ? model.nodes.flatMap((other, at) => (at !== index && other.layer === node.layer && other.span === node.span && isAttention(other.kind) ? [at] : []))
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

  /** The nodes to which attention carries on what is shown of this node's key and value. */
  carriedTo(node: number, shown: Uint8Array): number[] {
    return this.sees(node, shown) ? this.readers[node].filter((other) => this.used(other, shown)) : [];
  }

  /** The nodes whose keys and values attention carries on to this one. */
  carriedFrom(node: number, shown: Uint8Array): number[] {
    return this.used(node, shown) ? this.reads[node].filter((other) => this.sees(other, shown)) : [];
  }

  /** Whether a node's key or value reads something that is shown. */
  private sees(node: number, shown: Uint8Array): boolean {
    return this.into[node].some((index) => shown[index] && this.goesOn(index));
  }

  /** Whether something that is shown reads what a node writes or what moves with it, or its query reads something. */
  private used(node: number, shown: Uint8Array): boolean {
    const query = (index: number) => shown[index] && this.model.edges[index].kind === "q";
    return this.outOf[node].some((index) => shown[index]) || this.into[node].some(query) || this.siblings(node, shown, true).length > 0;
  }

  /** Whether what an edge brings is seen from other spans: a query looks, and only keys and values are looked at. */
  private goesOn(edge: number): boolean {
    const { kind, to } = this.model.edges[edge];
    return isAttention(this.model.nodes[to].kind) && kind !== "q";
  }

  /** Everything on a path that begins at a node, or of those that end at it. */
  side(node: number, shown: Uint8Array, up: boolean): Set<number> {
    const found: Paths = { nodes: new Set(), edges: new Set() };
    this.follow(node, shown, up, found, new Set());
    return found.edges;
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
    this.follow(to, shown, true, found, new Set(), true, this.goesOn(edge));
    return found;
  }

  /** What moves with a node, and goes on from there. */
  private siblings(node: number, shown: Uint8Array, up: boolean): number[] {
    return this.together[node].filter((other) => (up ? this.outOf : this.into)[other].some((index) => shown[index]));
  }

  /**
   * `entered`: the way up starts with an edge into the node, which moves what its siblings write, too. `carried`: that
   * edge leads into a key or a value, which is seen from other spans.
   */
  private follow(start: number, shown: Uint8Array, up: boolean, found: Paths, seen: Set<string>, entered = false, carried = true): void {
    // Up, attention carries on what has come in by a key or a value; down, it has come from keys and values alone.
    const stack: { node: number; attention: boolean; queries: boolean }[] = [];
    const push = (node: number, attention: boolean, queries = true) => void stack.push({ node, attention, queries });
    push(start, carried);
    if (entered) for (const other of this.siblings(start, shown, up)) push(other, false);
    while (stack.length) {
      const { node, attention, queries } = stack.pop()!;
      const key = `${node} ${attention} ${queries}`;
      if (seen.has(key)) continue;
      seen.add(key);
      found.nodes.add(node);
      for (const index of up ? this.outOf[node] : this.into[node]) {
        if (!shown[index] || (!up && !queries && !this.goesOn(index))) continue;
        found.edges.add(index);
        const edge = this.model.edges[index];
        if (edge.from < 0) continue;
        if (up) {
          push(edge.to, this.goesOn(index));
          for (const other of this.siblings(edge.to, shown, up)) push(other, false);
        } else push(edge.from, true);
      }
      if (!up && queries) for (const other of this.siblings(node, shown, up)) push(other, true);
      if (!attention) continue;
      if (up) {
        for (const other of this.carriedTo(node, shown)) for (const one of [other, ...this.siblings(other, shown, up)]) push(one, false);
      } else for (const other of this.carriedFrom(node, shown)) push(other, false, false);
    }
  }
}

function isAttention(kind: NodeKind): boolean {
  return kind === "head" || kind === "group";
}
