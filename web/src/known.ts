// A circuit beside the known one, and what it has of each group of components.

import type { Model, Run } from "./data";
import { count, h, percent, svg } from "./dom";
import { type Meaning, MEANINGS, what } from "./explain";
import { axes, type Frame, line, linear } from "./plots";
import { drawn, section } from "./section";

export function truth(model: Model): HTMLElement | null {
  const runs = model.runs.filter((run) => run.truth);
  if (!runs.length) return null;
  const source = runs[0].truth!.source;
  const meant: Record<string, Meaning> = { found: MEANINGS.found, "true positive rate": MEANINGS.tpr, "false positive rate": MEANINGS.fpr, precision: MEANINGS.precision };
  const table = h(
    "table",
    { class: "numbers" },
    h("thead", {}, h("tr", {}, ...["of", "found", "missed", "extra", "true positive rate", "false positive rate", "precision"].map((text) => h("th", { scope: "col" }, text, meant[text] ? what(model, meant[text]) : null)))),
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
  const groups = runs.length === 1 && runs[0].groups.length ? groupTable(runs[0]) : null;
  const whose = runs[0].truth!.given ? `The circuit of ${source}` : `Worked out by ${source}`;
  return section(
    "known",
    "Beside the known circuit",
    h("p", { class: "lead" }, `${whose}: ${count(runs[0].truth!.edges)} edges. In the graph, missed edges are dashed and, coloured by known circuit, extra ones dotted (in graphs of very many edges, colour alone tells them apart; the list below names them).${groups ? " Of a group, edges found and precision count the edges into and out of its nodes." : ""}`),
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

/** Groups where they stand beside no known circuit; of several runs, the first ones. */
export function groups(model: Model): HTMLElement | null {
  const runs = model.runs.filter((run) => run.groups.length && (!run.truth || model.runs.filter((one) => one.truth).length > 1));
  if (!runs.length) return null;
  const tables = runs.map((run) => (runs.length > 1 ? h("div", {}, h("h3", {}, run.label), groupTable(run)) : groupTable(run)));
  return section("groups", "Groups of components", h("p", { class: "lead" }, "What the circuit has of each group, whose colour its nodes have in the graph."), ...tables);
}

function groupTable(run: Run): HTMLElement {
  const body = h("tbody", {});
  const known = run.groups.some((group) => group.point);
  for (const group of run.groups) {
    const names = group.members.map((name) => h("span", { class: group.found.includes(name) ? "member in" : "member" }, name));
    const rates = group.point ? [group.point.tpr, group.point.precision].map((rate) => h("td", {}, percent(rate))) : [];
    body.append(h("tr", {}, h("th", { scope: "row" }, group.name), h("td", {}, `${group.found.length} of ${group.members.length}`), ...rates, h("td", { class: "members" }, ...names.flatMap((name) => [name, " "]))));
  }
  const heads = ["components", "found", ...(known ? ["edges found", "precision"] : []), "which"];
  return h("table", { class: "numbers groups" }, h("thead", {}, h("tr", {}, ...heads.map((text) => h("th", { scope: "col" }, text)))), body);
}
