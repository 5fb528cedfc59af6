"""Spark inside pods: the driver's JVM beside the user's Python, executors, Java and Scala programs, sessions of other clusters.

``METIER_SPARK`` (JSON of the controller, src/cluster/controllers/spark) says which part of an application this pod is;
``METIER_SPARK_SERVICE`` names the cluster of kind remote-spark. The driver's JVM is the one that ``spark-submit`` would start, without
the script and the JVM that works out its command line; PySpark finds it by its own gateway variables.

    python -m metier_runner.spark executor               one executor towards METIER_SPARK_DRIVER_ADDR
    python -m metier_runner.spark driver FILE.jar ARGS   a Java or Scala program
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import time
from collections.abc import MutableMapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NoReturn

from .errors import InvalidArgument, NotFound, RunnerError

if TYPE_CHECKING:
    from .context import Context

DRIVER_PORT = 7078
EVENTS = "spark-events"  # folder of the event log, kept with the run
MASTER = "local-metier"  # spark/src, ClusterManager: executors are pods
JAVA_NEEDED = {3: 8, 4: 17}
# What Spark opens of Java 17; the scripts' own list (SPARK_PRINT_LAUNCH_COMMAND=1 prints it).
OPENED = [
    "java.lang",
    "java.lang.invoke",
    "java.lang.reflect",
    "java.io",
    "java.net",
    "java.nio",
    "java.util",
    "java.util.concurrent",
    "java.util.concurrent.atomic",
    "jdk.internal.ref",
    "sun.nio.ch",
    "sun.nio.cs",
    "sun.security.action",
    "sun.util.calendar",
]


# Spark's own lines are kept apart from the user's: warnings from the driver, what happens from executors. They go to stderr.
LOGGING = """rootLogger.level = {level}
rootLogger.appenderRef.stderr.ref = stderr
appender.stderr.type = Console
appender.stderr.name = stderr
appender.stderr.target = SYSTEM_ERR
appender.stderr.layout.type = PatternLayout
appender.stderr.layout.pattern = %d{{HH:mm:ss}} %p %c{{1}}: %m%n%ex
logger.native.name = org.apache.hadoop.util.NativeCodeLoader
logger.native.level = error
logger.security.name = org.apache.spark.SecurityManager
logger.security.level = warn
logger.shell.name = org.apache.spark.repl.Main
logger.shell.level = {level}
"""


class SparkMissing(RunnerError):
    """The engine, or the Java it needs, is not on this machine."""


def wanted(environment: MutableMapping[str, str]) -> bool:
    """True in the driver pod of kind spark and in the pod of kind remote-spark."""
    return "METIER_SPARK" in environment or bool(environment.get("METIER_SPARK_SERVICE"))


class Session:
    """The Spark of one run: begun before the user's code is imported, ended after its outputs are kept."""

    def __init__(self, environment: MutableMapping[str, str]) -> None:
        self._environment = environment
        self._gateway: subprocess.Popen[bytes] | None = None
        self._folder = ""

    def begin(self) -> None:
        """Start the driver's JVM, or point PySpark at the service. Raises SparkMissing and InvalidArgument."""
        if "METIER_SPARK" not in self._environment:
            use_service(self._environment)
            return
        start = read_start(self._environment)
        self._folder = work_folder(self._environment)
        information = os.path.join(self._folder, "spark-gateway")
        words = [*driver_command(start, self._environment, self._folder), "pyspark-shell"]
        jvm = {**self._environment, **jvm_environment(self._environment), "_PYSPARK_DRIVER_CONN_INFO_PATH": information}
        jvm.pop("MLRUN_EXEC_CODE", None)
        self._gateway = subprocess.Popen(words, stdin=subprocess.PIPE, env=jvm)
        with contextlib.suppress(ImportError):
            importlib.import_module("pyspark")  # while the JVM starts; a broken one is for the user's own import to report
        port, secret = self._wait_for(information)
        os.unlink(information)
        found = {**jvm_environment(self._environment), "PYSPARK_GATEWAY_PORT": str(port), "PYSPARK_GATEWAY_SECRET": secret}
        os.environ.update(found)
        if self._environment is not os.environ:
            self._environment.update(found)

    def share_module(self, module: Any) -> None:
        """Let executors have the functions of the user's file: they cannot import it."""
        cloudpickle = sys.modules.get("pyspark.cloudpickle")
        if cloudpickle is None or module is None:
            return
        with contextlib.suppress(Exception):
            cloudpickle.register_pickle_by_value(module)

    def end(self) -> None:
        """Stop the session that the user's code left, and the JVM. Executors hear of it and leave."""
        context = getattr(sys.modules.get("pyspark.core.context") or sys.modules.get("pyspark.context"), "SparkContext", None)
        active = getattr(context, "_active_spark_context", None)
        if active is not None:
            with contextlib.suppress(Exception):
                active.stop()
        if self._gateway is None:
            return
        assert self._gateway.stdin is not None
        with contextlib.suppress(OSError):
            self._gateway.stdin.close()
        try:
            self._gateway.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._gateway.kill()
            self._gateway.wait()
        self._gateway = None

    def keep_events(self, context: Context) -> None:
        """Keep Spark's event log with the run: what the history server shows after the end."""
        folder = os.path.join(self._folder, EVENTS)
        for name in sorted(os.listdir(folder)) if self._folder and os.path.isdir(folder) else []:
            path = os.path.join(folder, name)
            if name.endswith(".inprogress"):  # the driver was killed: what it wrote is still worth reading
                name = name[: -len(".inprogress")]
                os.replace(path, os.path.join(folder, name))
            context.log_artifact("spark-events", local_path=os.path.join(folder, name))

    def _wait_for(self, path: str) -> tuple[int, str]:
        assert self._gateway is not None
        while True:
            if self._gateway.poll() is not None:
                raise RunnerError(f"Spark's driver ended before it began, exit code {self._gateway.returncode}: its lines above say why")
            try:
                with open(path, "rb") as stream:
                    data = stream.read()
                port, length = struct.unpack(">ii", data[:8])
                if len(data) >= 8 + length:
                    return port, data[8 : 8 + length].decode()
            except (OSError, struct.error):
                pass
            time.sleep(0.01)


