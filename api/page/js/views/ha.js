// High availability: who watches, the state of each host and VM with its sentence, settings, rules,
// what may be lost, and moves for evenness.
import { notice } from "../dialog.js";
import { add, button, h, icon, patch } from "../dom.js";
import { ago, mib, number, percent, time } from "../format.js";
import { t, word } from "../i18n.js";
import { link } from "../router.js";
import { badge, bar, card, dot, facts, failing, follow, listing, parted, said, stale, verbButton, verbEntries, verbName } from "../listing.js";
import { askDoctor, checksTable, hostState } from "./hosts.js";
import { passed } from "./overview.js";

const VM_KINDS = { running: "good", stopped: "", starting: "busy", stopping: "busy", recovering: "busy", unknown: "bad", "waiting-for-fence": "bad", "waiting-for-room": "bad", error: "bad", frozen: "warn", ignored: "" };

// "online: it answers" → "it answers": the state stands beside it.
function reasonOf(sentence) { return sentence.includes(": ") ? sentence.slice(sentence.indexOf(": ") + 2) : sentence; }

function whole(place, ctx) {
  const { store } = ctx;
  const ha = store.collection("ha_status");
  const nodes = store.collection("nodes");
  const root = h("div.stack.scroll");
  add(place, [root]);
  follow([ha, nodes], ctx.signal, () => {
    const bad = failing(ha);
    if (bad) { patch(root, bad); return; }
    const one = ha.data;
    const drill = one.drill;
    patch(root, stale(ha),
      one.disarmed && h("div.banner", icon("warn"), h("div", t("ha.disarmed_until", { how: word("ha.as", one.policy.disarmed_as), when: time(one.policy.disarmed_until) }), " ", verbButton(ctx, "ha_arm", {}, { kind: "small" }))),
      !one.watched && one.vms.length > 0 && h("div.banner.bad", icon("warn"), h("div", t("ha.unwatched"))),
      h("div.cards",
        card(t("ha.now"), facts([
          [t("ha.watches"), one.watched ? dot("good", one.leader) : dot(one.vms.length ? "bad" : "", t("ha.nobody"))], [t("ha.epoch"), one.watched ? number(one.epoch) : ""],
          [t("ha.leading"), one.leading_since ? ago(one.leading_since) : ""], [t("ha.drill"), drill ? h("span", dot(passed(drill) ? "good" : "bad", t(passed(drill) ? "ha.passed" : "ha.not_passed")), " ", h("span.soft", { title: time(drill.at) }, ago(drill.at))) : t("ha.never")],
          [t("ha.spare"), one.spare && h("span", said(one.spare.text), " ", h("span.soft", ago(one.spare.since)))], [t("host.notes"), one.notes.length > 0 && h("ul", one.notes.map((note) => h("li", said(note))))]]),
        { buttons: ctx.can("doctor") && button(t("ha.try_fencing"), () => askDoctor(ctx, { fencing: true }, t("ha.try_fencing")), { icon: "shield" }) }),
        card(t("ha.policy"), facts([[t("ha.shutdown"), word("ha.shutdown", one.policy.shutdown)], [t("ha.silent_share"), percent(one.policy.silent_share * 100)], [t("ha.balance_on_start"), t(one.policy.balance_on_start ? "yes" : "no")],
          [t("ha.keep_spare"), word("ha.keep", one.policy.spare)], [t("ha.spare_hosts"), number(one.policy.spare_hosts)], [t("ha.spare_over"), one.policy.spare_over]]),
        { buttons: h("div.buttons", verbButton(ctx, "ha_policy", {}, { icon: "edit", current: one.policy }), verbButton(ctx, one.disarmed ? "ha_arm" : "ha_disarm", {}, { icon: "pause" })) })),
      card(t("ha.hosts"), h("div.table-wrap", { tabindex: "0", role: "region", "aria-label": t("ha.hosts") }, h("table.table", h("caption.sr", t("ha.hosts")), h("thead", h("tr", ["host.name", "host.state", "ha.since", "ha.reason"].map((key) => h("th", { scope: "col" }, t(key))))),
        h("tbody", one.nodes.map((node) => {
          const seen = nodes.items.get(node.node);
          const state = seen ? hostState(seen, ha) : { kind: "", text: word("host.is", node.state || "unknown") };
          return h("tr", { key: node.node }, h("th", { scope: "row" }, h("a", { href: link(`/hosts/${encodeURIComponent(node.node)}`) }, node.node)), h("td", dot(state.kind, state.text)),
            h("td", node.since ? h("span", { title: time(node.since) }, ago(node.since)) : ""), h("td", node.sentence ? said(reasonOf(node.sentence)) : h("span.soft", t("ha.not_seen"))));
        })))), { flush: true }),
      drill && card(t("ha.last_drill"), checksTable(drill.checks), { flush: true }));
  });
}

