"""Whatever is asked, as whichever role: the service answers as its OpenAPI document says."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.api.conforming import Conforming, conforming

OF_HOSTS = ("/v1/nodes", "/v1/pools", "/v1/images", "/v1/networks", "/v1/whatif", "/v1/ha")
# Each of the document's paths is in one of them.
PARTS: dict[str, Callable[[str], bool]] = {
    "vms": lambda path: path.startswith("/v1/vms"),
    "hosts": lambda path: path.startswith(OF_HOSTS),
    "others": lambda path: not path.startswith(("/v1/vms", *OF_HOSTS)),
}


@pytest.fixture(scope="module")
def service() -> Iterator[Conforming]:
    with conforming("conformance") as found:
        yield found


@pytest.mark.parametrize("part", PARTS)
def test_answers_are_in_the_document(service: Conforming, part: str) -> None:
    service.try_all(PARTS[part], examples=1)
    assert list(service.found.values()) == [], "\n\n".join(service.found.values())
    assert service.sent > 300


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_all_that_is_asked_is_answered_as_the_document_says() -> None:
    with conforming("conformance-long") as service:
        service.try_all(lambda _: True, examples=8)
        assert list(service.found.values()) == [], "\n\n".join(service.found.values())
        assert service.sent > 6_000
