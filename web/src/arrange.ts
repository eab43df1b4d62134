// Where things stand: a row for each layer, early ones below, MLPs in the middle, as wide as there is room for.

import type { Model } from "./data";
import type { Band, Visual, VisualNode } from "./visual";

/** x and y of its middle, width and height. */
export type Box = [x: number, y: number, width: number, height: number];

/** What stands on the height of one layer, or of several that are folded or of which nothing is shown. */
export interface Row extends Band {
  top: number;
  bottom: number;
}

export interface Column {
  name: string;
  left: number;
  width: number;
  top: number;
  height: number;
}

export interface Arrangement {
  boxes: Box[];
  rows: Row[];
  width: number;
  height: number;
  /** Columns of spans, where there are any, and what attention carries from one to another: corners of a line. */
  columns: Column[];
  arcs: { from: number; to: number; corners: [x: number, y: number][] }[];
}

/** Room on the left for the names of layers. */
export const GUTTER = 46;
const EDGE = 12;
const PITCH = 60;
const WIDEST_PITCH = 84;
/** Of few heads side by side. */
const ROOMY_PITCH = 124;
const HEAD_HEIGHT = 30;
/** Of MLPs, folded layers and bars. */
export const LOW = 20;
/** Of layers of which nothing is shown. */
export const EMPTY = 16;
/** An MLP stands this much above the heads of its layer, which it reads. */
const ABOVE = 13;

export function widthOf(node: VisualNode): number {
  const letters = Math.max(node.label.length, node.kind === "box" ? node.under.length * 0.82 : 0);
  return Math.max(node.kind === "box" ? 84 : 50, letters * 6.9 + (node.kind === "box" ? 20 : 12));
}

export function fullLabel(node: VisualNode): number {
  return node.kind === "fold" ? (node.label.length + (node.under ? node.under.length + 3 : 0)) * 6.7 + 18 : widthOf(node);
}

/** Columns for heads on both sides of the MLPs'. */
class Slots {
  readonly count: number;
  private readonly pitch: number;
  private readonly onTheLeft: number;
  private readonly left: number;
  private readonly byHead: Map<number, number> | null;
  readonly middle: number;
  readonly from: number;
  readonly to: number;

  constructor(
    visual: Visual,
    width: number,
    private readonly heads: number,
  ) {
    const { nodes } = visual;
    const spine = nodes.some((node) => node.kind === "mlp" || node.kind === "fold");
    const corridor = spine ? Math.min(150, Math.max(92, width / 8)) : 0;
    const room = width - GUTTER - 2 * EDGE - corridor;
    const used = [...new Set(nodes.filter((node) => node.kind === "head").map((node) => node.head))].sort((a, b) => a - b);
    const widest = Math.max(PITCH, ...nodes.filter((node) => node.kind === "head" || node.kind === "shared").map((node) => widthOf(node) + 8));
    const boxes = nodes.some((node) => node.kind === "box");
    const most = Math.max(2, Math.floor(room / widest));
    const level = Math.max(0, ...countOn(nodes));
    this.count = Math.min(most, Math.max(used.length, boxes ? 6 : 0, level));
    this.byHead = used.length <= this.count ? new Map(used.map((head, at) => [head, at])) : null;
    this.pitch = this.count ? Math.min(Math.max(widest, this.count <= 5 ? ROOMY_PITCH : WIDEST_PITCH), room / this.count) : 0;
    this.onTheLeft = Math.ceil(this.count / 2);
    const own = this.count * this.pitch + corridor;
    this.left = GUTTER + Math.max(EDGE, (width - GUTTER - own) / 2);
    this.corridor = corridor;
    this.middle = this.left + this.onTheLeft * this.pitch + corridor / 2;
    this.from = Math.max(GUTTER + EDGE, Math.min(this.left, this.middle - 60));
    this.to = Math.max(this.left + own, this.middle + 60);
  }

  private readonly corridor: number;

  /** The middle of so many columns from one on. */
  x(column: number, size = 1): number {
    return this.left + this.pitch * (column + size / 2) + (column >= this.onTheLeft ? this.corridor : 0);
  }

  size(width: number): number {
    return Math.max(1, Math.ceil((width + 8) / this.pitch));
  }

  wanted(head: number): number {
    return this.byHead?.get(head) ?? (head * (this.count - 1)) / Math.max(1, this.heads - 1);
  }

  /** The nearest free columns, on one side of the MLPs. */
  free(taken: boolean[], wanted: number, size: number): number | null {
    let best: number | null = null;
    for (let at = 0; at + size <= this.count; at++) {
      if (at < this.onTheLeft && at + size > this.onTheLeft) continue;
      if (taken.slice(at, at + size).some(Boolean)) continue;
      if (best === null || Math.abs(at - wanted) < Math.abs(best - wanted)) best = at;
    }
    return best;
  }
}

function countOn(nodes: VisualNode[]): number[] {
  const counts = new Map<string, number>();
  for (const node of nodes) {
    if (node.kind !== "head" && node.kind !== "shared") continue;
    const key = `${node.kind} ${node.layers[0]}`;
    counts.set(key, (counts.get(key) ?? 0) + 1);
  }
  return [...counts.values()];
}

