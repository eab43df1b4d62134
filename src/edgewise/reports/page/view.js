// The page of a run inside a notebook, as anywidget asks for it: a frame that can do nothing to the notebook, and what it
// says of what is chosen, kept in the model. Messages from anywhere else are not heard.
function render({ model, el }) {
  const frame = document.createElement("iframe");
  frame.setAttribute("sandbox", model.get("sandbox"));
  frame.title = "the page of a run";
  frame.style.cssText = `width:100%;height:${model.get("height")}px;border:0;background:white`;
  frame.srcdoc = model.get("html");
  const hear = (event) => {
    if (event.source !== frame.contentWindow || event.data?.edgewise !== "selected") return;
    const name = event.data.name;
    model.set("selected", typeof name === "string" ? name : null);
    model.save_changes();
  };
  addEventListener("message", hear);
  el.append(frame);
  return () => removeEventListener("message", hear);
}

export default { render };
