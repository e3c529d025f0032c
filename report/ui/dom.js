// Elements are made here and nowhere else; text goes in as text and never as markup.

export function el(tag, given = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(given)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (name === "class") made.className = value;
    else if (name === "value" || name === "checked" || name === "disabled" || name === "hidden") made[name] = value;
    else if (name.startsWith("data_")) made.dataset[name.slice(5)] = value;
    else made.setAttribute(name.replace("_", "-"), value === true ? "" : String(value));
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

export function svg(tag, given = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(given)) made.setAttribute(name, String(value));
  made.append(...children);
  return made;
}

// Control characters, which a page has no place for, become their pictures.
export const visible = (text) =>
  String(text ?? "").replace(/[\u0000-\u0008\u000b\u000c\u000e-\u001f]/g, (c) => String.fromCharCode(0x2400 + c.charCodeAt(0)));

// Text of rows and models: its own direction, its own lines.
export const words = (text, given = {}) => el("div", { class: "said", dir: "auto", ...given }, visible(text));

// A text of the schemas, in which backticks mark what is typed.
export const prose = (text) => text.split("`").map((part, at) => (at % 2 ? el("code", {}, part) : part));

export const button = (text, onclick, given = {}) => el("button", { type: "button", onclick, ...given }, text);

export const link = (text, href, given = {}) => el("a", { href, ...given }, text);

// What can be done with a run that has a report: a bar below its heading, on each of these views.
export function tabs(run, current) {
  const views = { run: "The run", ask: "Ask", judge: "Judge", improve: "Improve" };
  const entry = ([view, title]) => el("li", {}, link(title, `#/${view}/${encodeURIComponent(run)}`, { aria_current: view === current ? "page" : undefined }));
  return el("nav", { class: "tabs", aria_label: `Views of ${run}` }, el("ul", {}, Object.entries(views).map(entry)));
}

// Where the settings of a configuration are changed.
export const settingsOf = (file) => `#/new/configuration/${encodeURIComponent(file)}`;

export function command(text, label = "As a command") {
  if (!text) return null;
  const copy = button("Copy", async () => {
    try {
      await navigator.clipboard.writeText(text);
      copy.textContent = "Copied";
    } catch {
      copy.textContent = "Copy failed";
    }
  });
  return el("div", { class: "as-command" }, el("p", { class: "note" }, label), el("div", { class: "command" }, el("pre", {}, text), copy));
}

export function say(text) {
  document.getElementById("said").textContent = text;
}

// A person's mistake, in its four sentences.
export function fault(error) {
  const parts = [error.where ? `${error.where}: ${error.what}` : error.what, error.why, error.fix].filter(Boolean);
  const text = parts.map((part) => (/[.!?:\n]$/.test(part) ? part : `${part}.`)).join(" ");
  return el("p", { class: "caution bad", role: "alert" }, visible(text));
}

export function pager(total, offset, limit, show) {
  if (total <= limit) return null;
  const last = Math.min(total, offset + limit);
  return el(
    "div",
    { class: "pager", role: "group", aria_label: "Pages of the list" },
    button("Previous", () => show(Math.max(0, offset - limit)), { disabled: offset === 0 }),
    el("span", {}, `${offset + 1} to ${last} of ${total.toLocaleString("en")}`),
    button("Next", () => show(offset + limit), { disabled: last >= total }),
  );
}

export function table(head, rows, caption) {
  return el(
    "div",
    { class: "scroll" },
    el(
      "table",
      {},
      caption ? el("caption", {}, caption) : null,
      el("thead", {}, el("tr", {}, head.map((name) => el("th", { scope: "col" }, name)))),
      el("tbody", {}, rows),
    ),
  );
}

export const duration = (seconds) => {
  const whole = Math.round(seconds);
  const [h, m, s] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  return h ? `${h}:${String(m).padStart(2, "0")}:${String(s).padStart(2, "0")} h` : m ? `${m}:${String(s).padStart(2, "0")} min` : `${s} s`;
};

export const size = (bytes) => {
  const units = ["bytes", "kB", "MB", "GB", "TB"];
  let at = 0;
  while (bytes >= 1000 && at < units.length - 1) {
    bytes /= 1000;
    at += 1;
  }
  return `${at ? bytes.toPrecision(3) : bytes} ${units[at]}`;
};
