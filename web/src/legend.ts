// What lines and colours mean, with how many edges of each are shown.

import { type Model } from "./data";
import { count, h, replace } from "./dom";
import { KINDS, kindName, type State, Status } from "./state";

export function showLegend(legend: Element, model: Model, state: State, shown: Uint8Array): void {
  const tally = (status: Status) => shown.reduce((sum, one) => sum + (one === status ? 1 : 0), 0);
  const item = (name: string, text: string) => h("span", { class: "item" }, h("span", { class: `stroke ${name}`, "aria-hidden": "true" }), text);
  const items: Node[] = [];
  if (state.focus < 0) {
    items.push(item("shared", `in all runs (${count(tally(Status.Shared))})`));
    if (model.runs.length > 2) items.push(item("some", `in some (${count(tally(Status.Some))})`));
    model.runs.forEach((run, index) => {
      const own = model.edges.filter((edge) => shown[edge.index] === Status.Own && run.has[edge.index]).length;
      items.push(item(`own r${index % 6}`, `only in ${run.label} (${count(own)})`));
    });
  } else if (state.colour === "truth") {
    items.push(item("found", `found (${count(tally(Status.In))})`), item("missed", `missed (${count(tally(Status.Missed))})`), item("extra", `extra (${count(tally(Status.Extra))})`));
  } else {
    for (const kind of KINDS) if (model.data.edges.kind.includes(kind)) items.push(item(`k-${kind}`, kindName(model, kind)));
    if (tally(Status.Missed)) items.push(item("missed", "in the known circuit only"));
  }
  if (state.spine && model.edges.some((edge) => shown[edge.index] && edge.from >= 0 && edge.kind === "mlp" && model.nodes[edge.from].kind === "mlp")) items.push(h("span", { class: "item" }, h("span", { class: "stroke broad k-mlp", "aria-hidden": "true" }), "spine: as broad as edges between MLPs pass"));
  if (model.data.graph.spans.length) items.push(item("attention", "attention carries it on"));
  if (tally(Status.Coming)) items.push(item("coming", `not decided yet (${count(tally(Status.Coming))})`));
  if (state.focus >= 0) items.push(h("span", { class: "item soft" }, model.runs[state.focus].scores ? "width: score" : "width: effect"));
  const groups = state.groups.map(({ name }, index) => h("span", { class: "item" }, h("span", { class: `patch g${index % 8}`, "aria-hidden": "true" }), name));
  replace(legend, h("div", { class: "items" }, ...items), groups.length ? h("div", { class: "items" }, ...groups) : null);
}
