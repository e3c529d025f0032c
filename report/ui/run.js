// One run as it happens: stages as cards, curves, messages, logs; stop and go on.

import { follow, get, post, text } from "./api.js";
import { button, command, duration, el, fault, link, pager, say, settingsOf, size, table, tabs, visible } from "./dom.js";
import { chart } from "./chart.js";
import { startForm } from "./start.js";

const CHAIN = ["data", "model", "plan", "pilot", "train", "package", "evaluate", "deploy", "report"];
const WORDS = {
  none: "not run yet", starting: "starting", ending: "ending", running: "running", finished: "finished", failed: "failed", stopped: "stopped", killed: "killed",
  waiting: "waiting", begun: "begun", done: "done",
};
const PAGES = { report: "The report", pilot: "The pilot", preview: "Rows as the model reads them" };

export async function run(place, name) {
  const path = `/api/runs/${encodeURIComponent(name)}`;
  let about = await get(path);
  const parts = Object.fromEntries(["tabs", "verdict", "controls", "stages", "curves", "messages", "experiments", "log"].map((key) => [key, el("div", { class: `part-${key}` })]));
  place.append(el("header", { class: "top" }, el("h1", {}, name), parts.tabs, parts.verdict), parts.controls, parts.stages, parts.curves, parts.messages, parts.experiments, parts.log);
  let last = null;
  let before = "";
  const openLog = async (log) => {
    const shown = log ? await text(`${path}/log?path=${encodeURIComponent(log)}`) : await text(`${path}/output`);
    parts.log.replaceChildren(el("section", { aria_label: "Log" }, el("h2", {}, log || "What snakemake printed"), el("pre", { class: "log", tabindex: "0" }, visible(shown) || "(empty)")));
    parts.log.scrollIntoView({ block: "start" });
  };
  const draw = async (state) => {
    last = state;
    if (state.state !== before) {
      if (before) say(`${name}: ${WORDS[state.state] ?? state.state}`);
      before = state.state;
      about = await get(path);
      parts.tabs.replaceChildren(...(about.pages.includes("report") ? [tabs(name, "run")] : []));
      parts.controls.replaceChildren(...controls(about, state).filter(Boolean));
      parts.experiments.replaceChildren();
      if (about.experiments > 1) await experiments(parts.experiments, path, 0);
    }
    parts.verdict.replaceChildren(head(state));
    parts.stages.replaceChildren(chain(state, openLog));
    parts.curves.replaceChildren(...state.curves.map(chart).filter(Boolean).reverse());
    parts.messages.replaceChildren(...messages(state, openLog));
  };
  const offline = el("p", { class: "caution", hidden: true }, "The server does not answer; the run itself may go on. This page comes back by itself.");
  place.prepend(offline);
  const close = follow(`${path}/live`, draw, (is) => (offline.hidden = is));
  const ticking = setInterval(() => {
    if (last?.state === "running") parts.verdict.replaceChildren(head(last));
  }, 1000);
  return () => {
    close();
    clearInterval(ticking);
  };
}

function head(state) {
  const seconds = state.started ? (state.ended || Date.now() / 1000) - state.started : 0;
  const counted = state.planned ? `${state.finished} of ${state.planned} steps` : "";
  return el(
    "p",
    { class: "lede" },
    el("span", { class: `status state-${state.state}`, data_state: state.state }, WORDS[state.state] ?? state.state),
    " ",
    [counted, seconds ? duration(seconds) : ""].filter(Boolean).join(", "),
  );
}

function controls(about, state) {
  const isAlive = ["starting", "running", "ending"].includes(state.state);
  const place = el("div");
  const stop = async (event) => {
    event.target.disabled = true;
    try {
      await post("/api/stop", { run: about.run });
      say("Stopping: the step saves what it can.");
    } catch (error) {
      place.replaceChildren(fault(error.fault));
    }
  };
  const links = el("p", { class: "links" }, about.pages.map((page) => link(PAGES[page], `/pages/${encodeURIComponent(about.run)}/${page}`, { target: "_blank", rel: "noopener" })),
    about.configuration ? link("Its settings", settingsOf(about.configuration)) : null);
  if (isAlive) return [links, state.state === "ending" ? null : el("div", { class: "filters" }, button("Stop", stop, { class: "stop" })), command(about.stop_command, "As a command (what Ctrl-C sends)"), place];
  if (about.configuration) return [links, startForm(about.configuration, { label: state.state === "none" ? "Start" : state.state === "finished" ? "Run again what is stale" : "Go on" })];
  return [links, el("p", { class: "note" }, "Its configuration is no longer in this folder."), command(state.command)];
}