def read_start(environment: MutableMapping[str, str]) -> dict[str, Any]:
    """What the controller says about this pod's part."""
    try:
        start = json.loads(environment["METIER_SPARK"])
    except (KeyError, ValueError) as error:
        raise RunnerError(f"METIER_SPARK is not what the Spark controller writes: {error}") from None
    if not isinstance(start, dict):
        raise RunnerError("METIER_SPARK is not what the Spark controller writes")
    return start


# --- what is installed -------------------------------------------------------------------------------------------------------------------


def spark_home(environment: MutableMapping[str, str]) -> str:
    """Folder with Spark's jars: SPARK_HOME, else that of the pyspark package. Raises SparkMissing."""
    home = environment.get("SPARK_HOME", "")
    if not home:
        try:
            found = find_spec("pyspark")
        except (ImportError, ValueError):
            found = None
        folders = list(found.submodule_search_locations or []) if found else []
        home = folders[0] if folders else ""
    if not home or not os.path.isdir(os.path.join(home, "jars")):
        raise SparkMissing(
            f"pyspark is not in this run's environment ({sys.executable}): add the requirement pyspark==4.3.0 (and pandas<3), "
            "metier run --requirement"
        )
    return home


def spark_version(home: str) -> tuple[int, str]:
    """Major version of Spark and its Scala version, by the names of its jars."""
    major, scala = 4, "2.13"
    for name in os.listdir(os.path.join(home, "jars")):
        if name.startswith("spark-core_"):
            scala, _, rest = name[len("spark-core_") :].partition("-")
            major = int(rest.split(".")[0]) if rest.split(".")[0].isdigit() else major
    return major, scala


