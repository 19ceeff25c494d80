"""Settings out of files and the environment: which wins, and what is said of a wrong one."""

from __future__ import annotations

from pathlib import Path

import pytest

from vorch import BadConfig, load_settings


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "vorch.toml"
    file.write_text('uri = "memory:file"\nlisten_port = 1000\nhost_timeout_s = 5\n')
    monkeypatch.setenv("VORCH_CONFIG", str(file))
    monkeypatch.delenv("VORCH_URI", raising=False)
    return file


@pytest.mark.usefixtures("file")
def test_the_environment_wins_over_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VORCH_LISTEN_PORT", "9000")
    monkeypatch.setenv("VORCH_MIGRATION_POSTCOPY", "True")
    monkeypatch.setenv("VORCH_STOP_TIMEOUT_S", "2.5")
    monkeypatch.setenv("VORCH_HOST_TIMEOUT_S", "")
    found = load_settings()
    assert (found.listen_port, found.migration_postcopy, found.stop_timeout_s) == (9000, True, 2.5)
    assert found.host_timeout_s == 5
    assert found.uri == "memory:file"
    monkeypatch.setenv("VORCH_URI", "memory:environment")
    assert load_settings().uri == "memory:environment"
    assert load_settings("memory:caller").uri == "memory:caller"


@pytest.mark.usefixtures("file")
@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("VORCH_LISTEN_PORT", "many", "of type int"),
        ("VORCH_STOP_TIMEOUT_S", "-1", "0 or more"),
        ("VORCH_STOP_TIMEOUT_S", "nan", "0 or more"),
        ("VORCH_MIGRATION_POSTCOPY", "perhaps", "as in true or false"),
        ("VORCH_LOG_FORMAT", "xml", "one of text, json"),
    ],
)
def test_a_wrong_one_is_told(
    monkeypatch: pytest.MonkeyPatch, name: str, text: str, said: str
) -> None:
    monkeypatch.setenv(name, text)
    with pytest.raises(BadConfig, match=said):
        load_settings()
