// The rows of a configuration: what becomes of each, how they are split, and what is the same in two places.

import { get, post } from "./api.js";
import { command, el, fault, pager, table, visible } from "./dom.js";

const KINDS = [["all", "all"], ["kept", "kept"], ["rejected", "rejected"], ["duplicate", "the same, or nearly, as another"]];
const LIMIT = 25;

export async function rowsOf(place, values, counted) {
  place.replaceChildren(el("p", { role: "status" }, "Reading the rows"));
  try {
    let found = await post("/api/checks", { values: values() });
    while (found.state === "running" && place.isConnected) {
      await new Promise((ready) => setTimeout(ready, 400));
      found = await get(`/api/checks/${found.key}`);
    }
    if (found.state === "broken") place.replaceChildren(el("p", { class: "caution bad" }, "The check broke off."), el("pre", { class: "log" }, visible(found.traceback)));
    else if (found.state === "done") show(place, found, counted, values);
  } catch (error) {
    if (!error.fault) throw error;
    place.replaceChildren(fault(error.fault));
  }
}

function show(place, found, counted, values) {
  const counts = found.result.rows;
  const total = counts.kept + counts.rejected + counts.duplicate;
  const list = el("div");
  const kind = el("select", { id: "verdict" }, KINDS.map(([name, title]) => el("option", { value: name }, name === "all" ? `all ${total.toLocaleString("en")}` : `${title}: ${counts[name].toLocaleString("en")}`)));
  const page = async (offset) => {
    const rows = await get(`/api/checks/${found.key}/rows?verdict=${kind.value}&offset=${offset}&limit=${LIMIT}`);
    list.replaceChildren(...[table(["row", "verdict", "text"], rows.rows.map(row)), pager(rows.total, offset, LIMIT, page)].filter(Boolean));
  };
  kind.addEventListener("change", () => page(0));
  kind.value = counts.rejected ? "rejected" : "all";
  const split = found.split?.rows;
  if (split) counted(split.train);
  place.replaceChildren(
    ...[
      found.result.fault ? fault(found.result.fault) : null,
      picture(counts, total),
      split ? el("p", {}, `Splits: ${split.train.toLocaleString("en")} train, ${split.valid.toLocaleString("en")} valid, ${split.test.toLocaleString("en")} test.`) : null,
      ...(found.split?.warnings ?? []).map((text) => el("p", { class: "caution" }, visible(text))),
      ...(found.report?.advice ?? []).map((text) => el("p", { class: "hint" }, visible(text))),
      leaks(found.leaks),
      duplicates(found.report),
      el("div", { class: "filters" }, el("label", {}, "Rows", kind)),
      list,
      command(`snakemake data --configfile ${values().run || "mine"}.yaml`, "The same steps as a command, once it is saved"),
    ].filter(Boolean),
  );
  page(0);
}

function picture(counts, total) {
  const parts = [["kept", "--accent"], ["rejected", "--bad"], ["duplicate", "--series-7"]].filter(([name]) => counts[name]);
  const words = parts.map(([name]) => `${counts[name].toLocaleString("en")} ${name}`).join(", ");
  const bar = el("div", { class: "flow", role: "img", aria_label: words }, parts.map(([name]) => {
    const part = el("span", { class: `flow-${name}` });
    part.style.flexGrow = String(counts[name] / Math.max(1, total));
    return part;
  }));
  return el("div", {}, bar, el("ul", { class: "keys" }, parts.map(([name]) => el("li", {}, el("i", { class: `flow-${name}` }), `${counts[name].toLocaleString("en")} ${name}`))));
}

function leaks(found) {
  if (!found) return null;
  if (!found.pairs) return el("p", { class: "hint" }, "No row of one split answers a question of another.");
  const rows = found.listed.map((pair) => el("tr", {}, el("td", {}, pair.why), pair.rows.map((one) => el("td", {}, `${visible(one.row)} (${one.split})`))));
  return el("details", { open: true }, el("summary", {}, `${found.pairs.toLocaleString("en")} pairs of rows belong together and stand in different splits`), table(["why", "row", "and"], rows));
}

function duplicates(report) {
  const pairs = [...(report?.duplicate_examples ?? []), ...(report?.near_duplicate_examples ?? [])];
  if (!pairs.length) return null;
  return el("details", {}, el("summary", {}, "Rows that are left out because they repeat others"), table(["left out", "kept"], pairs.map((pair) => el("tr", {}, pair.map((where) => el("td", {}, visible(where)))))));
}

function row(one) {
  const why = one.verdict === "rejected" ? `${one.reason}: ${one.detail}` : one.split;
  return el("tr", { class: `row-${one.verdict}` }, el("th", { scope: "row" }, el("bdi", { class: "raw" }, `${visible(one.source)}:${one.line}`)), el("td", { class: one.verdict === "rejected" ? "no" : "" }, one.verdict, why ? el("small", { class: "why" }, visible(why)) : null), el("td", {}, el("bdi", { class: "raw" }, visible(one.text))));
}
