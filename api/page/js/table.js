// A table that stays quick with many thousands of rows: only the rows that can be seen are drawn.
//
//   const table = createTable({
//     name: t("…"),                                  for screen readers
//     columns: [{key, label, width: "2fr", value: row => sortable, cell: row => string|Node,
//                right: true, narrow: true (stays on a phone), ends: true (buttons at the end)}],
//     id: row => string, sort: {key, down}, onSort({key, down}),
//     chosen: Set of ids | null, onChosen(set),      check boxes; shift-click chooses a range
//     drag: (row, event) => boolean,                 dragstart of a row
//     emptyText, loadingText })
//   table.el; table.setRows(rows); table.rows (sorted); table.redraw()
//
// Keys: arrows, Page up/down, Home, End go from row to row, as links and boxes in rows have focus.
import { clear, h, icon } from "./dom.js";
import { language, t } from "./i18n.js";

const MORE = 8;

export function createTable({ name, columns, id, sort, onSort, chosen = null, onChosen, drag, empty }) {
  let rows = [];
  let sorting = sort;
  let last = null;
  const drawn = new Map();
  const space = h("div.grid-space", { role: "presentation" });
  const nothing = h("div", { hidden: true });
  const scroll = h("div.grid-scroll", { role: "rowgroup" }, space);
  const head = h("div.grid-head", { role: "rowgroup" });
  const el = h("div.grid", { role: "presentation" });
  const inner = h("div.grid-inner", { role: "table", "aria-label": name }, head, scroll);
  inner.style.cssText = "display:flex;flex-direction:column;flex:1;min-height:0";
  el.append(inner, nothing);
  const box = chosen ? ["20px"] : [];
  el.style.setProperty("--columns", [...box, ...columns.map((one) => `minmax(0, ${one.width || "1fr"})`)].join(" "));
  el.style.setProperty("--columns-narrow", [...box, ...columns.filter((one) => one.narrow).map((one) => `minmax(0, ${one.narrowWidth || one.width || "1fr"})`)].join(" "));
  const everything = chosen && h("input", {
    type: "checkbox", "aria-label": t("table.all"),
    onchange: () => { if (everything.checked) for (const row of rows) chosen.add(id(row)); else chosen.clear(); changed(); },
  });

  function height() { return parseFloat(getComputedStyle(el).getPropertyValue("--row")) || 36; }

  function drawHead() {
    const focused = head.contains(document.activeElement) ? document.activeElement.dataset.key : null;
    clear(head, h("div.grid-row", { role: "row", "aria-rowindex": "1" },
      chosen && h("div.box", { role: "columnheader" }, everything),
      columns.map((one) => h("div", {
        role: "columnheader", class: `${one.right ? "right" : ""} ${one.narrow ? "" : "wide-only"} ${one.ends ? "ends" : ""}`,
        "aria-sort": sorting?.key === one.key ? (sorting.down ? "descending" : "ascending") : undefined,
      }, one.value
        ? h("button", { type: "button", "data-key": one.key, onclick: () => sortBy(one.key) }, one.label, sorting?.key === one.key && icon(sorting.down ? "down" : "up"))
        : h("span", { class: one.ends ? "sr" : "" }, one.label)))));
    if (focused) head.querySelector(`[data-key="${focused}"]`)?.focus();
  }

  function sortBy(key) {
    sorting = { key, down: sorting?.key === key ? !sorting.down : false };
    onSort?.(sorting);
    order();
    drawHead();
    draw(true);
  }

  function order() {
    const column = columns.find((one) => one.key === sorting?.key);
    if (!column?.value) return;
    const compare = new Intl.Collator(language(), { numeric: true }).compare;
    const by = sorting.down ? -1 : 1;
    const keys = new Map(rows.map((row) => [row, column.value(row)]));
    rows = [...rows].sort((a, b) => {
      const [x, y] = [keys.get(a), keys.get(b)];
      const found = typeof x === "number" && typeof y === "number" ? x - y : compare(String(x ?? ""), String(y ?? ""));
      return by * found || compare(id(a), id(b));
    });
  }

  function changed() {
    draw(true);
    onChosen?.(chosen);
  }

  function choose(row, event) {
    const called = id(row);
    const on = !chosen.has(called);
    const from = last === null ? -1 : rows.findIndex((one) => id(one) === last);
    const to = rows.indexOf(row);
    if (event.shiftKey && from >= 0) for (const one of rows.slice(Math.min(from, to), Math.max(from, to) + 1)) chosen[on ? "add" : "delete"](id(one));
    else chosen[on ? "add" : "delete"](called);
    last = called;
    changed();
  }

  function rowEl(row, at, size) {
    const called = id(row);
    const on = Boolean(chosen?.has(called));
    const key = `${on}`;
    const before = drawn.get(called);
    if (before && before.row === row && before.key === key) {
      place(before.el, at, size);
      return before;
    }
    const made = h("div.grid-row", { role: "row", class: on ? "chosen" : "", draggable: drag ? "true" : undefined },
      chosen && h("div.box", { role: "cell" }, h("input", { type: "checkbox", checked: on, "aria-label": t("table.choose", { name: called }), onclick: (event) => choose(row, event) })),
      columns.map((one) => h("div", { role: "cell", class: `${one.right ? "right" : ""} ${one.narrow ? "" : "wide-only"} ${one.ends ? "ends" : ""}` }, one.cell(row))));
    made.dataset.id = called;
    if (drag) {
      made.addEventListener("dragstart", (event) => { if (drag(row, event)) made.classList.add("dragged"); else event.preventDefault(); });
      made.addEventListener("dragend", () => { made.classList.remove("dragged"); made.dispatchEvent(new CustomEvent("drag-over", { bubbles: true })); });
    }
    place(made, at, size);
    // What had the focus keeps it, when its row is drawn anew.
    if (before?.el.contains(document.activeElement)) {
      const where = focusable(before.el).indexOf(document.activeElement);
      before.el.replaceWith(made);
      focusable(made)[where]?.focus({ preventScroll: true });
    } else before?.el.remove();
    return { row, key, el: made };
  }

  function place(one, at, size) {
    one.style.top = `${at * size}px`;
    one.setAttribute("aria-rowindex", String(at + 2));
  }

  function draw(keep = false) {
    const size = height();
    space.style.height = `${rows.length * size}px`;
    if (everything) {
      const many = rows.reduce((sum, row) => sum + (chosen.has(id(row)) ? 1 : 0), 0);
      everything.checked = many > 0 && many === rows.length;
      everything.indeterminate = many > 0 && many < rows.length;
    }
    const from = Math.max(0, Math.floor(scroll.scrollTop / size) - MORE);
    const to = Math.min(rows.length, Math.ceil((scroll.scrollTop + (scroll.clientHeight || 800)) / size) + MORE);
    const seen = new Set();
    let after = null;
    for (let at = from; at < to; at += 1) {
      const called = id(rows[at]);
      seen.add(called);
      const one = rowEl(rows[at], at, size);
      drawn.set(called, one);
      // In the order that is seen, for those who tab or listen.
      const next = after ? after.nextSibling : space.firstChild;
      if (one.el !== next) space.insertBefore(one.el, next);
      after = one.el;
    }
    for (const [called, one] of drawn) {
      if (seen.has(called)) continue;
      if (!keep && one.el.contains(document.activeElement)) continue;
      one.el.remove();
      drawn.delete(called);
    }
    inner.setAttribute("aria-rowcount", String(rows.length + 1));
    nothing.hidden = rows.length > 0;
    scroll.hidden = rows.length === 0;
    if (rows.length === 0) clear(nothing, empty?.());
  }

  const focusable = (one) => [...one.querySelectorAll("a, button, input")];
  scroll.addEventListener("keydown", (event) => {
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: 12, PageUp: -12 };
    const row = event.target.closest(".grid-row");
    if (!row || event.ctrlKey || event.altKey || event.metaKey) return;
    const at = rows.findIndex((one) => id(one) === row.dataset.id);
    let to = at + (steps[event.key] || 0);
    if (event.key === "Home") to = 0;
    else if (event.key === "End") to = rows.length - 1;
    else if (!steps[event.key]) return;
    event.preventDefault();
    to = Math.max(0, Math.min(rows.length - 1, to));
    const where = focusable(row).indexOf(event.target);
    const size = height();
    if (to * size < scroll.scrollTop) scroll.scrollTop = to * size;
    if ((to + 1) * size > scroll.scrollTop + scroll.clientHeight) scroll.scrollTop = (to + 1) * size - scroll.clientHeight;
    draw();
    const there = drawn.get(id(rows[to]))?.el;
    if (there) (focusable(there)[where] || focusable(there)[0])?.focus({ preventScroll: true });
    draw();
  });
  let waiting = false;
  const later = () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => { waiting = false; draw(); });
  };
  scroll.addEventListener("scroll", later, { passive: true });
  new ResizeObserver(later).observe(scroll);
  drawHead();

  return {
    el,
    get rows() { return rows; },
    setRows(found) { rows = found; order(); draw(true); },
    redraw() { for (const one of drawn.values()) one.key = ""; draw(true); },
    scrollTo(called) {
      const at = rows.findIndex((one) => id(one) === called);
      if (at >= 0) { scroll.scrollTop = Math.max(0, (at - 3) * height()); draw(); }
    },
  };
}
