// A part of the page below the graph, and what several of them need.

import { h, replace } from "./dom";
import type { Model, Run } from "./data";

export function section(id: string, title: string, ...children: (Node | null)[]): HTMLElement {
  return h("section", { id, class: "part", "aria-labelledby": `${id}-title` }, h("h2", { id: `${id}-title` }, title), ...children);
}

/** Share of the way from the ablated run to the model that the circuit goes. */
export function recovered(run: Run): number | null {
  const { metric, full, ablated } = run.result;
  if (metric === null || full === null || ablated === null || Math.abs(full - ablated) < 1e-12) return null;
  return (metric - ablated) / (full - ablated);
}

/** A drawing that is made anew for the width it has. */
export function drawn(draw: (width: number) => SVGElement, least = 240): HTMLElement {
  const holder = h("div", { class: "plot" });
  let last = 0;
  new ResizeObserver(() => {
    const width = Math.max(least, Math.floor(holder.clientWidth));
    if (width === last) return;
    last = width;
    replace(holder, draw(width));
  }).observe(holder);
  return holder;
}

export function runKey(model: Model): HTMLElement {
  return h("p", { class: "key-line" }, ...model.runs.flatMap((run, index) => [h("span", { class: `swatch r${index % 6}`, "aria-hidden": "true" }), ` ${run.label} `]));
}
