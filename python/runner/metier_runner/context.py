"""The context that user code receives: MLRun's methods, writing every output at once to a sink."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar, cast

from . import artifacts as art
from . import logging_of
from .errors import InvalidArgument, InvalidArgumentType, RunnerError
from .log import Logger
from .secrets import Secrets
from .sinks import JsonDict, Sink, encode
from .values import check_key, dotted, short, to_json

if TYPE_CHECKING:
    from .dataitem import DataItem

STATES = frozenset(("created", "pending", "running", "completed", "error", "aborting", "aborted", "unknown", "skipped", "pendingRetry"))
TERMINAL = frozenset(("completed", "error", "aborted", "skipped"))
_WHOLE_RESULTS = 512 * 1024  # commit() repeats all results in one record up to this size


class Context(logging_of.LoggingMethods):
    """One iteration of a run, as its code sees it.

    Made from the run dict of MLRUN_EXEC_CONFIG. Every logging method returns when the record is in the sink: a process
    killed right after loses nothing. May be used from several threads only with a lock of the caller's.
    """

    def __init__(self, run: JsonDict, sink: Sink, *, environment: Mapping[str, str] | None = None, parent: Context | None = None) -> None:
        self._environment = os.environ if environment is None else environment
        self.sink = sink
        self._parent = parent
        self._children: list[Context] = []
        metadata, spec, status = (dict(run.get(part) or {}) for part in ("metadata", "spec", "status"))
        self._metadata, self._spec = metadata, spec
        self.run_uid: str = str(metadata.get("uid") or _new_uid())
        self.name: str = str(metadata.get("name") or "run")
        self.project: str = str(metadata.get("project") or self._environment.get("MLRUN_DEFAULT_PROJECT") or "default")
        self.iteration: int = int(metadata.get("iteration") or metadata.get("iter") or 0)
        self.tag: str = str(metadata.get("tag") or "")
        self._labels: JsonDict = dict(metadata.get("labels") or {})
        self._own_labels: dict[str, str] = {}
        self._annotations: JsonDict = dict(metadata.get("annotations") or {})
        self._parameters: JsonDict = dict(spec.get("parameters") or {})
        self._inputs: dict[str, str] = {}
        self._type_hints: dict[str, str] = dict(spec.get("inputs_type_hints") or {})
        for key, url in (spec.get("inputs") or {}).items():
            name, colon, hint = (part.strip() for part in str(key).partition(":"))  # "key : type"
            self._inputs[name] = str(url)
            if colon and hint:
                self._type_hints.setdefault(name, hint)
        self.in_path: str = str(spec.get("input_path") or "")
        self.artifact_path: str = self._expand(
            str(spec.get("output_path") or self._environment.get("MLRUN_ARTIFACT_PATH") or "./artifacts")
        )
        self._results: JsonDict = dict(status.get("results") or {})
        self._artifacts: dict[str, art.Artifact] = {}
        self._artifact_uris: dict[str, str] = dict(status.get("artifact_uris") or {})
        self._iterations: list[list[Any]] = []
        self._state = "running"
        self._error = ""
        self._commit = ""
        self._closed = False
        self._outputs: list[str] = list(spec.get("outputs") or [])
        self._start_time: str = str(status.get("start_time") or art.timestamp())
        self._secrets: Secrets = parent._secrets if parent else Secrets(spec.get("secret_sources"), self._environment)
        self.echo: Callable[[str], None] | None = parent.echo if parent else None  # takes tracebacks where stderr is not the log
        self._dask_client: Any = None
        self._rank = _logging_rank(self._labels, self._environment)
        level = "debug" if spec.get("verbose") else str(spec.get("log_level") or self._environment.get("MLRUN_LOG_LEVEL") or "info")
        self.logger = Logger(level)

    # -- what the run is

    @property
    def uid(self) -> str:
        """The run's uid, with ``-<iteration>`` for child iterations."""
        return f"{self.run_uid}-{self.iteration}" if self.iteration else self.run_uid

    @property
    def dask_client(self) -> Any:
        """Kind dask: the client of the run's cluster, connected at the first use. Raises DaskUnavailable."""
        if self._dask_client is None and self._parent is not None:
            return self._parent.dask_client
        if self._dask_client is None:
            from . import dask_cluster

            self._dask_client = dask_cluster.connect(self, self._environment)
        return self._dask_client

    @dask_client.setter
    def dask_client(self, client: Any) -> None:
        self._dask_client = client

    @property
    def state(self) -> str:
        """running, completed, error or aborted: what the run is told as now."""
        return self._state

    @property
    def error(self) -> str:
        """The error that the run ends with, empty while there is none."""
        return self._error

    @property
    def log_level(self) -> str:
        """The level of `logger`: debug, info, warning or error."""
        return self.logger.level

    @property
    def parameters(self) -> JsonDict:
        """A copy of the parameters, by name."""
        return _copy(self._parameters)

    @property
    def results(self) -> JsonDict:
        """A copy of the results logged so far, by key."""
        return _copy(self._results)

    @property
    def labels(self) -> JsonDict:
        """A copy of the labels."""
        return _copy(self._labels)

    @property
    def annotations(self) -> JsonDict:
        """A copy of the annotations."""
        return _copy(self._annotations)

    @property
    def inputs(self) -> dict[str, str]:
        """The addresses of the inputs, by name."""
        return dict(self._inputs)

    @property
    def artifacts(self) -> list[JsonDict]:
        """A copy of the records of the artifacts logged so far."""
        return [_copy(item.record) for item in self._artifacts.values()]

    @property
    def out_path(self) -> str:
        """Where artifacts go; the same as `artifact_path`."""
        return self.artifact_path

    @property
    def node_selector(self) -> JsonDict:
        """A copy of the node selector that the run was submitted with."""
        return _copy(self._spec.get("node_selector") or {})

    @property
    def is_logging_worker(self) -> bool:
        """False on MPI ranks other than 0: they compute, rank 0 logs."""
        return self._rank == 0

    @property
    def rank(self) -> int:
        """This process's number in an MPI job, 0 to `size` - 1; 0 elsewhere."""
        return self._rank

    @property
    def size(self) -> int:
        """How many ranks the MPI job has; 1 elsewhere."""
        return _number(self._environment, ("METIER_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE"), 1)

    @property
    def local_rank(self) -> int:
        """This rank's number among those of its pod (its slot); 0 elsewhere."""
        return _number(self._environment, ("METIER_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID"), 0)

    # -- reading

    def get_param(self, key: str, default: Any = None) -> Any:
        """The parameter's value. An absent one takes the default, which is then part of the run."""
        if key not in self._parameters:
            self._parameters[key] = default
            if default:
                self._patch({dotted("spec.parameters", key): to_json(default, key, "parameter")})
            return default
        return self._parameters[key]

    def get_input(self, key: str, url: str = "") -> DataItem:
        """A data item for the input `key`; a relative address is below the run's input path."""
        url = url or self._inputs.get(key, "") or key
        if self.in_path and not ("://" in url or url.startswith("/")):
            url = f"{self.in_path.rstrip('/')}/{url}"
        if key not in self._inputs:
            self._inputs[key] = url
        return self.get_dataitem(url, key=key)

    def get_dataitem(self, url: str, secrets: JsonDict | None = None, *, key: str = "") -> DataItem:
        """The data item of any address; `secrets` come before those of the run. ValueError for an unknown scheme."""
        from .dataitem import DataItem

        return DataItem.of(url, key=key, secrets=lambda name: (secrets or {}).get(name) or self.get_secret(name), project=self.project)

    def get_secret(self, key: str, default: str | None = None) -> str | None:
        """A secret of the run by its key, else `default`."""
        return self._secrets.get(key, default)

    def mask(self, text: str) -> str:
        """`text` with every known secret replaced by as many asterisks."""
        return self._secrets.mask(text)

    def get_project_param(self, key: str, default: Any = None) -> Any:
        """A parameter of the project, else `default`; also without a server."""
        project = self.get_project_object() or {}
        return ((project.get("spec") or {}).get("params") or {}).get(key, default)

    def get_project_object(self) -> JsonDict | None:
        """The project as the server has it, or None without a server."""
        from .rest import Client

        client = Client.from_environment(self._environment)
        if client is None:
            return None
        found = client.json("GET", f"v1/projects/{self.project}")
        return found if isinstance(found, dict) else None

    def get_store_resource(self, url: str) -> JsonDict:
        """The record behind a ``store://`` address."""
        return self.get_dataitem(url).meta

    def get_notifications(self, unmask_secret_params: bool = False) -> list[JsonDict]:
        """A copy of the notifications that the run was submitted with."""
        return _copy(self._spec.get("notifications") or [])

    def artifact_subpath(self, *parts: str) -> str:
        """A path below `artifact_path`."""
        return os.path.join(self.artifact_path, *parts)

    # -- labels, state

    def set_label(self, key: str, value: Any, replace: bool = True) -> None:
        """Set a label; with `replace` off only when there is none of that key. Ranks other than 0 set nothing."""
        if not self.is_logging_worker or (not replace and key in self._labels):
            return
        self._label({check_key(key, "label"): str(value)})

    def set_annotation(self, key: str, value: Any, replace: bool = True) -> None:
        """Set an annotation; with `replace` off only when there is none of that key."""
        if not replace and key in self._annotations:
            return
        self._annotations[check_key(key, "annotation")] = str(value)
        self._patch({"metadata.annotations": self._annotations})

    def set_hostname(self, host: str) -> None:
        """Set the label `host`."""
        self._label({"host": host})

    def set_state(self, execution_state: str | None = None, error: str | None = None, commit: bool = True) -> None:
        """Set the state or an error. An error stays; after the end nothing changes any more (both are logged)."""
        if self._closed:
            self.logger.warning("the run has ended, its state is not changed", state=execution_state, error=error)
            return
        if execution_state is not None and execution_state not in STATES:
            raise InvalidArgument(f"state {short(execution_state)} is unknown, states are {', '.join(sorted(STATES))}")
        if error is not None:
            self._state, self._error = "error", str(error)
        elif execution_state and self._state == "error" and execution_state != "error":
            self.logger.warning("the run is in error, its state is not changed", state=execution_state)
            return
        elif execution_state:
            self._state = execution_state
        if commit:
            self._patch(self._state_changes())

    def commit(self, message: str = "", completed: bool = False) -> None:
        """Write everything again in one record; `completed` marks a running run as completed."""
        if self._closed:
            self.logger.warning("the run has ended, nothing is committed")
            return
        if completed and self._state == "running":
            self._state = "completed"
        if message:
            self._commit = str(message)
        for child in self._children:
            child.commit(completed=completed)
        if completed and self._standalone:
            self.finish()
            return
        self._patch({**self._everything(), **self._state_changes()})
        self._mirror()

    def store_run(self) -> None:
        """Store the whole run."""
        self.sink.store_run(self.to_dict(), self.iteration)

    def finish(self, error: str | None = None) -> None:
        """The last record of this iteration: outputs first, then the state. Called by the runner; later calls do nothing."""
        if self._closed:
            return
        if error is not None:
            self._state, self._error = "error", error
        elif self._state not in TERMINAL:
            self._state = "completed"
        self._patch({**self._everything(), **self._state_changes(final=True)})
        self._mirror()
        self._closed = True

    # -- children

    def get_child_context(self, with_parent_params: bool = False, **params: Any) -> Context:
        """A new iteration of this run with parameters of its own."""
        if self.iteration:
            raise RunnerError(f"iteration {self.iteration} is a child itself, make children from the run's own context")
        run = self.to_dict()
        run["metadata"]["iteration"] = self._forgotten + len(self._children) + 1
        parameters = {**self._parameters, **params} if with_parent_params else params
        run["spec"] = {**run["spec"], "parameters": dict(parameters)}
        for name in ("hyperparams", "hyper_param_options"):
            run["spec"].pop(name, None)
        run["status"] = {"state": "running"}
        child = Context(run, self.sink, environment=self._environment, parent=self)
        self._children.append(child)
        child.store_run()
        return child

    _forgotten = 0

    def forget_child(self) -> None:
        """Let the last child go (its number stays taken): a run of many iterations keeps only their summaries."""
        self._children.pop()
        self._forgotten += 1

    def mark_as_best(self) -> None:
        """Make this iteration's results and artifacts those of the run."""
        if not self._parent or not self.iteration:
            raise RunnerError("mark_as_best works on a child iteration only")
        self._parent._best = self.iteration

    _best = 0

    def update_child_iterations(self, best_run: int = 0, commit_children: bool = False, completed: bool = True) -> None:
        """Fold the children into this run's table of iterations and take over the best one's outputs."""
        from .hyper import summarize

        for child in self._children if commit_children else []:
            child.commit(completed=completed)
        if self._children:
            summarize(self, [child.to_dict(with_artifacts=True) for child in self._children], best=best_run or self._best)

    @property
    def children(self) -> list[Context]:
        """The child contexts made by `get_child_context`."""
        return list(self._children)

    # -- forms

    def to_dict(self, with_artifacts: bool = False) -> JsonDict:
        """The run as MLRun's dict."""
        metadata = {**self._metadata, "uid": self.run_uid, "name": self.name, "project": self.project, "iteration": self.iteration}
        metadata.update(labels=dict(self._labels), annotations=dict(self._annotations))
        spec = {**self._spec, "parameters": _plain(self._parameters, "parameter"), "inputs": dict(self._inputs)}
        spec.update(output_path=self.artifact_path, outputs=list(self._outputs))
        status: JsonDict = {"state": self._state, "results": _plain(self._results, "result"), "start_time": self._start_time}
        status.update(last_update=art.timestamp(), artifact_uris=dict(self._artifact_uris))
        for name, value in (("error", self._error), ("commit", self._commit), ("iterations", self._iterations)):
            if value:
                status[name] = value
        if with_artifacts:
            status["artifacts"] = [item.record for item in self._artifacts.values()]
        return {"kind": "run", "metadata": metadata, "spec": spec, "status": status}

    def __enter__(self) -> Context:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is not None:
            text = f"{type(error).__name__}: {error}"
            self.finish(error=text) if self._standalone else self.set_state(error=text)
        else:
            self.commit(completed=True)

    # -- for the runner

    def announce(self, host: str) -> None:
        """The first record: this run runs, here."""
        self._labels["host"] = self._own_labels["host"] = self._labels.get("host") or host
        self._patch({**self._label_changes(), "status.state": "running", "status.start_time": self._start_time})

    def _label(self, labels: dict[str, str]) -> None:
        self._labels.update(labels)
        self._own_labels.update(labels)
        self._patch({dotted("metadata.labels", key): value for key, value in labels.items()})

    def _label_changes(self) -> JsonDict:
        """The labels that this process set: the server may have added others meanwhile."""
        return {dotted("metadata.labels", key): value for key, value in self._own_labels.items()}

    _standalone = False  # no runner around this process will tell the end
    foreign: Any = None  # the mlrun package's context, when the user's code asked for that one

    def take_foreign(self) -> None:
        """Take over the outputs of the mlrun package's own context, which may have no server to send them to."""
        found = self.foreign
        runtimes = sys.modules.get("mlrun.runtimes.utils")
        if found is None and runtimes is not None:  # code that called mlrun.get_or_create_ctx itself
            holder: Any = getattr(runtimes, "global_context", None)
            found = holder.get() if hasattr(holder, "get") else None
        if found is not None and hasattr(found, "to_dict"):
            run = found.to_dict()
            if (run.get("metadata") or {}).get("uid", self.run_uid) == self.run_uid:
                self.merge(run)

    def merge(self, run: JsonDict) -> None:
        """Take over results, labels, annotations and artifact addresses of another process's view of this run."""
        status, metadata = run.get("status") or {}, run.get("metadata") or {}
        results = {key: value for key, value in (status.get("results") or {}).items() if self._results.get(key) != value}
        if results:
            self.log_results(results)
        told = {str(key): str(value) for key, value in (metadata.get("labels") or {}).items() if key not in ("host", "kind", "owner")}
        labels = {key: value for key, value in told.items() if self._labels.get(key) != value}
        if labels:
            self._label(labels)
        notes = {str(key): str(value) for key, value in (metadata.get("annotations") or {}).items()}
        if {**self._annotations, **notes} != self._annotations:
            self._annotations.update(notes)
            self._patch({"metadata.annotations": self._annotations})
        uris = {key: uri for key, uri in (status.get("artifact_uris") or {}).items() if self._artifact_uris.get(key) != uri}
        if uris:
            self._artifact_uris.update(uris)
            self._patch({"status.artifact_uris": self._artifact_uris})

    def _patch(self, changes: JsonDict) -> None:
        if self._closed:
            raise RunnerError("the run has ended, nothing can be logged any more")
        if not self.is_logging_worker:  # rank 0 tells how the run goes, another rank only that it failed
            changes = {
                name: value for name, value in changes.items() if name == "status.error" or (name, value) == ("status.state", "error")
            }
            if not changes:
                return
        self.sink.patch_run({**changes, "status.last_update": art.timestamp()}, self.iteration)

    def _state_changes(self, final: bool = False) -> JsonDict:
        if self._state == "error":
            return {"status.error": self._error, "status.state": "error"}
        # A completed state is told only at the end: until then the process may still fail. Ranks never tell it.
        if self._state == "completed" and (not final or self._labels.get("kind") == "mpijob"):
            return {}
        return {"status.state": self._state}

    def _everything(self) -> JsonDict:
        changes: JsonDict = {
            **self._label_changes(),
            "metadata.annotations": self._annotations,
            "spec.parameters": _plain(self._parameters, "parameter"),
            "spec.inputs": self._inputs,
            "spec.outputs": self._outputs,
            "status.start_time": self._start_time,
            "status.results": _plain(self._results, "result"),
            "status.artifact_uris": self._artifact_uris,
        }
        if self._iterations:
            changes["status.iterations"] = self._iterations
        if self._commit:
            changes["status.commit"] = self._commit
        # Each was sent when it was logged: what would make the record too large is left out here.
        size = len(encode(changes))
        for name in (
            "status.results",
            "spec.parameters",
            "status.iterations",
            "status.artifact_uris",
            "spec.inputs",
            "metadata.annotations",
        ):
            if size > _WHOLE_RESULTS and name in changes:
                size -= len(encode(changes.pop(name)))
        return changes

    def _mirror(self) -> None:
        """MLRUN_META_TMPFILE: the run dict for the process that started this one."""
        path = self._environment.get("MLRUN_META_TMPFILE", "")
        if path and not self.iteration:
            from .files import write_file

            write_file(path, encode(self.to_dict(with_artifacts=True)))

    def _expand(self, text: str) -> str:
        for name, value in (("run.uid", self.run_uid), ("project", self.project), ("run.user", str(self._labels.get("owner", "")))):
            text = text.replace("{{" + name + "}}", value)
        return text


