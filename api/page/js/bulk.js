// One verb for several VMs: what it asks for once, a plan for each, then all of them, some at a time.
import * as api from "./api.js";
import { openDialog } from "./dialog.js";
import { button, clear, h, icon, patch } from "./dom.js";
import { fieldset } from "./fields.js";
import { t } from "./i18n.js";
import { stepText, planOf } from "./plans.js";
import { store } from "./store.js";
import { cancelJob, verbName } from "./tasks.js";
import { DANGEROUS } from "./verb.js";

const PLANS_AT_ONCE = 4;
const JOBS_AT_ONCE = 8;

// `work` for each of `items`, so many at the same time.
export async function spread(items, many, work, signal) {
  const left = [...items];
  await Promise.all(Array.from({ length: Math.min(many, left.length) }, async () => {
    while (left.length && !signal.aborted) await work(left.shift());
  }));
}

export async function openBulk(verb, rows, ctx) {
  const entry = (await api.verbs()).get(verb);
  const title = t("bulk.title", { verb: verbName(verb), n: rows.length });
  const fields = entry.fields.filter((one) => one.name !== "name" && (!entry.above[one.name] || ctx.is(entry.above[one.name])));
  const form = fields.length ? await fieldset(fields, { verb, args: {} }) : null;
  const leaving = new AbortController();
  const box = openDialog({ title, wide: true, onClose: () => leaving.abort() });
  const items = rows.map((row) => ({ name: row.vm.name, state: "plan", text: "", plan: null, job: "" }));
  const list = h("ul.bulk-list");
  const sum = h("p", { role: "status" });

  function draw() {
    const many = (state) => items.filter((one) => one.state === state).length;
    sum.textContent = [["ready", "bulk.ready"], ["nothing", "bulk.nothing"], ["refused", "bulk.refused"], ["running", "bulk.running"], ["done", "bulk.done"], ["failed", "bulk.failed"], ["plan", "bulk.planning"]]
      .filter(([state]) => many(state)).map(([state, key]) => t(key, { n: many(state) })).join(" · ");
    const kinds = { ready: "good", refused: "bad", running: "busy", done: "good", failed: "bad", plan: "busy", nothing: "" };
    patch(list, items.map((one) => h("li", { key: one.name },
      h("span.dot", { class: kinds[one.state] }, h("strong", one.name)),
      h("span.soft", one.text),
      one.plan && one.state === "ready" && h("details", h("summary", t("plan.steps")), h("ol.steps", one.plan.steps.map((step) => h("li", h("span", stepText(step)))))))));
  }

  async function plans(values) {
    clear(box.body, sum, list);
    box.setFoot(button(t("cancel"), () => box.close()));
    draw();
    await spread(items, PLANS_AT_ONCE, async (one) => {
      try {
        const plan = planOf(await api.plan(verb, { name: one.name, ...values }, { signal: leaving.signal }));
        [one.plan] = plan.plans;
        one.text = one.plan?.why ?? "";
        one.state = plan.empty ? "nothing" : "ready";
      } catch (error) {
        if (error.name === "AbortError") return;
        Object.assign(one, { state: "refused", text: error.message });
      }
      draw();
    }, leaving.signal);
    if (leaving.signal.aborted) return;
    const ready = items.filter((one) => one.state === "ready");
    box.setFoot(form && button(t("back"), () => { for (const one of items) one.state = "plan"; ask(); }), button(t("cancel"), () => box.close()),
      button(t("bulk.go", { verb: verbName(verb), n: ready.length }), () => carryOut(ready, values), { kind: DANGEROUS.has(verb) ? "danger" : "main", disabled: ready.length === 0 }));
    box.foot.lastChild.focus();
  }

  async function carryOut(ready, values) {
    let stopped = false;
    box.setFoot(button(t("bulk.stop"), () => { stopped = true; for (const one of items) if (one.state === "running" && one.job) cancelJob(one.job); }), button(t("task.behind"), () => box.close(), { kind: "main" }));
    // What has begun goes on when the dialog is closed, and so does what is still to begin.
    await spread(ready, JOBS_AT_ONCE, async (one) => {
      if (stopped) return;
      one.state = "running";
      draw();
      try {
        const begun = await api.begin(verb, { name: one.name, ...values });
        one.job = begun.job;
        const job = begun.job ? await ended(begun.job) : { state: "done" };
        one.state = job.state === "done" ? "done" : "failed";
        if (job.state !== "done") one.text = job.error?.message || job.state;
      } catch (error) { Object.assign(one, { state: "failed", text: error.message }); }
      draw();
    }, new AbortController().signal);
    box.setFoot(button(t("close"), () => box.close(), { kind: "main" }));
    if (box.el.isConnected) box.foot.lastChild.focus();
  }

  function ask() {
    if (!form) { plans({}); return; }
    const el = h("form.form", { novalidate: true, onsubmit: (event) => { event.preventDefault(); if (form.check()) plans(form.values()); } }, form.nodes);
    clear(box.body, h("p.soft", t(`verb.${verb}.help`)), el);
    box.setFoot(button(t("cancel"), () => box.close()), button(t("plan.show_all"), () => el.requestSubmit(), { kind: "main" }));
    (el.querySelector("input, select, summary"))?.focus();
  }

  ask();
}

// A job's end: told by an event, or found by asking.
async function ended(id) {
  const stop = new AbortController();
  try {
    return await new Promise((tell, fail) => {
      const over = (job) => { if (job && job.state !== "running") tell(job); };
      store.on("job", (data) => { if (data.name === id) over(data.job); }, stop.signal);
      let busy = false;
      const clock = setInterval(async () => {
        if (busy) return;
        busy = true;
        try { over((await api.get(`/v1/jobs/${encodeURIComponent(id)}`)).data); } catch (error) { if (error.status === 404 || error.status === 401) fail(error); }
        busy = false;
      }, 2000);
      stop.signal.addEventListener("abort", () => clearInterval(clock));
      over(store.jobs.get(id));
    });
  } finally { stop.abort(); }
}
