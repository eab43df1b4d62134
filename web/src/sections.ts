// What stands below the graph: how faithful, how near the known circuit, size and metric, the circuit as a list, settings.

import { bothSides, promptPicker, promptText, thumbnail } from "./attention";
import type { Attention, Model, Run, Truth, Which } from "./data";
import { count, h, metric, on, percent, plain, plural, replace, svg } from "./dom";
import { axes, type Frame, line, linear, logarithmic, stepLine, swarm, tickText } from "./plots";
import { type State, Status } from "./state";
import type { Theme } from "./theme";

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

// -- faithfulness -----------------------------------------------------------------------------------------------------

export function faithfulness(model: Model): HTMLElement | null {
  const runs = model.runs.filter((run) => run.values);
  if (!runs.length) return null;
  const names = Object.keys(runs[0].values!.metrics).filter((name) => runs.every((run) => run.values!.metrics[name]));
  if (!names.length) return null;
  const body = h("div", {});
  const show = () => replace(body, strips(model, runs, choice.value, ablated.checked));
  const choice = on(h("select", { id: "faithful-metric" }, ...names.map((name) => h("option", { value: name }, name))), { change: show });
  const ablated = on(h("input", { type: "checkbox", id: "ablated-too", checked: true }), { change: show });
  show();
  const lead = h(
    "p",
    { class: "lead" },
    "One dot for each prompt; the box holds the middle half, the line in it is the median. Lower is better. ",
    h("label", {}, "Metric ", choice),
    h("label", { for: "ablated-too", class: "tick-box" }, ablated, " with the ablated run"),
  );
  return section("faithfulness", "Prompt by prompt", lead, body);
}

interface Strip {
  words: string;
  style: string;
  run: Run;
  values: (number | null)[];
}

/** The model, every run's circuit and the ablated run; of several runs, the model and the ablated run of the first. */
function stripsOf(model: Model, runs: Run[], name: string, ablated: boolean): Strip[] {
  const strip = (run: Run, which: Which, words: string, style: string) => ({ words, style, run, values: run.values!.metrics[name][which] });
  const circuits = runs.map((run) => strip(run, "circuit", runs.length > 1 ? run.label : "circuit", `dot-circuit r${model.runs.indexOf(run) % 6}`));
  const last = ablated ? [strip(runs[0], "ablated", "ablated", "dot-ablated")] : [];
  return [strip(runs[0], "full", "whole model", "dot-full"), ...circuits, ...last];
}

function strips(model: Model, runs: Run[], name: string, ablated: boolean): HTMLElement {
  const rows = stripsOf(model, runs, name, ablated);
  const every = rows.flatMap((row) => row.values.filter((value): value is number => value !== null));
  if (!every.length) return h("p", { class: "none" }, "no numbers");
  const low = Math.min(...every);
  const high = Math.max(...every);
  const table = h(
    "table",
    { class: "numbers" },
    h("thead", {}, h("tr", {}, ...["", "mean", "± sd", "median", "lowest", "highest"].map((text) => h("th", { scope: "col" }, text)))),
  );
  const rowsOf = h("tbody", {});
  table.append(rowsOf);
  for (const row of rows) {
    const values = row.values.filter((value): value is number => value !== null).sort((a, b) => a - b);
    const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
    const spread = Math.sqrt(values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / Math.max(1, values.length - 1));
    const numbers = [mean, spread, quantile(values, 0.5), values[0], values.at(-1)!];
    rowsOf.append(h("tr", {}, h("th", { scope: "row" }, row.words), ...numbers.map((value) => h("td", {}, metric(value)))));
  }
  const longest = Math.max(...rows.map((row) => Math.min(row.words.length, 22)));
  const plot = drawn((width) => {
    const left = Math.max(60, longest * 7 + 16);
    const band = 56;
    const height = band * rows.length + 38;
    const x = linear([low, high], [left + 8, width - 16], Math.max(3, Math.round(width / 130)));
    const image = svg("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": `${name} prompt by prompt; the table has the numbers` });
    for (const tick of x.ticks) {
      image.append(svg("line", { class: "grid", x1: x(tick), x2: x(tick), y1: 4, y2: height - 34 }));
      image.append(svg("text", { class: "tick", x: x(tick), y: height - 19, "text-anchor": "middle" }, tickText(tick)));
    }
    image.append(svg("text", { class: "axis", x: (left + width - 16) / 2, y: height - 3, "text-anchor": "middle" }, name));
    rows.forEach((row, at) => {
      const middle = band * at + band / 2 + 2;
      const there = row.values.flatMap((value, prompt) => (value === null ? [] : [{ value, prompt }]));
      const sorted = there.map((one) => one.value).sort((a, b) => a - b);
      const radius = there.length > 120 ? 2 : 3;
      const offsets = swarm(there.map((one) => x(one.value)), radius, band / 2 - 5);
      const words = row.words.length > 22 ? `${row.words.slice(0, 21)}…` : row.words;
      image.append(svg("text", { class: "row", x: left - 10, y: middle + 4, "text-anchor": "end" }, words));
      const [first, median, third] = [0.25, 0.5, 0.75].map((share) => x(quantile(sorted, share)));
      image.append(svg("rect", { class: "box", x: first, y: middle - 13, width: Math.max(1.5, third - first), height: 26, rx: 3 }));
      there.forEach((one, dot) => {
        const circle = svg("circle", { class: row.style, cx: x(one.value).toFixed(1), cy: (middle + offsets[dot]).toFixed(1), r: radius });
        circle.append(svg("title", {}, `prompt ${one.prompt + 1}: ${metric(one.value)}\n${row.run.values!.texts[one.prompt] ?? ""}`));
        image.append(circle);
      });
      image.append(svg("line", { class: "median", x1: median, x2: median, y1: middle - 13, y2: middle + 13 }));
    });
    return image;
  });
  return h("div", { class: "pair" }, plot, h("div", { class: "scroll" }, table));
}

