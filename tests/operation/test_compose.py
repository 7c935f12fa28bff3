"""The services of ``docker-compose.yml`` that are built here, started without an engine."""

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
import yaml
from psycopg.conninfo import conninfo_to_dict

from examples import listener_health, server
from examples.listener_health import Answer

pytestmark = pytest.mark.once

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 120
SERVICES = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
(IMAGE_COMMAND,) = [
    json.loads(line.removeprefix("CMD "))
    for line in (ROOT / "Dockerfile").read_text().splitlines()
    if line.startswith("CMD ")
]


@pytest.fixture(scope="module")
def url(postgres):
    name = f"compose_{uuid4().hex}"
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
        yield server.database_url(server.database_settings(postgres.url) | {"NAME": name})
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def port():
    with socket.create_server(("127.0.0.1", 0)) as free:
        return str(free.getsockname()[1])


def words(command, port=""):
    """The command, with this Python and a free port in place of the container's."""
    own = {"python": sys.executable, "8080": port, "0.0.0.0:8000": f"127.0.0.1:{port}"}
    return [own.get(word, word).replace("127.0.0.1:8000", f"127.0.0.1:{port}") for word in command]


def environment(name, url):
    return {
        **{key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ},
        **SERVICES[name]["environment"],
        "DATABASE_URL": url,
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def is_healthy(name, port, *arguments):
    """What the health check says; in the container it would run again until ``retries``."""
    kind, *check = SERVICES[name]["healthcheck"]["test"]
    assert kind == "CMD"
    return subprocess.run([*words(check, port), *arguments], cwd=ROOT, check=False).returncode == 0


def wait_until(condition, log):
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.1)


@contextmanager
def running(name, command, url, log):
    """The service under a shell, which stands for Docker's init and ends with its child."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            ["sh", "-c", f"{shlex.join(command)} & wait $!"],
            cwd=ROOT,
            env=environment(name, url),
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):  # all of it has ended
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(PATIENCE)


@pytest.fixture(scope="module")
def migrated(url):
    command = words(SERVICES["migrate"]["command"])
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=environment("migrate", url),
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Applying shop.0001_initial... OK" in done.stdout
    return url


@pytest.mark.parametrize("name", ["postgres", "pgbouncer"])
def test_the_health_check_of_a_server_queries_it(url, postgres, name):
    """Where the server is comes last, and so counts; the image has it elsewhere."""
    _, program, *options = SERVICES[name]["healthcheck"]["test"]
    here = conninfo_to_dict(url)

    def ask(port):
        where = [f"--host={here['host']}", f"--port={port}"]
        return subprocess.run([postgres.bin / program, *options, *where], check=False).returncode

    assert program == "pg_isready"
    assert ask(here.get("port", 5432)) == 0
    assert ask(1) != 0


def test_the_app_becomes_healthy(migrated, port, tmp_path):
    log = tmp_path / "log"
    command = SERVICES["app"].get("command", IMAGE_COMMAND)

    with running("app", words(command, port), migrated, log):
        wait_until(lambda: is_healthy("app", port), log)


def test_a_listener_that_hangs_is_ended_by_its_health_check(migrated, port, tmp_path):
    log = tmp_path / "log"
    command = words(SERVICES["listener"]["command"], port)

    with running("listener", command, migrated, log) as init:
        wait_until(lambda: is_healthy("listener", port, str(init.pid)), log)
        (listener,) = listener_health.children(init.pid)
        os.kill(listener, signal.SIGSTOP)

        assert not is_healthy("listener", port, str(init.pid))

        assert init.wait(PATIENCE) == 128 + signal.SIGKILL


def test_a_listener_that_starts_is_left_alone(port):
    with subprocess.Popen(["sh", "-c", "sleep 600 & wait $!"], start_new_session=True) as init:
        try:
            assert not is_healthy("listener", port, str(init.pid))
            assert init.poll() is None
        finally:
            os.killpg(init.pid, signal.SIGKILL)


def test_a_closed_port_is_not_mistaken_for_a_hanging_listener(port):
    assert listener_health.ask(int(port), "/livez") is Answer.CLOSED
