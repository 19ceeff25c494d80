"""One verb, one word: the library, the command line and its page in docs/ name the same things."""

import inspect
import re
from pathlib import Path

import pytest
from typer.core import TyperGroup

from tests.cli.conftest import Vorch
from vorch import Orchestrator, lab
from vorch_cli import reference
from vorch_cli.main import command, command_for

DOCS = Path(__file__).parents[2] / "docs"
# Methods that are no verbs.
OF_THE_LIBRARY_ALONE = {
    "close",  # the end of a connection; a command has one of its own
    "picture",  # a look that keeps itself fresh: `list --watch`, and the service
    "cluster_of",  # what a picture has read, as a look has it
    "image_content",  # `image export` writes it to a file, and the service sends it
    "lean_on",  # makes looks of a process that keeps a picture cheap
    "now",  # a clock
    "look",  # what the verbs decide from: a value for programs, seen through `list` and `show`
}
# Verbs for what comes to a service's door.
OF_THE_SERVICE_ALONE = {
    "console_ticket",  # a browser shows it there; here `console` and `display` open both
}
# Commands that are about the program and not about the cluster.
OF_THE_COMMAND_LINE_ALONE = {
    "bench_install",  # `vorch_install_time.Benchmark`: many verbs, one after the other
    "bench_report",  # `vorch_install_time.write_report`: about files
    "import_htools",  # `vorch.simulate.read_htools` and `document_of`: about two files
    "node_hook",  # `vorch.network_hook`, `vorch.install_network_hook`: about this machine
    "serve",  # opens the other door
    "simulate_balance",  # `vorch.simulate.balance`: about a cluster in a file
    "simulate_evacuate",  # `vorch.simulate.evacuate`
    "simulate_faults",  # `vorch.simulate.play_seed`: the same
    "simulate_ha",  # `vorch.simulate.play`: about hosts in memory, and no cluster
    "simulate_place",  # `vorch.simulate.place`
    "state_copy",  # `vorch.copy_state`: about two stores, neither of which it connects to
    "state_reopen",  # `vorch.reopen_state`
    "version",  # `vorch.__version__`
}
# What the lab has in Python for programs only.
LAB_IN_PYTHON_ALONE = {
    "find",  # --name
    "command",  # `vorch lab shell`
    *("log_files", "own_logs"),  # `vorch lab logs`
    "names",  # `vorch lab down --all`
    "acks_in",  # --acks
}
# Verbs that change something and have no dry run.
WITHOUT_A_PLAN = {
    "init",  # makes what is missing, before there is anything to plan with
    "node_maintenance",  # a plan for each VM, made when the one before it has moved
    "node_probe",  # writes down what it finds out, and cannot know it before
    "recover",  # carries on plans that are there already: `vorch task list` shows them
    "job_cancel",  # asks somebody else to undo their plans
    "task_cancel",  # asks somebody else to undo their plan
}


def methods() -> set[str]:
    return {
        name
        for name, _ in inspect.getmembers(Orchestrator, inspect.isfunction)
        if not name.startswith("_")
    }


def commands() -> set[str]:
    return {entry.verb for entry in of_clusters()}


def of_clusters() -> list[reference.Entry]:
    """Commands about a cluster; the lab's are compared with the lab's own class below."""
    return [entry for entry in reference.entries() if entry.path[0] != "lab"]


def of_the_lab() -> list[reference.Entry]:
    return [entry for entry in reference.entries() if entry.path[0] == "lab"]


def test_library_and_command_line_have_the_same_verbs() -> None:
    assert (
        methods() - OF_THE_LIBRARY_ALONE - OF_THE_SERVICE_ALONE
        == commands() - OF_THE_COMMAND_LINE_ALONE
    )


def test_the_lab_has_the_same_verbs_in_python_and_on_the_command_line() -> None:
    typed = {entry.path[1].replace("-", "_") for entry in of_the_lab()}
    verbs = {name for name, _ in inspect.getmembers(lab.Lab, callable) if not name.startswith("_")}
    functions = {name for name in lab.__all__ if inspect.isfunction(getattr(lab, name))}
    assert typed - {"shell", "logs"} == (verbs | functions) - LAB_IN_PYTHON_ALONE