def find_java(environment: MutableMapping[str, str], home: str) -> str:
    """The `java` program, new enough for the Spark at `home`. Raises SparkMissing with the command that installs one."""
    given = environment.get("JAVA_HOME", "")
    java = os.path.join(given, "bin", "java") if given else shutil.which("java", path=environment.get("PATH")) or ""
    if not java or not os.access(java, os.X_OK):
        where = f"JAVA_HOME is {given}, which has none" if given else "there is none on PATH"
        raise SparkMissing(f"Spark needs Java and {where}: apt-get install openjdk-17-jre-headless")
    version, needed = java_version(java), JAVA_NEEDED.get(spark_version(home)[0], 17)
    if version and version < needed:
        raise SparkMissing(
            f"Spark {spark_version(home)[0]} needs Java {needed} or newer, {java} is {version}: apt-get install openjdk-17-jre-headless"
        )
    return java


def java_version(java: str) -> int:
    """Major version by the installation's `release` file; 0 when it has none."""
    root = os.path.dirname(os.path.dirname(os.path.realpath(java)))
    for folder in (root, os.path.dirname(root)):
        try:
            with open(os.path.join(folder, "release"), encoding="utf-8") as stream:
                for line in stream:
                    if line.startswith("JAVA_VERSION="):
                        numbers = line.split("=", 1)[1].strip().strip('"').split(".")
                        return int(numbers[1] if numbers[0] == "1" and len(numbers) > 1 else numbers[0])
        except (OSError, ValueError):
            continue
    return 0


# --- command lines -----------------------------------------------------------------------------------------------------------------------


def java_command(environment: MutableMapping[str, str], level: str, memory: str, options: str = "", class_path: str = "") -> list[str]:
    """A JVM with Spark's class path and the packages it opens; nothing of it is left in /tmp. It logs at `level`."""
    home = spark_home(environment)
    settings = os.path.join(work_folder(environment), "spark-log4j2.properties")
    with open(settings, "w", encoding="ascii") as stream:
        stream.write(LOGGING.format(level=level))
    words = [find_java(environment, home), "-cp", os.pathsep.join(filter(None, [os.path.join(home, "jars", "*"), class_path]))]
    words += [f"-Xmx{memory.lower()}", "-XX:-UsePerfData", "-XX:+IgnoreUnrecognizedVMOptions"]
    words += [f"-Dlog4j2.configurationFile=file:{settings}", *(f"--add-opens=java.base/{name}=ALL-UNNAMED" for name in OPENED)]
    words += ["-Dio.netty.tryReflectionSetAccessible=true", "-Djdk.reflect.useDirectMethodHandle=false"]
    if environment.get("TMPDIR"):
        words.append(f"-Djava.io.tmpdir={environment['TMPDIR']}")
    return words + options.split()


def jvm_environment(environment: MutableMapping[str, str]) -> dict[str, str]:
    """Variables of Spark's scripts."""
    home = spark_home(environment)
    out = {"SPARK_HOME": home, "SPARK_SCALA_VERSION": spark_version(home)[1]}
    out["PYSPARK_PYTHON"] = environment.get("PYSPARK_PYTHON") or sys.executable
    if environment.get("METIER_POD_IP"):
        out["SPARK_LOCAL_IP"] = environment["METIER_POD_IP"]
    if environment.get("TMPDIR"):
        out["SPARK_LOCAL_DIRS"] = environment["TMPDIR"]
    secret = shared_secret(environment)
    if secret:
        out["_SPARK_AUTH_SECRET"] = secret
    return out


def shared_secret(environment: MutableMapping[str, str]) -> str:
    """What parts of one run know and nobody else: made of the run's token."""
    token = environment.get("MLRUN_HTTPDB__TOKEN", "")
    return hashlib.sha256(f"spark {token}".encode()).hexdigest() if token else ""


