// One picture, two ways to make it: on a canvas, and as SVG.

/** A line of curves: x and y where it begins, then of each curve the point that pulls it and the one where it ends. */
export type Curve = number[];

export interface Stroke {
  colour: string;
  width: number;
  alpha: number;
  dash?: number[];
}

export interface Fill {
  colour: string | null;
  line: string | null;
  width?: number;
  radius?: number;
  alpha?: number;
  dash?: number[];
}

export interface Words {
  size: number;
  colour: string;
  weight?: number;
  alpha?: number;
  anchor?: "start" | "middle" | "end";
}

export interface Pen {
  curve(curve: Curve, stroke: Stroke): void;
  /** A box by its middle. */
  box(x: number, y: number, width: number, height: number, fill: Fill): void;
  text(x: number, y: number, text: string, words: Words): void;
}

export const FONT = 'ui-sans-serif, system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif';

export class CanvasPen implements Pen {
  constructor(private readonly to: CanvasRenderingContext2D) {}

  curve(curve: Curve, { colour, width, alpha, dash }: Stroke): void {
    const { to } = this;
    to.globalAlpha = alpha;
    to.strokeStyle = colour;
    to.lineWidth = width;
    to.setLineDash(dash ?? []);
    to.beginPath();
    to.moveTo(curve[0], curve[1]);
    for (let at = 2; at < curve.length; at += 4) to.quadraticCurveTo(curve[at], curve[at + 1], curve[at + 2], curve[at + 3]);
    to.stroke();
  }

  box(x: number, y: number, width: number, height: number, fill: Fill): void {
    const { to } = this;
    to.globalAlpha = fill.alpha ?? 1;
    to.setLineDash(fill.dash ?? []);
    to.beginPath();
    to.roundRect(x - width / 2, y - height / 2, width, height, fill.radius ?? 0);
    if (fill.colour) {
      to.fillStyle = fill.colour;
      to.fill();
    }
    if (fill.line) {
      to.strokeStyle = fill.line;
      to.lineWidth = fill.width ?? 1;
      to.stroke();
    }
  }

  text(x: number, y: number, text: string, words: Words): void {
    const { to } = this;
    to.globalAlpha = words.alpha ?? 1;
    to.font = `${words.weight ?? 400} ${words.size}px ${FONT}`;
    to.textAlign = words.anchor === "start" ? "left" : words.anchor === "end" ? "right" : "center";
    to.textBaseline = "alphabetic";
    to.fillStyle = words.colour;
    to.fillText(text, x, y);
  }
}

/** Text may hold anything: the document is built as elements, and written by the browser. */
export class SvgPen implements Pen {
  readonly root: SVGElement;

  constructor(width: number, height: number, page: string) {
    this.root = make("svg", { xmlns: "http://www.w3.org/2000/svg", viewBox: `0 0 ${tidy(width)} ${tidy(height)}`, width: tidy(width), height: tidy(height) });
    this.root.append(make("rect", { width: "100%", height: "100%", fill: page }));
  }

  curve(curve: Curve, { colour, width, alpha, dash }: Stroke): void {
    let d = `M${tidy(curve[0])} ${tidy(curve[1])}`;
    for (let at = 2; at < curve.length; at += 4) d += `Q${curve.slice(at, at + 4).map(tidy).join(" ")}`;
    this.root.append(make("path", { d, fill: "none", stroke: colour, "stroke-width": tidy(width), ...opacity(alpha), ...dashes(dash) }));
  }

  box(x: number, y: number, width: number, height: number, fill: Fill): void {
    const place = { x: tidy(x - width / 2), y: tidy(y - height / 2), width: tidy(width), height: tidy(height), rx: tidy(fill.radius ?? 0) };
    const line = fill.line ? { stroke: fill.line, "stroke-width": tidy(fill.width ?? 1), ...dashes(fill.dash) } : {};
    this.root.append(make("rect", { ...place, fill: fill.colour ?? "none", ...line, ...opacity(fill.alpha ?? 1) }));
  }

  text(x: number, y: number, text: string, words: Words): void {
    const place = { x: tidy(x), y: tidy(y), "text-anchor": words.anchor ?? "middle", "font-size": tidy(words.size) };
    const element = make("text", { ...place, "font-family": "system-ui, sans-serif", "font-weight": String(words.weight ?? 400), fill: words.colour, ...opacity(words.alpha ?? 1) });
    element.append(text);
    this.root.append(element);
  }

  written(): string {
    return new XMLSerializer().serializeToString(this.root);
  }
}

function make(tag: string, attributes: Record<string, string>): SVGElement {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) if (name !== "xmlns") element.setAttribute(name, value);
  return element;
}

function opacity(alpha: number): Record<string, string> {
  return alpha < 1 ? { opacity: tidy(alpha) } : {};
}

function dashes(dash?: number[]): Record<string, string> {
  return dash?.length ? { "stroke-dasharray": dash.join(" ") } : {};
}

function tidy(value: number): string {
  return String(Math.round(value * 100) / 100);
}
