// The circuit on a canvas, drawn by Cytoscape.js at the places that edgewise worked out.

import cytoscape from "cytoscape";
import { addColumns, type Backdrop, columnStyles, fadedAttention, Ties } from "./columns";
import type { Box, Layout, Model } from "./data";
import { weight } from "./data";
import { bends, tabs } from "./marks";
import type { Neighbours, Paths } from "./paths";
import { type Route, routes } from "./routes";
import { type State, Status } from "./state";
import type { Palette, Theme } from "./theme";

export interface Handlers {
  node(index: number | null): void;
  edge(index: number | null): void;
  hover(what: { node?: number; edge?: number } | null): void;
  /** Nodes have gone to other places. */
  moved(): void;
}

/** With more edges than this, lines are thinner and fainter, and those aside are left out while paths are followed. */
const MANY = 250;
const LARGEST = 1.5;
const STILL = matchMedia("(prefers-reduced-motion: reduce)");

export class GraphView {
  readonly cy: cytoscape.Core;
  private readonly layouts: Record<Layout, { boxes: (Box | null)[]; routes: (Route | null)[] }>;
  private layout: Layout | null = null;
  private readonly nodes: cytoscape.NodeSingular[] = [];
  private readonly edges: (cytoscape.EdgeSingular | null)[] = [];
  /** From a shared key/value head to the query heads that read it, and from a head to itself at other spans. */
  private readonly ties: Ties;
  private readonly backdrops: Backdrop[];
  private tabs: string[] = [];
  private readonly led: (Layout | undefined)[] = [];
  private settling: ReturnType<typeof setTimeout> | undefined;
  private shown: Uint8Array = new Uint8Array(0);
  private lit: Paths | null = null;
  private focus: { node: number | null; edge: number | null } = { node: null, edge: null };
  private state: State;
  private widths: Float32Array;
  private dense = false;

  constructor(
    private readonly container: HTMLElement,
    private readonly model: Model,
    private readonly theme: Theme,
    neighbours: Neighbours,
    state: State,
    private readonly handlers: Handlers,
  ) {
    this.state = state;
    this.layouts = { close: this.place("close"), wide: this.place("wide") };
    this.widths = new Float32Array(model.edges.length).fill(0.22);
    this.cy = cytoscape({
      container,
      elements: this.elements(),
      style: this.style(),
      layout: { name: "preset", fit: false },
      autoungrabify: true,
      boxSelectionEnabled: false,
      userZoomingEnabled: false,
      minZoom: 0.15,
      maxZoom: 4,
      pixelRatio: Math.min(devicePixelRatio || 1, 2),
    });
    model.nodes.forEach((_, index) => this.nodes.push(this.cy.$id(`n${index}`) as cytoscape.NodeSingular));
    for (const edge of model.edges) {
      this.edges.push(edge.port ? null : (this.cy.$id(`e${edge.index}`) as unknown as cytoscape.EdgeSingular));
    }
    this.ties = new Ties(this.cy, model, neighbours);
    this.backdrops = addColumns(this.cy, model);
    this.listen(handlers);
    theme.onChange(() => {
      this.cy.style(this.style());
      this.tabs = [];
      this.cy.batch(() => this.mark(this.shown));
    });
  }

  private place(layout: Layout): { boxes: (Box | null)[]; routes: (Route | null)[] } {
    const boxes = this.model.nodes.map((node) => node[layout]);
    return { boxes, routes: routes(this.model, boxes) };
  }

  private elements(): cytoscape.ElementDefinition[] {
    const nodes = this.model.nodes.map((node, index) => ({
      group: "nodes" as const,
      data: { id: `n${index}`, index, label: node.name, span: node.span, kind: node.kind, group: node.group, width: node.wide[2], height: node.wide[3] },
      position: { x: node.wide[0], y: node.wide[1] },
      classes: "off",
    }));
    const edges = this.model.edges
      .filter((edge) => !edge.port)
      .map((edge) => ({
        group: "edges" as const,
        data: { id: `e${edge.index}`, index: edge.index, source: `n${edge.from}`, target: `n${edge.to}`, kind: edge.kind },
        classes: "off",
      }));
    return [...nodes, ...edges];
  }

