// What is trained of the first rows: runs the stage `preview` and shows its page.

import { follow } from "./api.js";
import { el } from "./dom.js";
import { startForm } from "./start.js";

export async function preview(place, file) {
  const shown = el("div");
  let close = null;
  const watch = (begun) => {
    close = follow(`/api/runs/${encodeURIComponent(begun.run)}/live`, (state) => {
      const isAlive = ["starting", "running", "ending"].includes(state.state);
      shown.replaceChildren(
        el("p", { role: "status" }, isAlive ? "Reading, splitting and rendering the rows" : ""),
        ...state.messages.filter((one) => one.state === "failed").map((one) => el("p", { class: "caution bad" }, one.text)),
        ...(state.state === "finished" ? [el("iframe", { src: `/pages/${encodeURIComponent(begun.run)}/preview`, title: "Rows as the model reads them", class: "written", sandbox: "" })] : []),
      );
    });
  };
  place.append(el("header", { class: "top" }, el("h1", {}, "Rows as the model reads them")), startForm(file, { label: "Render five rows", stage: "preview", onstart: watch }), shown);
  return () => close?.();
}
