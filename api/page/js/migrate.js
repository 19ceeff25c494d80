// Migration: a dialog that says of each host whether the VM fits there and why (not), and the dock of
// hosts onto which a row is dragged. Of a VM that is off it is where it starts from now on (relocate).
//
// Whether it fits is asked of the service: a dry run for each host, some at a time.
import * as api from "./api.js";
import { spread } from "./bulk.js";
import { openDialog } from "./dialog.js";
import { button, clear, h, icon, patch } from "./dom.js";
import { fieldset } from "./fields.js";
import { mib } from "./format.js";
import { t, word } from "./i18n.js";
import { planOf } from "./plans.js";
import { store } from "./store.js";
import { openVerb } from "./verb.js";

const AT_ONCE = 3;
const FIRST = 24;
const BEST = "";

const verbOf = (row) => (row.power === "stopped" || row.power === "crashed" ? "relocate" : "migrate");
const DOTS = { asking: "busy", fits: "good", not: "bad", here: "" };

export async function openMigrate(row, ctx) {
  const verb = verbOf(row);
  const { name } = row.vm;
  const nodes = store.collection("nodes");
  const leaving = new AbortController();
  const box = openDialog({ title: t("migrate.title", { name, node: row.vm.node }), wide: true, onClose: () => leaving.abort() });
  clear(box.body, h("div.loading", h("div.spin"), h("span", t("loading"))));
  if (!nodes.loaded || nodes.stale) await nodes.refresh();
  const entry = (await api.verbs()).get(verb);
  const more = await fieldset(entry.fields.filter((one) => one.name !== "node"), { verb, args: { name }, vm: row.vm });
  if (leaving.signal.aborted) return;
  const hosts = [...(verb === "migrate" ? [{ name: BEST }] : []), ...nodes.list.map((one) => ({ name: one.node.name, seen: one }))]
    .map((one) => ({ ...one, state: one.name === row.vm.node ? "here" : "", text: "", plan: null }));
  let chosen = null;
  let asked = new AbortController();
  let sought = "";
  let shown = FIRST;
  const list = h("div.host-list", { role: "radiogroup", "aria-label": t("migrate.hosts") });
  const detail = h("div.stack", { "aria-live": "polite" });
  const search = nodes.list.length > 12 && h("input", { type: "search", "aria-label": t("migrate.search"), placeholder: t("migrate.search"), oninput: () => { sought = search.value.toLowerCase(); check(); } });
  const options = h("details", { onchange: () => { for (const one of hosts) if (one.state !== "here") one.state = ""; chosen = null; check(); } }, h("summary", t("form.more")), h("div.form", more.nodes));

  function visible() { return hosts.filter((one) => !sought || one.name.toLowerCase().includes(sought)).slice(0, shown); }

  function said(one) {
    if (one.state === "here") return t("migrate.here");
    if (one.state === "asking" || one.state === "") return t("migrate.asking");
    return one.text;
  }

  function draw() {
    patch(list, visible().map((one) => h("label.host-row", { key: `host-${one.name}`, class: `${one.state} ${chosen === one ? "chosen" : ""}` },
      h("input", { type: "radio", name: "host", checked: chosen === one, disabled: one.state === "here", onchange: () => { chosen = one; draw(); } }),
      h("span.host-main", h("span.dot", { class: DOTS[one.state] }, h("strong", one.name || t("migrate.best")),
        one.seen && h("span.soft", ` ${word("node.state", one.seen.state)} · ${t("migrate.free", { memory: mib(one.seen.memory_free_mib) })}`)),
      h("span.hint", { class: one.state === "not" ? "bad-text" : "" }, said(one))),
      h("span.badge", { class: one.state === "fits" ? "good" : one.state === "not" ? "bad" : "" }, one.state === "fits" ? t("migrate.fits") : one.state === "not" ? t("migrate.not") : one.state === "here" ? t("migrate.now") : "…"))),
    hosts.filter((one) => !sought || one.name.toLowerCase().includes(sought)).length > shown && button(t("migrate.more"), () => { shown += FIRST; check(); }, { key: "more" }));
    clear(detail, chosen?.plan && chosen.plan.el);
    box.setFoot(button(t("cancel"), () => box.close()), button(t(`verb.${verb}`), carryOut, { kind: "main confirm", disabled: !(chosen && chosen.state === "fits") }));
  }

  function values() { return more.values(); }

  function argsFor(one) { return { name, ...(one.name ? { node: one.name } : {}), ...values() }; }

  function carryOut() {
    const one = chosen;
    box.close();
    openVerb(verb, argsFor(one), { ctx, skipForm: true, only: [], confirmed: one.plan });
  }

  async function check() {
    asked.abort();
    asked = new AbortController();
    const signal = AbortSignal.any([asked.signal, leaving.signal]);
    const left = visible().filter((one) => one.state === "" || one.state === "asking");
    for (const one of left) one.state = "asking";
    draw();
    await spread(left, AT_ONCE, async (one) => {
      try {
        const plan = planOf(await api.plan(verb, argsFor(one), { signal }));
        Object.assign(one, { state: plan.empty ? "here" : "fits", plan, text: plan.plans[0]?.why ?? "" });
      } catch (error) {
        if (error.name === "AbortError") return;
        Object.assign(one, { state: "not", text: error.message, plan: null });
      }
      if (!chosen && one.state === "fits" && one.name === BEST) chosen = one;
      if (!signal.aborted) draw();
    }, signal);
  }

  clear(box.body, h("p.soft", t(`verb.${verb}.help`)), search, list, detail, options);
  check();
  list.querySelector("input:not(:disabled)")?.focus();
}

