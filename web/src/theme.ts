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
  found: string;
  missed: string;
  extra: string;
  shared: string;
  some: string;
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
  kinds: { q: "#1b6fb8", k: "#c9570c", v: "#0b8766", mlp: "#98509a", direct: "#5c6878" },
  found: "#1b6fb8",
  missed: "#c9570c",
  extra: "#7c8694",
  shared: "#3a4554",
  some: "#98a2af",
  runs: ["#1b6fb8", "#c9570c", "#0b8766", "#98509a", "#8a6d00", "#5c6878"],
  groups: ["#dcebf8", "#fbe3d0", "#d5efe6", "#f0deef", "#f6ecc4", "#e2e6eb", "#d8eef2", "#f7dcdf"],
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
  kinds: { q: "#6db3f2", k: "#f39a59", v: "#4ecba3", mlp: "#d596d3", direct: "#a8b3c1" },
  found: "#6db3f2",
  missed: "#f39a59",
  extra: "#97a2b0",
  shared: "#dbe2ea",
  some: "#76828f",
  runs: ["#6db3f2", "#f39a59", "#4ecba3", "#d596d3", "#e0c252", "#a8b3c1"],
  groups: ["#1d3a56", "#53341c", "#1b4438", "#452b46", "#4a4117", "#353e48", "#1c4249", "#4e2a30"],
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
