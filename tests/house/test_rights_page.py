"""The table of who may do what is that of the code."""

from __future__ import annotations

from pathlib import Path

import pytest

from vorch import NEEDS, Principal, Role
from vorch.decide.rights import may
from vorch.model import Cluster
from vorch_cli import rights_page

PAGE = Path(__file__).parents[2] / "docs" / "users.md"


def test_the_table_is_up_to_date() -> None:
    written = PAGE.read_text(encoding="utf-8")
    assert rights_page.BEGIN in written
    assert written == rights_page.page(written), "run: make docs"


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("verb", sorted(NEEDS))
def test_each_cell_is_what_is_decided(verb: str, role: Role) -> None:
    """Asked of whom nothing belongs to: what the table calls "yes" is allowed, the rest is not."""
    word = rights_page.cell(NEEDS[verb], role)
    # An argument that everybody with the verb may give.
    arguments = {"location": "https://images.example/debian"} if verb == "image_import" else {}
    stranger = Principal(name="zoe", role=role, scopes=("owner:zoe",))
    refusal = may(stranger, verb, {"name": "web", **arguments}, Cluster())
    if word == "–":
        assert refusal is not None
    elif word == "yes":
        assert refusal is None
    elif NEEDS[verb].about in ("list", "new-vm"):
        # Its answer is cut down, or it is made one's own.
        assert refusal is None
    else:
        assert refusal is not None
    everywhere = Principal(name="zoe", role=role, scopes=("*",))
    if word == "with `*`":
        assert may(everywhere, verb, arguments, Cluster()) is None
    if word == "oneself":
        whose = {"user" if verb.startswith("token") else "name": "zoe"}
        assert may(stranger, verb, whose, Cluster()) is None
