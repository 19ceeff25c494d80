// What is under way and what was: tasks with their logs, and the audit log.
import { button, h, icon, patch } from "../dom.js";
import { ago, duration, percent, time } from "../format.js";
import { t, word } from "../i18n.js";
import { link } from "../router.js";
import { badge, dot, facts, failing, listing, parted, said, verbButton } from "../listing.js";
import { cancelJob, progressOf, stateDot, verbName } from "../tasks.js";
import { taskKind } from "./overview.js";

const RESULTS = { done: "good", refused: "bad", failed: "bad", undone: "warn", cancelled: "warn", stuck: "bad" };

function tasks(place, ctx) {
  const source = ctx.store.define("tasks", { verb: "task_list", id: (one) => one.id, kinds: ["task"] });
  listing(place, ctx, {
    name: t("activity.tasks"), source, id: (one) => one.id, text: (one) => `${verbName(one.verb)} ${one.verb} ${one.subject} ${one.who} ${one.why} ${word("task.state", one.state)} ${one.state}`, sort: { key: "began", down: true },
    buttons: [verbButton(ctx, "recover", {}, { icon: "refresh" })],
    columns: [
      { key: "verb", label: t("activity.verb"), width: "1.4fr", narrow: true, value: (one) => verbName(one.verb), cell: (one) => h("a.name", { href: link(`/activity/tasks/${one.id}`), title: one.verb }, verbName(one.verb)) },
      { key: "subject", label: t("activity.subject"), width: "1.2fr", narrow: true, value: (one) => one.subject, cell: (one) => one.subject },
      { key: "state", label: t("host.state"), width: "1.1fr", narrow: true, value: (one) => one.state, cell: (one) => one.state === "running" ? h("span.dot", { class: taskKind(one) }, `${word("task.state", one.state)} ${percent(one.percent ?? 0)}`) : stateDot(one.state) },
      { key: "why", label: t("activity.why"), width: "2.4fr", value: (one) => one.why, cell: (one) => h("span", { title: one.error?.message || one.why }, said(one.error?.message || one.doing || one.why)) },
      { key: "who", label: t("activity.who"), width: "1fr", value: (one) => one.who, cell: (one) => one.who },
      { key: "began", label: t("activity.began"), width: "1fr", value: (one) => one.started_at, cell: (one) => h("span", { title: time(one.started_at) }, ago(one.started_at)) },
      { key: "took", label: t("activity.took"), width: "90px", right: true, value: (one) => (one.finished_at ?? Date.now() / 1000) - one.started_at, cell: (one) => one.finished_at ? duration(one.finished_at - one.started_at) : "" },
    ],
    empty: { icon: "clock", title: t("activity.none"), text: t("activity.none_text") },
  });
}

function audit(place, ctx) {
  const source = ctx.store.define("audit", { verb: "audit_list", query: { limit: 1000 }, id: (one) => one.id, kinds: ["task", "job"] });
  listing(place, ctx, {
    name: t("activity.audit"), source, id: (one) => one.id, text: (one) => `${one.who} ${one.source} ${one.verb} ${verbName(one.verb)} ${one.subject} ${one.result} ${one.message}`, sort: { key: "at", down: true },
    columns: [
      { key: "at", label: t("audit.at"), width: "1.1fr", value: (one) => one.at, cell: (one) => h("span", { title: ago(one.at) }, time(one.at)) },
      { key: "who", label: t("activity.who"), width: "1fr", narrow: true, value: (one) => one.who, cell: (one) => h("b", one.who) },
      { key: "source", label: t("audit.source"), width: "1fr", value: (one) => one.source, cell: (one) => one.source },
      { key: "verb", label: t("activity.verb"), width: "1.3fr", narrow: true, value: (one) => verbName(one.verb), cell: (one) => verbName(one.verb) },
      { key: "subject", label: t("activity.subject"), width: "1.2fr", value: (one) => one.subject, cell: (one) => one.subject },
      { key: "result", label: t("audit.result"), width: "1fr", narrow: true, value: (one) => one.result, cell: (one) => dot(RESULTS[one.result] ?? "", word("audit.is", one.result)) },
      { key: "message", label: t("audit.message"), width: "2.4fr", value: (one) => one.message, cell: (one) => h("span", { title: one.message }, one.code && badge("", one.code), " ", said(one.message)) },
    ],
    empty: { icon: "list", title: t("activity.none"), text: t("activity.none_text") },
  });
}

let made = null;
const list = {
  path: "/activity/:tab?", title: "nav.activity", icon: "clock", nav: 80,
  render(root, ctx) {
    root.classList.add("fills");
    made = parted(root, ctx, { title: t("nav.activity"), fallback: "", all: [{ key: "tasks", text: t("activity.tasks"), path: "/activity", draw: tasks }, { key: "audit", text: t("activity.audit"), path: "/activity/audit", draw: audit, shown: ctx.can("audit_list") }] });
    return () => made.end();
  },
  update(ctx) { made.update(ctx); },
};

const one = {
  path: "/activity/tasks/:id", title: "nav.activity", icon: "clock",
  render(root, ctx) {
    const source = ctx.store.define("tasks", { verb: "task_list", id: (task) => task.id, kinds: ["task"] });
    source.subscribe(() => {
      const task = source.items.get(ctx.params.id);
      const bad = failing(source) || (!task && h("div.empty", icon("clock"), h("h1", t("activity.gone")), h("p", t("activity.gone_text"))));
      if (bad) { patch(root, bad); return; }
      ctx.setTitle(`${verbName(task.verb)} ${task.subject}`);
      patch(root, h("div.head", h("a", { href: link("/activity") }, t("nav.activity")), h("span.soft", { "aria-hidden": "true" }, "/"), h("h1", `${verbName(task.verb)} ${task.subject}`), h("div.grow"),
        task.state === "running" && ctx.can("task_cancel") && button(t("task.cancel"), () => cancelJob(task.id, "task"), { icon: "stop" })),
      h("section.card", h("div.inner.stack", progressOf(task, [task]))),
      h("section.card", h("header", h("h2", t("activity.about"))), h("div.inner", facts([[t("activity.why"), said(task.why)], [t("activity.who"), task.who], [t("activity.began"), time(task.started_at)], [t("activity.ended"), task.finished_at ? time(task.finished_at) : ""], [t("activity.job"), task.job && h("code", task.job)], ["id", h("code", task.id)]]))));
    }, ctx.signal);
  },
};
export const views = [list, one];
