// What is shown: the search, how many of the strongest paths, kinds of edges, layers, and what colours tell apart.

import type { Model } from "./data";
import { h, on } from "./dom";
import { FIRST, KINDS, kindName, type State } from "./state";

type Setter = (change: Partial<State>) => void;

export interface Toolbar {
  element: HTMLElement;
  /** Say what the state is, wherever it came from. */
  show(state: State): void;
}

export function toolbar(model: Model, state: State, search: HTMLElement, results: HTMLElement, set: Setter): Toolbar {
  const says: ((state: State) => void)[] = [];
  const kinds = h("fieldset", { class: "kinds" }, h("legend", { class: "offscreen" }, "kinds of edges"));
  for (const kind of KINDS) {
    if (!model.data.edges.kind.includes(kind)) continue;
    const box = on(h("input", { type: "checkbox", id: `kind-${kind}` }), { change: () => set({ kinds: new Set(KINDS.filter((one) => (one === kind ? box.checked : state.kinds.has(one)))) }) });
    says.push((now) => (box.checked = now.kinds.has(kind)));
    const title = kind === "direct" ? `edges ${kindName(model, kind).replace("to ", "into ")}` : kind === "mlp" ? "edges into MLPs" : `edges into the ${kindName(model, kind)} of heads`;
    kinds.append(h("label", { for: `kind-${kind}`, title }, box, h("span", { class: `dot k-${kind}`, "aria-hidden": "true" }), kindName(model, kind)));
  }
  const parts = [strongest(model, state, set, says), runs(model, set, says), kinds, layers(model, state, set, says), spine(model, state, set, says), colours(model, set, says)];
  const bar = h("div", { class: "toolbar", role: "group", "aria-label": "what is shown" }, search, ...parts, results);
  return { element: bar, show: (now) => says.forEach((say) => say(now)) };
}

function strongest(model: Model, state: State, set: Setter, says: ((state: State) => void)[]): HTMLElement | null {
  const most = Math.max(...model.runs.map((run) => run.in.length));
  if (state.limit === null && most <= FIRST) return null;
  const sizes = [...new Set([20, 30, FIRST, 120, 250, 500, 1000, ...(state.limit === null ? [] : [state.limit])])].filter((size) => size < most).sort((a, b) => a - b);
  const select = on(h("select", { id: "limit", "aria-label": "how many of the strongest edges, on their paths" }, ...sizes.map((size) => h("option", { value: size }, String(size))), h("option", { value: "all" }, "all")), {
    change: () => set({ limit: select.value === "all" ? null : Number(select.value), stop: null }),
  });
  says.push((now) => (select.value = now.limit === null || now.stop !== null ? "all" : String(now.limit)));
  return h("label", {}, "strongest ", select);
}

function layers(model: Model, state: State, set: Setter, says: ((state: State) => void)[]): HTMLElement {
  const last = model.data.graph.n_layers - 1;
  const choice = (id: string, name: string, at: 0 | 1) => {
    const options = Array.from({ length: last + 1 }, (_, layer) => h("option", { value: layer }, String(layer)));
    const select = on(h("select", { id, "aria-label": name }, ...options), {
      change: () => {
        const layers: [number, number] = [...state.layers];
        layers[at] = Number(select.value);
        set({ layers });
      },
    });
    says.push((now) => (select.value = String(now.layers[at])));
    return select;
  };
  return h("span", { class: "layers" }, "layers ", choice("layer-from", "first layer shown", 0), " to ", choice("layer-to", "last layer shown", 1));
}

function spine(model: Model, state: State, set: Setter, says: ((state: State) => void)[]): HTMLElement | null {
  const mlps = model.edges.filter((edge) => edge.from >= 0 && edge.kind === "mlp" && model.nodes[edge.from].kind === "mlp").length;
  if (mlps < 3) return null;
  const box = on(h("input", { type: "checkbox", id: "spine" }), { change: () => set({ spine: box.checked }) });
  says.push((now) => (box.checked = now.spine));
  return h("label", { for: "spine", title: `edges between MLPs as one line, as broad as there are many${state.spine ? "; each by itself where an MLP is chosen" : ""}` }, box, " spine of MLPs");
}

function runs(model: Model, set: Setter, says: ((state: State) => void)[]): HTMLElement | null {
  const { runs } = model;
  if (runs.length < 2) return null;
  const options = [h("option", { value: "-1" }, "all runs"), h("option", { value: "shared" }, "what all have")];
  runs.forEach((run, index) => options.push(h("option", { value: `own ${index}` }, `what only ${run.label} has`)));
  runs.forEach((run, index) => options.push(h("option", { value: index }, `only ${run.label}`)));
  const select = on(h("select", { id: "focus" }, ...options), {
    change: () => {
      const { value } = select;
      if (value === "shared") return set({ focus: -1, stop: null, colour: "runs", differ: "shared" });
      if (value.startsWith("own ")) return set({ focus: -1, stop: null, colour: "runs", differ: Number(value.slice(4)) });
      const focus = Number(value);
      set({ focus, stop: null, differ: "any", colour: focus < 0 ? "runs" : runs[focus].truth ? "truth" : "kind" });
    },
  });
  says.push((now) => (select.value = now.focus >= 0 ? String(now.focus) : now.differ === "any" ? "-1" : now.differ === "shared" ? "shared" : `own ${now.differ}`));
  return h("label", { class: "colours" }, "show ", select);
}

function colours(model: Model, set: Setter, says: ((state: State) => void)[]): HTMLElement | null {
  const { runs } = model;
  if (runs.length > 1 || !runs[0].truth) return null;
  const select = on(h("select", { id: "colour" }, h("option", { value: "kind" }, "kind"), h("option", { value: "truth" }, "known circuit")), { change: () => set({ colour: select.value as State["colour"] }) });
  const missed = on(h("input", { type: "checkbox", id: "missed" }), { change: () => set({ missed: missed.checked }) });
  says.push((now) => {
    select.value = now.colour;
    missed.checked = now.missed;
  });
  return h("span", { class: "colours" }, h("label", {}, "colour by ", select), h("label", { for: "missed" }, missed, " missed edges"));
}
