"""Spark inside pods: the driver's JVM beside the user's Python, executors, Java and Scala programs, sessions of other clusters.

``METIER_SPARK`` (JSON of the controller, src/cluster/controllers/spark) says which part of an application this pod is;
``METIER_SPARK_SERVICE`` names the cluster of kind remote-spark. The driver's JVM is the one that ``spark-submit`` would start, without
the script and the JVM that works out its command line; PySpark finds it by its own gateway variables.

    python -m metier_runner.spark executor               one executor towards METIER_SPARK_DRIVER_ADDR
    python -m metier_runner.spark driver FILE.jar ARGS   a Java or Scala program
    python -m metier_runner.spark connect                a warm Spark (spark_connect.py)
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import importlib
import json
import os
import pwd
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import MutableMapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NoReturn

from .errors import NotFound, RunnerError
from .failure import environment_name
from .spark_archive import Archive

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
# A reader of its pages that went away (the controller waits two seconds) is nothing to tell.
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
logger.pages.name = org.glassfish.jersey.server.ServerRuntime
logger.pages.level = off
logger.answers.name = org.glassfish.jersey.server.ServerRuntime$Responder
logger.answers.level = off
logger.shell.name = org.apache.spark.repl.Main
logger.shell.level = {level}
"""


class SparkMissing(RunnerError):
    """The engine, or the Java it needs, is not on this machine."""

    code = "EngineMissing"


class DependencyMissing(NotFound):
    """A jar, file or package that the application brings is not there."""

    code = "StartFailed"


class DriverLost(RunnerError):
    """The driver's JVM has ended although the application was not over. `status` is the process's, as Python gives it."""

    def __init__(self, status: int) -> None:
        self.code = "Killed" if status < 0 else "ExitCode"
        super().__init__(
            f"the driver's JVM was killed by signal {-status} ({signal.strsignal(-status)})"
            if status < 0
            else f"the driver's JVM ended by itself with exit code {status}: its lines above say why"
        )


# Of a part that is no driver: what the controller knows of its cause (connect_controller.cc).
EXIT_CODES: dict[type, int] = {SparkMissing: 5}


class Session:
    """The Spark of one run: begun before the user's code is imported, ended after its outputs are kept."""

    def __init__(self, environment: MutableMapping[str, str]) -> None:
        self._environment = environment
        self._gateway: subprocess.Popen[bytes] | None = None
        self._folder = ""
        self._conf: dict[str, Any] = {}
        self._words: list[str] = []
        self._archive: Archive | None = None

    def begin(self) -> None:
        """Start the driver's JVM, or point PySpark at the service. Raises SparkMissing and InvalidArgument."""
        if "METIER_SPARK" not in self._environment:
            from . import spark_connect

            warm = bool(self._environment.get(spark_connect.WARM))
            (spark_connect.use_warm if warm else spark_connect.use_service)(self._environment)
            return
        start = read_start(self._environment)
        self._conf = start.get("conf") or {}
        bring_modules(self._environment, str(self._conf.get("spark.submit.pyFiles", "")))
        self._folder = work_folder(self._environment)
        information = os.path.join(self._folder, "spark-gateway")
        words = [*driver_command(start, self._environment, self._folder), "pyspark-shell"]
        self._words = list(words)
        self._archive = archive_of(self._environment, "driver", words)
        words[1:1] = self._archive.options
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

    def loss(self, error: BaseException) -> RunnerError | None:
        """That the driver's JVM or the session's server is gone, where that is what `error` comes of: it knows no more than that nobody answers."""
        if isinstance(error, RunnerError):
            return None
        silence = _says_nobody_answers(error)
        # The JVM of a session at a standalone master is one that PySpark has started.
        jvm = self._gateway or getattr(getattr(_spark_context(), "_gateway", None), "proc", None)
        found: RunnerError | None
        if jvm is None:
            from . import spark_connect

            found = spark_connect.loss(self._environment, silence)
        else:
            # Its connections end a moment before its status can be had.
            with contextlib.suppress(subprocess.TimeoutExpired):
                jvm.wait(timeout=2 if silence else 0)
            found = DriverLost(jvm.returncode) if jvm.returncode else None
        return None if found is None else found.with_traceback(error.__traceback__)

    def share_modules(self, module: Any, source: str) -> None:
        """Let executors have what they cannot import: the functions of the user's file, and of the tree that a source archive
        was unpacked to in the driver. A warm Spark's have nothing of the file's folder either."""
        cloudpickle = sys.modules.get("pyspark.cloudpickle")
        if cloudpickle is None or (module is None and not source):
            return
        shared = [] if module is None else [module]
        if source:
            shared += [
                one
                for one in list(sys.modules.values())
                if os.path.realpath(str(getattr(one, "__file__", "") or "")).startswith(os.path.realpath(source) + os.sep)
            ]
        if self._environment.get("METIER_SPARK_WARM"):
            own = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
            paths = [os.path.dirname(getattr(module, "__file__", "") or ""), *self._environment.get("PYTHONPATH", "").split(os.pathsep)]
            folders = tuple(os.path.abspath(path) + os.sep for path in paths if path and os.path.abspath(path) != own)
            others = [other for other in list(sys.modules.values()) if str(getattr(other, "__file__", "") or "").startswith(folders)]
            shared += [other for other in others if other is not module and "site-packages" not in str(other.__file__)]
        for one in shared:
            with contextlib.suppress(Exception):
                cloudpickle.register_pickle_by_value(one)

    def end(self) -> None:
        """Stop the session that the user's code left, and the JVM. Executors hear of it and leave."""
        active = getattr(_spark_context(), "_active_spark_context", None)
        if active is not None:
            with contextlib.suppress(Exception):
                active.stop()
        if self._gateway is None:
            from . import spark_connect

            spark_connect.end_session()
            return
        assert self._gateway.stdin is not None
        with contextlib.suppress(OSError):
            self._gateway.stdin.close()
        try:
            self._gateway.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._gateway.kill()
            self._gateway.wait()
        if self._archive is not None:
            self._archive.keep(self._gateway.returncode)
        self._gateway = None

    def keep_events(self, context: Context) -> None:
        """Keep Spark's event log with the run: what the history server shows after the end."""
        if self._folder:
            keep_events(self._folder, context)

    def _wait_for(self, path: str) -> tuple[int, str]:
        assert self._gateway is not None
        while True:
            if self._gateway.poll() is not None:
                raise ended_early(self._gateway.returncode, self._conf, self._words)
            try:
                with open(path, "rb") as stream:
                    data = stream.read()
                port, length = struct.unpack(">ii", data[:8])
                if len(data) >= 8 + length:
                    return port, data[8 : 8 + length].decode()
            except (OSError, struct.error):
                pass
            time.sleep(0.01)


