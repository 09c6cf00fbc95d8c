"""Where the values come from by which a server goes: which source wins, and what is refused, with its source."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from holdfast import ConfigurationError, HoldfastError, HostConfig
from holdfast.cli.config import Configuration, ServerConfig, known_names
from holdfast.cli.config_sources import of_options, read_configuration, variable_of
from holdfast.cli.main import commands

FILE = """
store = "sqlite:///from-file.db"
port = 1
host = "127.0.0.2"
cors_origins = ["https://a.example", "https://b.example"]

[settings]
threads_max = 1
processes_max = 1
queues = ["gpu"]

[settings.limits]
tags_max = 1

[settings.http_calls]
allowed_hosts = ["*.example.com"]
"""


def configured(
    folder: Path,
    *,
    file: str | None = None,
    project: str | None = None,
    environment: Mapping[str, str] | None = None,
    options: Mapping[str, object] | None = None,
    settings: tuple[str, ...] = (),
    config: Path | None = None,
) -> Configuration:
    for name, text in (("holdfast.toml", file), ("pyproject.toml", project)):
        if text is not None:
            (folder / name).write_text(text)
    return read_configuration(config, environment or {}, of_options(options or {}, settings), folder=folder)


def test_without_anything_there_are_the_defaults(tmp_path: Path) -> None:
    found = configured(tmp_path, project="[project]\nname = 'x'\n[tool.other]\nport = 1\n")
    assert (found.server, found.host) == (ServerConfig(), HostConfig())
    assert set(found.origins.values()) == {"default"}
    assert list(found.origins) == known_names()


def test_the_file_then_the_environment_then_the_command_line(tmp_path: Path) -> None:
    found = configured(
        tmp_path,
        file=FILE,
        environment={
            "HOLDFAST_PORT": "2",
            "HOLDFAST_HOST": "127.0.0.3",
            "HOLDFAST_STORE": "",
            "HOLDFAST_SETTINGS__THREADS_MAX": "2",
            "HOLDFAST_SETTINGS__LIMITS__TAGS_MAX": "2",
            "HOLDFAST_ACCESS_LOG": "true",
            "HOLDFAST_LINK_SECRETS": "one-secret-of-links, another-secret-of-links",
            "HOLDFAST_URL": "http://elsewhere",
            "PATH": "/bin",
        },
        options={"port": 3, "store": None, "cors_origins": []},
        settings=("threads_max=3",),
    )
    server, host, origins = found.server, found.host, found.origins
    assert (server.port, origins["port"]) == (3, "--port")
    assert (server.host, origins["host"]) == ("127.0.0.3", "HOLDFAST_HOST")
    assert (server.store, origins["store"]) == ("sqlite:///from-file.db", "holdfast.toml")
    assert (server.key, origins["key"]) == (None, "default")
    assert server.access_log is True
    assert server.link_secrets == ("one-secret-of-links", "another-secret-of-links")
    assert server.cors_origins == ("https://a.example", "https://b.example")
    assert (host.threads_max, origins["settings.threads_max"]) == (3, "--set")
    assert (host.limits.tags_max, origins["settings.limits.tags_max"]) == (2, "HOLDFAST_SETTINGS__LIMITS__TAGS_MAX")
    assert (host.processes_max, origins["settings.processes_max"]) == (1, "holdfast.toml")
    assert tuple(host.http_calls.allowed_hosts) == ("*.example.com",)
    assert host.queues == ("gpu",)


def test_queues_are_named_with_commas_where_there_are_no_lists(tmp_path: Path) -> None:
    of_variable = configured(tmp_path, environment={"HOLDFAST_SETTINGS__QUEUES": "gpu, default"})
    assert of_variable.host.queues == ("gpu", "default")
    assert configured(tmp_path, settings=("queues=gpu",)).host.queues == ("gpu",)
    assert configured(tmp_path, file="[settings]\nqueues = []").host.queues == ()


def test_a_project_file_has_it_in_its_own_table(tmp_path: Path) -> None:
    project = "[tool.holdfast]\nport = 8\n[tool.holdfast.settings]\ndefault_version = '2.0'\n"
    found = configured(tmp_path, project=project)
    assert (found.server.port, found.host.default_version) == (8, "2.0")
    assert found.origins["port"] == "pyproject.toml"


@pytest.mark.parametrize("by_variable", [True, False])
def test_another_file_may_be_named(tmp_path: Path, by_variable: bool) -> None:
    other = tmp_path / "other.toml"
    other.write_text("port = 9")
    environment = {"HOLDFAST_CONFIG": str(other)} if by_variable else {}
    found = configured(tmp_path, file=FILE, environment=environment, config=None if by_variable else other)
    assert (found.server.port, found.origins["port"], found.server.store) == (9, "other.toml", None)


@pytest.mark.parametrize(
    ("given", "parts"),
    [
        ({"file": "prot = 1"}, ["holdfast.toml", "'prot'", "Did you mean 'port'?"]),
        ({"file": "threads_max = 1"}, ["'threads_max'", "Did you mean 'settings.threads_max'?"]),
        ({"file": "[settings]\nthread_max = 1"}, ["holdfast.toml", "'thread_max'", "Did you mean 'threads_max'?"]),
        ({"file": "[settings.limit]\ntags_max = 1"}, ["holdfast.toml", "Did you mean 'limits.tags_max'?"]),
        ({"file": "settings = 1"}, ["there is no 'settings'"]),
        ({"file": "port = 70000"}, ["holdfast.toml", "70000 cannot be the port", "65535"]),
        ({"file": "port = [1]"}, ["cannot be the port"]),
        ({"file": "key = 1"}, ["the value cannot be the key"]),
        ({"file": "[settings]\nthreads_max = 0"}, ["holdfast.toml", "more than zero"]),
        ({"settings": ("queues=a b",)}, ["queue='a b' cannot name a queue"]),
        ({"file": "port ="}, ["holdfast.toml", "no TOML"]),
        ({"project": "[tool"}, ["pyproject.toml", "no TOML"]),
        ({"project": "[tool.holdfast]\nprot = 1"}, ["pyproject.toml", "Did you mean 'port'?"]),
        ({"file": "port = 1", "project": "[tool.holdfast]\nport = 1"}, ["both", "keep one"]),
        ({"environment": {"HOLDFAST_PROT": "1"}}, ["HOLDFAST_PROT", "Did you mean 'HOLDFAST_PORT'?"]),
        ({"environment": {"HOLDFAST_PROT": ""}}, ["HOLDFAST_PROT"]),
        (
            {"environment": {"HOLDFAST_SETTINGS_THREADS_MAX": "1"}},
            ["Did you mean 'HOLDFAST_SETTINGS__THREADS_MAX'?"],
        ),
        ({"environment": {"HOLDFAST_PORT": "http"}}, ["HOLDFAST_PORT: 'http' cannot be the port"]),
        ({"environment": {"HOLDFAST_ACCESS_LOG": "maybe"}}, ["HOLDFAST_ACCESS_LOG", "maybe"]),
        ({"environment": {"HOLDFAST_SETTINGS__LIMITS__TAGS_MAX": "many"}}, ["HOLDFAST_SETTINGS__LIMITS__TAGS_MAX"]),
        ({"environment": {"HOLDFAST_CONFIG": "/nowhere.toml"}}, ["/nowhere.toml", "cannot be read"]),
        ({"settings": ("thread_max=1",)}, ["--set", "Did you mean 'threads_max'?"]),
        ({"settings": ("threads_max",)}, ["NAME=VALUE"]),
        # What does not win is checked, too.
        ({"file": "port = -1", "options": {"port": 1}}, ["holdfast.toml"]),
    ],
)
def test_what_cannot_be_is_refused_with_its_source(tmp_path: Path, given: dict[str, Any], parts: list[str]) -> None:
    with pytest.raises(HoldfastError) as refused:
        configured(tmp_path, **given)
    for part in parts:
        assert part in str(refused.value)


def test_a_project_file_that_is_named_must_have_the_table(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[project]\n")
    with pytest.raises(ConfigurationError, match=r"no \[tool.holdfast\]"):
        configured(tmp_path, config=tmp_path / "pyproject.toml")


def test_each_name_has_a_variable_of_its_own() -> None:
    names = known_names()
    assert len({variable_of(name) for name in names}) == len(names)
    assert variable_of("settings.limits.tags_max") == "HOLDFAST_SETTINGS__LIMITS__TAGS_MAX"


# `holdfast config`


SECRETS = ("the-only-key-there-is", "the-secret-of-links", "swordfish")


def _shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> str:
    (tmp_path / "holdfast.toml").write_text(
        f'store = "postgresql://me:{SECRETS[2]}@db/x"\nlink_secrets = ["{SECRETS[1]}"]\n[settings]\nthreads_max = 7\n'
    )
    monkeypatch.chdir(tmp_path)
    ended = CliRunner().invoke(commands, ["config", *arguments], env={"HOLDFAST_KEY": SECRETS[0], "HOLDFAST_PORT": "8"})
    assert ended.exit_code == 0, ended.output
    assert [secret for secret in SECRETS if secret in ended.output] == []
    return ended.output


def test_it_shows_each_value_and_its_origin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [line.split() for line in _shown(tmp_path, monkeypatch).splitlines()]
    assert [line[0] for line in lines] == known_names()
    for line in (
        ["store", "postgresql://me:***@db/x", "holdfast.toml"],
        ["port", "8", "HOLDFAST_PORT"],
        ["host", "127.0.0.1", "default"],
        ["key", "***", "HOLDFAST_KEY"],
        ["keys", "-", "default"],
        ["link_secrets", "***", "holdfast.toml"],
        ["cors_origins", "-", "default"],
        ["access_log", "false", "default"],
        ["settings.threads_max", "7", "holdfast.toml"],
        ["settings.limits.tags_max", "64", "default"],
    ):
        assert line in lines


def test_it_shows_them_as_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = json.loads(_shown(tmp_path, monkeypatch, "--json"))
    assert list(shown) == known_names()
    assert shown["port"] == {"value": 8, "origin": "HOLDFAST_PORT"}
    assert shown["key"] == {"value": "***", "origin": "HOLDFAST_KEY"}
    assert shown["keys"] == {"value": None, "origin": "default"}
    assert shown["settings.http_calls.allowed_hosts"] == {"value": [], "origin": "default"}


def test_it_says_what_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ended = CliRunner().invoke(commands, ["config"], env={"HOLDFAST_PROT": "1"})
    assert ended.exit_code == 2
    assert "HOLDFAST_PORT" in ended.output