function quantile(sorted: number[], share: number): number {
  const at = (sorted.length - 1) * share;
  const low = Math.floor(at);
  return sorted[low] + (sorted[Math.min(low + 1, sorted.length - 1)] - sorted[low]) * (at - low);
}

// -- size and metric --------------------------------------------------------------------------------------------------

export function sizeCurve(model: Model): HTMLElement | null {
  const curves = model.runs.map((run, index) => ({ run, index, points: curveOf(run) })).filter((one) => one.points.length > 1 || one.run.result.metric !== null);
  if (!curves.some((one) => one.points.length > 1) && model.runs.length < 2) return null;
  const metrics = new Set(model.runs.map((run) => run.metric));
  const named = metrics.size === 1 ? model.runs[0].metric : "metric (not the same in all runs)";
  const plot = drawn((width) => {
    const frame: Frame = { width, height: 280, left: 54, right: 16, top: 24, bottom: 40 };
    const sizes = curves.flatMap((one) => [...one.points.map(([size]) => size), one.run.result.edges]).filter((size) => size > 0);
    const values = curves.flatMap((one) => [...one.points.map(([, value]) => value), ...(one.run.result.metric === null ? [] : [one.run.result.metric])]);
    const ablated = model.runs[0].result.ablated;
    const x = logarithmic([Math.min(...sizes, 1e9), Math.max(...sizes, 1)], [frame.left, width - frame.right - 6]);
    const top = Math.max(...values);
    const y = linear([Math.min(0, ...values), top], [frame.height - frame.bottom, frame.top]);
    const image = svg("svg", { viewBox: `0 0 ${width} ${frame.height}`, width, height: frame.height, role: "img", "aria-label": `${named} against the number of edges` });
    image.append(...axes(frame, x, y, "edges", named));
    if (ablated !== null && ablated <= top) image.append(svg("line", { class: "ablated-line", x1: frame.left, x2: width - frame.right, y1: y(ablated), y2: y(ablated) }));
    for (const { run, index, points } of curves) {
      const placed = points.filter(([size]) => size > 0).map(([size, value]): [number, number] => [x(size), y(value)]);
      const drawnLine = run.slider?.kind === "trace" ? stepLine(placed, `curve-line r${index % 6}`) : line(placed, `curve-line r${index % 6}`);
      image.append(drawnLine);
      if (run.slider?.kind !== "trace") for (const [cx, cy] of placed) image.append(svg("circle", { class: `curve-dot r${index % 6}`, cx, cy, r: 2.5 }));
      if (run.result.metric !== null && run.result.edges > 0) {
        const found = svg("circle", { class: `found-dot r${index % 6}`, cx: x(run.result.edges), cy: y(run.result.metric), r: 6 });
        found.append(svg("title", {}, `${run.label}: ${plural(run.result.edges, "edge")}, ${run.metric} ${metric(run.result.metric)}`));
        image.append(found);
      }
    }
    return image;
  });
  const words = model.runs.some((run) => run.slider?.kind === "trace")
    ? "Along ACDC's trace: what the metric was when so many edges were left. The large dot is the circuit as found, measured again from scratch."
    : "Circuits cut from the scores at several sizes, each measured. The large dot is the run's circuit.";
  return section("size", "Size against metric", h("p", { class: "lead" }, words), model.runs.length > 1 ? runKey(model) : null, plot);
}

