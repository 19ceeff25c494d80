// What is under way, and what was: the panel on the right, and parts that dialogs use, too.
//
//   taskPanel({me, can, signal}) → {button, el}
//   follow(jobId, draw, signal)  → Promise of the job when it is over; draw(job, tasks) meanwhile
//   progressOf(job, tasks, {can}) → nodes: per cent, what it does now, bytes, log, how it ended
//   cancelJob(id)
import * as api from "./api.js";
import { notice } from "./dialog.js";
import { button, h, icon, iconButton, patch } from "./dom.js";
import { ago, duration, figure, percent, time } from "./format.js";
import { has, t, word } from "./i18n.js";
import { link } from "./router.js";
import { store } from "./store.js";

const KEPT = 60;

// Tasks call a verb "disk grow", others "disk_grow"; of what has no name here, that is the name.
export function verbName(verb) {
  const key = String(verb).replaceAll(" ", "_").replaceAll("-", "_");
  return has(`verb.${key}`) ? word("verb", key) : key.replaceAll("_", " ");
}

export async function cancelJob(id, kind = "job") {
  try {
    await api.call(`${kind}_cancel`, { [`${kind}_id`]: id });
    notice(t("task.cancelling"));
  } catch (error) { notice(error.message, { kind: "bad" }); }
}

export async function follow(jobId, draw, signal) {
  const tasks = new Map();
  let job = null;
  for (let tries = 0; !job || job.state === "running"; tries += 1) {
    try {
      await api.stream(`/v1/jobs/${encodeURIComponent(jobId)}/watch`, {
        task: (one) => { tasks.set(one.id, one); if (job) draw(job, [...tasks.values()]); },
        job: (one) => { job = one; draw(job, [...tasks.values()]); },
      }, { signal });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      if (error.status && error.status !== 503) throw error;
    }
    if (!job || job.state === "running") await new Promise((go) => { setTimeout(go, Math.min(300 * 2 ** tries, 5000)); });
  }
  return job;
}

const STATES = { running: "busy", done: "good", failed: "bad", undone: "warn", cancelled: "warn" };
export function stateDot(state) { return h("span.dot", { class: STATES[state] || "" }, word("task.state", state)); }

function percentOf(job, tasks) {
  if (job.state !== "running") return 100;
  return tasks.length ? tasks.reduce((sum, one) => sum + one.percent, 0) / Math.max(tasks.length, 1) : 0;
}

// Figures of a task's result that are bytes or seconds, in words.
function figures(task) {
  return Object.entries(task.result || {}).filter(([, value]) => typeof value === "number" && value !== 0).map(([name, value]) => t("figure.said", { name: word("figure", name), value: figure(name, value) }));
}

export function progressOf(job, tasks) {
  const part = percentOf(job, tasks);
  const running = job.state === "running";
  const log = tasks.flatMap((one) => one.log);
  const said = tasks.flatMap(figures);
  const doing = tasks.filter((one) => one.state === "running").map((one) => one.doing).filter(Boolean).join("; ");
  return [
    h("div.toolbar", stateDot(job.state), h("span.grow"), h("span.soft", running ? percent(part) : duration(Math.max(0, (job.finished_at ?? job.started_at) - job.started_at)))),
    h("div.progress", {
      role: "progressbar", "aria-label": t("task.progress"), "aria-valuemin": "0", "aria-valuemax": "100", "aria-valuenow": String(Math.round(part)),
      class: job.state === "done" ? "good" : running ? "" : "bad", style: { "--part": part },
    }, h("div")),
    running && h("p.soft", doing || t("task.waiting")),
    job.error && h("div.banner.bad", { role: "alert" }, icon("warn"), h("div", job.error.message || job.error.detail || String(job.error.code))),
    said.length > 0 && h("p.soft", said.join(" · ")),
    log.length > 0 && h("pre.log", { tabindex: "0", "aria-label": t("task.log") }, log.join("\n")),
  ];
}

