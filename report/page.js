"use strict";
// The page is whole without this script: it only orders, filters and copies what is already there.
(() => {
  const STEP = 20;
  const rows = [...document.querySelectorAll("#rows > article")];
  const number = (row, name) => (row.dataset[name] === "" ? 0 : Number(row.dataset[name]));

  function answers() {
    const box = document.getElementById("rows");
    const field = (name) => document.getElementById(name);
    const words = rows.map((row) => row.textContent.toLowerCase());
    // A fixed shuffle, so that the same page shows the same "random" rows to everyone.
    const shuffled = rows.map((_, i) => ({ i, key: (Math.imul(i + 1, 2654435761) ^ 0x5bd1e995) >>> 0 }));
    const place = new Map(shuffled.sort((a, b) => a.key - b.key).map(({ i }, at) => [i, at]));
    const keys = {
      improved: (row) => -number(row, "change"),
      worsened: (row) => number(row, "change"),
      best: (row) => -number(row, "score"),
      worst: (row) => number(row, "score"),
      random: (row) => place.get(number(row, "place")),
      given: (row) => number(row, "place"),
    };
    let most = STEP;

    function kindOf(row) {
      const change = number(row, "change");
      return change > 0 ? "improved" : change < 0 ? "worsened" : "same";
    }

    function show() {
      const wanted = field("search").value.toLowerCase().split(/\s+/).filter(Boolean);
      const kind = field("kind").value;
      const category = field("category") ? field("category").value : "";
      const key = keys[field("order").value];
      const matching = rows
        .filter((row) => wanted.every((word) => words[number(row, "place")].includes(word)))
        .filter((row) => !kind || kindOf(row) === kind)
        .filter((row) => !category || row.dataset.category === category)
        .sort((a, b) => key(a) - key(b) || number(a, "place") - number(b, "place"));
      const shown = new Set(matching.slice(0, most));
      for (const row of rows) row.hidden = !shown.has(row);
      box.append(...matching);
      field("count").textContent = `${shown.size} of ${matching.length} shown` + (matching.length < rows.length ? `, ${rows.length} in all` : "");
      field("more").hidden = shown.size === matching.length;
    }

    const again = () => { most = STEP; show(); };
    for (const name of ["search", "order", "kind", "category"]) {
      if (field(name)) field(name).addEventListener("input", again);
    }
    field("filters").addEventListener("submit", (event) => event.preventDefault());
    field("more").addEventListener("click", () => { most += STEP; show(); });
    field("filters").hidden = false;
    show();
  }

  function copying() {
    if (!navigator.clipboard) return;
    for (const button of document.querySelectorAll("button.copy")) {
      button.hidden = false;
      button.addEventListener("click", async () => {
        const text = button.parentElement.querySelector("pre").textContent;
        try {
          await navigator.clipboard.writeText(text);
          button.textContent = "Copied";
        } catch {
          button.textContent = "Copy failed";
        }
      });
    }
  }

  if (rows.length) answers();
  copying();
})();