  private listen(handlers: Handlers): void {
    const cy = this.cy;
    cy.on("tap", "node[kind]", (event) => handlers.node(event.target.data("index")));
    cy.on("tap", "edge[kind]", (event) => handlers.edge(event.target.data("index")));
    cy.on("tap", (event) => {
      if (event.target === cy) handlers.node(null);
    });
    cy.on("mouseover", "node[kind]", (event) => handlers.hover({ node: event.target.data("index") }));
    cy.on("mouseover", "edge[kind]", (event) => handlers.hover({ edge: event.target.data("index") }));
    cy.on("mouseout", "node, edge", () => handlers.hover(null));
    // The page scrolls as ever; the graph is zoomed with Ctrl held, as maps are, or with its buttons.
    this.container.addEventListener(
      "wheel",
      (event) => {
        if (!event.ctrlKey && !event.metaKey) return;
        event.preventDefault();
        const at = this.container.getBoundingClientRect();
        const level = cy.zoom() * Math.exp(-event.deltaY / 300);
        cy.zoom({ level, renderedPosition: { x: event.clientX - at.left, y: event.clientY - at.top } });
      },
      { passive: false, capture: true },
    );
  }

  /** Draw what `shown` says, a Status for each edge. */
  show(state: State, shown: Uint8Array, lit: Paths | null): void {
    const previous = this.shown;
    const dense = shown.reduce((sum, status) => sum + (status ? 1 : 0), 0) > MANY;
    const recolour =
      this.dense !== dense ||
      this.state.colour !== state.colour || this.state.focus !== state.focus || previous.length !== shown.length;
    this.state = { ...state };
    this.shown = shown;
    this.dense = dense;
    if (recolour) this.widths = this.measureWidths();
    clearTimeout(this.settling);
    const seen = this.seen(shown);
    const wanted = this.wanted(seen);
    const before = this.layout;
    // To lead a thousand edges anew takes a moment: that waits until the slider rests.
    const later = before !== null && before !== wanted && dense;
    if (later) {
      this.settling = setTimeout(() => this.settle(), 160);
      this.layouts[before].boxes.forEach((box, index) => (seen[index] &&= box !== null));
    }
    this.cy.batch(() => {
      if (!later) this.arrange(wanted);
      else this.lead();
      this.edges.forEach((edge, index) => {
        if (edge && (previous[index] !== shown[index] || recolour)) edge.classes(this.classes(index));
      });
      this.showNodes(seen);
      this.mark(shown);
      if (recolour) this.cy.style(this.style());
    });
    if (!later && before !== null && before !== wanted) this.handlers.moved();
    this.light(lit, { node: state.node, edge: state.edge }, true);
  }

  /** A head's query, key and value as marks under its name: filled where edges lead in, else an outline. */
  private mark(shown: Uint8Array): void {
    const kinds = ["q", "k", "v"];
    const marks = this.model.nodes.map(() => "---".split(""));
    for (const edge of this.model.edges) {
      const at = kinds.indexOf(edge.kind);
      if (at < 0 || !shown[edge.index]) continue;
      if (!edge.port) marks[edge.to][at] = kinds[at].toUpperCase();
      else if (marks[edge.to][at] === "-") marks[edge.to][at] = kinds[at];
    }
    this.nodes.forEach((node, index) => {
      const kind = this.model.nodes[index].kind;
      const wanted = kind === "head" || kind === "group" ? marks[index].join("") : "---";
      if (this.tabs[index] === wanted) return;
      this.tabs[index] = wanted;
      if (wanted === "---") node.removeStyle("background-image text-margin-y");
      else node.style({ "background-image": tabs(wanted, node.data("width"), node.data("height"), this.theme.palette), "text-margin-y": -6 });
    });
  }

  private classes(index: number): string {
    const status = this.shown[index];
    return status ? `s${status}` : "off";
  }

  /** Which nodes have anything to show. */
  private seen(shown: Uint8Array): boolean[] {
    const seen = new Array<boolean>(this.model.nodes.length).fill(false);
    for (const edge of this.model.edges) {
      if (!shown[edge.index]) continue;
      seen[edge.to] = true;
      if (edge.from >= 0) seen[edge.from] = true;
    }
    return seen;
  }

  private showNodes(seen: boolean[]): void {
    this.nodes.forEach((node, index) => {
      if (node.hasClass("off") === seen[index]) node.toggleClass("off", !seen[index]);
    });
    this.ties.show(seen, this.shown);
  }

  /** What was put off while the slider moved. */
  private settle(): void {
    const seen = this.seen(this.shown);
    this.cy.batch(() => {
      this.arrange(this.wanted(seen));
      this.showNodes(seen);
    });
    this.handlers.moved();
  }

  /** Nodes go to where everything that is shown has room, and stay there until the slider is let go of. */
  private wanted(seen: boolean[]): Layout {
    const close = this.layouts.close.boxes;
    const stay = this.layout === "wide" && this.state.stop !== null;
    return !stay && seen.every((there, index) => !there || close[index]) ? "close" : "wide";
  }

