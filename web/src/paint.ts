// How a scene looks: colours, widths and dashes of lines, boxes and what is written on them.

import type { Kind, Model } from "./data";
import type { Pen, Stroke } from "./pen";
import type { Paths } from "./paths";
import type { Scene } from "./scene";
import { type State, Status } from "./state";
import type { Palette } from "./theme";
import type { VisualEdge, VisualNode } from "./visual";

/** With more edges than this, lines are thinner and fainter. */
export const MANY = 250;
/** Lines that are painted before all others. Where there are many, the others are a pixel wide, which browsers draw fast. */
export const STRONGEST = 100;

/** What there is to draw of a scene now. */
export interface Look {
  model: Model;
  state: State;
  palette: Palette;
  shown: Uint8Array;
  /** Of each line, what its edges are; Off where none is shown. */
  status: Uint8Array;
  /** Of each line, 0 to 1. */
  strength: Float32Array;
  seen: boolean[];
  marks: string[];
  /** How many lines are drawn in full. */
  drawn: number;
  /** The strength below which lines are a pixel wide. */
  fine: number;
}

export function look(model: Model, state: State, palette: Palette, shown: Uint8Array, scene: Scene, strength: Float64Array): Look {
  const { visual } = scene;
  const status = Uint8Array.from(visual.edges, (edge) => statusOf(edge, shown));
  const seen = visual.nodes.map(() => false);
  const marks = visual.nodes.map(() => ["-", "-", "-"]);
  for (const edge of model.edges) {
    if (!shown[edge.index]) continue;
    const to = visual.of[edge.to];
    if (to < 0) continue;
    seen[to] = true;
    if (edge.from >= 0 && visual.of[edge.from] >= 0) seen[visual.of[edge.from]] = true;
    const at = "qkv".indexOf(edge.kind);
    if (at < 0) continue;
    if (!edge.port) marks[to][at] = edge.kind.toUpperCase();
    else if (marks[to][at] === "-") marks[to][at] = edge.kind;
  }
  const sums = visual.edges.map(({ edges }) => Math.max(...edges.map((index) => strength[index])));
  const largest = Math.max(...sums.filter((_, at) => status[at]), 0);
  const strengths = Float32Array.from(sums, (sum) => (largest > 0 ? Math.sqrt(Math.min(1, sum / largest)) : 0.22));
  const drawn = status.reduce((count, one) => count + (one && one !== Status.Coming ? 1 : 0), 0);
  const fine = drawn > MANY ? strengths.filter((_, at) => status[at]).sort().at(-STRONGEST)! : 0;
  return { model, state, palette, shown, status, strength: strengths, seen, marks: marks.map((one) => one.join("")), drawn, fine };
}

function statusOf({ edges }: VisualEdge, shown: Uint8Array): Status {
  let found: Status = Status.Off;
  for (const index of edges) {
    const one = shown[index] as Status;
    if (one === Status.Off || one === found) continue;
    if (found === Status.Off || found === Status.Coming || found === Status.Missed) found = one;
    else if (one !== Status.Coming && one !== Status.Missed) found = found === Status.Own || one === Status.Own ? Status.Some : Status.In;
  }
  return found;
}

export function stroke(look: Look, edge: VisualEdge, at: number): Stroke {
  const { drawn, state } = look;
  const status = look.status[at] as Status;
  const dense = drawn > MANY;
  const alpha = drawn > 1500 ? 0.3 : drawn > 700 ? 0.42 : dense ? 0.55 : 0.85;
  const widest = drawn > 300 ? 2.4 : drawn > 100 ? 4 : 5;
  const full = 0.8 + (widest - 0.8) * look.strength[at];
  const width = look.strength[at] < look.fine ? Math.min(1, full) : full;
  const colour = colourOf(look, edge, status);
  if (status === Status.Coming) return { colour, width: 1, alpha: dense ? 0.45 : 0.7 };
  if (status === Status.Missed) return dense ? { colour, width: 1, alpha: 0.3 } : { colour, width: 1.8, alpha, dash: [6, 4] };
  if (status === Status.Some && !dense) return { colour, width, alpha, dash: [7, 3] };
  if (status === Status.Extra && state.colour === "truth" && !dense) return { colour, width, alpha, dash: [2, 3] };
  return { colour, width, alpha };
}

function colourOf({ model, state, palette, shown }: Look, edge: VisualEdge, status: Status): string {
  if (status === Status.Coming) return palette.faint;
  if (state.focus < 0 && state.colour === "runs") {
    if (status === Status.Shared || status === Status.In) return palette.shared;
    if (status === Status.Some) return palette.some;
    const owner = model.runs.findIndex((run) => edge.edges.some((index) => shown[index] && run.has[index]));
    return palette.runs[Math.max(0, owner) % palette.runs.length];
  }
  if (status === Status.Missed && state.colour === "truth") return palette.missed;
  if (state.colour === "truth") return status === Status.Extra ? palette.extra : palette.found;
  return edge.kind === "mixed" ? palette.mixed : palette.kinds[edge.kind as Kind];
}

