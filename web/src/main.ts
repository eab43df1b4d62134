// The page: reads what was sent, keeps what is chosen, and has every part show it.

import { isWide } from "./columns";
import { type Model, read, weight } from "./data";
import { count, h, on, plural, replace } from "./dom";
import { GraphView } from "./graph";
import { header, notices } from "./head";
import { AttentionSection } from "./heads";
import { groups, truth } from "./known";
import { showLegend } from "./legend";
import { CircuitList, comparison, settings } from "./lists";
import { faithfulness, sizeCurve } from "./measured";
import { attentionOf, showPanel, written } from "./panel";
import { tell } from "./notebook";
import { Neighbours, type Paths } from "./paths";
import { section } from "./section";
import { Slider } from "./slider";
import { matches, membership, metricAt, size, type State, Status, start, visible } from "./state";
import { Theme } from "./theme";
import { toolbar } from "./toolbar";

class Page {
  private readonly state: State;
  private readonly neighbours: Neighbours;
  private readonly graph: GraphView;
  private readonly slider: Slider;
  private readonly attention: AttentionSection;
  private readonly list: CircuitList;
  private members: Uint8Array = new Uint8Array(0);
  private shown: Uint8Array = new Uint8Array(0);
  private prompt = 0;
  private sliding = false;

  private readonly canvas = h("div", {
    id: "graph",
    tabindex: 0,
    role: "application",
    "aria-roledescription": "graph",
    "aria-label": "The circuit, from the embedding at the bottom to the logits at the top. Arrow keys move along edges: up to what a node feeds, down to what it reads, left and right on its level. Escape lets go. The same circuit stands below as a list.",
  });
  private readonly panel = h("aside", { id: "panel", "aria-label": "what is chosen" });
  private readonly counter = h("p", { id: "count", role: "status" });
  private readonly spoken = h("p", { class: "offscreen", "aria-live": "polite" });
  private readonly legend = h("div", { class: "legend", id: "legend" });
  private readonly components = h("div", { id: "components", role: "listbox", "aria-label": "components of the circuit" });
  private readonly results = h("p", { id: "results", role: "status" });
  private search!: HTMLInputElement;

  constructor(
    private readonly model: Model,
    theme: Theme,
    root: HTMLElement,
  ) {
    this.state = start(model);
    this.neighbours = new Neighbours(model);
    this.slider = new Slider((stop) => this.slide(stop));
    this.attention = new AttentionSection(theme, {
      head: (name) => this.choose({ node: this.seenNodes().find((node) => model.nodes[node].name === name) ?? model.byName.get(name) ?? null }),
      prompt: (at) => this.choosePrompt(at),
    });
    this.list = new CircuitList(model);
    root.append(header(model, theme), h("main", {}, notices(model), this.stage(), ...this.below()), this.footer());
    this.graph = new GraphView(this.canvas, model, theme, this.neighbours, this.state, {
      node: (node) => this.choose({ node: node === this.state.node ? null : node }),
      edge: (edge) => this.choose({ edge: edge === this.state.edge ? null : edge }),
      hover: (what) => this.hover(what),
      moved: () => this.sizeCanvas(),
    });
    this.listen();
    this.update();
    this.sizeCanvas();
    document.documentElement.dataset.ready = "yes";
  }

  // -- parts ----------------------------------------------------------------------------------------------------------

  private stage(): HTMLElement {
    const zoom = (text: string, name: string, act: () => void) => on(h("button", { type: "button", class: "quiet", "aria-label": name, title: name }, text), { click: act });
    const zooms = h("div", { class: "zooms" }, zoom("+", "zoom in", () => this.graph.zoom(1.3)), zoom("−", "zoom out", () => this.graph.zoom(1 / 1.3)), zoom("fit", "show all of it", () => this.graph.fit()));
    const components = h("details", { class: "components" }, h("summary", {}, "Components"), this.components);
    return h(
      "div",
      { class: "stage" },
      toolbar(this.model, this.state, this.searchField(), this.results, (change) => this.set(change)),
      h("div", { class: isWide(this.model, 2) ? "split wide" : "split" }, h("div", { class: "drawing" }, h("div", { class: "holder" }, this.canvas, h("div", { class: "foot" }, this.counter, zooms)), this.legend, components), h("div", { class: "side" }, this.slider.element, this.panel)),
      this.spoken,
    );
  }

