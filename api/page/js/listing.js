// What the views of lists and of single things are made of, beside table.js and dom.js.
//
//   head(title, {count, buttons})              the row on top of a view
//   tabs(ctx, [{key, text, path, shown}])      links to the parts of a view; the current one marked
//   listing(place, ctx, {source, rows, columns, id, text, buttons, entries, empty, name, filters})
//     a search, a table that follows a collection of the store, and a menu at the end of each row
//   facts([[name, value], …])                  what is empty is left out
//   dot(kind, text), badge(kind, text), bar(share, {name, warnAt, badAt})
//   verbEntries(ctx, [[verb, args, options] | null, …])   entries of a menu: what one may do
//   verbButton(ctx, verb, args, options)       a button that opens the dialog of a verb, or nothing
//   moreButton(name, entries)                  the "…" with its menu
//   failing(source)                            what is wrong with a collection, or nothing
import { named } from "./create.js";
import { menu } from "./dialog.js";
import { add, button, clear, h, icon, iconButton, patch } from "./dom.js";
import { number, percent } from "./format.js";
import { t } from "./i18n.js";
import { link } from "./router.js";
import { createTable } from "./table.js";
import { verbName } from "./tasks.js";

export { verbName };

export function head(title, { count, buttons = [], back } = {}) {
  return h("div.head", back && h("a.button.bare.square", { href: link(back.path), "aria-label": back.name, title: back.name }, icon("back")),
    h("h1", title), count !== undefined && h("span.count", count), h("div.grow"), h("div.buttons", buttons));
}

export function tabs(ctx, all) {
  return h("nav.tabs", { "aria-label": t("tabs.name") }, all.filter((one) => one.shown !== false).map((one) => h("a", {
    href: link(one.path), "aria-current": one.current ? "page" : undefined,
  }, one.text)));
}

export function dot(kind, text) { return h("span.dot", { class: kind }, text); }

export function badge(kind, text, title) { return h("span.badge", { class: kind, title }, text); }

// How full something is; beyond `warnAt` and `badAt` it says so by its colour, and always in words.
export function bar(share, { name, text, warnAt = 0.8, badAt = 0.93 } = {}) {
  const part = Math.max(0, Math.min(1, share || 0));
  const kind = part >= badAt ? "bad" : part >= warnAt ? "warn" : "";
  return h("span.meter", { role: "img", "aria-label": `${name}: ${text ?? percent(part * 100)}`, title: `${name}: ${text ?? percent(part * 100)}` },
    h("span.meter-bar", { class: kind }, h("span", { style: { width: `${(part * 100).toFixed(1)}%` } })),
    h("span.meter-text", { "aria-hidden": "true" }, percent(part * 100)));
}

export function facts(pairs) {
  return h("dl.facts", pairs.filter((one) => one && one[1] !== "" && one[1] !== null && one[1] !== undefined && one[1] !== false).map(([name, value]) => [h("dt", name), h("dd", value)]));
}

export function card(title, body, { buttons, key, wide, flush } = {}) {
  return h("section.card", { key, class: wide ? "wide" : "" }, h("header", h("h2", title), h("div.grow"), buttons), flush ? body : h("div.inner", body));
}

// Words of the service itself, which are English whatever the language of the page is.
export function said(text) { return text ? h("span", { lang: "en" }, text) : null; }

// `asks`: the label of a field for the name that stands in the path of the verb, and so in no form.
function open(ctx, verb, args, { asks, ...options }) {
  ctx.openVerb(verb, args, asks ? { title: verbName(verb), ...options, before: named(asks) } : options);
}

export function verbEntries(ctx, wanted) {
  const found = [];
  for (const one of wanted) {
    if (!one) { if (found.length && found.at(-1)) found.push(null); continue; }
    const [verb, args, options = {}] = one;
    if (!ctx.can(verb) || options.unless) continue;
    const { text, icon: picture, danger, ...rest } = options;
    found.push({ text: text || verbName(verb), icon: picture || "right", danger, run: () => open(ctx, verb, args, rest) });
  }
  while (found.length && !found.at(-1)) found.pop();
  return found;
}

export function verbButton(ctx, verb, args = {}, { text, icon: picture, kind = "", ...options } = {}) {
  if (!ctx.can(verb)) return null;
  return button(text || verbName(verb), () => open(ctx, verb, args, options), { kind, icon: picture, "data-verb": verb });
}