function curveOf(run: Run): [number, number][] {
  const slider = run.slider;
  if (slider?.kind === "trace") {
    return slider.present.flatMap((size, at): [number, number][] => (slider.metric[at] === null ? [] : [[size, slider.metric[at]!]]));
  }
  return run.sizes.flatMap(([size, metric]): [number, number][] => (metric === null ? [] : [[size, metric]]));
}

export function runKey(model: Model): HTMLElement {
  return h("p", { class: "key-line" }, ...model.runs.flatMap((run, index) => [h("span", { class: `swatch r${index % 6}`, "aria-hidden": "true" }), ` ${run.label} `]));
}

// -- the known circuit ------------------------------------------------------------------------------------------------

export function truth(model: Model): HTMLElement | null {
  const runs = model.runs.filter((run) => run.truth);
  if (!runs.length) return null;
  const source = runs[0].truth!.source;
  const table = h(
    "table",
    { class: "numbers" },
    h("thead", {}, h("tr", {}, ...["", "found", "missed", "extra", "true positive rate", "false positive rate", "precision"].map((text) => h("th", { scope: "col" }, text)))),
  );
  const body = h("tbody", {});
  table.append(body);
  for (const run of runs) {
    const known = run.truth!;
    const numbers = [count(known.found), count(known.edges - known.found), count(run.result.edges - known.found), percent(known.point.tpr), percent(known.point.fpr), percent(known.point.precision)];
    body.append(h("tr", {}, h("th", { scope: "row" }, runs.length > 1 ? run.label : "edges"), ...numbers.map((text) => h("td", {}, text))));
    if (runs.length === 1) {
      const { nodes } = known;
      body.append(h("tr", {}, h("th", { scope: "row" }, "nodes"), ...[count(nodes.found), count(nodes.known - nodes.found), count(nodes.extra), "", "", ""].map((text) => h("td", {}, text))));
    }
  }
  const plot = drawn((width) => rocPlot(model, Math.min(width, 360)), 220);
  const groups = runs.length === 1 ? groupTable(runs[0].truth!) : null;
  return section(
    "known",
    "Beside the known circuit",
    h("p", { class: "lead" }, `Worked out by ${source}: ${count(runs[0].truth!.edges)} edges. In the graph, missed edges are dashed and, coloured by known circuit, extra ones dotted (in graphs of very many edges, colour alone tells them apart; the list below names them).`),
    h("div", { class: "columns" }, plot, h("div", {}, table, groups)),
  );
}

function rocPlot(model: Model, width: number): SVGElement {
  const frame: Frame = { width, height: width, left: 46, right: 12, top: 24, bottom: 40 };
  const x = linear([0, 1], [frame.left, width - frame.right]);
  const y = linear([0, 1], [frame.height - frame.bottom, frame.top]);
  const image = svg("svg", { viewBox: `0 0 ${width} ${frame.height}`, width, height: frame.height, role: "img", "aria-label": "true against false positive rate" });
  image.append(...axes(frame, x, y, "false positive rate", "true positive rate"));
  image.append(line([[x(0), y(0)], [x(1), y(1)]], "chance"));
  model.runs.forEach((run, index) => {
    if (!run.truth) return;
    const { curve, point } = run.truth;
    if (curve) image.append(line(curve.map(([fpr, tpr]): [number, number] => [x(fpr), y(tpr)]), `curve-line r${index % 6}`));
    const dot = svg("circle", { class: `found-dot r${index % 6}`, cx: x(point.fpr), cy: y(point.tpr), r: 6 });
    dot.append(svg("title", {}, `${run.label}: finds ${percent(point.tpr)}, and ${percent(point.fpr)} of all others`));
    image.append(dot);
  });
  return image;
}

function groupTable(known: Truth): HTMLElement {
  const body = h("tbody", {});
  for (const group of known.groups) {
    const names = group.members.map((name) => h("span", { class: group.found.includes(name) ? "member in" : "member" }, name));
    body.append(h("tr", {}, h("th", { scope: "row" }, group.name), h("td", {}, `${group.found.length} of ${group.members.length}`), h("td", { class: "members" }, ...names.flatMap((name) => [name, " "]))));
  }
  return h("table", { class: "numbers groups" }, h("thead", {}, h("tr", {}, ...["components", "found", "which"].map((text) => h("th", { scope: "col" }, text)))), body);
}

// -- attention --------------------------------------------------------------------------------------------------------

export class AttentionSection {
  readonly element: HTMLElement;
  private readonly gallery = h("div", { class: "gallery" });
  private readonly large = h("div", { class: "large" });
  private attention: Attention | null = null;
  private head = "";
  private drawnFor = "";
  private enlarged = "";
  private of: Attention | null = null;

