"""One run from its first record to its last: prepare the code, call it, keep its outputs, tell its end."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, MutableMapping
from typing import TYPE_CHECKING, Any, cast

from . import context as contexts
from .command import Options
from .context import Context
from .errors import InvalidArgument, NotFound, ProgramMissing, RunnerError
from .sinks import JsonDict, Sink, encode
from .values import short

if TYPE_CHECKING:
    from .spark import Session

MAX_CODE = 16 << 20


class Job:
    """What to run: the command line, the run dict, the environment. `clock` stamps the phases."""

    def __init__(
        self, options: Options, run: JsonDict, environment: MutableMapping[str, str], clock: Callable[[], float] = time.time
    ) -> None:
        self.options, self.run, self.environment, self.clock = options, run, environment, clock
        self.function: Callable[..., Any] | None = None  # called instead of what the options name
        self.context: Context | None = None  # after the end: the run as it was left, and what it raised
        self.error: BaseException | None = None
        self.echo: Callable[[str], None] | None = None  # takes the traceback where stderr is not the log
        self.spark: Session | None = None  # kinds spark and remote-spark
        self.root = ""  # folder that failures name their files relative to


class Phases:
    """Marks each phase once."""

    def __init__(self, sink: Sink, clock: Callable[[], float]) -> None:
        self._sink, self._clock = sink, clock
        self._seen: set[str] = set()
        self._marks = True

    def leave(self) -> None:
        """Mark nothing from here on."""
        self._marks = False

    def mark(self, name: str, at: float | None = None) -> None:
        if self._marks and name not in self._seen:
            self._seen.add(name)
            self._sink.phase(name, self._clock() if at is None else at)


def execute(job: Job, sink: Sink, started: float) -> int:
    """Run `job` and return the exit code. Outputs are in the sink before the state; the state before the last phase.

    Raises ServerError only when the sink's server cannot be told how the run ended.
    """
    phases = Phases(sink, job.clock)
    if job.environment.get("METIER_RANK", "0") != "0":
        phases.leave()  # the timeline is rank 0's
    phases.mark("start", started)
    cwd, path = os.getcwd(), list(sys.path)
    context: Context | None = None
    try:
        try:
            context = job.context = Context(job.run, sink, environment=job.environment)
            context.echo = job.echo
            context.announce(job.environment.get("METIER_POD_NAME") or os.uname().nodename)
            try:
                with _engine(job):
                    _run(job, context, phases)
            except BaseException as error:
                if (told := _explained(context, error)) is not error:
                    raise told from None
                raise
            finally:
                _leave_cluster(context)
            context.finish()
            code = 0
        except BaseException as error:
            job.error = error
            code = _failed(error, job, context, sink)
        phases.mark("end")
        return code
    finally:
        sys.path[:] = path
        try:
            os.chdir(cwd)
        except OSError:
            pass  # the user removed it


def _explained(context: Context, error: BaseException) -> BaseException:
    """What the engine of its kind knows better than the exception, or `error` itself."""
    if context._dask_client is None:
        return error
    from . import dask_cluster

    return dask_cluster.explained(context._dask_client, error)


def _leave_cluster(context: Context) -> None:
    if context._dask_client is not None:
        from . import dask_cluster

        dask_cluster.close(context._dask_client)


@contextlib.contextmanager
def _engine(job: Job) -> Iterator[None]:
    """The engine of kinds that have one, around the user's code; without one it costs a look at three variables."""
    if not any(job.environment.get(name) for name in ("METIER_SPARK", "METIER_SPARK_WARM", "METIER_SPARK_SERVICE")):
        yield
        return
    from .failure import keep_text
    from .spark import Session

    job.spark = Session(job.environment)
    try:
        job.spark.begin()
        yield
    except Exception as error:
        keep_text(error)  # Py4J asks the JVM for its errors' words, and `end` takes the JVM down
        lost = job.spark.loss(error)
        if lost is not None:
            raise lost from None
        raise
    finally:
        job.spark.end()
        if job.context is not None:
            with contextlib.suppress(OSError, RunnerError):
                job.spark.keep_events(job.context)


