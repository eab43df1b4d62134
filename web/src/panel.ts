// The panel beside the graph: what is chosen, in words and numbers.

import { bothSides, promptPicker, promptText } from "./attention";
import { type Edge, type Kind, type Model, type Run, passOf, weight, worse } from "./data";
import { count, h, metric, on, plain, plural, replace, signed } from "./dom";
import { meaningOfMetric, meaningOfWeight, what } from "./explain";
import { groupable } from "./grouping";
import type { Neighbours } from "./paths";
import { type State, Status } from "./state";

export interface Choose {
  node(index: number | null): void;
  edge(index: number | null): void;
  prompt(at: number): void;
  /** Show what reaches a node and what it reaches, and nothing else; null for everything again. */
  only(node: number | null): void;
  pick(node: number): void;
}

const KIND_WORDS: Record<Kind, string> = { q: "query", k: "key", v: "value", mlp: "MLP", direct: "logits" };
const MOST = 40;
/** Of each run, where several are listed. */
const FEW = 8;

export function showPanel(
  panel: HTMLElement,
  model: Model,
  state: State,
  shown: Uint8Array,
  neighbours: Neighbours,
  prompt: number,
  choose: Choose,
): void {
  if (state.edge !== null) replace(panel, ...edgePanel(model, state, shown, state.edge, choose));
  else if (state.node !== null) replace(panel, ...nodePanel(model, state, shown, neighbours, state.node, prompt, choose));
  else replace(panel, ...restPanel(model, state, shown, choose));
}

function runInFocus(model: Model, state: State): Run | null {
  return state.focus < 0 ? null : model.runs[state.focus];
}

/** Nothing is chosen: the edges that matter most. */
function restPanel(model: Model, state: State, shown: Uint8Array, choose: Choose): Node[] {
  const run = runInFocus(model, state);
  // A port edge would say again what the strongest edge into it says.
  const there = model.edges.filter((edge) => !edge.port && shown[edge.index] && shown[edge.index] !== Status.Coming && shown[edge.index] !== Status.Missed);
  const how = h("p", { class: "hint" }, "Point at a node or an edge to follow its paths; click to keep them. With the graph in focus, arrow keys move along edges.");
  if (!run) {
    const shared = there.filter((edge) => shown[edge.index] === Status.Shared);
    const own = model.runs.flatMap((one, index) => {
      const edges = there.filter((edge) => shown[edge.index] === Status.Own && one.has[edge.index]).sort((a, b) => Math.abs(weight(one, b.index) ?? 0) - Math.abs(weight(one, a.index) ?? 0));
      if (!edges.length) return [];
      return [h("h3", {}, h("span", { class: `swatch r${index % 6}`, "aria-hidden": "true" }), ` only in ${one.label}: ${count(edges.length)}${edges.length > FEW ? ", the strongest" : ""}`), edgeList(one, edges.slice(0, FEW), choose, "")];
    });
    const common = typeof state.differ === "number" ? [] : [h("h3", {}, `in all runs: ${count(shared.length)}`), edgeList(null, shared.slice(0, FEW), choose, "no edge is in all runs")];
    return [h("h2", {}, "Shared and own edges"), how, ...own, ...common];
  }
  const title = "Strongest edges";
  const sorted = there
    .filter((edge) => weight(run, edge.index) !== null)
    .sort((a, b) => Math.abs(weight(run, b.index)!) - Math.abs(weight(run, a.index)!))
    .slice(0, 12);
  const unit = h("p", { class: "unit" }, run.scores ? `${run.method} score` : `${worse(run)} without it, when it was tested`, what(model, meaningOfWeight(run)));
  if (!sorted.length) {
    return [h("h2", {}, plural(there.length, "edge")), how, edgeList(run, there.slice(0, 12), choose, "nothing is shown")];
  }
  return [h("h2", {}, title), unit, edgeList(run, sorted, choose, ""), how];
}