  constructor(
    private readonly theme: Theme,
    private readonly choose: { head(name: string): void; prompt(at: number): void },
  ) {
    this.element = section(
      "attention",
      "Where heads look",
      h("p", { class: "lead" }, "Attention in the model's own run: from a token (row) to those before it (columns). The framed row is the place that is scored. Choose a head for its patterns on the clean and the corrupted prompt."),
      h("div", { class: "looking" }, this.gallery, this.large),
    );
    theme.onChange(() => {
      this.drawnFor = "";
      if (this.attention) this.showGallery(this.attention, this.prompt, this.inside);
    });
  }

  private prompt = 0;
  private inside: (name: string) => boolean = () => true;

  show(attention: Attention | null, head: string | null, prompt: number, inside: (name: string) => boolean): void {
    this.element.hidden = attention === null;
    this.attention = attention;
    if (!attention) return;
    this.prompt = Math.min(prompt, attention.prompts.length - 1);
    this.inside = inside;
    const names = Object.keys(attention.heads);
    if (head !== null && names.includes(head)) this.head = head;
    else if (!names.includes(this.head)) this.head = names.filter(inside).at(-1) ?? names[0];
    this.showGallery(attention, this.prompt, inside);
    this.showLarge(attention);
  }

  private showGallery(attention: Attention, prompt: number, inside: (name: string) => boolean): void {
    const names = Object.keys(attention.heads);
    const key = `${prompt} ${names.filter(inside).join()} ${this.theme.dark}`;
    if (key !== this.drawnFor) {
      this.drawnFor = key;
      const ink = this.theme.palette.accent;
      const layers = new Map<string, HTMLElement[]>();
      for (const name of names) {
        const button = on(
          h("button", { type: "button", class: inside(name) ? "head" : "head outside", "data-head": name }, thumbnail(attention, name, prompt, 52, ink), h("span", {}, name)),
          { click: () => this.choose.head(name) },
        );
        const layer = name.split(".")[0].slice(1);
        layers.set(layer, [...(layers.get(layer) ?? []), button]);
      }
      replace(
        this.gallery,
        ...[...layers].reverse().map(([layer, buttons]) => h("div", { class: "layer" }, h("span", { class: "layer-name" }, `layer ${layer}`), h("div", { class: "heads" }, ...buttons))),
      );
    }
    for (const button of this.gallery.querySelectorAll<HTMLElement>("button.head")) {
      button.setAttribute("aria-pressed", String(button.dataset.head === this.head));
    }
  }

  private showLarge(attention: Attention): void {
    const key = `${this.head} ${this.prompt}`;
    if (key === this.enlarged && this.large.hasChildNodes() && attention === this.of) return;
    this.enlarged = key;
    this.of = attention;
    const maps = h("div", { class: "sides" });
    bothSides(maps, attention, this.head, this.prompt, 420);
    replace(this.large, h("div", { class: "line" }, h("h3", {}, this.head), promptPicker(attention, this.prompt, this.choose.prompt)), maps, promptText(attention.prompts[this.prompt]));
  }
}

// -- the circuit as a list --------------------------------------------------------------------------------------------

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
    this.element = section("list", "The circuit as a list", this.words, h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "the circuit as a list" }, table));
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
        h("td", {}, senders.map((index) => model.nodes[model.edges[index].from].id + missed(index)).join(", ") || "–"),
      );
    });
    replace(this.body, ...rows);
    this.element.dataset.edges = String(total);
  }
}

// -- settings ---------------------------------------------------------------------------------------------------------

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
    { class: "scroll" },
    h("table", { class: "settings-table" }, h("thead", {}, h("tr", {}, h("td", {}), ...runs.map((run) => h("th", { scope: "col" }, run.label)))), h("tbody", {}, ...sorted.map(row))),
  );
}

async function copied(text: string): Promise<boolean> {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const field = h("textarea", { class: "offscreen" });
    field.value = text;
    document.body.append(field);
    field.select();
    const done = document.execCommand("copy");
    field.remove();
    return done;
  }
}

// -- several runs -----------------------------------------------------------------------------------------------------

export function comparison(model: Model): HTMLElement | null {
  if (model.runs.length < 2) return null;
  const known = model.runs.some((run) => run.truth);
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
  const table = h("table", { class: "numbers wide", id: "runs" }, h("thead", {}, h("tr", {}, ...heads.map((text) => h("th", { scope: "col" }, text)))), body);
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
    h("div", { class: "scroll" }, table),
    h("h3", {}, "Shared edges as a share of all (Jaccard)"),
    h("div", { class: "scroll" }, jaccard),
  );
}
