// All VMs: searched, sorted, filtered, several of them chosen at once; a row can be dragged onto a
// host. What the address says (?q=…&state=…&node=…&tag=…&sort=…) is what is shown, and the reverse.
import { openBulk } from "../bulk.js";
import { createVm, installVm, undeleteVm } from "../create.js";
import { menu } from "../dialog.js";
import { clear, button, h, icon, iconButton } from "../dom.js";
import { bytes, mib, number } from "../format.js";
import { t, word } from "../i18n.js";
import { hostDock } from "../migrate.js";
import { link } from "../router.js";
import { createTable } from "../table.js";
import { BULK, actionsOf, powerDot } from "../vm_actions.js";

export const view = { path: "/vms", title: "nav.vms", icon: "vm", nav: 20, render };

export const diskBytes = (vm) => vm.disks.reduce((sum, one) => sum + (one.device === "disk" ? one.size_bytes : 0), 0);

function render(root, ctx) {
  const vms = ctx.store.collection("vms");
  const ha = ctx.store.collection("ha_vms");
  const chosen = new Set();
  const wanted = { q: "", state: "", node: "", tag: "", ...ctx.query };
  const [sortKey, sortDown] = (ctx.query.sort || "name").split("-");

  const count = h("span.count", { role: "status" });
  const search = h("input", { type: "search", value: wanted.q, placeholder: t("vms.search"), "aria-label": t("vms.search"), oninput: () => say("q", search.value) });
  const pick = (key, name) => h("select", { "aria-label": t(name), onchange: (event) => say(key, event.target.value) });
  const filters = { state: pick("state", "vms.any_state"), node: pick("node", "vms.any_host"), tag: pick("tag", "vms.any_tag") };
  const bulk = h("div.bulk", { hidden: true, role: "region", "aria-label": t("vms.bulk") });
  const dock = hostDock(ctx);

  const table = createTable({
    name: t("nav.vms"), id: (row) => row.vm.name, chosen: ctx.can("start") ? chosen : null, onChosen: drawBulk,
    sort: { key: sortKey, down: sortDown === "down" }, onSort: ({ key, down }) => ctx.setQuery({ sort: key === "name" && !down ? "" : `${key}${down ? "-down" : ""}` }),
    drag: ctx.can("migrate") ? (row, event) => dock.begin(row, event) : undefined,
    empty: nothing,
    columns: [
      { key: "name", label: t("vms.name"), width: "2.4fr", narrow: true, value: (row) => row.vm.name, cell: nameCell },
      { key: "state", label: t("vms.state"), width: "1.2fr", narrowWidth: "104px", narrow: true, value: (row) => row.power, cell: (row) => powerDot(row) },
      { key: "node", label: t("vms.host"), width: "1fr", value: (row) => row.vm.node, cell: (row) => row.vm.node },
      { key: "vcpus", label: t("vms.vcpus"), width: "64px", right: true, value: (row) => row.vm.vcpus, cell: (row) => number(row.vm.vcpus) },
      { key: "memory", label: t("vms.memory"), width: "88px", right: true, value: (row) => row.vm.memory_mib, cell: (row) => mib(row.vm.memory_mib) },
      { key: "disks", label: t("vms.disks"), width: "88px", right: true, value: (row) => diskBytes(row.vm), cell: (row) => bytes(diskBytes(row.vm)) },
      { key: "ha", label: t("vms.ha"), width: "1fr", value: (row) => haText(row), cell: haCell },
      { key: "tags", label: t("vms.tags"), width: "1.4fr", value: (row) => row.vm.tags.join(" "), cell: (row) => h("span.badges", row.vm.tags.map((one) => h("span.badge", one))) },
      { key: "more", label: t("vms.actions"), width: "36px", narrow: true, ends: true, cell: moreCell },
    ],
  });

  function nameCell(row) {
    return [h("a.name", { href: link(`/vms/${encodeURIComponent(row.vm.name)}`), draggable: "false" }, row.vm.name),
      row.notes.length > 0 && h("span.note-mark", { title: row.notes.join("\n") }, icon("warn"), h("span.sr", row.notes.join(". "))),
      row.vm.description && h("span.soft.wide-only.about", row.vm.description)];
  }

  function haText(row) {
    const found = ha.items.get(row.vm.name);
    return found ? (found.state ?? found.settings.requested) : "";
  }

  function haCell(row) {
    const found = ha.items.get(row.vm.name);
    if (!found) return "";
    const bad = ["error", "recovery", "fence"].includes(found.state);
    return h("span.badge", { class: bad ? "bad" : "accent", title: found.sentence || undefined }, icon("shield"), word("ha.state", found.state ?? found.settings.requested));
  }

  function moreCell(row) {
    if (!ctx.can("start")) return "";
    const press = iconButton("more", t("vms.actions_of", { name: row.vm.name }), () => menu(press, actionsOf(row, ctx)), { "aria-haspopup": "menu", "aria-expanded": "false" });
    return press;
  }

  function nothing() {
    if (vms.state === "loading" || vms.partial) return h("div.loading", h("div.spin"), h("span", t("loading")));
    if (vms.state === "error" && !vms.loaded) return h("div.empty.bad", icon("warn"), h("h2", t("error.title")), h("p", vms.error.message), button(t("again"), () => vms.refresh()));
    if (vms.list.length) return h("div.empty", icon("search"), h("h2", t("vms.no_match")), button(t("vms.show_all"), reset));
    return h("div.empty", icon("vm"), h("h2", t("vms.empty")), h("p", t(ctx.can("create") ? "vms.empty_text" : "vms.empty_viewer")), ctx.can("create") && button(t("verb.create"), () => createVm(ctx), { kind: "main", icon: "plus" }));
  }

  function reset() {
    Object.assign(wanted, { q: "", state: "", node: "", tag: "" });
    search.value = "";
    ctx.setQuery(wanted);
    draw();
    search.focus();
  }

  function say(key, value) {
    wanted[key] = value;
    ctx.setQuery({ [key]: value });
    draw();
  }

  function fits(row) {
    const { vm } = row;
    if (wanted.state && row.power !== wanted.state) return false;
    if (wanted.node && vm.node !== wanted.node) return false;
    if (wanted.tag && !vm.tags.includes(wanted.tag)) return false;
    if (!wanted.q) return true;
    // Words that all have to be somewhere in it.
    const text = `${vm.name} ${vm.node} ${row.power} ${word("power", row.power)} ${vm.tags.join(" ")} ${vm.description}`.toLowerCase();
    return wanted.q.toLowerCase().split(/\s+/).every((one) => text.includes(one));
  }

  function choices(select, key, any, found, name = (one) => one) {
    const before = select.dataset.of;
    const now = [...found].sort(new Intl.Collator(undefined, { numeric: true }).compare);
    if (wanted[key] && !now.includes(wanted[key])) now.push(wanted[key]);
    if (before === now.join("\n")) { select.value = wanted[key]; return; }
    select.dataset.of = now.join("\n");
    clear(select, h("option", { value: "" }, t(any)), now.map((one) => h("option", { value: one }, name(one))));
    select.value = wanted[key];
  }

  function draw() {
    const all = vms.list;
    choices(filters.state, "state", "vms.any_state", new Set(all.map((one) => one.power)), (one) => word("power", one));
    choices(filters.node, "node", "vms.any_host", new Set(all.map((one) => one.vm.node)));
    choices(filters.tag, "tag", "vms.any_tag", new Set(all.flatMap((one) => one.vm.tags)));
    for (const one of chosen) if (!vms.items.has(one)) chosen.delete(one);
    const rows = all.filter(fits);
    table.setRows(rows);
    count.textContent = vms.partial ? t("loading") : vms.loaded ? (rows.length === all.length ? t("vms.count", { n: all.length }) : t("vms.count_of", { n: rows.length, all: all.length })) : "";
    drawBulk();
  }

  function drawBulk() {
    bulk.hidden = chosen.size === 0;
    if (!chosen.size) { clear(bulk); return; }
    const rows = [...chosen].map((one) => vms.items.get(one)).filter(Boolean);
    const focused = document.activeElement?.dataset?.verb;
    const first = BULK.slice(0, 4).filter((one) => ctx.can(one.verb));
    const rest = BULK.slice(4).filter((one) => ctx.can(one.verb));
    const run = (one) => openBulk(one.verb, rows.filter(one.fits), ctx);
    const more = rest.length > 0 && h("button.button.bare", { type: "button", "aria-haspopup": "menu", "aria-expanded": "false", onclick: () => menu(more, rest.map((one) => ({ text: t(`verb.${one.verb}`), icon: one.icon, danger: one.danger, disabled: !rows.some(one.fits), run: () => run(one) }))) }, icon("more"), h("span", t("more")));
    clear(bulk, h("strong", t("vms.chosen", { n: chosen.size })),
      first.map((one) => button(`${t(`verb.${one.verb}`)} (${number(rows.filter(one.fits).length)})`, () => run(one), { icon: one.icon, kind: "small", disabled: !rows.some(one.fits), "data-verb": one.verb })), more,
      h("span.grow"), button(t("vms.choose_none"), () => { chosen.clear(); table.redraw(); drawBulk(); search.focus(); }, { kind: "bare small" }));
    if (focused) bulk.querySelector(`[data-verb="${focused}"]`)?.focus();
  }

  const others = ctx.can("create") && h("button.button.square", { type: "button", "aria-haspopup": "menu", "aria-expanded": "false", "aria-label": t("vms.other_ways"), title: t("vms.other_ways"), onclick: () => menu(others, [
    { text: t("verb.install"), icon: "image", run: () => installVm(ctx) },
    { text: t("verb.undelete"), icon: "trash", run: () => undeleteVm(ctx) },
  ]) }, icon("down"));
  root.classList.add("fills");
  root.append(h("div.head", h("h1", t("nav.vms")), count, h("span.grow"), ctx.can("create") && button(t("verb.create"), () => createVm(ctx), { kind: "main", icon: "plus" }), others),
    h("div.toolbar", h("div.search", icon("search"), search), filters.state, filters.node, filters.tag), bulk, table.el, dock.el);
  vms.subscribe(draw, ctx.signal);
  ha.subscribe(() => table.redraw(), ctx.signal);
  return () => dock.end();
}