function edgeList(run: Run | null, edges: Edge[], choose: Choose, none: string): HTMLElement {
  if (!edges.length) return h("p", { class: "none" }, none);
  const largest = run ? Math.max(...edges.map((edge) => Math.abs(weight(run, edge.index) ?? 0)), 0) : 0;
  const list = h("ul", { class: "edges" });
  for (const edge of edges.slice(0, MOST)) {
    const value = run ? weight(run, edge.index) : null;
    const bar = h("span", { class: `bar k-${edge.kind}`, "aria-hidden": "true" });
    bar.style.width = `${largest && value !== null ? Math.max(2, (100 * Math.abs(value)) / largest) : 0}%`;
    const button = h(
      "button",
      { type: "button", "data-edge": edge.name },
      h("span", { class: `dot k-${edge.kind}`, "aria-hidden": "true" }),
      h("span", { class: "name" }, written(edge.name)),
      value === null ? null : h("span", { class: "value" }, signed(value)),
      bar,
    );
    list.append(h("li", {}, on(button, { click: () => choose.edge(edge.index) })));
  }
  if (edges.length > MOST) list.append(h("li", { class: "none" }, `and ${count(edges.length - MOST)} more`));
  return list;
}

/** An arrow that reads well; the name in data keeps the plain one. */
export function written(name: string): string {
  return name.replace("->", " → ");
}

function nodePanel(
  model: Model,
  state: State,
  shown: Uint8Array,
  neighbours: Neighbours,
  node: number,
  prompt: number,
  choose: Choose,
): Node[] {
  const data = model.nodes[node];
  const run = runInFocus(model, state);
  const into = neighbours.into[node].map((index) => model.edges[index]).filter((edge) => shown[edge.index]);
  const outOf = neighbours.outOf[node].map((index) => model.edges[index]).filter((edge) => shown[edge.index]);
  const by = (edges: Edge[]) =>
    run ? [...edges].sort((a, b) => Math.abs(weight(run, b.index) ?? 0) - Math.abs(weight(run, a.index) ?? 0)) : edges;
  const parts: Node[] = [heading(data.id, choose), h("p", { class: "unit" }, whatIs(model, node)), actions(model, state, node, choose)];
  const reading = into.filter((edge) => !edge.port);
  const ports = into.filter((edge) => edge.port);
  for (const kind of ["q", "k", "v", "mlp", "direct"] as Kind[]) {
    const edges = reading.filter((edge) => edge.kind === kind);
    if (!edges.length) continue;
    const title = kind === "mlp" || kind === "direct" ? "reads" : `${KIND_WORDS[kind]} reads`;
    parts.push(h("h3", {}, `${title} ${count(edges.length)}`), edgeList(run, by(edges), choose, ""));
  }
  const { spans } = model.data.graph;
  if (data.readers.length && !spans.length) {
    const heads = data.readers.filter((name) => model.byName.has(name));
    parts.push(h("h3", {}, "shared by"), h("p", {}, ...heads.flatMap((name) => [nodeButton(model, name, choose), " "])));
  }
  const shares = model.nodes.filter((other) => other.readers.includes(data.id));
  if (spans.length) parts.push(...carried(model, shown, neighbours, node, choose));
  else if (shares.length) {
    parts.push(h("h3", {}, "key and value from"), h("p", {}, ...shares.flatMap((other) => [nodeButton(model, other.id, choose), " "])));
    for (const other of shares) {
      const reads = neighbours.into[model.byName.get(other.id)!].map((index) => model.edges[index]).filter((edge) => shown[edge.index] && !edge.port);
      for (const kind of ["k", "v"] as Kind[]) {
        const edges = reads.filter((edge) => edge.kind === kind);
        if (edges.length) parts.push(h("h3", {}, `${KIND_WORDS[kind]} reads ${count(edges.length)}`), edgeList(run, by(edges), choose, ""));
      }
    }
  }
  if (ports.length) {
    parts.push(h("h3", {}, "its own inputs"), edgeList(run, by(ports), choose, ""));
  }
  const elsewhere = spans.length > 0 && !outOf.length && neighbours.carriedTo(node, shown).length > 0;
  if (data.kind !== "logits" && data.kind !== "group" && !elsewhere) {
    parts.push(h("h3", {}, `feeds ${count(outOf.length)}`), edgeList(run, by(outOf), choose, "nothing that is shown"));
  }
  const attention = attentionOf(model, state, data.name);
  if (attention) {
    const maps = h("div", { class: "sides" });
    bothSides(maps, attention, data.name, Math.min(prompt, attention.prompts.length - 1), 330);
    parts.push(
      h("h3", {}, "where it looks"),
      promptPicker(attention, Math.min(prompt, attention.prompts.length - 1), choose.prompt),
      maps,
      promptText(attention.prompts[Math.min(prompt, attention.prompts.length - 1)]),
    );
  }
  return parts;
}

