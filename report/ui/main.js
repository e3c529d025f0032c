// Which view the address names, and the menu. A view is a function (place, ...names) that fills the place and may return
// how it is left.

import { el, fault, link } from "./dom.js";
import { Mistake } from "./api.js";
import { runs } from "./runs.js";
import { run } from "./run.js";
import { fresh } from "./new.js";
import { preview } from "./preview.js";
import { ask } from "./ask.js";
import { judge } from "./judge.js";
import { improve } from "./improve.js";

const VIEWS = { runs, run, new: fresh, preview, ask, judge, improve };
const MENU = [["runs", "Runs"], ["new", "New run"]];
const place = document.getElementById("content");
let leave = null;
let turn = 0;

function menu(current) {
  document.getElementById("menu").replaceChildren(
    el("li", { class: "brand" }, "snaketune"),
    ...MENU.map(([name, title]) => el("li", {}, link(title, `#/${name}`, { aria_current: name === current ? "page" : undefined }))),
  );
}

async function show() {
  const [name = "", ...rest] = location.hash.replace(/^#\/?/, "").split("/").map(decodeURIComponent);
  const view = VIEWS[name] ? name : "runs";
  turn += 1;
  const mine = turn;
  if (leave) leave();
  leave = null;
  menu(view);
  const fresh = el("div", { class: "view" });
  place.replaceChildren(fresh);
  try {
    const left = await VIEWS[view](fresh, ...rest);
    if (mine === turn) leave = left ?? null;
    else if (left) left();
  } catch (error) {
    if (!(error instanceof Mistake)) throw error;
    fresh.append(fault(error.fault));
  }
  document.title = `${fresh.querySelector("h1")?.textContent ?? "snaketune"} · snaketune`;
}

window.addEventListener("hashchange", () => {
  show().then(() => place.focus({ preventScroll: true }));
  window.scrollTo(0, 0);
});
show();
