// A state in the page's address, after the #: who is sent the link sees the same.

import type { Kind, Model } from "./data";
import { KINDS, start, type State } from "./state";

/** What is otherwise than when the page opens. */
export function written(model: Model, state: State): string {
  const usual = start(model);
  const found = new URLSearchParams();
  const put = (name: string, value: unknown, other: unknown) => {
    if (value !== other) found.set(name, value === null ? "all" : String(value));
  };
  put("run", state.focus, usual.focus);
  if (state.stop !== null) found.set("stop", String(state.stop));
  put("strongest", state.limit, usual.limit);
  put("kinds", [...state.kinds].join(" "), [...usual.kinds].join(" "));
  put("layers", state.layers.join("-"), usual.layers.join("-"));
  put("colour", state.colour, usual.colour);
  if (!state.missed) found.set("missed", "no");
  put("edges-of", state.differ, usual.differ);
  if (state.query) found.set("search", state.query);
  if (state.only !== null) found.set("around", model.nodes[state.only].id);
  if (state.direct) found.set("direct", "yes");
  if (state.node !== null) found.set("node", model.nodes[state.node].id);
  if (state.edge !== null) found.set("edge", model.edges[state.edge].name);
  put("spine", state.spine ? "yes" : "no", usual.spine ? "yes" : "no");
  if (state.boxed) found.set("boxes", "yes");
  if (state.folds.size) found.set("folds", [...state.folds].map(([layer, folded]) => `${folded ? "" : "-"}${layer}`).join(" "));
  return found.toString();
}

/** The state that an address names; what it names wrongly is left as usual. */
export function read(model: Model, hash: string): State {
  const state = start(model);
  const asked = new URLSearchParams(hash.replace(/^#/, ""));
  const whole = (text: string | null, low: number, high: number) => (text !== null && /^-?\d+$/.test(text) && Number(text) >= low && Number(text) <= high ? Number(text) : null);
  const focus = whole(asked.get("run"), model.runs.length > 1 ? -1 : 0, model.runs.length - 1);
  if (focus !== null) {
    state.focus = focus;
    if (model.runs.length > 1) state.colour = focus < 0 ? "runs" : model.runs[focus].truth ? "truth" : "kind";
  }
  const stops = state.focus < 0 ? null : model.runs[state.focus].slider?.stops.length;
  if (stops) state.stop = whole(asked.get("stop"), 0, stops - 1);
  if (asked.get("strongest") === "all") state.limit = null;
  else state.limit = whole(asked.get("strongest"), 1, 1e6) ?? state.limit;
  const kinds = asked.get("kinds")?.split(" ").filter((kind): kind is Kind => (KINDS as string[]).includes(kind));
  if (kinds) state.kinds = new Set(kinds);
  const layers = /^(\d+)-(\d+)$/.exec(asked.get("layers") ?? "");
  if (layers && Number(layers[2]) < model.data.graph.n_layers) state.layers = [Number(layers[1]), Number(layers[2])];
  const colour = asked.get("colour");
  if (colour === "kind" || (colour === "truth" && model.runs.some((run) => run.truth))) state.colour = colour;
  state.missed = asked.get("missed") !== "no";
  const differ = asked.get("edges-of");
  if (differ === "shared") state.differ = differ;
  else state.differ = whole(differ, 0, model.runs.length - 1) ?? "any";
  state.query = asked.get("search") ?? "";
  state.only = model.byName.get(asked.get("around") ?? "") ?? null;
  state.direct = asked.get("direct") === "yes";
  state.node = model.byName.get(asked.get("node") ?? "") ?? null;
  if (state.node === null) state.edge = model.edges.find((edge) => edge.name === asked.get("edge"))?.index ?? null;
  if (asked.has("spine")) state.spine = asked.get("spine") === "yes";
  state.boxed = asked.get("boxes") === "yes" && state.groups.length > 0;
  for (const text of (asked.get("folds") ?? "").split(" ")) {
    const layer = whole(text.replace(/^-/, ""), 0, model.data.graph.n_layers - 1);
    if (layer !== null) state.folds.set(layer, !text.startsWith("-"));
  }
  return state;
}
