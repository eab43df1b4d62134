// The circuit on canvases: lines, boxes above them, and above both what is brought out. Drawn anew only where it changes.

import type { Box } from "./arrange";
import type { Model } from "./data";
import { h, on } from "./dom";
import { Gutter } from "./gutter";
import * as paint from "./paint";
import type { Neighbours, Paths } from "./paths";
import { afterFrame, type Ground, Layer } from "./layer";
import { CanvasPen, SvgPen, type Pen } from "./pen";
import { boxAt, compose, edgeAt, type Scene } from "./scene";
import type { State } from "./state";
import { strengths } from "./strongest";
import type { Theme } from "./theme";

export interface Handlers {
  /** A node is clicked; with Shift, it is picked beside others. */
  node(index: number | null, more: boolean): void;
  edge(index: number | null): void;
  hover(what: { nodes?: number[]; edge?: number } | null): void;
  /** A layer, or a range of them, is to be folded or unfolded. */
  fold(layers: [first: number, last: number], folded: boolean): void;
  /** Nodes were dragged onto others. */
  drop(nodes: number[], onto: number[]): void;
  /** Nodes were dragged to where nothing stands. */
  move(nodes: number[], dx: number, dy: number): void;
}

/** Of the rest, so many lines are painted between two frames: to ask for them is quick; the screen takes its time. */
const AT_A_TIME = 1000;
/** Scenes that are kept. */
const KEPT = 4;
const MOST_PIXELS = 12e6;
/** Of more lines on the paths than this, those at what is chosen alone are brought out. */
const MOST_LIT = 700;

export class GraphView {
  readonly sheet = h("div", { class: "sheet" });
  private readonly scroller = h("div", { class: "scroller" }, this.sheet);
  /** From below: weak lines, which come later, the strongest, boxes, and what is brought out. */
  private readonly rest = new Layer("rest");
  private readonly lines = new Layer("lines");
  private readonly boxes = new Layer("boxes");
  private readonly over = new Layer("over");
  private readonly gutter: Gutter;
  private scene: Scene | null = null;
  private sceneKey = "";
  /** The last ones, for who goes back and forth. */
  private readonly kept = new Map<string, Scene>();
  private look: paint.Look | null = null;
  private shown: Uint8Array = new Uint8Array(0);
  private state: State;
  private lit: Paths | null = null;
  private focus: { node: number | null; edge: number | null } = { node: null, edge: null };
  private scale = 1;
  private painting = 0;
  private strength: Float64Array;
  private strengthOf: number;
  private drag: { from: number; along: number[]; x: number; y: number; moved: boolean } | null = null;
  private readonly soon: () => void;

  constructor(
    private readonly container: HTMLElement,
    private readonly model: Model,
    private readonly theme: Theme,
    private readonly neighbours: Neighbours,
    state: State,
    private readonly handlers: Handlers,
  ) {
    this.gutter = new Gutter((layers, folded) => handlers.fold(layers, folded));
    this.state = state;
    this.strengthOf = state.focus;
    this.strength = strengths(model, state.focus);
    this.sheet.append(...[this.rest, this.lines, this.boxes, this.over].map(({ canvas }) => canvas), this.gutter.element);
    container.append(this.scroller);
    this.soon = () => this.repaint();
    theme.onChange(this.soon);
    this.listen();
    // For tests, and for who wants to know what is drawn.
    Object.assign(container, { graph: this });
  }

  // -- what is drawn, in words ---------------------------------------------------------------------------------------

  /** Names of the edges that are drawn, port edges aside. */
  drawn(): string[] {
    return this.model.edges.filter((edge) => !edge.port && this.shown[edge.index]).map((edge) => edge.name);
  }

  /** Names of those that are brought out. */
  bright(): string[] {
    return this.lit ? this.model.edges.filter((edge) => !edge.port && this.shown[edge.index] && this.lit!.edges.has(edge.index)).map((edge) => edge.name) : [];
  }

