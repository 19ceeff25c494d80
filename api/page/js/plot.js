// A small plot of one or two curves over time, with its figures in words for screen readers.
//
//   plot({name, curves: [{name, points: [[at_s, value], …]}], format: v => text, from, to, stepS, most, wide})
//     Where nobody measured (a gap of more than two steps) the line is broken.
import { h } from "./dom.js";
import { time } from "./format.js";
import { t } from "./i18n.js";

// About as wide as it is on the screen, so that letters have the size of others.
const USUAL = 400;
const HIGH = 96;
const LEFT = 2;
const TOP = 14;
const BOTTOM = 80;

export function plot({ name, curves, format, from, to, stepS = 15, most = 0, wide = USUAL }) {
  const values = curves.flatMap((one) => one.points.map(([, value]) => value));
  if (!values.length) return h("div.hint", t("plot.none"));
  const top = Math.max(most, ...values) || 1;
  const x = (at) => LEFT + ((at - from) / Math.max(1, to - from)) * (wide - 2 * LEFT);
  const y = (value) => BOTTOM - (value / top) * (BOTTOM - TOP);
  const lines = curves.map((curve, number) => {
    let d = "";
    let before = null;
    for (const [at, value] of curve.points) {
      d += `${before !== null && at - before <= 2.5 * stepS ? "L" : "M"}${x(at).toFixed(1)} ${y(value).toFixed(1)}`;
      before = at;
    }
    if (curve.points.length === 1) d += "h1";
    return h("path.curve", { d, class: number ? "second" : "" });
  });
  const said = curves.map((one) => {
    const own = one.points.map(([, value]) => value);
    return own.length ? t("plot.said", { name: one.name || name, last: format(own[own.length - 1]), most: format(Math.max(...own)) }) : "";
  }).join("; ");
  // What it was at the moment under the pointer; for the eye, as `said` has the rest.
  function tell(event) {
    const svg = event.currentTarget;
    const box = svg.getBoundingClientRect();
    const at = from + ((event.clientX - box.left) / box.width) * (to - from);
    const nearest = curves.map((one) => one.points.reduce((best, point) => (best && Math.abs(best[0] - at) <= Math.abs(point[0] - at) ? best : point), null)).filter(Boolean);
    const near = nearest[0] && Math.abs(nearest[0][0] - at) < Math.max(2.5 * stepS, (to - from) / 40);
    svg.querySelector(".readout").textContent = near ? `${time(nearest[0][0])}  ${nearest.map(([, value]) => format(value)).join(" / ")}` : "";
    const mark = svg.querySelector(".mark");
    mark.style.visibility = near ? "visible" : "hidden";
    if (near) for (const end of ["x1", "x2"]) mark.setAttribute(end, x(nearest[0][0]).toFixed(1));
  }
  function quiet(event) {
    event.currentTarget.querySelector(".readout").textContent = "";
    event.currentTarget.querySelector(".mark").style.visibility = "hidden";
  }
  return h("svg.plot", { onpointermove: tell, onpointerleave: quiet, viewBox: `0 0 ${wide} ${HIGH}`, role: "img", "aria-label": `${name}: ${said}` },
    h("line.rule", { x1: 0, y1: TOP, x2: wide, y2: TOP }), h("line.rule", { x1: 0, y1: BOTTOM, x2: wide, y2: BOTTOM }),
    h("line.mark", { x1: 0, y1: TOP, x2: 0, y2: BOTTOM, style: { visibility: "hidden" } }),
    lines, h("text", { x: LEFT, y: TOP - 4 }, format(top)), h("text.readout", { x: wide - LEFT, y: TOP - 4, "text-anchor": "end" }),
    h("text", { x: LEFT, y: HIGH - 4 }, time(from)), h("text", { x: wide - LEFT, y: HIGH - 4, "text-anchor": "end" }, time(to)));
}
