// How edges run between boxes: straight up where nothing stands in the way, else through the gaps between columns.

import type { Arrangement, Box } from "./arrange";
import type { Curve } from "./pen";
import type { Visual, VisualEdge } from "./visual";

const PORTS: Record<string, number> = { q: -1, k: 0, v: 1 };
/** How far from a box its edges turn. */
const BEND = 11;

interface Room {
  levels: number[];
  levelOf: Map<number, number>;
  standing: [left: number, right: number][][];
  gaps: number[];
}

/** In which span's column a box stands. */
type SpanOf = (box: number) => string | null;

/** Of each edge; edges at one span keep to its column. */
export function routes(visual: Visual, at: Arrangement, spanOf: SpanOf, spine: number[]): Curve[] {
  const rooms = new Map([...bySpan([...at.boxes.keys()], spanOf)].map(([span, boxes]) => [span, roomFor(visual, at, boxes)]));
  const place = new Map(spine.map((box, number) => [box, number]));
  return visual.edges.map((edge) => {
    if (edge.spine) return bow(edge, at.boxes, place.get(edge.to)! - place.get(edge.from)!);
    return route(visual, edge, at.boxes, rooms.get(spanOf(edge.to))!);
  });
}

function bySpan(boxes: number[], spanOf: SpanOf): Map<string | null, number[]> {
  const found = new Map<string | null, number[]>();
  for (const box of boxes) {
    const span = spanOf(box);
    const own = found.get(span);
    if (own) own.push(box);
    else found.set(span, [box]);
  }
  return found;
}

function isBar(visual: Visual, at: number): boolean {
  return visual.nodes[at].kind === "bar";
}

function roomFor(visual: Visual, { boxes }: Arrangement, inside: number[]): Room {
  const levels = [...new Set(inside.map((at) => boxes[at][1]))].sort((a, b) => b - a);
  const levelOf = new Map(levels.map((y, index) => [y, index]));
  const standing = levels.map((): [number, number][] => []);
  for (const at of inside) {
    const [x, y, width] = boxes[at];
    if (!isBar(visual, at)) standing[levelOf.get(y)!].push([x - width / 2, x + width / 2]);
  }
  return { levels, levelOf, standing, gaps: gapsBetween(standing.flat()) };
}

function route(visual: Visual, edge: VisualEdge, boxes: Box[], room: Room): Curve {
  const from = boxes[edge.from];
  const to = boxes[edge.to];
  if (to[1] + to[3] / 2 > from[1] - from[3] / 2 - 4) return aside(from, to);
  const low = room.levelOf.get(from[1])!;
  const high = room.levelOf.get(to[1])!;
  const reader = visual.nodes[edge.to];
  const port = reader.kind === "head" || reader.kind === "shared" ? (PORTS[edge.kind] ?? 0) * 15 : 0;
  const within = (x: number, box: Box) => Math.max(box[0] - box[2] / 2 + 6, Math.min(box[0] + box[2] / 2 - 6, x));
  const targetX = isBar(visual, edge.to) ? null : to[0] + port;
  const sourceX = isBar(visual, edge.from) ? null : from[0];
  const blocked = (x: number) => {
    for (let level = low + 1; level < high; level++) {
      if (room.standing[level].some(([left, right]) => x > left - 3 && x < right + 3)) return true;
    }
    return false;
  };
  const cost = (x: number) => Math.abs(x - (sourceX ?? within(x, from))) + Math.abs(x - (targetX ?? within(x, to)));
  const wanted = [sourceX, targetX].filter((x): x is number => x !== null);
  if (!wanted.length) wanted.push(to[0]);
  let lane = wanted.filter((x) => !blocked(x)).sort((a, b) => cost(a) - cost(b))[0];
  if (lane === undefined) {
    const gap = room.gaps.reduce((best, x) => (cost(x) < cost(best) ? x : best), room.gaps[0] ?? wanted[0]);
    lane = gap + spread(edge.from) * 6;
  }
  const source: [number, number] = [sourceX ?? within(lane, from), from[1] - from[3] / 2];
  const target: [number, number] = [targetX ?? within(lane, to), to[1] + to[3] / 2];
  const rise = source[1] - target[1];
  if (high - low <= 1 || rise < 3 * BEND) return through(source, sway(source[0], target[0], source[1], target[1]), target);
  const up = source[1] - BEND * 1.6;
  const down = target[1] + BEND * 1.6;
  return through(source, [...sway(source[0], lane, source[1], up), ...sway(lane, target[0], down, target[1])], target);
}

