// Start a configuration, or go on with it; and what happens to the run when this server ends.

import { post } from "./api.js";
import { button, command, el, fault } from "./dom.js";

const STAGES = ["data", "plan", "pilot", "train", "package", "evaluate", "report"];

export function startForm(file, { label = "Start", onstart = null, stage: only = "" } = {}) {
  const stages = only ? [[only, `the stage ${only}`]] : [["", "up to the report"], ...STAGES.slice(0, -1).map((name) => [name, `up to ${name}`])];
  const stage = el("select", {}, stages.map(([value, title]) => el("option", { value }, title)));
  const tied = el("input", { type: "checkbox" });
  const place = el("div");
  const shown = el("div");
  const words = () => ["snakemake", stage.value, file === "config.yaml" ? "" : `--configfile ${file}`].filter(Boolean).join(" ");
  const draw = () => shown.replaceChildren(command(words()));
  const start = async () => {
    place.replaceChildren();
    try {
      const begun = await post("/api/start", { configuration: file, stage: stage.value, ending: tied.checked ? "stop" : "keep" });
      if (onstart) onstart(begun);
      else location.hash = `#/run/${encodeURIComponent(begun.run)}`;
    } catch (error) {
      place.replaceChildren(fault(error.fault));
    }
  };
  stage.addEventListener("change", draw);
  draw();
  return el(
    "div",
    { class: "start" },
    el(
      "div",
      { class: "filters" },
      only ? null : el("label", {}, "How far", stage),
      el("label", { class: "check" }, tied, " stop it when this server ends"),
      button(label, start, { class: "primary" }),
    ),
    place,
    shown,
  );
}
