// Hosts: a table, a board on which VMs are dragged from one to another, and each host by itself.
import { menu, notice, openDialog } from "../dialog.js";
import { add, button, clear, h, icon, patch } from "../dom.js";
import { ago, duration, mib, number, rate, time } from "../format.js";
import { t, word } from "../i18n.js";
import { link } from "../router.js";
import { badge, bar, card, dot, facts, failing, follow, head, listing, moreButton, said, stale, tabs, verbButton, verbEntries } from "../listing.js";
import { plot } from "../plot.js";
import { verbName } from "../tasks.js";

const KINDS = { online: "good", cordoned: "warn", maintenance: "warn", leaving: "warn", down: "", silent: "bad", suspect: "bad", fencing: "bad", fenced: "bad", returning: "warn" };
// So many VMs of a host stand on the board; the others are in the table of VMs.
const CHIPS = 40;
export const DRAGGED = "application/x-vorch-vm";

// What is known of it, by whoever watches or else by whoever looks.
export function hostState(one, ha) {
  const found = ha?.data?.nodes?.find((node) => node.node === one.node.name);
  const known = found?.state && found.state !== "online" ? found.state : one.state;
  return { word: known, kind: KINDS[known] ?? "", text: word("host.is", known), sentence: found?.sentence || "" };
}

export function loadOf(one, loads) {
  const cpus = one.node.facts?.cpus || 0;
  const found = loads?.items.get(one.node.name);
  const whole = one.memory_used_mib + Math.max(0, one.memory_free_mib);
  return {
    cpu: found && cpus ? found.rates.cpu / cpus : null,
    memory: whole ? one.memory_used_mib / whole : 0,
    memoryText: t("host.memory_of", { used: mib(one.memory_used_mib), all: mib(whole) }),
  };
}

function entriesOf(ctx, one) {
  const { name } = one.node;
  const silent = one.state === "silent";
  return verbEntries(ctx, [
    ["node_cordon", { name }, { unless: one.node.cordoned, icon: "pause" }],
    ["node_uncordon", { name }, { unless: !one.node.cordoned, icon: "play" }],
    ["node_maintenance", { name, on: true }, { text: t("host.maintenance_on"), title: t("host.maintenance_on_of", { name }), icon: "shield" }],
    ["node_maintenance", { name, on: false }, { text: t("host.maintenance_off"), title: t("host.maintenance_off_of", { name }), icon: "play" }],
    ["node_probe", { name }, { unless: silent, icon: "refresh" }],
    ["node_change", { name }, { icon: "edit", current: { reserve_mib: one.node.reserve_mib, storage_address: one.node.storage_address, bmc: one.node.bmc, tags: one.node.tags, cpu_ratio: one.node.cpu_ratio, ssh: one.node.ssh } }],
    null,
    ["node_fence", { name }, { danger: true, icon: "plug" }],
    ["node_unfence", { name }, { icon: "plug" }],
    ["node_remove", { name }, { danger: true, icon: "trash" }],
  ]);
}

function columns(ctx, { loads, ha }) {
  return [
    { key: "name", label: t("host.name"), width: "1.4fr", narrow: true, value: (one) => one.node.name, cell: (one) => h("a.name", { href: link(`/hosts/${encodeURIComponent(one.node.name)}`) }, one.node.name) },
    { key: "state", label: t("host.state"), width: "1.2fr", narrow: true, value: (one) => hostState(one, ha).text, cell: (one) => dot(hostState(one, ha).kind, hostState(one, ha).text) },
    { key: "cpu", label: t("host.cpu"), width: "1.3fr", value: (one) => loadOf(one, loads).cpu ?? -1, cell: (one) => { const load = loadOf(one, loads); return load.cpu === null ? h("span.soft", "–") : bar(load.cpu, { name: t("host.cpu") }); } },
    { key: "memory", label: t("host.memory"), width: "1.3fr", narrow: true, value: (one) => loadOf(one, loads).memory, cell: (one) => { const load = loadOf(one, loads); return bar(load.memory, { name: t("host.memory"), text: load.memoryText }); } },
    { key: "running", label: t("host.running"), width: "110px", right: true, value: (one) => one.running, cell: (one) => number(one.running) },
    { key: "tags", label: t("host.tags"), width: "1.2fr", value: (one) => [...one.node.tags, ...one.node.ceph_tags].join(" "), cell: (one) => h("span.badges", [...new Set([...one.node.tags, ...one.node.ceph_tags])].map((tag) => badge("", tag))) },
    { key: "notes", label: t("host.notes"), width: "2fr", value: (one) => one.notes.join(" "), cell: (one) => said(one.notes.join("; ") || (hostState(one, ha).word === "online" ? "" : hostState(one, ha).sentence)) },
  ];
}

