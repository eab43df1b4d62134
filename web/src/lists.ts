// What is read rather than looked at: the circuit as a list, settings and commands, runs side by side.

import type { Model, Run } from "./data";
import { count, h, metric, on, percent, plain, plural, replace } from "./dom";
import { type Meaning, MEANINGS, meaningOfEdges, meaningOfMetric, meaningOfRecovered, what } from "./explain";
import { copied } from "./picture";
import { recovered, section } from "./section";
import { type State, Status } from "./state";

/** Every place that reads something, and what it reads: what the graph shows, as text. */
export class CircuitList {
  readonly element: HTMLElement;
  private readonly body = h("tbody", {});
  private readonly words = h("p", { class: "lead" });
  private due = 0;

  constructor(private readonly model: Model) {
    const table = h(
      "table",
      { class: "list" },
      h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "reads"), h("th", { scope: "col" }, "from"))),
      this.body,
    );
    this.element = section("list", "The circuit as a list", this.words, h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "rows of the list" }, table));
  }

  /** Written a moment later: nobody reads it while the slider moves. */
  show(state: State, shown: Uint8Array): void {
    clearTimeout(this.due);
    this.due = setTimeout(() => this.write(state, shown), 120);
  }

  private write(state: State, shown: Uint8Array): void {
    const { model } = this;
    const places = new Map<string, number[]>();
    let total = 0;
    for (const edge of model.edges) {
      if (!shown[edge.index] || shown[edge.index] === Status.Coming) continue;
      total++;
      const place = edge.port ? edge.name.split("->")[0] : edge.name.split("->")[1];
      places.set(place, [...(places.get(place) ?? []), edge.index]);
    }
    this.words.textContent = `${plural(total, "edge")} of what the graph shows, port edges among them${state.focus < 0 ? "" : " (marked ●: the head has this input)"}.`;
    const order = [...places.entries()].sort((a, b) => model.edges[b[1][0]].to - model.edges[a[1][0]].to);
    const rows = order.map(([place, edges]) => {
      const port = edges.some((index) => model.edges[index].port);
      const senders = edges.filter((index) => !model.edges[index].port);
      const missed = (index: number) => (shown[index] === Status.Missed ? " (missed)" : shown[index] === Status.Extra ? " (extra)" : "");
      return h(
        "tr",
        {},
        h("th", { scope: "row" }, place, port ? h("span", { class: "port", title: "the head has this input" }, " ●") : null),
        h("td", {}, senders.map((index) => model.nodes[model.edges[index].from].name + missed(index)).join(", ") || "–"),
      );
    });
    replace(this.body, ...rows);
    this.element.dataset.edges = String(total);
  }
}

export function settings(model: Model): HTMLElement {
  const { runs } = model;
  const several = runs.length > 1;
  const commands = runs.map((run) => h("div", { class: "run-settings" }, several ? h("h3", {}, run.label) : null, again(run)));
  return section("settings", "Settings, and how to run it again", ...commands, several ? settingsTable(runs) : settingsList(runs[0]));
}

function again(run: Run): HTMLElement {
  const { command } = run;
  if (command === null) {
    return h("p", { class: "lead" }, "This run was made from Python, so there is no command; the settings below say what was asked for.");
  }
  const said = h("span", { class: "said", role: "status" });
  const copy = on(h("button", { type: "button", class: "copy" }, "copy"), {
    click: async () => {
      said.textContent = (await copied(command)) ? "copied" : "select it and copy it by hand";
      setTimeout(() => (said.textContent = ""), 2500);
    },
  });
  return h("div", { class: "command" }, h("pre", {}, h("code", {}, command)), copy, said);
}

function rowsOf(run: Run): [string, string][] {
  const versions = run.versions.map(([name, version]): [string, string] => [`${name} version`, version]);
  return [["run folder", run.folder], ["made", run.date ?? "–"], ...run.settings, ...versions];
}

function settingsList(run: Run): HTMLElement {
  return h("dl", { class: "settings" }, ...rowsOf(run).map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))));
}

/** Of several runs: a column each, what differs first. */
function settingsTable(runs: Run[]): HTMLElement {
  const columns = runs.map((run) => new Map(rowsOf(run)));
  const names = [...new Set(columns.flatMap((column) => [...column.keys()]))];
  const differs = (name: string) => new Set(columns.map((column) => column.get(name))).size > 1;
  const row = (name: string) =>
    h("tr", { class: differs(name) ? "differs" : "same" }, h("th", { scope: "row" }, name), ...columns.map((column) => h("td", {}, column.get(name) ?? "–")));
  const sorted = [...names.filter(differs), ...names.filter((name) => !differs(name))];
  return h(
    "div",
    { class: "scroll", tabindex: 0, role: "region", "aria-label": "settings of the runs" },
    h("table", { class: "settings-table" }, h("thead", {}, h("tr", {}, h("td", {}), ...runs.map((run) => h("th", { scope: "col" }, run.label)))), h("tbody", {}, ...sorted.map(row))),
  );
}

export function comparison(model: Model): HTMLElement | null {
  if (model.runs.length < 2) return null;
  const known = model.runs.some((run) => run.truth);
  const [first] = model.runs;
  const meant: Record<string, Meaning> = { edges: meaningOfEdges(model, first), "only here": MEANINGS.own, metric: meaningOfMetric(first, "circuit"), ablated: meaningOfMetric(first, "ablated"), recovered: meaningOfRecovered(first), found: MEANINGS.found, precision: MEANINGS.precision };
  const heads = ["run", "method", "threshold", "edges", "only here", "metric", "ablated", "recovered", ...(known ? ["found", "precision"] : [])];
  const body = h("tbody", {});
  model.runs.forEach((run, index) => {
    const own = model.edges.filter((edge) => run.has[edge.index] && model.runs.every((other) => other === run || !other.has[edge.index])).length;
    const share = recovered(run);
    const cells = [
      run.method,
      plain(run.threshold),
      count(run.result.edges),
      count(own),
      `${run.metric} ${metric(run.result.metric)}`,
      metric(run.result.ablated),
      share === null ? "–" : percent(share),
      ...(known ? [run.truth ? `${run.truth.found} of ${run.truth.edges}` : "–", run.truth ? percent(run.truth.point.precision) : "–"] : []),
    ];
    body.append(h("tr", {}, h("th", { scope: "row" }, h("span", { class: `swatch r${index % 6}`, "aria-hidden": "true" }), ` ${run.label}`), ...cells.map((text) => h("td", {}, text))));
  });
  const table = h("table", { class: "numbers wide", id: "runs" }, h("thead", {}, h("tr", {}, ...heads.map((text) => h("th", { scope: "col" }, text, meant[text] ? what(model, meant[text]) : null)))), body);
  const jaccard = h("table", { class: "numbers jaccard", id: "jaccard" }, h("thead", {}, h("tr", {}, h("td", {}), ...model.runs.map((run) => h("th", { scope: "col" }, run.label)))));
  const rows = h("tbody", {});
  jaccard.append(rows);
  model.data.jaccard.forEach((line, index) => {
    rows.append(
      h(
        "tr",
        {},
        h("th", { scope: "row" }, model.runs[index].label),
        ...line.map((value) => {
          const cell = h("td", { class: "shade" }, value.toFixed(2));
          cell.style.setProperty("--share", String(value));
          return cell;
        }),
      ),
    );
  });
  return section(
    "compare",
    "Side by side",
    h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "the runs side by side" }, table),
    h("h3", {}, "Shared edges as a share of all (Jaccard) ", what(model, MEANINGS.jaccard)),
    h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "shared edges" }, jaccard),
  );
}
