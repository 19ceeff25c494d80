// Begins the page: language, who one is, then the login or the shell.
import * as api from "./api.js";
import { closeAllDialogs, notice } from "./dialog.js";
import { clear } from "./dom.js";
import { preferred, setLanguage, t } from "./i18n.js";
import { showLogin } from "./login.js";
import { showShell } from "./shell.js";
import { forgetAll, store } from "./store.js";

const app = document.getElementById("app");
let inside = null;

export async function begin() {
  try {
    await enter(await api.self());
  } catch (error) {
    if (error.status !== 401) notice(error.message, { kind: "bad" });
    login();
  }
}

async function enter(me) {
  leave();
  await api.verbs();
  inside = await showShell(app, me, { again: (now) => enter(now || me), logOut });
  store.start();
}

function leave() {
  inside?.();
  inside = null;
  store.end();
  forgetAll();
  closeAllDialogs();
}

function login(message = "") {
  leave();
  api.forgetVerbs();
  clear(app);
  showLogin(app, { entered: enter, again: () => login(message), message });
}

async function logOut() {
  await api.logOut();
  login();
}

api.onLoggedOut(() => { if (inside) login(t("login.over")); });
await setLanguage(preferred());
begin();
