// How good a circuit is: prompt by prompt, and as it grows.

import type { Model, Run, Which } from "./data";
import { h, metric, on, plural, replace, svg } from "./dom";
import { MEANINGS, what } from "./explain";
import { axes, type Frame, line, linear, logarithmic, stepLine, swarm, tickText } from "./plots";
import { drawn, runKey, section } from "./section";

export function faithfulness(model: Model): HTMLElement | null {
  const runs = model.runs.filter((run) => run.values);
  if (!runs.length) return null;
  const names = Object.keys(runs[0].values!.metrics).filter((name) => runs.every((run) => run.values!.metrics[name]));
  if (!names.length) return null;
  const body = h("div", {});
  const better = h("span", {});
  const show = () => {
    better.textContent = model.data.negated.includes(choice.value) ? "Higher is better." : "Lower is better.";
    replace(body, strips(model, runs, choice.value, ablated.checked));
  };
  const choice = on(h("select", { id: "faithful-metric" }, ...names.map((name) => h("option", { value: name }, name))), { change: show });
  const ablated = on(h("input", { type: "checkbox", id: "ablated-too", checked: true }), { change: show });
  show();
  const lead = h(
    "p",
    { class: "lead" },
    "One dot for each prompt; the box holds the middle half, the line in it is the median. ", better, " ",
    h("label", {}, "Metric ", choice),
    h("label", { for: "ablated-too", class: "tick-box" }, ablated, " with the ablated run"), " ",
    what(model, MEANINGS.spread),
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
    h("thead", {}, h("tr", {}, ...["run", "mean", "± sd", "median", "lowest", "highest"].map((text) => h("th", { scope: "col" }, text)))),
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
  return h("div", { class: "pair" }, plot, h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": `${name} in numbers` }, table));
}

function quantile(sorted: number[], share: number): number {
  const at = (sorted.length - 1) * share;
  const low = Math.floor(at);
  return sorted[low] + (sorted[Math.min(low + 1, sorted.length - 1)] - sorted[low]) * (at - low);
}

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
    const y = linear([Math.min(0, ...values, ...(ablated !== null && ablated < 0 ? [ablated] : [])), top], [frame.height - frame.bottom, frame.top]);
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
