// Consoles of one VM: its serial port as a terminal (xterm.js) and its screen (noVNC), in one place.
//
//   mount(root, ctx, seen)   draws into root until ctx.signal is aborted; `seen` is what
//                            GET /v1/vms/{name} says
//
// Each connection is a websocket that a fresh ticket opens. When it ends because the VM moves or the
// service is started anew, it is opened again by itself: a terminal goes on where it was.
import { button, clear, h } from "./dom.js";
import { openDialog } from "./dialog.js";
import { t } from "./i18n.js";

const PROTOCOL = "vorch.console";
// What a websocket ends with, as api/bridge.py says it.
const TAKEN = 4423;
const FOR_GOOD = new Set([4401, 4403, 4404, 4408, 4422, 4429, 4501]);
// Answers to whoever asks for a ticket that may be others soon.
const MAY_CHANGE = new Set(["conflict", "unreachable", "timed-out", "too-many"]);
const AGAIN_MS = [200, 400, 800, 1500, 3000, 3000, 3000, 5000, 10000, 30000];
const WAITING_MS = 3000;
const ON = new Set(["running", "paused", "stopping"]);
// What a terminal may have before it; a guest that says more than anybody can read is cut short.
const UNSHOWN_BYTES = 4 << 20;
const KEPT_LINES = 5000;
const KEYS = { ctrl: 0xffe3, alt: 0xffe9, del: 0xffff, shift: 0xffe1, enter: 0xff0d, tab: 0xff09 };
const SHIFTED = /[A-Z~!@#$%^&*()_+{}|:"<>?]/;

export async function mount(root, ctx, seen) {
  const name = seen.vm.name;
  let kind = "console";
  // Grows with each connection that is wanted: what an earlier one still says is not heard.
  let turn = 0;
  let socket = null;
  let screen = null;
  let terminal = null;
  let scaled = true;
  let timer = 0;

  const status = h("span.console-status", { role: "status" });
  const ways = h("div.console-ways", { role: "group", "aria-label": t("console.which") });
  const tools = h("div.buttons");
  const stage = h("div.console-stage");
  const bar = h("div.console-bar", ways, status, tools);
  const frame = h("section.console", { "aria-label": t("console.of", { name }) }, bar, stage, h("p.hint", t("console.leave")));
  clear(root, await styles(), frame);
  if (ctx.signal.aborted) return;
  ctx.signal.addEventListener("abort", leave, { once: true });
  // The guest has all keys but this one, so that nobody is caught in it.
  stage.addEventListener("keydown", (event) => {
    if (event.key !== "F6" || !event.ctrlKey) return;
    event.preventDefault();
    event.stopPropagation();
    ways.querySelector("[aria-pressed=true]").focus();
  }, { capture: true });
  choose(kind);

  function choose(wanted) {
    kind = wanted;
    clear(ways, way("console", t("console.serial")), way("display", t("console.screen"), !seen.vm.graphics));
    begin();
  }

  function way(which, text, lacking = false) {
    return button(text, () => choose(which), { "aria-pressed": String(kind === which), class: kind === which ? "small on" : "small", disabled: lacking, title: lacking ? t("console.no_screen") : undefined });
  }

  function draw(state, text, more = []) {
    frame.dataset.state = state;
    clear(status, h("span.dot", { class: { open: "good", closed: "bad" }[state] || "busy" }, text));
    const open = state === "open";
    clear(tools, more,
      kind === "display" && button(t("console.cad"), ctrlAltDel, { class: "small", disabled: !open }),
      kind === "display" && button(t("console.scale"), scale, { class: "small", "aria-pressed": String(scaled) }),
      button(t("console.paste"), paste, { class: "small", disabled: !open }),
      button(t("console.full"), full, { class: "small" }));
  }

  // ---- connections

  function begin() {
    end();
    clear(stage);
    terminal?.dispose();
    terminal = null;
    connect(turn, 0, false);
  }

  function end() {
    turn += 1;
    clearTimeout(timer);
    screen?.disconnect();
    screen = null;
    socket?.close();
    socket = null;
  }

  function leave() {
    end();
    terminal?.dispose();
    if (document.fullscreenElement === frame) document.exitFullscreen();
  }

  async function connect(mine, tries, force) {
    draw("connecting", t(tries ? "console.again" : "console.connecting"));
    let secret;
    try {
      // To look is free; each ticket that is refused stands in the audit log.
      if (tries && !ON.has((await ctx.api.get(`/v1/vms/${encodeURIComponent(name)}`, { signal: ctx.signal })).data.power)) {
        if (mine === turn) later(mine, 1, t("console.off"), WAITING_MS);
        return;
      }
      if (mine !== turn) return;
      secret = (await ctx.api.call("console_ticket", { name, kind, force }, { signal: ctx.signal })).secret;
    } catch (error) {
      if (mine !== turn || error.name === "AbortError") return;
      if (MAY_CHANGE.has(error.code)) later(mine, tries, error.message); else stop(error.message);
      return;
    }
    let viewer = null;
    try {
      if (kind === "console") await terminalOf(mine); else viewer = (await import("../vendor/novnc/core/rfb.js")).default;
    } catch (error) {
      // A part of the page did not come: as little as a connection is that a reason to give up.
      if (mine === turn) later(mine, tries, error.message);
      return;
    }
    if (mine !== turn) return;
    const address = new URL("v1/console", document.baseURI);
    address.protocol = address.protocol.replace("http", "ws");
    address.search = address.hash = "";
    socket = new WebSocket(address, [PROTOCOL, `vorch.ticket.${secret}`]);
    socket.binaryType = "arraybuffer";
    let opened = 0;
    socket.addEventListener("open", () => { opened = Date.now(); });
    socket.addEventListener("close", (event) => {
      if (mine !== turn) return;
      // One that has lasted begins anew with its tries.
      const lasted = opened ? Date.now() - opened : 0;
      // After a reload the one that has it may be this page's own, on its way out.
      if (event.code === TAKEN && lasted < 2000 && tries < 2) later(mine, tries);
      else ended(mine, lasted > 5000 ? 0 : tries, event);
    });
    // Nothing is waited for from here on: what a screen says first is said as soon as it is open.
    if (kind === "console") speak(mine, socket); else show(mine, socket, viewer);
  }

  function ended(mine, tries, event) {
    const why = event.reason.replace(/^[a-z-]+: /, "");
    if (event.code === TAKEN) {
      stop(t("console.taken"), [button(t("console.take"), () => { end(); connect(turn, 0, true); }, { class: "small main" })]);
    } else if (FOR_GOOD.has(event.code)) {
      stop(why || t("console.closed"));
    } else {
      later(mine, tries);
    }
  }

  function later(mine, tries, why = "", after = AGAIN_MS[Math.min(tries, AGAIN_MS.length - 1)]) {
    draw("waiting", why ? t("console.waiting", { why }) : t("console.again"));
    timer = setTimeout(() => { if (mine === turn) connect(mine, tries + 1, false); }, after);
  }

  function stop(why, more = [button(t("console.reconnect"), () => { end(); connect(turn, 0, false); }, { class: "small main" })]) {
    draw("closed", why, more);
  }

  // ---- the serial port

  async function terminalOf(mine) {
    if (terminal) return;
    const [{ Terminal }, { FitAddon }] = await Promise.all([import("../vendor/xterm/xterm.js"), import("../vendor/addon-fit/addon-fit.js")]);
    if (mine !== turn) return;
    const made = new Terminal({ scrollback: KEPT_LINES, fontFamily: "ui-monospace, monospace", fontSize: 14, screenReaderMode: true, cursorBlink: !matchMedia("(prefers-reduced-motion: reduce)").matches });
    const fit = new FitAddon();
    const place = h("div.console-terminal");
    clear(stage, place);
    made.loadAddon(fit);
    withoutStyles(() => made.open(place));
    const sized = new ResizeObserver(() => { if (place.isConnected) fit.fit(); });
    sized.observe(place);
    ctx.signal.addEventListener("abort", () => sized.disconnect(), { once: true });
    const text = new TextEncoder();
    const send = (bytes) => { if (socket?.readyState === WebSocket.OPEN) socket.send(bytes); };
    made.onData((typed) => send(text.encode(typed)));
    made.onBinary((typed) => send(Uint8Array.from(typed, (one) => one.charCodeAt(0))));
    made.textarea?.setAttribute("aria-label", t("console.serial_of", { name }));
    terminal = made;
    made.focus();
  }

  function speak(mine, from) {
    let unshown = 0;
    from.addEventListener("open", () => { if (mine === turn) draw("open", t("console.open")); });
    from.addEventListener("message", ({ data }) => {
      if (mine !== turn || unshown > UNSHOWN_BYTES) return;
      unshown += data.byteLength;
      terminal.write(new Uint8Array(data), () => { unshown -= data.byteLength; });
    });
  }

  // ---- the screen

  function show(mine, from, RFB) {
    const place = h("div.console-screen");
    clear(stage, place);
    screen = new RFB(place, from, { shared: true });
    screen.scaleViewport = scaled;
    screen.background = "transparent";
    const mineStill = (f) => (event) => { if (mine === turn) f(event); };
    screen.addEventListener("connect", mineStill(() => {
      draw("open", t("console.open"));
      place.querySelector("canvas")?.setAttribute("aria-label", t("console.screen_of", { name }));
      place.querySelector("canvas")?.setAttribute("role", "img");
      screen.focus();
    }));
    screen.addEventListener("securityfailure", mineStill(({ detail }) => { end(); stop(detail.reason || t("console.closed")); }));
  }

  function ctrlAltDel() { screen?.sendCtrlAltDel(); screen?.focus(); }

  function scale() {
    scaled = !scaled;
    if (screen) screen.scaleViewport = scaled;
    stage.classList.toggle("console-full-size", !scaled);
    draw(frame.dataset.state, status.textContent);
  }

  // ---- for both

  function paste() {
    const area = h("textarea", { rows: "8", "aria-label": t("console.paste_text"), autofocus: true });
    const box = openDialog({
      title: t("console.paste"), body: h("div.stack", area, kind === "display" && h("p.hint", t("console.paste_keys"))),
      foot: [button(t("cancel"), () => box.close()), button(t("console.paste"), () => { const text = area.value; box.close(); into(text); }, { class: "main" })],
    });
    navigator.clipboard?.readText?.().then((text) => { if (!area.value) area.value = text; }, () => { /* it may not be read: one pastes by hand */ });
  }

  function into(text) {
    if (kind === "console") { terminal?.paste(text); terminal?.focus(); return; }
    for (const one of text.replace(/\r\n?/g, "\n")) {
      const code = one.codePointAt(0);
      const key = { "\n": KEYS.enter, "\t": KEYS.tab }[one] || (code < 0x100 ? code : 0x1000000 + code);
      if (SHIFTED.test(one)) screen?.sendKey(KEYS.shift, null, true);
      screen?.sendKey(key, null);
      if (SHIFTED.test(one)) screen?.sendKey(KEYS.shift, null, false);
    }
    screen?.focus();
  }

  function full() {
    if (document.fullscreenElement) document.exitFullscreen(); else frame.requestFullscreen?.();
  }
}

// Style sheets of the consoles alone: the rest of the page is drawn without them.
async function styles() {
  return Promise.all(["../vendor/xterm/xterm.css", "../css/consoles.css"].map((one) => new Promise((done) => {
    const href = new URL(one, import.meta.url).href;
    if (document.querySelector(`link[href="${href}"]`)) { done(null); return; }
    const link = h("link", { rel: "stylesheet", href, onload: () => done(null), onerror: () => done(null) });
    document.head.append(link);
  })));
}

// The page's policy allows no style elements, which xterm.js makes when it is opened. Instead of each
// it gets an element whose text becomes a sheet of the page, which scripts may make.
function withoutStyles(act) {
  const make = (tag, options) => Document.prototype.createElement.call(document, tag, options);
  document.createElement = (tag, options) => (tag === "style" ? sheetOf(make("span")) : make(tag, options));
  try { act(); } finally { delete document.createElement; }
}

function sheetOf(el) {
  const sheet = new CSSStyleSheet();
  document.adoptedStyleSheets = [...document.adoptedStyleSheets, sheet];
  el.hidden = true;
  Object.defineProperty(el, "textContent", { get: () => "", set: (text) => sheet.replaceSync(text) });
  el.remove = () => {
    document.adoptedStyleSheets = document.adoptedStyleSheets.filter((one) => one !== sheet);
    Element.prototype.remove.call(el);
  };
  return el;
}
