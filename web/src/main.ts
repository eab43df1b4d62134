// The page: reads what was sent, keeps what is chosen, and has every part show it.

import { isWide } from "./columns";
import { type Model, read, weight } from "./data";
import { count, h, on, plural, replace } from "./dom";
import { Filter } from "./filter";
import { GraphView } from "./graph";
import { groupable, Grouping, joined } from "./grouping";
import { figures, header, notices } from "./head";
import { AttentionSection } from "./heads";
import { read as stateIn, written as stateWritten } from "./hash";
import { groups, truth } from "./known";
import { showLegend } from "./legend";
import { CircuitList, comparison, settings } from "./lists";
import { faithfulness, sizeCurve } from "./measured";
import { attentionOf, showPanel, written } from "./panel";
import { tell } from "./notebook";
import { Neighbours, type Paths } from "./paths";
import { copied, fileName, save, savePng } from "./picture";
import { section } from "./section";
import { Slider } from "./slider";
import { FIRST, matches, membership, metricAt, size, type State, Status } from "./state";
import { strengths } from "./strongest";
import { Table } from "./table";
import { Theme } from "./theme";
import { type Toolbar, toolbar } from "./toolbar";

const NARROW = matchMedia("(max-width: 980px)");

class Page {
  private state: State;
  private readonly neighbours: Neighbours;
  private readonly filter: Filter;
  private readonly graph: GraphView;
  private readonly slider: Slider;
  private readonly attention: AttentionSection;
  private readonly list: CircuitList;
  private readonly table: Table;
  private readonly grouping: Grouping;
  private tools!: Toolbar;
  private members: Uint8Array = new Uint8Array(0);
  private among: Uint8Array = new Uint8Array(0);
  private shown: Uint8Array = new Uint8Array(0);
  private prompt = 0;
  private sliding = false;
  private address = "";
  private addressDue: ReturnType<typeof setTimeout> | undefined;

  private readonly canvas = h("div", {
    id: "graph",
    tabindex: 0,
    role: "application",
    "aria-roledescription": "graph",
    "aria-label": "The circuit, from the embedding at the bottom to the logits at the top. Arrow keys move along edges: up to what a node feeds, down to what it reads, left and right on its level. N shows what is chosen with its paths alone. Escape lets go. The same circuit stands below as a table and as a list.",
  });
  private readonly panel = h("aside", { id: "panel", "aria-label": "what is chosen" });
  private readonly counter = h("p", { id: "count", role: "status" });
  private readonly whole = on(h("button", { type: "button", class: "quiet", id: "show-all" }), { click: () => this.set({ limit: this.state.limit === null ? FIRST : null }) });
  private readonly putBack = on(h("button", { type: "button", class: "quiet", id: "put-back", title: "put back: every node where it stood" }, "put back"), { click: () => this.set({ moved: new Map() }) });
  private readonly spoken = h("p", { class: "offscreen", "aria-live": "polite" });
  private readonly legend = h("div", { class: "legend", id: "legend" });
  private readonly around = h("div", { class: "around", id: "around", role: "status" });
  private readonly listing = h("details", { class: "components" }, h("summary", {}, "Components"));
  private readonly components = h("div", { id: "components", role: "listbox", "aria-label": "components of the circuit" });
  private readonly results = h("p", { id: "results", role: "status" });
  private readonly said = h("span", { class: "said", role: "status" });
  private search!: HTMLInputElement;

  constructor(
    private readonly model: Model,
    theme: Theme,
    root: HTMLElement,
  ) {
    this.state = stateIn(model, location.hash);
    this.neighbours = new Neighbours(model);
    this.filter = new Filter(model, this.neighbours);
    this.slider = new Slider((stop) => this.slide(stop));
    this.attention = new AttentionSection(theme, {
      head: (name) => this.choose({ node: this.seenNodes().find((node) => model.nodes[node].name === name) ?? model.byName.get(name) ?? null }),
      prompt: (at) => this.choosePrompt(at),
    });
    this.list = new CircuitList(model);
    this.table = new Table(model, { node: (node) => this.reach({ node }), edge: (edge) => this.reach({ edge }) });
    this.grouping = new Grouping(model, (change) => this.set(change));
    const numbers = figures(model);
    root.append(header(model, theme), h("main", {}, numbers, notices(model), this.stage(), ...this.below()), this.footer());
    this.graph = new GraphView(this.canvas, model, theme, this.neighbours, this.state, {
      node: (node, more) => {
        if (more && node !== null) this.pick(node);
        else this.choose({ node: node === this.state.node ? null : node });
      },
      edge: (edge) => this.choose({ edge: edge === this.state.edge ? null : edge }),
      hover: (what) => this.hover(what),
      fold: ([first, last], folded) => {
        const folds = new Map(this.state.folds);
        for (let layer = first; layer <= last; layer++) folds.set(layer, folded);
        this.set({ folds });
      },
      drop: (nodes, onto) => {
        const next = joined(model, this.state.groups, nodes, onto);
        if (next !== this.state.groups) this.set({ groups: next, boxed: true });
      },
      move: (nodes, dx, dy) => {
        const moved = new Map(this.state.moved);
        for (const node of nodes) {
          const [x, y] = moved.get(node) ?? [0, 0];
          moved.set(node, [x + dx, y + dy]);
        }
        this.set({ moved });
      },
    });
    this.listen();
    this.update();
    document.documentElement.dataset.ready = "yes";
    whenIdle(() => this.prepare());
  }