def driver_command(start: dict[str, Any], environment: MutableMapping[str, str], folder: str) -> list[str]:
    """The driver's JVM up to what it submits."""
    conf = {str(key): str(value) for key, value in (start.get("conf") or {}).items()}
    check_local(conf)
    address = environment.get("METIER_POD_IP") or "127.0.0.1"
    conf["spark.master"] = MASTER
    conf.setdefault("spark.ui.showConsoleProgress", "false")
    if conf.setdefault("spark.eventLog.enabled", "true") == "true" and "spark.eventLog.dir" not in conf:
        os.makedirs(os.path.join(folder, EVENTS), exist_ok=True)
        conf["spark.eventLog.dir"] = f"file://{folder}/{EVENTS}"
        for key, value in (("overwrite", "true"), ("rolling.enabled", "false"), ("compress", "false")):
            conf.setdefault(f"spark.eventLog.{key}", value)
    conf["spark.metier.app.id"] = str(start["app"])
    conf["spark.driver.host"] = conf["spark.driver.bindAddress"] = address
    secret = shared_secret(environment)
    if secret:
        conf["spark.authenticate"] = "true"
        conf["spark.authenticate.secret"] = secret
    path = os.path.join(folder, "spark.properties")
    write_properties(path, conf)
    options = " ".join(filter(None, [str(start.get("java_options") or ""), conf.get("spark.driver.extraJavaOptions", "")]))
    class_path = os.pathsep.join(filter(None, [cluster_manager(environment), conf.get("spark.driver.extraClassPath", "")]))
    words = java_command(environment, "warn", str(start.get("memory") or "1g"), options, class_path)
    return [*words, "org.apache.spark.deploy.SparkSubmit", "--properties-file", path, "--conf", f"spark.driver.host={address}"]


def cluster_manager(environment: MutableMapping[str, str]) -> str:
    """Our jar, beside this package. Raises SparkMissing in a build that has none."""
    jar = environment.get("METIER_SPARK_JAR") or os.path.join(
        os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "metier-spark.jar"
    )
    if not os.path.isfile(jar):
        raise SparkMissing(
            "this build of metier has no Spark cluster manager: it was built without a JDK (apt-get install openjdk-17-jdk-headless)"
        )
    return jar


def check_local(conf: dict[str, str]) -> None:
    """Files that the application brings must be there before anything starts. Raises NotFound."""
    for key, what in (
        ("spark.jars", "jar"),
        ("spark.submit.pyFiles", "Python file"),
        ("spark.files", "file"),
        ("spark.archives", "archive"),
    ):
        for item in filter(None, conf.get(key, "").split(",")):
            path = item.removeprefix("file://").removeprefix("local://").split("#")[0]
            if "://" not in path and not os.path.exists(path):
                raise NotFound(f"deps: there is no {what} {path} on this machine")


def write_properties(path: str, conf: dict[str, str]) -> None:
    """A properties file that only this user reads: it holds the application's secret."""
    lines = [f"{escaped(key, True)}={escaped(value, False)}\n" for key, value in sorted(conf.items())]
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as stream:
        stream.writelines(lines)


def escaped(text: str, key: bool) -> str:
    """Text as java.util.Properties reads it."""
    out = []
    for index, char in enumerate(text):
        if char in "\\" or (key and char in "=: #!") or (char == " " and index == 0):
            out.append("\\" + char)
        elif char in "\n\r\t":
            out.append({"\n": "\\n", "\r": "\\r", "\t": "\\t"}[char])
        elif " " <= char <= "~":
            out.append(char)
        else:
            units = char.encode("utf-16-be")
            out += [f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2)]
    return "".join(out)


def work_folder(environment: MutableMapping[str, str]) -> str:
    """A folder of this pod's own."""
    from .execute import _work_folder

    return _work_folder(environment)


