// Pools and what is in them, Ceph with its OSDs, storage classes, what was deleted.
import { add, button, clear, h, icon, patch } from "../dom.js";
import { ago, bytes, number, time } from "../format.js";
import { t, word } from "../i18n.js";
import { link } from "../router.js";
import { badge, bar, card, dot, facts, failing, follow, listing, parted, said, stale, verbButton, verbEntries } from "../listing.js";

const CEPH = { HEALTH_OK: "good", HEALTH_WARN: "warn" };

function pools(place, ctx) {
  const source = ctx.store.collection("pools");
  listing(place, ctx, {
    name: t("storage.pools"), source, id: (one) => one[0].name, text: (one) => `${one[0].name} ${one[0].url} ${one[0].node}`,
    buttons: [verbButton(ctx, "pool_add", {}, { icon: "plus", kind: "main" }), verbButton(ctx, "state_rebuild", {}, { icon: "refresh" })],
    columns: [
      { key: "name", label: t("storage.pool"), width: "1.2fr", narrow: true, value: (one) => one[0].name, cell: (one) => h("a.name", { href: link("/storage/volumes", { pool: one[0].name }) }, one[0].name) },
      { key: "url", label: t("storage.url"), width: "1.6fr", value: (one) => one[0].url, cell: (one) => h("code", one[0].url) },
      { key: "where", label: t("storage.where"), width: "1fr", value: (one) => one[0].node, cell: (one) => one[0].node ? h("a", { href: link(`/hosts/${encodeURIComponent(one[0].node)}`) }, one[0].node) : t("storage.all_hosts") },
      { key: "full", label: t("storage.full"), width: "1.4fr", narrow: true, value: (one) => 1 - one[1].free_bytes / Math.max(1, one[1].capacity_bytes), cell: (one) => bar(1 - one[1].free_bytes / Math.max(1, one[1].capacity_bytes), { name: t("storage.full") }) },
      { key: "free", label: t("storage.free"), width: "100px", right: true, value: (one) => one[1].free_bytes, cell: (one) => bytes(one[1].free_bytes) },
      { key: "size", label: t("storage.size"), width: "100px", right: true, value: (one) => one[1].capacity_bytes, cell: (one) => bytes(one[1].capacity_bytes) },
      { key: "used", label: t("storage.used"), width: "100px", right: true, value: (one) => one[1].used_bytes, cell: (one) => bytes(one[1].used_bytes) },
      { key: "promised", label: t("storage.promised"), width: "110px", right: true, value: (one) => one[1].provisioned_bytes, cell: (one) => bytes(one[1].provisioned_bytes) },
    ],
    entries: (one) => [{ text: t("storage.volumes"), icon: "disk", run: () => ctx.go("/storage/volumes", { pool: one[0].name }) }, ...verbEntries(ctx, [["pool_remove", { name: one[0].name }, { danger: true, icon: "trash" }]])],
    empty: { icon: "disk", title: t("storage.no_pool"), text: t("storage.no_pool_text") },
  });
}