function defined(store) {
  return {
    nodes: store.collection("nodes"), ha: store.collection("ha_status"), vms: store.collection("vms"),
    loads: store.define("loads", { verb: "loads", id: (one) => one.node, everyS: 15 }),
  };
}

// Where something that is dragged may be let go: the VM of a row or a chip, onto another host.
function takes(el, ctx, name) {
  if (!ctx.can("migrate")) return el;
  const ours = (event) => event.dataTransfer.types.includes(DRAGGED);
  el.addEventListener("dragover", (event) => { if (!ours(event)) return; event.preventDefault(); event.dataTransfer.dropEffect = "move"; el.classList.add("drop"); });
  el.addEventListener("dragleave", (event) => { if (!el.contains(event.relatedTarget)) el.classList.remove("drop"); });
  el.addEventListener("drop", (event) => {
    el.classList.remove("drop");
    if (!ours(event)) return;
    event.preventDefault();
    moveTo(ctx, event.dataTransfer.getData(DRAGGED), name);
  });
  return el;
}

function moveTo(ctx, vm, node) {
  const found = ctx.store.collection("vms").items.get(vm);
  if (!found) return;
  if (found.vm.node === node) { notice(t("board.there_already", { vm, node })); return; }
  ctx.openVerb(found.power === "running" || found.power === "paused" ? "migrate" : "relocate", { name: vm, node }, { title: t("board.move", { vm, node }), skipForm: true });
}

function chip(ctx, one, nodes) {
  const { name } = one.vm;
  const kind = { running: "good", paused: "warn", unknown: "bad", crashed: "bad" }[one.power] || "";
  const may = ctx.can("migrate");
  const made = h("button.chip", {
    type: "button", key: name, draggable: may ? "true" : undefined, "aria-haspopup": "menu", "aria-expanded": "false",
    ondragstart: (event) => { event.dataTransfer.setData(DRAGGED, name); event.dataTransfer.setData("text/plain", name); event.dataTransfer.effectAllowed = "move"; },
    onclick: (event) => menu(event.currentTarget, [
      { text: t("board.open"), icon: "vm", run: () => ctx.go(`/vms/${encodeURIComponent(name)}`) },
      ...(may ? [{ heading: t("board.move_to") }, ...nodes.filter((node) => node.node.name !== one.vm.node).map((node) => ({
        text: node.node.name, icon: "move", why: node.state === "online" ? t("board.free", { free: mib(Math.max(0, node.memory_free_mib)) }) : word("host.is", node.state),
        disabled: node.state === "silent", run: () => moveTo(ctx, name, node.node.name),
      }))] : []),
    ], { name }),
  }, dot(kind, name), h("span.sr", word("power", one.power)));
  return made;
}

