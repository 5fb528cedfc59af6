"""Methods of functions of kinds spark and remote-spark: MLRun's names, results and errors."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .errors import make_error
from .live import plain

if TYPE_CHECKING:
    from . import _core as core_types


class SparkMethods:
    """What kinds spark and remote-spark have beside the common methods. Other kinds refuse them."""

    if TYPE_CHECKING:

        @property
        def _core(self) -> core_types.Function:
            """The C++ object."""

    # --- resources of the two roles ----------------------------------------------------------------------------

    def with_driver_requests(self, mem: str | None = None, cpu: Any = None, patch: bool = False) -> None:
        """Memory (Spark's form, ``"1g"``) and processors of the driver; a missing one gets the site's default."""
        self._core.with_spark_requests("driver", mem, cpu, patch)

    def with_executor_requests(self, mem: str | None = None, cpu: Any = None, patch: bool = False) -> None:
        """Memory (Spark's form, ``"1g"``) and processors of each executor."""
        self._core.with_spark_requests("executor", mem, cpu, patch)

    def with_driver_limits(
        self, cpu: Any = None, gpus: Any = None, gpu_type: str = "nvidia.com/gpu", patch: bool = False
    ) -> None:
        """The driver's limits; memory has none: it is the request and its overhead."""
        self._core.with_spark_limits("driver", cpu, gpus, gpu_type, patch)

    def with_executor_limits(
        self, cpu: Any = None, gpus: Any = None, gpu_type: str = "nvidia.com/gpu", patch: bool = False
    ) -> None:
        """Limits of each executor."""
        self._core.with_spark_limits("executor", cpu, gpus, gpu_type, patch)

    def with_cores(self, executor_cores: int | None = None, driver_cores: int | None = None) -> None:
        """Tasks that run at once in an executor and in the driver; None and 0 leave the old value."""
        self._core.with_spark_cores(executor_cores, driver_cores)

    def with_dynamic_allocation(
        self,
        min_executors: int | None = None,
        max_executors: int | None = None,
        initial_executors: int | None = None,
    ) -> None:
        """Lets Spark choose the number of executors between two bounds, by its waiting tasks."""
        self._core.with_dynamic_allocation(min_executors, max_executors, initial_executors)

    # --- life ----------------------------------------------------------------------------------------------------

    def with_restart_policy(
        self,
        restart_type: str = "OnFailure",
        retries: int = 0,
        retry_interval: int = 10,
        submission_retries: int = 3,
        submission_retry_interval: int = 20,
    ) -> None:
        """``Never``, ``OnFailure`` or ``Always``; intervals in seconds. Checked when the function is submitted."""
        self._core.with_restart_policy(
            restart_type, retries, retry_interval, submission_retries, submission_retry_interval
        )

    def disable_monitoring(self) -> None:
        """Switches off the exporter of the Spark operator's metrics."""
        self._core.disable_monitoring()

    def deploy_default_image(self, with_gpu: bool = False) -> None:
        """Refused: there is no image to build. Spark is that of the function's environment."""
        raise make_error(
            "unsupported",
            "there is no image of Spark here: the function's environment takes its place",
            fix="with_requirements(['pyspark==4.3.0', 'pandas<3']), or an environment that has them",
        )

    # --- placement and volumes -----------------------------------------------------------------------------------

    def with_driver_node_selection(
        self,
        node_name: str | None = None,
        node_selector: Mapping[str, str] | None = None,
        affinity: Any = None,
        tolerations: Any = None,
    ) -> None:
        """Where the driver may run. A node's name is refused: Spark has no such field."""
        self._place("driver", node_name, node_selector, affinity, tolerations)

    def with_executor_node_selection(
        self,
        node_name: str | None = None,
        node_selector: Mapping[str, str] | None = None,
        affinity: Any = None,
        tolerations: Any = None,
    ) -> None:
        """Where executors may run."""
        self._place("executor", node_name, node_selector, affinity, tolerations)

    def _place(self, role: str, node_name: str | None, selector: Any, affinity: Any, tolerations: Any) -> None:
        said = self._core.with_spark_node_selection(
            role, node_name or "", selector, plain(affinity), plain(tolerations)
        )
        for line in said:
            warnings.warn(f"{line}: pods with it will be refused", stacklevel=3)

    def with_driver_preemption_mode(self, mode: str) -> None:
        """``allow``, ``constrain``, ``prevent`` or ``none``."""
        self._core.with_spark_preemption_mode("driver", str(getattr(mode, "value", mode)))

    def with_executor_preemption_mode(self, mode: str) -> None:
        """``allow``, ``constrain``, ``prevent`` or ``none``."""
        self._core.with_spark_preemption_mode("executor", str(getattr(mode, "value", mode)))

    def with_driver_host_path_volume(
        self, host_path: str, mount_path: str, type: str = "", volume_name: str = "host-path-volume"
    ) -> None:
        """A folder of the node in the driver; a volume of the same name is replaced."""
        self._core.with_spark_host_path("driver", host_path, mount_path, type, volume_name)

    def with_executor_host_path_volume(
        self, host_path: str, mount_path: str, type: str = "", volume_name: str = "host-path-volume"
    ) -> None:
        """A folder of the node in every executor."""
        self._core.with_spark_host_path("executor", host_path, mount_path, type, volume_name)

    # --- services ------------------------------------------------------------------------------------------------

    def with_igz_spark(self, mount_v3io_to_executor: bool = True) -> None:
        """Refused: Iguazio's Spark runs on Iguazio's platform only."""
        self._core.with_igz_spark()

    def with_spark_service(self, spark_service: str, provider: str = "", with_v3io_mount: bool = False) -> None:
        """remote-spark: the cluster that the session goes to.

        Parameters
        ----------
        spark_service : str
            ``spark://HOST:PORT`` (a standalone master), ``sc://HOST:PORT`` (a Spark Connect server), or a name whose
            address the run finds in ``METIER_SPARK_SERVICE_<NAME>``. Livy is refused.
        """
        self._core.with_spark_service(spark_service, provider)
