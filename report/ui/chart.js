// A loss curve as SVG: the training loss faint, the validation loss strong, with its numbers as text beside it.

import { el, svg } from "./dom.js";

const [WIDTH, HEIGHT, LEFT, BOTTOM, TOP] = [640, 220, 56, 24, 8];

export function chart(curve) {
  const all = [...curve.loss, ...curve.validation].filter(([, value]) => Number.isFinite(value));
  if (all.length < 2) return null;
  const last = (points) => points.at(-1);
  const values = all.map(([, value]) => value).sort((a, b) => a - b);
  const low = Math.min(...values);
  const high = Math.max(values[Math.floor(values.length * 0.98)], ...curve.validation.map(([, value]) => value));
  const end = Math.max(...all.map(([step]) => step));
  const start = Math.min(...all.map(([step]) => step));
  const x = (step) => LEFT + ((step - start) / Math.max(1, end - start)) * (WIDTH - LEFT - 8);
  const y = (value) => TOP + (1 - (Math.min(value, high) - low) / Math.max(1e-9, high - low)) * (HEIGHT - TOP - BOTTOM);
  const line = (points, style) =>
    svg("polyline", { points: points.map(([step, value]) => `${x(step).toFixed(1)},${y(value).toFixed(1)}`).join(" "), class: style });
  const short = (value) => (value !== 0 && Math.abs(value) < 0.01 ? value.toExponential(0) : value.toPrecision(3));
  const label = (text, at, height, anchor) => {
    const made = svg("text", { x: at, y: height, "text-anchor": anchor });
    made.textContent = text;
    return made;
  };
  const latest = [
    curve.loss.length ? `loss ${last(curve.loss)[1].toFixed(3)} at step ${last(curve.loss)[0].toLocaleString("en")}` : "",
    curve.validation.length ? `validation loss ${last(curve.validation)[1].toFixed(3)} at step ${last(curve.validation)[0].toLocaleString("en")}` : "",
  ].filter(Boolean);
  const drawn = svg(
    "svg",
    { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": `Loss of ${curve.name}: ${latest.join(", ")}`, class: "chart" },
    svg("line", { x1: LEFT, y1: HEIGHT - BOTTOM, x2: WIDTH - 8, y2: HEIGHT - BOTTOM, class: "axis" }),
    label(short(high), LEFT - 6, TOP + 10, "end"),
    label(short(low), LEFT - 6, HEIGHT - BOTTOM, "end"),
    label(start.toLocaleString("en"), LEFT, HEIGHT - 6, "start"),
    label(`step ${end.toLocaleString("en")}`, WIDTH - 8, HEIGHT - 6, "end"),
    line(curve.loss, "loss"),
    line(curve.validation, "validation"),
    ...curve.validation.map(([step, value]) => svg("circle", { cx: x(step).toFixed(1), cy: y(value).toFixed(1), r: 3, class: "validation" })),
  );
  return el("figure", { class: "curve" }, drawn, el("figcaption", {}, `${curve.name}: ${latest.join("; ")} (nats a target token)`));
}