export function moreButton(name, entries) {
  const found = entries();
  if (!found.length) return null;
  const made = iconButton("more", name, () => menu(made, entries(), { name }), { "aria-haspopup": "menu", "aria-expanded": "false" });
  return made;
}

export function failing(source) {
  if (source.state === "loading") return h("div.loading", h("span.spin"), t("loading"));
  if (source.state === "denied") return h("div.empty", icon("shield"), h("p", t("denied.all")), h("p", said(source.error?.message)));
  if (source.state === "error" && !source.loaded) return h("div.empty.bad", icon("warn"), h("p", source.error.message));
  return null;
}

// Old figures that could not be read again are shown, and said to be old.
export function stale(source) {
  return source.state === "error" && source.loaded ? h("div.banner.bad", icon("warn"), h("div", t("stale", { why: source.error.message }))) : null;
}

export function listing(place, ctx, { source, rows = (one) => one.list, columns, id, text, entries, buttons = [], empty, name, filters, sort, drag }) {
  let words = ctx.query.q || "";
  const count = h("span.count", { role: "status" });
  const search = h("input", {
    type: "search", value: words, placeholder: t("list.search"), "aria-label": t("list.search_in", { what: name }),
    oninput: () => { words = search.value; ctx.setQuery({ q: words }); show(); },
  });
  const more = entries && [{
    key: "more", label: t("list.actions"), width: "40px", narrow: true, narrowWidth: "40px", ends: true,
    cell: (row) => moreButton(t("list.actions_of", { name: id(row) }), () => entries(row)),
  }];
  const table = createTable({
    name, columns: [...columns, ...(more || [])], id, drag,
    sort: { key: ctx.query.sort || sort?.key || columns[0].key, down: ctx.query.sort ? ctx.query.down === "1" : Boolean(sort?.down) },
    onSort: ({ key, down }) => ctx.setQuery({ sort: key, down: down ? "1" : "" }),
    empty: () => source.state === "ready" && !words && empty ? h("div.empty", icon(empty.icon || "info"), h("h2", empty.title), h("p", empty.text)) : h("div.empty", h("p", words ? t("list.none_found", { words }) : t("list.none"))),
  });
  table.el.classList.add("tall");
  // Rows may have nothing that can have the focus, and are scrolled with the keyboard all the same.
  table.el.querySelector(".grid-scroll").tabIndex = 0;
  const state = h("div.said");
  const bars = h("div.toolbar", h("div.search", icon("search"), search), filters, count, h("div.grow"), h("div.buttons", buttons));
  add(place, [bars, state, table.el]);
  function show() {
    const bad = failing(source);
    patch(state, bad || stale(source));
    table.el.hidden = Boolean(bad);
    const all = bad ? [] : rows(source);
    const wanted = words.toLowerCase().split(/\s+/).filter(Boolean);
    const found = wanted.length ? all.filter((one) => { const whole = text(one).toLowerCase(); return wanted.every((word) => whole.includes(word)); }) : all;
    count.textContent = bad ? "" : found.length === all.length ? number(all.length) : t("list.some_of", { some: number(found.length), all: number(all.length) });
    table.setRows(found);
  }
  source.subscribe(show, ctx.signal);
  return { table, show, redraw: () => table.redraw() };
}

// Draws a part of a view again whenever one of these collections changes.
export function follow(sources, signal, draw) {
  let waiting = false;
  const later = () => {
    if (waiting) return;
    waiting = true;
    queueMicrotask(() => { waiting = false; if (!signal.aborted) draw(); });
  };
  for (const one of sources) one.subscribe(later, signal);
}

// A view with parts: the head stays, the part below is drawn anew when its tab is chosen.
export function parted(root, ctx, { title, all, fallback }) {
  const top = h("div.parted-head");
  const place = h("div.part");
  add(root, [top, place]);
  let left = null;
  function draw(now) {
    left?.abort();
    left = new AbortController();
    const signal = AbortSignal.any([now.signal, left.signal]);
    const shown = all.filter((one) => one.shown !== false);
    const tab = shown.find((one) => one.key === now.params.tab) || shown[0];
    if (!tab) { clear(place, h("div.empty", icon("shield"), h("p", fallback))); return; }
    clear(top, head(title), tabs(now, shown.map((one) => ({ ...one, current: one === tab }))));
    clear(place);
    now.setTitle(`${tab.text} · ${title}`);
    tab.draw(place, { ...now, signal, setQuery: now.setQuery });
  }
  draw(ctx);
  return { update: draw, end: () => left?.abort() };
}
