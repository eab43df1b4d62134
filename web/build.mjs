// Bundles the page into the Python package, where `edgewise report` fills it in.
//   --out=FOLDER   into another folder
//   --plain        readable, for a profiler
import { build } from "esbuild";
import { copyFile, mkdir } from "node:fs/promises";
import { join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

const asked = process.argv.find((word) => word.startsWith("--out="))?.slice("--out=".length);
const built = asked ? resolve(asked) : fileURLToPath(new URL("../src/edgewise/reports/page/built", import.meta.url));
const at = (name) => join(built, name);
const common = { bundle: true, minify: !process.argv.includes("--plain"), charset: "utf8", logLevel: "warning", absWorkingDir: import.meta.dirname };

await mkdir(built, { recursive: true });
await build({
  ...common,
  entryPoints: ["src/main.ts"],
  outfile: at("page.js"),
  format: "iife",
  target: "es2022",
});
await build({ ...common, entryPoints: ["src/page.css"], outfile: at("page.css") });
await copyFile(new URL("src/template.html", import.meta.url), at("template.html"));
