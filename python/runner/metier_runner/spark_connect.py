"""Spark that runs already: sessions of existing clusters (kind remote-spark), and the warm Spark of a project.

    python -m metier_runner.spark connect     a warm Spark: a Connect server and who watches over it, until it is idle for long enough

A warm Spark's clients say who they are by a token that the server makes for it (SPARK_CONNECT_AUTHENTICATE_TOKEN).
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, MutableMapping
from importlib.util import find_spec
from types import FrameType
from typing import Any

from . import spark
from .errors import InvalidArgument, RunnerError
from .failure import environment_name

PORT = 15002
TOKEN = "SPARK_CONNECT_AUTHENTICATE_TOKEN"
WARM = "METIER_SPARK_WARM"  # address of the warm Spark that this run's session goes to
MODULES = "METIER_SPARK_PY_FILES"  # the Python files that this run brings
SERVER = "org.apache.spark.sql.connect.service.SparkConnectServer"
LOOK_EVERY = 0.5  # seconds
PATIENCE = 5.0  # seconds in which a service has to answer: PySpark itself would try for ten minutes
TOLD_WITHIN = 10.0  # seconds in which metier ends the run whose warm Spark is gone: it knows the cause
CLIENT = {
    "grpc": "grpcio",
    "grpc_status": "grpcio-status",
    "google.rpc": "googleapis-common-protos",
    "zstandard": "zstandard",
    "pandas": "pandas<3",
    "pyarrow": "pyarrow",
}


class ServiceUnavailable(RunnerError):
    """Nobody answers at the address of a Spark service."""

    code = "ServiceUnavailable"


class ServerLost(RunnerError):
    """The warm Spark that the session was in is gone."""

    code = "ServerLost"


def use_service(environment: MutableMapping[str, str]) -> None:
    """Point PySpark at the service of METIER_SPARK_SERVICE: an address, or a name with METIER_SPARK_SERVICE_<NAME>."""
    name = environment.get("METIER_SPARK_SERVICE", "")
    address = name
    if "://" not in name:
        variable = "METIER_SPARK_SERVICE_" + "".join(c if c.isalnum() else "_" for c in name).upper()
        address = environment.get(variable, "")
        if not address:
            raise InvalidArgument(
                f"Spark service '{name}' is no address and {variable} is not set: write spark://HOST:PORT or sc://HOST:PORT"
            )
    if not address.startswith(("sc://", "spark://")):
        raise InvalidArgument(f"'{address}' is no address of a Spark service: write spark://HOST:PORT or sc://HOST:PORT")
    places = places_of(address)
    if address.startswith("sc://"):
        check_client(f"Spark Connect ({address})")
        reach(name, address, places, environment)
        os.environ["SPARK_REMOTE"] = environment["SPARK_REMOTE"] = address
        look_before_retries(lambda: still_reached(environment, PATIENCE))
        if address.startswith("sc://127.") and environment.get(TOKEN):
            session_of(address)  # PySpark alone would want TLS for the token
        return
    found = spark.jvm_environment(environment)
    spark.find_java(environment, found["SPARK_HOME"])
    reach(name, address, places, environment)
    if all(of_this_machine(host) for host, _ in places):
        found["SPARK_LOCAL_IP"] = environment.get("METIER_POD_IP") or "127.0.0.1"
    else:
        found.pop("SPARK_LOCAL_IP", None)  # the cluster must reach the driver
    found.pop("_SPARK_AUTH_SECRET", None)
    found["PYSPARK_SUBMIT_ARGS"] = f"--master {address} {environment.get('METIER_SPARK_SUBMIT_ARGS', '')} pyspark-shell"
    os.environ.update(found)


def places_of(address: str) -> list[tuple[str, int]]:
    """Host and port of each server in the address of a service. Raises InvalidArgument."""
    scheme, _, rest = address.partition("://")
    out = []
    for place in rest.partition("/")[0].split(","):
        host, colon, port = place.rpartition(":")
        if scheme == "sc" and (not colon or place.endswith("]")):
            host, port = place, str(PORT)
        if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 1 << 16:
            raise InvalidArgument(f"'{address}': '{place}' is not HOST:PORT with a port from 1 to 65535")
        out.append((host.strip("[]"), int(port)))
    return out


def of_this_machine(host: str) -> bool:
    return host in ("localhost", "::1") or host.startswith("127.")


def by_proxy(environment: MutableMapping[str, str], host: str) -> bool:
    """gRPC goes through a proxy: what this machine sees says nothing."""
    return any(environment.get(one) for one in ("grpc_proxy", "https_proxy", "http_proxy")) and not of_this_machine(host)


def reach(name: str, address: str, places: list[tuple[str, int]], environment: MutableMapping[str, str]) -> None:
    """Return when one of the service's servers answers. Raises ServiceUnavailable."""
    if by_proxy(environment, places[0][0]):
        return
    ends = time.monotonic() + PATIENCE
    while True:
        for host, port in places:
            try:
                socket.create_connection((host, port), timeout=PATIENCE).close()
                return
            except OSError as error:
                why = f"{host}:{port}: {error.strerror or error}"
        if time.monotonic() >= ends:
            break
        time.sleep(0.1)
    given = f"METIER_SPARK_SERVICE={name}" if name == address else f"METIER_SPARK_SERVICE={name}, which is {address}"
    raise ServiceUnavailable(f"no Spark service answers at {why} ({given}): start it, or correct the address")


