// One canvas of several that lie upon each other.

import { h } from "./dom";
import { CanvasPen } from "./pen";

/** A canvas is kept until less than this share of it is needed: to make one of another size takes longer than to wipe it. */
const WASTE = 0.1;

/** The place that is painted: its size, how many pixels of a canvas there are to one of its own, and how many of the screen. */
export interface Ground {
  width: number;
  height: number;
  ratio: number;
  scale: number;
}

export class Layer {
  readonly canvas: HTMLCanvasElement;
  private readonly context: CanvasRenderingContext2D;
  private written = false;

  constructor(name: string) {
    this.canvas = h("canvas", { class: name, "aria-hidden": "true" });
    this.context = this.canvas.getContext("2d")!;
  }

  /** A pen for a clean sheet, which covers at least the ground. */
  pen({ width, height, ratio, scale }: Ground): CanvasPen {
    const { canvas, context } = this;
    const [wide, high] = [Math.round(width * ratio), Math.round(height * ratio)];
    this.wipe();
    if (canvas.width < wide || canvas.height < high || wide * high < WASTE * canvas.width * canvas.height) {
      [canvas.width, canvas.height] = [wide, high];
    }
    canvas.style.width = `${(canvas.width / ratio) * scale}px`;
    canvas.style.height = `${(canvas.height / ratio) * scale}px`;
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    this.written = true;
    return new CanvasPen(context);
  }

  /** Be as large as the ground already: what stands on it is gone. */
  reserve({ width, height, ratio }: Ground): void {
    const { canvas } = this;
    [canvas.width, canvas.height] = [Math.max(canvas.width, Math.round(width * ratio)), Math.max(canvas.height, Math.round(height * ratio))];
    // Its memory is taken when something is asked of it.
    this.context.clearRect(0, 0, 1, 1);
  }

  /** Nothing stands on it any more. */
  wipe(): void {
    if (!this.written) return;
    this.written = false;
    this.context.setTransform(1, 0, 0, 1, 0, 0);
    this.context.clearRect(0, 0, this.canvas.width, this.canvas.height);
  }
}

/** When the next frame has reached the screen. */
export function afterFrame(act: () => void): void {
  requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(act)));
}