function actions(model: Model, state: State, node: number, choose: Choose): HTMLElement {
  const only = state.only === node;
  const around = on(h("button", { type: "button", class: "quiet", id: "only", "aria-pressed": String(only) }, only ? "show everything again" : "show only its paths"), { click: () => choose.only(only ? null : node) });
  const picked = state.picked.has(node);
  const pick = groupable(model, node) ? on(h("button", { type: "button", class: "quiet", id: "pick", "aria-pressed": String(picked), title: "for a group of nodes" }, picked ? "picked" : "pick"), { click: () => choose.pick(node) }) : null;
  return h("p", { class: "line start" }, around, pick);
}

/** At which spans a head is used that sees this one's key and value, and at which it looks. */
function carried(model: Model, shown: Uint8Array, neighbours: Neighbours, node: number, choose: Choose): Node[] {
  const chips = (title: string, nodes: number[]) =>
    nodes.length ? [h("h3", {}, title), h("p", {}, ...nodes.flatMap((other) => [nodeButton(model, model.nodes[other].id, choose), " "]))] : [];
  return [
    ...chips("attention carries it on to", neighbours.carriedTo(node, shown)),
    ...chips("attention looks at", neighbours.carriedFrom(node, shown)),
  ];
}

export function attentionOf(model: Model, state: State, head: string) {
  const runs = state.focus < 0 ? model.runs : [model.runs[state.focus]];
  return runs.find((run) => run.attention && Object.hasOwn(run.attention.heads, head))?.attention ?? null;
}

function nodeButton(model: Model, name: string, choose: Choose): HTMLElement {
  return on(h("button", { type: "button", class: "chip", "data-node": name }, name), { click: () => choose.node(model.byName.get(name)!) });
}

function heading(text: string, choose: Choose): HTMLElement {
  const close = on(h("button", { type: "button", class: "close", "aria-label": "choose nothing", title: "choose nothing (Esc)" }, "×"), {
    click: () => choose.node(null),
  });
  return h("div", { class: "heading" }, h("h2", {}, written(text)), close);
}

function whatIs(model: Model, node: number): string {
  const data = model.nodes[node];
  const group = data.group === null ? "" : `, ${model.data.groups[data.group]}`;
  const number = data.name.replace(/^.*[.]?[hg]/, "");
  const at = data.span === null ? "" : ` at ${data.span}`;
  const { n_heads, n_kv_heads } = model.data.graph;
  switch (data.kind) {
    case "head":
      return `layer ${data.layer}, head ${number}${at}${group}`;
    case "group":
      return `layer ${data.layer}, a key and a value${at} that ${n_heads / n_kv_heads} query heads share`;
    case "mlp":
      return `the MLP of layer ${data.layer}${at}${group}`;
    case "logits":
      return `what the model puts out${at}`;
    case "tok":
      return `the embedding of tokens${at}`;
    case "pos":
      return `the embedding of positions${at}`;
    default:
      return `the embedding${at}`;
  }
}