// ---- dragging

export function hostDock(ctx) {
  const list = h("div.dock-hosts");
  const title = h("strong");
  const el = h("aside.dock", { hidden: true, "aria-hidden": "true" }, title, list);
  const nodes = store.collection("nodes");
  let asked = null;

  function end() {
    asked?.abort();
    el.hidden = true;
  }

  function begin(row, event) {
    if (!nodes.list.length) nodes.refresh();
    event.dataTransfer.setData("text/plain", row.vm.name);
    event.dataTransfer.effectAllowed = "move";
    // What is dragged must not move under the pointer while the browser takes its picture.
    setTimeout(() => show(row), 0);
    document.addEventListener("dragend", end, { once: true });
    return true;
  }

  function show(row) {
    asked?.abort();
    asked = new AbortController();
    const { signal } = asked;
    title.textContent = t("migrate.drop", { name: row.vm.name });
    const places = nodes.list.map((one) => ({ one, name: one.node.name, state: one.node.name === row.vm.node ? "here" : "asking", text: "" }));
    const draw = () => patch(list, places.map((place) => h("div.dock-host", {
      key: place.name, class: place.state, title: place.text || undefined, "data-node": place.name,
      ondragover: (event) => { if (place.state !== "here") { event.preventDefault(); event.currentTarget.classList.add("over"); } },
      ondragleave: (event) => event.currentTarget.classList.remove("over"),
      ondrop: (event) => { event.preventDefault(); end(); openVerb(verbOf(row), { name: row.vm.name, node: place.name }, { ctx, only: ["force"], skipForm: true, vm: row.vm }); },
    }, h("span.dot", { class: DOTS[place.state] }, h("strong", place.name)), h("span.hint", place.state === "here" ? t("migrate.now") : place.state === "not" ? place.text : t("migrate.free", { memory: mib(place.one.memory_free_mib) })))));
    draw();
    el.hidden = false;
    spread(places.filter((one) => one.state === "asking").slice(0, FIRST), AT_ONCE, async (place) => {
      try {
        await api.plan(verbOf(row), { name: row.vm.name, node: place.name }, { signal });
        place.state = "fits";
      } catch (error) {
        if (error.name === "AbortError") return;
        Object.assign(place, { state: "not", text: error.message });
      }
      if (!signal.aborted) draw();
    }, signal);
  }

  ctx.signal.addEventListener("abort", end);
  if (ctx.can("migrate")) nodes.subscribe(() => {}, ctx.signal);
  return { el, begin, end };
}