function chain(state, openLog) {
  const known = new Map(state.stages.map((stage) => [stage.name, stage]));
  const names = [...CHAIN.filter((name) => known.has(name)), ...[...known.keys()].filter((name) => !CHAIN.includes(name))];
  if (!names.length) return el("p", { class: "absent" }, state.state === "starting" ? "snakemake reads the rules." : "Nothing was run yet.");
  return el("ol", { class: "chain", aria_label: "Stages" }, names.map((name) => stageCard(known.get(name), openLog)));
}

function stageCard(stage, openLog) {
  const share = stage.planned ? stage.finished / stage.planned : 0;
  return el(
    "li",
    { class: `card stage ${stage.state}`, data_stage: stage.name, data_state: stage.state },
    el("h2", {}, stage.name, el("small", {}, WORDS[stage.state] ?? stage.state)),
    stage.planned > 1 ? el("progress", { max: 1, value: share, aria_label: `${stage.finished} of ${stage.planned} steps of ${stage.name}` }) : null,
    el("p", { class: "note" }, [stage.planned ? `${stage.finished} of ${stage.planned} steps` : "", stage.seconds ? duration(stage.seconds) : ""].filter(Boolean).join(", ")),
    stage.result ? el("p", {}, visible(stage.result)) : null,
    stage.failed.length ? el("p", { class: "no" }, `failed: ${visible(stage.failed.join(", "))}`) : null,
    stage.jobs.map((job) => jobLine(job, openLog)),
    stage.more_jobs ? el("p", { class: "note" }, `and ${stage.more_jobs.toLocaleString("en")} more at work`) : null,
  );
}

function jobLine(job, openLog) {
  const seen = job.progress ?? {};
  const numbers = [
    job.text,
    seen.memory_bytes ? `${size(seen.memory_bytes)} of memory` : "",
  ].filter(Boolean);
  return el(
    "div",
    { class: "job" },
    el("strong", {}, visible(job.name)),
    seen.total ? el("progress", { max: seen.total, value: seen.done, aria_label: `${job.name}: ${seen.done} of ${seen.total}` }) : null,
    el("p", {}, visible(numbers.join(", "))),
    job.log ? button("Log", () => openLog(job.log), { class: "small" }) : null,
  );
}

function messages(state, openLog) {
  if (!state.messages.length && state.state === "none") return [];
  const shown = [...state.messages].reverse();
  return [
    el("section", { aria_label: "Messages" },
      el("h2", {}, "Messages"),
      shown.map((one) => el("div", { class: one.state === "failed" ? "caution bad" : one.state === "warning" ? "caution" : "hint" }, el("pre", {}, visible(one.text)), one.log ? button("Log", () => openLog(one.log), { class: "small" }) : null)),
      button("What snakemake printed", () => openLog("")),
    ),
  ];
}

async function experiments(place, path, offset) {
  const found = await get(`${path}/experiments?offset=${offset}&limit=25`);
  if (!found.total) return;
  const rows = found.experiments.map((one) =>
    el("tr", { class: one.experiment === found.chosen ? "us" : "" }, el("th", { scope: "row" }, one.experiment),
      el("td", { class: "n" }, one.validation_loss === null ? "" : one.validation_loss.toFixed(4)), el("td", { class: "n" }, String(one.steps)),
      el("td", {}, visible(Object.entries(one.settings).map(([key, value]) => `${key}: ${JSON.stringify(value)}`).join(", ")))));
  place.replaceChildren(
    el("section", { aria_label: "Experiments" }, el("h2", {}, "Experiments"),
      table(["experiment", "validation loss", "steps", "settings"], rows, "The best first"),
      pager(found.total, offset, 25, (next) => experiments(place, path, next))),
  );
}