def _run(job: Job, context: Context, phases: Phases) -> None:
    task = Task(job, phases)
    spec = context._spec
    if spec.get("hyperparams") or spec.get("hyper_param_options") or spec.get("param_file"):
        from . import hyper

        plan = hyper.plan(context, job.options.handler)
        task.prepare()
        task.call(context) if plan is None else hyper.run(context, plan, task.call)
    else:
        task.prepare()
        task.call(context)
    phases.mark("upload")


def _failed(error: BaseException, job: Job, context: Context | None, sink: Sink) -> int:
    from . import failure

    code = failure.exit_code_of(error)
    if code == 0:  # sys.exit(0) is a good end
        if context is not None:
            context.finish()
        return 0
    failure.print_whole(error, context)
    body = failure.describe(error, context, job.root)
    if job.environment.get("METIER_RANK", "").isdigit():
        body.update(rank=int(job.environment["METIER_RANK"]), at=round(job.clock(), 6))
    if isinstance(error, IterationsFailed):
        body["type"] = ""  # no exception of the user's: its message is the whole sentence
    sink.failure(body)
    if context is not None:
        context.finish(error=context.error if isinstance(error, IterationsFailed) else failure.summary(body))
    return code


class IterationsFailed(RunnerError):
    """Some iterations failed; the run's own error text is set already."""

    code = "IterationsFailed"


