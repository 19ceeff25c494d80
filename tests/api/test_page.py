"""The page as it is served, and its words: both languages are whole, and no words stand elsewhere.

What it does in a browser is tried in tests/page/.
"""

from __future__ import annotations

import functools
import json
import re
import typing
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

import vorch_api
from vorch import NEEDS, VERBS, call_of, connect
from vorch.drivers import memory
from vorch.plan import Step
from vorch_api import create_app
from vorch_api.bodies import model_of
from vorch_api.routes import page

TOKEN = "t" * 43
ROOT = Path(vorch_api.__file__).parent / "page"
# What comes from elsewhere is not held to the rules for our own.
SCRIPTS = sorted(one for one in (ROOT / "js").rglob("*.js"))
AREAS = sorted({one.name.split(".")[0] for one in (ROOT / "texts").glob("*.json")})


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    with (
        connect("memory:page-files") as cluster,
        TestClient(create_app(cluster, token=TOKEN, upkeep_every_s=None)) as found,
    ):
        yield found
    memory.forget("page-files")


def texts(language: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for area in AREAS:
        own = json.loads((ROOT / "texts" / f"{area}.{language}.json").read_text("utf-8"))
        assert not set(own) & set(found), f"twice: {set(own) & set(found)}"
        found |= own
    return found


# -- as it is served


def test_a_stranger_gets_the_page_and_nothing_that_it_knows(client: TestClient) -> None:
    answer = client.get("/")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert client.get("/v1/vms").status_code == 401
    assert client.get("/openapi.json").status_code == 401
    assert client.get("/pages").status_code == 401
    assert client.post("/").status_code == 401
    assert client.delete("/page/x/js/main.js").status_code == 401


def test_no_script_or_style_stands_in_the_document(client: TestClient) -> None:
    answer = client.get("/")
    rules = dict(
        one.strip().split(" ", 1) for one in answer.headers["content-security-policy"].split(";")
    )
    assert rules["default-src"] == "'none'"
    assert rules["script-src"] == "'self'"
    assert rules["frame-ancestors"] == "'none'"
    assert rules["base-uri"] == "'none'"
    assert "unsafe" not in answer.headers["content-security-policy"].replace("unsafe-inline'", "")
    scripts = re.findall(r"<script([^>]*)>(.*?)</script>", answer.text, re.DOTALL)
    assert scripts
    assert all("src=" in attributes and body == "" for attributes, body in scripts)
    assert "<style" not in answer.text
    assert not re.search(r"\s(style|on\w+)=", answer.text)


def test_all_that_the_document_names_is_there(client: TestClient) -> None:
    named = re.findall(r'(?:href|src)="([^"]+)"', client.get("/").text)
    assert len(named) >= 4
    for path in named:
        answer = client.get(f"/{path}")
        assert answer.status_code == 200, path
        assert answer.headers["cache-control"] == page.FOREVER
        assert answer.headers["content-type"].split(";")[0] in (
            "text/css",
            "text/javascript",
            "image/svg+xml",
        )


def test_what_a_browser_has_is_not_sent_again(client: TestClient) -> None:
    first = client.get("/")
    again = client.get("/", headers={"If-None-Match": f'"other", {first.headers["etag"]}'})
    assert again.status_code == 304
    assert again.content == b""
    assert again.headers["etag"] == first.headers["etag"]
    assert first.headers["cache-control"] == page.ASK_AGAIN


def test_files_go_out_squeezed_to_those_who_can_read_that(client: TestClient) -> None:
    path = re.findall(r'src="([^"]+main\.js)"', client.get("/").text)[0]
    small = client.get(f"/{path}", headers={"Accept-Encoding": "gzip"})
    plain = client.get(f"/{path}", headers={"Accept-Encoding": "identity"})
    assert small.headers["content-encoding"] == "gzip"
    assert "content-encoding" not in plain.headers
    assert small.content == plain.content == (ROOT / "js" / "main.js").read_bytes()
    assert int(small.headers["content-length"]) < int(plain.headers["content-length"])


def test_another_version_is_let_in_and_not_kept(client: TestClient) -> None:
    answer = client.get("/page/0123456789abcdef/js/main.js")
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == page.ASK_AGAIN


@pytest.mark.parametrize(
    "path",
    [
        "/page/x/js/none.js",
        "/page/x/index.html",
        "/page/x/..%2f..%2fauth.py",
        "/page/x/%2e%2e/%2e%2e/app.py",
        "/page/x//etc/passwd",
        "/page/x/",
    ],
)
def test_nothing_else_is_served(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code in (401, 404), path
    assert answer.headers["content-type"] == "application/problem+json"


def test_head_is_get_without_the_body(client: TestClient) -> None:
    answer = client.head("/")
    assert answer.status_code == 200
    assert answer.content == b""
    assert answer.headers["etag"] == client.get("/").headers["etag"]


def test_the_page_says_whether_there_is_a_provider_of_logins() -> None:
    for oidc, said in ((True, b'content="yes"'), (False, b'content="no"')):
        assert b'name="vorch-oidc" ' + said in page.page_of(oidc=oidc).first.body


def test_one_changed_byte_is_another_address(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("{{base}}")
    (tmp_path / "a.js").write_text("1")
    first = page.page_of(oidc=False, root=tmp_path)
    (tmp_path / "a.js").write_text("2")
    second = page.page_of(oidc=False, root=tmp_path)
    assert first.digest != second.digest
    assert first.first.body == f"page/{first.digest}".encode()


def test_a_form_knows_which_fields_take_a_higher_role(client: TestClient) -> None:
    told = client.get("/openapi.json", headers={"Authorization": f"Bearer {TOKEN}"}).json()
    for verb, entry in VERBS.items():
        operation = told["paths"][entry.path][entry.method.lower()]
        above = {name: str(role) for name, role in NEEDS[verb].above.items()}
        assert operation.get("x-vorch-above", {}) == above, verb


# -- what it is made of


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda one: one.name)
def test_what_a_module_imports_is_there(script: Path) -> None:
    text = script.read_text("utf-8")
    for name in re.findall(r'(?:from|import)\s*\(?\s*"(\.[^"]+)"', text):
        # Built beside the page, and done without where it is not there.
        if (script.parent / name).resolve() == ROOT / "js" / "consoles.js":
            continue
        assert (script.parent / name).is_file(), name


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda one: one.name)
def test_data_never_become_html(script: Path) -> None:
    text = script.read_text("utf-8")
    for way in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(",
                "new Function", "srcdoc", "DOMParser"):  # fmt: skip
        assert way not in text, way


@pytest.mark.parametrize(
    "file",
    [one for one in ROOT.rglob("*") if one.suffix in (".js", ".css", ".html", ".svg")
     and "vendor" not in one.parts],
    ids=lambda one: one.name,
)  # fmt: skip
def test_nothing_is_loaded_from_elsewhere(file: Path) -> None:
    found = set(re.findall(r"(?:https?:)?//[a-z0-9.-]+\.[a-z]{2,}", file.read_text("utf-8")))
    assert found <= {"http://www.w3.org"}


# -- its words


def test_both_languages_say_the_same() -> None:
    english, french = texts("en"), texts("fr")
    assert set(english) == set(french)
    for key, text in english.items():
        assert text.strip(), key
        assert french[key].strip(), key
        holes = sorted(re.findall(r"\{(\w+)\}", text))
        assert holes == sorted(re.findall(r"\{(\w+)\}", french[key])), key


def test_most_of_it_is_another_language() -> None:
    english, french = texts("en"), texts("fr")
    long = [key for key, text in english.items() if len(text.split()) > 2 and "unit" not in key]
    assert len(long) > 100
    assert [key for key in long if english[key] == french[key]] == []


def strings_of(text: str) -> Iterator[tuple[str, str]]:
    """(what, its text) of a script: "string", "template" or "regex"; comments are left out."""
    token = re.compile(
        r"""(?P<comment>//[^\n]*|/\*.*?\*/)
        |(?P<string>"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')
        |(?P<template>`(?:\\.|[^`\\])*`)
        |(?P<regex>(?<=[(,=:!&|?{};\n])\s*/(?![/*])(?:\\.|\[(?:\\.|[^\]\\\n])*\]|[^/\\\n])+/[a-z]*)""",
        re.DOTALL | re.VERBOSE,
    )
    for found in token.finditer(text):
        kind = found.lastgroup or ""
        if kind in ("string", "template"):
            yield kind, found[0][1:-1]


@functools.cache
def all_strings() -> frozenset[str]:
    return frozenset(
        text for script in SCRIPTS for _, text in strings_of(script.read_text("utf-8"))
    )


# Of technical words: names of events, of CSS, of headers, of the product.
_NO_WORDS = re.compile(
    r"""vorch|Escape|Arrow(Up|Down)|Page(Up|Down)|Home|End|Tab|Enter|AbortError|GET|POST|PATCH|DELETE
    |INPUT|LI|BUTTON|SELECT|TEXTAREA|Accept|Prefer|Authorization|Content-Type|If-Match
    |Idempotency-Key|Last-Event-ID|X-CSRF-Token|X-Total-Count|Vorch-Job|ETag|Bearer
    |\ ?KMGTP|English|Français|Files|Location""",
    re.VERBOSE,
)


def looks_like_words(text: str) -> bool:
    """Whether somebody would read it as language: a capital, or two words that are no code."""
    text = re.sub(r"\$\{[^{}]*(\{[^{}]*\}[^{}]*)*\}", "", text).strip()
    if not text or _NO_WORDS.fullmatch(text):
        return False
    if re.fullmatch(r"[A-Z][a-zà-ü]+", text):
        return True
    words = re.findall(r"(?<![\w.#\[(-])[A-Za-zà-ü]{2,}(?![\w(\[=-])", text)
    return len(words) >= 2 and bool(re.search(r"[A-Za-zà-ü]{2,}[,.:]? [A-Za-zà-ü]{2,}", text))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda one: one.name)
