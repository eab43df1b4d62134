// One picture of the graph: what is drawn, where it stands, how its lines run.

import { type Arrangement, arrange, GUTTER } from "./arrange";
import { arrangeSpans } from "./columns";
import type { Layout, Model } from "./data";
import type { Neighbours } from "./paths";
import type { Curve } from "./pen";
import { cornered, routes, spineOrder } from "./routes";
import type { State } from "./state";
import { bandsOf, seenNodes, type Visual, visualOf } from "./visual";

export interface Scene {
  visual: Visual;
  at: Arrangement;
  curves: Curve[];
  /** Rectangles around the curves, to find what is pointed at. */
  around: [left: number, top: number, right: number, bottom: number][];
  arcs: { from: number; to: number; curve: Curve }[];
  /** MLPs from bottom to top, span after span. */
  spine: number[];
}

/** Fold what has MLPs alone, where the picture would be much higher than a screen. */
export const TALL = 700;

export function compose(model: Model, state: State, shown: Uint8Array, neighbours: Neighbours, width: number): Scene {
  const seen = seenNodes(model, shown);
  const spans = model.data.graph.spans.length > 0;
  let [visual, at] = spans ? standing(model, state, shown, seen, neighbours, width) : rowsOf(model, state, shown, seen, neighbours, width, false);
  if (!spans && at.height > TALL) [visual, at] = rowsOf(model, state, shown, seen, neighbours, width, true);
  const spanOf = (box: number) => model.nodes[visual.nodes[box].nodes[0]].span;
  for (const [box, { nodes }] of visual.nodes.entries()) moved(at, box, state.moved.get(nodes[0]));
  const spine = spineOrder(visual, at, spanOf);
  const curves = routes(visual, at, spanOf, spine);
  const arcs = at.arcs.map(({ from, to, corners }) => ({ from, to, curve: cornered(corners, 5) }));
  return { visual, at, curves, around: curves.map(rectangle), arcs, spine };
}

function rowsOf(model: Model, state: State, shown: Uint8Array, seen: boolean[], neighbours: Neighbours, width: number, foldable: boolean): [Visual, Arrangement] {
  const bands = bandsOf(model, state, seen, foldable);
  const visual = visualOf(model, state, shown, seen, bands, neighbours);
  return [visual, arrange(model, visual, bands, width)];
}

function standing(model: Model, state: State, shown: Uint8Array, seen: boolean[], neighbours: Neighbours, width: number): [Visual, Arrangement] {
  const layout: Layout = seen.every((there, node) => !there || model.nodes[node].close) ? "close" : "wide";
  const plain = { ...state, boxed: false };
  const tall = Math.max(...model.data.columns[layout].columns.map(([, , , top, height]) => top + height)) > TALL;
  const bands = tall || state.folds.size ? bandsOf(model, plain, seen, tall) : [];
  const visual = visualOf(model, plain, shown, seen, bands, neighbours);
  return [visual, arrangeSpans(model, visual, layout, bands, width)];
}

/** Where the reader has put a box: inside the picture. */
function moved(at: Arrangement, box: number, by: [dx: number, dy: number] | undefined): void {
  if (!by) return;
  const [x, y, width, height] = at.boxes[box];
  const inside = (value: number, low: number, high: number) => Math.max(low, Math.min(high, value));
  at.boxes[box] = [inside(x + by[0], GUTTER + width / 2, at.width - width / 2), inside(y + by[1], height / 2, at.height - height / 2), width, height];
}

function rectangle(curve: Curve): [number, number, number, number] {
  const box: [number, number, number, number] = [Infinity, Infinity, -Infinity, -Infinity];
  for (let at = 0; at < curve.length; at += 2) {
    box[0] = Math.min(box[0], curve[at]);
    box[1] = Math.min(box[1], curve[at + 1]);
    box[2] = Math.max(box[2], curve[at]);
    box[3] = Math.max(box[3], curve[at + 1]);
  }
  return box;
}

/** The box at a place; the last one drawn, where several lie upon each other. */
export function boxAt({ at }: Scene, x: number, y: number, there: (box: number) => boolean): number | null {
  for (let box = at.boxes.length - 1; box >= 0; box--) {
    const [bx, by, width, height] = at.boxes[box];
    if (there(box) && Math.abs(x - bx) <= width / 2 + 2 && Math.abs(y - by) <= height / 2 + 2) return box;
  }
  return null;
}

/** The line nearest to a place, if it is near. */
export function edgeAt(scene: Scene, x: number, y: number, there: (edge: number) => boolean): number | null {
  let best: number | null = null;
  let least = 6;
  scene.around.forEach(([left, top, right, bottom], edge) => {
    if (x < left - 6 || x > right + 6 || y < top - 6 || y > bottom + 6 || !there(edge)) return;
    const away = distance(scene.curves[edge], x, y);
    if (away < least) [least, best] = [away, edge];
  });
  return best;
}

const PIECES = 8;

function distance(curve: Curve, x: number, y: number): number {
  let least = Infinity;
  let [px, py] = curve;
  for (let at = 2; at < curve.length; at += 4) {
    const [sx, sy] = [px, py];
    const [cx, cy, tx, ty] = [curve[at], curve[at + 1], curve[at + 2], curve[at + 3]];
    for (let piece = 1; piece <= PIECES; piece++) {
      const t = piece / PIECES;
      const nx = (1 - t) ** 2 * sx + 2 * (1 - t) * t * cx + t ** 2 * tx;
      const ny = (1 - t) ** 2 * sy + 2 * (1 - t) * t * cy + t ** 2 * ty;
      least = Math.min(least, toLine(x, y, px, py, nx, ny));
      [px, py] = [nx, ny];
    }
  }
  return least;
}

function toLine(x: number, y: number, ax: number, ay: number, bx: number, by: number): number {
  const [dx, dy] = [bx - ax, by - ay];
  const along = Math.max(0, Math.min(1, ((x - ax) * dx + (y - ay) * dy) / (dx * dx + dy * dy || 1)));
  return Math.hypot(x - ax - along * dx, y - ay - along * dy);
}