class Task:
    """The code of a run: prepared once, called once per iteration."""

    def __init__(self, job: Job, phases: Phases) -> None:
        self._job, self._phases = job, phases
        self._options = job.options
        self._file = ""
        self._source_tree = ""  # where the run's source archive was unpacked
        self._args: list[str] = list(job.options.args)
        self._call: Callable[[Context], None] = self._call_main

    def prepare(self) -> None:
        """Fetch the source, unpack inline code, set the path, decide how to run; import the user's module."""
        options = self._options
        if self._job.function is not None:
            self._use(lambda _: cast("Callable[..., Any]", self._job.function))
            return
        code = self._job.environment.get("MLRUN_EXEC_CODE", "")
        if options.source and code:
            raise InvalidArgument("the run has inline code and a source archive, only one of them can be run")
        if options.source:
            self._source_tree = _source_tree(options.source, self._job.environment)
            os.chdir(_below(self._source_tree, options.workdir))
            self._job.root = os.getcwd()
        elif options.workdir:
            os.chdir(options.workdir)
        self._file = self._write_code(code) if code else ("" if options.command == "*" else options.command)
        if not self._file and not options.handler:
            raise InvalidArgument("the run has neither a file nor a handler to run")
        if options.mode != "pass":
            self._split_command()
        folder = os.path.dirname(os.path.abspath(self._file)) if self._file and "/" in self._file else os.getcwd()
        self._job.root = self._job.root or folder
        _extend_path([folder, os.getcwd(), *self._job.environment.get("PYTHONPATH", "").split(os.pathsep)])
        if "DASK_SCHEDULER_ADDRESS" in self._job.environment or self._names_cluster():
            from . import dask_cluster

            dask_cluster.user_code = (os.path.abspath(self._file) if self._file else "", folder)
            dask_cluster.handler = options.handler
        self._choose()

    def _names_cluster(self) -> bool:
        spec = self._job.run.get("spec") or {}
        return bool((spec.get("hyper_param_options") or {}).get("dask_cluster_uri"))

    def call(self, context: Context) -> None:
        """Run the code for one iteration. Raises what the code raises."""
        contexts._current.append(context)
        cwd = os.getcwd()
        try:
            self._call(context)
        finally:
            contexts._current.pop()
            if os.path.isdir(cwd):
                os.chdir(cwd)

    def _choose(self) -> None:
        from .program import is_python

        options = self._options
        if options.mode == "pass":
            self._call = self._call_program
        elif self._file.endswith(".so"):
            from .native import Library

            self._phases.mark("import")
            library = Library(self._file)
            library.check(options.handler)
            self._call = lambda context: self._user(lambda: library.call(options.handler, context))
        elif options.handler:
            self._load_handler()
        elif is_python(self._file):
            if not os.path.isfile(self._file):
                raise ProgramMissing(f"{short(self._file)}: no such file (looked in {os.getcwd()})")
            self._call = self._call_main
        else:
            self._call = self._call_program

    def _load_handler(self) -> None:
        from . import calling

        self._phases.mark("import")
        module = None
        if self._file:
            if not os.path.isfile(self._file):
                raise ProgramMissing(f"{short(self._file)}: no such file (looked in {os.getcwd()})")
            module = calling.load_file(self._file)
        handler = self._options.handler
        # Found once before the first iteration, so that a missing handler fails before anything else happens.
        probe = calling.find_handler(module, handler, {}) if "::" not in handler else None
        if self._job.spark is not None:
            self._job.spark.share_modules(module, self._source_tree)
        self._use(lambda context: probe or calling.find_handler(module, handler, context._parameters, context))

    def _use(self, find: Callable[[Context], Callable[..., Any]]) -> None:
        from . import calling

        def call(context: Context) -> None:
            function = find(context)
            positional, named = calling.bind(function, context)
            value = self._user(lambda: function(*positional, **named))
            self._after_call(context, value)

        self._call = call

    def _after_call(self, context: Context, value: Any) -> None:
        from .returns import log_returned

        if hasattr(value, "__await__"):
            import asyncio

            async def finish() -> Any:
                return await value

            value = asyncio.run(finish())
        if not context.iteration:
            self._phases.mark("upload")
        context.take_foreign()
        log_returned(context, value, list(context._spec.get("returns") or []))

    def _call_main(self, context: Context) -> None:
        from .program import run_as_main

        self._phases.mark("import")
        saved, main = sys.argv, sys.modules.get("__main__")
        try:
            run_as_main(self._file, self._filled(context), lambda: self._phases.mark("user"))
        except SystemExit as error:
            if error.code not in (None, 0):
                raise
        finally:
            sys.argv = saved
            if context.iteration and main is not None:
                sys.modules["__main__"] = main
        context.take_foreign()

    def _call_program(self, context: Context) -> None:
        from .program import fill, run_program

        words = self._file.split() if self._options.mode == "pass" and not os.path.exists(self._file) else [self._file]
        argv = [fill(word, context._parameters) for word in words] + self._filled(context)
        if not argv or not argv[0]:
            raise InvalidArgument("the run has no program to run (command is empty)")
        if "/" not in argv[0] and os.path.isfile(argv[0]):
            argv[0] = f"./{argv[0]}"
        meta = os.path.join(_work_folder(self._job.environment), f"meta-{os.getpid()}-{context.iteration}.json")
        environment = {**self._job.environment, "MLRUN_EXEC_CONFIG": encode(context.to_dict()).decode(), "MLRUN_META_TMPFILE": meta}
        environment.pop("MLRUN_EXEC_CODE", None)
        try:
            self._user(lambda: run_program(argv, environment))
        finally:
            _merge_meta(context, meta)

    def _user(self, call: Callable[[], Any]) -> Any:
        self._phases.mark("user")
        return call()

    def _filled(self, context: Context) -> list[str]:
        """Arguments with their placeholders filled; an argument that is no text of placeholders stays as it is."""
        from .program import fill

        if self._options.mode == "pass":
            return [fill(word, context._parameters) for word in self._args]
        return list(self._args)

    def _split_command(self) -> None:
        """A command may carry arguments (``train.py --fast``), split on plain white space as MLRun does."""
        if self._file and not os.path.exists(self._file) and len(self._file.split()) > 1:
            first, *rest = self._file.split()
            self._file, self._args = first, rest + self._args

    def _write_code(self, encoded: str) -> str:
        """Inline code as a file named like its origin, in a folder of our own: the user's files are never overwritten."""
        import base64
        import binascii

        try:
            code = base64.b64decode(encoded, validate=True)
            code.decode("utf-8")
        except (binascii.Error, UnicodeDecodeError, ValueError) as error:
            raise InvalidArgument(f"MLRUN_EXEC_CODE is not base64 of UTF-8 text: {error}") from None
        if len(code) > MAX_CODE:
            raise InvalidArgument(f"MLRUN_EXEC_CODE holds {len(code)} bytes, at most {MAX_CODE} are run")
        options = self._options
        stem = os.path.splitext(os.path.basename(options.origin_file))[0] or "main"
        suffix = ".py"
        if options.mode == "pass":
            suffix = os.path.splitext(options.origin_file)[1] or ".sh"
            if "{codefile}" not in options.command and suffix not in (".sh", ".bash"):
                raise InvalidArgument(f"mode pass with inline code: command {short(options.command)} must contain {{codefile}}")
        folder = os.path.join(_work_folder(self._job.environment), "code")
        os.makedirs(folder, exist_ok=True)
        path = os.path.join(folder, stem + suffix)
        # Ranks of one pod share the folder: none may read the file while another one writes it.
        whole = f"{path}.{os.getpid()}"
        with open(whole, "wb") as stream:
            stream.write(code)
        os.replace(whole, path)
        if options.mode == "pass":
            return options.command.replace("{codefile}", path) if "{codefile}" in options.command else path
        return path


