// Images, templates and CDs: the list, import from an address, upload of a file by drag and drop.
import { createVm } from "../create.js";
import { notice, openDialog } from "../dialog.js";
import { add, button, h, icon, iconButton, patch } from "../dom.js";
import { ago, bytes, mib, number, percent, rate, time } from "../format.js";
import { t, word } from "../i18n.js";
import { badge, facts, head, listing, verbButton, verbEntries } from "../listing.js";
import { forget, known, removeUpload, uploads } from "../upload.js";

function nameOf(file) {
  const bare = file.name.replace(/\.(iso|img|raw|qcow2|vmdk|vdi|xz|gz)$/i, "").toLowerCase().replace(/[^a-z0-9.-]+/g, "-").replace(/^[^a-z0-9]+|[^a-z0-9]+$/g, "");
  return bare.slice(0, 60);
}

function field(label, input, hint) { return h("label.field", h("span.label", label), input, hint && h("span.hint", hint)); }

// What is to become of a file, before it is sent.
function askFor(ctx, file) {
  const before = known(file)?.said || {};
  const name = h("input", { value: before.name || nameOf(file), required: true, autofocus: true, pattern: "[a-z0-9]([a-z0-9.\\-]*[a-z0-9])?", maxlength: "63" });
  const kind = h("select", ["disk", "iso"].map((one) => h("option", { value: one }, word("image.is", one))));
  kind.value = before.kind || (/\.iso$/i.test(file.name) ? "iso" : "disk");
  const firmware = h("select", ["bios", "uefi"].map((one) => h("option", { value: one }, one === "bios" ? "BIOS" : "UEFI")));
  firmware.value = before.firmware || "bios";
  const sum = h("input.mono", { value: before.sha256 || "", pattern: "[0-9a-fA-F]{64}", autocomplete: "off", spellcheck: "false" });
  const description = h("input", { value: before.description || "" });
  const form = h("form.form", {
    onsubmit: (event) => {
      event.preventDefault();
      uploads.begin(file, { name: name.value, kind: kind.value, firmware: firmware.value, sha256: sum.value.trim().toLowerCase(), description: description.value });
      box.close();
    },
  }, field(t("image.name"), name), field(t("image.kind"), kind), field(t("image.firmware"), firmware), field(t("description"), description), h("div.whole", field("SHA-256", sum, t("upload.sum_hint"))));
  const box = openDialog({
    title: t("upload.of", { name: file.name }), body: [h("p.soft", t("upload.text", { size: bytes(file.size) })), known(file) && h("div.banner.info", icon("info"), h("div", t("upload.goes_on"))), form],
    foot: [button(t("cancel"), () => box.close()), button(t("upload.begin"), () => form.requestSubmit(), { kind: "main", icon: "upload" })],
  });
}

function importOf(ctx, one) {
  const { sha256, ...said } = one.said;
  const given = Object.fromEntries(Object.entries(said).filter(([key, value]) => value && !(said.kind === "iso" && key === "firmware")));
  ctx.openVerb("image_import", { ...given, location: `upload:${one.id}` }, { skipForm: true, title: t("upload.import", { name: said.name }), done: () => forget(one.key) });
}

function uploadRow(ctx, one) {
  const part = one.size ? (100 * one.offset) / one.size : 100;
  return h("li", { key: one.key }, icon("upload"), h("div.grow", h("div", h("b", one.said.name), " ", h("span.soft", one.name)),
    h("div.progress", { class: one.state === "done" ? "good" : one.state === "failed" ? "bad" : "", role: "progressbar", "aria-label": t("upload.progress", { name: one.name }), "aria-valuemin": "0", "aria-valuemax": "100", "aria-valuenow": String(Math.floor(part)), style: { "--part": part } }, h("div")),
    h("div.soft", `${t(`upload.${one.state}`)} · ${percent(part)} · ${t("overview.of", { some: bytes(one.offset), all: bytes(one.size) })}`, one.state === "sending" && one.perSecond > 0 && ` · ${rate(one.perSecond)}`),
    one.error && one.state !== "sending" && h("div.problem", one.error)),
  one.state === "done" && button(t("upload.make"), () => importOf(ctx, one), { kind: "main" }),
  (one.state === "sending" || one.state === "waiting") && button(t("upload.pause"), () => uploads.pause(one.key), { icon: "pause" }),
  (one.state === "paused" || one.state === "failed") && button(t("upload.go_on"), () => uploads.goOn(one.key), { icon: "play" }),
  iconButton("close", t("upload.cancel", { name: one.name }), () => uploads.cancel(one.key)));
}

// On the service, of this person or others: what was broken off, and what nobody has imported yet.
function otherRow(one, refresh) {
  const done = one.offset_bytes === one.size_bytes;
  return (ctx) => h("li", { key: one.id }, icon("upload"), h("div.grow", h("b", one.name), " ", h("span.soft", `${one.owner} · ${t(done ? "upload.done" : "upload.paused")} · ${t("overview.of", { some: bytes(one.offset_bytes), all: bytes(one.size_bytes) })} · ${t("upload.until", { when: ago(one.expires_at) })}`)),
    done && ctx.can("image_import") && button(t("upload.make"), () => ctx.openVerb("image_import", { location: `upload:${one.id}` }, { title: t("upload.import", { name: one.name }), done: refresh }), { kind: "main" }),
    iconButton("close", t("upload.cancel", { name: one.name }), async () => { try { await removeUpload(one.id); } catch (error) { notice(error.message, { kind: "bad" }); } refresh(); }));
}

