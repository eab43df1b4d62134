// Groups that the reader makes: nodes under a name, drawn as one box, and saved as a file that `--groups` reads.

import type { Model } from "./data";
import { h, on, plural, replace } from "./dom";
import { save } from "./picture";
import type { Group, State } from "./state";

type Setter = (change: Partial<State>) => void;

/** Nodes that groups may hold: not the embedding, the logits or what heads share. */
export function groupable(model: Model, node: number): boolean {
  const { kind, span } = model.nodes[node];
  return (kind === "head" || kind === "mlp") && span === null;
}

/** Groups as they are when some nodes come together: in the group of the last ones, or in a new one. */
export function joined(model: Model, groups: Group[], nodes: number[], onto: number[]): Group[] {
  const moved = nodes.filter((node) => groupable(model, node));
  const target = onto.filter((node) => groupable(model, node));
  if (!moved.length || !target.length) return groups;
  const home = groups.find((group) => target.some((node) => group.members.has(node)));
  const left = groups.map((group) => (group === home ? group : { ...group, members: new Set([...group.members].filter((node) => !moved.includes(node))) }));
  if (home) return left.map((group) => (group === home ? { ...group, members: new Set([...group.members, ...moved]) } : group)).filter(({ members }) => members.size);
  return [...left.filter(({ members }) => members.size), { name: freshName(groups), members: new Set([...target, ...moved]) }];
}

function freshName(groups: Group[]): string {
  for (let number = 1; ; number++) {
    const name = `group ${number}`;
    if (!groups.some((group) => group.name === name)) return name;
  }
}

export class Grouping {
  readonly element = h("details", { class: "grouping" });
  private readonly body = h("div", {});

  constructor(
    private readonly model: Model,
    private readonly set: Setter,
  ) {
    this.element.hidden = model.data.graph.spans.length > 0;
    this.element.append(h("summary", {}, "Groups of nodes"), this.body);
  }

  show(state: State): void {
    const { model } = this;
    const { groups, picked } = state;
    if (picked.size || state.boxed) this.element.open = true;
    // What is being typed stays.
    const typing = document.activeElement instanceof HTMLInputElement && this.body.contains(document.activeElement) ? document.activeElement.dataset.group : null;
    const rows = groups.map((group, at) => {
      const name = on(h("input", { type: "text", class: "group-name", "aria-label": `name of ${group.name}`, maxlength: 60, value: group.name, "data-group": String(at) }), {
        change: () => this.rename(state, at, name.value.trim()),
      });
      const members = [...group.members].map((node) => {
        const leave = on(h("button", { type: "button", class: "chip", title: `take ${model.nodes[node].name} out`, "aria-label": `take ${model.nodes[node].name} out of ${group.name}` }, `${model.nodes[node].name} ×`), {
          click: () => this.set({ groups: groups.map((one) => (one === group ? { ...one, members: new Set([...one.members].filter((other) => other !== node)) } : one)).filter((one) => one.members.size) }),
        });
        return leave;
      });
      const dissolve = on(h("button", { type: "button", class: "quiet", "aria-label": `dissolve ${group.name}` }, "dissolve"), { click: () => this.set({ groups: groups.filter((one) => one !== group) }) });
      return h("div", { class: "group-row" }, h("span", { class: `patch g${at % 8}`, "aria-hidden": "true" }), name, ...members, dissolve);
    });
    const boxed = on(h("input", { type: "checkbox", id: "boxed", checked: state.boxed }), { change: () => this.set({ boxed: boxed.checked }) });
    const nodes = [...picked];
    const make = on(h("button", { type: "button", class: "quiet", id: "make-group" }, `make a group of ${plural(nodes.length, "node")}`), {
      click: () => this.set({ groups: joined(model, withoutHome(groups, nodes), nodes.slice(1), nodes.slice(0, 1)), picked: new Set(), boxed: true }),
    });
    const drop = on(h("button", { type: "button", class: "quiet" }, "pick none"), { click: () => this.set({ picked: new Set() }) });
    const out = on(h("button", { type: "button", class: "quiet", id: "save-groups" }, "save as groups.json"), { click: () => save("groups.json", new Blob([written(model, groups)], { type: "application/json" })) });
    replace(
      this.body,
      h("p", { class: "hint" }, "Drag a node onto another, or pick several (click with Shift, or “pick” in a node's panel), to make a group of them. Dragged to where nothing stands, a group goes there as a whole. The file goes to ", h("code", {}, "--groups groups.json"), "."),
      picked.size ? h("p", { class: "line picked" }, h("span", {}, nodes.map((node) => model.nodes[node].name).join(", ")), picked.size > 1 ? make : null, drop) : null,
      ...rows,
      groups.length ? h("p", { class: "line" }, h("label", { for: "boxed" }, boxed, " each group as one box"), out) : null,
    );
    if (typing !== null) this.body.querySelector<HTMLInputElement>(`input[data-group="${typing}"]`)?.focus();
  }

  private rename(state: State, at: number, name: string): void {
    const taken = state.groups.some((group, other) => other !== at && group.name === name);
    const node = this.model.byName.has(name);
    if (!name || taken || node) return this.set({});
    this.set({ groups: state.groups.map((group, other) => (other === at ? { ...group, name } : group)) });
  }
}

function withoutHome(groups: Group[], nodes: number[]): Group[] {
  return groups.map((group) => ({ ...group, members: new Set([...group.members].filter((node) => !nodes.includes(node))) })).filter(({ members }) => members.size);
}

/** The file: names and nodes, early ones first. */
export function written(model: Model, groups: Group[]): string {
  const entries = groups.map(({ name, members }) => [name, [...members].sort((a, b) => a - b).map((node) => model.nodes[node].name)]);
  return `${JSON.stringify(Object.fromEntries(entries), null, 2)}\n`;
}