function board(place, ctx) {
  const { nodes, loads, ha, vms } = defined(ctx.store);
  let words = ctx.query.q || "";
  const search = h("input", { type: "search", value: words, placeholder: t("list.search"), "aria-label": t("list.search_in", { what: t("nav.hosts") }), oninput: () => { words = search.value.toLowerCase(); ctx.setQuery({ q: words }); draw(); } });
  const grid = h("div.board");
  add(place, [h("p.soft", t(ctx.can("migrate") ? "board.hint" : "board.hint_look")), h("div.toolbar", h("div.search", icon("search"), search)), grid]);
  const boxes = new Map();
  function draw() {
    const bad = failing(nodes);
    if (bad) { clear(grid, bad); return; }
    const byHost = new Map(nodes.list.map((one) => [one.node.name, []]));
    for (const one of vms.list) if (byHost.has(one.vm.node) && (!words || one.vm.name.toLowerCase().includes(words))) byHost.get(one.vm.node).push(one);
    for (const [name, box] of boxes) if (!byHost.has(name)) { box.remove(); boxes.delete(name); }
    if (!boxes.size) clear(grid);
    for (const one of nodes.list) {
      const { name } = one.node;
      if (!boxes.has(name)) { const made = takes(h("section.card.board-host", { "aria-label": name, "data-host": name }), ctx, name); boxes.set(name, made); grid.append(made); }
      const state = hostState(one, ha);
      const load = loadOf(one, loads);
      const found = byHost.get(name).sort((a, b) => a.vm.name.localeCompare(b.vm.name));
      patch(boxes.get(name), h("header", h("h2", h("a", { href: link(`/hosts/${encodeURIComponent(name)}`) }, name)), h("div.grow"), dot(state.kind, state.text), moreButton(t("list.actions_of", { name }), () => entriesOf(ctx, one))),
        h("div.inner.stack", h("div.board-loads", h("span.soft", t("host.cpu")), load.cpu === null ? h("span.soft", "–") : bar(load.cpu, { name: t("host.cpu") }), h("span.soft", t("host.memory")), bar(load.memory, { name: t("host.memory"), text: load.memoryText })),
          h("div.chips", found.slice(0, CHIPS).map((vm) => chip(ctx, vm, nodes.list)), found.length === 0 && h("span.soft", t("board.empty")),
            found.length > CHIPS && h("a", { href: link("/vms", { node: name }) }, t("and_more", { n: found.length - CHIPS })))));
    }
  }
  follow([nodes, loads, ha, vms], ctx.signal, draw);
}

export const list = {
  path: "/hosts", title: "nav.hosts", icon: "host", nav: 30,
  render(root, ctx) {
    const parts = defined(ctx.store);
    const onBoard = ctx.query.as === "board";
    if (!onBoard) root.classList.add("fills");
    ctx.setTitle(t(onBoard ? "board.name" : "nav.hosts"));
    add(root, [head(t("nav.hosts"), { buttons: [verbButton(ctx, "node_add", {}, { kind: "main", icon: "plus" })] }),
      h("nav.tabs", { "aria-label": t("tabs.name") }, [["", "host.table"], ["board", "board.name"]].map(([as, key]) => h("a", { href: link("/hosts", { as }), "aria-current": (ctx.query.as || "") === as ? "page" : undefined }, t(key))))]);
    if (onBoard) { board(root, ctx); return; }
    const made = listing(root, ctx, {
      name: t("nav.hosts"), source: parts.nodes, columns: columns(ctx, parts), id: (one) => one.node.name, entries: (one) => entriesOf(ctx, one),
      text: (one) => [one.node.name, hostState(one, parts.ha).text, ...one.node.tags, ...one.node.ceph_tags, ...one.notes, one.node.uri].join(" "),
      empty: { icon: "host", title: t("host.none"), text: t("host.none_text") },
    });
    follow([parts.loads, parts.ha], ctx.signal, () => made.redraw());
  },
};

// ---- one host

const SPANS = [["3600", "span.hour"], ["86400", "span.day"]];