function ceph(place, ctx) {
  const source = ctx.store.define("storage", { verb: "storage_status", id: (one) => one.health.cluster, everyS: 30 });
  const root = h("div.stack");
  add(place, [root]);
  follow([source], ctx.signal, () => patch(root, failing(source) || [
    stale(source), source.list.length === 0 && h("div.empty", icon("disk"), h("h2", t("storage.no_ceph")), h("p", t("storage.no_ceph_text"))),
    source.list.map(({ health, places }) => h("div.stack", { key: health.cluster },
      h("section.card.health", { class: CEPH[health.status] || "bad" }, h("div.health-line", icon(health.status === "HEALTH_OK" ? "check" : "warn"), h("div", h("h2", health.status), h("p", t("storage.cluster", { id: health.cluster })))),
        Object.keys(health.checks).length > 0 && h("ul.concerns", Object.entries(health.checks).map(([code, text]) => h("li.concern", icon("warn"), h("div", h("code", code), " ", said(text)))))),
      h("div.cards", card(t("storage.figures"), facts([[t("storage.osds"), t("storage.osds_said", { up: health.osds_up, all: health.osds, inside: health.osds_in })], [t("storage.monitors"), t("overview.of", { some: number(health.monitors_in_quorum), all: number(health.monitors) })],
        [t("storage.free"), bytes(health.free_bytes)], [t("storage.size"), bytes(health.capacity_bytes)], [t("storage.full"), bar(1 - health.free_bytes / Math.max(1, health.capacity_bytes), { name: t("storage.full") })], [t("storage.degraded"), number(health.degraded_objects)]]))),
      card(t("storage.tree"), h("div.table-wrap", { tabindex: "0", role: "region", "aria-label": t("storage.tree") }, h("table.table.tree", h("caption.sr", t("storage.tree")),
        h("thead", h("tr", ["storage.place", "storage.kind", "host.state", "storage.class", "storage.weight", "storage.full"].map((key) => h("th", { scope: "col" }, t(key))))),
        h("tbody", places.map((one) => h("tr", { key: one.id }, h("th", { scope: "row", style: { "--depth": one.depth } }, one.name), h("td", word("storage.is", one.type)),
          h("td", one.up !== null && dot(one.up ? one.inside ? "good" : "warn" : "bad", `${t(one.up ? "storage.up" : "storage.down")}${one.inside ? "" : `, ${t("storage.out")}`}`)),
          h("td", one.device_class), h("td", one.up !== null ? number(one.weight, 3) : ""), h("td", one.size_bytes && bar(one.used_bytes / one.size_bytes, { name: t("storage.full"), text: t("storage.used_of", { used: bytes(one.used_bytes), all: bytes(one.size_bytes) }) }))))))), { flush: true })))]));
}

function volumes(place, ctx) {
  const source = ctx.store.collection("pools");
  const under = h("div.part.fill");
  const select = h("select", { "aria-label": t("storage.pool"), onchange: () => { ctx.setQuery({ pool: select.value, q: "" }); show(); } });
  add(place, [h("div.toolbar", h("label.inline", h("span", t("storage.pool")), select)), under]);
  let left = null;
  function show() {
    left?.abort();
    left = new AbortController();
    clear(under);
    const pool = select.value;
    if (!pool) return;
    const own = { ...ctx, signal: AbortSignal.any([ctx.signal, left.signal]) };
    const all = ctx.store.define(`volumes/${pool}`, { verb: "volume_list", query: { pool }, id: (one) => one.name, kinds: ["vm", "image", "trash"] });
    listing(under, own, {
      name: t("storage.volumes_of", { pool }), source: all, id: (one) => one.name, text: (one) => `${one.name} ${one.base || ""} ${one.format}`,
      columns: [
        { key: "name", label: t("storage.volume"), width: "2.4fr", narrow: true, value: (one) => one.name, cell: (one) => h("span.mono", { title: one.name }, one.name) },
        { key: "state", label: t("host.state"), width: "1fr", value: (one) => one.trashed, cell: (one) => one.trashed ? badge("warn", t("storage.in_trash")) : one.snapshots.length ? badge("", t("storage.snapshots", { n: one.snapshots.length })) : "" },
        { key: "base", label: t("storage.base"), width: "2fr", value: (one) => one.base || "", cell: (one) => h("span.mono", { title: one.base || "" }, one.base || "") },
        { key: "format", label: t("storage.format"), width: "80px", value: (one) => one.format, cell: (one) => one.format },
        { key: "size", label: t("storage.size"), width: "100px", right: true, narrow: true, narrowWidth: "90px", value: (one) => one.size_bytes, cell: (one) => bytes(one.size_bytes) },
        { key: "used", label: t("storage.used"), width: "100px", right: true, value: (one) => one.used_bytes, cell: (one) => bytes(one.used_bytes) },
      ],
      entries: (one) => verbEntries(ctx, [["disk_attach", { volume: `${pool}/${one.name}` }, { unless: one.trashed || one.name.startsWith("image."), icon: "plug", ask: ["volume"], asks: t("host.vm") }]]),
      empty: { icon: "disk", title: t("storage.no_volume"), text: t("storage.no_volume_text") },
    });
  }
  source.subscribe(() => {
    const names = source.list.map((one) => one[0].name);
    const chosen = select.value || ctx.query.pool || names[0] || "";
    if (names.join() === [...select.options].map((one) => one.value).join()) return;
    clear(select, names.map((one) => h("option", { value: one }, one)));
    if (names.includes(chosen)) select.value = chosen;
    show();
  }, ctx.signal);
}

