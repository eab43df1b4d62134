// How edges run between boxes: straight up where nothing stands in the way, else through the gaps between columns.

import type { Box, Edge, Model } from "./data";

export interface Route {
  source: [x: number, y: number];
  target: [x: number, y: number];
  /** Points that pull the curve, from the source on. */
  through: [x: number, y: number][];
}

const PORTS: Record<string, number> = { q: -1, k: 0, v: 1 };

/** Of each edge; edges at one span keep to its column. */
export function routes(model: Model, boxes: (Box | null)[]): (Route | null)[] {
  const { spans } = model.data.graph;
  if (!spans.length) return routesIn(model, boxes);
  const found = spans.map((span) => routesIn(model, boxes.map((box, node) => (model.nodes[node].span === span ? box : null))));
  return model.edges.map((edge) => found[spans.indexOf(model.nodes[edge.to].span!)][edge.index]);
}

function routesIn(model: Model, boxes: (Box | null)[]): (Route | null)[] {
  const levels = [...new Set(boxes.flatMap((box) => (box ? [box[1]] : [])))].sort((a, b) => b - a);
  const standing = levels.map((y) =>
    boxes.flatMap((box, node) => (box && box[1] === y && !isBar(model, node) ? [[box[0] - box[2] / 2, box[0] + box[2] / 2]] : [])),
  );
  const levelOf = new Map(levels.map((y, index) => [y, index]));
  const gaps = gapsBetween(standing.flat() as [number, number][]);
  const step = levels.length > 1 ? Math.min(...levels.slice(1).map((y, index) => levels[index] - y)) : 60;
  return model.edges.map((edge) => {
    const from = edge.from < 0 ? null : boxes[edge.from];
    const to = boxes[edge.to];
    if (!from || !to) return null;
    return route(model, edge, from, to, { levels, levelOf, standing: standing as [number, number][][], gaps, step });
  });
}

interface Room {
  levels: number[];
  levelOf: Map<number, number>;
  standing: [left: number, right: number][][];
  gaps: number[];
  step: number;
}

function isBar(model: Model, node: number): boolean {
  const kind = model.nodes[node].kind;
  return kind === "input" || kind === "tok" || kind === "pos" || kind === "logits";
}

function route(model: Model, edge: Edge, from: Box, to: Box, room: Room): Route {
  const low = room.levelOf.get(from[1])!;
  const high = room.levelOf.get(to[1])!;
  const fromBar = isBar(model, edge.from);
  const toBar = isBar(model, edge.to);
  const port = (PORTS[edge.kind] ?? 0) * 16;
  const within = (x: number, box: Box) => Math.max(box[0] - box[2] / 2 + 6, Math.min(box[0] + box[2] / 2 - 6, x));
  const targetX = toBar ? null : to[0] + port;
  const sourceX = fromBar ? null : from[0];
  const blocked = (x: number) => {
    for (let level = low + 1; level < high; level++) {
      if (room.standing[level].some(([left, right]) => x > left - 3 && x < right + 3)) return true;
    }
    return false;
  };
  const cost = (x: number) =>
    Math.abs(x - (sourceX ?? within(x, from))) + Math.abs(x - (targetX ?? within(x, to)));
  const wanted = [sourceX, targetX].filter((x): x is number => x !== null);
  if (!wanted.length) wanted.push(to[0]);
  let lane = wanted.filter((x) => !blocked(x)).sort((a, b) => cost(a) - cost(b))[0];
  if (lane === undefined) {
    const gap = [...room.gaps].sort((a, b) => cost(a) - cost(b))[0] ?? wanted[0];
    lane = gap + spread(edge.from) * 7;
  }
  // From the embedding, edges of one kind into one place lie beside those of its neighbours, not on top of them.
  const source: [number, number] = [sourceX ?? within(lane, from), from[1] - from[3] / 2];
  const target: [number, number] = [targetX ?? within(lane, to), to[1] + to[3] / 2];
  const bend = Math.min(room.step - from[3], 60) * 0.55;
  if (high - low <= 1) {
    return { source, target, through: sway(source[0], target[0], source[1], target[1]) };
  }
  const up = source[1] - bend;
  const down = target[1] + bend;
  return {
    source,
    target,
    through: [...sway(source[0], lane, source[1], up), ...sway(lane, target[0], down, target[1])],
  };
}

/** From one x to another between two heights: level in the middle where it goes far, slanting where it does not. */
function sway(from: number, to: number, low: number, high: number): [number, number][] {
  const middle = (low + high) / 2;
  const room = (low - high) / 2;
  const slant = room * Math.max(0, 0.8 - Math.abs(to - from) / (3 * room));
  return [
    [from, middle + slant],
    [to, middle - slant],
  ];
}

/** Middles of the vertical gaps that no box stands in, and a lane on either side of them all. */
function gapsBetween(boxes: [number, number][]): number[] {
  const sorted = [...boxes].sort((a, b) => a[0] - b[0]);
  if (!sorted.length) return [];
  const gaps = [sorted[0][0] - 12];
  let right = sorted[0][1];
  for (const [left, end] of sorted) {
    if (left - right >= 8) {
      const width = left - right;
      if (width < 50) gaps.push((left + right) / 2);
      else for (let x = right + 12; x <= left - 12; x += Math.max(18, (width - 24) / 4)) gaps.push(x);
    }
    right = Math.max(right, end);
  }
  gaps.push(right + 12);
  return gaps;
}

/** -1 to 1, the same for the same node every time: what keeps a lane's edges apart. */
function spread(node: number): number {
  return (((node * 2654435761) >>> 0) / 2 ** 31) - 1;
}
