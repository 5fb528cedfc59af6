"""The Dask cluster that a run of kind dask stands beside: its client, and the user's code on its workers."""

from __future__ import annotations

import asyncio
import concurrent.futures
import hashlib
import importlib
import logging
import os
import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .errors import NotFound, RunnerError

if TYPE_CHECKING:
    from .context import Context

ADDRESS = "DASK_SCHEDULER_ADDRESS"
LOCAL = "METIER_DASK_LOCAL"  # spec.remote is false
# What the run runs: its file (or "") and the folder that it is imported from; execute.py sets them.
user_code: tuple[str, str] = ("", "")
handler = module = ""  # its handler, and the module that the file is on the workers
MAX_FILE = 16 << 20
MAX_MODULES, MAX_NAMES = 2000, 20_000
START_SECONDS = 600.0
BUSY_SECONDS = 10.0  # for a run that has just ended to let go of its client
LOSS_SECONDS = 10.0  # for the server to say how the scheduler was lost, and to end this process


class DaskUnavailable(RunnerError):
    """There is no Dask cluster to connect to, or no Dask to connect with."""

    code = "EngineMissing"


class SchedulerSilent(DaskUnavailable):
    """The scheduler does not answer."""

    code = "ServiceUnavailable"


class ClusterBusy(RunnerError):
    """Another run uses the cluster with other code."""

    code = "ClusterBusy"


class ClusterClosed(RunnerError):
    """The cluster went away under the run."""

    code = "ClusterClosed"


def connect(context: Context, environment: Mapping[str, str]) -> Any:
    """A ``distributed.Client`` of the cluster of this run; its workers can import the run's file and what lies beside it.

    The cluster is the one beside the run, or that of ``hyper_param_options.dask_cluster_uri``; with ``spec.remote`` false a Dask
    inside this process.
    Raises DaskUnavailable when the run has no cluster, the environment no ``distributed``, or the scheduler does not answer;
    ClusterBusy when another run is there with other code.
    """
    address = environment.get(ADDRESS, "")
    local = environment.get(LOCAL, "") == "true"
    uri = str((context._spec.get("hyper_param_options") or {}).get("dask_cluster_uri") or "")
    if not address and not uri and not local:
        raise DaskUnavailable("this run has no Dask cluster: run it with --kind dask, or name one as dask_cluster_uri")
    try:
        import distributed
    except ImportError as error:
        raise DaskUnavailable(
            f"the function's environment has no 'distributed' ({error}): add the requirements dask and distributed"
        ) from None
    if local and not uri:  # in threads: nobody else can reach what has no certificate
        here = {"dashboard_address": "127.0.0.1:0", "worker_dashboard_address": "127.0.0.1:0"}
        return distributed.Client(name=context.name, set_as_default=True, processes=False, **here)
    security = None
    if not address:
        address, security = _cluster_of(uri, context.project, environment)
    try:
        client = distributed.Client(address, name=context.name, timeout="60s", set_as_default=True, security=security)
    except (OSError, TimeoutError) as error:
        raise SchedulerSilent(f"the Dask scheduler at {address} does not answer: {error or type(error).__name__}") from None
    if security is not None and (difference := other_versions(client)):
        client.close()
        raise DaskUnavailable(difference)
    try:
        share_code(client, environment, f"{context.name} ({context.run_uid[:8]})")
    except ClusterBusy:
        client.close()
        raise
    return client


