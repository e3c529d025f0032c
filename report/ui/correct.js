// Marks and corrections of an answer: they go into data/feedback, or make a better reference where the question is a test's.

import { post } from "./api.js";
import { button, el, fault, say } from "./dom.js";

const WORDS = {
  training: "Saved: the next version learns it.",
  reference: "Saved as a better reference. This is a question of the test or validation rows: it never reaches training.",
  marked: "Saved.",
};

// given: run, origin (chat, test, log), id, place; answer: what is corrected.
export function corrector({ run, origin, id, place = 0, answer, reference = "", ondone = null }) {
  const shown = el("div");
  const said = el("div", { role: "status" });
  const send = async (mark, response) => {
    try {
      const saved = await post(`/api/feedback/${encodeURIComponent(run)}`, { origin, id, place, mark, response });
      said.replaceChildren(el("p", { class: "hint" }, WORDS[saved.use], el("small", {}, ` (${saved.file})`)));
      say(WORDS[saved.use]);
      shown.replaceChildren();
      ondone?.(saved);
    } catch (error) {
      if (!error.fault) throw error;
      said.replaceChildren(fault(error.fault));
    }
  };
  const correct = () => {
    const box = el("textarea", { rows: Math.min(12, 2 + answer.split("\n").length), dir: "auto", aria_label: "The right answer", class: "correction" });
    box.value = reference || answer;
    shown.replaceChildren(box, el("div", { class: "choices" }, button("Save the correction", () => send("corrected", box.value), { class: "primary" }), button("Cancel", () => shown.replaceChildren())));
    box.focus();
  };
  return el("div", { class: "corrector" },
    el("div", { class: "choices" }, button("Correct", correct, { class: "small" }), button("Right", () => send("good", ""), { class: "small" }), button("Wrong", () => send("bad", ""), { class: "small" })),
    shown, said);
}