export function plots(place, ctx, ask, { cpus = 0, memory = 0 } = {}) {
  let span = "3600";
  const grid = h("div.plots");
  const chosen = h("div.segments", { role: "group", "aria-label": t("span.name") });
  add(place, [h("div.toolbar", chosen), grid]);
  function choose() {
    clear(chosen, SPANS.map(([value, key]) => h("button.button.small", { type: "button", "aria-pressed": String(span === value), onclick: () => { span = value; choose(); read(); } }, t(key))));
  }
  async function read() {
    try {
      const found = await ask(Number(span));
      if (ctx.signal.aborted) return;
      const to = Date.now() / 1000;
      const from = to - Number(span);
      const curve = (name, key) => ({ name, points: found.points.map((one) => [one.at, one.rates[key]]) });
      const one = (key, curves, format, most) => h("figure.plot-box", h("figcaption", t(key), curves.length > 1 && curves.map((two, at) => h("span.legend", { class: at ? "second" : "" }, two.name))), plot({ name: t(key), curves, format, from, to, stepS: found.step_s, most }));
      patch(grid, one("plot.cpu", [curve("", "cpu")], (value) => number(value, 2), cpus), one("plot.memory", [curve("", "memory_mib")], mib, memory),
        one("plot.disk", [curve(t("plot.reads"), "disk_read_bytes_s"), curve(t("plot.writes"), "disk_written_bytes_s")], rate), one("plot.network", [curve(t("plot.gets"), "received_bytes_s"), curve(t("plot.sends"), "sent_bytes_s")], rate));
    } catch (error) {
      if (error.name !== "AbortError") clear(grid, h("p.soft", error.message));
    }
  }
  choose();
  read();
  const clock = setInterval(() => { if (!document.hidden) read(); }, 15000);
  ctx.signal.addEventListener("abort", () => clearInterval(clock));
}

function factsOf(one, ha) {
  const { node } = one;
  const { facts: known } = node;
  const state = hostState(one, ha);
  return facts([
    [t("host.state"), h("span", dot(state.kind, state.text), state.sentence && h("div.soft", said(state.sentence)))],
    [t("host.uri"), h("code", node.uri)], [t("host.running"), number(one.running)],
    [t("host.memory"), bar(loadOf(one).memory, { name: t("host.memory"), text: loadOf(one).memoryText })],
    [t("host.memory_free"), mib(Math.max(0, one.memory_free_mib))], [t("host.reserve"), mib(node.reserve_mib)],
    ...(known ? [[t("host.cpus"), `${number(known.cpus)} · ${known.cpu_model} · ${known.architecture}`], [t("host.accelerator"), known.accelerator || t("unknown")],
      [t("host.hypervisor"), `${known.hypervisor} ${known.hypervisor_version}`], ["libvirt", known.libvirt_version],
      [t("host.can"), h("span.badges", [["uefi", "UEFI"], ["secure_boot", t("host.secure_boot")], ["tpm", "TPM"]].filter(([key]) => known[key]).map(([, name]) => badge("good", name)))],
      [t("host.probed"), known.probed_at ? h("span", { title: time(known.probed_at) }, ago(known.probed_at)) : ""]] : []),
    [t("host.storage_address"), node.storage_address], [t("host.bmc"), node.bmc], [t("host.tags"), node.tags.length + node.ceph_tags.length > 0 && h("span.badges", [...new Set([...node.tags, ...node.ceph_tags])].map((tag) => badge("", tag)))],
    [t("host.cpu_ratio"), node.cpu_ratio], [t("host.notes"), one.notes.length > 0 && h("ul", one.notes.map((note) => h("li", said(note))))],
  ]);
}

export function checksTable(checks) {
  return h("div.table-wrap", { tabindex: "0", role: "region", "aria-label": t("check.name") }, h("table.table", h("caption.sr", t("check.name")), h("thead", h("tr", [t("check.what"), t("check.level"), t("check.detail")].map((one) => h("th", { scope: "col" }, one)))),
    h("tbody", checks.map((one) => h("tr", h("th", { scope: "row" }, one.name), h("td", dot({ ok: "good", warning: "warn" }[one.level] || "bad", word("check.is", one.level))), h("td", said(one.detail), one.remedy && h("div.soft", said(one.remedy))))))));
}