def test_no_words_stand_in_the_code(script: Path) -> None:
    found = [
        text
        for _, text in strings_of(script.read_text("utf-8"))
        if looks_like_words(text) and not _is_code(text)
    ]
    assert found == []


def _is_code(text: str) -> bool:
    """A selector, a list of classes or tags, a style, a path of an icon, an object's notation."""
    return bool(
        re.fullmatch(r"[a-z0-9 .,#:>*\[\]=\"()-]+", text)
        and (
            re.search(r"[.#:\[>]|input|button|select|textarea|summary", text)
            or re.fullmatch(r"((bare|small|full|on|main|danger|confirm)( |$))+", text)
        )
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Delete this VM", True),
        ("Delete", True),
        ("the host is gone", True),
        ("${name} is gone now", True),
        ("vms.count", False),
        ("button.button", False),
        ("aria-label", False),
        ("AbortError", False),
        ("${a} ${b}", False),
        ("M4 7h16M4 12h16", False),
    ],
)
def test_words_are_told_from_code(text: str, words: bool) -> None:
    assert (looks_like_words(text) and not _is_code(text)) is words


def test_every_text_that_is_asked_for_is_there() -> None:
    known = texts("en")
    for script in SCRIPTS:
        for key in re.findall(r'\bt\("([\w.-]+)"[,)]', script.read_text("utf-8")):
            assert key in known or f"{key}.other" in known, f"{script.name}: {key}"


