// The names of layers beside the graph: buttons that fold and unfold them.

import type { Row } from "./arrange";
import { h, on, replace } from "./dom";

export class Gutter {
  readonly element = h("div", { class: "gutter", role: "group", "aria-label": "layers" });
  private names: { row: Row; element: HTMLElement }[] = [];
  private lastFold: number | null = null;

  constructor(private readonly fold: (layers: [first: number, last: number], folded: boolean) => void) {}

  show(rows: Row[]): void {
    this.names = rows.map((row) => ({ row, element: this.name(row) }));
    replace(this.element, ...this.names.map(({ element }) => element));
  }

  /** Put the names where their rows are on the screen. */
  stand(scale: number): void {
    for (const { row, element } of this.names) element.style.top = `${((row.top + row.bottom) / 2) * scale - 9}px`;
  }

  private name(row: Row): HTMLElement {
    const [first, last] = row.layers;
    const range = first === last ? String(first) : `${first}–${last}`;
    const layers = `${first === last ? "layer" : "layers"} ${range}`;
    if (row.state === "empty") return h("span", { class: "layer-name empty", title: `${layers}: nothing is shown` }, range);
    const folded = row.state === "folded";
    const label = folded ? `unfold ${layers}` : `fold ${layers}`;
    return on(h("button", { type: "button", class: "layer-name", "aria-expanded": folded ? "false" : "true", "aria-label": label, title: `${label}${folded ? "" : " (with Shift: all from the last one)"}` }, range), {
      click: (event) => {
        const from = event.shiftKey && this.lastFold !== null ? this.lastFold : first;
        this.lastFold = first;
        this.fold(folded ? row.layers : [Math.min(from, first), Math.max(from, last)], !folded);
      },
    });
  }
}