// The doctor's answer is a list, which it shows when it is done.
export function askDoctor(ctx, args = {}, title = verbName("doctor")) {
  ctx.openVerb("doctor", { fencing: false, ...args }, {
    title, skipForm: true, only: [],
    done: (found) => {
      const box = openDialog({ title, wide: true, body: checksTable(found || []), foot: [button(t("close"), () => box.close(), { kind: "main" })] });
    },
  });
}

function checks(place, ctx, name) {
  const found = h("div.stack");
  const ask = button(t("check.run"), async () => {
    clear(found, h("div.loading", h("span.spin"), t("check.running")));
    try {
      const all = await ctx.api.call("node_check", { name }, { signal: ctx.signal });
      clear(found, checksTable(all));
    } catch (error) { if (error.name !== "AbortError") clear(found, h("div.banner.bad", { role: "alert" }, icon("warn"), h("div", error.message))); }
  }, { icon: "check" });
  add(place, [h("p.soft", t("check.text")), h("div.buttons", ask), found]);
}

function abilities(place, ctx, name) {
  const found = h("div.stack", h("div.loading", h("span.spin"), t("loading")));
  add(place, [h("p.soft", t("host.able_text")), found]);
  ctx.api.call("node_abilities", { name }, { signal: ctx.signal }).then((all) => {
    clear(found, h("div.table-wrap", { tabindex: "0", role: "region", "aria-label": t("host.able") }, h("table.table", h("caption.sr", t("host.able")), h("tbody",
      all.map((one) => h("tr", h("th", { scope: "row" }, said(one.name)), h("td", dot(one.why_not ? "" : "good", t(one.why_not ? "host.unable" : "host.able_yes"))), h("td", said(one.why_not))))))));
  }).catch((error) => { if (error.name !== "AbortError") clear(found, h("p.problem", { role: "alert" }, error.message)); });
}

function vmsOf(place, ctx, name) {
  const vms = ctx.store.collection("vms");
  listing(place, ctx, {
    name: t("host.vms_of", { name }), source: vms, rows: (one) => one.list.filter((vm) => vm.vm.node === name), id: (one) => one.vm.name,
    text: (one) => [one.vm.name, one.power, ...one.vm.tags].join(" "),
    columns: [
      { key: "name", label: t("host.vm"), width: "2fr", narrow: true, value: (one) => one.vm.name, cell: (one) => h("a.name", { href: link(`/vms/${encodeURIComponent(one.vm.name)}`) }, one.vm.name) },
      { key: "state", label: t("host.state"), width: "1fr", narrow: true, value: (one) => one.power, cell: (one) => dot({ running: "good", paused: "warn", stopped: "" }[one.power] ?? "bad", word("power", one.power)) },
      { key: "vcpus", label: t("host.vcpus"), width: "80px", right: true, value: (one) => one.vm.vcpus, cell: (one) => number(one.vm.vcpus) },
      { key: "memory", label: t("host.memory"), width: "100px", right: true, value: (one) => one.vm.memory_mib, cell: (one) => mib(one.vm.memory_mib) },
      { key: "tags", label: t("host.tags"), width: "1fr", value: (one) => one.vm.tags.join(" "), cell: (one) => h("span.badges", one.vm.tags.map((tag) => badge("", tag))) },
    ],
    entries: (one) => verbEntries(ctx, [["migrate", { name: one.vm.name }, { unless: one.power !== "running", icon: "move" }], ["relocate", { name: one.vm.name }, { unless: one.power !== "stopped", icon: "move" }]]),
    empty: { icon: "vm", title: t("board.empty"), text: t("host.no_vms") },
  });
}

function lost(place, ctx, name) {
  const found = h("div.stack", h("div.loading", h("span.spin"), t("loading")));
  add(place, [h("p.soft", t("lost.text", { name })), found]);
  ctx.api.call("whatif_fail", { nodes: [name] }, { signal: ctx.signal })
    .then((answer) => { clear(found, lossOf(answer)); })
    .catch((error) => { if (error.name !== "AbortError") clear(found, h("p.problem", { role: "alert" }, error.message)); });
}

