// A new run: where it starts from, its fields with their mistakes beside them, its rows, its forecast, and the YAML.

import { get, post, upload } from "./api.js";
import { button, command, duration, el, fault, link, prose, say, size, visible } from "./dom.js";
import { rowsOf } from "./rows.js";
import { startForm } from "./start.js";

const WAIT = 350; // milliseconds after the last key, until the form is checked
const ORDER = ["run", "model", "data", "train", "pilot", "evaluate", "package", "select"];

export async function fresh(place, kind = "", name = "") {
  const form = await get("/api/form");
  const parts = Object.fromEntries(["begin", "data", "fields", "result"].map((key) => [key, el("div", { class: `part-${key}` })]));
  place.append(el("header", { class: "top" }, el("h1", {}, kind === "configuration" ? `Settings of ${name}` : "New run")), el("div", { class: "new-run" }, el("div", {}, parts.begin, parts.data, parts.fields), parts.result));
  const fields = new Map(form.fields.map((field) => [field.path, makeField(field)]));
  const values = () => Object.fromEntries([...fields].map(([path, one]) => [path, one.read()]));
  const state = { rows: null, turn: 0, timer: 0, written: "", saved: el("div", { class: "part-saved" }) };

  const check = async () => {
    state.turn += 1;
    const mine = state.turn;
    const found = await post("/api/form/check", { values: values(), rows: state.rows });
    if (mine !== state.turn) return;
    for (const one of fields.values()) one.complain(null);
    const wrong = found.fault && nearest(fields, found.fault.where);
    if (wrong) wrong.complain(found.fault);
    if (found.yaml !== state.written) state.saved.replaceChildren(); // what was saved is not what stands here now
    parts.result.replaceChildren(...result(found, wrong, values, fields, state));
  };
  const changed = () => {
    clearTimeout(state.timer);
    state.timer = setTimeout(check, WAIT);
  };
  const fill = async (from, called) => {
    const given = await get(`/api/form/start?kind=${from}&name=${encodeURIComponent(called)}`);
    const run = fields.get("run").read();
    for (const [path, text] of Object.entries(given.values)) fields.get(path)?.write(text);
    if (from !== "configuration" && run && run !== "mine") fields.get("run").write(run);
    await check();
  };
  const addSource = (line) => {
    const field = fields.get("data.sources");
    const lines = field.read().split("\n").filter((one) => one && !one.includes("data/sample.jsonl"));
    field.write([...lines, line].join("\n"));
    changed();
  };

  parts.begin.append(begin(form, fill));
  parts.data.append(await dataPart(addSource, values, (rows) => { state.rows = rows; changed(); }));
  parts.fields.append(...sections(form, fields, changed));
  await fill(kind || "", name);
}

function nearest(fields, where) {
  const path = where.replace(/\[\d+\]/g, "");
  const parts = path.split(".");
  while (parts.length) {
    const found = fields.get(parts.join("."));
    if (found) return found;
    parts.pop();
  }
  return null;
}

function begin(form, fill) {
  const preset = el("select", { id: "preset" }, el("option", { value: "" }, "the defaults"), Object.keys(form.presets).map((name) => el("option", { value: name }, name)));
  const about = el("p", { class: "note" });
  preset.addEventListener("change", () => {
    about.textContent = form.presets[preset.value] ?? "";
    fill(preset.value ? "preset" : "", preset.value);
  });
  return el("section", { aria_label: "Where to begin" }, el("div", { class: "filters" }, el("label", {}, "Begin with", preset)), about, importPart(fill));
}

