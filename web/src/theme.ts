// Colours for what the stylesheet cannot reach: the graph's canvas. Told apart by people who see red and green alike;
// no meaning hangs on colour alone (kinds also differ in where an edge ends, the rest in how its line is drawn).

import type { Kind } from "./data";

export interface Palette {
  page: string;
  ink: string;
  soft: string;
  faint: string;
  box: string;
  boxLine: string;
  mlpBox: string;
  bar: string;
  accent: string;
  kinds: Record<Kind, string>;
  /** Of lines that stand for edges of several kinds. */
  mixed: string;
  found: string;
  missed: string;
  extra: string;
  shared: string;
  some: string;
  attention: string;
  runs: string[];
  groups: string[];
}

export const LIGHT: Palette = {
  page: "#ffffff",
  ink: "#1c2430",
  soft: "#5a6573",
  faint: "#c3cad3",
  box: "#ffffff",
  boxLine: "#8b95a3",
  mlpBox: "#f1f3f6",
  bar: "#eceff3",
  accent: "#0b57c2",
  kinds: { q: "#0072b2", k: "#e69f00", v: "#009e73", mlp: "#cc79a7", direct: "#4a4f57" },
  mixed: "#7a6f63",
  found: "#0072b2",
  missed: "#d55e00",
  extra: "#7c8694",
  shared: "#3a4554",
  some: "#98a2af",
  attention: "#9fb1cc",
  runs: ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b08a00", "#5c6878"],
  groups: ["#77aadd", "#ee8866", "#eedd88", "#ffaabb", "#99ddff", "#44bb99", "#bbcc33", "#aaaa00"],
};

export const DARK: Palette = {
  page: "#14181e",
  ink: "#e8ecf1",
  soft: "#a3aebb",
  faint: "#3b4550",
  box: "#1c222a",
  boxLine: "#76828f",
  mlpBox: "#262e38",
  bar: "#262e38",
  accent: "#7db4ff",
  kinds: { q: "#56a8e8", k: "#f0b73c", v: "#35c99c", mlp: "#e09ac0", direct: "#b9c2cd" },
  mixed: "#a89a8b",
  found: "#56a8e8",
  missed: "#f08a45",
  extra: "#97a2b0",
  shared: "#dbe2ea",
  some: "#76828f",
  attention: "#5f7596",
  runs: ["#56a8e8", "#f08a45", "#35c99c", "#e09ac0", "#d9bd4a", "#a8b3c1"],
  groups: ["#2c5580", "#8a4630", "#6b5f24", "#80434f", "#22607d", "#1d6a55", "#5b6615", "#55550a"],
};

export type Choice = "auto" | "light" | "dark";

/** Follows the system unless told otherwise; paper is always light. */
export class Theme {
  choice: Choice = "auto";
  private printing = false;
  private readonly system = matchMedia("(prefers-color-scheme: dark)");
  private readonly told: (() => void)[] = [];

  constructor() {
    this.system.addEventListener("change", () => this.apply());
    addEventListener("beforeprint", () => this.print(true));
    addEventListener("afterprint", () => this.print(false));
    this.apply();
  }

  get dark(): boolean {
    return !this.printing && (this.choice === "auto" ? this.system.matches : this.choice === "dark");
  }

  get palette(): Palette {
    return this.dark ? DARK : LIGHT;
  }

  onChange(handler: () => void): void {
    this.told.push(handler);
  }

  toggle(): void {
    this.choice = this.dark ? "light" : "dark";
    this.apply();
  }

  private print(printing: boolean): void {
    this.printing = printing;
    this.apply();
  }

  private apply(): void {
    document.documentElement.dataset.theme = this.dark ? "dark" : "light";
    for (const handler of this.told) handler();
  }
}