def look_before_retries(look: Callable[[], None]) -> None:
    """Call `look`, which raises what has happened, before PySpark calls its server again: it would do so for ten minutes, but the session
    of a server that has ended is gone with it."""

    def looking(can_retry: Callable[..., bool]) -> Callable[..., bool]:
        def judged(owner: Any, error: BaseException) -> bool:
            again = can_retry(owner, error)
            if again:
                look()
            return again

        return judged

    with contextlib.suppress(ImportError, AttributeError):
        from pyspark.sql.connect.client import retries

        retries.DefaultPolicy.can_retry = looking(retries.DefaultPolicy.can_retry)
        return
    with contextlib.suppress(ImportError, AttributeError):
        from pyspark.sql.connect.client.core import SparkConnectClient  # Spark 3.5

        SparkConnectClient.retry_exception = classmethod(looking(SparkConnectClient.retry_exception.__func__))


def still_reached(environment: MutableMapping[str, str], patience: float) -> None:
    """Raises ServiceUnavailable when nobody listens any more where the session is. One that cannot be reached may come back."""
    address = environment["SPARK_REMOTE"]
    host, port = places_of(address)[0]
    if by_proxy(environment, host):
        return
    ends = time.monotonic() + patience
    while True:
        try:
            socket.create_connection((host, port), timeout=PATIENCE).close()
            return
        except ConnectionRefusedError:
            if time.monotonic() >= ends:
                raise ServiceUnavailable(f"the Spark service sc://{host}:{port} has ended: nobody listens there any more") from None
        except OSError:
            return
        time.sleep(0.1)


def loss(environment: MutableMapping[str, str], nobody_answers: bool) -> RunnerError | None:
    """That the server of the session is gone, where the user's code has met that nobody answers."""
    if not nobody_answers:
        return None
    address = environment.get(WARM)
    ends = time.monotonic() + 0.5  # its connections end a moment before it listens no longer
    while time.monotonic() < ends:
        try:
            if address:
                still_listens(address)
            elif environment.get("SPARK_REMOTE", "").startswith("sc://"):
                still_reached(environment, 0)
        except (ServerLost, ServiceUnavailable) as gone:
            return gone
        except InvalidArgument:
            return None  # an address that only PySpark can read
        time.sleep(0.1)
    return None


def check_client(what: str) -> None:
    """Raises SparkMissing where the Connect client's packages are not installed."""
    missing = []
    for module, package in {"pyspark": "pyspark", **CLIENT}.items():
        try:
            found = find_spec(module)
        except (ImportError, ValueError):
            found = None
        if found is None and not (package == "zstandard" and _is_3()):
            missing.append(package)
    if missing:
        raise spark.SparkMissing(spark.missing_packages(what, missing))


