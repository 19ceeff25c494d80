// Fields of a form out of what the API says of them; see verb.js for the options.
//
//   fieldset(fields, {args, ask, current, choices, ctx, vm}) → {nodes, values(), check()}
//     `values()` has only what somebody chose: an empty field is not sent, so the service's own
//     default holds. What is needed comes first, the rest under "More options".
import { h } from "./dom.js";
import { has, t, word } from "./i18n.js";
import { store } from "./store.js";

let count = 0;
const SECRETS = new Set(["password", "bmc_password"]);
// Lists whose items may have commas in them: one a line.
const LINES = new Set(["ssh_keys", "commands"]);
const LONG = new Set(["answers", "description", "user_data"]);

// What may stand in a field, from what the page knows: by the argument's name.
const SOURCES = {
  image: () => names("images", (one) => one.kind !== "iso"), iso: () => names("images", (one) => one.kind === "iso"),
  node: () => names("nodes"), nodes: () => names("nodes"), pool: () => names("pools"), pools: () => names("pools"),
  storage_class: () => names("classes"), network: () => names("networks"), networks: () => names("networks"), vms: () => names("vms"),
};
const OF_THE_VM = {
  disk: (vm) => vm.disks.filter((one) => one.device === "disk").map((one) => one.name), drive: (vm) => vm.disks.filter((one) => one.device === "cdrom").map((one) => one.name),
  nic: (vm) => vm.nics.map((one) => one.name), snapshot: (vm) => vm.snapshots.map((one) => one.name),
};

async function names(collection, fits = () => true) {
  const found = store.collection(collection);
  if (!found.loaded || found.stale) await found.refresh();
  return found.list.filter(fits).map((one) => found.spec.id(one));
}

async function choicesOf(field, { verb, choices = {}, vm }) {
  if (choices[field.name]) return choices[field.name];
  if (field.choices.length) return field.choices.filter((one) => one !== null);
  if (field.items?.properties) return null;
  if (verb === "cd_insert" && field.name === "image") return SOURCES.iso();
  // What is to be made has a name that nobody has yet.
  const makes = /(_create|_attach|_add|template)$/.test(verb);
  if (OF_THE_VM[field.name] && vm && !(makes && field.name !== "drive" && !(verb === "forward_add"))) return OF_THE_VM[field.name](vm);
  if (SOURCES[field.name] && !(verb === "template" && field.name === "image")) return SOURCES[field.name]();
  return null;
}

export async function fieldset(fields, options) {
  const made = await Promise.all(fields.map(async (field) => control(field, await choicesOf(field, options), options)));
  const must = made.filter((one) => one.first);
  const rest = made.filter((one) => !one.first);
  const nodes = [must.map((one) => one.el),
    rest.length > 0 && (!options.before && must.length === 0 && (options.open || rest.length <= 4) ? rest.map((one) => one.el)
      : h("details", { open: Boolean(options.open) }, h("summary", t("form.more")), h("div.form", rest.map((one) => one.el))))];
  return {
    nodes, fields: made,
    values: () => Object.fromEntries(made.map((one) => [one.name, one.value()]).filter(([, value]) => value !== undefined)),
    check() {
      const bad = made.filter((one) => !one.check());
      const first = bad[0]?.el.querySelector("input, select, textarea");
      if (first) { first.closest("details")?.setAttribute("open", ""); first.focus(); }
      return bad.length === 0;
    },
  };
}

