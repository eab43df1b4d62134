// What stands behind and between the nodes where positions are told apart: columns of spans, and lines of attention.

import type cytoscape from "cytoscape";
import type { Layout, Model } from "./data";
import { segments } from "./marks";
import type { Neighbours, Paths } from "./paths";
import type { Palette } from "./theme";

/** The ground of a column, with its name. */
export interface Backdrop {
  stand(layout: Layout): void;
}

/** Lines from nodes to what sees their keys and values; each is made when it is first shown. */
export class Ties {
  private readonly corners: Record<Layout, Map<string, [x: number, y: number][]>>;
  private readonly ties: { from: number; to: number; edge: cytoscape.EdgeSingular | null }[][];
  private layout: Layout = "close";

  constructor(
    private readonly cy: cytoscape.Core,
    private readonly model: Model,
    private readonly neighbours: Neighbours,
  ) {
    this.corners = { close: cornersOf(model, "close"), wide: cornersOf(model, "wide") };
    this.ties = model.nodes.map((node, from) =>
      node.readers.flatMap((name) => {
        const to = model.byName.get(name);
        return to === undefined ? [] : [{ from, to, edge: null }];
      }),
    );
  }

  /** Those between nodes that are seen, where something is carried on. */
  show(seen: boolean[], shown: Uint8Array): void {
    this.ties.forEach((ties, from) => {
      if (!ties.length) return;
      const reached = new Set(seen[from] ? this.neighbours.carriedTo(from, shown) : []);
      for (const tie of ties) {
        const there = seen[tie.to] && reached.has(tie.to);
        if (there && !tie.edge) {
          tie.edge = this.make(from, tie.to);
          this.run(tie.edge, from, tie.to);
        }
        tie.edge?.toggleClass("off", !there);
      }
    });
  }

  /** To where they run in a layout. */
  lead(layout: Layout): void {
    this.layout = layout;
    for (const { edge, from, to } of this.ties.flat()) if (edge) this.run(edge, from, to);
  }

  /** Those aside of the paths fade. */
  light(lit: Paths | null): void {
    for (const { edge, from, to } of this.ties.flat()) edge?.toggleClass("faded", lit !== null && !(lit.nodes.has(from) && lit.nodes.has(to)));
  }

  private make(from: number, to: number): cytoscape.EdgeSingular {
    const { nodes } = this.model;
    const kind = nodes[from].span === nodes[to].span ? { tie: 1 } : { attention: 1 };
    const data = { id: `t${from}-${to}`, source: `n${from}`, target: `n${to}`, from, to, ...kind };
    return this.cy.add({ group: "edges", data }) as unknown as cytoscape.EdgeSingular;
  }

  private run(edge: cytoscape.EdgeSingular, from: number, to: number): void {
    const points = this.corners[this.layout].get(`${from} ${to}`);
    const [start, end] = [from, to].map((node) => this.model.nodes[node][this.layout]);
    if (points && start && end) edge.style(segments(points, start, end));
  }
}

function cornersOf(model: Model, layout: Layout): Map<string, [x: number, y: number][]> {
  return new Map(
    model.data.columns[layout].arcs.map(([from, to, ...numbers]) => {
      const points = numbers.flatMap((x, at): [number, number][] => (at % 2 ? [] : [[x, numbers[at + 1]]]));
      return [`${model.byName.get(from)} ${model.byName.get(to)}`, points];
    }),
  );
}

export function addColumns(cy: cytoscape.Core, model: Model): Backdrop[] {
  return model.data.graph.spans.flatMap((span, number): Backdrop[] => {
    const places = { close: columnOf(model, "close", span), wide: columnOf(model, "wide", span) };
    if (!places.wide) return [];
    const node = cy.add({ group: "nodes", data: { id: `c${number}`, label: span, column: 0, width: 1, height: 1 }, selectable: false });
    const stand = (layout: Layout) => {
      const place = places[layout];
      node.toggleClass("off", !place);
      if (!place) return;
      const { at, left, width, top, height } = place;
      node.data({ column: at, width, height });
      node.position({ x: left + width / 2, y: top + height / 2 });
    };
    return [{ stand }];
  });
}

function columnOf(model: Model, layout: Layout, wanted: string) {
  const { columns } = model.data.columns[layout];
  const at = columns.findIndex(([span]) => span === wanted);
  if (at < 0) return null;
  const [, left, width, top, height] = columns[at];
  return { at, left, width, top, height };
}

/** Whether the columns together are so many times as wide as they are high. */
export function isWide(model: Model, times: number): boolean {
  const { columns } = model.data.columns.close;
  const width = columns.reduce((sum, [, , width]) => sum + width, 0);
  return width > times * Math.max(...columns.map(([, , , , height]) => height), 1);
}

export function columnStyles(palette: Palette) {
  return [
    {
      selector: "node[column]",
      style: {
        shape: "rectangle",
        "background-color": palette.ink,
        "background-opacity": (node: cytoscape.NodeSingular) => (node.data("column") % 2 ? 0 : 0.035),
        "border-width": 0,
        "font-size": 14,
        "font-weight": 700,
        "text-valign": "top",
        "text-margin-y": -4,
        events: "no",
        "z-index": 0,
        "z-index-compare": "manual",
      },
    },
    {
      selector: "edge[attention]",
      style: { "curve-style": "round-segments", "segment-radii": 5, "line-color": palette.attention, width: 1.6, opacity: 1, "target-arrow-shape": "vee", "target-arrow-color": palette.attention, "arrow-scale": 0.7, events: "no", "z-index": 0 },
    },
  ];
}

/** Lines that share a lane lie upon each other: many faint ones would be a strong one. */
export const fadedAttention = { selector: "edge[attention].faded", style: { opacity: 0.03 } };
