"""``DASK_DISTRIBUTED__CLIENT__SECURITY_LOADER=metier_runner.dask_security.load``: a client's certificate for our Dask clusters.

``metier env`` sets the variable, so that ``distributed.Client(address)`` – the unmodified ``mlrun`` SDK calls it so – connects.
"""

from __future__ import annotations

import json
import os
import platform
import urllib.request
from typing import TYPE_CHECKING, Any

from .errors import NotFound

if TYPE_CHECKING:
    from .rest import Client

HTTP_PORT = 8787
PATIENCE = 5.0


def load(info: dict[str, Any]) -> Any:
    """The ``Security`` for the cluster at ``info["address"]``; None where no server of ours is set up or it knows no such cluster.

    Raises DaskUnavailable where the cluster's versions do not go with this process's: the SDK's own client would find out later,
    by an exception of pickle's.
    """
    address = str(info.get("address") or "")
    server = os.environ.get("METIER_SERVER") or os.environ.get("MLRUN_DBPATH") or ""
    if not address.startswith("tls://") or not server:
        return None
    from .rest import Client

    security = security_of(address, Client(server, os.environ.get("METIER_TOKEN") or os.environ.get("MLRUN_HTTPDB__TOKEN") or ""))
    if security is not None and (words := _other_versions(address)):
        from .dask_cluster import DaskUnavailable

        raise DaskUnavailable(f"{words}: use the interpreter of the function's environment, or give the function this one's version")
    return security


def _other_versions(address: str) -> str:
    """How the versions of the cluster differ from this process's; empty also where it does not say them."""
    import distributed

    from .dask_cluster import difference

    host = address.removeprefix("tls://").rpartition(":")[0]
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(f"http://{host}:{HTTP_PORT}/metier/versions.json", timeout=PATIENCE) as answer:
            theirs = json.loads(answer.read())
        said = (str(theirs["python"]), str(theirs["distributed"]))
    except (OSError, ValueError, KeyError, TypeError):  # an older scheduler, or none: the client will tell
        return ""
    return difference((platform.python_version(), distributed.__version__), said)


def security_of(address: str, server: Client) -> Any:
    """The ``Security`` that `server` gives for the cluster at `address`, or None when it knows no such cluster."""
    try:
        answer = server.json("GET", "metier/v1/dask-identity", query={"address": address})
    except NotFound:
        return None
    return security_from(answer["certificate"], answer["key"])


def security_from(certificate: str, key: str) -> Any:
    from distributed.security import Security

    return Security(tls_ca_file=certificate, tls_client_cert=certificate, tls_client_key=key, require_encryption=True)
