// Where heads look: all of them small, one of them large.

import { bothSides, promptPicker, promptText, thumbnail } from "./attention";
import type { Attention } from "./data";
import { h, on, replace } from "./dom";
import { section } from "./section";
import type { Theme } from "./theme";

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
