// All runs with verdicts and scores, what was not run yet, and the versions compared.

import { get } from "./api.js";
import { button, command, el, fault, link, pager, settingsOf, table, visible } from "./dom.js";
import { startForm } from "./start.js";

const AGAIN = 3000; // milliseconds until the list is looked at again: a run may begin and end on the terminal
const STATES = { running: "running", finished: "finished", failed: "failed", stopped: "stopped", killed: "killed", none: "" };
const VERDICTS = { better: "better", worse: "worse", mixed: "mixed", same: "no difference shown", unknown: "unknown", "no-go": "no-go" };

export async function runs(place) {
  const parts = Object.fromEntries(["offline", "list", "fresh", "compared"].map((key) => [key, el("div", { class: `part-${key}` })]));
  place.append(el("header", { class: "top" }, el("h1", {}, "Runs")), ...Object.values(parts));
  const drawn = {};
  const draw = (key, value, make) => {
    const is = JSON.stringify(value);
    if (drawn[key] === is) return; // what one is about to press stays where it is
    drawn[key] = is;
    parts[key].replaceChildren(...make().filter(Boolean));
  };
  let at = 0;
  const show = async (offset) => {
    at = offset;
    const found = await get(`/api/runs?offset=${offset}&limit=50`);
    if (at !== offset) return;
    draw("list", [found.runs, found.total, offset], () => [
      found.total ? cards(found.runs) : el("p", { class: "absent" }, "Nothing was run here yet. The demo below needs nothing but this machine."),
      pager(found.total, offset, 50, show),
    ]);
    draw("fresh", found.new, () => [Object.keys(found.new).length ? fresh(found.new) : null]);
    draw("compared", found.runs.filter((one) => one.has_report).length > 1, () => [found.runs.filter((one) => one.has_report).length > 1 ? comparison() : null]);
  };
  const look = async () => {
    if (document.hidden) return;
    try {
      await show(at);
      parts.offline.replaceChildren();
    } catch (error) {
      if (!error.fault) throw error;
      parts.offline.replaceChildren(fault(error.fault));
    }
  };
  await show(0);
  const ticking = setInterval(look, AGAIN);
  return () => clearInterval(ticking);
}

function comparison() {
  const place = el("section", { aria_label: "Versions compared" }, el("h2", {}, "Versions compared"));
  place.append(button("Compare the latest runs", (event) => compare(event.target, place)));
  return place;
}

const cards = (found) => el("ul", { class: "cards" }, found.map(card));

function card(found) {
  const scores = found.scores.map((one) => el("div", {}, el("dt", {}, one.label), el("dd", {}, one.value, one.interval ? el("small", {}, one.interval) : null)));
  return el(
    "li",
    { class: "card", data_run: found.run },
    el("h2", {}, link(found.run, `#/run/${encodeURIComponent(found.run)}`)),
    STATES[found.state] ? el("span", { class: `status state-${found.state}` }, STATES[found.state]) : null,
    found.status ? el("span", { class: `status ${found.status}` }, VERDICTS[found.status] ?? found.status) : null,
    found.sentence ? el("p", {}, visible(found.sentence)) : null,
    scores.length ? el("dl", { class: "scores" }, scores) : null,
  );
}

function fresh(configurations) {
  return el(
    "section",
    {},
    el("h2", {}, "Not run yet"),
    el("ul", { class: "cards" }, Object.entries(configurations).map(([file, name]) => el("li", { class: "card", data_file: file }, el("h3", {}, name || file), el("p", { class: "note" }, link(file, settingsOf(file))), startForm(file)))),
  );
}

async function compare(pressed, place) {
  pressed.disabled = true;
  pressed.textContent = "Comparing";
  try {
    const found = await get("/api/comparison");
    const pairs = [...found.comparisons].reverse();
    place.append(
      ...pairs.map((pair) =>
        el(
          "article",
          { class: "card" },
          el("h3", {}, `${pair.run} and ${pair.baseline}`),
          el("span", { class: `status ${pair.status}` }, VERDICTS[pair.status] ?? pair.status),
          el("p", {}, visible(pair.sentence)),
          el("p", { class: "note" }, `${pair.rows} test rows of both; rows: ${pair.data.added} added, ${pair.data.removed} removed, ${pair.data.moved} in another split.`),
        ),
      ),
      settings(found),
      command("snakemake runs", "As a command, into results/runs.html"),
    );
    pressed.remove();
  } catch (error) {
    pressed.replaceWith(fault(error.fault));
  }
}

function settings(found) {
  if (!found.settings.length) return "";
  const names = found.runs.map((one) => one.run);
  const rows = found.settings.slice(0, 40).map((one) =>
    el("tr", {}, el("th", { scope: "row" }, one.key), names.map((name) => el("td", {}, visible(shortened(one.values[name]))))),
  );
  return table(["setting", ...names], rows, "Settings that differ");
}

function shortened(value) {
  if (Array.isArray(value) && value.length && value.every((one) => one?.path || one?.hub)) return value.map((one) => one.path ?? one.hub).join(", "); // sources of rows
  const text = value === null || value === undefined ? "" : typeof value === "string" ? value : JSON.stringify(value);
  return text.length > 120 ? `${text.slice(0, 117)}...` : text;
}