  /** Boxes in their places, in pixels of the sheet. */
  standing(): { label: string; names: string[]; span: string | null; box: Box; colour: string | null; lit: boolean }[] {
    const { scene, look } = this;
    if (!scene || !look) return [];
    return scene.visual.nodes.flatMap((node, at) => {
      if (!look.seen[at]) return [];
      const box = scene.at.boxes[at].map((value) => value * this.scale) as Box;
      const own = this.model.nodes[node.nodes[0]];
      const lit = !this.lit || node.nodes.some((one) => this.lit!.nodes.has(one));
      return [{ label: node.label, names: node.nodes.map((one) => this.model.nodes[one].id), span: own.span, box, colour: node.group === null ? null : this.theme.palette.groups[node.group % 8], lit }];
    });
  }

  /** Columns of spans, and the lines of attention between nodes that are drawn. */
  attention(): { columns: { name: string; left: number; right: number }[]; arcs: [from: string, to: string, lit: boolean][]; ties: [from: string, to: string][] } {
    const { scene, look } = this;
    if (!scene || !look) return { columns: [], arcs: [], ties: [] };
    const id = (box: number) => this.model.nodes[scene.visual.nodes[box].nodes[0]].id;
    const lit = (box: number) => !this.lit || scene.visual.nodes[box].nodes.some((one) => this.lit!.nodes.has(one));
    const arcs = scene.arcs.filter(({ from, to }) => look.seen[from] && look.seen[to] && this.carries(from, to));
    const ties = scene.visual.ties.filter(([from, to]) => look.seen[from] && look.seen[to]);
    return {
      columns: scene.at.columns.map(({ name, left, width }) => ({ name, left: left * this.scale, right: (left + width) * this.scale })),
      arcs: arcs.map(({ from, to }) => [id(from), id(to), lit(from) && lit(to)]),
      ties: ties.map(([from, to]) => [id(from), id(to)]),
    };
  }

  /** The size of the smallest name on the screen, in pixels. */
  nameSize(): number {
    return 11 * this.scale;
  }

  // -- drawing -------------------------------------------------------------------------------------------------------

  /** Draw what `shown` says, a Status for each edge. `room` holds all edges that the slider may come to. */
  show(state: State, shown: Uint8Array, room: Uint8Array, lit: Paths | null): void {
    this.state = { ...state };
    this.shown = shown;
    if (this.strengthOf !== state.focus) {
      this.strengthOf = state.focus;
      this.strength = strengths(this.model, state.focus);
    }
    this.place(room);
    this.lit = lit;
    this.focus = { node: state.node, edge: state.edge };
    this.repaint();
  }

  private place(room: Uint8Array): void {
    const key = this.keyOf(this.state, room);
    if (key === this.sceneKey) return;
    this.sceneKey = key;
    this.scene = this.sceneOf(key, this.state, room);
    this.gutter.show(this.scene.at.rows);
    this.gutter.stand(this.scale);
  }

  /** Work out where things would stand, and have canvases that are large enough, before anybody asks for it. */
  prepare(state: State, room: Uint8Array): void {
    const scene = this.sceneOf(this.keyOf(state, room), state, room);
    for (const layer of [this.rest, this.lines, this.boxes]) layer.reserve(this.groundOf(scene));
    this.repaint();
    // Browsers take memory anew for a canvas' second frame, too, and only then use what they have.
    afterFrame(() => this.repaint());
  }

  private get width(): number {
    return Math.max(260, this.container.clientWidth);
  }

  private keyOf(state: State, room: Uint8Array): string {
    const bits = room.reduce((hash, status, at) => (status ? (Math.imul(hash, 31) + at + 1) | 0 : hash), 7);
    const groups = state.boxed ? state.groups.map((group) => [group.name, ...group.members].join()).join(";") : state.groups.map((group) => [...group.members].join()).join(";");
    return [this.width, bits, [...state.folds].join(), [...state.moved].join(), state.boxed, groups].join(" ");
  }

  private sceneOf(key: string, state: State, room: Uint8Array): Scene {
    const scene = this.kept.get(key) ?? compose(this.model, state, room, this.neighbours, this.width);
    this.kept.delete(key);
    this.kept.set(key, scene);
    if (this.kept.size > KEPT) this.kept.delete(this.kept.keys().next().value!);
    return scene;
  }

