// The blind form: two answers without names, or one to rate; each vote is saved as it is given.

import { get, post } from "./api.js";
import { button, command, el, fault, say, table, tabs, words } from "./dom.js";

const KEY = "snaketune-judge"; // only the name of the judge is kept in the browser
const CHOICES = { ArrowLeft: "left", ArrowRight: "right", ArrowDown: "tie", 1: "left", 2: "tie", 3: "right" };

export async function judge(place, run) {
  const path = `/api/judge/${encodeURIComponent(run)}`;
  const name = el("input", { type: "text", id: "rater", maxlength: "60", autocomplete: "off", value: localStorage.getItem(KEY) ?? "" });
  const form = el("div");
  const result = el("div", { class: "part-result-of-judges" });
  let leave = null;
  const begin = async () => {
    leave?.();
    if (!name.value.trim()) return form.replaceChildren(el("p", { class: "absent" }, "Enter your name or initials to begin."));
    localStorage.setItem(KEY, name.value.trim());
    try {
      leave = draw(form, path, await get(`${path}?rater=${encodeURIComponent(name.value.trim())}`));
    } catch (error) {
      if (!error.fault) throw error;
      form.replaceChildren(fault(error.fault));
    }
  };
  const tell = async () => result.replaceChildren(...told(await get(`${path}/result`)));
  name.addEventListener("change", begin);
  place.append(
    el("header", { class: "top" }, el("h1", {}, `Judge ${run}`), tabs(run, "judge"), el("p", { class: "lede" }, "Two models answered the same test questions. You see their answers without names and in a random order; each vote is saved as you give it.")),
    el("div", { class: "controls" }, el("label", {}, "Your name or initials", name), button("Begin", begin), button("Show the result", tell, { id: "show-result" })),
    form, result,
  );
  if (name.value) await begin();
  return () => leave?.();
}