function importPart(fill) {
  const file = el("input", { type: "file", id: "import-file", accept: ".yaml,.yml,.json" });
  const name = el("input", { type: "text", id: "import-name", maxlength: "63" });
  const place = el("div");
  const bring = async (without = []) => {
    place.replaceChildren();
    try {
      const source = file.files[0] ? (await upload(`/api/imports/${encodeURIComponent(file.files[0].name)}`, file.files[0])).files[0] : "";
      const made = await post("/api/import", { source, name: name.value.trim(), without });
      const refused = made.refused.map((one) => el("li", {}, el("code", {}, one.key), ` ${visible(one.effect)}. ${visible(one.fix)}.`));
      const open = made.refused.filter((one) => !one.is_final).map((one) => one.key.split(" ")[0]);
      place.replaceChildren(
        ...[
          el("p", { class: made.configuration ? "hint" : "caution" }, made.configuration ? `${made.configuration} is written: ${made.taken} keys of ${made.tool} taken over, ${made.written_out} defaults of theirs written out.` : `Nothing is written: ${made.refused.length} keys of ${made.tool} have no equivalent here.`),
          refused.length ? el("ul", {}, refused) : null,
          !made.configuration && open.length === made.refused.length ? button("Go without them", () => bring([...without, ...open])) : null,
          el("details", {}, el("summary", {}, "What became of each key"), el("pre", { class: "log" }, visible(made.page))),
          command(made.command),
        ].filter(Boolean),
      );
      if (made.configuration) await fill("configuration", made.configuration);
    } catch (error) {
      if (!error.fault) throw error;
      place.replaceChildren(fault(error.fault));
    }
  };
  return el("details", {}, el("summary", {}, "Or bring a configuration of Axolotl, LLaMA-Factory, TRL, PEFT or mlx-lm"),
    el("div", { class: "filters" }, el("label", {}, "Its file", file), el("label", {}, "Name of the new run", name), button("Take it over", () => bring())), place);
}

async function dataPart(addSource, values, counted) {
  const known = await get("/api/files");
  const choose = el("select", { id: "known-file" }, el("option", { value: "" }, "choose a file"), known.files.map((name) => el("option", { value: name }, name)));
  const pick = el("input", { type: "file", id: "data-file" });
  const found = el("div");
  const rows = el("div");
  const show = (one) => {
    found.replaceChildren(
      ...[
        one.fault ? fault(one.fault) : el("p", { class: "hint" }, one.why ? `Its columns are guessed, by ${visible(one.why)}. Correct them under data.sources if this is wrong.` : "Its rows can be read as they are."),
        el("pre", { class: "rendered" }, visible(one.source)),
        command(`make new NAME=mine DATA=${/^[\w./-]+$/.test(one.path) ? one.path : `"${one.path}"`}`),
        one.example ? el("details", { open: true }, el("summary", {}, "A row will be"), el("pre", { class: "rendered" }, visible(one.example))) : null,
      ].filter(Boolean),
    );
    addSource(one.source);
    say(`${one.path} is a source now`);
  };
  const trying = async (work) => {
    try {
      await work();
    } catch (error) {
      if (!error.fault) throw error;
      found.replaceChildren(fault(error.fault));
    }
  };
  const take = (file) => trying(async () => show(await upload(`/api/files/${encodeURIComponent(file.name)}`, file)));
  pick.addEventListener("change", () => pick.files[0] && take(pick.files[0]));
  choose.addEventListener("change", () => choose.value && trying(async () => show(await get(`/api/files/look?path=${encodeURIComponent(choose.value)}`))));
  const drop = el("div", { class: "drop", id: "drop" }, el("label", {}, "Drop a data file here, or choose one ", pick), el("label", {}, "Or one that is in data/ ", choose));
  for (const kind of ["dragover", "dragleave", "drop"]) {
    drop.addEventListener(kind, (event) => {
      event.preventDefault();
      drop.classList.toggle("over", kind === "dragover");
      if (kind === "drop" && event.dataTransfer.files[0]) take(event.dataTransfer.files[0]);
    });
  }
  const checking = button("Check the rows", () => rowsOf(rows, values, counted), { id: "check-rows" });
  return el("section", { aria_label: "Rows" }, el("h2", {}, "Rows"), drop, found, checking, rows);
}

function sections(form, fields, changed) {
  const place = (name) => (ORDER.includes(name) ? ORDER.indexOf(name) : ORDER.length);
  return [...form.sections].sort((one, other) => place(one.name) - place(other.name)).map((section) => {
    const inside = form.fields.filter((field) => field.section === section.name);
    const isFirst = ["run", "model", "data", "train"].includes(section.name);
    const boxes = inside.map((field) => fields.get(field.path));
    for (const one of boxes) one.input.addEventListener("input", changed);
    return el("details", { open: isFirst, class: "section" }, el("summary", {}, el("h2", {}, section.name === "run" ? "the run" : section.name), " ", prose(section.help)), boxes.map((one) => one.box));
  });
}