/** Into what stands beside the sender or below it: from side to side. */
function aside(from: Box, to: Box): Curve {
  const right = to[0] >= from[0];
  const source: [number, number] = [from[0] + (right ? from[2] / 2 : -from[2] / 2), from[1] - from[3] / 4];
  const near = Math.abs(to[0] - from[0]) < (from[2] + to[2]) / 2;
  if (near) {
    // One stands straight below the other: around it.
    const x = Math.max(from[0] + from[2] / 2, to[0] + to[2] / 2) + 22;
    const start: [number, number] = [from[0] + from[2] / 2, from[1]];
    return through(start, [[x, start[1]], [x, to[1]]], [to[0] + to[2] / 2, to[1]]);
  }
  const target: [number, number] = [to[0] - (right ? to[2] / 2 : -to[2] / 2), to[1]];
  const middle = (source[0] + target[0]) / 2;
  return through(source, [[middle, source[1]], [middle, target[1]]], target);
}

/** A curve pulled by points, from one end to the other: between them it passes their middles. */
function through(source: [number, number], points: [number, number][], target: [number, number]): Curve {
  const curve: Curve = [...source];
  points.forEach(([x, y], index) => {
    const next = points[index + 1];
    if (next) curve.push(x, y, (x + next[0]) / 2, (y + next[1]) / 2);
    else curve.push(x, y, ...target);
  });
  return curve;
}

/** A line of straight parts with rounded corners. */
export function cornered(corners: [x: number, y: number][], radius: number): Curve {
  const curve: Curve = [...corners[0]];
  const straight = (x: number, y: number) => curve.push((curve.at(-2)! + x) / 2, (curve.at(-1)! + y) / 2, x, y);
  for (let at = 1; at < corners.length - 1; at++) {
    const [x, y] = corners[at];
    const toward = ([ox, oy]: [number, number]): [number, number] => {
      const length = Math.hypot(ox - x, oy - y) || 1;
      const by = Math.min(radius, length / 2) / length;
      return [x + (ox - x) * by, y + (oy - y) * by];
    };
    straight(...toward(corners[at - 1]));
    curve.push(x, y, ...toward(corners[at + 1]));
  }
  straight(...corners.at(-1)!);
  return curve;
}

/** What stands on the spine, from bottom to top, span after span. */
export function spineOrder(visual: Visual, at: Arrangement, spanOf: SpanOf): number[] {
  const there = visual.nodes.flatMap((node, index) => (node.kind === "mlp" || node.kind === "fold" ? [index] : []));
  return [...bySpan(there, spanOf).values()].flatMap((own) => own.sort((a, b) => at.boxes[b][1] - at.boxes[a][1]));
}

/** Between MLPs: straight up to the next one, else in a bow beside the spine. */
function bow(edge: VisualEdge, boxes: Box[], apart: number): Curve {
  const from = boxes[edge.from];
  const to = boxes[edge.to];
  if (apart <= 1) return through([from[0], from[1] - from[3] / 2], [[from[0], (from[1] + to[1]) / 2]], [to[0], to[1] + to[3] / 2]);
  const start: [number, number] = [from[0] + from[2] / 2, from[1]];
  const end: [number, number] = [to[0] + to[2] / 2, to[1]];
  const out = Math.max(start[0], end[0]) + 6 + Math.min(22, 5 * Math.log2(apart));
  return through(start, [[out, start[1]], [out, start[1] - 14], [out, end[1] + 14], [out, end[1]]], end);
}

/** From one x to another between two heights: level in the middle where it goes far, slanting where it does not. */
function sway(from: number, to: number, low: number, high: number): [number, number][] {
  const middle = (low + high) / 2;
  const room = Math.max(1, (low - high) / 2);
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