/** A row for each layer. Nothing is as wide as the room, so that names have the size that they are written in. */
export function arrange(model: Model, visual: Visual, bands: Band[], width: number): Arrangement {
  const { nodes, ties } = visual;
  const slots = new Slots(visual, width, model.data.graph.n_heads);
  const boxes: Box[] = nodes.map(() => [0, 0, 0, 0]);
  // A picture of few rows takes its ease.
  const between = bands.filter((band) => band.state === "open").length <= 6 ? 40 : 15 + Math.min(15, visual.edges.length / 40);
  const rows: Row[] = [];
  let bottom = 0;
  const bars = (those: number[]) => {
    if (!those.length) return;
    const whole = slots.to - slots.from;
    const each = (whole - EDGE * (those.length - 1)) / those.length;
    those.forEach((at, number) => (boxes[at] = [slots.from + each / 2 + (each + EDGE) * number, bottom - LOW / 2, each, LOW]));
    bottom -= LOW + between;
  };
  const wantedOf = (at: number): number => {
    const node = nodes[at];
    if (node.kind === "shared") {
      const readers = ties.filter(([from]) => from === at).map(([, to]) => nodes[to]).filter((one) => one.kind === "head");
      const share = model.data.graph.n_heads / model.data.graph.n_kv_heads;
      if (readers.length) return readers.reduce((sum, one) => sum + slots.wanted(one.head), 0) / readers.length;
      return slots.wanted(Math.round((node.head + 0.5) * share));
    }
    if (node.kind === "box") {
      const heads = node.nodes.map((one) => model.nodes[one]).filter((one) => one.kind === "head");
      const numbers = heads.map((one) => slots.wanted(Number(one.name.split("h")[1])));
      return numbers.length ? numbers.reduce((sum, one) => sum + one, 0) / numbers.length : slots.count / 2;
    }
    return slots.wanted(node.head);
  };
  const level = (those: number[], tall: number) => {
    let rest = those.map((at) => ({ at, wanted: wantedOf(at), size: Math.min(slots.count, slots.size(widthOf(nodes[at]))) })).sort((a, b) => a.wanted - b.wanted);
    let first = bottom;
    while (rest.length) {
      const taken = new Array<boolean>(slots.count).fill(false);
      const later: typeof rest = [];
      for (const one of rest) {
        const column = slots.free(taken, one.wanted, one.size) ?? (taken.some(Boolean) ? null : 0);
        if (column === null) later.push(one);
        else {
          taken.fill(true, column, column + one.size);
          boxes[one.at] = [slots.x(column, one.size), bottom - tall / 2, widthOf(nodes[one.at]), tall];
        }
      }
      bottom -= tall + (later.length ? 12 : 0);
      rest = later;
    }
    return first;
  };
  bars(nodes.flatMap((node, at) => (node.kind === "bar" && node.layers[0] < 0 ? [at] : [])));
  const home = new Map<number, Band>();
  nodes.forEach((node, at) => {
    if (node.kind === "bar") return;
    const middle = node.layers[0];
    const fits = node.kind === "fold" ? bands.filter((band) => band.layers[0] === middle) : bands.filter((band) => band.state === "open");
    const away = (band: Band) => Math.max(band.layers[0] - middle, middle - band.layers[1], 0);
    const there = fits.reduce((best, band) => (away(band) < away(best) ? band : best), fits[0] ?? bands[0]);
    home.set(at, there);
  });
  for (const band of bands) {
    const here = nodes.flatMap((_, at) => (home.get(at) === band ? [at] : []));
    const start = bottom;
    if (!here.length) {
      bottom -= EMPTY;
      rows.push({ ...band, state: "empty", bottom: start + between / 2, top: bottom + between / 2 });
      continue;
    }
    const folds = here.filter((at) => nodes[at].kind === "fold");
    for (const at of folds) boxes[at] = [slots.middle, bottom - LOW / 2, fullLabel(nodes[at]), LOW];
    if (folds.length) bottom -= LOW;
    const shared = here.filter((at) => nodes[at].kind === "shared");
    if (shared.length) {
      level(shared, LOW);
      bottom -= 12;
    }
    const heads = here.filter((at) => nodes[at].kind === "head" || nodes[at].kind === "box");
    const mlp = here.filter((at) => nodes[at].kind === "mlp");
    const tall = here.some((at) => nodes[at].kind === "box") ? 36 : HEAD_HEIGHT;
    if (heads.length) level(heads, tall);
    for (const at of mlp) {
      const middle = heads.length ? bottom + tall / 2 - ABOVE : bottom - LOW / 2;
      boxes[at] = [slots.middle, middle, widthOf(nodes[at]), LOW];
      bottom = Math.min(bottom, middle - LOW / 2);
    }
    rows.push({ ...band, bottom: start, top: bottom });
    bottom -= between;
  }
  bars(nodes.flatMap((node, at) => (node.layers[0] === Infinity ? [at] : [])));
  const top = bottom + between;
  const shift = EDGE - top;
  for (const box of boxes) box[1] += shift;
  for (const row of rows) [row.top, row.bottom] = [row.top + shift, row.bottom + shift];
  return { boxes, rows, width: Math.max(width, slots.to + EDGE), height: 2 * EDGE - top, columns: [], arcs: [] };
}