  private repaint(): void {
    const { scene } = this;
    if (!scene) return;
    this.look = paint.look(this.model, this.state, this.theme.palette, this.shown, scene, this.strength);
    const { width, height } = scene.at;
    this.sheet.style.width = `${width * this.scale}px`;
    this.sheet.style.height = `${height * this.scale}px`;
    this.paintLines();
    paint.boxes(this.boxes.pen(this.groundOf(scene)), this.look, scene);
    this.bringOut();
  }

  private groundOf({ at: { width, height } }: Scene): Ground {
    const wanted = (devicePixelRatio || 1) * this.scale;
    return { width, height, ratio: Math.min(wanted, Math.sqrt(MOST_PIXELS / (width * height))), scale: this.scale };
  }

  /** The strongest above, and at once; where there are very many, the weak ones come below them in the next frames. */
  private paintLines(): void {
    const { scene, look } = this;
    if (!scene || !look) return;
    const now = ++this.painting;
    const order = paint.inOrder(look, scene);
    const pen = this.lines.pen(this.groundOf(scene));
    paint.ground(pen, look, scene);
    this.drawLines(pen, look, scene, order.slice(0, paint.STRONGEST));
    this.rest.canvas.hidden = true;
    let left = order.length;
    let under: Pen | null = null;
    const some = (): void => {
      if (now !== this.painting) return;
      this.rest.canvas.hidden = false;
      under ??= this.rest.pen(this.groundOf(scene));
      for (const end = Math.max(paint.STRONGEST, left - AT_A_TIME); left > end; left--) paint.line(under, look, scene, order[left - 1]);
      if (left > paint.STRONGEST) afterFrame(some);
    };
    if (left > paint.STRONGEST) afterFrame(some);
  }

  /** Lines of edges, the first of them above, and above those what else joins boxes. */
  private drawLines(pen: Pen, look: paint.Look, scene: Scene, order: number[]): void {
    for (const at of [...order].reverse()) paint.line(pen, look, scene, at);
    if (this.state.spine) paint.spine(pen, look, scene);
    paint.ties(pen, look, scene, null);
    paint.arcs(pen, look, scene, (from, to) => this.carries(from, to), null);
  }

  private carries(from: number, to: number): boolean {
    const { visual } = this.scene!;
    return visual.nodes[from].nodes.some((one) => this.neighbours.carriedTo(one, this.shown).some((other) => visual.of[other] === to));
  }

  /** Bring out paths and what is chosen, and let the rest fade. */
  light(lit: Paths | null, focus: { node: number | null; edge: number | null }): void {
    this.lit = lit;
    this.focus = focus;
    this.bringOut();
  }

  private bringOut(also: ((pen: Pen) => void) | null = null): void {
    const { scene, look, lit, focus } = this;
    if (!scene || !look) return;
    this.sheet.classList.toggle("dim", lit !== null);
    this.over.wipe();
    if (!lit && focus.node === null && !this.state.picked.size && !also) return;
    const pen = this.over.pen(this.groundOf(scene));
    if (lit) {
      paint.names(pen, look, scene);
      this.litLines(pen, lit);
    }
    if (lit) paint.boxes(pen, look, scene, (box) => scene.visual.nodes[box].nodes.some((node) => lit.nodes.has(node)));
    for (const node of [focus.node, ...this.state.picked]) {
      const at = node === null ? -1 : scene.visual.of[node];
      if (at >= 0 && look.seen[at]) paint.ring(pen, look, scene, at);
    }
    also?.(pen);
  }

  private litLines(pen: Pen, lit: Paths): void {
    const { look, focus } = this;
    const scene = this.scene!;
    const on = scene.visual.edges.flatMap((edge, at) => (look!.status[at] && edge.edges.some((index) => lit.edges.has(index)) ? [at] : []));
    const chosen = focus.node === null ? -1 : scene.visual.of[focus.node];
    const near = (at: number) => {
      const { from, to } = scene.visual.edges[at];
      return chosen < 0 ? on.length <= paint.MANY : from === chosen || to === chosen;
    };
    paint.arcs(pen, look!, scene, (from, to) => this.carries(from, to), lit);
    paint.ties(pen, look!, scene, lit);
    const far = on.filter((at) => !near(at));
    const close = on.filter(near);
    const spine = new Set(far.filter((at) => !paint.alone(look!, scene.visual.edges[at])));
    if (spine.size) paint.spine(pen, look!, scene, spine);
    if (on.length <= MOST_LIT) for (const at of far) if (!spine.has(at)) pen.curve(scene.curves[at], { ...paint.stroke(look!, scene.visual.edges[at], at), alpha: on.length > paint.MANY ? 0.35 : 0.5 });
    for (const at of close) {
      const stroke = paint.stroke(look!, scene.visual.edges[at], at);
      if (focus.edge !== null && scene.visual.edges[at].edges.includes(focus.edge)) pen.curve(scene.curves[at], { colour: this.theme.palette.accent, width: stroke.width + 9, alpha: 0.3 });
      pen.curve(scene.curves[at], { ...stroke, width: Math.max(stroke.width, 1.4), alpha: 0.95 });
    }
  }

