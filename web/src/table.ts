// Edges and nodes as a table: sorted by any column, copied into any sheet.

import { type Model, type Run, weight } from "./data";
import { count, h, on, plural, replace, signed } from "./dom";
import { meaningOfWeight, what } from "./explain";
import { copied, fileName, save } from "./picture";
import { section } from "./section";
import { kindName, type State, Status } from "./state";

type Cell = string | number | null;

interface Sheet {
  heads: string[];
  /** Where the numbers begin: those are sorted from the largest on. */
  rows: { cells: Cell[]; node?: number; edge?: number }[];
}

/** More rows than this are written when they are asked for. */
const AT_ONCE = 100;

export class Table {
  readonly element: HTMLElement;
  private readonly head = h("thead", {});
  private readonly body = h("tbody", {});
  private readonly words = h("span", { class: "said", role: "status" });
  private readonly more: HTMLButtonElement;
  private readonly what: HTMLSelectElement;
  private readonly whole: HTMLInputElement;
  private sheet: Sheet = { heads: [], rows: [] };
  private by = -1;
  private down = true;
  private most = AT_ONCE;
  private due: ReturnType<typeof setTimeout> | undefined;
  private state: State | null = null;
  private shown: Uint8Array = new Uint8Array(0);
  private among: Uint8Array = new Uint8Array(0);