def _spark_context() -> Any:
    """PySpark's class, where the user's code has imported it."""
    return getattr(sys.modules.get("pyspark.core.context") or sys.modules.get("pyspark.context"), "SparkContext", None)


def _says_nobody_answers(error: BaseException | None) -> bool:
    while error is not None:
        kind = type(error)
        # A Py4JJavaError is one that the JVM has answered.
        if kind.__name__ in ("Py4JError", "Py4JNetworkError", "SparkConnectGrpcException", "RetriesExceeded"):
            return True
        if isinstance(error, (ConnectionError, EOFError)) or kind.__module__.split(".")[0] == "grpc":
            return True
        error = error.__cause__ or error.__context__
    return False


def keep_events(folder: str, context: Context) -> None:
    """Keep the event log that a driver has left in its work folder."""
    events = events_in(folder)
    for path in events:
        kept = path.removesuffix(".inprogress")
        if kept != path:  # the driver was killed: what it wrote is still worth reading
            os.replace(path, kept)
        context.log_artifact("spark-events", local_path=kept)


def events_in(folder: str) -> list[str]:
    """The event logs that a driver has begun."""
    events = os.path.join(folder, EVENTS)
    return [os.path.join(events, name) for name in sorted(os.listdir(events))] if os.path.isdir(events) else []


def ended_early(code: int, conf: dict[str, Any], words: list[str]) -> RunnerError:
    """Why a driver's JVM of that command line, which said no word, is gone."""
    if code < 0:
        return DriverLost(code)
    if missing_jars(conf) and takes_options(words):
        return packages_missing(conf)
    return RunnerError(f"Spark's driver ended before it began, exit code {code}: its lines above say why")


def packages_missing(conf: dict[str, Any]) -> DependencyMissing:
    return DependencyMissing(
        f"deps.packages could not be brought: {conf['spark.jars.packages']} (Spark's lines above name each place that was asked); without "
        "a network name the jars in deps.jars, or a folder that has them in spark.jars.ivy"
    )


def missing_jars(conf: dict[str, Any]) -> list[str]:
    """The packages of an application whose jar is not where Spark puts what it has brought, before it does anything else."""
    homes = {os.path.expanduser("~")}
    with contextlib.suppress(KeyError):
        homes.add(pwd.getpwuid(os.getuid()).pw_dir)  # Java's home
    own = str(conf.get("spark.jars.ivy") or "")
    folders = [own] if own else [found for home in homes for found in glob.glob(os.path.join(glob.escape(home), ".ivy2*"))]
    names = [name.strip() for name in str(conf.get("spark.jars.packages") or "").split(",") if name.strip()]
    return [name for name in names if not any(os.path.isfile(os.path.join(folder, "jars", jar_of(name))) for folder in folders)]