function lossOf(answer) {
  const table = (caption, heads, rows) => h("div.table-wrap", { tabindex: "0", role: "region", "aria-label": caption }, h("table.table", h("caption.sr", caption), h("thead", h("tr", heads.map((one) => h("th", { scope: "col" }, one)))), h("tbody", rows)));
  const name = (vm) => h("th", { scope: "row" }, h("a", { href: link(`/vms/${encodeURIComponent(vm)}`) }, vm));
  return [
    Object.entries(answer.sentences).map(([host, text]) => h("p.why", h("b", host), " ", said(text))),
    (answer.notes || []).map((note) => h("div.banner", icon("info"), h("div", said(note)))),
    answer.restarts.length > 0 && card(t("lost.restarts", { n: answer.restarts.length }), table(t("lost.name"), [t("host.vm"), t("lost.where"), t("lost.after")],
      answer.restarts.map((one) => h("tr", name(one.vm), h("td", one.target), h("td", duration(one.runs_at_s))))), { flush: true }),
    answer.left.length > 0 && card(t("lost.left", { n: answer.left.length }), table(t("lost.name"), [t("host.vm"), t("lost.why")], answer.left.map((one) => h("tr", name(one.vm), h("td", said(one.why))))), { flush: true }),
    answer.restarts.length + answer.left.length === 0 && h("div.empty", icon("check"), h("p", t("lost.nothing"))),
  ];
}

export const one = {
  path: "/hosts/:name/:tab?", title: "nav.hosts", icon: "host",
  render(root, ctx) {
    const parts = defined(ctx.store);
    const { name } = ctx.params;
    const top = h("div.stack");
    const place = h("div.part");
    add(root, [top, place]);
    const tab = ctx.params.tab || "facts";
    const base = `/hosts/${encodeURIComponent(name)}`;
    const all = [["facts", "host.facts"], ["vms", "host.vms"], ["able", "host.able"], ["loads", "host.loads"], ["lost", "lost.name"], ["checks", "check.name", ctx.can("node_check")]];
    ctx.setTitle(name);
    follow([parts.nodes, parts.ha, parts.loads], ctx.signal, () => {
      const now = parts.nodes.items.get(name);
      const bad = failing(parts.nodes) || (!now && h("div.empty", icon("host"), h("h1", t("host.gone")), h("p", t("host.gone_text", { name }))));
      if (bad) { clear(top, bad); clear(place); return; }
      const state = hostState(now, parts.ha);
      patch(top, stale(parts.nodes), h("div.head", h("h1", name), dot(state.kind, state.text), h("div.grow"), h("div.buttons",
        verbButton(ctx, now.node.cordoned ? "node_uncordon" : "node_cordon", { name }), moreButton(t("list.actions_of", { name }), () => entriesOf(ctx, now)))),
      state.word !== "online" && state.sentence && h("div.banner", { class: state.kind }, icon("warn"), h("div", said(state.sentence))),
      tabs(ctx, all.map(([key, text, shown]) => ({ text: t(text), path: key === "facts" ? base : `${base}/${key}`, current: key === tab, shown }))));
      if (tab === "facts") patch(place, card(t("host.facts"), factsOf(now, parts.ha)));
      else if (!place.childNodes.length) draw(now);
    });
    function draw(now) {
      if (tab === "vms") { root.classList.add("fills"); place.classList.add("fill"); vmsOf(place, ctx, name); }
      else if (tab === "able") abilities(place, ctx, name);
      else if (tab === "checks") checks(place, ctx, name);
      else if (tab === "lost") lost(place, ctx, name);
      else plots(place, ctx, (span) => ctx.api.call("node_history", { name, for_s: span }, { signal: ctx.signal }), { cpus: now.node.facts?.cpus, memory: now.node.facts?.memory_mib });
    }
  },
};

export const views = [list, one];