/** Lines that are drawn by themselves, from the strongest on. */
export function inOrder(look: Look, scene: Scene): number[] {
  const order = scene.visual.edges.flatMap((edge, at) => (look.status[at] && alone(look, edge) ? [at] : []));
  const late = (at: number) => (look.status[at] === Status.Coming || look.status[at] === Status.Missed ? 1 : 0);
  return order.sort((a, b) => late(a) - late(b) || look.strength[b] - look.strength[a]);
}

/** Whether a line is drawn by itself: those of the spine are drawn together, unless paths are followed. */
export function alone(look: Look, edge: VisualEdge): boolean {
  return !edge.spine || !look.state.spine;
}

export function line(pen: Pen, look: Look, scene: Scene, at: number): void {
  pen.curve(scene.curves[at], stroke(look, scene.visual.edges[at], at));
}

/** The spine: as broad at each height as edges between MLPs pass there. */
export function spine(pen: Pen, look: Look, scene: Scene, lit: Set<number> | null = null): void {
  const { visual, at, spine: order } = scene;
  const place = new Map(order.map((box, number) => [box, number]));
  const passing = new Float64Array(order.length);
  visual.edges.forEach((edge, index) => {
    if (!edge.spine || !look.status[index] || (lit && !lit.has(index))) return;
    const count = edge.edges.filter((one) => look.shown[one]).length;
    for (let step = place.get(edge.from)!; step < place.get(edge.to)!; step++) passing[step] += count;
  });
  const most = Math.max(...passing, 1);
  passing.forEach((count, step) => {
    if (!count) return;
    const [low, high] = [at.boxes[order[step]], at.boxes[order[step + 1]]];
    const [bottom, top] = [low[1] - low[3] / 2, high[1] + high[3] / 2];
    const width = Math.max(2, 18 * Math.sqrt(count / Math.max(most, 12)));
    pen.curve([low[0], bottom, low[0], (bottom + top) / 2, high[0], top], { colour: look.palette.kinds.mlp, width, alpha: 0.55 });
  });
}

export function ground(pen: Pen, look: Look, scene: Scene): void {
  const { palette } = look;
  for (const [number, column] of scene.at.columns.entries()) {
    const { left, width, top, height } = column;
    if (number % 2 === 0) pen.box(left + width / 2, top + height / 2, width, height, { colour: palette.ink, line: null, alpha: 0.035 });
  }
  names(pen, look, scene);
}

/** Names of spans, above their columns. */
export function names(pen: Pen, { palette }: Look, scene: Scene): void {
  for (const { name, left, width, top } of scene.at.columns) pen.text(left + width / 2, top - 6, name, { size: 14, weight: 700, colour: palette.ink });
}

export function ties(pen: Pen, look: Look, scene: Scene, lit: Paths | null): void {
  const { visual, at } = scene;
  const there = (box: number) => look.seen[box] && (!lit || visual.nodes[box].nodes.some((node) => lit.nodes.has(node)));
  for (const [from, to] of visual.ties) {
    if (!there(from) || !there(to)) continue;
    const [a, b] = [at.boxes[from], at.boxes[to]];
    const [sy, ty] = [a[1] - a[3] / 2, b[1] + b[3] / 2];
    pen.curve([a[0], sy, (a[0] + b[0]) / 2, (sy + ty) / 2, b[0], ty], { colour: look.palette.some, width: 1.1, alpha: 0.9, dash: [4, 3] });
  }
}

/** Lines of attention, each with a point at the end at which it is seen. */
export function arcs(pen: Pen, look: Look, scene: Scene, carries: (from: number, to: number) => boolean, lit: Paths | null): void {
  const { visual } = scene;
  const there = (box: number) => look.seen[box] && (!lit || visual.nodes[box].nodes.some((node) => lit.nodes.has(node)));
  for (const { from, to, curve } of scene.arcs) {
    if (!there(from) || !there(to) || !carries(from, to)) continue;
    const stroke = { colour: look.palette.attention, width: 1.6, alpha: 1 };
    pen.curve(curve, stroke);
    const [bx, by, x, y] = curve.slice(-4);
    const length = Math.hypot(x - bx, y - by) || 1;
    const [dx, dy] = [(x - bx) / length, (y - by) / length];
    for (const side of [1, -1]) {
      const [ex, ey] = [x - 6 * dx + side * 3.5 * dy, y - 6 * dy - side * 3.5 * dx];
      pen.curve([x, y, (x + ex) / 2, (y + ey) / 2, ex, ey], stroke);
    }
  }
}