def _cluster_of(uri: str, project: str, environment: Mapping[str, str]) -> tuple[str, Any]:
    """Address and ``Security`` of the cluster of a stored function (``db://project/name:tag``), which is started when it does not run."""
    from .dask_security import security_of
    from .rest import Client

    server = Client.from_environment(environment)
    if server is None:
        raise DaskUnavailable(f"dask_cluster_uri '{uri}': no server is set up that knows the function (METIER_SERVER)")
    path = uri.removeprefix("db://").partition("@")[0]
    name, _, tag = path.rpartition("/")[2].partition(":")
    owner = path.rpartition("/")[0] or project
    tag = tag or "latest"
    try:
        task = server.json("POST", "v1/start/function", {"functionUrl": f"{owner}/{name}:{tag}"})
        until = time.monotonic() + START_SECONDS
        while task["status"]["state"] == "running" and time.monotonic() < until:
            time.sleep(0.1)
            task = server.json("GET", f"v1/projects/{owner}/background-tasks/{task['metadata']['name']}")
        if task["status"]["state"] != "succeeded":
            raise DaskUnavailable(
                f"dask_cluster_uri '{uri}': the cluster did not start: {task['status'].get('error') or 'it took too long'}"
            )
        found = server.json("GET", f"v1/projects/{owner}/functions/{name}", query={"tag": tag})
        address = str(found["func"]["status"]["scheduler_address"])
        return address, security_of(address, server)
    except NotFound as error:
        raise DaskUnavailable(f"dask_cluster_uri '{uri}': {error}") from None


def other_versions(client: Any) -> str:
    """The sentence that says how Python or distributed of client and scheduler differ: their pickles do not go together; else ""."""
    said = client.get_versions(check=False)
    mine, theirs = ((said[side]["host"]["python"], said[side]["packages"]["distributed"]) for side in ("client", "scheduler"))
    return difference(mine, theirs)


def difference(mine: tuple[str, str], theirs: tuple[str, str]) -> str:
    """The same sentence, of versions of Python and distributed."""
    ours, other = (f"Python {'.'.join(python.split('.')[:2])} with distributed {dask}" for python, dask in (mine, theirs))
    if ours == other:
        return ""
    return f"this process has {ours}, the Dask cluster has {other}, and their pickles do not go together"


def share_code(client: Any, environment: Mapping[str, str], run: str) -> None:
    """Make the run's file importable on scheduler and workers, those that come later too.

    A worker has one module of a name, so runs that are there together have the same code. Raises ClusterBusy.
    """
    global module
    file, folder = user_code
    files: dict[str, bytes] = {}
    if file.endswith(".py") and os.path.isfile(file) and os.path.getsize(file) <= MAX_FILE:
        with open(file, "rb") as stream:
            module = _module_of(file)
            files[f"{module}.py"] = stream.read()
    # The folder of inline code holds nothing but the file, and is another one in each run.
    inline = os.path.join(os.path.dirname(environment.get("METIER_JOURNAL", "")), "code")
    paths = [folder] if folder and folder != inline else []
    paths += [path for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path and path not in paths]
    own = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    paths = [path for path in paths if path != own]
    digest = hashlib.sha256(repr((sorted(files.items()), paths)).encode()).hexdigest()[:16]
    code = hashlib.sha256(repr((sorted(files.items()), [content_of(path) for path in paths])).encode()).hexdigest()
    until = time.monotonic() + BUSY_SECONDS
    while (other := _claim(client, code, run)) and time.monotonic() < until:
        time.sleep(0.1)
    if other:
        raise ClusterBusy(
            f"run {other} computes on this Dask cluster with other code, and a worker has one module of a name: wait for its "
            "end (or abort it), or give this function another name: that has a cluster of its own"
        )
    for plugin in _plugins(digest, files, paths):
        client.register_plugin(plugin, name=plugin.name)


def content_of(folder: str) -> str:
    """The same for two folders with the same modules; the folder itself where there are too many to look."""
    digest = hashlib.sha256()
    modules = seen = 0
    for at, folders, names in os.walk(folder):
        seen += len(names)
        if seen > MAX_NAMES:
            return folder
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__pycache__")) and name != "site-packages")
        for name in sorted(names):
            if not name.endswith(".py"):
                continue
            path = os.path.join(at, name)
            modules += 1
            try:
                if modules > MAX_MODULES or os.path.getsize(path) > MAX_FILE:
                    return folder
                with open(path, "rb") as stream:
                    body = stream.read()
            except OSError:  # it is gone, or nobody may read it
                continue
            digest.update(f"{os.path.relpath(path, folder)}\0{len(body)}\0".encode())
            digest.update(body)
    return digest.hexdigest()


