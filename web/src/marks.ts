// What the graph library is told about single nodes and edges: a head's marks, and the way of an edge.

import type { Box } from "./data";
import type { Route } from "./routes";
import type { Palette } from "./theme";

/** The marks as a picture: the letters of a head's inputs, large where edges lead in. */
export function tabs(wanted: string, width: number, height: number, palette: Palette): string {
  const marks = [...wanted].flatMap((letter, at) => {
    if (letter === "-") return [];
    const kind = letter.toLowerCase() as "q" | "k" | "v";
    const full = letter !== kind;
    const x = width / 2 + (at - 1) * 16;
    const y = height - 12.5;
    const ink = full ? (kind === "k" ? "#1a1a1a" : palette.page) : palette.ink;
    const fill = full ? palette.kinds[kind] : palette.box;
    return [
      `<rect x="${x - 6.5}" y="${y}" width="13" height="10.5" rx="2.5" fill="${fill}" stroke="${palette.kinds[kind]}"/>`,
      `<text x="${x}" y="${y + 8.2}" font-size="9" font-weight="600" font-family="sans-serif" text-anchor="middle" fill="${ink}">${kind}</text>`,
    ];
  });
  const picture = `<svg xmlns="http://www.w3.org/2000/svg" width="${width * 4}" height="${height * 4}" viewBox="0 0 ${width} ${height}">${marks.join("")}</svg>`;
  return `data:image/svg+xml;utf8,${encodeURIComponent(picture)}`;
}

/** A route in the words of the library: end points from the nodes' middles, and points beside the line between them. */
export function bends(route: Route, from: Box, to: Box) {
  const { ends, weights, distances } = beside(route, from, to);
  return { ...ends, "control-point-weights": weights, "control-point-distances": distances };
}

/** The same for a line of straight parts with these corners, the first and the last at the nodes. */
export function segments(corners: [x: number, y: number][], from: Box, to: Box) {
  const { ends, weights, distances } = beside({ source: corners[0], target: corners.at(-1)!, through: corners.slice(1, -1) }, from, to);
  return { ...ends, "segment-weights": weights, "segment-distances": distances };
}

function beside(route: Route, from: Box, to: Box) {
  const [sx, sy] = route.source;
  const [tx, ty] = route.target;
  const dx = tx - sx;
  const dy = ty - sy;
  const length = Math.hypot(dx, dy) || 1;
  return {
    ends: {
      "source-endpoint": `${sx - from[0]}px ${sy - from[1]}px`,
      "target-endpoint": `${tx - to[0]}px ${ty - to[1]}px`,
    },
    weights: route.through.map(([x, y]) => ((x - sx) * dx + (y - sy) * dy) / length ** 2),
    distances: route.through.map(([x, y]) => ((y - sy) * dx - (x - sx) * dy) / length),
  };
}
