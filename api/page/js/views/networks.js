// Networks, and ports of hosts that lead to VMs.
import { openDialog } from "../dialog.js";
import { button, clear, h, icon } from "../dom.js";
import { number } from "../format.js";
import { t, word } from "../i18n.js";
import { link } from "../router.js";
import { badge, listing, parted, verbButton, verbEntries } from "../listing.js";
import { checksTable } from "./hosts.js";

async function check(ctx, name) {
  const body = h("div", h("div.loading", h("span.spin"), t("check.running")));
  const leaving = new AbortController();
  const box = openDialog({ title: t("network.check_of", { name }), wide: true, body, foot: [button(t("close"), () => box.close(), { kind: "main" })], onClose: () => leaving.abort() });
  try {
    clear(body, checksTable(await ctx.api.call("network_check", { name }, { signal: leaving.signal })));
  } catch (error) { if (error.name !== "AbortError") clear(body, h("div.banner.bad", { role: "alert" }, icon("warn"), h("div", error.message))); }
}

function networks(place, ctx) {
  listing(place, ctx, {
    name: t("nav.networks"), source: ctx.store.collection("networks"), id: (one) => one.name, text: (one) => `${one.name} ${one.kind} ${one.bridge || ""} ${one.subnet || ""} ${one.vlan ?? ""}`,
    buttons: [verbButton(ctx, "network_create", {}, { icon: "plus", kind: "main" })],
    columns: [
      { key: "name", label: t("network.name"), width: "1.2fr", narrow: true, value: (one) => one.name, cell: (one) => h("b", one.name) },
      { key: "kind", label: t("network.kind"), width: "1.2fr", narrow: true, value: (one) => one.kind, cell: (one) => word("network.is", one.kind) },
      { key: "bridge", label: t("network.bridge"), width: "1.4fr", value: (one) => one.bridge || "", cell: (one) => h("span.mono", [one.bridge, ...Object.entries(one.bridges).map(([host, bridge]) => `${host}: ${bridge}`)].filter(Boolean).join(", ")) },
      { key: "subnet", label: t("network.subnet"), width: "1.2fr", value: (one) => one.subnet || "", cell: (one) => h("span", one.subnet || "", " ", one.dhcp && one.subnet && badge("", "DHCP")) },
      { key: "vlan", label: t("network.vlan"), width: "80px", right: true, value: (one) => one.vlan ?? -1, cell: (one) => one.vlan === null ? "" : String(one.vlan) },
      { key: "vni", label: "VNI", width: "80px", right: true, value: (one) => one.vni ?? -1, cell: (one) => one.vni === null ? "" : String(one.vni) },
      { key: "mtu", label: "MTU", width: "80px", right: true, value: (one) => one.mtu ?? -1, cell: (one) => one.mtu === null ? "" : String(one.mtu) },
      { key: "forwards", label: t("network.forwards"), width: "100px", right: true, value: (one) => one.forwards.length, cell: (one) => one.forwards.length ? number(one.forwards.length) : "" },
    ],
    entries: (one) => [...(ctx.can("network_check") ? [{ text: t("network.check"), icon: "check", run: () => check(ctx, one.name) }] : []),
      ...verbEntries(ctx, [["network_change", { name: one.name }, { icon: "edit", current: { bridge: one.bridge, bridges: one.bridges } }], null, ["network_delete", { name: one.name }, { danger: true, icon: "trash" }]])],
    empty: { icon: "network", title: t("network.none"), text: t("network.none_text") },
  });
}

function forwards(place, ctx) {
  const source = ctx.store.define("forwards", { verb: "forward_list", id: (one) => `${one.vm}/${one.forward.host_port}/${one.forward.protocol}`, kinds: ["network", "vm", "power"] });
  listing(place, ctx, {
    name: t("network.forwards"), source, id: (one) => `${one.vm}/${one.forward.host_port}/${one.forward.protocol}`, text: (one) => `${one.vm} ${one.node} ${one.network} ${one.forward.host_port}`,
    buttons: [verbButton(ctx, "forward_add", {}, { icon: "plus", kind: "main", asks: t("host.vm") })],
    columns: [
      { key: "port", label: t("forward.port"), width: "1fr", narrow: true, value: (one) => one.forward.host_port, cell: (one) => h("b", `${one.forward.host_port}/${one.forward.protocol}`) },
      { key: "to", label: t("forward.to"), width: "1.4fr", narrow: true, value: (one) => one.vm, cell: (one) => h("span", h("a", { href: link(`/vms/${encodeURIComponent(one.vm)}`) }, one.vm), `:${one.forward.to ?? one.forward.guest_port ?? one.forward.host_port}`) },
      { key: "node", label: t("host.name"), width: "1fr", value: (one) => one.node, cell: (one) => one.node },
      { key: "network", label: t("network.name"), width: "1fr", value: (one) => one.network, cell: (one) => one.network },
    ],
    entries: (one) => verbEntries(ctx, [["forward_remove", { name: one.vm, port: `${one.forward.host_port}/${one.forward.protocol}` }, { danger: true, icon: "trash" }]]),
    empty: { icon: "network", title: t("forward.none"), text: t("forward.none_text") },
  });
}

let made = null;
export const view = {
  path: "/networks/:tab?", title: "nav.networks", icon: "network", nav: 70,
  render(root, ctx) {
    root.classList.add("fills");
    const sees = ctx.me.role !== "user" || ctx.me.scopes.includes("*");
    made = parted(root, ctx, { title: t("nav.networks"), fallback: t("denied.all"), all: [{ key: "list", text: t("nav.networks"), path: "/networks", draw: networks }, { key: "forwards", text: t("network.forwards"), path: "/networks/forwards", draw: forwards, shown: sees }] });
    return () => made.end();
  },
  update(ctx) { made.update(ctx); },
};