  private searchField(): HTMLElement {
    this.search = on(h("input", { type: "search", id: "search", placeholder: "Search: a3.h1, m0->logits, …", autocomplete: "off", spellcheck: "false", "aria-label": "search nodes and edges" }), {
      input: () => this.set({ query: this.search.value }),
      keydown: (event) => {
        if (event.key === "Enter") this.chooseFirstMatch();
        if (event.key === "Escape") {
          this.search.value = "";
          this.set({ query: "" });
        }
      },
    });
    return this.search;
  }

  private below(): (HTMLElement | null)[] {
    const { model } = this;
    const halves = [faithfulness(model), sizeCurve(model)].filter((part) => part !== null);
    const pair = halves.length ? h("div", { class: "halves" }, ...halves) : null;
    return [comparison(model), truth(model), groups(model), pair, this.attention.element, this.list.element, settings(model), this.about()].filter(
      (part) => part !== null,
    );
  }

  private about(): HTMLElement {
    const { edges, graph, runs } = this.model.data;
    const sent = edges.kind.length;
    const words =
      sent === graph.edges
        ? `The page holds all ${count(sent)} edges of the model's graph.`
        : `The page holds ${count(sent)} of the graph's ${count(graph.edges)} edges: the circuit${runs.length > 1 ? "s" : ""}, the known one where there is one, and the strongest of the others.`;
    return section("about", "What this page holds", h("p", { class: "lead" }, `${words} It loads nothing and sends nothing.`));
  }

  private footer(): HTMLElement {
    return h("footer", {}, `edgewise ${this.model.data.version}`);
  }

  // -- what happens ---------------------------------------------------------------------------------------------------

