// The first thing one sees: is all well, and if not, what is to be done; then counts, hosts, tasks.
import { add, button, h, icon, patch } from "../dom.js";
import { ago, bytes, mib, number } from "../format.js";
import { has, t, word } from "../i18n.js";
import { link } from "../router.js";
import { bar, card, dot, facts, failing, follow, said, stale, verbName } from "../listing.js";
import { askDoctor, hostState, loadOf } from "./hosts.js";

const HOSTS = 24;
const TASKS = 12;
const KIND = { ok: "good", warning: "warn", error: "bad", note: "" };

export function concernText(one) {
  const names = one.names.slice(0, 3).join(", ") + (one.count > 3 && one.names.length ? ` ${t("and_more", { n: one.count - 3 })}` : "");
  const key = `health.${one.code}`;
  if (!has(`${key}.other`) && !has(key)) return said(one.text);
  return t(key, { n: one.count, names });
}

export function concernRemedy(one) {
  const key = `health.${one.code}.do`;
  return has(key) ? t(key) : said(one.remedy);
}

function whereOf(one) {
  const first = one.names.length === 1 ? one.names[0] : "";
  return {
    node: first ? `/hosts/${encodeURIComponent(first)}` : "/hosts", vm: first ? `/vms/${encodeURIComponent(first)}` : "/vms",
    storage: "/storage/ceph", pool: "/storage", task: "/activity", ha: "/ha", rule: "/ha/rules", cluster: "/hosts",
  }[one.about] || "/";
}

// The one line: what is worst, and what to do about it.
function lineOf(wrong) {
  if (!wrong.length) return t("health.all_well");
  return [h("a", { href: link(whereOf(wrong[0])) }, concernText(wrong[0])), " ", concernRemedy(wrong[0]), wrong.length > 1 && h("span.soft", ` (${t("health.more", { n: wrong.length - 1 })})`)];
}

function detailsOf(concern) {
  const found = Object.entries(concern.details).slice(0, 5);
  return found.length > 0 && h("ul.details", found.map(([name, text]) => h("li", h("b", name), " ", said(text))));
}

function healthPart(source, ctx) {
  const bad = failing(source);
  if (bad) return bad;
  const health = source.data;
  const wrong = health.concerns.filter((one) => one.level !== "note");
  const notes = health.concerns.filter((one) => one.level === "note");
  const one = (concern) => h("li.concern", { key: concern.code, class: KIND[concern.level] },
    icon(concern.level === "note" ? "info" : "warn"),
    h("div", h("a", { href: link(whereOf(concern)) }, concernText(concern)), " ", h("span.soft", concernRemedy(concern)), detailsOf(concern)));
  return h("section.card.health", { class: KIND[health.status], "aria-label": t("health.name") },
    h("div.health-line", icon(health.status === "ok" ? "check" : "warn"), h("div", h("h2", t(`health.${health.status}`)), h("p", { role: "status" }, lineOf(wrong)), wrong.length > 0 && detailsOf(wrong[0])),
      ctx.can("doctor") && h("div.health-buttons", button(verbName("doctor"), () => askDoctor(ctx), { icon: "heart" }))),
    wrong.length + notes.length > (wrong.length ? 1 : 0) && h("ul.concerns", [...wrong.slice(1), ...notes].map(one)));
}

function count(value, name, to, more) {
  return h("a.tile", { href: link(to), key: name }, h("b", value), h("span", name), more && h("small", more));
}

function tiles(health, parts) {
  const { nodes, pools, capacity } = parts;
  const used = nodes.list.reduce((sum, one) => sum + one.memory_used_mib, 0);
  const free = nodes.list.reduce((sum, one) => sum + Math.max(0, one.memory_free_mib), 0);
  const room = pools.list.reduce((sum, one) => [sum[0] + one[1].free_bytes, sum[1] + one[1].capacity_bytes], [0, 0]);
  const now = health.data;
  return h("div.tiles",
    now && count(t("overview.of", { some: number(now.vms_running), all: number(now.vms) }), t("overview.vms"), "/vms", t("overview.running")),
    now && count(t("overview.of", { some: number(now.hosts_online), all: number(now.hosts) }), t("overview.hosts"), "/hosts", t("overview.answer")),
    nodes.list.length > 0 && count(mib(free), t("overview.memory_free"), "/hosts", t("overview.memory_used", { used: mib(used) })),
    pools.list.length > 0 && count(bytes(room[0]), t("overview.room_free"), "/storage", t("overview.room_of", { all: bytes(room[1]) })),
    capacity.data && count(word("capacity", capacity.data.verdict), t("overview.may_lose"), "/ha/room", capacity.data.worst?.hosts?.length ? t("overview.worst", { hosts: capacity.data.worst.hosts.join(", ") }) : ""));
}

function hostsPart({ nodes, loads, ha }) {
  const bad = failing(nodes);
  if (bad) return bad;
  const order = { silent: 0, fenced: 0, cordoned: 1, maintenance: 1, online: 2 };
  const list = [...nodes.list].sort((a, b) => (order[hostState(a, ha).word] ?? 1) - (order[hostState(b, ha).word] ?? 1) || b.memory_used_mib - a.memory_used_mib);
  return [stale(nodes), h("div.table-wrap", { tabindex: "0", role: "region", "aria-label": t("overview.hosts") }, h("table.table", h("caption.sr", t("overview.hosts")),
    h("thead", h("tr", ["host.name", "host.state", "host.cpu", "host.memory", "host.running"].map((key, at) => h("th", { scope: "col", class: at === 4 ? "right" : "" }, t(key))))),
    h("tbody", list.slice(0, HOSTS).map((one) => {
      const state = hostState(one, ha);
      const load = loadOf(one, loads);
      return h("tr", { key: one.node.name }, h("th", { scope: "row" }, h("a", { href: link(`/hosts/${encodeURIComponent(one.node.name)}`) }, one.node.name)),
        h("td", dot(state.kind, state.text)), h("td", load.cpu === null ? h("span.soft", "–") : bar(load.cpu, { name: t("host.cpu") })),
        h("td", bar(load.memory, { name: t("host.memory"), text: load.memoryText })), h("td.right", number(one.running)));
    })))), list.length > HOSTS && h("a.more-link", { href: link("/hosts") }, t("overview.all_hosts", { n: list.length }))];
}