export function taskPanel({ me, can, signal }) {
  let open = false;
  const unfolded = new Set();
  const list = h("div.tasks-list");
  const many = h("span.badge.accent", { hidden: true });
  const toggle = h("button.button.bare", { type: "button", "aria-expanded": "false", "aria-controls": "tasks", onclick: () => show(!open) }, icon("clock"), h("span.tasks-word", t("tasks.name")), many);
  const el = h("aside.tasks#tasks", { "aria-label": t("tasks.name"), hidden: true },
    h("header", h("h2", t("tasks.name")), iconButton("close", t("close"), () => { show(false); toggle.focus(); })), list);

  function show(wanted) {
    open = wanted;
    el.hidden = !open;
    toggle.setAttribute("aria-expanded", String(open));
    if (open) { load(); draw(); }
  }

  // Jobs with their tasks, and tasks that were begun past the service.
  function entries() {
    const tasks = [...store.tasks.values()];
    const found = [...store.jobs.values()].map((job) => ({ id: job.id, kind: "job", job, tasks: tasks.filter((one) => one.job === job.id) }));
    for (const one of tasks) if (!one.job || !store.jobs.has(one.job)) found.push({ id: one.id, kind: "task", job: one, tasks: [one] });
    const rank = (one) => (one.job.state === "running" ? 1 : 0);
    return found.sort((a, b) => rank(b) - rank(a) || b.job.started_at - a.job.started_at).slice(0, KEPT);
  }

  function draw() {
    const running = [...store.jobs.values(), ...[...store.tasks.values()].filter((one) => !one.job)].filter((one) => one.state === "running").length;
    many.hidden = running === 0;
    many.textContent = String(running);
    toggle.setAttribute("aria-label", t("tasks.button", { n: running }));
    if (!open) return;
    const found = entries();
    patch(list, found.length === 0 && h("div.empty", icon("clock"), h("p", t("tasks.none"))), found.map((one) => {
      const { job } = one;
      const wide = unfolded.has(one.id) || job.state === "running";
      return h("section.task", { key: one.id },
        h("div.task-head",
          h("button.task-fold", { type: "button", "aria-expanded": String(wide), onclick: () => { if (!unfolded.delete(one.id)) unfolded.add(one.id); draw(); } },
            h("span.dot", { class: STATES[job.state] || "" }), h("strong", verbName(job.verb)), h("span.task-about", job.subject)),
          job.state === "running" && can("job_cancel") && button(t("cancel"), () => cancelJob(one.id, one.kind), { kind: "small" })),
        h("p.hint", { title: time(job.started_at) }, `${job.who} · ${ago(job.started_at)}`, job.state !== "running" && ` · ${word("task.state", job.state)}`),
        wide && progressOf(job, one.tasks),
        wide && one.tasks.filter((task) => task.why).map((task) => h("p.hint", task.why)),
        wide && store.collection("vms").items.has(job.subject) && h("a", { href: link(`/vms/${encodeURIComponent(job.subject)}`) }, t("task.open_vm")));
    }));
  }

  async function load() {
    try {
      const [jobs, tasks] = await Promise.all([api.list("/v1/jobs", { limit: KEPT }), api.list("/v1/tasks", { limit: KEPT })]);
      for (const one of jobs) store.jobs.set(one.id, one);
      for (const one of tasks) store.tasks.set(one.id, one);
      forgetOld();
      draw();
    } catch (error) { if (open) notice(error.message, { kind: "bad" }); }
  }

  function forgetOld() {
    for (const known of [store.jobs, store.tasks]) {
      const old = [...known.values()].sort((a, b) => b.started_at - a.started_at).slice(10 * KEPT);
      for (const one of old) known.delete(one.id);
    }
  }

  let drawing = false;
  const soon = () => {
    if (drawing) return;
    drawing = true;
    setTimeout(() => { drawing = false; if (!signal.aborted) draw(); }, 100);
  };
  for (const kind of ["task", "job"]) store.on(kind, soon, signal);
  load();
  // Whoever sees the own VMs only hears of no task by events.
  const sees = me.role === "admin" || me.role === "operator" || me.scopes.includes("*") || (me.role === "viewer" && me.scopes.length === 0);
  const clock = setInterval(() => { if (!document.hidden && (!sees || !store.live)) load(); else if (open) draw(); }, sees ? 15000 : 3000);
  signal.addEventListener("abort", () => clearInterval(clock));
  return { button: toggle, el, show };
}
