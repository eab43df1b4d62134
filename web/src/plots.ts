// Small plots in SVG. Text is text, colours are the stylesheet's classes.

import { number, svg } from "./dom";

export interface Scale {
  (value: number): number;
  ticks: number[];
}

export function linear(from: [number, number], to: [number, number], ticks = 4): Scale {
  const [low, high] = from[0] === from[1] ? [from[0] - 0.5, from[1] + 0.5] : from;
  const scale = (value: number) => to[0] + ((value - low) / (high - low)) * (to[1] - to[0]);
  return Object.assign(scale, { ticks: nice(low, high, ticks) });
}

export function logarithmic(from: [number, number], to: [number, number]): Scale {
  const low = Math.log10(Math.max(from[0], 1e-12));
  const high = Math.max(Math.log10(from[1]), low + 0.3);
  const scale = (value: number) => to[0] + ((Math.log10(Math.max(value, 1e-12)) - low) / (high - low)) * (to[1] - to[0]);
  const ticks = [];
  for (let power = Math.ceil(low - 1e-9); power <= high + 1e-9; power++) ticks.push(10 ** power);
  if (ticks.length < 2) {
    for (const value of [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000]) {
      if (Math.log10(value) >= low && Math.log10(value) <= high && !ticks.includes(value)) ticks.push(value);
    }
  }
  return Object.assign(scale, { ticks: ticks.sort((a, b) => a - b) });
}

function nice(low: number, high: number, wanted: number): number[] {
  const rough = (high - low) / wanted;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((size) => size >= rough * 0.999) ?? rough;
  const ticks = [];
  for (let at = Math.ceil(low / step - 1e-9) * step; at <= high + step * 1e-9; at += step) ticks.push(Math.abs(at) < step * 1e-9 ? 0 : at);
  return ticks;
}

export function tickText(value: number): string {
  const size = Math.abs(value);
  if (value === 0) return "0";
  if (size >= 10000 || size < 0.001) return value.toExponential(0).replace("-", "−").replace("e+", "e");
  return String(Number(value.toPrecision(3))).replace("-", "−");
}

export interface Frame {
  width: number;
  height: number;
  left: number;
  right: number;
  top: number;
  bottom: number;
}

/** Axes with grid lines, ticks and names. */
export function axes(frame: Frame, x: Scale, y: Scale, xName: string, yName: string): SVGElement[] {
  const { width, height, left, right, top, bottom } = frame;
  const parts: SVGElement[] = [];
  for (const tick of y.ticks) {
    const at = y(tick);
    parts.push(svg("line", { class: "grid", x1: left, x2: width - right, y1: at, y2: at }));
    parts.push(svg("text", { class: "tick", x: left - 6, y: at + 3.5, "text-anchor": "end" }, tickText(tick)));
  }
  for (const tick of x.ticks) {
    const at = x(tick);
    parts.push(svg("line", { class: "grid", x1: at, x2: at, y1: top, y2: height - bottom }));
    parts.push(svg("text", { class: "tick", x: at, y: height - bottom + 15, "text-anchor": "middle" }, tickText(tick)));
  }
  parts.push(svg("text", { class: "axis", x: (left + width - right) / 2, y: height - 4, "text-anchor": "middle" }, xName));
  parts.push(svg("text", { class: "axis", x: 4, y: 12 }, yName));
  return parts;
}

export function line(points: [number, number][], name: string): SVGElement {
  return svg("path", { class: name, d: pathOf(points) });
}

/** A line that stays level until the next point, as a metric does between decisions. */
export function stepLine(points: [number, number][], name: string): SVGElement {
  const corners = points.flatMap(([x, y], at): [number, number][] => (at ? [[x, points[at - 1][1]], [x, y]] : [[x, y]]));
  return svg("path", { class: name, d: pathOf(corners) });
}

export function pathOf(points: [number, number][]): string {
  return points.map(([x, y], at) => `${at ? "L" : "M"}${round(x)} ${round(y)}`).join("");
}

function round(value: number): number {
  return Math.round(value * 10) / 10;
}

/** Where dots of like value go beside each other: an offset for each, in the order given. */
export function swarm(values: number[], radius: number, most: number): number[] {
  const placed: [number, number][] = [];
  const order = values.map((_, at) => at).sort((a, b) => values[a] - values[b]);
  const offsets = new Array<number>(values.length).fill(0);
  for (const at of order) {
    const near = placed.filter(([x]) => Math.abs(x - values[at]) < 2 * radius);
    for (let tried = 0; ; tried++) {
      const offset = (tried % 2 ? 1 : -1) * Math.ceil(tried / 2) * radius * 0.9;
      const free = near.every(([x, y]) => (x - values[at]) ** 2 + (y - offset) ** 2 >= (2 * radius) ** 2 * 0.95);
      if (free || Math.abs(offset) > most) {
        offsets[at] = free && Math.abs(offset) <= most ? offset : (((near.length % 9) - 4) / 4) * most;
        placed.push([values[at], offsets[at]]);
        break;
      }
    }
  }
  return offsets;
}

export function describe(what: string, value: number | null): string {
  return `${what} ${number(value)}`;
}
