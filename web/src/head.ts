// The top of the page: what was looked for in what, a prompt and its answer, the figures that matter most, what to know first.

import type { Example, Model, Run } from "./data";
import { count, h, metric, on, percent, plain, plural } from "./dom";
import { type Meaning, MEANINGS, meaningOfEdges, meaningOfMetric, meaningOfRecovered, what } from "./explain";
import { recovered } from "./section";
import type { Theme } from "./theme";

export function header(model: Model, theme: Theme): HTMLElement {
  const { runs, data } = model;
  const several = runs.length > 1;
  const run = runs[0];
  const tasks = [...new Set(runs.map((one) => one.task))].join(", ");
  const models = [...new Set(runs.map((one) => one.model))].join(", ");
  const toggle = on(h("button", { type: "button", class: "quiet", id: "theme" }), { click: () => theme.toggle() });
  const say = () => (toggle.textContent = theme.dark ? "light" : "dark");
  theme.onChange(say);
  say();
  const how = several
    ? `${runs.length} runs over one graph of ${data.graph.words}`
    : `${run.method}${run.threshold === null ? "" : ` at threshold ${plain(run.threshold)}`}${narrowed(run)} on ${run.metric}, ${run.ablation} ablation, ${plural(run.examples, "prompt pair")}; ${data.graph.words}`;
  const shown = runs.find((one) => one.example)?.example ?? null;
  return h(
    "header",
    {},
    h("div", { class: "brand" }, h("h1", {}, tasks, h("span", { class: "in" }, " in "), models), h("span", { class: "maker" }, data.gallery === null ? "edgewise " : h("a", { href: data.gallery, id: "gallery" }, "all circuits"), toggle)),
    h("p", { class: "how" }, how),
    shown ? example(shown) : null,
  );
}

/** One prompt, and what is to come after it. */
function example({ clean, answers, wrong }: Example): HTMLElement {
  const words = (texts: string[]) => texts.slice(0, 3).map((text) => text.trim() || "␣").join(" · ") + (texts.length > 3 ? " …" : "");
  return h(
    "p",
    { class: "example" },
    h("span", { class: "offscreen" }, "a prompt: "),
    h("q", {}, clean),
    answers.length ? h("span", { class: "answer" }, h("span", { "aria-hidden": "true" }, "→ "), h("span", { class: "offscreen" }, "answer: "), words(answers)) : null,
    wrong.length ? h("span", { class: "not" }, `not ${words(wrong)}`) : null,
  );
}

/** What makes a search another than one pass over the whole graph. */
function narrowed(run: Run): string {
  const passes = run.slider?.kind === "trace" ? run.slider.passes.length : 1;
  return [
    run.shortlist === null ? "" : ` within ${plural(run.shortlist, "edge")}`,
    run.budget === null ? "" : `, budget ${plain(run.budget)}`,
    passes > 1 ? ` in ${passes} passes` : "",
  ].join("");
}

export function figures(model: Model): HTMLElement | null {
  if (model.runs.length > 1) return null;
  const [run] = model.runs;
  const { result } = run;
  const share = recovered(run);
  const figure = (value: string, of: string, words: string, meaning: Meaning) =>
    h("div", { class: "figure" }, h("dt", {}, words, " ", what(model, meaning)), h("dd", {}, h("strong", {}, value), of ? h("span", {}, ` ${of}`) : null));
  const list = h(
    "dl",
    { class: "figures" },
    figure(count(result.edges), `of ${count(result.of)}`, run.finished ? "edges kept" : "edges left so far", meaningOfEdges(model, run)),
    figure(metric(result.metric), `model ${metric(result.full)}, ablated ${metric(result.ablated)}`, run.metric, meaningOfMetric(run, "circuit")),
  );
  if (share !== null) list.append(figure(percent(share), "of the model's", "recovered", meaningOfRecovered(run)));
  if (run.truth) list.append(figure(count(run.truth.found), `of ${count(run.truth.edges)}`, "known edges found", MEANINGS.found), figure(percent(run.truth.point.precision), "", "precision", MEANINGS.precision));
  if (result.tests) list.append(figure(count(result.tests), result.seconds === null ? "" : `in ${result.seconds < 10 ? result.seconds.toFixed(1) : Math.round(result.seconds)} s`, "edges tested", MEANINGS.tests));
  if (result.accuracy !== null) list.append(figure(percent(result.accuracy), "of answers", "the model is right on", MEANINGS.accuracy));
  return list;
}

/** What a reader should know before believing anything: interrupted runs, what was left out, what could not be measured. */
export function notices(model: Model): HTMLElement {
  const box = h("div", { class: "notices" });
  if (model.data.graph.coupled) {
    box.append(
      h("p", { class: "notice", role: "note", id: "coupled" }, "The heads of a layer are coupled: a norm over all of them makes what one writes depend on what the others read, so an edge into one head can act through any head of its layer, and paths are followed through all of them."),
    );
  }
  for (const run of model.runs) {
    const whose = model.runs.length > 1 ? `${run.label}: ` : "";
    if (!run.finished) {
      const { stopped } = run;
      const why = stopped && stopped.why !== "interrupted" ? ` (${stopped.why})` : "";
      const how = stopped ? `${why} at ${stopped.at}, with ${count(stopped.decided)} of ${count(stopped.of)} edges decided` : "";
      box.append(h("p", { class: "notice strong", role: "note" }, `${whose}This run was interrupted${how}. Its circuit still holds every edge that it had not come to; those are drawn thin.`));
    }
    if (!run.sent) {
      box.append(h("p", { class: "notice", role: "note" }, `${whose}The circuit has ${count(run.result.edges)} edges, too many for one page; the ${count(run.in.length)} strongest are drawn.`));
    }
    for (const note of run.notes) box.append(h("p", { class: "notice", role: "note" }, whose + note));
  }
  return box;
}
