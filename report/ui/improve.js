// What the run gets wrong, grouped, the worst first; corrections; answers from real use; and the next version.

import { get, post, upload } from "./api.js";
import { button, command, el, fault, pager, table, tabs, visible, words } from "./dom.js";
import { corrector } from "./correct.js";
import { startForm } from "./start.js";

const LIMIT = 10;

export async function improve(place, run) {
  const path = `/api/improve/${encodeURIComponent(run)}`;
  const parts = Object.fromEntries(["groups", "rows", "log", "feedback", "next"].map((key) => [key, el("div", { class: `part-${key}` })]));
  place.append(
    el("header", { class: "top" }, el("h1", {}, `Improve ${run}`), tabs(run, "improve"), el("p", { class: "lede" }, "Correct what is wrong, train the next version with it, and see whether it is better. A correction of a test question becomes a better reference and is never trained on; corrections of your own questions (Ask) and of logged answers are learned.")),
    parts.next, parts.groups, parts.rows, parts.log, parts.feedback,
  );
  const refresh = async () => {
    const about = await get(path);
    parts.next.replaceChildren(next(run, about));
    return about;
  };
  const about = await refresh();
  const show = async (group, offset = 0) => {
    const query = Object.entries(group).map(([key, value]) => `${key}=${encodeURIComponent(value)}`).join("&");
    const found = await get(`${path}/rows?${query}&offset=${offset}&limit=${LIMIT}`);
    const named = [group.kind, group.length && `${group.length} questions`, group.category].filter(Boolean).join(", ");
    parts.rows.replaceChildren(
      ...[el("h2", {}, named ? `Answers: ${named}` : "All answers, the worst first"), ...found.rows.map((one) => failure(run, path, one, refresh)), pager(found.total, offset, LIMIT, (at) => show(group, at))].filter(Boolean),
    );
  };
  parts.groups.append(...groups(about, show));
  if (about.variant) await show({});
  parts.log.append(logPart(run, refresh, () => feedback(parts.feedback, run, refresh)));
  await feedback(parts.feedback, run, refresh);
}

function groups(about, show) {
  if (!about.variant) return [el("p", { class: "absent" }, visible(about.why))];
  const rows = about.groups.slice(0, 20).map((group) =>
    el("tr", {}, el("th", { scope: "row" }, button(group.kind, () => show({ kind: group.kind, length: group.length, category: group.category }))),
      el("td", {}, visible(group.category || "–")), el("td", {}, group.length), el("td", { class: "n" }, String(group.rows)), el("td", { class: "n" }, group.score.toFixed(1)), el("td", { class: "n" }, group.lost.toFixed(0))));
  return [
    el("h2", {}, "What is wrong"),
    el("p", {}, `${about.right} of ${about.total} test questions are answered exactly as their reference.`),
    rows.length ? el("div", { class: "groups" }, table(["what", "category", "question", "answers", "chrF++", "points lost"], rows, "Groups of test answers, the most points lost first")) : "",
    button("All answers", () => show({})),
  ];
}

function failure(run, path, { failure: one, mark, response }, refresh) {
  const near = el("div");
  const nearest = async (event) => {
    event.target.disabled = true;
    const found = await get(`${path}/nearest?id=${encodeURIComponent(one.id)}`);
    near.replaceChildren(
      found.rows.length
        ? table(["training row", "prompt", "response"], found.rows.map((row) => el("tr", {}, el("th", { scope: "row" }, visible(row.where), el("small", {}, `${Math.round(100 * row.similarity)} % alike`)), el("td", {}, words(row.prompt)), el("td", {}, words(row.response)))))
        : el("p", { class: "absent" }, "No training row is like it."),
    );
  };
  const scores = [`chrF++ ${one.score.toFixed(1)}`, one.change === null ? "" : `${one.change >= 0 ? "+" : ""}${one.change.toFixed(1)} to the base`, one.kind, one.category].filter(Boolean).join(", ");
  return el("article", { class: "answer", data_id: one.id },
    el("header", {}, el("span", { class: "score" }, visible(scores)), mark ? el("span", { class: "status" }, mark) : null),
    words(one.question, { class: "said question" }),
    el("div", { class: "columns" },
      el("div", { class: "tuned" }, el("h3", {}, "its answer"), words(one.answer || "(an empty answer)")),
      el("div", { class: "reference" }, el("h3", {}, response ? "better reference" : "reference"), words(response || one.reference)),
      one.base === null ? null : el("div", { class: "base" }, el("h3", {}, "base"), words(one.base || "(an empty answer)"))),
    corrector({ run, origin: "test", id: one.id, answer: one.answer, reference: response || one.reference, ondone: refresh }),
    button("Nearest training rows", nearest, { class: "small" }), near);
}