def _claim(client: Any, code: str, run: str) -> str:
    """Note on the scheduler that `client` is there with `code`; or the run that is there with another one, and nothing is noted."""
    me = client.id

    def claim(dask_scheduler: Any) -> str:
        held = getattr(dask_scheduler, "_metier_code", {})
        held = {one: what for one, what in held.items() if one in dask_scheduler.clients}
        others = [what[1] for one, what in held.items() if one != me and what[0] != code]
        if not others:
            held[me] = (code, run)
        dask_scheduler._metier_code = held
        return others[0] if others else ""

    return str(client.run_on_scheduler(claim))


def _module_of(file: str) -> str:
    """The name that the file was imported under (calling.load_file may have changed it)."""
    for name, module in list(sys.modules.items()):
        if getattr(module, "__file__", None) == file and name != "__main__":
            return name
    return os.path.splitext(os.path.basename(file))[0].replace("-", "_")


def _plugins(digest: str, files: dict[str, bytes], paths: list[str]) -> list[Any]:
    """Plugins that carry the code. Local classes, so that they are pickled whole: workers need nothing of ours."""
    from distributed.diagnostics.plugin import SchedulerPlugin, WorkerPlugin

    def install() -> None:
        import os
        import sys
        import tempfile

        mark = "_metier_code"
        old = getattr(sys, mark, None)
        if old is not None and old[0] == digest:
            return
        folder = os.path.join(tempfile.gettempdir(), f"metier-code-{digest}")
        os.makedirs(folder, exist_ok=True)
        for name, body in files.items():
            with open(os.path.join(folder, name), "wb") as stream:
                stream.write(body)
        for path in old[1] if old else []:
            if path in sys.path:
                sys.path.remove(path)
        added = [folder] + [path for path in paths if os.path.isdir(path) and path not in sys.path]
        gone = tuple(path + os.sep for path in (old[1] if old else []))
        stems = {name[:-3] for name in files}
        for name, module in list(sys.modules.items()):
            where = getattr(module, "__file__", None) or ""
            if name in stems or (gone and where.startswith(gone)):
                del sys.modules[name]
        sys.path[:0] = added
        setattr(sys, mark, (digest, added))

    class OnWorker(WorkerPlugin):  # type: ignore[misc]
        name = "metier-code"

        def setup(self, worker: Any) -> None:
            install()

    class OnScheduler(SchedulerPlugin):  # type: ignore[misc]
        name = "metier-code-scheduler"

        def start(self, scheduler: Any) -> Any:
            install()

    return [OnScheduler(), OnWorker()]


def explained(client: Any, error: BaseException) -> BaseException:
    """ClusterClosed where `error` is that the client lost its scheduler (Dask's own words say no more than that), else `error`.

    A scheduler that was killed is the server's to tell, in better words, as it ends this run.
    """
    distributed = sys.modules.get("distributed")
    if distributed is None or not isinstance(client, distributed.Client):
        return error
    ends = (concurrent.futures.CancelledError, asyncio.CancelledError, importlib.import_module("distributed.comm").CommClosedError)
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        lost = getattr(cause, "reason", "") == "scheduler-connection-lost"
        if lost or (client.status != "running" and isinstance(cause, ends)):
            time.sleep(LOSS_SECONDS)
            words = "the Dask cluster was closed while the run used it"
            return ClusterClosed(words).with_traceback(error.__traceback__)
        cause = cause.__cause__ or cause.__context__
    return error


def close(client: Any) -> None:
    """Let go of a client; a cluster that does not answer any more keeps nobody waiting."""
    distributed = sys.modules.get("distributed")
    if distributed is None or not isinstance(client, distributed.Client):
        return
    if client.status != "running":  # the log of a run need not tell that its client no longer waits for a cluster that is gone
        logging.getLogger("distributed.client").setLevel(logging.CRITICAL)
    try:
        client.close(timeout=2)
    except Exception:  # noqa: BLE001, S110 - the run has ended already
        pass