  /** "Show all" is then answered at once. */
  private prepare(): void {
    const all = { ...this.state, limit: null };
    if (this.state.limit !== null) this.graph.prepare(all, this.filter.apply(all, this.members).shown);
  }

  // -- parts ----------------------------------------------------------------------------------------------------------

  private stage(): HTMLElement {
    const small = (id: string, text: string, name: string, act: () => void) => on(h("button", { type: "button", class: "quiet", id, "aria-label": name, title: name }, text), { click: act });
    const zooms = h(
      "div",
      { class: "zooms" },
      this.said,
      small("copy-link", "link", "link: copy a link to what is shown", () => this.copyLink()),
      small("save-svg", "SVG", "SVG: save the graph as a picture", () => this.savePicture("svg")),
      small("save-png", "PNG", "PNG: save the graph as a picture", () => this.savePicture("png")),
      this.putBack,
      small("zoom-in", "+", "zoom in", () => this.graph.zoom(1.3)),
      small("zoom-out", "−", "zoom out", () => this.graph.zoom(1 / 1.3)),
      small("fit", "fit", "fit: show all of it", () => this.graph.fit()),
    );
    const components = on(this.listing, { toggle: () => this.showComponents() });
    components.append(this.components);
    this.tools = toolbar(this.model, this.state, this.searchField(), this.results, (change) => this.set(change));
    const drawing = h("div", { class: "drawing" }, h("div", { class: "holder" }, h("div", { class: "foot" }, h("div", { class: "counts" }, this.counter, this.whole), zooms), this.around, this.canvas), this.legend, components, this.grouping.element);
    return h("div", { class: "stage" }, this.tools.element, h("div", { class: isWide(this.model, 2) ? "split wide" : "split" }, drawing, h("div", { class: "side" }, this.slider.element, this.panel)), this.spoken);
  }

  private searchField(): HTMLElement {
    this.search = on(h("input", { type: "search", id: "search", placeholder: "Search: a3.h1, m0, …", autocomplete: "off", spellcheck: "false", "aria-label": "search nodes and edges" }), {
      input: () => this.seek(this.search.value),
      keydown: (event) => {
        if (event.key === "Enter") this.chooseFirstMatch();
        if (event.key === "Escape") {
          this.search.value = "";
          this.seek("");
        }
      },
    });
    return this.search;
  }

