// What is shown: the search, kinds of edges, layers, and what colours tell apart.

import type { Model } from "./data";
import { h, on } from "./dom";
import { KIND_NAMES, KINDS, type State } from "./state";

type Setter = (change: Partial<State>) => void;

export function toolbar(model: Model, state: State, search: HTMLElement, results: HTMLElement, set: Setter): HTMLElement {
  const kinds = h("fieldset", { class: "kinds" }, h("legend", { class: "offscreen" }, "kinds of edges"));
  for (const kind of KINDS) {
    if (!model.data.edges.kind.includes(kind)) continue;
    const box = on(h("input", { type: "checkbox", id: `kind-${kind}`, checked: true }), { change: () => set({ kinds: new Set(KINDS.filter((one) => (one === kind ? box.checked : state.kinds.has(one)))) }) });
    kinds.append(h("label", { for: `kind-${kind}` }, box, h("span", { class: `dot k-${kind}`, "aria-hidden": "true" }), KIND_NAMES[kind]));
  }
  const bar = h("div", { class: "toolbar", role: "group", "aria-label": "what is shown" }, search, kinds, layers(model, state, set));
  const colouring = colours(model, state, set);
  if (colouring) bar.append(colouring);
  bar.append(results);
  return bar;
}

function layers(model: Model, state: State, set: Setter): HTMLElement {
  const last = model.data.graph.n_layers - 1;
  const choice = (id: string, name: string, at: 0 | 1) => {
    const options = Array.from({ length: last + 1 }, (_, layer) => h("option", { value: layer, selected: layer === (at ? last : 0) }, String(layer)));
    const select = on(h("select", { id, "aria-label": name }, ...options), {
      change: () => {
        const layers: [number, number] = [...state.layers];
        layers[at] = Number(select.value);
        set({ layers });
      },
    });
    return select;
  };
  return h("span", { class: "layers" }, "layers ", choice("layer-from", "first layer shown", 0), " to ", choice("layer-to", "last layer shown", 1));
}

function colours(model: Model, state: State, set: Setter): HTMLElement | null {
  const { runs } = model;
  if (runs.length > 1) {
    const options = [h("option", { value: -1 }, "all runs"), ...runs.map((run, index) => h("option", { value: index }, `only ${run.label}`))];
    const select = on(h("select", { id: "focus" }, ...options), {
      change: () => {
        const focus = Number(select.value);
        set({ focus, stop: null, colour: focus < 0 ? "runs" : runs[focus].truth ? "truth" : "kind" });
      },
    });
    return h("label", { class: "colours" }, "show ", select);
  }
  if (!runs[0].truth) return null;
  const select = on(
    h("select", { id: "colour" }, h("option", { value: "kind", selected: state.colour === "kind" }, "kind"), h("option", { value: "truth", selected: state.colour === "truth" }, "known circuit")),
    { change: () => set({ colour: select.value as State["colour"] }) },
  );
  const missed = on(h("input", { type: "checkbox", id: "missed", checked: true }), { change: () => set({ missed: missed.checked }) });
  return h("span", { class: "colours" }, h("label", {}, "colour by ", select), h("label", { for: "missed" }, missed, " missed edges"));
}