  private listen(): void {
    this.canvas.addEventListener("keydown", (event) => this.key(event));
    document.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && (this.state.node !== null || this.state.edge !== null)) this.choose({ node: null });
      const typing = event.target instanceof HTMLInputElement || event.target instanceof HTMLSelectElement;
      if (event.key === "/" && !typing) {
        event.preventDefault();
        this.search.focus();
      }
    });
    let width = this.canvas.clientWidth;
    new ResizeObserver(() => {
      if (this.canvas.clientWidth === width) return;
      width = this.canvas.clientWidth;
      this.sizeCanvas();
      this.graph.resize();
    }).observe(this.canvas);
    addEventListener("beforeprint", () => {
      const image = h("img", { id: "print-graph" });
      image.src = this.graph.picture(2);
      image.width = Math.round(this.graph.cy.elements().not(".off").boundingBox().w * 0.9);
      image.alt = "the circuit";
      this.canvas.after(image);
    });
    addEventListener("afterprint", () => document.getElementById("print-graph")?.remove());
  }

  private sizeCanvas(): void {
    const wanted = this.graph.heightAt(this.canvas.clientWidth);
    const height = `${Math.round(Math.max(300, Math.min(wanted, 1400)))}px`;
    if (this.canvas.style.height === height) return;
    this.canvas.style.height = height;
    this.graph.resize();
  }

  private key(event: KeyboardEvent): void {
    const moves: Record<string, () => void> = {
      ArrowUp: () => this.along(true),
      ArrowDown: () => this.along(false),
      ArrowLeft: () => this.beside(-1),
      ArrowRight: () => this.beside(1),
      "+": () => this.graph.zoom(1.3),
      "-": () => this.graph.zoom(1 / 1.3),
      "0": () => this.graph.fit(),
    };
    const move = moves[event.key];
    if (!move || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    move();
  }

  /** To the node at the other end of the strongest edge up or down. */
  private along(up: boolean): void {
    const { state, model, shown } = this;
    if (state.node === null) {
      const kinds = up ? ["input", "tok", "pos"] : ["logits"];
      const first = model.nodes.findIndex((node) => kinds.includes(node.kind));
      return this.choose({ node: first < 0 ? 0 : first });
    }
    const run = state.focus < 0 ? null : model.runs[state.focus];
    const size = (edge: number) => (run ? Math.abs(weight(run, edge) ?? 0) : 1);
    const list = (up ? this.neighbours.outOf : this.neighbours.into)[state.node].filter((edge) => shown[edge] && !model.edges[edge].port);
    const best = list.sort((a, b) => size(b) - size(a))[0];
    if (best !== undefined) return this.choose({ node: up ? model.edges[best].to : model.edges[best].from }, best);
    const node = model.nodes[state.node];
    const [next] = up ? this.neighbours.carriedTo(state.node, shown) : this.neighbours.carriedFrom(state.node, shown);
    if (next !== undefined) this.choose({ node: next });
    else this.spoken.textContent = up ? `${node.id} feeds nothing that is shown` : `${node.id} reads nothing that is shown`;
  }

  private beside(by: number): void {
    const { state, model } = this;
    const seen = this.seenNodes();
    if (state.node === null) return this.along(true);
    const at = model.nodes[state.node].wide[1];
    const level = seen.filter((node) => Math.abs(model.nodes[node].wide[1] - at) < 1).sort((a, b) => model.nodes[a].wide[0] - model.nodes[b].wide[0]);
    const next = level[(level.indexOf(state.node) + by + level.length) % level.length];
    if (next !== undefined) this.choose({ node: next });
  }

  private seenNodes(): number[] {
    const seen = new Set<number>();
    for (const edge of this.model.edges) {
      if (!this.shown[edge.index]) continue;
      seen.add(edge.to);
      if (edge.from >= 0) seen.add(edge.from);
    }
    return [...seen].sort((a, b) => a - b);
  }

  private chooseFirstMatch(): void {
    const found = matches(this.model, this.state.query);
    const seen = new Set(this.seenNodes());
    const node = [...found.nodes].find((index) => seen.has(index));
    const edge = [...found.edges].find((index) => this.shown[index]);
    if (node !== undefined) this.choose({ node });
    else if (edge !== undefined) this.choose({ edge });
  }

  private choosePrompt(at: number): void {
    this.prompt = at;
    this.showChosen();
  }

  private choose(what: { node?: number | null; edge?: number | null }, by?: number): void {
    this.state.node = what.node ?? null;
    this.state.edge = what.edge ?? null;
    this.graph.light(this.paths(), { node: this.state.node, edge: this.state.edge });
    this.showChosen();
    this.say(by);
  }

  private say(by?: number): void {
    tell(this.model, this.state);
    const { node, edge } = this.state;
    if (node !== null) {
      const into = this.neighbours.into[node].filter((index) => this.shown[index]).length;
      const outOf = this.neighbours.outOf[node].filter((index) => this.shown[index]).length;
      const how = by === undefined ? "" : `along ${this.model.edges[by].name} to `;
      this.spoken.textContent = `${how}${this.model.nodes[node].id}: reads ${into}, feeds ${outOf}`;
    } else if (edge !== null) this.spoken.textContent = written(this.model.edges[edge].name);
    else this.spoken.textContent = "nothing chosen";
  }

  private hover(what: { node?: number; edge?: number } | null): void {
    this.canvas.classList.toggle("pointing", what !== null);
    if (this.state.node !== null || this.state.edge !== null) return;
    let lit: Paths | null = this.paths();
    if (what?.node !== undefined) lit = this.neighbours.through([what.node], this.shown);
    else if (what?.edge !== undefined) lit = this.neighbours.along(what.edge, this.shown);
    this.graph.light(lit, { node: what?.node ?? null, edge: what?.edge ?? null });
  }

  /** What is brought out: paths through what is chosen, or else what the search finds. */
  private paths(): Paths | null {
    const { node, edge, query } = this.state;
    if (node !== null) return this.neighbours.through([node], this.shown);
    if (edge !== null) return this.neighbours.along(edge, this.shown);
    if (!query.trim()) return null;
    const found = matches(this.model, query);
    const edges = new Set([...found.edges].filter((index) => this.shown[index]));
    const nodes = new Set(found.nodes);
    for (const index of edges) {
      nodes.add(this.model.edges[index].to);
      if (this.model.edges[index].from >= 0) nodes.add(this.model.edges[index].from);
    }
    return { nodes, edges };
  }

  /** A slider that is dragged may ask more often than the screen can answer. */
  private slide(stop: number | null): void {
    this.state.stop = stop;
    if (this.sliding) return;
    this.sliding = true;
    this.update();
    requestAnimationFrame(() => {
      this.sliding = false;
      if (this.state.stop !== stop) this.update();
    });
  }

  private set(change: Partial<State>): void {
    Object.assign(this.state, change);
    this.update();
  }

  private update(): void {
    const { model, state } = this;
    this.members = membership(model, state);
    this.shown = visible(model, state, this.members);
    this.graph.show(state, this.shown, this.paths());
    this.slider.show(state.focus < 0 ? null : model.runs[state.focus], state.stop);
    this.showCounts();
    showLegend(this.legend, model, state, this.shown);
    this.showComponents();
    this.list.show(state, this.shown);
    this.showChosen();
  }

  private showCounts(): void {
    const { state, shown, members, model } = this;
    const tally = (list: Uint8Array) => list.reduce((sum, status) => sum + (status && status !== Status.Missed && status !== Status.Coming ? 1 : 0), 0);
    const visibleEdges = tally(shown);
    const all = tally(members);
    const coming = shown.reduce((sum, status) => sum + (status === Status.Coming ? 1 : 0), 0);
    const missed = shown.reduce((sum, status) => sum + (status === Status.Missed ? 1 : 0), 0);
    this.counter.dataset.edges = String(visibleEdges);
    this.counter.dataset.coming = String(coming);
    this.counter.dataset.missed = String(missed);
    this.counter.dataset.nodes = String(this.seenNodes().length);
    const total = size(model, state);
    if (total !== null) this.counter.dataset.size = String(total);
    else delete this.counter.dataset.size;
    const value = state.focus < 0 ? null : metricAt(model.runs[state.focus], state.stop);
    if (value !== null) this.counter.dataset.metric = String(value);
    else delete this.counter.dataset.metric;
    let words = visibleEdges === all ? plural(all, "edge") : `${count(visibleEdges)} of ${plural(all, "edge")}`;
    if (coming) words += `, ${count(coming)} undecided`;
    if (missed) words += `, ${count(missed)} missed`;
    this.counter.textContent = words;
    const query = state.query.trim();
    if (!query) this.results.textContent = "";
    else {
      const found = matches(model, query);
      const seen = new Set(this.seenNodes());
      const nodes = [...found.nodes].filter((index) => seen.has(index)).length;
      const edges = [...found.edges].filter((index) => shown[index]).length;
      this.results.textContent = nodes + edges ? `${plural(nodes, "node")} and ${plural(edges, "edge")} found` : "nothing of that name is shown";
      this.results.dataset.nodes = String(nodes);
      this.results.dataset.edges = String(edges);
    }
  }

  private showComponents(): void {
    const { model, state } = this;
    const seen = this.seenNodes();
    const active = seen.includes(state.node ?? -1) ? state.node : seen[0];
    const options = seen.map((node) => {
      const option = h("div", { role: "option", "data-node": model.nodes[node].id, tabindex: node === active ? 0 : -1, "aria-selected": node === state.node ? "true" : "false" }, model.nodes[node].id);
      return on(option, { click: () => this.choose({ node }), keydown: (event) => this.optionKey(event, option, node) });
    });
    replace(this.components, ...options);
  }

  private optionKey(event: KeyboardEvent, option: HTMLElement, node: number): void {
    const steps: Record<string, Element | null | undefined> = {
      ArrowRight: option.nextElementSibling,
      ArrowDown: option.nextElementSibling,
      ArrowLeft: option.previousElementSibling,
      ArrowUp: option.previousElementSibling,
      Home: option.parentElement?.firstElementChild,
      End: option.parentElement?.lastElementChild,
    };
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      this.choose({ node });
    } else if (event.key in steps) {
      event.preventDefault();
      const next = steps[event.key];
      if (next instanceof HTMLElement) {
        option.tabIndex = -1;
        next.tabIndex = 0;
        next.focus();
      }
    }
  }

  private showChosen(): void {
    const { model, state } = this;
    showPanel(this.panel, model, state, this.shown, this.neighbours, this.prompt, {
      node: (node) => this.choose({ node }),
      edge: (edge) => this.choose({ edge }),
      prompt: (at) => this.choosePrompt(at),
    });
    for (const option of this.components.querySelectorAll<HTMLElement>("[role=option]")) {
      option.setAttribute("aria-selected", String(state.node !== null && option.dataset.node === model.nodes[state.node].id));
    }
    const seen = new Set(this.seenNodes().map((node) => model.nodes[node].name));
    const head = state.node === null ? null : model.nodes[state.node].name;
    const own = head === null ? null : attentionOf(model, state, head);
    const any = own ?? (state.focus < 0 ? model.runs : [model.runs[state.focus]]).find((run) => run.attention)?.attention ?? null;
    this.attention.show(any, own ? head : null, this.prompt, (name) => seen.has(name));
  }
}

const model = read(document.getElementById("data")!.textContent!);
new Page(model, new Theme(), document.getElementById("page")!);