function makeField(field) {
  const id = `field-${field.path}`;
  const described = `help-${field.path}`;
  const shared = { id, aria_describedby: described };
  const input =
    field.kind === "choice" ? el("select", shared, field.choices.map((one) => el("option", { value: one === "null" ? "" : one }, one)))
    : field.kind === "switch" ? el("select", shared, ["true", "false"].map((one) => el("option", { value: one }, one)))
    : field.kind === "yaml" ? el("textarea", { ...shared, rows: field.path === "data.sources" ? 4 : 1, spellcheck: "false" })
    : el("input", { ...shared, type: "text", inputmode: field.kind === "number" ? "decimal" : undefined, autocomplete: "off", spellcheck: "false" });
  const wrong = el("div", { class: "wrong" });
  const name = field.path.includes(".") ? field.path.slice(field.path.indexOf(".") + 1) : field.path;
  const box = el("div", { class: "field", data_path: field.path },
    el("label", { for: id }, name, field.unit ? el("small", {}, ` ${field.unit}`) : null), input,
    el("p", { class: "note", id: described }, prose(field.help), field.default ? ` Default: ${field.default.length < 60 ? field.default : "see docs/configuration.md"}.` : ""), wrong);
  return {
    box,
    input,
    read: () => input.value,
    write: (text) => {
      input.value = text;
      if (field.kind === "yaml") input.rows = Math.min(12, Math.max(field.path === "data.sources" ? 4 : 1, text.split("\n").length));
    },
    complain: (error) => {
      input.setAttribute("aria-invalid", String(Boolean(error)));
      wrong.replaceChildren(...(error ? [fault({ ...error, where: "" })] : []));
      if (error) box.closest("details")?.setAttribute("open", "");
    },
  };
}

function result(found, wrong, values, fields, state) {
  if (found.fault && !found.yaml) return [el("h2", {}, "What it amounts to"), fault(found.fault), ...toField(wrong)];
  return [
    el("h2", {}, "What it amounts to"),
    ...(found.fault ? [fault(found.fault), ...toField(wrong)] : [forecastOf(found.forecast), saving(values, fields, state)]),
    el("details", { open: true }, el("summary", {}, "What differs from the defaults"), el("pre", { class: "rendered yaml", tabindex: "0" }, visible(found.short))),
    el("details", {}, el("summary", {}, "The whole file"), el("pre", { class: "log", tabindex: "0" }, visible(found.yaml))),
  ];
}

const toField = (wrong) => (wrong ? [button("Go to the field", () => wrong.input.focus())] : []);

function forecastOf(found) {
  const many = found.experiments > 1 ? ` The first of ${found.experiments} experiments.` : "";
  if (found.basis === "nothing") return el("p", { class: "hint", id: "forecast" }, `No forecast yet: ${visible(found.why)}.`);
  const bound = found.basis === "tokens" ? "" : "at most ";
  const fits = found.memory.total <= found.usable_memory;
  const parts = Object.entries(found.memory).filter(([name, bytes]) => name !== "total" && bytes).map(([name, bytes]) => `${name} ${size(bytes)}`);
  return el("div", { class: "card", id: "forecast" },
    el("dl", { class: "pairs" },
      el("dt", {}, "memory"), el("dd", { class: fits ? "" : "no" }, `${bound}${size(found.memory.total)} of ${size(found.usable_memory)}${fits ? "" : ": does not fit"}`),
      el("dt", {}, "trained"), el("dd", {}, `${found.trainable_parameters.toLocaleString("en")} of ${found.parameters.toLocaleString("en")} parameters`),
      el("dt", {}, "steps"), el("dd", {}, found.steps ? found.steps.toLocaleString("en") : "check the rows to know"),
      el("dt", {}, "time"), el("dd", {}, found.seconds ? `${bound}${duration(found.seconds)} of training` : "known after the first training here, or a pilot"),
    ),
    el("p", { class: "note" }, parts.join(", "), ".", many, found.basis === "tokens" ? "" : " Every row is taken to be as long as data.max_length."),
  );
}

function saving(values, fields, state) {
  const place = state.saved;
  const save = async (overwrite) => {
    try {
      const saved = await post("/api/form/save", { values: values(), overwrite });
      say(`${saved.configuration} is written`);
      state.written = saved.yaml;
      place.replaceChildren(el("p", { class: "hint" }, `${saved.configuration} is written.`), startForm(saved.configuration), el("p", {}, link("Rows as the model will read them: run the stage preview", `#/preview/${encodeURIComponent(saved.configuration)}`)));
    } catch (error) {
      if (!error.fault) throw error;
      const taken = / exists$/.test(error.fault.what);
      place.replaceChildren(...[fault(error.fault), taken ? button(`Replace it`, () => save(true)) : null].filter(Boolean));
      if (!taken) nearest(fields, error.fault.where)?.complain(error.fault);
    }
  };
  return el("div", {}, button("Save", () => save(false), { class: "primary", id: "save" }), place);
}