# --- kind remote-spark -------------------------------------------------------------------------------------------------------------------


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
    if address.startswith("sc://"):
        check_connect(address)
        os.environ["SPARK_REMOTE"] = environment["SPARK_REMOTE"] = address
        return
    if not address.startswith("spark://"):
        raise InvalidArgument(f"'{address}' is no address of a Spark service: write spark://HOST:PORT or sc://HOST:PORT")
    found = jvm_environment(environment)
    find_java(environment, found["SPARK_HOME"])
    hosts = [part.rsplit(":", 1)[0] for part in address[len("spark://") :].split(",")]
    if all(host == "localhost" or host.startswith("127.") for host in hosts):
        found["SPARK_LOCAL_IP"] = environment.get("METIER_POD_IP") or "127.0.0.1"
    else:
        found.pop("SPARK_LOCAL_IP", None)  # the cluster must reach the driver
    found.pop("_SPARK_AUTH_SECRET", None)
    found["PYSPARK_SUBMIT_ARGS"] = f"--master {address} {environment.get('METIER_SPARK_SUBMIT_ARGS', '')} pyspark-shell"
    os.environ.update(found)


def check_connect(address: str) -> None:
    """Raises SparkMissing where the Connect client's packages are not installed."""
    names = {
        "grpc": "grpcio",
        "grpc_status": "grpcio-status",
        "google.rpc": "googleapis-common-protos",
        "pandas": "pandas<3",
        "pyarrow": "pyarrow",
    }
    missing = []
    for module, package in {"pyspark": "pyspark", **names}.items():
        try:
            found = find_spec(module)
        except (ImportError, ValueError):
            found = None
        if found is None:
            missing.append(package)
    if missing:
        raise SparkMissing(f"Spark Connect ({address}) needs packages that this run's environment lacks: {', '.join(missing)}")


# --- processes of their own --------------------------------------------------------------------------------------------------------------


def run_executor(environment: MutableMapping[str, str]) -> NoReturn:
    """Become one executor as soon as the driver listens."""
    start = read_start(environment)
    driver = environment.get("METIER_SPARK_DRIVER_ADDR") or "127.0.0.1"
    address = environment.get("METIER_POD_IP") or "127.0.0.1"
    options = f"--add-modules=jdk.incubator.vector {start.get('java_options') or ''}"
    words = java_command(environment, "info", str(start.get("memory") or "1g"), options, str(start.get("class_path") or ""))
    if shared_secret(environment):
        words.append("-Dspark.authenticate=true")
    words += [
        "org.apache.spark.executor.CoarseGrainedExecutorBackend",
        "--driver-url",
        f"spark://CoarseGrainedScheduler@{driver}:{DRIVER_PORT}",
    ]
    words += ["--executor-id", str(start["id"]), "--bind-address", address, "--hostname", address, "--cores", str(start.get("cores") or 1)]
    words += ["--app-id", str(start["app"]), "--resourceProfileId", "0"]
    wait_for_port(driver, DRIVER_PORT)
    os.chdir(work_folder(environment))
    os.execve(words[0], words, {**environment, **jvm_environment(environment)})


def wait_for_port(host: str, port: int) -> None:
    """Until somebody listens. The controller ends this pod when the driver is gone."""
    while True:
        try:
            socket.create_connection((host, port), timeout=5).close()
            return
        except OSError:
            time.sleep(0.05)


def run_program(environment: MutableMapping[str, str], program: str, arguments: list[str]) -> NoReturn:
    """Become the driver of a Java or Scala program."""
    start = read_start(environment)
    if "://" not in program and not os.path.isfile(program):
        raise NotFound(f"there is no jar {program} on this machine")
    words = driver_command(start, environment, work_folder(environment))
    if start.get("main_class"):
        words += ["--class", str(start["main_class"])]
    words += [program, *arguments]
    os.execve(words[0], words, {**environment, **jvm_environment(environment)})


def main(words: list[str]) -> int:
    """`executor`, or `driver FILE ARGS…`; on success another program runs in this process."""
    try:
        if words[:1] == ["executor"]:
            run_executor(os.environ)
        if words[:1] == ["driver"] and len(words) > 1:
            run_program(os.environ, words[1], words[2:])
    except (RunnerError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 5 if isinstance(error, SparkMissing) else 1
    print("usage: python -m metier_runner.spark executor | driver FILE [ARGS...]", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
