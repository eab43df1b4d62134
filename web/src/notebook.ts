// The page inside a notebook says to the notebook what is chosen in it, by name. On its own it says nothing to anybody.

import type { Model } from "./data";
import type { State } from "./state";

let said: string | null = null;

export function tell(model: Model, state: State): void {
  if (parent === window) return;
  const { node, edge } = state;
  const name = edge !== null ? model.edges[edge].name : node !== null ? model.nodes[node].id : null;
  if (name === said) return;
  said = name;
  parent.postMessage({ edgewise: "selected", name }, "*");
}