  constructor(
    private readonly model: Model,
    private readonly choose: { node(index: number): void; edge(index: number): void },
  ) {
    const again = () => {
      this.by = -1;
      this.most = AT_ONCE;
      this.write();
    };
    this.what = on(h("select", { id: "table-of", "aria-label": "rows of the table" }, h("option", { value: "edges" }, "edges"), h("option", { value: "nodes" }, "nodes")), { change: again });
    this.whole = on(h("input", { type: "checkbox", id: "table-all" }), { change: again });
    const copy = on(h("button", { type: "button", class: "copy", id: "table-copy" }, "copy"), { click: () => this.copy() });
    const file = on(h("button", { type: "button", class: "copy", id: "table-save" }, "save as .tsv"), { click: () => save(fileName(["circuit", this.what.value], "tsv"), new Blob([this.text()], { type: "text/tab-separated-values" })) });
    this.more = on(h("button", { type: "button", class: "quiet", id: "table-more" }), {
      click: () => {
        this.most += 1000;
        this.rows();
      },
    });
    this.element = section(
      "table",
      "The circuit as a table",
      h("p", { class: "lead line start" }, this.what, h("label", { for: "table-all" }, this.whole, " also what the graph leaves out"), copy, file, this.words),
      h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "rows of the table" }, h("table", { class: "numbers sheet" }, this.head, this.body)),
      this.more,
    );
  }

  /** Written a moment later: nobody reads it while the slider moves. */
  show(state: State, shown: Uint8Array, among: Uint8Array): void {
    this.state = { ...state };
    this.shown = shown;
    this.among = among;
    clearTimeout(this.due);
    this.due = setTimeout(() => this.write(), 140);
  }

  private write(): void {
    if (!this.state) return;
    const kept = this.whole.checked ? this.among : this.shown;
    this.sheet = this.what.value === "edges" ? this.edges(kept) : this.nodes(kept);
    if (this.by < 0 || this.by >= this.sheet.heads.length) {
      const strength = this.sheet.heads.findIndex((name) => !["edge", "kind", "from", "to", "node", "layer", "group"].includes(name));
      this.by = Math.max(0, strength);
      this.down = true;
    }
    this.sort();
  }

  private get runs(): Run[] {
    return this.state!.focus < 0 ? this.model.runs : [this.model.runs[this.state!.focus]];
  }

  private edges(kept: Uint8Array): Sheet {
    const { model, runs } = this;
    const several = runs.length > 1;
    const ranks = runs.map((run) => ranksOf(run));
    const name = (run: Run, words: string) => (several ? `${words}, ${run.label}` : words);
    const known = runs.some((run) => run.known);
    const heads = ["edge", "kind", ...runs.flatMap((run) => [name(run, run.scores ? "score" : "effect"), name(run, "rank"), ...(several ? [name(run, "in")] : [])]), ...(known ? ["known"] : [])];
    const rows = model.edges.flatMap((edge) => {
      const status = kept[edge.index];
      if (!status || status === Status.Coming) return [];
      const cells: Cell[] = [edge.name, edge.port ? `${kindName(model, edge.kind)} (port)` : kindName(model, edge.kind)];
      runs.forEach((run, at) => {
        cells.push(weight(run, edge.index), ranks[at][edge.index] || null);
        if (several) cells.push(run.has[edge.index] ? "yes" : "no");
      });
      if (known) cells.push(runs.some((run) => run.known?.[edge.index]) ? "yes" : "no");
      return [{ cells, edge: edge.index }];
    });
    return { heads, rows };
  }

  private nodes(kept: Uint8Array): Sheet {
    const { model, runs, state } = this;
    const run = runs.length === 1 ? runs[0] : null;
    const found = new Map<number, { into: number; outOf: number; reads: number; feeds: number }>();
    const at = (node: number) => {
      const there = found.get(node) ?? { into: 0, outOf: 0, reads: 0, feeds: 0 };
      found.set(node, there);
      return there;
    };
    for (const edge of model.edges) {
      const status = kept[edge.index];
      if (!status || status === Status.Coming || edge.port) continue;
      const size = run ? Math.abs(weight(run, edge.index) ?? 0) : 0;
      const [to, from] = [at(edge.to), at(edge.from)];
      to.reads++;
      to.into += size;
      from.feeds++;
      from.outOf += size;
    }
    const groups = state!.groups.length > 0;
    const strength = run ? [`strength in`, `strength out`] : [];
    const heads = ["node", "layer", ...(groups ? ["group"] : []), ...strength, "reads", "feeds"];
    const rows = [...found].map(([node, { into, outOf, reads, feeds }]) => {
      const { id, layer, kind } = model.nodes[node];
      const group = state!.groups.find(({ members }) => members.has(node))?.name ?? null;
      const cells: Cell[] = [id, layer < 0 || kind === "logits" ? null : layer, ...(groups ? [group] : []), ...(run ? [into, outOf] : []), reads, feeds];
      return { cells, node };
    });
    return { heads, rows };
  }

  private sort(): void {
    const { by, down } = this;
    const value = (cell: Cell) => (typeof cell === "number" ? (this.sheet.heads[by].startsWith("score") || this.sheet.heads[by].startsWith("effect") ? Math.abs(cell) : cell) : cell);
    const order = new Intl.Collator("en", { numeric: true });
    this.sheet.rows.sort((one, other) => {
      const [a, b] = [value(one.cells[by]), value(other.cells[by])];
      if (a === null || b === null) return a === b ? 0 : a === null ? 1 : -1;
      const less = typeof a === "number" && typeof b === "number" ? a - b : order.compare(String(a), String(b));
      return down ? -less : less;
    });
    this.rows();
  }

  private rows(): void {
    const { sheet, by, down } = this;
    replace(
      this.head,
      h(
        "tr",
        {},
        ...sheet.heads.map((name, at) => {
          const sorted = at !== by ? "none" : down ? "descending" : "ascending";
          const button = on(h("button", { type: "button", class: "sort" }, name, h("span", { "aria-hidden": "true" }, at !== by ? "" : down ? " ▾" : " ▴")), {
            click: () => {
              this.down = at === this.by ? !this.down : typeof sheet.rows[0]?.cells[at] === "number" && !name.startsWith("rank");
              this.by = at;
              this.sort();
            },
          });
          const meant = /^(score|effect)/.test(name) ? what(this.model, meaningOfWeight(this.runs[0])) : null;
          return h("th", { scope: "col", "aria-sort": sorted }, button, meant);
        }),
      ),
    );
    const shown = sheet.rows.slice(0, this.most);
    replace(this.body, ...shown.map(({ cells, node, edge }) => h("tr", {}, ...cells.map((cell, at) => (at === 0 ? h("th", { scope: "row" }, this.link(String(cell), node, edge)) : h("td", {}, written(cell, sheet.heads[at])))))));
    this.more.hidden = shown.length === sheet.rows.length;
    this.more.textContent = `show more: ${count(shown.length)} of ${plural(sheet.rows.length, "row")} are shown`;
    this.element.dataset.rows = String(sheet.rows.length);
  }

  private link(text: string, node?: number, edge?: number): HTMLElement {
    return on(h("button", { type: "button", class: "link" }, text), { click: () => (edge !== undefined ? this.choose.edge(edge) : this.choose.node(node!)) });
  }

  /** All rows as they are sorted, with tabs between the cells. */
  private text(): string {
    return [this.sheet.heads, ...this.sheet.rows.map((row) => row.cells)].map((cells) => cells.map((cell) => (cell === null ? "" : String(cell))).join("\t")).join("\n") + "\n";
  }

  private async copy(): Promise<void> {
    const done = await copied(this.text());
    this.words.textContent = done ? `${plural(this.sheet.rows.length, "row")} copied` : "select them and copy them by hand";
    setTimeout(() => (this.words.textContent = ""), 2500);
  }
}

/** Of each edge of a run's circuit its place by strength, from 1 on; 0 for others. */
function ranksOf(run: Run): Int32Array {
  const order = run.in.filter((edge) => weight(run, edge) !== null).sort((a, b) => Math.abs(weight(run, b)!) - Math.abs(weight(run, a)!));
  const ranks = new Int32Array(run.has.length);
  order.forEach((edge, at) => (ranks[edge] = at + 1));
  return ranks;
}

function written(cell: Cell, head: string): string {
  if (cell === null) return "–";
  if (typeof cell === "string") return cell;
  return /^(score|effect)/.test(head) ? signed(cell) : /^strength/.test(head) ? cell.toPrecision(4) : count(cell);
}
