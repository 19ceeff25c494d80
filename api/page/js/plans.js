// A plan in words: what will happen, on which host, and why there.
//
//   planOf(answer of a dry run) → {el, empty, plans}
//     An answer is {plan, task}, a list of these, or something that has plans in it (`plans`,
//     `moves` of a balance); what has none is shown as it is.
//   stepText(step)  one step as a sentence, by its `kind`: texts `step.KIND` of the catalogue
import { h, icon } from "./dom.js";
import { bytes, duration, figure, mib } from "./format.js";
import { has, t, word } from "./i18n.js";

function plansIn(answer) {
  if (!answer || typeof answer !== "object") return [];
  if (Array.isArray(answer)) return answer.flatMap(plansIn);
  if (answer.plan) return plansIn(answer.plan);
  if (answer.why !== undefined && Array.isArray(answer.steps)) return [answer];
  return ["plans", "done", "tasks"].flatMap((one) => (Array.isArray(answer[one]) ? plansIn(answer[one]) : []));
}

const volume = (one) => (one ? `${one.pool}/${one.name}` : "");

// The values that texts of steps speak of, by one name for all kinds.
function wordsOf(step) {
  const [kind, ...name] = (step.key || "").split("/");
  const vm = step.vm || {};
  return {
    ...Object.fromEntries(Object.entries(step).filter(([, value]) => ["string", "number"].includes(typeof value)).map(([key, value]) => [key, String(value)])),
    vm: vm.name || (typeof step.vm === "string" ? step.vm : step.name || ""),
    node: typeof step.node === "string" ? step.node : step.node?.name || vm.node || "",
    from: volume(step.source) || volume(step.iso) || volume(step.base) || "",
    volume: volume(step.volume) || volume(step.target?.pool ? step.target : null),
    target: typeof step.target === "string" ? step.target : volume(step.target),
    size: step.size_bytes === undefined ? "" : bytes(step.size_bytes),
    memory: step.memory_mib === undefined ? "" : mib(step.memory_mib),
    disk: step.disk?.name || step.disk || "", nic: step.nic?.name || step.nic || "",
    network: step.network?.name || step.network || step.nic?.network || "",
    snapshot: step.snapshot?.name || step.snapshot || "",
    seconds: step.timeout_s === undefined || step.timeout_s === null ? "" : duration(step.timeout_s),
    // Whose clients is known by the VM's identifier, which tells nobody anything.
    document: kind === "clients" ? word("document", kind) : kind ? `${word("document", kind)} ${name.join("/")}` : "",
  };
}

export function stepText(step) {
  if (step.kind === "save") return t(step.after === null ? "step.save.forget" : step.before === null ? "step.save.record" : "step.save.update", wordsOf(step));
  const key = `step.${step.kind}`;
  return has(key) ? t(key, wordsOf(step)) : step.kind;
}

function figures(expected) {
  return Object.entries(expected || {}).filter(([, value]) => value !== null && value !== 0 && typeof value !== "object").map(([name, value]) => [word("figure", name), figure(name, value)]);
}

export function planEl(plan) {
  const expected = figures(plan.expected);
  return h("section.stack", 
    h("p.why", plan.why || t("plan.no_reason")),
    plan.steps.length === 0 ? h("div.banner.info", icon("info"), h("div", t("plan.nothing")))
      : [h("h3", t("plan.steps")), h("ol.steps", plan.steps.map((step) => h("li", h("span", stepText(step)))))],
    expected.length > 0 && [h("h3", t("plan.expected")), h("dl.facts", expected.map(([name, value]) => [h("dt", name), h("dd", value)]))]);
}

export function planOf(answer) {
  const plans = plansIn(answer);
  if (!plans.length) {
    return { empty: false, plans, el: h("pre.log", { tabindex: "0", "aria-label": t("plan.name") }, JSON.stringify(answer, null, 2)) };
  }
  return {
    plans, empty: plans.every((one) => one.steps.length === 0),
    el: h("div.stack", plans.map((one) => [plans.length > 1 && h("h3", one.subject), planEl(one)])),
  };
}
