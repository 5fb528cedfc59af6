"""``DASK_DISTRIBUTED__CLIENT__SECURITY_LOADER=metier_runner.dask_security.load``: a client's certificate for our Dask clusters.

``metier env`` sets the variable, so that ``distributed.Client(address)`` – the unmodified ``mlrun`` SDK calls it so – connects.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from .errors import NotFound

if TYPE_CHECKING:
    from .rest import Client


def load(info: dict[str, Any]) -> Any:
    """The ``Security`` for the cluster at ``info["address"]``; None where no server of ours is set up or it knows no such cluster."""
    address = str(info.get("address") or "")
    server = os.environ.get("METIER_SERVER") or os.environ.get("MLRUN_DBPATH") or ""
    if not address.startswith("tls://") or not server:
        return None
    from .rest import Client

    return security_of(address, Client(server, os.environ.get("METIER_TOKEN") or os.environ.get("MLRUN_HTTPDB__TOKEN") or ""))


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
