// The slider along a trace or a score's threshold, with the metric's curve above it and a cursor that moves along.

import { passOf, type Run } from "./data";
import { count, h, metric as metricText, number, on, replace, svg } from "./dom";
import { pathOf, stepLine } from "./plots";

const EDGE = 9; // half the thumb, so that the cursor stands above it

export class Slider {
  readonly element: HTMLElement;
  private readonly input: HTMLInputElement;
  private readonly plot = h("div", { class: "curve" });
  private readonly keys = h("p", { class: "keys", "aria-hidden": "true" });
  private readonly readout = h("output", { class: "readout", for: "slider" });
  private readonly back: HTMLButtonElement;
  private run: Run | null = null;
  private cursor: SVGElement | null = null;
  private dot: SVGElement | null = null;
  private yOf: (value: number) => number = () => 0;
  private readonly height = 78;

  constructor(change: (stop: number | null) => void) {
    this.input = on(h("input", { type: "range", id: "slider", min: 0, step: 1, "aria-label": "stop along the search" }), {
      input: () => change(Number(this.input.value)),
    });
    this.back = on(h("button", { type: "button", class: "quiet", id: "as-found" }, "as found"), { click: () => change(null) });
    this.element = h("section", { class: "slider", "aria-label": "size and metric" }, this.readout, this.keys, this.plot, this.input, h("div", { class: "under" }, this.back));
    new ResizeObserver(() => this.draw()).observe(this.plot);
  }

  show(run: Run | null, stop: number | null): void {
    this.element.hidden = !run?.slider;
    const changed = this.run !== run;
    this.run = run;
    if (!run?.slider) return;
    const last = run.slider.stops.length - 1;
    if (changed) {
      this.input.max = String(last);
      this.draw();
    }
    const at = stop ?? (run.slider.kind === "score" ? run.slider.found : last);
    if (Number(this.input.value) !== at || changed) this.input.value = String(at);
    this.back.disabled = stop === null;
    const words = this.words(run, stop, at);
    this.readout.textContent = words;
    this.input.setAttribute("aria-valuetext", words);
    this.point(at);
  }

  private words(run: Run, stop: number | null, at: number): string {
    const slider = run.slider!;
    const metric = this.metricAt(at);
    const measured = metric === null ? "" : ` · ${run.metric} ${metricText(metric)}`;
    if (stop === null) return `${run.finished ? "as found" : "as far as it got"}: ${count(run.result.edges)} edges · ${run.metric} ${metricText(run.result.metric)}`;
    if (slider.kind === "trace") {
      const pass = slider.passes.length > 1 ? `pass ${passOf(run, slider.stops[at]) + 1} · ` : "";
      return `${pass}decision ${count(slider.stops[at])} of ${count(slider.stops.at(-1)!)} · ${count(slider.present[at])} edges${measured}`;
    }
    const threshold = slider.stops[at];
    return `${count(slider.present[at])} edges · score ≥ ${threshold === null ? "∞" : number(threshold)}${measured || this.near(at)}`;
  }

  /** Between sizes that were measured: the next smaller one. */
  private near(at: number): string {
    const run = this.run!;
    const present = run.slider!.present[at];
    const smaller = run.sizes.filter(([size, metric]) => metric !== null && size <= present).at(-1);
    return smaller ? ` · ${run.metric} ${metricText(smaller[1])} at ${count(smaller[0])}` : "";
  }

  private metricAt(at: number): number | null {
    const run = this.run!;
    const slider = run.slider!;
    if (slider.kind === "trace") return slider.metric[at];
    return run.sizes.find(([size, metric]) => metric !== null && size === slider.present[at])?.[1] ?? null;
  }

  private x(at: number): number {
    const last = Math.max(1, (this.run?.slider?.stops.length ?? 2) - 1);
    return EDGE + (at / last) * (this.plot.clientWidth - 2 * EDGE);
  }

  private draw(): void {
    const run = this.run;
    const width = this.plot.clientWidth;
    if (!run?.slider || width < 40) return;
    const slider = run.slider;
    const { height } = this;
    const bottom = height - 4;
    const top = 6;
    const points = slider.kind === "trace" ? slider.metric.map((value, at): [number, number | null] => [at, value]) : this.measured();
    const values = points.flatMap(([, value]) => (value === null ? [] : [value]));
    if (run.result.metric !== null) values.push(run.result.metric);
    const low = Math.min(...values, run.result.full ?? Infinity);
    const high = Math.max(...values);
    const span = high - low || 1;
    this.yOf = (value) => bottom - ((value - low) / span) * (bottom - top);
    const most = Math.max(...slider.present, 1);
    const sizes = slider.present.map((value, at): [number, number] => [this.x(at), bottom - (value / most) * (bottom - top)]);
    const area = `${pathOf(sizes)}L${this.x(slider.stops.length - 1)} ${bottom}L${this.x(0)} ${bottom}Z`;
    const curve = points.flatMap(([at, value]): [number, number][] => (value === null ? [] : [[this.x(at), this.yOf(value)]]));
    const image = svg("svg", { viewBox: `0 0 ${width} ${height}`, width, height, "aria-hidden": "true" });
    image.append(svg("path", { class: "area", d: area }));
    image.append(svg("line", { class: "base", x1: 0, x2: width, y1: bottom, y2: bottom }));
    if (slider.kind === "trace") {
      for (const began of slider.passes.slice(1)) {
        const x = this.x(slider.stops.findIndex((stop) => stop >= began));
        image.append(svg("line", { class: "pass", x1: x, x2: x, y1: top, y2: bottom }));
      }
      image.append(stepLine(curve, "metric"));
    }
    else {
      image.append(svg("path", { class: "metric", d: pathOf(curve) }));
      for (const [x, y] of curve) image.append(svg("circle", { class: "metric-dot", cx: x, cy: y, r: 2.5 }));
    }
    const name = slider.kind === "trace" ? `${run.metric}, ${metricText(low)} to ${metricText(high)}` : `${run.metric} where measured, ${metricText(low)} to ${metricText(high)}`;
    replace(this.keys, curve.length ? h("span", { class: "metric-key" }, `— ${name}`) : null, h("span", { class: "size-key" }, `▒ edges, to ${count(most)}`));
    this.cursor = svg("line", { class: "cursor", y1: top - 2, y2: bottom });
    this.dot = svg("circle", { class: "cursor-dot", r: 4 });
    image.append(this.cursor, this.dot);
    replace(this.plot, image);
    this.point(Number(this.input.value));
  }

  private measured(): [number, number | null][] {
    const run = this.run!;
    const present = run.slider!.present;
    return run.sizes.flatMap(([size, metric]): [number, number | null][] => {
      const at = present.indexOf(size);
      return metric === null || at < 0 ? [] : [[at, metric]];
    });
  }

  private point(at: number): void {
    if (!this.cursor || !this.dot || !this.run) return;
    const x = this.x(at);
    this.cursor.setAttribute("x1", String(x));
    this.cursor.setAttribute("x2", String(x));
    const metric = this.metricAt(at);
    this.dot.setAttribute("cx", String(x));
    this.dot.setAttribute("cy", String(metric === null ? -20 : this.yOf(metric)));
  }
}