export function boxes(pen: Pen, look: Look, scene: Scene, only: ((box: number) => boolean) | null = null): void {
  scene.visual.nodes.forEach((node, at) => {
    if (look.seen[at] && (!only || only(at))) box(pen, look, scene, node, at);
  });
}

function box(pen: Pen, look: Look, scene: Scene, node: VisualNode, at: number): void {
  const { palette } = look;
  const [x, y, width, height] = scene.at.boxes[at];
  const own = node.group === null ? null : palette.groups[node.group % palette.groups.length];
  const fill = own ?? (node.kind === "bar" || node.kind === "fold" ? palette.bar : node.kind === "mlp" ? palette.mlpBox : palette.box);
  const dash = node.kind === "shared" ? [4, 3] : undefined;
  if (node.kind === "fold") pen.box(x + 3, y - 3, width, height, { colour: palette.bar, line: palette.boxLine, radius: 4 });
  pen.box(x, y, width, height, { colour: fill, line: node.kind === "bar" ? null : palette.boxLine, radius: node.kind === "bar" ? 5 : 4, dash });
  const marks = node.kind === "head" || node.kind === "shared" ? look.marks[at] : "---";
  const ink = palette.ink;
  if (node.kind === "box") {
    pen.text(x, y - 1.5, node.label, { size: 12, weight: 600, colour: ink });
    pen.text(x, y + 12, node.under, { size: 11, colour: ink });
  } else if (node.kind === "fold") {
    pen.text(x, y + 4, node.under && !node.label.startsWith("m") ? `${node.label} · ${node.under}` : node.label, { size: 11.5, colour: ink });
  } else if (node.kind === "shared" && marks !== "---") {
    // Its own name beside its marks, as it has but little height.
    pen.text(x, y + 4 - (height > 24 ? 5 : 0), node.label, { size: 11.5, colour: ink });
    if (height > 24) marksOf(pen, palette, marks, x, y + height / 2 - 7);
    else ticks(pen, palette, marks, x, y + height / 2);
  } else if (marks === "---") pen.text(x, y + 4, node.label, { size: 12, weight: node.kind === "bar" ? 600 : 400, colour: ink });
  else {
    pen.text(x, y - (height > 24 ? 2 : 0), node.label, { size: 12, colour: ink });
    marksOf(pen, palette, marks, x, y + height / 2 - 7);
  }
}

/** A head's query, key and value under its name: filled where edges lead in, an outline where only the port edge is left. */
function marksOf(pen: Pen, palette: Palette, marks: string, x: number, y: number): void {
  [...marks].forEach((letter, number) => {
    if (letter === "-") return;
    const kind = letter.toLowerCase() as "q" | "k" | "v";
    const full = letter !== kind;
    const at = x + (number - 1) * 15;
    pen.box(at, y, 12.5, 10.5, { colour: full ? palette.kinds[kind] : palette.box, line: palette.kinds[kind], radius: 2.5 });
    pen.text(at, y + 3.2, kind, { size: 9, weight: 600, colour: full ? (kind === "k" ? "#1a1a1a" : palette.page) : palette.ink });
  });
}

/** The same for what has no room for letters: where edges lead in says which it is, left, middle or right. */
function ticks(pen: Pen, palette: Palette, marks: string, x: number, bottom: number): void {
  [...marks].forEach((letter, number) => {
    if (letter === "-") return;
    const kind = letter.toLowerCase() as "q" | "k" | "v";
    pen.box(x + (number - 1) * 15, bottom, 11, 4, { colour: letter === kind ? palette.box : palette.kinds[kind], line: palette.kinds[kind], radius: 1.5 });
  });
}

/** A ring around what is chosen. */
export function ring(pen: Pen, look: Look, scene: Scene, at: number): void {
  const [x, y, width, height] = scene.at.boxes[at];
  pen.box(x, y, width + 8, height + 8, { colour: null, line: look.palette.accent, width: 3, radius: 7, alpha: 0.3 });
  pen.box(x, y, width + 2, height + 2, { colour: null, line: look.palette.accent, width: 2.5, radius: 5 });
}

/** Names of layers, for pictures that are saved: on the page they are buttons. */
export function layers(pen: Pen, look: Look, scene: Scene): void {
  for (const row of scene.at.rows) {
    const [first, last] = row.layers;
    const text = first === last ? String(first) : `${first}–${last}`;
    pen.text(34, (row.top + row.bottom) / 2 + 4, text, { size: 11, colour: look.palette.soft, anchor: "end" });
  }
}