def _source_tree(source: str, environment: MutableMapping[str, str]) -> str:
    """The tree of a run's source. Ranks of one pod share it: the first one fetches it, the others find it whole."""
    import fcntl

    from .source import fetch

    target = os.path.join(_work_folder(environment), "source")
    if "METIER_RANK" not in environment:
        return fetch(source, target)
    with open(f"{target}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return target if os.path.isdir(target) else fetch(source, target)


def _work_folder(environment: MutableMapping[str, str]) -> str:
    """A folder that this run may write: beside the journal in a pod, else a temporary one (removed at exit)."""
    journal = environment.get("METIER_JOURNAL", "")
    if journal and os.access(os.path.dirname(os.path.abspath(journal)), os.W_OK | os.X_OK):
        return os.path.dirname(os.path.abspath(journal))
    made = environment.get("METIER_RUNNER_TMP", "")
    if not made or not os.path.isdir(made):
        import atexit
        import shutil
        import tempfile

        made = environment["METIER_RUNNER_TMP"] = tempfile.mkdtemp(prefix="metier-run-")
        owner = os.getpid()
        atexit.register(lambda: shutil.rmtree(made, ignore_errors=True) if os.getpid() == owner else None)
    return made


def _extend_path(folders: list[str]) -> None:
    for folder in reversed([os.path.abspath(f) for f in folders if f]):
        if folder in sys.path:
            sys.path.remove(folder)
        sys.path.insert(0, folder)


def _below(folder: str, workdir: str) -> str:
    path = os.path.realpath(os.path.join(folder, workdir or "."))
    if workdir and not os.path.isabs(workdir) and not (path + "/").startswith(os.path.realpath(folder) + "/"):
        raise InvalidArgument(f"--workdir {short(workdir)} leaves the source tree")
    if not os.path.isdir(path):
        raise NotFound(f"--workdir {short(workdir)} is no folder of the source")
    return path


def _merge_meta(context: Context, path: str) -> None:
    """Take over what a program's own context wrote into MLRUN_META_TMPFILE."""
    try:
        with open(path, "rb") as stream:
            run = json.loads(stream.read(MAX_CODE))
        os.unlink(path)
    except (OSError, ValueError):
        return
    if isinstance(run, dict):
        context.merge(run)
