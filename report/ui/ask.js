// Questions to several models side by side: the answers stream, names appear after the vote, and any answer can be corrected.

import { follow, get, post } from "./api.js";
import { button, command, el, fault, pager, say, table, tabs, words } from "./dom.js";
import { corrector } from "./correct.js";

const LETTERS = "ABCDEFGH";

export async function ask(place, run) {
  const path = `/api/ask/${encodeURIComponent(run)}`;
  const about = await get(path);
  const now = el("div", { class: "part-now" });
  const before = el("div", { class: "part-before" });
  const tally = el("div");
  const choices = about.models.map((model, at) => {
    const box = el("input", { type: "checkbox", value: String(at) });
    box.checked = at < 2;
    return { model, box, label: el("label", { class: "check" }, box, ` ${model.name}`) };
  });
  const question = el("textarea", { rows: 3, id: "question", required: true, dir: "auto" });
  const blind = el("input", { type: "checkbox" });
  blind.checked = true;
  const greedy = el("input", { type: "checkbox", id: "greedy" });
  const send = button("Ask", () => put(), { class: "primary", id: "send" });
  const thread = el("div", { class: "part-thread" });
  const models = el("fieldset", { class: "models" }, el("legend", {}, "Models"), choices.map((one) => one.label));
  let close = null;
  let after = null; // the question that the next one goes on after, to the same models

  const followUp = (one) => {
    after = one;
    models.disabled = Boolean(one);
    thread.replaceChildren(...(one ? [el("p", { class: "hint" }, `Goes on after “${one.question}”, with the same models. `, button("Begin anew", () => followUp(null), { class: "small" }))] : []));
    if (one) question.focus();
  };

  async function put() {
    const chosen = choices.filter((one) => one.box.checked).map((one) => ({ run: one.model.run, variant: one.model.variant }));
    send.disabled = true;
    try {
      const begun = await post(path, after ? { question: question.value, after: after.id } : { question: question.value, models: chosen, blind: blind.checked && chosen.length > 1 });
      const cards = answerCards(begun.count, { question: question.value });
      now.replaceChildren(cards.box);
      close = follow(`${path}/${begun.id}?greedy=${greedy.checked}`, async (part) => {
        if (part.error) cards.fail(part);
        if (part.place >= 0) cards.grow(part.place, part.text, part.end);
        if (part.place < 0 || cards.ended()) {
          close();
          send.disabled = false;
          say("All answers are there");
          const found = (await get(`${path}?limit=1`)).questions[0];
          if (found?.id !== begun.id) return;
          now.replaceChildren(shown(run, path, found, { refresh, followUp }));
          if (after) followUp(found);
        }
      });
    } catch (error) {
      if (!error.fault) throw error;
      now.replaceChildren(fault(error.fault));
      send.disabled = false;
    }
  }

  async function refresh(offset = 0) {
    const found = await get(`${path}?offset=${offset}&limit=10`);
    tally.replaceChildren(...tallied(found.tally));
    before.replaceChildren(
      ...(found.total ? [el("h2", {}, "Asked before"), ...found.questions.map((one) => shown(run, path, one, { refresh, followUp })), pager(found.total, offset, 10, refresh)] : []).filter(Boolean),
    );
  }

  question.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !send.disabled) put();
  });
  place.append(...[
    el("header", { class: "top" }, el("h1", {}, `Ask ${run}`), tabs(run, "ask"), el("p", { class: "lede" }, "Each model answers on its own, with the sampling of the file that is deployed. Their names appear after your vote.")),
    about.models.length ? null : el("p", { class: "absent" }, "This run has no model yet: run its stage package."),
    el("section", { aria_label: "Question" },
      models, thread,
      el("label", { class: "comment" }, "Question", question),
      el("div", { class: "filters" }, el("label", { class: "check" }, blind, " blind"), el("label", { class: "check" }, greedy, " always the likeliest token"), send),
      command(about.command)),
    now, tally, before,
  ].filter(Boolean));
  await refresh();
  return () => close?.();
}

function answerCards(count, { question }) {
  const boxes = Array.from({ length: count }, () => el("div", { class: "said growing", dir: "auto", aria_busy: "true" }, "…"));
  const ended = new Set();
  const trouble = el("div");
  return {
    box: el("article", { class: "answer asked" }, words(question, { class: "said question" }), el("div", { class: "columns" }, boxes.map((box, at) => el("div", {}, el("h3", {}, `Answer ${LETTERS[at]}`), box))), trouble),
    grow: (place, text, end) => {
      boxes[place].textContent = text;
      if (end) {
        ended.add(place);
        boxes[place].setAttribute("aria-busy", "false");
      }
    },
    fail: (part) => trouble.append(el("p", { class: "caution bad", role: "alert" }, part.error)),
    ended: () => ended.size === count,
  };
}

function shown(run, path, one, { refresh, followUp }) {
  const votable = one.answers.length > 1 && one.vote === null;
  const vote = async (choice) => {
    const voted = await post(`${path}/vote`, { id: one.id, choice });
    place.replaceWith(shown(run, path, voted, { refresh, followUp }));
    say("Saved");
    await refresh();
  };
  const columns = one.answers.map((answer, at) =>
    el("div", { class: one.vote === at ? "tuned" : "base" },
      el("h3", {}, one.names ? one.names[at] : `Answer ${LETTERS[at]}`),
      words(answer === "" ? "(an empty answer)" : answer),
      corrector({ run, origin: "chat", id: one.id, place: at, answer })),
  );
  const place = el("article", { class: "answer asked", data_id: one.id },
    one.after ? el("p", { class: "note" }, "A later turn of a conversation") : null,
    words(one.question, { class: "said question" }),
    el("div", { class: "columns" }, columns),
    votable
      ? el("div", { class: "choices", role: "group", aria_label: "Which answer is best?" }, one.answers.map((_, at) => button(`${LETTERS[at]} is better`, () => vote(at))), button("Equally good", () => vote("tie")))
      : one.vote !== null ? el("p", { class: "note" }, one.vote === "tie" ? "Equally good." : `Your vote: ${one.names[one.vote]}.`) : null,
    button("Ask on", () => followUp(one), { class: "small" }));
  return place;
}

function tallied(found) {
  if (!found.length) return [];
  const rows = found.map((one) => el("tr", {}, el("th", { scope: "row" }, one.name), el("td", { class: "n" }, String(one.wins)), el("td", { class: "n" }, String(one.compared))));
  return [el("h2", {}, "Votes"), table(["model", "preferred", "of questions"], rows), el("p", { class: "note" }, "Questions of your own choice are no test: the verdict is that of the report and of judges.")];
}