function logPart(run, refresh, again) {
  const file = el("input", { type: "file", id: "client-log", accept: ".jsonl,.ndjson,.json,.txt" });
  const place = el("div");
  const send = async () => {
    if (!file.files[0]) return;
    try {
      const found = await upload(`/api/logs/${encodeURIComponent(run)}`, file.files[0]);
      place.replaceChildren(
        el("p", { class: "hint" }, `${found.added} marked answers are new in ${found.file}; ${found.known} were there already, ${found.unmarked} are without a mark, ${found.unusable_count} lines cannot be used.`),
        ...found.unusable.map((one) => el("p", { class: "note" }, `line ${one.line}: ${visible(one.why)}`)),
      );
      await refresh();
      await again();
    } catch (error) {
      if (!error.fault) throw error;
      place.replaceChildren(fault(error.fault));
    }
  };
  file.addEventListener("change", send);
  return el("section", { aria_label: "Answers from real use" }, el("h2", {}, "Answers from real use"),
    el("p", { class: "note" }, "JSON Lines of an OpenAI-compatible client: the request with its messages, the response, and a thumb or a correction."),
    el("label", {}, "A log ", file), place);
}

async function feedback(place, run, refresh, offset = 0) {
  const found = await get(`/api/feedback/${encodeURIComponent(run)}?offset=${offset}&limit=${LIMIT}`);
  if (!found.total) return place.replaceChildren();
  const uses = { training: "is learned", reference: "a better reference", marked: "marked" };
  place.replaceChildren(
    ...[
      el("h2", {}, "Marked answers"),
      ...found.rows.map((row) => el("article", { class: "answer" },
        el("header", {}, el("span", {}, visible(`${row.origin}, ${row.variant}`)), el("span", { class: "status" }, `${row.mark}: ${uses[row.use] ?? row.use}`)),
        words(row.messages.filter((turn) => turn.role !== "system").map((turn) => turn.content).join("\n"), { class: "said question" }),
        el("div", { class: "columns" }, el("div", { class: "base" }, el("h3", {}, "its answer"), words(row.answer)), row.response ? el("div", { class: "tuned" }, el("h3", {}, "right"), words(row.response)) : null),
        row.origin === "log" ? corrector({ run, origin: "log", id: row.row, answer: row.answer, reference: row.response ?? "", ondone: refresh }) : null)),
      pager(found.total, offset, LIMIT, (at) => feedback(place, run, refresh, at)),
    ].filter(Boolean),
  );
}

function next(run, about) {
  const name = el("input", { type: "text", id: "next-name", value: about.suggested_name, maxlength: "63" });
  const weight = el("input", { type: "text", id: "next-weight", inputmode: "decimal", value: "3" });
  const good = el("input", { type: "checkbox" });
  good.checked = true;
  const place = el("div");
  const make = async () => {
    try {
      const made = await post(`/api/next/${encodeURIComponent(run)}`, { name: name.value.trim(), weight: Number(weight.value), with_good: good.checked });
      place.replaceChildren(
        el("p", { class: "hint" }, `${made.configuration} is written: ${made.learned} corrections are learned, ${made.references} references are better, ${made.test_rows} test rows are kept out as before.`
          + (made.held_back ? ` ${made.held_back} corrections are nearly the same as test or validation rows and are left out of training.` : "")),
        el("p", { class: "note" }, `Rows: ${made.files.join(", ")}`),
        el("details", {}, el("summary", {}, "The configuration"), el("pre", { class: "log", tabindex: "0" }, visible(made.yaml))),
        startForm(made.configuration),
      );
    } catch (error) {
      if (!error.fault) throw error;
      place.replaceChildren(fault(error.fault));
    }
  };
  const counted = Object.entries({ training: "to learn", reference: "better references", marked: "marked only" }).map(([use, title]) => `${about.uses[use] ?? 0} ${title}`).join(", ");
  return el("section", { class: "card", aria_label: "The next version" }, el("h2", {}, "The next version"),
    el("p", { id: "feedback-count" }, `${counted}, in ${about.file}.`),
    el("div", { class: "filters" }, el("label", {}, "Its name", name), el("label", {}, "Times that a correction is seen per epoch", weight), el("label", { class: "check" }, good, " learn answers marked right as well"), button("Make the next version", make, { class: "primary", id: "make-next" })),
    place);
}
