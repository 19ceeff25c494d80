// One dialog for every verb of the service: what it needs, its plan, then what comes of it.
//
//   openVerb("snapshot_create", {name: "web"}, {ctx, …})
//     args that are given are not asked for again, unless `ask` names them (then they are shown).
//     title, ask: [names], only: [names] (no other field is offered), current: {field: value now}
//     (only what differs from it is sent), choices: {field: [value | {value, text, why, disabled}]},
//     before: {nodes, values(), check()}  fields of one's own above the others (skip: [names] of those
//     that they stand for), etag (If-Match), skipForm: true (straight to the plan), confirmed: true (its plan was shown
//     already), done(result, job)
//
// Forms are made from /openapi.json, so no verb is missing: labels and hints are texts of the
// catalogue (`field.NAME`, `field.NAME.hint`), choices come from what the page knows (fields.js).
// The service decides: what it refuses is shown in its own words, and the form stays.
import * as api from "./api.js";
import { notice, openDialog } from "./dialog.js";
import { button, clear, h, icon, patch } from "./dom.js";
import { fieldset } from "./fields.js";
import { t } from "./i18n.js";
import { planOf } from "./plans.js";
import { store } from "./store.js";
import { cancelJob, follow, progressOf, verbName } from "./tasks.js";

export async function openVerb(verb, args = {}, options = {}) {
  const entry = (await api.verbs()).get(verb);
  if (!entry) { notice(t("error.no_verb", { verb }), { kind: "bad" }); return null; }
  const title = options.title || titleOf(verb, args, entry);
  const permitted = (one) => !entry.above[one.name] || !options.ctx || options.ctx.is(entry.above[one.name]);
  const wanted = entry.fields.filter((one) => permitted(one) && !options.skip?.includes(one.name) && (options.only ? options.only.includes(one.name) : true) && (!(one.name in args) || options.ask?.includes(one.name)));
  const own = wanted.length ? await fieldset(wanted, { ...options, verb, args }) : null;
  const form = options.before ? joined(options.before, own) : own;
  const leaving = new AbortController();
  const box = openDialog({ title, wide: wanted.length > 6, onClose: () => leaving.abort() });
  const danger = DANGEROUS.has(verb);
  const key = api.newKey();
  const help = t(`verb.${verb}.help`);

  function given() { return { ...args, ...(form ? form.values() : {}) }; }

  function showForm(problem) {
    clear(box.body, h("p.soft", help), problem && problemOf(problem));
    const el = h("form.form", { onsubmit: (event) => { event.preventDefault(); if (form.check()) showPlan(); }, novalidate: true }, form.nodes);
    box.body.append(el);
    box.setFoot(button(t("cancel"), () => box.close()),
      button(entry.dryRun ? t("plan.show") : verbName(verb), () => el.requestSubmit(), { kind: "main" }));
    (problem ? el.querySelector("[autofocus], input, select, textarea") : el.querySelector("input, select, textarea"))?.focus();
  }

  async function showPlan() {
    const values = given();
    if (!entry.dryRun) {
      if (form) { carryOut(values); return; }
      clear(box.body, h("p", help));
      confirmFoot(values);
      return;
    }
    clear(box.body, h("div.loading", h("div.spin"), h("span", t("plan.making"))));
    box.setFoot(button(t("cancel"), () => box.close()));
    let answer;
    try {
      answer = await api.plan(verb, values, { etag: options.etag, signal: leaving.signal });
    } catch (error) {
      if (error.name === "AbortError") return;
      if (form) { showForm(error); return; }
      clear(box.body, problemOf(error));
      const force = entry.fields.some((one) => one.name === "force" && permitted(one)) && !values.force;
      box.setFoot(force && button(t("plan.force"), () => { args.force = true; showPlan(); }), button(t("again"), showPlan), button(t("close"), () => box.close(), { kind: "main" }));
      return;
    }
    if (leaving.signal.aborted) return;
    const plan = planOf(answer);
    clear(box.body, plan.el);
    if (plan.empty) {
      box.setFoot(form && button(t("back"), () => showForm()), button(t("close"), () => box.close(), { kind: "main" }));
      box.foot.lastChild.focus();
    } else confirmFoot(values);
  }

  function confirmFoot(values) {
    box.setFoot(form && button(t("back"), () => showForm()), !form && button(t("cancel"), () => box.close()),
      button(verbName(verb), () => carryOut(values), { kind: danger ? "danger" : "main", class: danger ? "danger confirm" : "main confirm" }));
    (danger ? box.foot.firstChild : box.foot.lastChild).focus();
  }

  async function carryOut(values) {
    for (const one of box.foot.querySelectorAll("button")) one.disabled = true;
    let begun;
    try {
      begun = await api.begin(verb, values, { etag: options.etag, key });
    } catch (error) {
      if (form) showForm(error);
      else { clear(box.body, problemOf(error)); box.setFoot(button(t("close"), () => box.close(), { kind: "main" })); }
      return;
    }
    if (!begun.job) { ended(begun.data, null); return; }
    const place = h("div.stack");
    clear(box.body, place);
    box.setFoot(button(t("task.cancel"), () => cancelJob(begun.job), { kind: "stop" }), button(t("task.behind"), () => box.close(), { kind: "main" }));
    box.foot.lastChild.focus();
    try {
      const job = await follow(begun.job, (now, tasks) => patch(place, progressOf(now, tasks)), leaving.signal);
      if (job.state === "done") ended(job.result, job);
      else { box.setFoot(form && button(t("back"), () => showForm()), button(t("close"), () => box.close(), { kind: "main" })); box.foot.lastChild.focus(); }
    } catch (error) {
      // Whoever closed the dialog hears of the end by the panel of tasks.
      if (error.name !== "AbortError") box.body.append(problemOf(error));
    }
  }

  function ended(result, job) {
    // Whoever sees the own VMs only is told of no deletion.
    if (entry.about === "vm") store.collection("vms").touched(args.name || job?.subject);
    const secret = result?.secret;
    if (secret) {
      clear(box.body, h("div.banner.info", icon("info"), h("div", t("secret.once"))), h("pre.log", { tabindex: "0" }, secret));
    } else if (result !== null && result !== undefined && !result.plan && !Array.isArray(result)) {
      box.body.append(h("pre.log", { tabindex: "0", "aria-label": t("result") }, JSON.stringify(result, null, 2)));
    }
    options.done?.(result, job);
    const plain = !secret && (job || result === null);
    if (!job && plain) { notice(t("done.verb", { what: title }), { kind: "good" }); box.close(); return; }
    box.setFoot(button(t("close"), () => box.close(), { kind: "main" }));
    box.foot.lastChild.focus();
  }

  if (options.confirmed) carryOut(given());
  else if (form && !options.skipForm) showForm();
  else showPlan();
  return box;
}

// Two sets of fields as one form.
function joined(first, second) {
  if (!second) return first;
  return {
    nodes: [first.nodes, second.nodes],
    values: () => ({ ...second.values(), ...first.values() }),
    check: () => first.check() && second.check(),
  };
}

export const DANGEROUS = new Set(["delete", "reset", "snapshot_rollback", "snapshot_delete", "disk_detach", "image_delete", "network_delete",
  "pool_remove", "class_remove", "trash_purge", "node_fence", "node_remove", "rule_remove", "ha_remove", "user_remove", "token_revoke", "state_rebuild", "ha_disarm", "send"]);

export function titleOf(verb, args, entry) {
  const about = args[entry?.inPath] ?? args.name ?? "";
  return about ? t("verb.about", { verb: verbName(verb), about }) : verbName(verb);
}

// An error in the service's own words, which say what to do.
export function problemOf(error) {
  return h("div.banner.bad", { role: "alert" }, icon("warn"), h("div", h("p", error.message), error.code && h("p.hint", t("error.code", { code: error.code }))));
}
