"""Functions: what is run, in which kind, with which environment, resources and volumes.

The methods are MLRun's, with its names, results and corner cases; the work is done by the C++ object model.
"""

from __future__ import annotations

import copy
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import _core
from .deploy import Deployable
from .live import LiveDict, Section, plain
from .serving_methods import ServingMethods
from .settings import setting
from .spark import SparkMethods

if TYPE_CHECKING:
    from .runs import RunObject


class Function(ServingMethods, Deployable, SparkMethods):  # type: ignore[override]
    """One function. Make one with :func:`new_function`, :func:`code_to_function` or :func:`import_function`.

    Examples
    --------
    >>> import metier
    >>> fn = metier.new_function("trainer", kind="job", image="python", command="train.py")
    >>> fn.spec.replicas = 4
    >>> fn.with_limits(mem="2G", cpu="2")
    >>> fn.set_env("A", 1).get_env("A")
    '1'
    """

    def __init__(self, core: _core.Function | None = None) -> None:
        self._document = core if core is not None else _core.Function()
        self._handler: Callable[..., Any] | None = None

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Function:
        """A function from MLRun's document ``{kind, metadata, spec}``; fields that are not known are kept."""
        return cls(_core.Function.from_dict(document))

    # --- the document ------------------------------------------------------------------------------------------

    @property
    def kind(self) -> str:
        """``"job"``, ``"local"``…; ``"remote"`` for nuclio."""
        return self._core.kind

    @property
    def metadata(self) -> Any:
        """A live view: name, project, tag, labels, annotations, categories."""
        return Section(self._core, ("metadata",))

    @metadata.setter
    def metadata(self, value: Mapping[str, Any]) -> None:
        self._core.assign(("metadata",), plain(value))

    @property
    def spec(self) -> Any:
        """A live view of the C++ object: image, command, env, volumes, resources, replicas…"""
        return self._spec_view(self._core)

    @spec.setter
    def spec(self, value: Mapping[str, Any]) -> None:
        self._graph = None
        self._core.assign(("spec",), plain(value))

    @property
    def status(self) -> Any:
        """A live view: state, and what a deployment reports."""
        return Section(self._core, ("status",))

    @property
    def name(self) -> str:
        """The function's name."""
        return self._core.name

    @property
    def uri(self) -> str:
        """``project/name[@hash|:tag]``."""
        return _core.function_uri(
            self.metadata.project or "", self.name, self.metadata.tag or "", self.metadata.hash or ""
        )

    def to_dict(self, strip: bool = False) -> dict[str, Any]:
        """MLRun's document; stripped of what belongs to this environment on request."""
        return self._core.to_export() if strip else self._core.to_dict()

    def to_json(self, strip: bool = False) -> str:
        """The document as JSON text."""
        return self._core.export_text(".json", strip)

    def to_yaml(self, strip: bool = False) -> str:
        """The document as YAML text."""
        return self._core.export_text(".yaml", strip)

    def copy(self) -> Function:
        """An independent copy."""
        other = Function.from_dict(self._core.document())
        other._graph = copy.deepcopy(self._graph)
        other._handler = self._handler
        return other

    def export(self, target: str | os.PathLike[str] = "", format: str = ".yaml", strip: bool = True) -> Function:
        """Writes ``function.yaml`` (or ``.json``).

        Parameters
        ----------
        target : path
            The file, default ``function.yaml`` in the current folder.
        format : str
            ``".yaml"`` or ``".json"``; a target that ends so decides.
        strip : bool
            Leave out what belongs to this environment: project, labels, volumes, resources…
        """
        path = Path(target or f"function{format}")
        text = self._core.export_text(path.suffix if path.suffix in (".json", ".yaml") else format, strip)
        path.write_text(text, encoding="utf-8")
        return self

    def validate(self) -> list[str]:
        """Raises InvalidError with everything that is wrong; returns warnings (unknown fields, with the nearest known)."""
        return self._core.validate()

    # --- environment -------------------------------------------------------------------------------------------

    def set_env(self, name: str, value: Any = None, value_from: Any = None) -> Function:
        """Sets a variable: in its place when there is one of that name. The value becomes text."""
        self._core.set_env(name, value, plain(value_from))
        return self

    def set_envs(
        self, env_vars: Mapping[str, Any] | None = None, file_path: str | os.PathLike[str] | None = None
    ) -> Function:
        """Sets variables from a mapping or from a dotenv file, exactly one of both."""
        texts = None if env_vars is None else {str(k): v if isinstance(v, str) else str(v) for k, v in env_vars.items()}
        self._core.set_envs(texts, None if file_path is None else os.fspath(file_path))
        return self

    def set_env_from_secret(self, name: str, secret: str | None = None, secret_key: str | None = None) -> Function:
        """A variable whose value stays in a secret of the project."""
        self._core.set_env_from_secret(name, secret or "", secret_key or "")
        return self

    def set_env_from_secret_ref(self, secret_name: str) -> Function:
        """Every key of a secret of the project as a variable."""
        self._core.set_env_from_secret_ref(secret_name)
        return self

    def get_env(self, name: str, default: Any = None) -> Any:
        """The variable's text, or its source when it comes from a secret."""
        found = self._core.get_env(name)
        return default if found is None else found[0]

    def is_env_exists(self, name: str) -> bool:
        """True when a variable of that name is set."""
        return self._core.get_env(name) is not None

    # --- resources ---------------------------------------------------------------------------------------------

    def with_limits(
        self,
        mem: Any = None,
        cpu: Any = None,
        gpus: Any = None,
        gpu_type: str = "nvidia.com/gpu",
        patch: bool = False,
    ) -> None:
        """Limits of the main container. Without ``patch`` they replace all earlier ones, a GPU included."""
        self._core.with_limits(mem, cpu, gpus, gpu_type, patch, "")

    def with_requests(self, mem: Any = None, cpu: Any = None, patch: bool = False) -> None:
        """Requests of the main container, for the scheduler."""
        self._core.with_requests(mem, cpu, patch, "")

    def gpus(self, gpus: Any, gpu_type: str = "nvidia.com/gpu") -> None:
        """Sets the number of GPUs; other limits stay."""
        self._core.gpus(gpus, gpu_type)

    def with_worker_limits(
        self, mem: Any = None, cpu: Any = None, gpus: Any = None, gpu_type: str = "nvidia.com/gpu", patch: bool = False
    ) -> None:
        """dask: limits of each worker."""
        self._core.with_limits(mem, cpu, gpus, gpu_type, patch, self._role("worker", "dask"))

    def with_scheduler_limits(
        self, mem: Any = None, cpu: Any = None, gpus: Any = None, gpu_type: str = "nvidia.com/gpu", patch: bool = False
    ) -> None:
        """dask: limits of the scheduler."""
        self._core.with_limits(mem, cpu, gpus, gpu_type, patch, self._role("scheduler", "dask"))

    def with_worker_requests(self, mem: Any = None, cpu: Any = None, patch: bool = False) -> None:
        """dask: requests of each worker."""
        self._core.with_requests(mem, cpu, patch, self._role("worker", "dask"))

    def with_scheduler_requests(self, mem: Any = None, cpu: Any = None, patch: bool = False) -> None:
        """dask: requests of the scheduler."""
        self._core.with_requests(mem, cpu, patch, self._role("scheduler", "dask"))

    # --- kind dask ---------------------------------------------------------------------------------------------

    @property
    def client(self) -> Any:
        """dask: a ``distributed.Client`` of the function's cluster, started when it does not run."""
        from . import dask

        return dask.client_of(self)

    def cluster(self) -> Any:
        """dask: the ``cluster`` of :attr:`client`: None for one in pods, which its server scales; with ``remote`` false the
        ``LocalCluster`` of this process.
        """
        return self.client.cluster

    @property
    def initialized(self) -> bool:
        """dask: whether the function's cluster is known to have been started."""
        return self.kind == "dask" and bool(self.status.scheduler_address)

    def close(self, running: bool = True) -> None:
        """dask: end the function's cluster; the next use starts another."""
        from . import dask

        dask.close(self)

    def get_status(self) -> str:
        """dask: phase of the scheduler, ``"running"`` when the cluster can be used, ``""`` when there is none."""
        from . import dask

        dask._check_kind(self)
        return dask._phase(self)

    def _role(self, role: str, kind: str) -> str:
        if self.kind != kind:
            from .errors import make_error

            raise make_error(
                "unsupported", f"kind '{self.kind}' has no {role}s", field="kind", fix=f"it is for kind {kind}"
            )
        return f"{role}_resources"

    # --- mpijob --------------------------------------------------------------------------------------------------

    def set_mpi_args(self, args: Sequence[str]) -> None:
        """mpijob: the words between ``mpirun`` and the program, for example ``["-x", "NCCL_DEBUG=INFO"]``.

        Raises InvalidError unless it is a list of texts. What the MPI of the environment does not know is refused by name
        when the run starts.
        """
        self._core.set_mpi_args(args)

    def with_tracing(self, log_file_path: str | None = None, enable_cycle_markers: bool = False) -> None:
        """mpijob: Horovod writes its timeline. A relative path, as the default ``hvd_logs/trace.log``, is below the run's artifact path."""
        self._core.with_tracing(log_file_path or "", enable_cycle_markers)

    def with_autotune(
        self,
        log_file_path: str | None = None,
        warmup_samples: int | None = None,
        steps_per_sample: int | None = None,
        bayes_opt_max_samples: int | None = None,
        gaussian_process_noise: float | None = None,
    ) -> None:
        """mpijob: Horovod tunes itself and logs that, by default to ``hvd_logs/autotune.csv`` below the run's artifact path."""
        self._core.with_autotune(
            log_file_path or "", warmup_samples, steps_per_sample, bayes_opt_max_samples, gaussian_process_noise
        )

    # --- placement and pod settings ----------------------------------------------------------------------------

    def with_annotations(self, annotations: Mapping[str, Any]) -> Function:
        """Adds annotations to the function and its pods."""
        self._core.with_annotations({str(k): str(v) for k, v in annotations.items()})
        return self

    def set_label(self, key: str, value: Any) -> Function:
        """Sets a label."""
        self._core.assign(("metadata", "labels", key), str(value))
        return self

    def set_image_pull_configuration(
        self, image_pull_policy: str | None = None, image_pull_secret_name: str | None = None
    ) -> None:
        """``Always``, ``IfNotPresent`` or ``Never``, and the secret of the registry; None leaves the old value."""
        self._core.set_image_pull_configuration(image_pull_policy or "", image_pull_secret_name or "")

    def set_state_thresholds(self, state_thresholds: Mapping[str, str | None], patch: bool = True) -> None:
        """How long a run may be pending or executing before it is aborted: ``{"executing": "2h"}``."""
        self._core.set_state_thresholds(dict(state_thresholds), patch)

    def with_node_selection(
        self,
        node_name: str | None = None,
        node_selector: Mapping[str, str] | None = None,
        affinity: Any = None,
        tolerations: Any = None,
    ) -> None:
        """Where pods may run. Each given value replaces the stored one."""
        said = self._core.with_node_selection(node_name or "", node_selector, plain(affinity), plain(tolerations))
        for line in said:
            warnings.warn(f"{line}: pods with it will be refused", stacklevel=2)

    def with_priority_class(self, name: str, valid: Sequence[str] | None = None) -> None:
        """The priority class of pods, one of those that the site allows.

        On the embedded cluster ``igz-workload-high`` is first in the queue and ``igz-workload-low`` last.
        """
        self._core.with_priority_class(name, None if valid is None else list(valid))

    def with_preemption_mode(self, mode: str) -> None:
        """``allow``, ``constrain``, ``prevent`` or ``none``."""
        self._core.with_preemption_mode(str(getattr(mode, "value", mode)))

    def with_security_context(self, security_context: Any) -> None:
        """User and group of the pod, as Kubernetes' object or its dict."""
        self._core.with_security_context(plain(security_context))

    # --- volumes -----------------------------------------------------------------------------------------------

    def add_volume(self, volume: Any, mount: Any) -> Function:
        """A volume and its mount; a volume of the same name and a mount of the same path are replaced."""
        self._core.add_volume(plain(volume), plain(mount))
        return self

    def apply(self, modifier: Callable[[Function], Any]) -> Function:
        """Applies a modifier of :mod:`metier.mounts`, or any callable that takes the function."""
        modifier(self)
        return self

    # --- code and build ----------------------------------------------------------------------------------------

    def with_code(
        self, from_file: str | os.PathLike[str] = "", body: str | None = None, with_doc: bool = True
    ) -> Function:
        """Takes the source along, from a file or a text."""
        self._core.with_code(os.fspath(from_file) or None, body, with_doc)
        return self

    def with_requirements(
        self,
        requirements: Sequence[str] | None = None,
        overwrite: bool = False,
        prepare_image_for_deploy: bool = True,
        requirements_file: str | os.PathLike[str] | None = "",
    ) -> Function:
        """Packages that the environment must have; comments and doubles are dropped."""
        if isinstance(requirements, str):  # MLRun once took a file name here
            requirements, requirements_file = None, requirements
        self._core.with_requirements(list(requirements or ()), os.fspath(requirements_file or "") or None, overwrite)
        if prepare_image_for_deploy:
            self._core.prepare_image_for_deploy()
        return self

    def with_commands(
        self, commands: Sequence[str], overwrite: bool = False, prepare_image_for_deploy: bool = True
    ) -> Function:
        """Shell commands that prepare the environment."""
        self._core.with_commands(commands, overwrite)
        if prepare_image_for_deploy:
            self._core.prepare_image_for_deploy()
        return self

    def with_source_archive(
        self,
        source: str,
        workdir: str | None = None,
        handler: str | None = None,
        pull_at_runtime: bool = True,
        target_dir: str | None = None,
    ) -> None:
        """The code comes from a git URL, a .zip or a .tar.gz."""
        self._core.with_source_archive(source, workdir or "", handler or "", pull_at_runtime, target_dir or "")

    def requires_build(self) -> bool:
        """True when something must be built on the image before it can run."""
        return self._core.requires_build()

    # --- running -----------------------------------------------------------------------------------------------

    def run(
        self,
        runspec: Mapping[str, Any] | RunObject | None = None,
        handler: str | Callable[..., Any] | None = None,
        name: str = "",
        project: str = "",
        params: Mapping[str, Any] | None = None,
        inputs: Mapping[str, str] | None = None,
        out_path: str = "",
        artifact_path: str = "",
        workdir: str = "",
        watch: bool = True,
        local: bool | None = None,
        hyperparams: Mapping[str, Any] | None = None,
        hyper_param_options: Mapping[str, Any] | None = None,
        labels: Mapping[str, str] | None = None,
        returns: Sequence[Any] | None = None,
        verbose: bool | None = None,
        state_thresholds: Mapping[str, str] | None = None,
        retry: Mapping[str, Any] | int | None = None,
        **spec: Any,
    ) -> RunObject:
        """Runs the function and returns the run.

        Parameters
        ----------
        runspec : dict
            A run document to start from.
        handler : str or callable
            The function to call, by name or itself.
        params, inputs : dict
            Values by parameter name; inputs are URLs or paths.
        local : bool
            True: in this process, whatever the kind. None: kinds handler and local run here, others on the cluster.
        workdir : str
            The folder that the run works in, and in which relative inputs are looked up.
        watch : bool
            Follow the log and wait for the end; a failed run raises.
        hyperparams, hyper_param_options : dict
            Lists of values by parameter; ``{"strategy": "grid", "selector": "max.accuracy"}``.

        Returns
        -------
        RunObject
            ``run.outputs["accuracy"]``, ``run.logs()``.

        Raises
        ------
        InvalidError, UserCodeError, ExhaustedError, UnavailableError
        """
        from .launch import launch

        return launch(
            self,
            runspec,
            handler if handler is not None else self._handler,
            local=local,
            watch=watch,
            name=name,
            project=project,
            fields={
                "parameters": params,
                "inputs": inputs,
                "output_path": out_path or artifact_path,
                "hyperparams": hyperparams,
                "hyper_param_options": hyper_param_options,
                "returns": None if returns is None else list(returns),
                "verbose": verbose,
                "state_thresholds": state_thresholds,
                "retry": {"count": retry} if isinstance(retry, int) else retry,
                **spec,
            },
            labels=labels,
            workdir=workdir,
        )

    def save(self, tag: str = "", versioned: bool = True) -> str:
        """Stores the function on the server and returns its hash."""
        from .launch import store_function

        return store_function(self, tag, versioned)

    def doc(self) -> None:
        """Prints the documented handlers."""
        for name, entry in self.spec.entry_points.items():
            parameters = ", ".join(p.get("name", "") for p in entry.get("parameters", []))
            print(f"{name}({parameters})\n    {entry.get('doc', '')}")

    def __repr__(self) -> str:
        image = self.spec.image
        return f"Function({self.name} {self.kind or 'local'}{' ' + str(image) if image else ''})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Function) and self.to_dict() == other.to_dict()

    __hash__ = None  # type: ignore[assignment]