  private arrange(layout: Layout): void {
    const before = this.layout;
    this.layout = layout;
    const { boxes } = this.layouts[layout];
    if (layout !== before) {
      this.nodes.forEach((node, index) => {
        const box = boxes[index];
        if (!box) return;
        if (node.data("width") !== box[2]) node.data({ width: box[2], height: box[3] });
        node.position({ x: box[0], y: box[1] });
      });
      this.ties.lead(layout);
      for (const backdrop of this.backdrops) backdrop.stand(layout);
    }
    this.lead();
    if (before !== null && layout !== before) this.fit(true);
  }

  /** Lead the edges that are shown between the nodes' places; others wait until they are. */
  private lead(): void {
    const layout = this.layout!;
    const { boxes, routes } = this.layouts[layout];
    this.edges.forEach((edge, index) => {
      const route = routes[index];
      if (!edge || !route || !this.shown[index] || this.led[index] === layout) return;
      this.led[index] = layout;
      edge.style(bends(route, boxes[this.model.edges[index].from]!, boxes[this.model.edges[index].to]!));
    });
  }

  fit(soon = false): void {
    const run = () => {
      this.cy.maxZoom(LARGEST);
      this.cy.fit(this.cy.nodes().not(".off"), 15);
      this.cy.maxZoom(4);
      this.cy.center(this.cy.nodes().not(".off"));
    };
    if (soon && !STILL.matches) requestAnimationFrame(run);
    else run();
  }

  zoom(factor: number): void {
    const at = { x: this.container.clientWidth / 2, y: this.container.clientHeight / 2 };
    this.cy.zoom({ level: this.cy.zoom() * factor, renderedPosition: at });
  }

  resize(): void {
    this.cy.resize();
    this.fit();
  }

  /** How tall the drawing wants to be at a width. */
  heightAt(width: number): number {
    const boxes = this.layouts[this.layout ?? "close"].boxes.filter((box): box is Box => box !== null);
    const right = Math.max(...boxes.map((box) => box[0] + box[2] / 2), 1);
    const bottom = Math.max(...boxes.map((box) => box[1] + box[3] / 2), 1);
    return (bottom + 14) * Math.min(LARGEST, width / (right + 14)) + 12;
  }

  /** Bring out paths and what is chosen, and let the rest fade. */
  light(lit: Paths | null, focus: { node: number | null; edge: number | null }, anew = false): void {
    const before = this.lit;
    const was = this.focus;
    this.lit = lit;
    this.focus = focus;
    this.cy.batch(() => {
      if (lit !== before || anew) {
        this.nodes.forEach((node, index) => {
          const faded = lit !== null && !lit.nodes.has(index);
          if (node.hasClass("faded") !== faded) node.toggleClass("faded", faded);
        });
        this.ties.light(lit);
        this.edges.forEach((edge, index) => {
          if (!edge || !this.shown[index]) return;
          this.brighten(edge, index, focus);
        });
      }
      if (was.node !== null) this.nodes[was.node].removeClass("chosen");
      if (was.edge !== null) this.edges[was.edge]?.removeClass("chosen");
      if (focus.node !== null) this.nodes[focus.node].addClass("chosen");
      if (focus.edge !== null) this.edges[focus.edge]?.addClass("chosen");
    });
  }

  /** Edges on the paths stand out; of those, the ones at the chosen node itself most. */
  private brighten(edge: cytoscape.EdgeSingular, index: number, focus: { node: number | null }): void {
    const wanted = this.lit === null ? "" : !this.lit.edges.has(index) ? "faded" : this.near(index, focus) ? "lit" : this.dense ? "" : "far";
    for (const name of ["faded", "lit", "far"]) {
      const has = name === wanted;
      if (edge.hasClass(name) !== has) edge.toggleClass(name, has);
    }
  }

  /** Whether an edge on the paths is at what is chosen; of a search's findings all are, unless they are very many. */
  private near(index: number, focus: { node: number | null }): boolean {
    const { from, to } = this.model.edges[index];
    if (focus.node !== null) return from === focus.node || to === focus.node;
    return this.lit!.edges.size <= MANY;
  }

  private measureWidths(): Float32Array {
    const { model, state } = this;
    const widths = new Float32Array(model.edges.length).fill(0.22);
    if (state.focus < 0) return widths;
    const run = model.runs[state.focus];
    const sizes = model.edges.map((edge) => Math.abs(weight(run, edge.index) ?? 0));
    const largest = Math.max(...sizes.filter((_, index) => run.has[index]), 0);
    if (largest > 0) sizes.forEach((value, index) => (widths[index] = Math.sqrt(Math.min(1, value / largest))));
    return widths;
  }