def _is_3() -> bool:
    with contextlib.suppress(spark.SparkMissing):
        return spark.spark_version(spark.spark_home(os.environ))[0] == 3
    return False


# --- the warm Spark: its clients ---------------------------------------------------------------------------------------------------------


def use_warm(environment: MutableMapping[str, str]) -> None:
    """Make the session that the user's ``SparkSession.builder.getOrCreate()`` finds. Raises SparkMissing and DependencyMissing."""
    check_client("a warm Spark (spec.warm)")
    address = environment[WARM]
    modules = spark.bring_modules(environment, environment.get(MODULES, ""))
    spark.wait_for_port(address, PORT)
    environment["SPARK_REMOTE"] = f"sc://{address}:{PORT}"
    session = session_of(environment["SPARK_REMOTE"])
    if modules:
        session.addArtifacts(*modules, pyfile=True)
    look_before_retries(lambda: still_listens(address))


def still_listens(address: str) -> None:
    """Raises ServerLost when the warm Spark does not; metier, which knows the cause, has the time to end this run before."""
    if not listens(address, PORT):
        time.sleep(TOLD_WITHIN)
        raise ServerLost(f"the warm Spark of this project is gone: nobody listens at {address}:{PORT} any more")


def session_of(remote: str) -> Any:
    """This process's session. PySpark would speak TLS to a server with a token; ours listens on this machine's loopback only."""
    os.environ["SPARK_REMOTE"] = remote
    os.environ["SPARK_CONNECT_MODE_ENABLED"] = "1"  # PySpark's own builder sets it: functions of pyspark.sql look at it
    import grpc
    from pyspark.sql.connect.client import DefaultChannelBuilder
    from pyspark.sql.connect.session import SparkSession

    class Loopback(DefaultChannelBuilder):  # type: ignore[misc]  # PySpark is none of our packages
        def toChannel(self) -> Any:
            token = self.token
            if token is None:
                return super().toChannel()
            credentials = grpc.composite_channel_credentials(grpc.local_channel_credentials(), grpc.access_token_call_credentials(token))
            return self._secure_channel(self.endpoint, credentials)

    return SparkSession.builder.channelBuilder(Loopback(remote)).getOrCreate()


def end_session() -> None:
    """Release what the session holds in the server."""
    module = sys.modules.get("pyspark.sql.connect.session")
    # By its attribute: Spark 3.5 has no method for it.
    session = getattr(module.SparkSession, "_default_session", None) if module is not None else None
    if session is not None:
        with contextlib.suppress(Exception):
            session.stop()


# --- the warm Spark: its server ----------------------------------------------------------------------------------------------------------


def server_command(start: dict[str, Any], environment: MutableMapping[str, str], folder: str) -> list[str]:
    """The Connect server's JVM. Raises SparkMissing."""
    home = spark.spark_home(environment)
    if not any(name.startswith("spark-connect_") for name in os.listdir(os.path.join(home, "jars"))):
        raise spark.SparkMissing(
            f"a warm Spark (spec.warm) needs a Connect server, which the pyspark of {environment_name()} lacks: "
            "take pyspark 4, or leave spec.warm out"
        )
    conf = {str(key): str(value) for key, value in (start.get("conf") or {}).items()}
    spark.check_local(conf)
    address = environment.get("METIER_POD_IP") or "127.0.0.1"
    conf["spark.master"] = f"local[{start.get('cores') or 1}]"
    conf["spark.app.name"] = str(start["app"])
    conf["spark.driver.host"] = conf["spark.driver.bindAddress"] = address
    conf["spark.connect.grpc.binding.address"], conf["spark.connect.grpc.binding.port"] = address, str(PORT)
    conf.setdefault("spark.ui.showConsoleProgress", "false")
    conf.setdefault("spark.sql.warehouse.dir", os.path.join(folder, "warehouse"))
    spark.place_events(conf, folder)  # Spark's own default is a folder that nobody has made
    path = os.path.join(folder, "spark.properties")
    spark.write_properties(path, conf)
    options = " ".join(filter(None, [str(start.get("java_options") or ""), conf.get("spark.driver.extraJavaOptions", "")]))
    words = spark.java_command(environment, "warn", str(start.get("memory") or "1g"), options, conf.get("spark.driver.extraClassPath", ""))
    return [*words, "org.apache.spark.deploy.SparkSubmit", "--properties-file", path, "--class", SERVER, "spark-internal"]