  private below(): (HTMLElement | null)[] {
    const { model } = this;
    const halves = [faithfulness(model), sizeCurve(model)].filter((part) => part !== null);
    const pair = halves.length ? h("div", { class: "halves" }, ...halves) : null;
    return [comparison(model), truth(model), groups(model), pair, this.attention.element, this.table.element, this.list.element, settings(model), this.about()].filter(
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
      this.graph.widen();
      this.draw();
    }).observe(this.canvas);
    addEventListener("hashchange", () => {
      if (location.hash.replace(/^#/, "") === this.address) return;
      const { groups, picked, moved } = this.state;
      this.state = Object.assign(this.state, stateIn(this.model, location.hash), { groups, picked, moved });
      this.search.value = this.state.query;
      this.update();
    });
    addEventListener("beforeprint", () => {
      const image = h("img", { id: "print-graph" });
      image.src = this.graph.png(2).toDataURL();
      image.alt = "the circuit";
      this.canvas.after(image);
    });
    addEventListener("afterprint", () => document.getElementById("print-graph")?.remove());
  }

  private async copyLink(): Promise<void> {
    this.writeAddress();
    this.tell(await copied(location.href) ? "link copied" : "copy the address");
  }

  private async savePicture(kind: "svg" | "png"): Promise<void> {
    const [run] = this.model.runs;
    const name = fileName([run.task, run.model, ...(this.state.only === null ? [] : [this.model.nodes[this.state.only].id])], kind);
    if (kind === "svg") save(name, new Blob([this.graph.svg()], { type: "image/svg+xml" }));
    else await savePng(name, this.graph.png(2));
    this.tell(`saved as ${name}`);
  }

  private tell(text: string): void {
    this.said.textContent = text;
    setTimeout(() => (this.said.textContent = ""), 2500);
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
      n: () => this.state.node !== null && this.only(this.state.only === this.state.node ? null : this.state.node),
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
    const { state } = this;
    if (state.node === null) return this.along(true);
    const places = this.graph.places();
    const own = places.get(state.node);
    if (!own) return;
    const level = [...places].filter(([, [, y]]) => Math.abs(y - own[1]) < 1).sort((a, b) => a[1][0] - b[1][0] || a[0] - b[0]).map(([node]) => node);
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
    const found = matches(this.model, this.state);
    const seen = new Set(this.seenNodes());
    const members = (edge: number) => this.members[edge] > 0;
    const exact = this.model.edges.find((one) => one.name.toLowerCase() === this.state.query.trim().toLowerCase() && members(one.index));
    if (exact) return this.reach({ edge: exact.index });
    const node = [...found.nodes].find((index) => seen.has(index)) ?? [...found.nodes].find((index) => this.neighbours.into[index].some(members) || this.neighbours.outOf[index].some(members));
    const edge = [...found.edges].find((index) => this.shown[index]) ?? [...found.edges].find(members);
    if (node !== undefined) this.reach({ node });
    else if (edge !== undefined) this.reach({ edge });
  }

  /** Choose what may not be drawn: then its neighbourhood is. */
  private reach(what: { node?: number; edge?: number }): void {
    const there = what.node !== undefined ? this.seenNodes().includes(what.node) : this.shown[what.edge!] > 0;
    if (!there) {
      const node = what.node ?? this.model.edges[what.edge!].to;
      if (what.edge !== undefined) this.set({ only: node, limit: null, direct: true });
      else this.set({ only: node });
    }
    this.choose(what);
    if (!NARROW.matches) this.canvas.scrollIntoView({ block: "nearest" });
  }

  private only(node: number | null): void {
    this.set({ only: node, direct: false });
  }

  private pick(node: number): void {
    if (!groupable(this.model, node)) return;
    const picked = new Set(this.state.picked);
    if (!picked.delete(node)) picked.add(node);
    this.set({ picked });
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
    this.keepAddress();
    this.keepInSight();
  }

  /** On a phone the panel covers the lower half: what is chosen goes above it. */
  private keepInSight(): void {
    const { node, edge } = this.state;
    const at = node ?? (edge === null ? null : this.model.edges[edge].to);
    if (!NARROW.matches || at === null) return;
    const place = this.graph.places().get(at);
    if (!place) return;
    const y = this.graph.sheet.getBoundingClientRect().top + place[1];
    if (y > innerHeight * 0.45 || y < 60) scrollBy({ top: y - innerHeight * 0.25 });
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

  private hover(what: { nodes?: number[]; edge?: number } | null): void {
    this.canvas.classList.toggle("pointing", what !== null);
    if (this.state.node !== null || this.state.edge !== null) return;
    let lit: Paths | null = this.paths();
    if (what?.nodes !== undefined) lit = this.neighbours.through(what.nodes, this.shown);
    else if (what?.edge !== undefined) lit = this.neighbours.along(what.edge, this.shown);
    this.graph.light(lit, { node: what?.nodes?.[0] ?? null, edge: what?.edge ?? null });
  }

  /** What is brought out: paths through what is chosen, or else what the search finds. */
  private paths(): Paths | null {
    const { node, edge, query } = this.state;
    if (node !== null) return this.neighbours.through([node], this.shown);
    if (edge !== null) return this.neighbours.along(edge, this.shown);
    if (!query.trim()) return null;
    const found = matches(this.model, this.state);
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

  /** What is searched for is brought out; what is shown stays as it is. */
  private seek(query: string): void {
    this.state.query = query;
    this.graph.light(this.paths(), { node: this.state.node, edge: this.state.edge });
    this.showCounts();
    this.keepAddress();
  }

  private set(change: Partial<State>): void {
    Object.assign(this.state, change);
    this.update();
  }

  private update(): void {
    const { model, state } = this;
    this.members = membership(model, state);
    ({ shown: this.shown, among: this.among } = this.filter.apply(state, this.members));
    this.draw();
    this.tools.show(state);
    this.slider.show(state.focus < 0 ? null : model.runs[state.focus], state.stop);
    this.showCounts();
    this.putBack.hidden = state.moved.size === 0;
    this.showAround();
    showLegend(this.legend, model, state, this.shown);
    this.showComponents();
    this.list.show(state, this.shown);
    this.table.show(state, this.shown, this.among);
    this.grouping.show(state);
    this.showChosen();
    this.keepAddress();
  }

  /** While the slider is moved nodes keep their places: there is room for all that may come. */
  private draw(): void {
    const { state } = this;
    const room = state.stop === null ? this.shown : this.filter.apply(state, new Uint8Array(this.model.edges.length).fill(Status.In)).among;
    this.graph.show(state, this.shown, room, this.paths());
  }

  /** A moment later: browsers take their time over it, and no more than a few a second. */
  private keepAddress(): void {
    clearTimeout(this.addressDue);
    this.addressDue = setTimeout(() => this.writeAddress(), 100);
  }

  private writeAddress(): void {
    clearTimeout(this.addressDue);
    const address = stateWritten(this.model, this.state);
    if (address === this.address && location.hash.replace(/^#/, "") === address) return;
    this.address = address;
    if (!address && !location.hash) return;
    try {
      history.replaceState(null, "", address ? `#${address}` : location.pathname + location.search);
    } catch {
      // A notebook's frame has no address to change.
    }
  }

  private showAround(): void {
    const { state, model } = this;
    this.around.hidden = state.only === null;
    if (state.only === null) return replace(this.around);
    const name = model.nodes[state.only].id;
    const direct = on(h("input", { type: "checkbox", id: "direct", checked: state.direct }), { change: () => this.set({ direct: direct.checked }) });
    const back = on(h("button", { type: "button", class: "quiet", id: "back" }, "show everything again"), { click: () => this.only(null) });
    replace(this.around, h("span", {}, "Only what reaches ", h("strong", {}, name), " and what it reaches."), h("label", { for: "direct" }, direct, " an edge away"), back);
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
    const hidden = state.limit !== null && state.stop === null && visibleEdges < tally(this.among);
    this.whole.hidden = !hidden && (state.limit !== null || all <= FIRST || state.stop !== null);
    this.whole.textContent = hidden ? `show all ${count(tally(this.among))}` : `the strongest ${FIRST} alone`;
    let words = visibleEdges === all ? plural(all, "edge") : `${hidden ? "the strongest paths: " : ""}${count(visibleEdges)} of ${plural(all, "edge")}`;
    if (coming) words += `, ${count(coming)} undecided`;
    if (missed) words += `, ${count(missed)} missed`;
    this.counter.textContent = words;
    const query = state.query.trim();
    if (!query) this.results.textContent = "";
    else {
      const found = matches(model, state);
      const seen = new Set(this.seenNodes());
      const nodes = [...found.nodes].filter((index) => seen.has(index)).length;
      const edges = [...found.edges].filter((index) => shown[index]).length;
      const beyond = nodes + edges ? 0 : [...found.edges].filter((index) => this.members[index]).length;
      const none = beyond ? `${plural(beyond, "edge")} of that name, none of them shown: Enter shows its paths` : "nothing of that name is shown";
      this.results.textContent = nodes + edges ? `${plural(nodes, "node")} and ${plural(edges, "edge")} found` : none;
      this.results.dataset.nodes = String(nodes);
      this.results.dataset.edges = String(edges);
    }
  }

  private showComponents(): void {
    if (!this.listing.open) return;
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
      only: (node) => this.only(node),
      pick: (node) => this.pick(node),
    });
    this.panel.classList.toggle("chosen", state.node !== null || state.edge !== null);
    for (const option of this.components.querySelectorAll<HTMLElement>("[role=option]")) {
      option.setAttribute("aria-selected", String(state.node !== null && option.dataset.node === model.nodes[state.node].id));
    }
    const head = state.node === null ? null : model.nodes[state.node].name;
    const own = head === null ? null : attentionOf(model, state, head);
    const any = own ?? (state.focus < 0 ? model.runs : [model.runs[state.focus]]).find((run) => run.attention)?.attention ?? null;
    this.attention.show(any, own ? head : null, this.prompt, this.headStrengths());
  }

  /** How strong the edges of each head that is shown are together. */
  private headStrengths(): Map<string, number> {
    const { model, shown } = this;
    if (this.summed?.shown === shown) return this.summed.sums;
    const strength = strengths(model, this.state.focus);
    const sums = new Map<string, number>();
    for (const edge of model.edges) {
      if (!shown[edge.index]) continue;
      for (const node of edge.from < 0 ? [edge.to] : [edge.to, edge.from]) {
        const { kind, name } = model.nodes[node];
        if (kind === "head") sums.set(name, (sums.get(name) ?? 0) + (edge.port ? 0 : strength[edge.index]));
      }
    }
    this.summed = { shown, sums };
    return sums;
  }

  private summed: { shown: Uint8Array; sums: Map<string, number> } | null = null;
}

function whenIdle(act: () => void): void {
  if ("requestIdleCallback" in window) requestIdleCallback(act, { timeout: 3000 });
  else setTimeout(act, 500);
}

const model = read(document.getElementById("data")!.textContent!);
new Page(model, new Theme(), document.getElementById("page")!);
