// Files that the page gives: pictures of the graph, groups.

import { h } from "./dom";

export function save(name: string, data: Blob): void {
  const url = URL.createObjectURL(data);
  const link = h("a", { href: url, download: name, hidden: true });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

export async function savePng(name: string, canvas: HTMLCanvasElement): Promise<void> {
  const data = await new Promise<Blob | null>((done) => canvas.toBlob(done, "image/png"));
  if (data) save(name, data);
}

/** A name for a file: without what no system allows in one. */
export function fileName(words: string[], ending: string): string {
  return `${words.join("-").replace(/[^\p{L}\p{N}._-]+/gu, "-").slice(0, 80)}.${ending}`;
}

/** Text to the clipboard; whether it got there. */
export async function copied(text: string): Promise<boolean> {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const field = h("textarea", { class: "offscreen", "aria-hidden": "true" });
    field.value = text;
    document.body.append(field);
    field.select();
    const done = document.execCommand("copy");
    field.remove();
    return done;
  }
}