function control(field, choices, { args, ask = [], current = {} }) {
  const id = `field-${(count += 1)}`;
  const { name, required, kinds } = field;
  const before = name in current ? current[name] : ask.includes(name) ? args[name] : undefined;
  const label = word("field", name);
  const hint = has(`field.${name}.hint`) ? t(`field.${name}.hint`) : "";
  const hints = [hint];
  let input;
  let read;
  let check = () => true;
  const plain = (text) => (text === "" ? undefined : text);
  if (kinds.includes("boolean")) {
    if (field.nullable) {
      input = select([["", t("form.unchanged")], ["true", t("yes")], ["false", t("no")]], before === undefined ? "" : String(before));
      read = () => (input.value === "" ? undefined : input.value === "true");
    } else {
      input = h("input", { type: "checkbox", checked: before ?? Boolean(field.default) });
      read = () => (input.checked === Boolean(field.default) && !required && before === undefined ? undefined : input.checked);
    }
  } else if (field.fields && !kinds.includes("string")) {
    // Parts of one thing: sent together, or not at all.
    const parts = field.fields.map((one) => control(one, one.choices.length ? one.choices : null, { args: {}, current: before || {} }));
    input = h("details.sub", { role: "group", open: Boolean(before) && Object.values(before).some((one) => one) }, h("summary", label), h("div.form", parts.map((one) => one.el)));
    read = () => {
      const found = Object.fromEntries(parts.map((one) => [one.name, one.value()]).filter(([, value]) => value !== undefined));
      return Object.keys(found).length ? { ...before, ...found } : undefined;
    };
    check = () => parts.every((one) => one.check());
  } else if (field.map) {
    hints.push(t("form.map_hint"));
    input = h("input", { type: "text", value: Object.entries(before || {}).map((pair) => pair.join("=")).join(", "), autocapitalize: "off", spellcheck: "false" });
    read = () => {
      const pairs = input.value.split(",").map((one) => one.trim()).filter(Boolean).map((one) => one.split("="));
      if (pairs.some((one) => one.length < 2)) throw new SyntaxError();
      return pairs.length || before !== undefined ? Object.fromEntries(pairs.map(([key, ...value]) => [key.trim(), value.join("=").trim()])) : undefined;
    };
  } else if (kinds.includes("array") && field.items?.properties?.address) {
    // Of each NIC in turn: an address with its prefix, its gateway, name servers; "-": by DHCP.
    hints.push(t("form.addresses_hint"));
    input = h("textarea", { rows: "2", spellcheck: "false" });
    input.value = (before || []).map((one) => (one ? [one.address, one.gateway || "-", ...(one.dns || [])].join(" ") : "-")).join("\n");
    read = () => {
      const lines = input.value.split("\n").map((one) => one.trim()).filter(Boolean);
      const found = lines.map((line) => {
        const [address, gateway, ...dns] = line.split(/\s+/);
        return address === "-" ? null : { address, ...(gateway && gateway !== "-" ? { gateway } : {}), ...(dns.length ? { dns } : {}) };
      });
      return found.length || before !== undefined ? found : undefined;
    };
  } else if (kinds.includes("array") && field.items?.properties?.node) {
    // Hosts with a priority, the highest first.
    hints.push(t("form.nodes_hint"));
    input = h("input", { type: "text", value: (before || []).map((one) => (one.priority ? `${one.node}:${one.priority}` : one.node)).join(", "), autocapitalize: "off", spellcheck: "false" });
    read = () => {
      const found = input.value.split(",").map((one) => one.trim()).filter(Boolean).map((one) => { const [node, priority] = one.split(":"); return { node, priority: Number(priority || 0) }; });
      if (found.some((one) => Number.isNaN(one.priority))) throw new SyntaxError();
      return found.length || before !== undefined ? found : undefined;
    };
  } else if (kinds.includes("array")) {
    if (choices && choices.length && choices.length <= 24) {
      const chosen = new Set(before || []);
      input = h("div.choices", { role: "group" }, choices.map((one) => h("label.field.check", h("input", { type: "checkbox", value: valueOf(one), checked: chosen.has(valueOf(one)) }), h("span", textOf(one)))));
      read = () => {
        const found = [...input.querySelectorAll("input:checked")].map((one) => one.value);
        return found.length || before !== undefined ? found : undefined;
      };
    } else if (LINES.has(name)) {
      hints.push(t("form.lines_hint"));
      input = h("textarea", { rows: "3", spellcheck: "false" });
      input.value = (before || []).join("\n");
      read = () => {
        const found = input.value.split("\n").map((one) => one.trim()).filter(Boolean);
        return found.length || before !== undefined ? found : undefined;
      };
    } else {
      hints.push(t("form.list_hint"));
      input = h("input", { type: "text", value: (before || []).join(", "), autocapitalize: "off", spellcheck: "false" });
      const numbers = field.items?.type === "integer" || field.items?.type === "number";
      read = () => {
        const found = input.value.split(",").map((one) => one.trim()).filter(Boolean);
        return found.length || before !== undefined ? (numbers ? found.map(Number) : found) : undefined;
      };
    }
  } else if (choices && choices.length) {
    const free = required ? [] : [["", before === undefined && Object.keys(current).length ? t("form.unchanged") : field.default ? word("choice", field.default) : t("form.auto")]];
    input = select([...free, ...choices.map((one) => [valueOf(one), textOf(one), one.disabled])], before ?? "");
    read = () => plain(input.value);
  } else if (kinds.includes("integer") || kinds.includes("number")) {
    input = h("input", { type: "number", step: kinds.includes("integer") && !kinds.includes("number") ? "1" : "any", value: before ?? "", placeholder: field.default ?? "", inputmode: "decimal" });
    read = () => (input.value === "" ? undefined : Number(input.value));
  } else if (LONG.has(name)) {
    input = h("textarea", { rows: name === "description" ? "2" : "8", class: name === "description" ? "prose" : "" });
    input.value = before ?? "";
    read = () => (input.value === (before ?? "") && before !== undefined ? before : plain(input.value));
  } else {
    input = h("input", { type: SECRETS.has(name) ? "password" : "text", value: before ?? "", autocapitalize: "off", spellcheck: "false", autocomplete: SECRETS.has(name) ? "new-password" : "off", placeholder: typeof field.default === "string" ? field.default : "" });
    read = () => (before !== undefined && input.value === "" ? "" : plain(input.value));
  }
  const problem = h("span.field-problem", { id: `${id}-problem`, role: "alert" });
  const group = input.getAttribute("role") === "group";
  if (input.tagName === "DETAILS") input.setAttribute("aria-label", label);
  else if (group) input.setAttribute("aria-labelledby", `${id}-label`);
  else { input.id = id; if (required) input.setAttribute("aria-required", "true"); }
  input.setAttribute("data-field", name);
  const help = hints.filter(Boolean).join(". ");
  input.setAttribute("aria-describedby", `${help ? `${id}-hint ` : ""}${id}-problem`);
  const box = input.type === "checkbox";
  const part = input.tagName === "DETAILS";
  const el = h(`div.field${box ? ".check" : ""}`, { class: LONG.has(name) || group ? "whole" : "" },
    box && input, !part && h(group ? "span.label" : "label.label", group ? { id: `${id}-label` } : { for: id }, label, required && h("span.must", { "aria-hidden": "true" }, " *")), !box && input,
    help && h("span.hint", { id: `${id}-hint` }, help), problem);
  const same = (value) => name in current && JSON.stringify(value) === JSON.stringify(current[name]);
  const state = {
    name, el, input, first: required || ask.includes(name),
    value() {
      const found = read();
      return same(found) ? undefined : found;
    },
    check() {
      let wrong = "";
      let found;
      if (!check()) return false;
      try { found = read(); } catch { wrong = t("form.bad_text"); }
      if (!wrong && required && (found === undefined || found === "")) wrong = t("form.need");
      if (!wrong && found !== undefined && typeof found === "number" && Number.isNaN(found)) wrong = t("form.bad_number");
      problem.textContent = wrong;
      el.classList.toggle("bad", Boolean(wrong));
      if (wrong) input.setAttribute("aria-invalid", "true"); else input.removeAttribute("aria-invalid");
      return !wrong;
    },
  };
  return state;
}

const valueOf = (one) => (typeof one === "object" ? one.value : String(one));
const textOf = (one) => (typeof one === "object" ? one.text : word("choice", one));

function select(entries, chosen) {
  return h("select", entries.map(([value, text, disabled]) => h("option", { value, selected: value === chosen, disabled: Boolean(disabled) }, text)));
}