function edgePanel(model: Model, state: State, shown: Uint8Array, index: number, choose: Choose): Node[] {
  const edge = model.edges[index];
  const reader = model.nodes[edge.to];
  const at = reader.span === null ? "" : ` at ${reader.span}`;
  const parts: Node[] = [heading(edge.name, choose)];
  const into = edge.kind === "direct" ? "into the logits" : edge.kind === "mlp" ? "into an MLP" : `into a ${KIND_WORDS[edge.kind]}`;
  parts.push(
    h(
      "p",
      { class: "unit" },
      h("span", { class: `dot k-${edge.kind}`, "aria-hidden": "true" }),
      edge.port ? `port edge: whether ${reader.name} has its ${KIND_WORDS[edge.kind]}${at} at all` : `${into}${at} · ${statusWords(model, state, shown[index], index)}`,
    ),
  );
  const ends = h("p", {});
  if (edge.from >= 0) ends.append("from ", nodeButton(model, model.nodes[edge.from].id, choose), " ");
  ends.append("to ", nodeButton(model, reader.id, choose));
  parts.push(ends);
  const runs = state.focus < 0 ? model.runs : [model.runs[state.focus]];
  for (const run of runs) {
    if (runs.length > 1) parts.push(h("h3", {}, run.label));
    parts.push(inRun(model, run, index));
  }
  return parts;
}

function statusWords(model: Model, state: State, status: Status, index: number): string {
  switch (status) {
    case Status.In:
      return model.runs[Math.max(0, state.focus)].known ? "found, and in the known circuit" : "in the circuit";
    case Status.Extra:
      return "found, but not in the known circuit";
    case Status.Missed:
      return "in the known circuit, but not found";
    case Status.Coming:
      return "not decided yet";
    case Status.Shared:
      return "in all runs";
    case Status.Some:
    case Status.Own:
      return `only in ${model.runs.filter((run) => run.has[index]).map((run) => run.label).join(", ")}`;
    default:
      return "not in the circuit";
  }
}

function inRun(model: Model, run: Run, index: number): HTMLElement {
  const rows: [string | Node, Node | string][] = [];
  const named = (words: string, button: Node) => h("span", {}, words, " ", button);
  const decision = run.decision[index];
  if (run.scores) {
    const score = run.scores[index];
    rows.push([named("score", what(model, meaningOfWeight(run))), score === null ? "none of its own" : signed(score)]);
    rows.push(["circuit", run.has[index] ? "in" : "out"]);
  } else if (decision) {
    rows.push([named("effect", what(model, meaningOfWeight(run))), h("strong", {}, signed(decision.effect))]);
    rows.push([named(`${run.metric} with it`, what(model, meaningOfMetric(run, "circuit"))), metric(decision.before)]);
    rows.push(["without it", metric(decision.after)]);
    const passes = run.slider?.kind === "trace" ? run.slider.passes.length : 1;
    const pass = passes > 1 ? `in pass ${passOf(run, decision.at) + 1}, ` : "";
    const last = run.slider?.kind === "trace" ? run.slider.stops.at(-1)! : (run.result.tests ?? 0);
    rows.push(["decision", `${decision.kept ? "kept" : "removed"}, ${pass}${ordinal(decision.at)} of ${count(last)} tested`]);
    for (const earlier of run.decisions[index]!.slice(0, -1)) {
      rows.push([`in pass ${passOf(run, earlier.at) + 1}`, `kept, ${signed(earlier.effect)}`]);
    }
    if (run.threshold !== null) rows.push(["threshold", plain(run.threshold)]);
  } else if (run.has[index]) {
    rows.push(["decision", run.finished ? "in the circuit; the trace says no more" : "the search had not come to it"]);
  } else {
    const outside = run.slider?.kind === "trace" && run.slider.gone[index] === 0 && run.shortlist !== null;
    const why = outside ? `outside the shortlist of ${count(run.shortlist!)} edges that the search chose from` : "fell untested: nothing in the circuit read what it leads into";
    rows.push(["decision", why]);
  }
  const list = h("dl", { class: "facts" });
  for (const [name, value] of rows) list.append(h("div", {}, h("dt", {}, name), h("dd", {}, value)));
  return list;
}

function ordinal(at: number): string {
  return `number ${count(at)}`;
}