def serve(environment: MutableMapping[str, str]) -> int:
    """Run the server until nobody has been connected to it for the idle limit; 0 then, else its exit code; ended by a signal as it was."""
    start = spark.read_start(environment)
    check_client("a warm Spark (spec.warm)")
    folder = spark.work_folder(environment)
    words = server_command(start, environment, folder)
    archive = spark.archive_of(environment, "connect", words)
    jvm = subprocess.Popen([words[0], *archive.options, *words[1:]], env={**environment, **spark.jvm_environment(environment)}, cwd=folder)

    def stop(number: int, frame: FrameType | None) -> None:
        jvm.terminate()

    signal.signal(signal.SIGTERM, stop)
    address = environment.get("METIER_POD_IP") or "127.0.0.1"
    first = WarmUp(address)
    idle = watch(jvm, float(start.get("idle") or 600), lambda: connections(address, PORT), first.begun)
    if idle:
        jvm.terminate()
    code = jvm.wait()
    first.end()
    archive.keep(code)
    return 0 if idle else spark.end_like(code)


def watch(jvm: Any, limit: float, clients: Callable[[], int], ready: Callable[[], bool]) -> bool:
    """True when nobody was connected for `limit` seconds since it was ready, False when the server ended by itself."""
    since = time.monotonic()
    while jvm.poll() is None:
        now = time.monotonic()
        if not ready() or clients() > 0:
            since = now
        elif now - since >= limit:
            return True
        time.sleep(LOOK_EVERY)
    return False


class WarmUp:
    """A first query by a process of its own: the server's classes are loaded before the first client comes."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._process: subprocess.Popen[bytes] | None = None

    def begun(self) -> bool:
        """Begin it as soon as the server listens; true from then on."""
        if self._process is None and listens(self._address, PORT):
            words = [sys.executable, "-m", "metier_runner.spark", "warm-up", self._address]
            self._process = subprocess.Popen(words, stdout=subprocess.DEVNULL)
        return self._process is not None

    def end(self) -> None:
        """Leave no process behind."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()


def warm_up(address: str) -> int:
    """What most programs do first: a table, a sum by groups, a function of Python's own on the executor."""
    from pyspark.sql import functions

    session = session_of(f"sc://{address}:{PORT}")
    table = session.range(100).selectExpr("id", "id % 3 as part")
    table.groupBy("part").agg(functions.sum("id")).toPandas()
    table.select(functions.udf(lambda x: x + 1, "long")("id")).collect()
    end_session()
    return 0


def listens(address: str, port: int) -> bool:
    """True when a process of this machine listens there."""
    return any(state == "0A" for state in _sockets(address, port))


def connections(address: str, port: int) -> int:
    """How many clients are connected there."""
    return sum(state == "01" for state in _sockets(address, port))


def _sockets(address: str, port: int) -> list[str]:
    """States of the sockets at this end, by the kernel's own table."""
    number = "".join(f"{int(part):02X}" for part in reversed(address.split(".")))
    wanted = (f"{number}:{port:04X}", f"0000000000000000FFFF0000{number}:{port:04X}")
    out = []
    for table in ("/proc/self/net/tcp", "/proc/self/net/tcp6"):
        with contextlib.suppress(OSError), open(table, encoding="ascii") as stream:
            out += [words[3] for words in map(str.split, stream) if words[1] in wanted]
    return out
