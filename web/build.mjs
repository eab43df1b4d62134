// Bundles the page into the Python package, where `edgewise report` fills it in.
import { build } from "esbuild";
import { copyFile, mkdir } from "node:fs/promises";

const built = new URL("../src/edgewise/reports/page/built/", import.meta.url);
const at = (name) => new URL(name, built).pathname;
const common = { bundle: true, minify: !process.argv.includes("--plain"), charset: "utf8", logLevel: "warning", absWorkingDir: import.meta.dirname };

await mkdir(built, { recursive: true });
await build({
  ...common,
  entryPoints: ["src/main.ts"],
  outfile: at("page.js"),
  format: "iife",
  target: "es2022",
  legalComments: "eof",
  banner: { js: "/*! The graph is drawn by Cytoscape.js, (c) The Cytoscape Consortium, MIT licence. */" },
});
await build({ ...common, entryPoints: ["src/page.css"], outfile: at("page.css") });
await copyFile(new URL("src/template.html", import.meta.url), new URL("template.html", built));
