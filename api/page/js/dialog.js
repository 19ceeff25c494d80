// Dialogs and notices.
//
//   openDialog({title, body, foot, wide, onClose}) → {el, close, setTitle, body, foot}
//     A native <dialog>: focus stays inside, Escape closes, focus returns to where it was.
//   confirmDialog({title, text, yes, danger}) → Promise<boolean>
//   notice(text, {kind: "good" | "bad" | "", action: {text, run}})   read aloud politely
//   menu(anchor, [{text, icon, run, danger, disabled, why} | null (a line)])   arrows, Home, End, type
import { clear, h, icon, iconButton } from "./dom.js";
import { t } from "./i18n.js";

let count = 0;

export function openDialog({ title, body, foot, wide = false, side = false, onClose } = {}) {
  const back = document.activeElement;
  const id = `dialog-${(count += 1)}`;
  const heading = h(`h2#${id}`, title);
  const main = h("div.dialog-body", body);
  const bar = h("div.dialog-foot", foot);
  const el = h("dialog.dialog", { "aria-labelledby": id, class: `${wide ? "wide" : ""} ${side ? "side" : ""}` },
    h("div.dialog-head", heading, iconButton("close", t("close"), () => close())), main, bar);
  function close(value) {
    if (!el.isConnected) return;
    el.close();
    el.remove();
    onClose?.(value);
    if (back?.isConnected) back.focus();
    else document.querySelector("main")?.focus();
  }
  el.addEventListener("cancel", (event) => { event.preventDefault(); close(); });
  document.body.append(el);
  el.showModal();
  const first = main.querySelector("[autofocus], input:not([type=hidden]), select, textarea") || bar.querySelector("button") || el.querySelector("button");
  first?.focus();
  return {
    el, body: main, foot: bar, close,
    setTitle(text) { heading.textContent = text; },
    setFoot(...children) { clear(bar, children); },
  };
}

export function confirmDialog({ title, text, yes, danger = false }) {
  return new Promise((answer) => {
    let said = false;
    const end = (value) => { said = value; box.close(); };
    const box = openDialog({
      title, body: h("p", text), onClose: () => answer(said),
      foot: [h("button.button", { type: "button", onclick: () => end(false) }, t("cancel")),
        h("button.button", { type: "button", class: danger ? "danger" : "main", onclick: () => end(true) }, yes)],
    });
    box.foot.querySelector("button").focus();
  });
}

export function closeAllDialogs() {
  for (const one of document.querySelectorAll("dialog")) { one.close(); one.remove(); }
}

// ---- notices

let place = null;
export function notice(text, { kind = "", action, keepS = kind === "bad" ? 12 : 5 } = {}) {
  place ||= h("div.notices", { role: "status", "aria-live": "polite" });
  if (!place.isConnected) document.body.append(place);
  const gone = () => one.remove();
  const one = h("div.notice", { class: kind }, icon(kind === "bad" ? "warn" : kind === "good" ? "check" : "info"), h("span", text),
    action && h("button.button.bare", { type: "button", onclick: () => { gone(); action.run(); } }, action.text),
    iconButton("close", t("close"), gone));
  // A modal dialog makes all behind it inert: the notice has to be in it.
  (document.querySelector("dialog:modal:last-of-type") || document.body).append(place);
  place.append(one);
  setTimeout(gone, keepS * 1000);
}

// ---- menus

export function menu(anchor, entries, { name } = {}) {
  document.querySelector(".menu")?.remove();
  const items = [];
  const el = h("div.menu", { role: "menu", "aria-label": name || anchor.getAttribute("aria-label") || anchor.textContent },
    entries.map((one) => {
      if (!one) return h("div.menu-line", { role: "separator" });
      if (one.heading) return h("div.menu-heading", { role: "presentation" }, one.heading);
      const item = h("button.menu-item", {
        type: "button", role: "menuitem", tabindex: "-1", class: one.danger ? "danger" : "", "aria-disabled": String(Boolean(one.disabled)),
        title: one.why, onclick: () => { if (one.disabled) return; close(true); one.run(); },
      }, icon(one.icon || "right"), h("span.menu-text", one.text, one.why && h("small", one.why)));
      items.push(item);
      return item;
    }));
  function close(back = true) {
    document.removeEventListener("pointerdown", outside, true);
    window.removeEventListener("resize", shut);
    el.remove();
    anchor.setAttribute("aria-expanded", "false");
    if (back && anchor.isConnected) anchor.focus();
  }
  const shut = () => close(false);
  const outside = (event) => { if (!el.contains(event.target)) close(false); };
  el.addEventListener("keydown", (event) => {
    const at = items.indexOf(document.activeElement);
    const go = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: -1 }[event.key];
    if (go !== undefined) { event.preventDefault(); items.at((go + items.length) % items.length).focus(); }
    else if (event.key === "Escape" || event.key === "Tab") { event.preventDefault(); event.stopPropagation(); close(); }
    else if (event.key.length === 1 && /\S/.test(event.key)) {
      const next = [...items.slice(at + 1), ...items.slice(0, at + 1)].find((one) => one.textContent.trim().toLowerCase().startsWith(event.key.toLowerCase()));
      next?.focus();
    }
  });
  (anchor.closest("dialog") || document.body).append(el);
  const box = anchor.getBoundingClientRect();
  const size = el.getBoundingClientRect();
  const left = Math.max(8, Math.min(box.left, innerWidth - size.width - 8));
  const below = box.bottom + 4 + size.height <= innerHeight || box.top < size.height;
  el.style.left = `${left}px`;
  el.style.top = `${below ? Math.min(box.bottom + 4, Math.max(8, innerHeight - size.height - 8)) : box.top - size.height - 4}px`;
  anchor.setAttribute("aria-expanded", "true");
  items[0]?.focus();
  document.addEventListener("pointerdown", outside, true);
  window.addEventListener("resize", shut);
  return { close };
}