  private colour(index: number, palette: Palette): string {
    const status = this.shown[index];
    if (status === Status.Coming) return palette.faint;
    if (this.state.focus < 0 && this.state.colour === "runs") {
      if (status === Status.Shared) return palette.shared;
      if (status === Status.Some) return palette.some;
      const owner = this.model.runs.findIndex((run) => run.has[index]);
      return palette.runs[Math.max(0, owner) % palette.runs.length];
    }
    // Dashes take long to paint, so that very many missed edges have their colour instead.
    if (status === Status.Missed && (this.dense || this.state.colour === "truth")) return palette.missed;
    if (this.state.colour === "truth") {
      return status === Status.Extra ? palette.extra : palette.found;
    }
    return palette.kinds[this.model.edges[index].kind];
  }

  /** Edges that are drawn in full: undecided ones are thin anyway. */
  private get drawn(): number {
    return this.shown.reduce((sum, status) => sum + (status && status !== Status.Coming ? 1 : 0), 0);
  }

  private style(): cytoscape.StylesheetJson {
    const palette = this.theme.palette;
    const { drawn, dense } = this;
    const opacity = drawn > 700 ? 0.42 : drawn > MANY ? 0.55 : 0.9;
    const widest = drawn > 300 ? 2.2 : drawn > 100 ? 3.6 : 5;
    const fill = (node: cytoscape.NodeSingular) => {
      const group = node.data("group") as number | null;
      const kind = node.data("kind") as string;
      if (group !== null) return palette.groups[group % palette.groups.length];
      if (kind === "head") return palette.box;
      return kind === "mlp" ? palette.mlpBox : palette.bar;
    };
    const style = [
      {
        selector: "node",
        style: {
          shape: "round-rectangle",
          width: "data(width)",
          height: "data(height)",
          "background-color": fill,
          "border-width": 1,
          "border-color": palette.boxLine,
          label: "data(label)",
          color: palette.ink,
          "font-family": "ui-sans-serif, system-ui, sans-serif",
          "font-size": 12,
          "text-valign": "center",
          "text-halign": "center",
          "min-zoomed-font-size": 3,
          "background-fit": "none",
          "background-width": "100%",
          "background-height": "100%",
          "background-image-opacity": 1,
          "z-index": 10,
        },
      },
      { selector: "node[kind = 'group']", style: { "border-style": "dashed", "font-size": 11 } },
      { selector: "node[kind = 'logits'], node[kind = 'input'], node[kind = 'tok'], node[kind = 'pos']", style: { "border-width": 0, "font-weight": 600 } },
      {
        selector: "edge",
        style: {
          "curve-style": "unbundled-bezier",
          "edge-distances": "endpoints",
          "line-color": (edge: cytoscape.EdgeSingular) => this.colour(edge.data("index"), this.theme.palette),
          width: (edge: cytoscape.EdgeSingular) => 0.8 + (widest - 0.8) * this.widths[edge.data("index")],
          opacity,
          "z-index": 1,
          "overlay-padding": 4,
        },
      },
      ...columnStyles(palette),
      { selector: "edge[tie]", style: { "curve-style": "straight", "line-color": palette.some, "line-style": "dashed", "line-dash-pattern": [4, 3], width: 1.1, opacity: 0.9, events: "no", "z-index": 0 } },
      { selector: `edge.s${Status.Coming}`, style: { width: 1, opacity: dense ? 0.45 : 0.7 } },
      { selector: `edge.s${Status.Missed}`, style: dense ? { width: 1, opacity: 0.3 } : { "line-style": "dashed", "line-dash-pattern": [6, 4], width: 1.8 } },
      { selector: `edge.s${Status.Some}`, style: dense ? {} : { "line-style": "dashed", "line-dash-pattern": [7, 3] } },
      // Of many edges, those aside are left out altogether: so much less to paint, and the rest stands clear.
      { selector: "edge.faded", style: dense ? { visibility: "hidden" } : { opacity: 0.1 } },
      { selector: "node.faded", style: { opacity: 0.28 } },
      fadedAttention,
      { selector: "edge.lit", style: { opacity: 0.95, "z-index": 5 } },
      { selector: "edge.far", style: { opacity: dense ? 0.3 : 0.5, "z-index": 4 } },
      {
        selector: "node.chosen",
        style: { "border-width": 2.5, "border-color": palette.accent, "outline-width": 3, "outline-color": palette.accent, "outline-opacity": 0.25, "outline-offset": 2, "font-weight": 600 },
      },
      { selector: "edge.chosen", style: { opacity: 1, "z-index": 9, "underlay-color": palette.accent, "underlay-opacity": 0.3, "underlay-padding": 5 } },
      { selector: ".off", style: { display: "none" } },
    ];
    if (this.state.colour === "truth" && !dense) {
      style.push({ selector: `edge.s${Status.Extra}`, style: { "line-style": "dashed", "line-dash-pattern": [2, 3] } as never });
    }
    return style as unknown as cytoscape.StylesheetJson;
  }

  picture(scale: number): string {
    return this.cy.png({ full: true, scale, bg: this.theme.palette.page });
  }
}
