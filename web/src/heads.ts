// Where heads look: all of them small, one of them large.

import { bothSides, promptPicker, promptText, thumbnail } from "./attention";
import type { Attention } from "./data";
import { h, on, replace } from "./dom";
import { section } from "./section";
import type { Theme } from "./theme";

export class AttentionSection {
  readonly element: HTMLElement;
  private readonly gallery = h("div", { class: "gallery", tabindex: 0, role: "region", "aria-label": "heads" });
  private readonly bare: HTMLInputElement;
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
    this.bare = on(h("input", { type: "checkbox", id: "without-first" }), {
      change: () => {
        this.drawnFor = this.enlarged = "";
        this.again();
      },
    });
    this.element = section(
      "attention",
      "Where heads look",
      h("p", { class: "lead" }, "Attention in the model's own run: from a token (row) to those before it (columns). The framed row is the place that is scored. Choose a head for its patterns on the clean and the corrupted prompt. The circuit's own heads come first, the strongest at the front. ", h("label", { for: "without-first" }, this.bare, " without the first token (the rest is shaded by the largest weight that is left)")),
      h("div", { class: "looking" }, this.gallery, this.large),
    );
    theme.onChange(() => {
      this.drawnFor = "";
      this.again();
    });
  }

  private prompt = 0;
  private strengths: Map<string, number> = new Map();

  private again(): void {
    if (!this.attention) return;
    this.showGallery(this.attention, this.prompt);
    this.showLarge(this.attention);
  }

  /** `strengths` says of each head of the circuit how strong its edges are together. */
  show(attention: Attention | null, head: string | null, prompt: number, strengths: Map<string, number>): void {
    this.element.hidden = attention === null;
    this.attention = attention;
    if (!attention) return;
    this.prompt = Math.min(prompt, attention.prompts.length - 1);
    this.strengths = strengths;
    const own = this.own(attention);
    if (head !== null && Object.hasOwn(attention.heads, head)) this.head = head;
    else if (!Object.hasOwn(attention.heads, this.head)) this.head = own[0] ?? Object.keys(attention.heads)[0];
    this.again();
  }

  private own(attention: Attention): string[] {
    const size = (name: string) => this.strengths.get(name) ?? 0;
    return Object.keys(attention.heads).filter((name) => this.strengths.has(name)).sort((a, b) => size(b) - size(a));
  }

  private showGallery(attention: Attention, prompt: number): void {
    const own = this.own(attention);
    const key = `${prompt} ${own.join()} ${this.theme.dark}`;
    if (key !== this.drawnFor) {
      this.drawnFor = key;
      const others = Object.keys(attention.heads).filter((name) => !this.strengths.has(name));
      const open = this.gallery.querySelector("details")?.open ?? false;
      const ink = this.theme.palette.accent;
      const button = (name: string, outside: boolean) =>
        on(h("button", { type: "button", class: outside ? "head outside" : "head", "data-head": name }, thumbnail(attention, name, prompt, 52, ink, this.bare.checked), h("span", {}, name)), { click: () => this.choose.head(name) });
      const rest = h("details", { class: "others", open }, h("summary", {}, `the ${others.length} heads outside what the graph shows`));
      // Those are drawn when they are looked at.
      const fill = () => {
        if (rest.open && rest.childElementCount === 1) rest.append(h("div", { class: "heads" }, ...others.map((name) => button(name, true))));
        this.press();
      };
      rest.addEventListener("toggle", fill);
      replace(this.gallery, h("div", { class: "heads" }, ...own.map((name) => button(name, false))), others.length ? rest : null);
      if (open) fill();
    }
    this.press();
  }

  private press(): void {
    for (const button of this.gallery.querySelectorAll<HTMLElement>("button.head")) {
      button.setAttribute("aria-pressed", String(button.dataset.head === this.head));
    }
  }

  private showLarge(attention: Attention): void {
    const key = `${this.head} ${this.prompt} ${this.bare.checked}`;
    if (key === this.enlarged && this.large.hasChildNodes() && attention === this.of) return;
    this.enlarged = key;
    this.of = attention;
    const maps = h("div", { class: "sides" });
    bothSides(maps, attention, this.head, this.prompt, 420, this.bare.checked);
    replace(this.large, h("div", { class: "line" }, h("h3", {}, this.head), promptPicker(attention, this.prompt, this.choose.prompt)), maps, promptText(attention.prompts[this.prompt]));
  }
}
