// Elements made of names, safe attributes and text. Nothing on the page is ever parsed from a string.

type Child = Node | string | null | undefined | false;
type Handlers = { [name in keyof HTMLElementEventMap]?: (event: HTMLElementEventMap[name]) => void };
type Attributes = Record<string, string | number | boolean | null | undefined>;

const ALLOWED = /^(class|id|for|type|min|max|step|value|name|title|role|tabindex|href|scope|colspan|checked|selected|disabled|hidden|open|placeholder|autocomplete|spellcheck|download|rel|maxlength|aria-[a-z]+|data-[a-z-]+)$/;

function fill(element: Element, children: Child[]): void {
  for (const child of children) if (child) element.append(child);
}

export function h<Tag extends keyof HTMLElementTagNameMap>(
  tag: Tag,
  attributes: Attributes = {},
  ...children: Child[]
): HTMLElementTagNameMap[Tag] {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (!ALLOWED.test(name)) throw new Error(`the attribute ${name} is not one that the page sets`);
    element.setAttribute(name, value === true ? "" : String(value));
  }
  fill(element, children);
  return element;
}

export function on<Made extends HTMLElement>(element: Made, handlers: Handlers): Made {
  for (const [name, handler] of Object.entries(handlers)) {
    element.addEventListener(name, handler as (event: Event) => void);
  }
  return element;
}

export function svg(tag: string, attributes: Attributes = {}, ...children: Child[]): SVGElement {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) element.setAttribute(name, String(value));
  }
  fill(element, children);
  return element;
}

export function replace(element: Element, ...children: Child[]): void {
  element.replaceChildren();
  fill(element, children);
}

/** A number as people read it: four digits that count, and powers of ten where those would say nothing. */
export function number(value: number | null | undefined): string {
  if (value === null || value === undefined) return "–";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e5 || size < 1e-4) return value.toExponential(1).replace("-", "−").replace("e+", "e");
  const digits = size >= 100 ? 1 : size >= 10 ? 2 : size >= 1 ? 3 : 4;
  return value.toFixed(digits).replace("-", "−");
}

/** A number that was given, not measured: without noughts at its end. */
export function plain(value: number | null): string {
  return value === null ? "–" : String(Number(value.toPrecision(6))).replace("-", "−");
}

/** A metric: what is smaller than rounding is nothing. */
export function metric(value: number | null | undefined): string {
  return value !== null && value !== undefined && Math.abs(value) < 1e-6 ? "0" : number(value);
}

export function signed(value: number): string {
  return (value > 0 ? "+" : "") + number(value);
}

export function percent(value: number): string {
  const shown = 100 * value;
  const text = shown >= 99.95 || shown === 0 ? shown.toFixed(0) : shown.toFixed(1);
  return `${text === "-0.0" ? "0.0" : text}%`;
}

export function count(value: number): string {
  return value.toLocaleString("en");
}

export function plural(value: number, what: string, many = `${what}s`): string {
  return `${count(value)} ${value === 1 ? what : many}`;
}
