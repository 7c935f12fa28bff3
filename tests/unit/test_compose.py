"""Checks of ``docker-compose.yml`` that need no engine."""

import argparse
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from psycopg.conninfo import conninfo_to_dict

from bulksafe.management.subcommands.listen import LISTEN
from examples import listener_health

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def services():
    return yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]


def dependencies(services):
    return [
        (name, other, waits["condition"])
        for name, service in services.items()
        for other, waits in service.get("depends_on", {}).items()
    ]


def test_every_dependency_exists_and_can_meet_its_condition(services):
    for name, other, condition in dependencies(services):
        assert other in services, f"{name} waits for {other}, which is no service"
        if condition == "service_healthy":
            assert "healthcheck" in services[other], f"{other} can never be healthy"


@pytest.mark.parametrize("name", ["app", "listener"])
def test_one_shot_service_is_awaited(services, name):
    assert (name, "migrate", "service_completed_successfully") in dependencies(services)


def test_database_urls_lead_to_services_with_those_credentials(services):
    owner = services["postgres"]["environment"]
    for name in ("app", "migrate", "listener"):
        url = conninfo_to_dict(services[name]["environment"]["DATABASE_URL"])
        assert url["host"] in services
        assert (url["user"], url["password"], url["dbname"]) == (
            owner["POSTGRES_USER"],
            owner["POSTGRES_PASSWORD"],
            owner["POSTGRES_DB"],
        )


def test_the_app_uses_the_pooler_and_session_bound_services_do_not(services):
    pooler = services["pgbouncer"]["environment"]
    app = services["app"]["environment"]

    assert pooler["POOL_MODE"] == "transaction"
    assert f"@pgbouncer:{pooler['LISTEN_PORT']}/" in app["DATABASE_URL"]
    assert app["DATABASE_POOLED"]
    for name in ("migrate", "listener"):
        assert "@postgres:5432/" in services[name]["environment"]["DATABASE_URL"]


def test_the_listener_starts_as_documented(services):
    command = services["listener"]["command"]
    assert command[:3] == ["python", "manage.py", "bulksafe"]

    parser = argparse.ArgumentParser()
    LISTEN.add_to(parser.add_subparsers(), command=None)
    options = parser.parse_args(command[3:])

    assert services["listener"]["healthcheck"]["test"] == [
        *("CMD", "python", "examples/listener_health.py", str(options.health_port))
    ]


def test_the_listener_is_restarted_when_its_health_check_ends_it(services):
    """The kernel shields the first process of a container from signals sent in it."""
    listener = services["listener"]

    assert listener["init"] is True
    assert listener["restart"] == "unless-stopped"
    (seconds,) = re.fullmatch(r"(\d+)s", listener["healthcheck"]["timeout"]).groups()
    assert int(seconds) > (listener_health.ATTEMPTS + 1) * listener_health.SECONDS


def test_the_file_follows_the_schema():
    pytest.importorskip("check_jsonschema")
    command = ["-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    checked = subprocess.run(
        [sys.executable, *command, ROOT / "docker-compose.yml"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_environment_values_are_strings(services):
    """YAML would turn a bare ``no`` or ``0600`` into something else."""
    for service in services.values():
        assert all(isinstance(value, str) for value in service.get("environment", {}).values())


def test_built_files_exist(services):
    assert (ROOT / services["app"]["build"] / "Dockerfile").is_file()
    for name in ("app", "migrate", "listener"):
        command = services[name].get("command")
        assert command is None or (ROOT / command[1]).is_file()


def test_ports_are_published_on_the_loopback_interface_only(services):
    published = [port for service in services.values() for port in service.get("ports", [])]

    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)