export const view = {
  path: "/images", title: "nav.images", icon: "image", nav: 60,
  render(root, ctx) {
    root.classList.add("fills");
    const may = ctx.can("image_import");
    const picker = h("input", { type: "file", hidden: true, "aria-label": t("upload.choose"), tabindex: "-1", onchange: () => { take(picker.files); picker.value = ""; } });
    const going = h("section.card.uploads", { "aria-label": t("upload.name"), hidden: true });
    add(root, [head(t("nav.images"), { buttons: [may && button(t("upload.choose"), () => picker.click(), { icon: "upload", kind: "main" }), verbButton(ctx, "image_import", {}, { icon: "plus", text: t("image.from_url") })] }),
      may && h("div.dropzone", { "data-drop": "image" }, icon("upload"), h("span", t("upload.drop"))), picker, going]);
    const source = ctx.store.collection("images");
    listing(root, ctx, {
      name: t("nav.images"), source, id: (one) => one.name, text: (one) => `${one.name} ${one.kind} ${one.source} ${one.description}`,
      columns: [
        { key: "name", label: t("image.name"), width: "1.5fr", narrow: true, value: (one) => one.name, cell: (one) => h("b", { title: one.name }, one.name) },
        { key: "kind", label: t("image.kind"), width: "1fr", narrow: true, value: (one) => one.kind, cell: (one) => h("span", word("image.is", one.kind), " ", one.arriving && badge("warn", t("image.arriving"))) },
        { key: "size", label: t("storage.size"), width: "100px", right: true, value: (one) => one.disks.reduce((sum, disk) => sum + disk.size_bytes, 0), cell: (one) => bytes(one.disks.reduce((sum, disk) => sum + disk.size_bytes, 0)) },
        { key: "needs", label: t("image.starts_with"), width: "1.2fr", value: (one) => one.memory_mib, cell: (one) => one.kind === "iso" ? "" : t("image.needs", { n: one.vcpus, memory: mib(one.memory_mib), firmware: one.firmware.toUpperCase() }) },
        { key: "pool", label: t("storage.pool"), width: "1fr", value: (one) => one.disks[0]?.volume?.pool || "", cell: (one) => one.disks[0]?.volume?.pool || "" },
        { key: "source", label: t("image.source"), width: "2fr", value: (one) => one.source, cell: (one) => h("span", { title: `${one.source}\nSHA-256 ${one.sha256}` }, one.description || one.source) },
        { key: "made", label: t("image.made"), width: "1fr", value: (one) => one.created_at, cell: (one) => h("span", { title: time(one.created_at) }, ago(one.created_at)) },
      ],
      entries: (one) => [
        ...(ctx.can("create") && one.kind !== "iso" ? [{ text: t("image.use"), icon: "plus", run: () => createVm(ctx, { image: one.name }) }] : []),
        { text: t("image.show"), icon: "info", run: () => show(ctx, one) }, ...verbEntries(ctx, [["image_export", { name: one.name }, { icon: "copy" }], null, ["image_delete", { name: one.name }, { danger: true, icon: "trash" }]])],
      empty: { icon: "image", title: t("image.none"), text: t(may ? "image.none_text" : "image.none_look") },
    });
    if (!may) return;
    const others = ctx.store.define("uploads", { path: "/v1/uploads", id: (one) => one.id, everyS: 10, kinds: ["image"] });
    const draw = () => {
      const own = new Set(uploads.all.map((one) => one.id));
      const rest = others.list.filter((one) => !own.has(one.id));
      going.hidden = uploads.all.length + rest.length === 0;
      patch(going, h("header", h("h2", t("upload.name"))), h("ul.rows", uploads.all.map((one) => uploadRow(ctx, one)), rest.map((one) => otherRow(one, () => others.refresh())(ctx))));
    };
    const told = new Set();
    uploads.on(() => {
      draw();
      for (const one of uploads.all) {
        if (one.state !== "done" || told.has(one.key)) continue;
        told.add(one.key);
        others.refresh();
        // Nobody is interrupted in another dialog.
        if (document.querySelector("dialog[open]")) notice(t("upload.is_there", { name: one.name }), { kind: "good", action: { text: t("upload.make"), run: () => importOf(ctx, one) } });
        else importOf(ctx, one);
      }
    }, ctx.signal);
    others.subscribe(draw, ctx.signal);
    function take(files) {
      if (files.length > 1) notice(t("upload.one"), { kind: "bad" });
      else if (files.length === 1) askFor(ctx, files[0]);
    }
    const withFiles = (event) => event.dataTransfer?.types.includes("Files");
    root.addEventListener("dragover", (event) => { if (!withFiles(event)) return; event.preventDefault(); event.dataTransfer.dropEffect = "copy"; root.classList.add("takes-files"); });
    root.addEventListener("dragleave", (event) => { if (!root.contains(event.relatedTarget)) root.classList.remove("takes-files"); });
    root.addEventListener("drop", (event) => { root.classList.remove("takes-files"); if (!withFiles(event)) return; event.preventDefault(); take(event.dataTransfer.files); });
  },
};

function show(ctx, one) {
  const box = openDialog({
    title: one.name, wide: true, foot: [button(t("close"), () => box.close(), { kind: "main" })],
    body: facts([[t("image.kind"), word("image.is", one.kind)], [t("image.disks"), h("ul", one.disks.map((disk) => h("li", `${disk.name}: ${bytes(disk.size_bytes)}`, disk.volume && h("span.soft.mono", ` ${disk.volume.pool}/${disk.volume.name}`))))], [t("storage.format"), one.format],
      [t("image.firmware"), one.firmware.toUpperCase()], [t("host.vcpus"), number(one.vcpus)], [t("host.memory"), mib(one.memory_mib)], [t("image.source"), one.source], ["SHA-256", one.sha256 && h("code", one.sha256)], [t("description"), one.description], [t("image.made"), time(one.created_at)]]),
  });
}
