"use strict";
// Texts reach the page through textContent only. Nothing here knows which model gave which answer.
(() => {
  const holder = document.getElementById("form");
  if (!holder) return;
  const form = JSON.parse(holder.textContent);
  const byId = (id) => document.getElementById(id);
  const KEY = `snaketune-votes-${form.fingerprint}`;
  const state = load();
  let at = 0;
  let line = 0;

  function load() {
    const fresh = { rater: "", mode: "compare", shuffle: Math.floor(Math.random() * 2 ** 31), preferences: {}, ratings: {} };
    try {
      return { ...fresh, ...JSON.parse(localStorage.getItem(KEY) || "{}") };
    } catch {
      return fresh;
    }
  }

  function keep() {
    try {
      localStorage.setItem(KEY, JSON.stringify(state));
    } catch {
      byId("progress-text").textContent = "This browser keeps no progress: save your votes before you close the page.";
    }
  }

  // Each rater meets the questions in an order of their own; mulberry32, seeded once and kept.
  function shuffled(list) {
    let seed = state.shuffle;
    const random = () => {
      seed = (seed + 0x6d2b79f5) | 0;
      let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
      t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
      return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
    };
    const out = [...list];
    for (let i = out.length - 1; i > 0; i--) {
      const j = Math.floor(random() * (i + 1));
      [out[i], out[j]] = [out[j], out[i]];
    }
    return out;
  }

  const compare = shuffled(form.items.map((item) => ({ key: item.id, item, sides: ["left", "right"] })));
  const rate = shuffled(form.items.flatMap((item) => ["left", "right"].map((side) => ({ key: `${side} ${item.id}`, item, sides: [side] }))));
  const tasks = () => (state.mode === "compare" ? compare : rate);
  const given = () => (state.mode === "compare" ? state.preferences : state.ratings);
  const entry = () => (given()[tasks()[at].key] ??= {});
  const complete = (it) => it && (state.mode === "compare" ? it.choice : form.criteria.every((name) => it[name]));
  const count = () => tasks().filter((task) => complete(given()[task.key])).length;

  function element(tag, className, text) {
    const made = document.createElement(tag);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
  }

  function saidBox(text) {
    const box = element("div", "said", text === "" ? "(an empty answer)" : text);
    box.dir = "auto";
    return box;
  }

  function show() {
    const all = tasks();
    at = Math.max(0, Math.min(at, all.length - 1));
    const task = all[at];
    const mine = given()[task.key] || {};
    byId("question").textContent = task.item.question;
    byId("reference-box").hidden = !task.item.reference;
    byId("reference-box").open = false;
    byId("reference").textContent = task.item.reference || "";
    byId("answers").replaceChildren(...task.sides.map((side) => {
      const card = element("div", "card");
      const title = task.sides.length === 1 ? "The answer" : side === "left" ? "Answer A" : "Answer B";
      card.append(element("h2", "", title), saidBox(task.item[side]));
      return card;
    }));
    byId("choices").hidden = state.mode !== "compare";
    byId("criteria").hidden = state.mode !== "rate";
    for (const button of byId("choices").children) button.setAttribute("aria-pressed", String(mine.choice === button.dataset.choice));
    if (state.mode === "rate") showCriteria(mine);
    byId("comment").value = mine.comment || "";
    for (const mode of ["compare", "rate"]) byId(`mode-${mode}`).setAttribute("aria-pressed", String(state.mode === mode));
    const done = count();
    byId("progress").max = all.length;
    byId("progress").value = done;
    byId("progress-text").textContent = `${at + 1} of ${all.length}, ${done} judged`;
    byId("done").hidden = done < all.length;
  }

  function showCriteria(mine) {
    byId("criteria").replaceChildren(...form.criteria.map((name, number) => {
      const row = element("div", number === line ? "line current" : "line");
      row.setAttribute("role", "group");
      row.setAttribute("aria-label", name);
      row.append(element("span", "", name));
      for (let value = 1; value <= 5; value++) {
        const button = element("button", "", String(value));
        button.type = "button";
        button.setAttribute("aria-pressed", String(mine[name] === value));
        button.setAttribute("aria-label", `${name}: ${value} of 5`);
        button.addEventListener("click", () => { line = number; rateWith(value); });
        row.append(button);
      }
      return row;
    }));
  }

  function choose(choice) {
    entry().choice = choice;
    keep();
    forward();
  }

  function rateWith(value) {
    entry()[form.criteria[line]] = value;
    keep();
    if (line < form.criteria.length - 1) {
      line++;
      show();
    } else {
      forward();
    }
  }

  function forward() {
    line = 0;
    if (at < tasks().length - 1) at++;
    show();
    if (!byId("done").hidden) byId("done").focus();
  }

  function back() {
    line = 0;
    at--;
    show();
  }

  function toMode(mode) {
    state.mode = mode;
    keep();
    line = 0;
    const open = tasks().findIndex((task) => !complete(given()[task.key]));
    at = open < 0 ? tasks().length - 1 : open;
    show();
  }

  function save() {
    const preferences = compare.filter(({ key }) => state.preferences[key]?.choice)
      .map(({ key, item }) => ({ id: item.id, choice: state.preferences[key].choice, comment: state.preferences[key].comment || "" }));
    const ratings = rate.filter(({ key }) => form.criteria.every((name) => state.ratings[key]?.[name]))
      .map(({ key, item, sides }) => ({ id: item.id, side: sides[0], comment: "", ...state.ratings[key] }));
    const votes = { kind: form.kind, version: 1, run: form.run, fingerprint: form.fingerprint, rater: state.rater, preferences, ratings };
    const url = URL.createObjectURL(new Blob([JSON.stringify(votes, null, 1)], { type: "application/json" }));
    const link = element("a");
    link.href = url;
    link.download = `votes-${form.run}-${state.rater.replace(/[^\p{L}\p{N}._-]+/gu, "_") || "rater"}.json`;
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(url), 10000);
  }

  function anew() {
    if (!confirm("Remove all votes from this browser, for another person to begin? Save them to a file first.")) return;
    try {
      localStorage.removeItem(KEY);
    } catch {
      // nothing was kept
    }
    location.reload();
  }

  const KEYS = { ArrowLeft: "left", ArrowRight: "right", ArrowDown: "tie", 1: "left", 2: "tie", 3: "right" };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.matches("input, textarea")) {
      if (event.key === "Escape") event.target.blur();
      return;
    }
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    if (key === "p") back();
    else if (key === "n") forward();
    else if (key === "s") save();
    else if (state.mode === "compare" && KEYS[key]) choose(KEYS[key]);
    else if (state.mode === "rate" && /^[1-5]$/.test(key)) rateWith(Number(key));
    else return;
    event.preventDefault();
  });
  for (const button of byId("choices").children) button.addEventListener("click", () => choose(button.dataset.choice));
  byId("rater").value = state.rater;
  byId("rater").addEventListener("input", (event) => { state.rater = event.target.value.trim(); keep(); });
  byId("comment").addEventListener("input", (event) => { entry().comment = event.target.value; keep(); });
  byId("previous").addEventListener("click", back);
  byId("next").addEventListener("click", forward);
  byId("export").addEventListener("click", save);
  byId("anew").addEventListener("click", anew);
  for (const mode of ["compare", "rate"]) byId(`mode-${mode}`).addEventListener("click", () => toMode(mode));
  toMode(state.mode);
})();
