// Where things stand where positions are told apart: in the columns of spans, at the places that edgewise worked out.
// Layers that are folded, or of which nothing is shown, are taken out, and what is below them moves up.

import { type Arrangement, type Box, EMPTY, fullLabel, GUTTER, LOW, type Row } from "./arrange";
import type { Arc, Layout, Model } from "./data";
import type { Band, Visual } from "./visual";

/** Between a row and the next one above it, where layers are taken out. */
const BETWEEN = 24;
const MARGIN = 14;

/** A layer from its lowest box up to the next layer's. */
interface Slab {
  top: number;
  bottom: number;
}

/** `bands` says what is taken out; none where everything has its room. */
export function arrangeSpans(model: Model, visual: Visual, layout: Layout, bands: Band[], width: number): Arrangement {
  const { columns, arcs } = model.data.columns[layout];
  const right = Math.max(...model.nodes.map((node) => (node[layout] ? node[layout][0] + node[layout][2] / 2 : 0)), 1);
  const shift = GUTTER + Math.max(0, (width - GUTTER - right - MARGIN) / 2);
  const slabs = slabsOf(model, layout);
  const short = new Shortened(slabs, bands);
  const boxes = visual.nodes.map((node): Box => {
    const first = model.nodes[node.nodes[0]];
    if (node.kind === "fold") {
      const [, left, wide] = columns.find(([name]) => name === first.span)!;
      const [, bottom] = short.band(node.layers[0])!;
      return [left + wide / 2 + shift, bottom - LOW / 2, Math.min(fullLabel(node), wide - 8), LOW];
    }
    const [x, y, ...size] = first[layout] ?? [0, 0, 1, 1];
    return [x + shift, y - short.above(node.layers[0]), ...size];
  });
  return {
    boxes,
    rows: rowsOf(visual, boxes, bands, short),
    width: Math.max(width, right + MARGIN + shift),
    height: Math.max(...columns.map(([, , , top, height]) => top + height - short.removed), ...boxes.map(([, y, , height]) => y + height / 2)) + MARGIN,
    columns: columns.map(([name, left, wide, top, height]) => ({ name, left: left + shift, width: wide, top, height: height - short.removed })),
    arcs: joined(model, visual, boxes, arcs, shift, short),
  };
}

function slabsOf(model: Model, layout: Layout): Map<number, Slab> {
  const found = new Map<number, Slab>();
  for (const node of model.nodes) {
    const box = node[layout];
    if (!box || node.layer < 0) continue;
    const layer = node.kind === "logits" ? Infinity : node.layer;
    const slab = found.get(layer) ?? { top: Infinity, bottom: -Infinity };
    found.set(layer, { top: Math.min(slab.top, box[1] - box[3] / 2), bottom: Math.max(slab.bottom, box[1] + box[3] / 2) });
  }
  const order = [...found].sort(([a], [b]) => a - b);
  order.forEach(([, slab], at) => {
    if (order[at + 1]) slab.top = order[at + 1][1].bottom;
  });
  return found;
}

/** What bands take out of the picture. */
class Shortened {
  readonly removed: number;
  private readonly aboveLayer = new Map<number, number>();
  private readonly places = new Map<number, [top: number, bottom: number]>();

  constructor(slabs: Map<number, Slab>, bands: Band[]) {
    let removed = 0;
    for (const band of [...bands].reverse()) {
      const [first, last] = band.layers;
      const there = [...slabs].filter(([layer]) => layer >= first && layer <= last).map(([, slab]) => slab);
      for (let layer = first; layer <= last; layer++) this.aboveLayer.set(layer, removed);
      if (!there.length) continue;
      const top = Math.min(...there.map((slab) => slab.top));
      const whole = Math.max(...there.map((slab) => slab.bottom)) - top;
      const needed = band.state === "open" ? whole : Math.min(whole, band.state === "folded" ? LOW + BETWEEN : EMPTY);
      this.places.set(first, [top - removed, top - removed + needed]);
      removed += whole - needed;
    }
    this.removed = removed;
  }

  /** How much is taken out above a layer; of the embedding, in all. */
  above(layer: number): number {
    return layer < 0 ? this.removed : (this.aboveLayer.get(layer) ?? 0);
  }

  /** Where the band stands that begins with a layer, if there is anything in it. */
  band(first: number): [top: number, bottom: number] | null {
    return this.places.get(first) ?? null;
  }
}

/** A row for each layer, or range of layers, that is shown, and for those that are taken out. */
function rowsOf(visual: Visual, boxes: Box[], bands: Band[], short: Shortened): Row[] {
  const rows = new Map<number, Row>();
  for (const band of bands) {
    const place = band.state === "empty" ? short.band(band.layers[0]) : null;
    if (place) rows.set(band.layers[0], { ...band, top: place[0], bottom: place[1] });
  }
  visual.nodes.forEach(({ layers, kind }, at) => {
    const [, y, , height] = boxes[at];
    if (layers[0] < 0 || layers[0] === Infinity) return;
    const row = rows.get(layers[0]) ?? { layers, state: kind === "fold" ? "folded" : "open", top: Infinity, bottom: -Infinity };
    rows.set(layers[0], { ...row, top: Math.min(row.top, y - height / 2), bottom: Math.max(row.bottom, y + height / 2) });
  });
  return [...rows.values()].sort((a, b) => a.layers[0] - b.layers[0]);
}

/** Lines of attention, from head to head; one from a folded layer to the same one at another span. */
function joined(model: Model, visual: Visual, boxes: Box[], arcs: Arc[], shift: number, short: Shortened): Arrangement["arcs"] {
  const found = new Map<string, Arrangement["arcs"][number]>();
  for (const [reader, seer, ...numbers] of arcs) {
    const [from, to] = [reader, seer].map((name) => visual.of[model.byName.get(name) ?? 0]);
    if (from < 0 || to < 0) continue;
    const { kind, layers } = visual.nodes[from];
    const up = short.above(layers[0]);
    const corners = numbers.flatMap((x, at): [number, number][] => (at % 2 ? [] : [[x + shift, numbers[at + 1] - up]]));
    found.set(`${from} ${to}`, { from, to, corners: kind === "fold" ? above(boxes[from], boxes[to]) : corners });
  }
  return [...found.values()];
}

function above(from: Box, to: Box): [number, number][] {
  const top = from[1] - from[3] / 2;
  const by = from[0] < to[0] ? 10 : -10;
  return [
    [from[0] + by, top],
    [from[0] + by, top - 9],
    [to[0] - by, top - 9],
    [to[0] - by, top],
  ];
}

/** Whether the columns together are so many times as wide as they are high. */
export function isWide(model: Model, times: number): boolean {
  const { columns } = model.data.columns.close;
  const width = columns.reduce((sum, [, , width]) => sum + width, 0);
  return width > times * Math.max(...columns.map(([, , , , height]) => height), 1);
}
