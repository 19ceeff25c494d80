// Users with their rights and quotas; tokens, which are shown once, when they are made.
import { h } from "../dom.js";
import { ago, bytes, mib, number, time } from "../format.js";
import { t } from "../i18n.js";
import { badge, bar, dot, listing, parted, verbButton, verbEntries } from "../listing.js";

const ROLE = { admin: "bad", operator: "accent", user: "good", viewer: "" };

function quotaOf(one) {
  const { quota } = one.user;
  const said = { vms: number, vcpus: number, memory_mib: mib, disk_gib: (value) => bytes(value * 1024 ** 3) };
  const found = Object.keys(said).filter((key) => quota[key] !== null && quota[key] !== undefined);
  if (!found.length) return h("span.soft", t("people.no_quota"));
  return h("span.quotas", found.map((key) => h("span", { title: `${t(`people.quota.${key}`)}: ${t("overview.of", { some: said[key](one.used[key]), all: said[key](quota[key]) })}` }, bar(one.used[key] / Math.max(1, quota[key]), { name: t(`people.quota.${key}`), text: t("overview.of", { some: said[key](one.used[key]), all: said[key](quota[key]) }) }))));
}

function users(place, ctx) {
  const source = ctx.store.define("users", { verb: "user_list", id: (one) => one.user.name, everyS: 30 });
  const after = { done: () => source.refresh() };
  listing(place, ctx, {
    name: t("people.users"), source, id: (one) => one.user.name, text: (one) => `${one.user.name} ${one.user.role} ${one.user.scopes.join(" ")} ${one.user.description}`,
    buttons: [verbButton(ctx, "user_add", {}, { icon: "plus", kind: "main", ...after })],
    columns: [
      { key: "name", label: t("people.name"), width: "1.2fr", narrow: true, value: (one) => one.user.name, cell: (one) => h("b", one.user.name) },
      { key: "role", label: t("people.role"), width: "1fr", narrow: true, value: (one) => one.user.role, cell: (one) => badge(ROLE[one.user.role], t(`role.${one.user.role}`)) },
      { key: "state", label: t("host.state"), width: "1fr", value: (one) => one.user.disabled, cell: (one) => one.user.disabled ? dot("bad", t("people.disabled")) : dot("good", t("people.enabled")) },
      { key: "scopes", label: t("people.scopes"), width: "1.4fr", value: (one) => one.user.scopes.join(" "), cell: (one) => h("span.badges", one.user.scopes.map((scope) => badge("", scope === "*" ? t("people.all_vms") : scope))) },
      { key: "quota", label: t("people.quota"), width: "1.6fr", value: (one) => one.used.vms, cell: quotaOf },
      { key: "login", label: t("people.login"), width: "1.2fr", value: (one) => Boolean(one.user.password_at), cell: (one) => [one.user.password_at && t("people.by_password"), one.user.external && t("people.by_provider")].filter(Boolean).join(", ") || h("span.soft", t("people.by_token")) },
      { key: "tokens", label: t("people.tokens"), width: "70px", right: true, value: (one) => one.tokens, cell: (one) => number(one.tokens) },
      { key: "description", label: t("description"), width: "1.4fr", value: (one) => one.user.description, cell: (one) => one.user.description },
    ],
    entries: (one) => verbEntries(ctx, [
      ["user_change", { name: one.user.name }, { icon: "edit", current: one.user, ...after }],
      ["user_change", { name: one.user.name }, { text: t("people.password"), title: t("people.password_of", { name: one.user.name }), only: ["password"], icon: "edit", ...after }],
      ["user_change", { name: one.user.name, disabled: !one.user.disabled }, { text: t(one.user.disabled ? "people.enable" : "people.disable"), title: t(one.user.disabled ? "people.enable_of" : "people.disable_of", { name: one.user.name }), skipForm: true, only: [], icon: one.user.disabled ? "play" : "pause", ...after }],
      ["token_create", { user: one.user.name }, { icon: "plus", ...after }], null, ["user_remove", { name: one.user.name }, { danger: true, icon: "trash", ...after }]]),
    empty: { icon: "user", title: t("people.none"), text: t("people.none_text") },
  });
}

function tokens(place, ctx) {
  const source = ctx.store.define("tokens", { verb: "token_list", id: (one) => one.id, everyS: 30 });
  const after = { done: () => source.refresh() };
  const own = ctx.me.role === "admin" ? {} : { user: ctx.me.name };
  listing(place, ctx, {
    name: t("people.tokens"), source, id: (one) => one.id, text: (one) => `${one.id} ${one.user} ${one.description}`, sort: { key: "made", down: true },
    buttons: [ctx.me.via !== "token" && verbButton(ctx, "token_create", own, { icon: "plus", kind: "main", ...after })],
    columns: [
      { key: "id", label: "id", width: "1.2fr", narrow: true, value: (one) => one.id, cell: (one) => h("code", one.id) },
      { key: "user", label: t("people.name"), width: "1fr", narrow: true, value: (one) => one.user, cell: (one) => h("b", one.user) },
      { key: "role", label: t("people.role"), width: "1fr", value: (one) => one.role || "", cell: (one) => one.role ? badge(ROLE[one.role], t(`role.${one.role}`)) : h("span.soft", t("people.own_role")) },
      { key: "description", label: t("description"), width: "2fr", value: (one) => one.description, cell: (one) => one.description },
      { key: "made", label: t("image.made"), width: "1fr", value: (one) => one.created_at, cell: (one) => h("span", { title: time(one.created_at) }, ago(one.created_at)) },
      { key: "expires", label: t("people.expires"), width: "1fr", narrow: true, value: (one) => one.expires_at, cell: (one) => one.expires_at * 1000 < Date.now() ? dot("bad", t("people.expired")) : h("span", { title: time(one.expires_at) }, ago(one.expires_at)) },
    ],
    entries: (one) => verbEntries(ctx, [["token_revoke", { token: one.id }, { danger: true, icon: "trash", ...after }]]),
    empty: { icon: "user", title: t("people.no_token"), text: t("people.no_token_text") },
  });
}

let made = null;
export const view = {
  path: "/people/:tab?", title: "nav.people", icon: "user", nav: 90,
  render(root, ctx) {
    root.classList.add("fills");
    made = parted(root, ctx, { title: t("nav.people"), fallback: t("denied.all"), all: [
      { key: "users", text: t("people.users"), path: "/people", draw: users, shown: ctx.can("user_list") },
      { key: "tokens", text: t("people.tokens"), path: ctx.can("user_list") ? "/people/tokens" : "/people", draw: tokens, shown: ctx.can("token_list") }] });
    return () => made.end();
  },
  update(ctx) { made.update(ctx); },
};