def _project(project: str) -> str:
    return project or setting("project")


def new_function(
    name: str = "",
    project: str = "",
    tag: str = "",
    kind: str = "",
    command: str | Callable[..., Any] = "",
    image: str = "",
    args: Sequence[str] | None = None,
    runtime: Mapping[str, Any] | Function | None = None,
    mode: str | None = None,
    handler: str | Callable[..., Any] | None = None,
    source: str = "",
    requirements: Sequence[str] | None = None,
    requirements_file: str | os.PathLike[str] = "",
) -> Function:
    """Makes a function from its parts.

    Parameters
    ----------
    name : str
        Normalised to lower case and dashes; default from the command.
    kind : str
        One of :func:`kinds`. Empty: local with a command, handler without.
    command : str
        The file or program, or a URL.
    mode : str
        ``"pass"`` runs the command as it is.

    Raises
    ------
    InvalidError
        Unknown kind (with the nearest), a name that is none, an image for a local kind.

    Examples
    --------
    >>> import metier
    >>> metier.new_function("My Job", kind="job", image="python").name
    'my-job'
    """
    called = handler if callable(handler) else command if callable(command) else None
    if called is not None and not name:
        name = getattr(called, "__name__", "").replace("<lambda>", "handler")
    core = _core.new_function(
        name,
        _project(project),
        tag,
        kind,
        "" if callable(command) else command,
        image,
        [str(item) for item in args or ()],
        runtime.to_dict() if isinstance(runtime, Function) else None if runtime is None else dict(runtime),
        mode or "",
        "" if callable(handler) or handler is None else handler,
        source,
        list(requirements or ()),
        os.fspath(requirements_file) or None,
    )
    function = Function(core)
    function._handler = called
    return function