function vms(place, ctx) {
  const ha = ctx.store.define("ha_list", { verb: "ha_list", id: (one) => one.settings.vm, kinds: ["havm", "ha", "rule", "policy"], everyS: 15 });
  listing(place, ctx, {
    name: t("ha.vms"), source: ha, id: (one) => one.settings.vm, text: (one) => `${one.settings.vm} ${one.node} ${one.sentence} ${one.rules.join(" ")} ${word("ha.is", one.state || "")}`,
    buttons: [verbButton(ctx, "ha_set", {}, { icon: "plus", kind: "main", asks: t("host.vm") })],
    columns: [
      { key: "name", label: t("host.vm"), width: "1.2fr", narrow: true, value: (one) => one.settings.vm, cell: (one) => h("a.name", { href: link(`/vms/${encodeURIComponent(one.settings.vm)}`) }, one.settings.vm) },
      { key: "state", label: t("host.state"), width: "1.2fr", narrow: true, value: (one) => one.state || "", cell: (one) => one.state ? dot(VM_KINDS[one.state] ?? "", word("ha.is", one.state)) : h("span.soft", t("ha.not_seen")) },
      { key: "node", label: t("host.name"), width: "1fr", value: (one) => one.node, cell: (one) => h("a", { href: link(`/hosts/${encodeURIComponent(one.node)}`) }, one.node) },
      { key: "wanted", label: t("ha.requested"), width: "1fr", value: (one) => one.settings.requested, cell: (one) => word("ha.wants", one.settings.requested) },
      { key: "why", label: t("ha.reason"), width: "3fr", value: (one) => one.sentence, cell: (one) => h("span", { title: [one.sentence, ...one.notes].join("\n") }, said([reasonOf(one.sentence), ...one.notes].filter(Boolean).join("; "))) },
      { key: "rules", label: t("ha.rules"), width: "1fr", value: (one) => one.rules.join(" "), cell: (one) => h("span.badges", one.rules.map((rule) => badge("", rule))) },
    ],
    entries: (one) => verbEntries(ctx, [["ha_set", { name: one.settings.vm }, { icon: "edit", current: one.settings }], ["ha_remove", { name: one.settings.vm }, { danger: true, icon: "trash" }]]),
    empty: { icon: "heart", title: t("ha.no_vm"), text: t("ha.no_vm_text") },
  });
}

function rules(place, ctx) {
  // With what is otherwise now: hosts are asked for that, so it is not read at each event.
  const source = ctx.store.define("rules_seen", { verb: "rule_list", id: (one) => one.rule.name, kinds: ["rule"], everyS: 30 });
  const state = (one) => (one.dropped ? ["warn", t("rule.dropped")] : one.broken ? ["bad", t("rule.broken")] : ["good", t("rule.kept")]);
  listing(place, ctx, {
    name: t("ha.rules"), source, id: (one) => one.rule.name, text: (one) => `${one.rule.name} ${one.rule.kind} ${one.rule.vms.join(" ")} ${one.rule.nodes.map((node) => node.node).join(" ")}`,
    buttons: [verbButton(ctx, "rule_add", {}, { icon: "plus", kind: "main" })],
    columns: [
      { key: "name", label: t("rule.name"), width: "1fr", narrow: true, value: (one) => one.rule.name, cell: (one) => h("b", one.rule.name) },
      { key: "kind", label: t("rule.kind"), width: "1.2fr", narrow: true, value: (one) => one.rule.kind, cell: (one) => h("span", `${word("rule.is", one.rule.kind)}${one.rule.over ? ` (${one.rule.over})` : ""}`) },
      { key: "strict", label: t("rule.strict"), width: "90px", value: (one) => one.rule.strict, cell: (one) => t(one.rule.strict ? "rule.must" : "rule.wish") },
      { key: "vms", label: t("ha.vms"), width: "2fr", value: (one) => one.rule.vms.join(" "), cell: (one) => h("span", { title: one.rule.vms.join(", ") }, one.rule.vms.join(", ")) },
      { key: "nodes", label: t("nav.hosts"), width: "1.2fr", value: (one) => one.rule.nodes.length, cell: (one) => one.rule.nodes.map((node) => node.node).join(", ") },
      { key: "state", label: t("host.state"), width: "2fr", value: (one) => state(one)[1], cell: (one) => h("span", { title: one.dropped || one.broken }, dot(...state(one)), " ", h("span.soft", said(one.dropped || one.broken))) },
    ],
    entries: (one) => verbEntries(ctx, [["rule_remove", { name: one.rule.name }, { danger: true, icon: "trash" }]]),
    empty: { icon: "list", title: t("rule.none"), text: t("rule.none_text") },
  });
}