_current: list[Context] = []  # the runner's context, for get_or_create_ctx of the code it runs


def get_or_create_ctx(name: str = "", event: Any = None, spec: JsonDict | None = None, with_env: bool = True, **_: Any) -> Context:
    """The context of the run that this process belongs to.

    Without one a new run begins: recorded at the server of METIER_SERVER or MLRUN_DBPATH, else kept in memory. It ends with
    ``commit(completed=True)`` or with the ``with`` statement.
    """
    if _current and event is None and spec is None:
        return _current[-1]
    import json

    from .command import make_sink

    run: Any = spec
    if run is None and event is not None:
        body = getattr(event, "body", event)
        run = json.loads(body) if isinstance(body, (str, bytes)) and body else body
    config = os.environ.get("MLRUN_EXEC_CONFIG", "") if with_env else ""
    if not run and config:
        run = json.loads(config)
    if run is not None and not isinstance(run, dict):
        raise InvalidArgumentType(f"spec must be a run's dict, not {type(run).__name__}")
    run = run or {"metadata": {"name": name or os.path.basename(sys.argv[0] or "run"), "labels": {"kind": "local"}}}
    if name and not (run.get("metadata") or {}).get("name"):
        run.setdefault("metadata", {})["name"] = name
    if not (run.get("metadata") or {}).get("uid"):
        run.setdefault("metadata", {})["uid"] = _new_uid()
    context = Context(run, make_sink(os.environ, run))
    if not config:
        context._standalone = True
        context.store_run()
    return context


def _new_uid() -> str:
    return os.urandom(16).hex()


_T = TypeVar("_T")


def _copy(value: _T) -> _T:
    made: Any = value
    if isinstance(value, dict):
        made = {key: _copy(item) for key, item in value.items()}
    elif isinstance(value, list):
        made = [_copy(item) for item in value]
    return cast("_T", made)


def _plain(values: JsonDict, what: str) -> JsonDict:
    return {str(key): to_json(value, str(key), what) for key, value in values.items()}


def _logging_rank(labels: JsonDict, environment: Mapping[str, str]) -> int:
    if labels.get("kind") != "mpijob" and not environment.get("METIER_RANK"):
        return 0
    rank = _number(environment, ("METIER_RANK", "OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK"), -1)
    if rank >= 0:
        return rank
    host = environment.get("METIER_POD_NAME") or str(labels.get("host") or os.uname().nodename)
    tail = host.rsplit("-", 1)[-1]
    return int(tail) if tail.isdigit() else 0


def _number(environment: Mapping[str, str], names: tuple[str, ...], default: int) -> int:
    return next((int(environment[name]) for name in names if environment.get(name, "").isdigit()), default)