  // -- what people do -------------------------------------------------------------------------------------------------

  private listen(): void {
    const { sheet, handlers } = this;
    const place = (event: MouseEvent): [number, number] => {
      const at = sheet.getBoundingClientRect();
      return [(event.clientX - at.left) / this.scale, (event.clientY - at.top) / this.scale];
    };
    const box = (x: number, y: number) => boxAt(this.scene!, x, y, (at) => this.look!.seen[at]);
    let hovered = "";
    on(sheet, {
      pointermove: (event) => {
        if (!this.scene || event.pointerType === "touch") return;
        const [x, y] = place(event);
        if (this.drag && Math.hypot(x - this.drag.x, y - this.drag.y) > 7) this.drag.moved = true;
        if (this.drag?.moved) return this.ghost(x, y);
        const node = box(x, y);
        const edge = node === null ? this.edgeUnder(x, y) : null;
        const now = `${node} ${edge}`;
        if (now === hovered) return;
        hovered = now;
        handlers.hover(node !== null ? { nodes: this.scene.visual.nodes[node].nodes } : edge !== null ? { edge } : null);
      },
      pointerleave: () => {
        if (hovered && hovered !== "null null") handlers.hover(null);
        hovered = "";
      },
      pointerdown: (event) => {
        if (event.pointerType === "touch" || event.button !== 0 || !this.scene) return;
        const [x, y] = place(event);
        const from = box(x, y);
        const kind = from === null ? "bar" : this.scene.visual.nodes[from].kind;
        if (from !== null && kind !== "bar" && kind !== "fold" && !this.model.data.graph.spans.length) this.drag = { from, along: this.along(from), x, y, moved: false };
      },
      click: (event) => {
        if (!this.scene || (event.target instanceof Element && event.target.closest("button"))) return;
        const { drag } = this;
        this.drag = null;
        const [x, y] = place(event);
        if (drag?.moved) {
          const { nodes } = this.scene.visual;
          const onto = this.under(x, y, drag.along);
          this.bringOut();
          if (onto === null) handlers.move(drag.along.flatMap((one) => nodes[one].nodes), x - drag.x, y - drag.y);
          else if (nodes[onto].kind !== "bar") handlers.drop(nodes[drag.from].nodes, nodes[onto].nodes);
          return;
        }
        const node = box(x, y);
        if (node !== null) {
          const visual = this.scene.visual.nodes[node];
          if (visual.kind === "fold") handlers.fold(visual.layers, false);
          else handlers.node(visual.nodes[0], event.shiftKey);
          return;
        }
        const edge = this.edgeUnder(x, y);
        if (edge !== null) handlers.edge(edge);
        else handlers.node(null, false);
      },
    });
    addEventListener("pointerup", (event) => {
      if (this.drag && !(event.target instanceof Node && sheet.contains(event.target))) {
        this.drag = null;
        this.bringOut();
      }
    });
    // The page scrolls as ever; the graph is zoomed with Ctrl held, as maps are, or with its buttons.
    this.container.addEventListener(
      "wheel",
      (event) => {
        if (!event.ctrlKey && !event.metaKey) return;
        event.preventDefault();
        this.zoom(Math.exp(-event.deltaY / 300));
      },
      { passive: false },
    );
  }

  /** The strongest edge of the model that the line under a place stands for. */
  private edgeUnder(x: number, y: number): number | null {
    const { scene, look } = this;
    if (!scene || !look) return null;
    const at = edgeAt(scene, x, y, (one) => look.status[one] > 0 && paint.alone(look, scene.visual.edges[one]));
    if (at === null) return null;
    const there = scene.visual.edges[at].edges.filter((index) => this.shown[index]);
    return there.reduce((best, index) => (this.strength[index] > this.strength[best] ? index : best), there[0]);
  }

