"""Where the jars of Apache Kafka come from: ``mvn`` resolves them once into a cache outside the tree."""

import asyncio
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

from streams.embedded.process import EmbeddedError

KAFKA_VERSION = "4.1.0"
#: The binding that carries Kafka's SLF4J 1.7 calls to the log4j 2 it ships.
LOG4J_VERSION = "2.24.3"
JAVA_VERSION_MIN = 17
RESOLVE_DEADLINE_S = 180.0
RESOLVE_ATTEMPTS = 2
_GOAL = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"

_POM = f"""<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>sluice</groupId><artifactId>embedded-kafka</artifactId><version>1</version><packaging>pom</packaging>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>{KAFKA_VERSION}</version>
    </dependency>
    <dependency>
      <groupId>org.apache.logging.log4j</groupId><artifactId>log4j-slf4j-impl</artifactId>
      <version>{LOG4J_VERSION}</version>
    </dependency>
  </dependencies>
</project>
"""


class Distribution(NamedTuple):
    """Apache Kafka, ready to run: ``classpath`` is what ``java -cp`` takes."""

    version: str
    java: str
    java_version: int
    libs: Path

    @property
    def classpath(self) -> str:
        """All jars, in the wildcard form that ``java`` expands itself."""
        return f"{self.libs}/*"


def cache_dir() -> Path:
    """``$XDG_CACHE_HOME/sluice``, else ``~/.cache/sluice``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sluice"


async def find_distribution() -> Distribution:
    """Apache Kafka from the cache, resolved by ``mvn`` if it is not there yet.

    Raises:
        EmbeddedError: Java or mvn is missing, or mvn could not fetch; the text says which.
    """
    return await asyncio.to_thread(_find)


def _find() -> Distribution:
    java = shutil.which("java")
    if java is None:
        raise EmbeddedError("`java` is not installed (on Debian: apt-get install default-jre-headless maven)")
    version = _java_version(java)
    if version < JAVA_VERSION_MIN:
        raise EmbeddedError(f"Apache Kafka {KAFKA_VERSION} needs Java {JAVA_VERSION_MIN}; found {version}")
    home = cache_dir() / f"kafka-{KAFKA_VERSION}"
    if not home.is_dir():
        mvn = shutil.which("mvn")
        if mvn is None:
            raise EmbeddedError("`mvn` is not installed (on Debian: apt-get install maven)")
        _resolve(mvn, home)
    return Distribution(KAFKA_VERSION, java, version, home / "libs")


def _java_version(java: str) -> int:
    """Major version: 8 for ``1.8.0_302``, 17 for ``17.0.15``, 21 for ``21-ea``."""
    try:
        done = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise EmbeddedError(f"`java -version` failed: {error}") from error
    found = re.search(r'version "(?:1\.)?(\d+)', done.stderr)
    if found is None:
        raise EmbeddedError(f"`java -version` says nothing of a version: {done.stderr.strip()[:200]}")
    return int(found.group(1))


def _resolve(mvn: str, home: Path) -> None:
    """Fill ``home``; it appears whole or not at all, so that starts in parallel disturb nobody."""
    try:
        home.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f"{home.name}.", dir=home.parent) as folder:
            staged = Path(folder) / "staged"
            staged.mkdir()
            (staged / "pom.xml").write_text(_POM)
            _copy_dependencies(mvn, staged)
            if not home.is_dir():
                staged.rename(home)
    except OSError as error:
        # A start in parallel may have been first: what it put there is the same.
        if not home.is_dir():
            raise EmbeddedError(f"the cache cannot be written ({error}); set XDG_CACHE_HOME") from error


def _copy_dependencies(mvn: str, folder: Path) -> None:
    """Let ``mvn`` put the jars into ``folder/libs``; tried twice, since it goes over a network."""
    command = [mvn, "-q", "-B", "-Dstyle.color=never", _GOAL, "-DoutputDirectory=libs"]
    said = ""
    for _ in range(RESOLVE_ATTEMPTS):
        try:
            done = subprocess.run(
                command, cwd=folder, capture_output=True, text=True, timeout=RESOLVE_DEADLINE_S, check=False
            )
        except subprocess.TimeoutExpired:
            said = f"nothing for {RESOLVE_DEADLINE_S:g} s"
            continue
        if done.returncode == 0 and any((folder / "libs").glob("kafka_*.jar")):
            return
        lines = (done.stdout + done.stderr).splitlines()
        errors = (line.partition("[ERROR] ")[2] for line in lines)
        said = next((error for error in errors if error), f"exit code {done.returncode}")
    raise EmbeddedError(f"`mvn` could not fetch Apache Kafka {KAFKA_VERSION}; it said: {said[:200]}")