function classes(place, ctx) {
  listing(place, ctx, {
    name: t("storage.classes"), source: ctx.store.collection("classes"), id: (one) => one.name, text: (one) => `${one.name} ${one.pools.join(" ")} ${one.description}`,
    buttons: [verbButton(ctx, "class_add", {}, { icon: "plus", kind: "main" })],
    columns: [
      { key: "name", label: t("storage.class"), width: "1fr", narrow: true, value: (one) => one.name, cell: (one) => h("b", one.name) },
      { key: "pools", label: t("storage.pools"), width: "2fr", narrow: true, value: (one) => one.pools.join(" "), cell: (one) => h("span.badges", one.pools.map((pool) => badge("", pool))) },
      { key: "default", label: t("storage.default"), width: "100px", value: (one) => one.default, cell: (one) => one.default ? badge("good", t("yes")) : "" },
      { key: "description", label: t("description"), width: "2fr", value: (one) => one.description, cell: (one) => one.description },
    ],
    entries: (one) => verbEntries(ctx, [["class_remove", { name: one.name }, { danger: true, icon: "trash" }]]),
    empty: { icon: "disk", title: t("storage.no_class"), text: t("storage.no_class_text") },
  });
}

function trash(place, ctx) {
  const source = ctx.store.define("trash", { verb: "trash_list", id: (one) => one.key, kinds: ["trash"] });
  listing(place, ctx, {
    name: t("storage.trash"), source, id: (one) => one.key, text: (one) => `${one.name} ${one.key}`, sort: { key: "deleted", down: true },
    buttons: [verbButton(ctx, "trash_purge", {}, { text: t("storage.purge_due"), icon: "trash" })],
    columns: [
      { key: "name", label: t("storage.thing"), width: "1.6fr", narrow: true, value: (one) => one.name, cell: (one) => h("span", icon(one.vm ? "vm" : "disk"), " ", h("b", one.name)) },
      { key: "what", label: t("storage.kind"), width: "1fr", value: (one) => Boolean(one.vm), cell: (one) => t(one.vm ? "storage.a_vm" : "storage.a_disk") },
      { key: "volumes", label: t("storage.volumes"), width: "2fr", value: (one) => one.volumes.length, cell: (one) => h("span.mono", one.volumes.map((two) => `${two.pool}/${two.name}`).join(", ")) },
      { key: "deleted", label: t("storage.deleted"), width: "1fr", value: (one) => one.deleted_at, cell: (one) => h("span", { title: time(one.deleted_at) }, ago(one.deleted_at)) },
      { key: "purge", label: t("storage.gone"), width: "1fr", narrow: true, value: (one) => one.purge_at, cell: (one) => h("span", { title: time(one.purge_at) }, ago(one.purge_at)) },
    ],
    entries: (one) => verbEntries(ctx, [["undelete", { name: one.name }, { unless: !one.vm, icon: "refresh" }], ["trash_purge", { key: one.key }, { danger: true, icon: "trash", text: t("storage.purge") }]]),
    empty: { icon: "trash", title: t("storage.no_trash"), text: t("storage.no_trash_text") },
  });
}

let made = null;
export const view = {
  path: "/storage/:tab?", title: "nav.storage", icon: "disk", nav: 40,
  render(root, ctx) {
    root.classList.add("fills");
    const sees = ctx.me.role !== "user" || ctx.me.scopes.includes("*");
    made = parted(root, ctx, { title: t("nav.storage"), fallback: t("denied.all"), all: [
      { key: "pools", text: t("storage.pools"), path: "/storage", draw: pools, shown: sees }, { key: "ceph", text: t("storage.ceph"), path: "/storage/ceph", draw: ceph, shown: sees },
      { key: "volumes", text: t("storage.volumes"), path: "/storage/volumes", draw: volumes, shown: sees }, { key: "classes", text: t("storage.classes"), path: "/storage/classes", draw: classes },
      { key: "trash", text: t("storage.trash"), path: "/storage/trash", draw: trash }] });
    return () => made.end();
  },
  update(ctx) { made.update(ctx); },
};