def test_the_table_in_the_docs_names_the_same_verbs() -> None:
    table = (DOCS / "cli.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (?:`(\w+)`)? *\| `([a-z -]+)` \|", table, re.MULTILINE)
    listed = {verb_of(command) for _, command in rows}
    cluster = (methods() - OF_THE_LIBRARY_ALONE - OF_THE_SERVICE_ALONE) | OF_THE_COMMAND_LINE_ALONE
    assert listed == cluster | {entry.verb for entry in of_the_lab()}
    assert all(method in ("", verb_of(command)) for method, command in rows)


def verb_of(command: str) -> str:
    return re.sub("[ -]", "_", command)


def test_the_page_in_the_docs_is_up_to_date() -> None:
    written = (DOCS / "cli.md").read_text(encoding="utf-8")
    assert written == reference.text(), "run: make docs"


def option_names(entry: reference.Entry) -> set[str]:
    return {name for param in entry.command.params for name in param.opts if name.startswith("-")}


@pytest.mark.parametrize("entry", of_clusters(), ids=lambda entry: entry.verb)
def test_what_a_verb_takes_in_the_library_can_be_said_here(entry: reference.Entry) -> None:
    if entry.verb in OF_THE_COMMAND_LINE_ALONE:
        return
    options = option_names(entry)
    parameters = inspect.signature(getattr(Orchestrator, entry.verb)).parameters
    assert ("dry_run" in parameters) == ("--dry-run" in options)
    assert ("wait_s" in parameters) == ("--wait" in options)
    assert ("timeout_s" in parameters) == ("--timeout" in options)
    for flag in ("force", "purge", "keep", "linked", "freeze"):
        if flag in parameters and entry.verb != "create":
            assert any(name.startswith(f"--{flag}") for name in options) or (
                entry.verb == "recover"
            ), flag


def test_what_changes_something_can_be_tried_dry() -> None:
    looking = {
        "doctor",
        "history",
        "node_history",
        "inventory",
        "list",
        "show",
        "figures",
        "console",
        "display",
        "ha_status",
        "health",
        "loads",
        "storage_status",
        "node_abilities",
        "node_check",
        "network_check",
        "capacity",
        "dump",
        "whatif_fail",
        "whatif_add_host",
        "whatif_remove_host",
        "whatif_add_vms",
    }
    dry = {entry.verb for entry in of_clusters() if "--dry-run" in option_names(entry)}
    rest = commands() - dry - OF_THE_COMMAND_LINE_ALONE
    changing = {
        verb for verb in rest - looking if verb.rpartition("_")[2] not in ("list", "show", "watch")
    }
    assert changing == WITHOUT_A_PLAN


@pytest.mark.parametrize("entry", reference.entries(), ids=lambda entry: entry.verb)
def test_each_command_is_found_without_all_others(entry: reference.Entry) -> None:
    found = command_for(["-v", "--uri", "memory:", *entry.path])
    assert isinstance(found, TyperGroup)
    assert list(found.commands) == [entry.path[0]]
    *groups, last = entry.path
    for word in groups:
        inner = found.commands[word]
        assert isinstance(inner, TyperGroup)
        found = inner
    params = [one.name for one in found.commands[last].params]
    assert params == [one.name for one in entry.command.params]
    assert command_for([entry.path[0], "--uri=memory:"]) is not command()


def test_what_is_no_command_is_looked_for_among_all() -> None:
    for words in ([], ["--help"], ["nosuch"], ["--nosuch", "list"], ["--uri"]):
        assert command_for(words) is command()


def test_what_prints_can_print_json() -> None:
    silent = {entry.verb for entry in of_clusters() if "--json" not in option_names(entry)}
    # The console's output is the guest's; the service's is for whoever started it.
    assert silent == {"console", "serve"}


def test_every_command_and_option_says_what_it_is_for() -> None:
    for entry in reference.entries():
        assert entry.sentences[0].endswith("."), entry.verb
        for param in entry.command.params:
            assert getattr(param, "help", None), (entry.verb, param.name)


@pytest.mark.parametrize("words", [(), ("disk",), ("image",), ("create", "--help")])
def test_help_is_a_result(vorch: Vorch, words: tuple[str, ...]) -> None:
    ended = vorch(*words)
    assert ended.code == 0
    assert ended.out.startswith("Usage: vorch")
    assert ended.err == ""
