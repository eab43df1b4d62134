// What a number means: of what it is, how it was computed, and where to read more. At the number, for mouse and keys.

import type { Model, Run } from "./data";
import { h, metric, on, percent, plain } from "./dom";
import { recovered } from "./section";

export interface Meaning {
  /** What it is called in "what is …?" */
  of: string;
  text: string;
  /** The page of the documentation. */
  page?: string;
}

const METRICS: Record<string, string> = {
  kl_div: "How far the answers of the circuit are from the model's: the Kullback-Leibler divergence of the two distributions over next tokens, in nats, at the scored places. 0 is the model itself.",
  logit_diff: "The logit of the right answer less that of the wrong one (means, where there are several), at the scored places. Higher is better.",
  logit_diff_max: "The largest logit of the right answers less the largest of the wrong ones, at the scored places. Higher is better.",
  log_prob_diff: "The log probability of the right answers less that of the wrong ones, in nats. Higher is better.",
  prob_diff: "The probability of the right answers less that of the wrong ones. Higher is better.",
  frac_correct: "The share of prompts on which the right answer is above the wrong ones.",
  nll: "The negative log-likelihood of the right answers, in nats. Lower is better.",
  match_nll: "How much more surprised the circuit is by the right answers than the model, in nats. Lower is better.",
  l2: "The mean squared difference of the circuit's logits from the model's. 0 is the model itself.",
};

export function meaningOfMetric(run: Run, what: "circuit" | "ablated"): Meaning {
  const own = METRICS[run.metric] ?? "The run's own metric, as it was given.";
  const of = what === "circuit" ? "the circuit alone, every other edge carrying the ablation" : "the model with every edge ablated";
  return {
    of: run.metric,
    text: `${own} This is its mean over ${run.examples} prompt pairs for ${of} (${run.ablation} ablation)${what === "circuit" ? `; the whole model has ${metric(run.result.full)}, with every edge ablated ${metric(run.result.ablated)}` : ""}.`,
    page: "evaluation",
  };
}

export function meaningOfRecovered(run: Run): Meaning {
  const { metric: own, full, ablated } = run.result;
  const share = recovered(run);
  return {
    of: "recovered",
    text: `How far the circuit comes from the run with every edge ablated (0%) to the whole model (100%), in ${run.metric}: (${metric(own)} − ${metric(ablated)}) / (${metric(full)} − ${metric(ablated)}) = ${share === null ? "–" : percent(share)}. It can lie below 0% or above 100%.`,
    page: "evaluation",
  };
}

export function meaningOfEdges(model: Model, run: Run): Meaning {
  const ports = model.data.graph.ports ? " A port edge (whether a head has its query, key or value at all) counts as one." : "";
  return {
    of: "edges",
    text: `Edges of the circuit, of all ${model.data.graph.edges.toLocaleString("en")} from what one component writes to what a later one reads (${model.data.graph.words}).${ports}${run.result.connected !== null && run.result.connected < run.result.edges ? ` ${run.result.connected.toLocaleString("en")} of them lie on a path from the embedding to the logits.` : ""}`,
    page: "units",
  };
}

export function meaningOfWeight(run: Run): Meaning {
  if (run.scores) {
    return {
      of: "score",
      text: `What ${run.method} says each edge is worth: its estimate of how much ${run.metric} would change if this edge alone carried the ablation, over the prompts. The sign says in which direction; strength is its size.`,
      page: "methods",
    };
  }
  return {
    of: "effect",
    text: `The ${run.higher ? "fall" : "rise"} of ${run.metric} when the search removed this edge, with what was left of the circuit at that moment${run.threshold === null ? "" : `. Edges below the threshold, ${plain(run.threshold)}, were removed for good`}.`,
    page: "methods",
  };
}

export const MEANINGS: Record<string, Meaning> = {
  tests: { of: "edges tested", text: "How many edges the search removed to see what the metric does, and how long it took in all. Edges into what nothing reads any more fall without a test.", page: "methods" },
  accuracy: { of: "the model's answers", text: "On how many of the prompts the whole model puts the right answer above the wrong ones. Where it is low, there is no behaviour to explain.", page: "tasks" },
  found: { of: "known edges found", text: "Edges that are both in the circuit and in the one that people worked out: true positives, of all edges of the known circuit.", page: "evaluation" },
  precision: { of: "precision", text: "Of the circuit's edges, the share that the known circuit has too.", page: "evaluation" },
  tpr: { of: "true positive rate", text: "Of the known circuit's edges, the share that was found.", page: "evaluation" },
  fpr: { of: "false positive rate", text: "Of the edges that the known circuit does not have, the share that the circuit has.", page: "evaluation" },
  jaccard: { of: "shared edges", text: "Edges that both circuits have, as a share of those that either has (Jaccard index): 1 is the same circuit, 0 nothing in common.", page: "evaluation" },
  own: { of: "only here", text: "Edges of this circuit that no other run of this page has. Choose it above the graph to see them alone.", page: "report" },
  spread: { of: "prompt by prompt", text: "The metric on each prompt alone; the mean over all of them is the number at the top of the page.", page: "evaluation" },
};

/** A button after a number, which opens what the number means. */
export function what(model: Model, meaning: Meaning): HTMLElement {
  const name = `what is “${meaning.of}”?`;
  const button = h("button", { type: "button", class: "what", "aria-expanded": "false", "aria-label": name, title: name }, "?");
  const close = () => {
    opened?.note.remove();
    opened?.button.setAttribute("aria-expanded", "false");
    opened = null;
  };
  return on(button, {
    click: (event) => {
      event.stopPropagation();
      const again = opened?.button === button;
      close();
      if (again) return;
      const note = h("span", { class: "meaning", role: "note" }, meaning.text, ...more(model, meaning));
      button.after(note);
      button.setAttribute("aria-expanded", "true");
      place(note, button);
      opened = { button, note, close };
    },
  });
}

let opened: { button: HTMLElement; note: HTMLElement; close(): void } | null = null;

addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || !opened) return;
  const { button, close } = opened;
  event.stopImmediatePropagation();
  close();
  button.focus();
}, { capture: true });
addEventListener("click", (event) => {
  if (opened && !(event.target instanceof Node && opened.note.contains(event.target))) opened.close();
});

addEventListener("scroll", () => opened?.close(), { capture: true, passive: true });

/** Under the button, or above it where there is no room, and within the window. */
function place(note: HTMLElement, button: HTMLElement): void {
  const at = button.getBoundingClientRect();
  const width = Math.min(330, innerWidth - 24);
  note.style.width = `${width}px`;
  note.style.left = `${Math.max(12, Math.min(at.left - 20, innerWidth - width - 12))}px`;
  const below = at.bottom + 6;
  const height = note.offsetHeight;
  note.style.top = `${below + height > innerHeight && at.top > height + 12 ? at.top - height - 6 : below}px`;
}

function more(model: Model, { page }: Meaning): (Node | string)[] {
  if (!page) return [];
  const { docs } = model.data;
  if (docs === null || !/^https:\/\//.test(docs)) return [h("span", { class: "more" }, `More in edgewise's documentation: docs/${page}.md`)];
  return [h("a", { class: "more", href: `${docs.replace(/\/$/, "")}/${page}/`, rel: "noreferrer" }, `More: ${page}`)];
}
