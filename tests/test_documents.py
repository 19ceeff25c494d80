"""The text of a document: the same whichever way it is made, and nothing that is not JSON."""

from __future__ import annotations

import json
import math

import pytest

from vorch.codec import decode, encode
from vorch.drivers import documents
from vorch.errors import Invalid
from vorch.model import Task

KEY = "task/1"


def task(**changed: object) -> Task:
    fields = {"id": "1", "verb": "start", "subject": "web", "why": "", "who": "me", "started_at": 0}
    return Task(**{**fields, **changed})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "value",
    [
        task(),
        task(why='größer \u2028 \U0001f600 \x00 " \\ /'),
        task(why="half a pair: \ud800", log=("\udfff",)),
        task(why="NaN and Infinity are words here"),
        task(started_at=1.9e9 + 0.1, finished_at=1e-7, percent=1e22),
        task(result={"n": 2**70, "deep": [{"a": None}, [True, 0.1]]}),
    ],
)
def test_what_was_encoded_becomes_the_text_that_its_plain_data_become(value: Task) -> None:
    body = encode(value)
    text = documents.to_text(KEY, body)
    assert text.isascii()
    assert json.loads(text) == json.loads(documents.to_text(KEY, dict(body)))
    assert decode(Task, documents.from_text(KEY, text)) == value


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_refused_whoever_made_it(number: float) -> None:
    for body in (encode(task(percent=number)), {"percent": number}):
        with pytest.raises(Invalid, match="not plain JSON"):
            documents.to_text(KEY, body)


def test_what_holds_itself_is_refused() -> None:
    body: dict[str, object] = {}
    body["itself"] = body
    with pytest.raises(Invalid, match="not plain JSON"):
        documents.to_text(KEY, body)