def jar_of(package: str) -> str:
    """Ivy's file of the package GROUP:NAME:VERSION, or GROUP/NAME:VERSION."""
    group, name, version = [*package.replace("/", ":").split(":"), "", "", ""][:3]
    return f"{group}_{name}-{version}.jar"


def takes_options(words: list[str]) -> bool:
    """Whether Java begins with the options of that command line."""
    line = [*words[: words.index("org.apache.spark.deploy.SparkSubmit")], "-version"]
    return subprocess.run(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False).returncode == 0


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
        raise SparkMissing(missing_packages("kind spark", ["pyspark==4.3.0", "pandas<3"]))
    return home


def missing_packages(what: str, packages: list[str]) -> str:
    """The sentence for an environment that lacks packages which `what` needs."""
    lines = ", ".join(f"'{package}'" for package in packages)
    return f"{what} needs {lines}, which {environment_name()} lacks: metier run --requirements FILE, with these as its lines"


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
    # One class path for all parts, as far as it goes: an archive is of a class path.
    parts = [os.path.join(home, "jars", "*"), cluster_manager(environment), class_path]
    words = [find_java(environment, home), "-cp", os.pathsep.join(filter(None, parts))]
    words += [f"-Xmx{memory.lower()}", "-XX:-UsePerfData", "-XX:+IgnoreUnrecognizedVMOptions"]
    words += [f"-Dlog4j2.configurationFile=file:{settings}", *(f"--add-opens=java.base/{name}=ALL-UNNAMED" for name in OPENED)]
    words += ["-Dio.netty.tryReflectionSetAccessible=true", "-Djdk.reflect.useDirectMethodHandle=false"]
    if environment.get("TMPDIR"):
        words.append(f"-Djava.io.tmpdir={environment['TMPDIR']}")
    return words + options.split()


def archive_of(environment: MutableMapping[str, str], part: str, words: list[str]) -> Archive:
    """The class-data archive of the JVM of `words`, below the folder that the controller named."""
    folder = environment.get("METIER_SPARK_ARCHIVES", "")
    return Archive(folder, part, words[0], java_version(words[0]), words[words.index("-cp") + 1])


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
    conf.setdefault("spark.eventLog.enabled", "true")
    place_events(conf, folder)
    conf["spark.metier.app.id"] = str(start["app"])
    conf["spark.driver.host"] = conf["spark.driver.bindAddress"] = address
    secret = shared_secret(environment)
    if secret:
        conf["spark.authenticate"] = "true"
        conf["spark.authenticate.secret"] = secret
    path = os.path.join(folder, "spark.properties")
    write_properties(path, conf)
    options = " ".join(filter(None, [str(start.get("java_options") or ""), conf.get("spark.driver.extraJavaOptions", "")]))
    words = java_command(environment, "warn", str(start.get("memory") or "1g"), options, conf.get("spark.driver.extraClassPath", ""))
    return [*words, "org.apache.spark.deploy.SparkSubmit", "--properties-file", path, "--conf", f"spark.driver.host={address}"]


def place_events(conf: dict[str, str], folder: str) -> None:
    """An event log that has no place of its own comes to a folder that is kept with the run. "True" is Python's form of "true"."""
    if conf.get("spark.eventLog.enabled", "").strip().lower() != "true" or conf.get("spark.eventLog.dir"):
        return
    os.makedirs(os.path.join(folder, EVENTS), exist_ok=True)
    conf["spark.eventLog.dir"] = f"file://{folder}/{EVENTS}"
    for key, value in (("overwrite", "true"), ("rolling.enabled", "false"), ("compress", "false")):
        conf.setdefault(f"spark.eventLog.{key}", value)


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
                raise DependencyMissing(f"deps: there is no {what} {path} on this machine: name a path that exists here")


