// A browser starts no worker from a page on disk, and the search of the docs is one. There, an invisible frame is made in
// its place: the worker's script in it takes messages and answers as it would in a worker.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      this.onmessage = null;
      const waiting = [];
      const name = `worker-${Math.random()}`;
      const frame = document.createElement("iframe");
      frame.hidden = true;
      frame.srcdoc =
        `<script>self.postMessage = (data) => parent.postMessage({ worker: "${name}", data }, "*");</` +
        `script><script src="${url}"></` +
        `script>`;
      this.postMessage = (data) => waiting.push(data);
      frame.addEventListener("load", () => {
        this.postMessage = (data) => frame.contentWindow.dispatchEvent(new MessageEvent("message", { data }));
        for (const data of waiting) this.postMessage(data);
      });
      addEventListener("message", ({ data }) => {
        if (data?.worker !== name) return;
        const event = new MessageEvent("message", { data: data.data });
        this.dispatchEvent(event);
        this.onmessage?.(event);
      });
      const start = () => document.body.append(frame);
      document.body ? start() : addEventListener("DOMContentLoaded", start);
    }
    terminate() {}
  };
}
