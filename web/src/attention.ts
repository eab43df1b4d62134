// Where a head looks: a weight for each pair of tokens, on the task's own prompts.

import type { Attention, PromptData } from "./data";
import { h, on, percent, replace, svg } from "./dom";

type Side = "clean" | "corrupt";

/** The weights of one head on one prompt, `weights[query][key]`, from 0 to 1. */
export function pattern(attention: Attention, head: string, side: Side, prompt: number): number[][] {
  const bytes = Uint8Array.from(atob(attention.heads[head][side][prompt]), (letter) => letter.charCodeAt(0));
  const length = attention.prompts[prompt][side].length;
  const rows: number[][] = [];
  let at = 0;
  for (let query = 0; query < length; query++) {
    const row = new Array<number>(length).fill(0);
    const end = attention.causal ? query + 1 : length;
    for (let key = 0; key < end; key++) row[key] = bytes[at++] / 255;
    rows.push(row);
  }
  return rows;
}

/** How strongly a weight is shaded: itself, or without the first token by the largest weight that is left. */
function shading(weights: number[][], bare: boolean): (weight: number, key: number) => number {
  if (!bare) return (weight) => weight;
  const largest = Math.max(...weights.flatMap((row) => row.slice(1)), 1e-9);
  return (weight, key) => (key === 0 ? 0 : weight / largest);
}

/** A token as it is written beside a pattern: spaces and line ends made visible. */
function written(token: string): string {
  const shown = token.replace(/\n/g, "⏎").replace(/\t/g, "⇥");
  const trimmed = shown.startsWith(" ") ? shown.slice(1) : shown;
  const text = trimmed.length > 12 ? `${trimmed.slice(0, 11)}…` : trimmed;
  return text || "␣";
}

/** A head's pattern as a heat map: queries from top to bottom, keys from left to right. */
export function heatMap(attention: Attention, head: string, side: Side, prompt: number, width: number, bare = false): SVGElement {
  const weights = pattern(attention, head, side, prompt);
  const shade = shading(weights, bare);
  const tokens = attention.prompts[prompt][side];
  const scored = side === "clean" ? attention.prompts[prompt].scored : [];
  const length = tokens.length;
  const named = length <= 40;
  const longest = Math.max(1, ...tokens.map((token) => written(token).length));
  const gutter = named ? Math.min(84, 8 + longest * 5.6) : 8;
  const cell = Math.max(4, Math.min(24, (width - gutter - 10) / length));
  const size = cell * length;
  const height = size + gutter + 4;
  const image = svg("svg", {
    class: "heat",
    viewBox: `0 0 ${gutter + size + 10} ${height}`,
    width: gutter + size + 10,
    height,
    role: "img",
    "aria-label": spoken(weights, tokens, scored, head, side),
  });
  const font = Math.max(6.5, Math.min(10.5, cell * 0.82));
  for (let query = 0; query < length; query++) {
    if (named) {
      const at = gutter + query * cell + cell / 2;
      const name = scored.includes(query) ? "token scored" : "token";
      image.append(
        svg("text", { class: name, x: gutter - 4, y: at + font * 0.35, "text-anchor": "end", "font-size": font }, written(tokens[query])),
        svg(
          "text",
          { class: "token", x: 0, y: 0, "text-anchor": "start", "font-size": font, transform: `translate(${at + font * 0.3} ${gutter - 4}) rotate(-90)` },
          written(tokens[query]),
        ),
      );
    }
    const end = attention.causal ? query + 1 : length;
    for (let key = 0; key < end; key++) {
      const weight = weights[query][key];
      const square = svg("rect", {
        class: "weight",
        x: gutter + key * cell,
        y: gutter + query * cell,
        width: Math.max(1, cell - 0.75),
        height: Math.max(1, cell - 0.75),
        "fill-opacity": Math.max(0.045, shade(weight, key)).toFixed(3),
      });
      square.append(svg("title", {}, `${written(tokens[query])} looks at ${written(tokens[key])}: ${percent(weight)}`));
      image.append(square);
    }
  }
  for (const query of scored) {
    image.append(svg("rect", { class: "frame", x: gutter - 1, y: gutter + query * cell - 1, width: (attention.causal ? query + 1 : length) * cell + 1, height: cell + 1 }));
  }
  return image;
}

/** What the pattern says, in words. */
function spoken(weights: number[][], tokens: string[], scored: number[], head: string, side: Side): string {
  const query = scored.at(-1) ?? tokens.length - 1;
  if (query < 0) return `${head} on the ${side} prompt`;
  const keys = weights[query].map((weight, key) => [weight, key]).sort((a, b) => b[0] - a[0]).slice(0, 3);
  const looks = keys.map(([weight, key]) => `${written(tokens[key])} ${percent(weight)}`).join(", ");
  return `${head} on the ${side === "clean" ? "clean" : "corrupted"} prompt: from ${written(tokens[query])} it looks at ${looks}`;
}

/** A thumbnail: the pattern alone. */
export function thumbnail(attention: Attention, head: string, prompt: number, size: number, ink: string, bare = false): HTMLCanvasElement {
  const weights = pattern(attention, head, "clean", prompt);
  const shade = shading(weights, bare);
  const canvas = h("canvas", { class: "thumb", "aria-hidden": "true" });
  const length = weights.length;
  const ratio = Math.max(1, Math.round((size * 2) / length));
  canvas.width = canvas.height = length * ratio;
  const context = canvas.getContext("2d")!;
  context.fillStyle = ink;
  weights.forEach((row, query) =>
    row.forEach((weight, key) => {
      if (attention.causal && key > query) return;
      context.globalAlpha = Math.max(0.05, shade(weight, key));
      context.fillRect(key * ratio, query * ratio, ratio, ratio);
    }),
  );
  return canvas;
}

/** A prompt's text, its answers, and how to get to the others. */
export function promptPicker(attention: Attention, at: number, change: (to: number) => void): HTMLElement {
  const count = attention.prompts.length;
  const move = (by: number) => change((at + by + count) % count);
  return h(
    "div",
    { class: "picker" },
    on(h("button", { type: "button", "aria-label": "previous prompt", disabled: count < 2 }, "‹"), { click: () => move(-1) }),
    h("span", {}, `prompt ${attention.prompts[at].row + 1} (${at + 1} of ${count} shown)`),
    on(h("button", { type: "button", "aria-label": "next prompt", disabled: count < 2 }, "›"), { click: () => move(1) }),
  );
}

export function promptText(prompt: PromptData): HTMLElement {
  const row = (name: string, text: string) => h("div", {}, h("dt", {}, name), h("dd", {}, text));
  const list = h("dl", { class: "prompt" }, row("clean", prompt.text.clean), row("corrupted", prompt.text.corrupt));
  if (prompt.answers.length) list.append(row("answer", prompt.answers.join(" · ")));
  if (prompt.wrong.length) list.append(row("wrong", prompt.wrong.join(" · ")));
  return list;
}

export function bothSides(target: Element, attention: Attention, head: string, prompt: number, width: number, bare = false): void {
  const side = (which: Side, name: string) =>
    h("figure", {}, h("figcaption", {}, name), heatMap(attention, head, which, prompt, width, bare));
  replace(target, side("clean", "clean prompt"), side("corrupt", "corrupted prompt"));
}
