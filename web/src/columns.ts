// What stands behind and between the nodes where positions are told apart: columns of spans, and lines of attention.

import type cytoscape from "cytoscape";
import type { Layout, Model } from "./data";
import { segments } from "./marks";

/** From a node to what sees its key and its value. */
export interface Tie {
  tie: cytoscape.EdgeSingular;
  from: number;
  to: number;
  /** To where it runs in a layout. */
  lead(layout: Layout): void;
}

/** The ground of a column, with its name. */
export interface Backdrop {
  stand(layout: Layout): void;
}

export function addTies(cy: cytoscape.Core, model: Model): Tie[] {
  const corners = { close: cornersOf(model, "close"), wide: cornersOf(model, "wide") };
  return model.nodes.flatMap((node, from) =>
    node.readers.flatMap((name): Tie[] => {
      const to = model.byName.get(name);
      if (to === undefined) return [];
      const id = `t${from}-${to}`;
      const across = node.span !== model.nodes[to].span;
      const tie = cy.add({ group: "edges", data: { id, source: `n${from}`, target: `n${to}`, from, to, ...(across ? { attention: 1 } : { tie: 1 }) }, classes: "off" });
      const lead = (layout: Layout) => {
        const points = corners[layout].get(id);
        const boxes = [node[layout], model.nodes[to][layout]];
        if (points && boxes[0] && boxes[1]) tie.style(segments(points, boxes[0], boxes[1]));
      };
      return [{ tie: tie as unknown as cytoscape.EdgeSingular, from, to, lead }];
    }),
  );
}

function cornersOf(model: Model, layout: Layout): Map<string, [x: number, y: number][]> {
  return new Map(
    model.data.columns[layout].arcs.map(([from, to, ...numbers]) => {
      const points = numbers.flatMap((x, at): [number, number][] => (at % 2 ? [] : [[x, numbers[at + 1]]]));
      return [`t${model.byName.get(from)}-${model.byName.get(to)}`, points];
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
