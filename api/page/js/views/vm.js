// One VM: what it is and does, its disks, snapshots, network, consoles and history. Each tab is a
// function that draws from what was read; the console tab is a module of its own.
import { button, clear, h, icon, iconButton, OWN, patch } from "../dom.js";
import { menu, notice } from "../dialog.js";
import { ago, bytes, duration, mib, number, rate, time } from "../format.js";
import { t, word } from "../i18n.js";
import { plot } from "../plot.js";
import { link } from "../router.js";
import { stateDot, verbName } from "../tasks.js";
import { act, actionsOf, may, powerDot } from "../vm_actions.js";

export const view = { path: "/vms/:name/:tab?", title: "nav.vms", icon: "vm", render, update: (ctx) => ctx.changed?.() };

const TABS = ["overview", "disks", "snapshots", "network", "consoles", "history"];
const FIGURES_EVERY_MS = 15000;
const HOUR = 3600;

function render(root, ctx) {
  let name = "";
  let seen = null;
  let forName = new AbortController();
  const body = h("div.stack.vm-body");
  const head = h("div.stack");
  root.append(head, body);
  const store = ctx.store;

  // What each tab reads beside the VM itself: kept while the VM is shown.
  const more = { disks: null, ha: null, forwards: null, history: null, tasks: null, span: HOUR };

  async function read() {
    const { signal } = forName;
    try {
      const found = await ctx.api.get(`/v1/vms/${encodeURIComponent(name)}`, { signal });
      if (signal.aborted) return;
      seen = { ...found.data, etag: found.etag, power: found.data.power };
      draw();
      extras();
    } catch (error) {
      if (error.name === "AbortError") return;
      if (error.status === 404 || !seen) missing(error); else notice(error.message, { kind: "bad" });
    }
  }

  function missing(error) {
    seen = null;
    clear(head);
    const gone = error.status === 404;
    clear(body, h("div.empty", { class: gone ? "" : "bad" }, icon(gone ? "vm" : "warn"), h("h1", gone ? t("vm.gone", { name }) : t("error.title")), h("p", gone ? t("vm.gone_text") : error.message),
      h("div.buttons", !gone && button(t("again"), read), h("a.button", { href: "#/vms" }, t("vm.all")))));
  }

  const quietly = async (key, verb, args) => {
    const { signal } = forName;
    try {
      const found = await ctx.api.call(verb, args, { signal });
      if (!signal.aborted) more[key] = found;
    } catch (error) { if (error.name !== "AbortError" && !signal.aborted) more[key] = more[key] ?? []; }
    if (!signal.aborted && seen) draw();
  };

  function extras() {
    const tab = ctx.params.tab || "overview";
    if (tab === "overview") { quietly("ha", "ha_show", { name }); quietly("history", "history", { name, for_s: more.span }); }
    if (tab === "disks") quietly("disks", "disk_list", { name });
    if (tab === "network") quietly("forwards", "forward_list", { name });
    if (tab === "history") readTasks();
  }

  async function readTasks() {
    const { signal } = forName;
    try {
      const found = await ctx.api.list("/v1/tasks", { subject: name, limit: 100 }, { signal });
      if (!signal.aborted) { more.tasks = found; draw(); }
    } catch (error) { if (error.name !== "AbortError") notice(error.message, { kind: "bad" }); }
  }

  function begin() {
    forName.abort();
    forName = new AbortController();
    ctx.signal.addEventListener("abort", () => forName.abort(), { once: true });
    name = ctx.params.name;
    seen = null;
    Object.assign(more, { disks: null, ha: null, forwards: null, history: null, tasks: null });
    ctx.setTitle(name);
    clear(head);
    clear(body, h("div.loading", h("div.spin"), h("span", t("loading"))));
    let waiting = null;
    const again = () => { waiting ||= setTimeout(() => { waiting = null; read(); }, 150); };
    for (const kind of ["vm", "power", "havm", "ha"]) store.on(kind, (data) => { if (data.name === name) again(); }, forName.signal);
    store.on("task", (data) => { if (data.task?.subject === name && ctx.params.tab === "history") readTasks(); }, forName.signal);
    store.on("live", (live) => { if (live) again(); }, forName.signal);
    const clock = setInterval(() => { if (!document.hidden && seen) extras(); }, FIGURES_EVERY_MS);
    forName.signal.addEventListener("abort", () => clearInterval(clock));
    read();
  }

  ctx.changed = () => { if (ctx.params.name !== name) begin(); else if (seen) { clear(body); draw(); extras(); } };

  function draw() {
    const { vm } = seen;
    const tab = TABS.includes(ctx.params.tab) ? ctx.params.tab : "overview";
    const quick = [["start", "play"], ["resume", "play"], ["stop", "stop"], ["migrate", "move"]].filter(([verb]) => may(verb, seen, ctx));
    patch(head,
      h("div.head", h("a.soft", { href: "#/vms" }, t("nav.vms")), h("span.soft", { "aria-hidden": "true" }, "/"), h("h1", vm.name), powerDot(seen),
        h("span.soft", t("vm.on_host", { node: vm.node })),
        h("span.badges", vm.tags.map((one) => h("a.badge", { href: link("/vms", { tag: one }) }, one))),
        h("span.grow"),
        h("div.buttons", quick.map(([verb, picture]) => button(t(`verb.${verb}`), () => act(verb, seen, ctx), { icon: picture, key: verb })),
          actionsOf(seen, ctx).length > 0 && h("button.button", { key: "more", type: "button", "aria-haspopup": "menu", "aria-expanded": "false", onclick: (event) => menu(event.currentTarget, actionsOf(seen, ctx, { without: quick.map(([verb]) => verb) }), { name: t("vms.actions_of", { name }) }) }, icon("more"), h("span", t("more"))))),
      seen.silent_since && h("div.banner", { key: "silent" }, icon("warn"), h("div", t("vm.silent"))),
      seen.notes.map((one) => h("div.banner.info", { key: one }, icon("info"), h("div", one))),
      h("nav.tabs", { "aria-label": name, key: "tabs" }, TABS.map((one) => h("a", { href: link(`/vms/${encodeURIComponent(name)}${one === "overview" ? "" : `/${one}`}`), "aria-current": one === tab ? "page" : undefined }, t(`vm.tab.${one}`)))));
    if (tab === "consoles") {
      if (!body.querySelector(".console-place")) consoles();
      return;
    }
    patch(body, { overview, disks, snapshots, network, history }[tab]());
  }

  async function consoles() {
    const place = h("div.console-place", { own: true });
    place[OWN] = true;
    clear(body, place);
    const { signal } = forName;
    let module = null;
    try {
      module = await import("../consoles.js");
    } catch { /* it is not a part of this service */ }
    if (signal.aborted || !place.isConnected) return;
    if (module) { await module.mount(place, { ...ctx, signal: AbortSignal.any([signal, gone(place)]) }, seen); return; }
    clear(place, h("div.empty", icon("console"), h("p", t("vm.no_consoles", { name }))));
  }

  // Aborted when the place is taken out of the page: by another tab, or another VM.
  function gone(place) {
    const end = new AbortController();
    const watch = new MutationObserver(() => { if (!place.isConnected) { watch.disconnect(); end.abort(); } });
    watch.observe(body, { childList: true });
    return end.signal;
  }

  const facts = (entries) => h("dl.facts", entries.filter(Boolean).map(([term, value]) => [h("dt", term), h("dd", value)]));
  const can = (verb, text, onclick, options = {}) => ctx.can(verb) && button(text, onclick, { kind: "small", ...options });
  const does = (verb, args = {}, options = {}) => act(verb, seen, ctx, { args, ...options });

  function overview() {
    const { vm, domain } = seen;
    const options = [["secure_boot", vm.secure_boot], ["tpm", vm.tpm], ["graphics", vm.graphics], ["agent", vm.agent]].filter(([, on]) => on).map(([key]) => t(`vm.${key}`));
    return h("div.cards.wide-cards", { key: "overview" },
      h("section.card", { key: "what" }, h("header", h("h2", t("vm.what")), h("span.grow"), can("change", t("verb.change"), () => does("change"), { icon: "edit" })),
        h("div.inner", facts([
          vm.description && [t("vm.description"), vm.description],
          [t("vm.cpu"), t("vm.cpu_of", { vcpus: vm.vcpus, max: vm.vcpus_max, cpu: vm.cpu })],
          [t("vms.memory"), vm.memory_max_mib > vm.memory_mib ? t("vm.memory_of", { memory: mib(vm.memory_mib), max: mib(vm.memory_max_mib) }) : mib(vm.memory_mib)],
          [t("vms.disks"), vm.disks.filter((one) => one.device === "disk").map((one) => `${one.name} ${bytes(one.size_bytes)}`).join(", ") || t("none")],
          [t("vm.addresses"), seen.addresses.length ? seen.addresses.map((one) => one.ip).join(", ") : t("none")],
          [t("vms.tags"), vm.tags.length ? vm.tags.join(", ") : t("none")],
          vm.require_tags.length > 0 && [t("vm.require_tags"), vm.require_tags.join(", ")],
          [t("vm.machine"), `${vm.machine}, ${vm.firmware.toUpperCase()}`],
          [t("field.hypervisor"), vm.hypervisor === "kvm" ? t("vm.hypervisor_kvm") : t(vm.hypervisor === "xen" ? "vm.hypervisor_xen" : "vm.hypervisor_any", { kind: vm.xen_kind.toUpperCase() + (vm.xen_kind !== "hvm" && vm.xen_loader === "pvgrub" ? `, ${vm.xen_loader}` : "") })],
          [t("vm.options"), options.join(", ") || t("none")],
          [t("vm.wanted"), word("power", vm.wanted)],
          vm.home && [t("vm.home"), vm.home],
          [t("vm.created"), time(vm.created_at)],
          [t("vm.generation"), domain && domain.generation && domain.generation !== vm.generation ? t("vm.generation_other", { generation: vm.generation, running: domain.generation }) : number(vm.generation)],
        ]))),
      highAvailability(),
      figures());
  }

  function highAvailability() {
    const found = more.ha && !Array.isArray(more.ha) ? more.ha : null;
    const settings = found?.settings;
    return h("section.card", { key: "ha" }, h("header", h("h2", t("vm.ha")), h("span.grow"), can("ha_set", t("verb.ha_set"), () => does("ha_set"), { icon: "shield" })),
      h("div.inner.stack", more.ha === null ? h("div.loading", h("div.spin")) : !settings ? h("p.soft", t("vm.ha_none")) : [
        found.state && h("p", h("span.badge", { class: ["error", "recovery", "fence"].includes(found.state) ? "bad" : "accent" }, word("ha.state", found.state)), " ", found.since && h("span.soft", t("vm.ha_since", { since: ago(found.since) }))),
        found.sentence && h("p.why", found.sentence),
        facts([
          [t("vm.ha_wanted"), word("ha.state", settings.requested)],
          settings.nodes.length > 0 && [t("vm.ha_nodes"), settings.nodes.map((one) => (one.priority ? `${one.node} (${one.priority})` : one.node)).join(", ")],
          [t("vm.ha_tries"), t("vm.ha_tries_of", { restart: settings.max_restart, relocate: settings.max_relocate })],
          settings.start_order > 0 && [t("vm.ha_order"), number(settings.start_order)],
          found.target && [t("vm.ha_target"), found.target],
          found.rules.length > 0 && [t("vm.ha_rules"), found.rules.map((one) => (typeof one === "string" ? one : one.name)).join(", ")],
        ]),
        found.notes.map((one) => h("div.banner", icon("info"), h("div", one)))]));
  }

  function figures() {
    const found = more.history && !Array.isArray(more.history) ? more.history : null;
    const points = found?.points || [];
    const to = Date.now() / 1000;
    const from = to - more.span;
    const curve = (key, name_) => ({ name: name_, points: points.map((one) => [one.at, one.rates[key]]) });
    const one = (title, curves, format, most = 0) => h("figure.stack", { key: title }, h("figcaption", h("h3", title)), plot({ name: title, curves, format, from, to, stepS: found?.step_s || 15, most, wide: 260 }));
    const span = (seconds, text) => h("button.button.small", { type: "button", "aria-pressed": String(more.span === seconds), onclick: () => { more.span = seconds; more.history = null; draw(); quietly("history", "history", { name, for_s: seconds }); } }, text);
    return h("section.card.all-wide", { key: "figures" }, h("header", h("h2", t("vm.figures")), h("span.grow"), h("div.buttons", { role: "group", "aria-label": t("vm.figures") }, span(HOUR, t("vm.last_hour")), span(24 * HOUR, t("vm.last_day")))),
      h("div.inner", more.history === null ? h("div.loading", h("div.spin"), h("span", t("loading"))) : h("div.small-plots",
        one(t("vm.cpu_plot"), [curve("cpu")], (value) => number(value, 2), seen.vm.vcpus),
        one(t("vm.memory_plot"), [curve("memory_mib")], mib, seen.vm.memory_mib),
        one(t("vm.disk_plot"), [curve("disk_read_bytes_s", t("vm.read")), curve("disk_written_bytes_s", t("vm.written"))], rate),
        one(t("vm.net_plot"), [curve("received_bytes_s", t("vm.received")), curve("sent_bytes_s", t("vm.sent"))], rate))));
  }

  function rowMenu(label, entries) {
    const fit = entries.filter((one) => one && ctx.can(one.verb)).map((one) => ({ text: t(`verb.${one.verb}`), icon: one.icon, danger: one.danger, run: () => does(one.verb, one.args, one.options) }));
    return fit.length > 0 && iconButton("more", label, (event) => menu(event.currentTarget, fit), { "aria-haspopup": "menu", "aria-expanded": "false" });
  }

  function tableCard(key, title, actions, columns, rows, none) {
    return h("section.card", { key }, h("header", h("h2", title), h("span.grow"), actions),
      rows.length === 0 ? h("div.empty", none) : h("div.table-wrap", { tabindex: "0", role: "region", "aria-label": title }, h("table.table", h("thead", h("tr", columns.map((one) => h("th", { scope: "col", class: one.right ? "right" : "" }, one.hide ? h("span.sr", one.text) : one.text)))), h("tbody", rows))));
  }

  function limitsOf(limits) {
    const found = Object.entries(limits || {}).filter(([, value]) => value).map(([key, value]) => `${word("field", key)} ${number(value)}`);
    return found.join(", ") || t("none");
  }

  function disks() {
    const { vm } = seen;
    const found = new Map((more.disks || []).map((one) => [one.disk.name, one]));
    const full = vm.disks.filter((one) => one.device === "disk");
    const drives = vm.disks.filter((one) => one.device === "cdrom");
    return h("div.stack", { key: "disks" },
      tableCard("disks", t("vms.disks"), [can("disk_move", t("verb.disk_move"), () => does("disk_move"), { icon: "move" }), can("disk_attach", t("verb.disk_attach"), () => does("disk_attach"), { icon: "plus" })],
        [{ text: t("vm.disk") }, { text: t("vm.size"), right: true }, { text: t("vm.used"), right: true }, { text: t("vm.where") }, { text: t("vm.bus") }, { text: t("vm.limits") }, { text: t("vms.actions"), hide: true }],
        full.map((one) => h("tr", { key: one.name }, h("td", h("strong", one.name), ` ${one.target}`), h("td.right", bytes(one.size_bytes)), h("td.right", found.has(one.name) && found.get(one.name).used_bytes !== null ? bytes(found.get(one.name).used_bytes) : "–"),
          h("td", `${one.volume.pool}/${one.volume.name}`, found.get(one.name)?.note && h("p.hint", found.get(one.name).note)), h("td", one.bus), h("td", limitsOf(one.limits)),
          h("td.ends", rowMenu(t("vm.nodisk_more", { name: one.name }), [
            { verb: "disk_grow", icon: "up", args: { disk: one.name }, options: { current: { size_gib: Math.ceil(one.size_bytes / 1024 ** 3) } } }, { verb: "disk_move", icon: "move", args: { disk: one.name } },
            { verb: "disk_limit", icon: "edit", args: { disk: one.name }, options: { current: one.limits, open: true } }, { verb: "disk_flatten", icon: "copy", args: { disk: one.name } },
            { verb: "disk_sparsify", icon: "down", args: { disk: one.name } }, { verb: "disk_export", icon: "upload", args: { disk: one.name } }, { verb: "disk_detach", icon: "trash", danger: true, args: { disk: one.name } }])))),
        t("vm.no_disks")),
      drives.length > 0 && tableCard("cds", t("vm.cd"), null, [{ text: t("vm.cd") }, { text: t("create.image") }, { text: t("vms.actions"), hide: true }],
        drives.map((one) => h("tr", { key: one.name }, h("td", h("strong", one.name)), h("td", one.volume ? `${one.volume.pool}/${one.volume.name}` : h("span.soft", t("vm.cd_empty"))),
          h("td.ends", h("div.buttons", can("cd_insert", t("verb.cd_insert"), () => does("cd_insert", { drive: one.name })), one.volume && can("cd_eject", t("verb.cd_eject"), () => does("cd_eject", { drive: one.name })))))), ""));
  }

  function snapshots() {
    const { vm } = seen;
    const list = [...vm.snapshots].sort((a, b) => b.taken_at - a.taken_at);
    return tableCard("snapshots", t("vm.tab.snapshots"), can("snapshot_create", t("verb.snapshot_create"), () => does("snapshot_create"), { icon: "camera" }),
      [{ text: t("vms.name") }, { text: t("vm.taken") }, { text: t("vm.consistency") }, { text: t("vm.description") }, { text: t("vms.actions"), hide: true }],
      list.map((one) => h("tr", { key: one.name }, h("td", h("strong", one.name)), h("td", { title: ago(one.taken_at) }, time(one.taken_at)), h("td", word("vm.consistency", one.consistency)), h("td", one.description),
        h("td.ends", h("div.buttons", can("snapshot_rollback", t("verb.snapshot_rollback"), () => does("snapshot_rollback", { snapshot: one.name })), can("snapshot_delete", t("verb.delete"), () => does("snapshot_delete", { snapshot: one.name })))))),
      [h("h2", t("vm.no_snapshots")), h("p", t("vm.no_snapshots_text"))]);
  }

  function network() {
    const { vm } = seen;
    const forwards = Array.isArray(more.forwards) ? more.forwards : [];
    const addresses = (mac) => seen.addresses.filter((one) => one.mac === mac).map((one) => one.ip).join(", ") || "–";
    return h("div.stack", { key: "network" },
      tableCard("nics", t("vm.tab.network"), can("nic_attach", t("verb.nic_attach"), () => does("nic_attach"), { icon: "plus" }),
        [{ text: t("vm.nic") }, { text: t("vm.network") }, { text: t("vm.mac") }, { text: t("vm.addresses") }, { text: t("vm.model") }, { text: t("vms.actions"), hide: true }],
        vm.nics.map((one) => h("tr", { key: one.name }, h("td", h("strong", one.name)), h("td", one.network), h("td", h("code", one.mac)), h("td", addresses(one.mac)), h("td", one.model), h("td.ends", can("nic_detach", t("verb.nic_detach"), () => does("nic_detach", { nic: one.name }))))), t("vm.no_nics")),
      tableCard("forwards", t("vm.forwards"), can("forward_add", t("verb.forward_add"), () => does("forward_add"), { icon: "plus" }),
        [{ text: t("vm.host_port") }, { text: t("vm.guest_port") }, { text: t("vm.network") }, { text: t("vms.actions"), hide: true }],
        forwards.map(({ node, network: on, forward }) => {
          const port = `${forward.host_port}${forward.protocol === "tcp" ? "" : `/${forward.protocol}`}`;
          return h("tr", { key: port }, h("td", h("strong", `${node}:${port}`)), h("td", `${forward.address}:${forward.guest_port}`), h("td", on), h("td.ends", can("forward_remove", t("verb.forward_remove"), () => does("forward_remove", { port }))));
        }), t("vm.no_forwards")));
  }

  function history() {
    if (more.tasks === null) return h("div.loading", { key: "loading" }, h("div.spin"), h("span", t("loading")));
    return tableCard("history", t("vm.tab.history"), null,
      [{ text: t("vm.task") }, { text: t("vms.state") }, { text: t("vm.by") }, { text: t("vm.when") }, { text: t("vm.took"), right: true }],
      more.tasks.map((one) => h("tr", { key: one.id }, h("td", h("details", h("summary", verbName(one.verb)), h("p.hint", one.why), one.error && h("p.problem", one.error.message), one.log.length > 0 && h("pre.log", one.log.join("\n")))), h("td", stateDot(one.state)), h("td", one.who), h("td", { title: time(one.started_at) }, ago(one.started_at)), h("td.right", one.finished_at ? duration(one.finished_at - one.started_at) : "–"))),
      t("vm.no_history"));
  }

  begin();
  return () => forName.abort();
}