// All that decisions are made from, as a file: to be kept, or mailed.
async function saveDump(ctx) {
  try {
    const found = await ctx.api.call("dump", {}, { signal: ctx.signal });
    const address = URL.createObjectURL(new Blob([JSON.stringify(found, null, 1)], { type: "application/json" }));
    h("a", { href: address, download: "vorch-dump.json" }).click();
    setTimeout(() => URL.revokeObjectURL(address), 10000);
  } catch (error) { if (error.name !== "AbortError") notice(error.message, { kind: "bad" }); }
}

function room(place, ctx) {
  const source = ctx.store.define("capacity", { verb: "capacity", kinds: ["node", "ha", "rule"], everyS: 60 });
  const root = h("div.stack.scroll");
  add(place, [root]);
  follow([source], ctx.signal, () => {
    const bad = failing(source);
    if (bad) { patch(root, bad); return; }
    const one = source.data;
    const kind = { yes: "good", no: "bad" }[one.verdict] || "warn";
    patch(root, stale(source), h("section.card.health", { class: kind }, h("div.health-line", icon(kind === "good" ? "check" : "warn"), h("div", h("h2", word("room.is", one.verdict)), h("p", t("room.text", { n: one.hosts_lost })))),
      one.worst && !["yes"].includes(one.worst.verdict) && h("p.inner", h("b", one.worst.hosts.join(", ")), " ", said(one.worst.why))),
    h("div.cards", card(t("room.sums"), facts([[t("host.memory"), bar(one.memory_used_mib / Math.max(1, one.memory_mib), { name: t("host.memory"), text: t("host.memory_of", { used: mib(one.memory_used_mib), all: mib(one.memory_mib) }) })], [t("host.vcpus"), bar(one.vcpus_used / Math.max(1, one.vcpus), { name: t("host.vcpus"), text: t("overview.of", { some: number(one.vcpus_used), all: number(one.vcpus) }) })],
      [t("room.growth"), one.growth && (typeof one.growth === "object" ? Object.entries(one.growth).map(([key, value]) => `${key}: ${typeof value === "number" ? number(value, 1) : JSON.stringify(value)}`).join(", ") : number(one.growth))]])),
    card(t("room.by_host"), h("ul.rows", Object.entries(one.verdicts).slice(0, 60).map(([name, verdict]) => h("li", { key: name }, h("a.grow", { href: link(`/hosts/${encodeURIComponent(name)}/lost`) }, name), dot({ yes: "good", no: "bad" }[verdict] || "warn", word("capacity", verdict))))), { flush: true })),
    card(t("whatif.name"), h("div.stack", h("p", t("whatif.text")), h("div.buttons", ["whatif_add_host", "whatif_remove_host", "whatif_add_vms"].map((verb) => verbButton(ctx, verb)),
      ctx.can("dump") && button(verbName("dump"), () => saveDump(ctx), { icon: "copy" })))),
    card(t("balance.name"), h("div.stack", h("p", t("balance.text")), h("div.buttons", verbButton(ctx, "balance", {}, { icon: "move" }), verbButton(ctx, "ha_balance", {}, { icon: "edit" })))));
  });
}

let made = null;
export const view = {
  path: "/ha/:tab?", title: "nav.ha", icon: "heart", nav: 50,
  render(root, ctx) {
    root.classList.add("fills");
    const sees = ctx.me.role !== "user" || ctx.me.scopes.includes("*");
    made = parted(root, ctx, { title: t("nav.ha"), fallback: t("denied.all"), all: [
      { key: "now", text: t("ha.now"), path: "/ha", draw: whole, shown: sees }, { key: "vms", text: t("ha.vms"), path: "/ha/vms", draw: vms },
      { key: "rules", text: t("ha.rules"), path: "/ha/rules", draw: rules, shown: sees }, { key: "room", text: t("room.name"), path: "/ha/room", draw: room, shown: sees }] });
    return () => made.end();
  },
  update(ctx) { made.update(ctx); },
};