  /** The boxes that go along when one is dragged: those of its group, and those that are picked with it. */
  private along(box: number): number[] {
    const { visual } = this.scene!;
    const { nodes, group } = visual.nodes[box];
    const picked = nodes.some((node) => this.state.picked.has(node)) ? this.state.picked : [];
    const members = group === null ? [] : this.state.groups[group].members;
    const boxes = [...nodes, ...picked, ...members].map((node) => visual.of[node]);
    return [...new Set(boxes)].filter((at) => at >= 0 && this.look!.seen[at] && visual.nodes[at].kind !== "fold");
  }

  /** The box at a place, of those that are not dragged. */
  private under(x: number, y: number, dragged: number[]): number | null {
    return boxAt(this.scene!, x, y, (at) => this.look!.seen[at] && !dragged.includes(at));
  }

  /** What is dragged, where the pointer is. */
  private ghost(x: number, y: number): void {
    const { scene, look, drag } = this;
    if (!scene || !look || !drag) return;
    const onto = this.under(x, y, drag.along);
    this.bringOut((pen) => {
      for (const box of drag.along) {
        const [left, top, width, height] = scene.at.boxes[box];
        const [bx, by] = [left + x - drag.x, top + y - drag.y];
        pen.box(bx, by, width, height, { colour: this.theme.palette.box, line: this.theme.palette.accent, width: 2, radius: 4, alpha: 0.85 });
        pen.text(bx, by + 4, scene.visual.nodes[box].label, { size: 12, colour: this.theme.palette.ink });
      }
      if (onto !== null && scene.visual.nodes[onto].kind !== "bar") paint.ring(pen, look, scene, onto);
    });
  }

  // -- size and place -------------------------------------------------------------------------------------------------

  fit(): void {
    this.scale = 1;
    this.rescale();
  }

  zoom(factor: number): void {
    this.scale = Math.max(0.4, Math.min(4, this.scale * factor));
    this.rescale();
  }

  private rescale(): void {
    this.gutter.stand(this.scale);
    this.repaint();
  }

  /** For another width of the window; the next `show` draws. */
  widen(): void {
    this.sceneKey = "";
  }

  /** Where each drawn node of the model stands on the sheet. */
  places(): Map<number, [x: number, y: number]> {
    const found = new Map<number, [number, number]>();
    const { scene, look } = this;
    if (!scene || !look) return found;
    scene.visual.nodes.forEach((node, at) => {
      const [x, y] = scene.at.boxes[at];
      if (look.seen[at]) for (const one of node.nodes) if (!found.has(one)) found.set(one, [x * this.scale, y * this.scale]);
    });
    return found;
  }

  // -- pictures -------------------------------------------------------------------------------------------------------

  /** The whole graph as it is shown, in the words of SVG. */
  svg(): string {
    const pen = new SvgPen(this.scene!.at.width, this.scene!.at.height, this.theme.palette.page);
    this.draw(pen);
    return pen.written();
  }

  png(scale: number): HTMLCanvasElement {
    const { width, height } = this.scene!.at;
    const ratio = Math.min(scale, Math.sqrt(MOST_PIXELS / (width * height)));
    const canvas = h("canvas", {});
    [canvas.width, canvas.height] = [Math.round(width * ratio), Math.round(height * ratio)];
    const context = canvas.getContext("2d")!;
    context.scale(ratio, ratio);
    const pen = new CanvasPen(context);
    pen.box(width / 2, height / 2, width, height, { colour: this.theme.palette.page, line: null });
    this.draw(pen);
    return canvas;
  }

  private draw(pen: Pen): void {
    const { scene, look, lit } = this;
    if (!scene || !look) return;
    paint.ground(pen, look, scene);
    if (lit) this.litLines(pen, lit);
    else this.drawLines(pen, look, scene, paint.inOrder(look, scene));
    paint.layers(pen, look, scene);
    paint.boxes(pen, look, scene, lit ? (box) => scene.visual.nodes[box].nodes.some((node) => lit.nodes.has(node)) : null);
  }
}