def code_to_function(
    name: str = "",
    project: str = "",
    tag: str = "",
    filename: str | os.PathLike[str] = "",
    handler: str = "",
    kind: str = "",
    image: str | None = None,
    code_output: str = "",
    embed_code: bool = True,
    description: str = "",
    requirements: Sequence[str] | None = None,
    categories: Sequence[str] | None = None,
    labels: Mapping[str, str] | None = None,
    with_doc: bool = True,
    ignored_tags: str | None = None,
    requirements_file: str | os.PathLike[str] = "",
) -> Function:
    """Makes a function from a ``.py`` file or a notebook; the code travels with it.

    Notebook cells between ``# mlrun: start-code`` and ``# mlrun: end-code`` are kept, those with ``# mlrun: ignore`` are not;
    ``%nuclio cmd|env|config`` become build commands, environment and configuration.
    """
    return Function(
        _core.code_to_function(
            name,
            _project(project),
            tag,
            os.fspath(filename),
            handler,
            kind,
            image or "",
            code_output,
            embed_code,
            description,
            list(requirements or ()),
            os.fspath(requirements_file) or None,
            list(categories or ()),
            dict(labels or {}),
            with_doc,
            [word for word in (ignored_tags or "").split(";") if word],
        )
    )


def import_function(url: str | os.PathLike[str] = "", project: str = "", new_name: str = "") -> Function:
    """Reads a function: ``function.yaml``, ``.json``, a ``.py`` file, or ``db://project/name[:tag]`` of the server.

    An MPIJob document becomes a function of kind mpijob; what in it has no effect is warned of.
    """
    text = os.fspath(url)
    if text.startswith("db://"):
        from .launch import fetch_function

        function = fetch_function(text, _project(project))
        if new_name:
            function._core.name = new_name
        return function
    read, said = _core.import_function(text, _project(project), new_name)
    for line in said:
        warnings.warn(line, stacklevel=2)
    return Function(read)


def function_to_module(code: str | os.PathLike[str]) -> Any:
    """The Python file as an imported module, for tests of its functions."""
    import importlib.util

    path = Path(code)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        from .errors import make_error

        raise make_error("invalid", f"'{path}' is not a Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def kinds() -> list[str]:
    """The names of all kinds."""
    return _core.kinds()


__all__ = ["Function", "LiveDict", "code_to_function", "function_to_module", "import_function", "kinds", "new_function"]