# Keys that are put together: by these beginnings.
PUT_TOGETHER = (
    "verb.", "field.", "step.", "choice.", "figure.", "document.", "power.", "node.state.",
    "ha.state.", "task.state.", "role.", "theme.", "vm.tab.", "vm.consistency.", "vm.secure_boot",
    "vm.tpm", "vm.graphics", "vm.agent", "create.small", "create.medium", "create.large",
    "create.own", "health.", "host.is.", "ha.is.", "ha.as.", "ha.shutdown.", "ha.keep.",
    "ha.wants.",
    "capacity.", "room.is.", "rule.is.", "network.is.", "image.is.", "storage.is.", "check.is.",
    "audit.is.", "upload.", "people.quota.",
)  # fmt: skip


def test_no_text_is_left_over() -> None:
    asked = all_strings()
    inside = "\n".join(asked)
    for key in texts("en"):
        plain = re.sub(r"\.(one|other)$", "", key)
        used = key.startswith(PUT_TOGETHER) or plain in asked or f'"{plain}"' in inside
        assert used, f"nobody asks for {key!r}"


def test_every_verb_has_a_name_and_says_what_it_does() -> None:
    known = texts("en")
    for verb in VERBS:
        assert f"verb.{verb}" in known
        assert f"verb.{verb}.help" in known


def test_every_field_has_a_name() -> None:
    known = texts("en")
    hidden = {"dry_run", "wait_s"}
    for verb in VERBS:
        for field in set(model_of(verb).model_fields) - hidden:
            assert f"field.{field}" in known or field.endswith("~"), f"{verb}: {field}"
        assert call_of(verb).summary


def test_every_step_of_a_plan_is_a_sentence() -> None:
    known = texts("en")
    kinds = {
        one.__dataclass_fields__["kind"].default
        for one in typing.get_args(typing.get_args(Step)[0])
    }
    said = {key.removeprefix("step.") for key in known if key.startswith("step.")}
    assert {one.split(".")[0] for one in said} == kinds


def test_every_verb_of_vms_can_be_reached() -> None:
    """From the view of one VM, its lists, or where VMs are made."""
    files = ["vm_actions.js", "create.js", "views/vm.js", "views/vms.js", "store.js"]
    if (ROOT / "js" / "consoles.js").is_file():
        files.append("consoles.js")
    text = "\n".join((ROOT / "js" / name).read_text("utf-8") for name in files)
    # The page shows what these tell by `show`, by plots, and by the list itself.
    shown = {"list", "show", "figures", "snapshot_list"}
    for verb, entry in VERBS.items():
        if entry.about == "vm" and verb not in shown:
            assert re.search(rf'["\s{{]{verb}["\s:]', text), verb