function draw(place, path, given) {
  if (!given.items.length) {
    place.replaceChildren(el("p", { class: "absent" }, "There are no two differing answers to judge in this run."));
    return null;
  }
  const chosen = new Map(given.preferences.map((one) => [one.id, one]));
  const rated = new Map(given.ratings.map((one) => [`${one.side} ${one.id}`, one]));
  const rateTasks = given.items.flatMap((item) => ["left", "right"].map((side) => ({ item, side })));
  const state = { mode: "compare", at: Math.max(0, given.items.findIndex((item) => !chosen.has(item.id))), line: 0, entry: {} };
  const trouble = el("div");

  const save = async (vote) => {
    try {
      await post(`${path}/vote`, { rater: given.rater, ...vote });
      trouble.replaceChildren();
    } catch (error) {
      if (!error.fault) throw error;
      trouble.replaceChildren(fault(error.fault));
      throw error;
    }
  };
  const comment = () => place.querySelector("textarea")?.value ?? "";
  const choose = async (choice) => {
    const item = given.items[state.at];
    const entry = { id: item.id, choice, comment: comment() };
    await save({ preference: entry });
    chosen.set(item.id, entry);
    if (state.at < given.items.length - 1) state.at += 1;
    show();
  };
  const rate = async (value) => {
    const { item, side } = rateTasks[state.at];
    state.entry[given.criteria[state.line]] = value;
    if (state.line < given.criteria.length - 1) state.line += 1;
    else {
      const entry = { id: item.id, side, ...state.entry, comment: comment() };
      await save({ rating: entry });
      rated.set(`${side} ${item.id}`, entry);
      state.entry = {};
      state.line = 0;
      if (state.at < rateTasks.length - 1) state.at += 1;
    }
    show();
  };
  const move = (by) => {
    const count = state.mode === "compare" ? given.items.length : rateTasks.length;
    state.at = Math.min(Math.max(0, state.at + by), count - 1);
    state.line = 0;
    state.entry = {};
    show();
  };
  const mode = (name) => {
    state.mode = name;
    const open = name === "compare" ? given.items.findIndex((item) => !chosen.has(item.id)) : rateTasks.findIndex(({ item, side }) => !rated.has(`${side} ${item.id}`));
    state.at = Math.max(0, open);
    state.line = 0;
    state.entry = {};
    show();
  };

  function show() {
    const isComparing = state.mode === "compare";
    const task = isComparing ? { item: given.items[state.at], sides: ["left", "right"] } : { item: rateTasks[state.at].item, sides: [rateTasks[state.at].side] };
    const count = isComparing ? given.items.length : rateTasks.length;
    const done = isComparing ? chosen.size : rated.size;
    const before = isComparing ? chosen.get(task.item.id) : rated.get(`${task.sides[0]} ${task.item.id}`);
    const box = el("textarea", { rows: 2 });
    box.value = before?.comment ?? "";
    place.replaceChildren(
      ...[
        el("div", { class: "modes", role: "group", aria_label: "How to judge" }, ["compare", "rate"].map((name) => button(name === "compare" ? "Compare two" : "Rate one", () => mode(name), { aria_pressed: String(state.mode === name) }))),
        el("div", { class: "progress" }, el("progress", { max: count, value: done, aria_label: "Progress" }), el("span", { role: "status", id: "progress-text" }, `${state.at + 1} of ${count}, ${done} judged`)),
        trouble,
        words(task.item.question, { class: "said question", id: "judged-question" }),
        task.item.reference ? el("details", {}, el("summary", {}, "Show the reference answer"), words(task.item.reference)) : null,
        el("div", { class: "pair" }, task.sides.map((side) => el("div", { class: "card" }, el("h2", {}, task.sides.length === 1 ? "The answer" : side === "left" ? "Answer A" : "Answer B"), words(task.item[side] === "" ? "(an empty answer)" : task.item[side])))),
        isComparing
          ? el("div", { class: "choices", role: "group", aria_label: "Your choice" }, [["left", "← A is better"], ["tie", "↓ Equally good"], ["right", "B is better →"]].map(([choice, title]) => button(title, () => choose(choice), { data_choice: choice, aria_pressed: String(before?.choice === choice) })))
          : criteria(before),
        el("label", { class: "comment" }, "Comment", box),
        el("div", { class: "choices" }, button("Previous (P)", () => move(-1)), button("Next (N)", () => move(1))),
        done === count ? el("p", { class: "hint" }, "All judged.") : null,
        command(given.command, "The report takes the votes in with"),
      ].filter(Boolean),
    );
  }

  function criteria(before) {
    return el("div", { class: "criteria" }, given.criteria.map((name, at) =>
      el("div", { class: at === state.line ? "line current" : "line", role: "group", aria_label: name }, el("span", {}, name),
        [1, 2, 3, 4, 5].map((value) => button(String(value), () => { state.line = at; return rate(value); }, { aria_label: `${name}: ${value} of 5`, aria_pressed: String((state.entry[name] ?? before?.[name]) === value) })))));
  }

  const keys = (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, textarea, select")) return;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    if (key === "p") move(-1);
    else if (key === "n") move(1);
    else if (state.mode === "compare" && CHOICES[key]) choose(CHOICES[key]);
    else if (state.mode === "rate" && /^[1-5]$/.test(key)) rate(Number(key));
    else return;
    event.preventDefault();
  };
  document.addEventListener("keydown", keys);
  show();
  return () => document.removeEventListener("keydown", keys);
}

function told(found) {
  say("The result is shown");
  const percent = (share) => `${Math.round(100 * share)} %`;
  const wins = found.preference;
  const lines = [el("h2", {}, "The result so far")];
  if (!found.votes && !found.ratings) return [...lines, el("p", { class: "absent" }, "Nobody has judged yet.")];
  lines.push(el("p", {}, `${found.raters.length} ${found.raters.length === 1 ? "judge" : "judges"}: ${found.raters.join(", ")}.`));
  if (wins) {
    lines.push(el("p", { id: "preference" }, `The tuned model is preferred on ${wins.tuned} questions, the base on ${wins.base}, neither on ${wins.ties}.`
      + (wins.share === null ? "" : ` That is ${percent(wins.share)} of those decided (95 % interval ${percent(wins.low)} to ${percent(wins.high)}).`)));
  }
  if (found.agreement) lines.push(el("p", {}, `Judges of the same ${found.agreement.questions} questions agree on ${percent(found.agreement.share)}.`));
  if (found.ratings) {
    const shown = (value) => (value === null ? "" : value.toFixed(2));
    lines.push(table(["criterion", "base", "tuned", "difference", "95 % interval"], Object.entries(found.ratings).map(([name, one]) =>
      el("tr", {}, el("th", { scope: "row" }, name), [one.base, one.tuned, one.difference].map((value) => el("td", { class: "n" }, shown(value))), el("td", { class: "n" }, one.low === null ? "" : `${shown(one.low)} to ${shown(one.high)}`)))));
  }
  for (const one of found.refused) lines.push(el("p", { class: "caution" }, `${one.file}: ${one.problem}`));
  return lines;
}
