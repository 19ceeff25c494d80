// Making a VM: a name, an image and a size are enough; all else has defaults.
import { clear, h } from "./dom.js";
import { bytes } from "./format.js";
import { t } from "./i18n.js";
import { go } from "./router.js";
import { store } from "./store.js";
import { openVerb } from "./verb.js";

const SIZES = {
  small: { vcpus: 1, memory_mib: 1024, disk_gib: 10 },
  medium: { vcpus: 2, memory_mib: 4096, disk_gib: 20 },
  large: { vcpus: 4, memory_mib: 8192, disk_gib: 40 },
};
const GIB = 1024 ** 3;
const HEAD = ["name", "image", "iso", "vcpus", "memory_mib", "disk_gib", "start"];

export async function createVm(ctx, { image = "" } = {}) {
  const images = store.collection("images");
  if (!images.loaded || images.stale) await images.refresh();
  const name = h("input#create-name", { type: "text", required: true, autocapitalize: "off", spellcheck: "false", autocomplete: "off", pattern: "[a-z0-9]([a-z0-9\\-]{0,61}[a-z0-9])?", maxlength: "63", "aria-describedby": "create-name-problem create-name-hint", autofocus: true });
  const problem = h("span.field-problem#create-name-problem", { role: "alert" });
  const group = (label, found, mark) => found.length > 0 && h("optgroup", { label }, found.map((one) => h("option", { value: `${mark}:${one.name}`, selected: one.name === image }, one.disks[0]?.size_bytes && mark === "image" ? `${one.name} (${bytes(one.disks[0].size_bytes)})` : one.name)));
  const source = h("select#create-image", { onchange: () => grow() },
    group(t("create.images"), images.list.filter((one) => one.kind !== "iso"), "image"),
    group(t("create.isos"), images.list.filter((one) => one.kind === "iso"), "iso"),
    h("option", { value: "" }, t("create.empty")));
  const chosen = () => { const [kind, ...rest] = source.value.split(":"); return { kind, name: rest.join(":") }; };
  const least = () => { const one = images.items.get(chosen().name); return one && one.kind !== "iso" ? Math.ceil((one.disks[0]?.size_bytes || 0) / GIB) : 1; };
  let size = "small";
  const own = {};
  for (const [key, label, value] of [["vcpus", "field.vcpus", 1], ["memory_mib", "field.memory_mib", 1024], ["disk_gib", "field.disk_gib", 10]]) {
    own[key] = h("input", { id: `create-${key}`, type: "number", min: "1", step: "1", value, "data-field": key });
    own[key].label = h("div.field", h("label.label", { for: `create-${key}` }, t(label)), own[key]);
  }
  const ownRow = h("div.form.whole", { hidden: true }, Object.values(own).map((one) => one.label));
  const sizes = h("fieldset.sizes.whole", h("legend.label", t("create.size")), h("div.size-row", [...Object.entries(SIZES), ["own", null]].map(([key, one]) => h("label.size", { class: key === size ? "chosen" : "" },
    h("input", { type: "radio", name: "size", value: key, checked: key === size, onchange: () => { size = key; grow(); } }),
    h("strong", t(`create.${key}`)), h("span.hint", { "data-size": key }, one ? "" : t("create.own_text"))))));
  const begin = h("input", { type: "checkbox", checked: true, id: "create-start" });

  function grow() {
    for (const [key, one] of Object.entries(SIZES)) {
      clear(sizes.querySelector(`[data-size=${key}]`), t("create.size_text", { vcpus: one.vcpus, memory: bytes(one.memory_mib * 1024 * 1024), disk: bytes(Math.max(one.disk_gib, least()) * GIB) }));
    }
    for (const one of sizes.querySelectorAll(".size")) one.classList.toggle("chosen", one.querySelector("input").value === size);
    ownRow.hidden = size !== "own";
  }
  grow();

  const before = {
    nodes: [
      h("div.field", h("label.label", { for: "create-name" }, t("create.name"), h("span.must", { "aria-hidden": "true" }, " *")), name, h("span.hint#create-name-hint", t("create.name_hint")), problem),
      h("div.field", h("label.label", { for: "create-image" }, t("create.image")), source),
      sizes, ownRow, h("div.field.check.whole", begin, h("label.label", { for: "create-start" }, t("create.start")))],
    values() {
      const { kind, name: what } = chosen();
      const wish = size === "own" ? Object.fromEntries(Object.entries(own).map(([key, one]) => [key, Number(one.value)])) : { ...SIZES[size], disk_gib: Math.max(SIZES[size].disk_gib, least()) };
      return { name: name.value.trim(), ...(kind ? { [kind]: what } : {}), ...wish, ...(begin.checked ? { start: true } : {}) };
    },
    check() {
      const taken = store.collection("vms").items.has(name.value.trim());
      problem.textContent = name.value.trim() === "" ? t("form.need") : taken ? t("create.taken") : name.checkValidity() ? "" : t("create.bad_name");
      name.closest(".field").classList.toggle("bad", problem.textContent !== "");
      if (problem.textContent) name.focus();
      return problem.textContent === "";
    },
  };
  return openVerb("create", {}, { ctx, title: t("verb.create"), before, skip: HEAD, done: (result, job) => { if (job) go(`/vms/${encodeURIComponent(job.subject)}`); } });
}

// A name is in the path of these, so the form made of the rest has no field for it.
export function named(label, key = "name") {
  const input = h("input", { id: `named-${key}`, type: "text", required: true, autocapitalize: "off", spellcheck: "false", autocomplete: "off", "data-field": key, "aria-describedby": `named-${key}-problem`, autofocus: true });
  const problem = h("span.field-problem", { id: `named-${key}-problem`, role: "alert" });
  return {
    nodes: h("div.field", h("label.label", { for: `named-${key}` }, label, h("span.must", { "aria-hidden": "true" }, " *")), input, problem),
    values: () => ({ [key]: input.value.trim() }),
    check() {
      problem.textContent = input.value.trim() ? "" : t("form.need");
      if (problem.textContent) input.focus();
      return Boolean(input.value.trim());
    },
  };
}

export function installVm(ctx) {
  return openVerb("install", {}, { ctx, title: t("verb.install"), before: named(t("create.name")) });
}

export async function undeleteVm(ctx) {
  const found = await ctx.api.call("trash_list").catch(() => []);
  const names = [...new Set(found.map((one) => one.name ?? one.vm?.name).filter(Boolean))];
  const before = named(t("create.deleted"));
  if (names.length) {
    const list = h("datalist", { id: "deleted-vms" }, names.map((one) => h("option", { value: one })));
    before.nodes.querySelector("input").setAttribute("list", "deleted-vms");
    before.nodes.append(list);
  }
  return openVerb("undelete", {}, { ctx, title: t("verb.undelete"), before });
}