function tasksPart(tasks) {
  const bad = failing(tasks);
  if (bad) return bad;
  const list = tasks.list;
  const running = list.filter((one) => one.state === "running");
  const shown = [...running, ...list.filter((one) => one.state !== "running")].slice(0, TASKS);
  if (!shown.length) return h("div.empty", h("p", t("overview.no_tasks")));
  return h("ul.rows", shown.map((one) => h("li", { key: one.id }, dot(taskKind(one), ""), h("a.grow", { href: link(`/activity/tasks/${one.id}`) }, verbName(one.verb), " ", h("b", one.subject)),
    one.state === "running" ? h("div.progress.short", { role: "progressbar", "aria-label": one.verb, "aria-valuenow": one.percent ?? 0, "aria-valuemin": 0, "aria-valuemax": 100, style: { "--part": one.percent ?? 0 } }, h("div")) : h("span.soft", ago(one.finished_at || one.started_at)))));
}

export function taskKind(one) { return { running: "busy", done: "good", failed: "bad", stuck: "bad" }[one.state] || "warn"; }

function storagePart(storage) {
  const bad = failing(storage);
  if (bad) return bad;
  if (!storage.list.length) return h("p.soft", t("storage.no_ceph"));
  return storage.list.map(({ health }) => [dot({ HEALTH_OK: "good", HEALTH_WARN: "warn" }[health.status] || "bad", health.status),
    facts([[t("storage.osds"), t("storage.osds_said", { up: health.osds_up, all: health.osds, inside: health.osds_in })], [t("storage.monitors"), t("overview.of", { some: number(health.monitors_in_quorum), all: number(health.monitors) })],
      [t("storage.room"), bar(1 - health.free_bytes / Math.max(1, health.capacity_bytes), { name: t("storage.room") })]])]);
}

export function passed(drill) { return drill.checks.every((one) => one.level !== "error"); }

function haPart(ha) {
  if (!ha.data) return failing(ha);
  const one = ha.data;
  return facts([[t("ha.watches"), one.watched ? dot("good", one.leader) : dot(one.vms.length ? "bad" : "", t("ha.nobody"))],
    [t("ha.vms"), number(one.vms.length)], [t("ha.drill"), one.drill ? dot(passed(one.drill) ? "good" : "bad", `${t(passed(one.drill) ? "ha.passed" : "ha.not_passed")}, ${ago(one.drill.at)}`) : t("ha.never")]]);
}

export const view = {
  path: "/", title: "nav.overview", icon: "home", nav: 10,
  render(root, ctx) {
    const { store } = ctx;
    const sees = ctx.me.role === "admin" || ctx.me.role === "operator" || ctx.me.scopes.includes("*");
    const health = store.define("health", { verb: "health", kinds: ["node", "hanode", "ha", "pool"], everyS: 10 });
    const loads = store.define("loads", { verb: "loads", id: (one) => one.node, everyS: 15 });
    const storage = store.define("storage", { verb: "storage_status", id: (one) => one.health.cluster, everyS: 30 });
    const capacity = store.define("capacity", { verb: "capacity", kinds: ["node", "ha", "rule"], everyS: 60 });
    const tasks = store.define("tasks", { verb: "task_list", id: (one) => one.id, kinds: ["task"] });
    const parts = { nodes: store.collection("nodes"), pools: store.collection("pools"), ha: store.collection("ha_status"), loads, storage, capacity };
    if (!sees) {
      const own = h("div");
      add(root, [h("div.head", h("h1", t("nav.overview"))), own]);
      const vms = store.collection("vms");
      follow([vms, tasks], ctx.signal, () => patch(own, h("div.tiles", count(t("overview.of", { some: number(vms.list.filter((one) => one.power === "running").length), all: number(vms.list.length) }), t("overview.own_vms"), "/vms", t("overview.running"))),
        card(t("overview.tasks"), tasksPart(tasks), { flush: true })));
      return;
    }
    const place = h("div.stack");
    add(root, [h("div.head", h("h1", t("nav.overview"))), place]);
    follow([health, tasks, ...Object.values(parts)], ctx.signal, () => patch(place,
      healthPart(health, ctx), tiles(health, parts),
      h("div.columns",
        h("div.stack", { key: "main" }, card(t("overview.hosts"), hostsPart(parts), { flush: true, key: "hosts" }),
          h("div.cards", { key: "more" }, card(t("ha.name"), haPart(parts.ha), { buttons: h("a", { href: link("/ha") }, t("all")) }),
            card(t("storage.ceph"), storagePart(storage), { buttons: h("a", { href: link("/storage/ceph") }, t("all")) }))),
        card(t("overview.tasks"), tasksPart(tasks), { flush: true, key: "tasks", buttons: h("a", { href: link("/activity") }, t("all")) }))));
  },
};
