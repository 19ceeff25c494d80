// The way in: user and password, a provider of logins where one is set up, or a token.
import * as api from "./api.js";
import { button, clear, h, icon } from "./dom.js";
import { LANGUAGES, language, setLanguage, t } from "./i18n.js";

export function showLogin(root, { entered, again, message }) {
  const oidc = document.querySelector("meta[name=vorch-oidc]").content === "yes";
  let byToken = false;
  const problem = h("p.problem", { role: "alert" }, message || null);

  async function send(event) {
    event.preventDefault();
    const form = new FormData(event.target);
    const press = event.target.querySelector("button[type=submit]");
    press.disabled = true;
    problem.textContent = "";
    try {
      const me = byToken ? await api.useToken(String(form.get("token"))) : await api.logIn(String(form.get("user")).trim(), String(form.get("password")));
      await entered(me);
    } catch (error) {
      problem.textContent = byToken && error.status === 401 ? t("login.wrong_token") : error.message;
      press.disabled = false;
      [...event.target.querySelectorAll("input")].pop().select();
    }
  }

  function draw() {
    const fields = byToken
      ? [field("token", t("login.token"), "password", "off"), h("p.hint", t("login.token_hint"))]
      : [field("user", t("login.user"), "text", "username"), field("password", t("login.password"), "password", "current-password")];
    clear(root, h("main.login", { tabindex: "-1" }, h("div.login-box",
      h("h1.brand", h("img", { src: new URL("../icon.svg", import.meta.url).href, alt: "", width: "32", height: "32" }), "vorch"),
      h("form", { onsubmit: send }, fields, problem,
        h("button.button.main.full", { type: "submit" }, t("login.go"))),
      oidc && h("a.button.full", { href: "v1/login/oidc" }, icon("user"), h("span", t("login.oidc"))),
      h("div.login-foot",
        button(byToken ? t("login.by_password") : t("login.by_token"), () => { byToken = !byToken; problem.textContent = ""; draw(); }, { kind: "bare" }),
        h("label", h("span.hidden", t("language")), h("select", {
          onchange: async (event) => { await setLanguage(event.target.value, true); again(); },
        }, Object.entries(LANGUAGES).map(([code, name]) => h("option", { value: code, selected: code === language() }, name))))))));
    root.querySelector("input").focus();
  }

  function field(name, label, type, autocomplete) {
    return h("label.field", h("span.label", label), h("input", { name, type, autocomplete, required: true, autocapitalize: "off", spellcheck: "false" }));
  }

  document.title = `${t("login.title")} · vorch`;
  draw();
}
