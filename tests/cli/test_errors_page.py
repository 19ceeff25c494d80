"""docs/errors.md has every error, with the numbers that the code has."""

import re
from pathlib import Path

from vorch import errors

PAGE = Path(__file__).parents[2] / "docs" / "errors.md"


def test_the_table_is_that_of_the_code() -> None:
    rows = re.findall(
        r"^\| `([\w-]+)` \| `(\w+)` \| (\d+) \| (\d+) \| (.+) \| (.+) \|$",
        PAGE.read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    assert [row[:4] for row in rows] == [
        (kind.code, kind.__name__, str(kind.exit_code), str(kind.http_status))
        for kind in errors.ALL
    ]
    assert all(meaning.endswith(".") and advice.endswith(".") for *_, meaning, advice in rows)


def test_every_exit_code_is_of_one_error() -> None:
    codes = [kind.exit_code for kind in errors.ALL]
    assert len(set(codes)) == len(codes)
    # 1 is for what nobody foresaw, 128 and more for signals.
    assert all(1 < code < 128 for code in codes)


def test_every_error_of_the_library_is_in_the_table() -> None:
    def below(kind: type[errors.VorchError]) -> set[type[errors.VorchError]]:
        return {kind}.union(*(below(one) for one in kind.__subclasses__()))

    # Kinds that other modules have of their own bear the code of the one that they are below.
    public = {kind for kind in below(errors.VorchError) if kind.__module__ == errors.__name__}
    assert public - {errors.VorchError} == set(errors.ALL)
