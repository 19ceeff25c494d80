"""The text of a document: the same whichever way it is made, and nothing that is not JSON."""

from __future__ import annotations

import json
import math

import pytest

from vorch.availability import NodeRecord, Report, Saying, VmRecord
from vorch.codec import Coded, decode, decode_text, encode
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
    # Without a dict in between it is the same to the letter.
    assert documents.to_text(KEY, Coded(value)) == text
    assert Coded(value).body == body
    assert decode_text(Task, text) in (value, None)


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


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_refused_in_a_value_too(number: float) -> None:
    with pytest.raises(Invalid, match="not plain JSON data"):
        documents.to_text(KEY, Coded(task(started_at=number)))


def test_every_kind_of_document_has_the_same_text_either_way() -> None:
    record = VmRecord(vm="web", failed=("h1",), why="größer", gone_at=0.1)
    report = Report(holder="me", epoch=2, since=1.5, said={"vm/web": Saying(text="x", since=1e9)})
    for value in (record, report, NodeRecord(node="h1", clients=("10.0.0.1:0/7",))):
        text = documents.to_text(KEY, Coded(value))
        assert text == documents.to_text(KEY, encode(value))
        assert decode_text(type(value), text) == value


@pytest.mark.parametrize("text", ['{"vm":1}', "[]", "{"])
def test_a_text_that_is_not_sound_is_left_to_who_says_why(text: str) -> None:
    assert decode_text(VmRecord, text) is None