def bring_modules(environment: MutableMapping[str, str], files: str) -> list[str]:
    """Put the Python files that an application brings on the path of its driver, before the user's code is imported, and return them:
    PySpark itself does so when there is a SparkContext. One from elsewhere is PySpark's alone. Raises DependencyMissing."""
    check_local({"spark.submit.pyFiles": files})
    local = [item.removeprefix("file://").removeprefix("local://") for item in files.split(",") if item]
    local = [os.path.abspath(item) for item in local if "://" not in item]
    path = [item for item in local if not item.endswith(".py")]
    if len(path) < len(local):  # of their folders nothing else is brought
        path.insert(0, os.path.join(work_folder(environment), "python-files"))
        os.makedirs(path[0], exist_ok=True)
        for item in local:
            if item.endswith(".py"):
                shutil.copy(item, path[0])
    if path:
        found = os.pathsep.join(filter(None, [*path, environment.get("PYTHONPATH", "")]))
        os.environ["PYTHONPATH"] = environment["PYTHONPATH"] = found
    return local


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
    archive = archive_of(environment, "executor", words)
    if start["id"] != "1":
        archive.use_only()
    words[1:1] = archive.options
    print(f"metier: executor {start['id']} waits for the driver of {start['app']}", file=sys.stderr, flush=True)
    wait_for_port(driver, DRIVER_PORT)
    os.chdir(work_folder(environment))
    become(words, {**environment, **jvm_environment(environment)}, archive)


def wait_for_port(host: str, port: int) -> None:
    """Until somebody listens. The controller ends this pod when the driver is gone."""
    while True:
        try:
            socket.create_connection((host, port), timeout=5).close()
            return
        except OSError:
            time.sleep(0.05)


def run_program(environment: MutableMapping[str, str], program: str, arguments: list[str]) -> int:
    """Run the driver of a Java or Scala program; its exit code, ended by a signal as it was. Raises DependencyMissing and SparkMissing."""
    start = read_start(environment)
    if "://" not in program and not os.path.isfile(program):
        raise DependencyMissing(f"there is no jar {program} on this machine: name a path that exists here")
    folder = work_folder(environment)
    words = driver_command(start, environment, folder)
    if start.get("main_class"):
        words += ["--class", str(start["main_class"])]
    words += [program, *arguments]
    archive = archive_of(environment, "driver", words)
    archive.use_only()
    code = run_below([words[0], *archive.options, *words[1:]], {**environment, **jvm_environment(environment)})
    conf = start.get("conf") or {}
    if code > 0 and not events_in(folder) and missing_jars(conf) and takes_options(words):
        raise packages_missing(conf)
    keep_events_of_program(folder, environment)
    return end_like(code)


def keep_events_of_program(folder: str, environment: MutableMapping[str, str]) -> None:
    """Keep the event log with a run whose program knows nothing of runs."""
    if not events_in(folder):
        return
    from .command import Options, make_sink, read_run
    from .context import Context

    with contextlib.suppress(OSError, RunnerError):
        run = read_run(Options(), environment)
        sink = make_sink(environment, run)
        try:
            keep_events(folder, Context(run, sink, environment=environment))
        finally:
            sink.close()


def run_below(words: list[str], environment: dict[str, str]) -> int:
    """Run a JVM to its end, which a SIGTERM asks for; its exit code as Python gives it."""
    jvm = subprocess.Popen(words, env=environment)
    signal.signal(signal.SIGTERM, lambda number, frame: jvm.terminate())
    return jvm.wait()


def end_like(code: int) -> int:
    """The exit code of a JVM, for its parent; where it was ended by a signal, so is this process."""
    if code < 0:
        if -code not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    return code & 0xFF


def become(words: list[str], environment: dict[str, str], archive: Archive) -> NoReturn:
    """Be that JVM; where it records its classes, its parent until it has ended."""
    if not archive.has_work:
        os.execve(words[0], words, environment)
    code = run_below(words, environment)
    archive.keep(code)
    sys.exit(end_like(code))


def tell(error: BaseException) -> None:
    """The run's failure, as the runner tells it: this process has no runner."""
    journal = os.environ.get("METIER_JOURNAL")
    if not journal:
        return
    from .failure import describe
    from .sinks import JournalSink

    with contextlib.suppress(OSError, RunnerError):
        sink = JournalSink(journal)
        sink.failure(describe(error))
        sink.close()


def main(words: list[str]) -> int:
    """`executor`, `driver FILE ARGS…`, `connect`; on success another program runs in this process or below it."""
    try:
        if words[:1] == ["executor"]:
            run_executor(os.environ)
        if words[:1] == ["driver"] and len(words) > 1:
            return run_program(os.environ, words[1], words[2:])
        if words[:1] in (["connect"], ["warm-up"]):
            from . import spark_connect

            return spark_connect.serve(os.environ) if words[0] == "connect" else spark_connect.warm_up(words[1])
    except (RunnerError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        if words[0] == "driver":
            tell(error)
        return EXIT_CODES.get(type(error), 1)
    print("usage: python -m metier_runner.spark executor | driver FILE [ARGS...] | connect", file=sys.stderr)
    return 2


if __name__ == "__main__":
    # By its own name: errors of a module called __main__ would be taken for the user's.
    from metier_runner.spark import main as main_of_module

    sys.exit(main_of_module(sys.argv[1:]))
