"""The context's methods that keep outputs: results, artifacts, datasets, models."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from . import artifacts as art
from . import files
from .errors import InvalidArgument, InvalidArgumentType, NotFound
from .sinks import JsonDict, Sink, encode
from .values import check_key, dotted, short, to_json

if TYPE_CHECKING:
    from .log import Logger

_NO_BODY = object()


class LoggingMethods:
    """Mixed into Context; uses its fields."""

    if TYPE_CHECKING:
        sink: Sink
        logger: Logger
        name: str
        project: str
        iteration: int
        artifact_path: str
        run_uid: str
        _results: JsonDict
        _parameters: JsonDict
        _outputs: list[str]
        _artifacts: dict[str, art.Artifact]
        _artifact_uris: dict[str, str]

        @property
        def is_logging_worker(self) -> bool: ...

        def _patch(self, changes: JsonDict) -> None: ...

        def get_dataitem(self, url: str) -> Any: ...

    def log_result(self, key: str, value: Any, commit: bool = False) -> None:
        """Keep one small value. numpy values become numbers and lists, other objects their text."""
        self.log_results({key: value}, commit)

    def log_results(self, results: dict[str, Any], commit: bool = False) -> None:
        if not isinstance(results, dict):
            raise InvalidArgumentType(f"log_results takes a dict of names and values, not {type(results).__name__}")
        changes = {dotted("status.results", check_key(key)): to_json(value, key) for key, value in results.items()}
        for key, value in results.items():
            self._results[key] = _kept(value, changes[dotted("status.results", key)])
        if changes:
            self._patch(changes)

    def log_artifact(
        self,
        item: str | art.Artifact,
        body: Any = None,
        local_path: str | None = None,
        artifact_path: str | None = None,
        tag: str = "",
        viewer: str | None = None,
        target_path: str = "",
        src_path: str | None = None,
        upload: bool | None = None,
        labels: JsonDict | None = None,
        format: str | None = None,
        db_key: Any = None,
        **kwargs: Any,
    ) -> art.Artifact:
        """Keep a text, bytes, a figure, a file or a folder under `item`.

        The content goes to ``{artifact_path}/{run}/{iteration}/{key}{suffix}``. `target_path` alone registers what is
        already there. `upload=False` registers `local_path` where it is.
        """
        made = _as_artifact(item, body)
        art.check_artifact_key(made.key)
        made.viewer = viewer or made.viewer
        made.format = format or made.format
        made.spec.update({name: value for name, value in kwargs.items() if value is not None})
        path = str(local_path or src_path or made.local_path or "")
        if not self.is_logging_worker:
            return made
        if made.body is None and path and os.path.isdir(path):
            made = _changed_kind(made, "dir")
        if made.body is not None and path:
            target_path = target_path or self._below(artifact_path, path)
            path = ""
        if made.body is None and not path and not target_path and not made.target_path:
            raise InvalidArgument(f"artifact '{made.key}' has no content: give body, local_path or target_path")
        if made.body is None and (not path or upload is False):
            self._point_at(made, path or target_path or made.target_path)
        else:
            art.upload(self._self(), made, local_path=path, artifact_path=artifact_path or "", target_path=target_path)
        return self._register(made, tag, labels, db_key)

    def log_dataset(
        self,
        key: str,
        df: Any,
        tag: str = "",
        local_path: str | None = None,
        artifact_path: str | None = None,
        upload: bool = True,
        labels: JsonDict | None = None,
        format: str = "",
        preview: int | None = None,
        stats: bool | None = None,
        db_key: Any = None,
        target_path: str = "",
        extra_data: JsonDict | None = None,
        label_column: str | None = None,
        **kwargs: Any,
    ) -> art.Artifact:
        """Keep a table (a pandas, polars, Dask or Spark DataFrame) as CSV or Parquet, with its header, schema, preview and statistics.

        A Dask frame becomes a folder of Parquet files that the workers write, or with format csv one file.
        """
        from .datasets import describe, gathered, is_parts, serialize

        art.check_artifact_key(key)
        made = art.DatasetArtifact(key, extra_data=extra_data or None, label_column=label_column, **kwargs)
        if not self.is_logging_worker:
            return made
        df = gathered(df)
        wanted = target_path or local_path or ""
        if is_parts(df):
            self._write_parts(made, df, format or files.suffix_of(wanted).lstrip("."), bool(format), preview, bool(stats))
            name = local_path or (f"{key}.csv" if made.format == "csv" else key)
            self._put_parts(made, df, target_path or self._below(artifact_path, name))
            return self._register(made, tag, labels, db_key)
        data, made.format = serialize(df, key, format or files.suffix_of(wanted).lstrip("."), bool(format), self.logger)
        made.spec.update(describe(df, preview=20 if preview is None else preview, stats=bool(stats)))
        made.body = data
        name = local_path or f"{key}.{made.format}"
        target = target_path or self._below(artifact_path, name)
        if upload:
            art.upload(self._self(), made, target_path=target)
        else:
            made.target_path = target
        return self._register(made, tag, labels, db_key)

    def _write_parts(self, made: art.Artifact, df: Any, format: str, explicit: bool, preview: int | None, stats: bool) -> None:
        from .datasets import describe_parts, parts_format

        made.format = parts_format(made.key, format, explicit)
        made.spec.update(describe_parts(df, preview=20 if preview is None else preview, stats=stats))

    def _put_parts(self, made: art.Artifact, df: Any, target: str) -> None:
        from .datasets import write_parts

        if not art.is_remote(target):
            target = files.absolute(art.local_file(target)).rstrip("/")
            os.makedirs(os.path.dirname(target), exist_ok=True)
        write_parts(df, target, made.format)
        made.target_path = target if made.format == "csv" else target + "/"
        if not art.is_remote(target):
            size, digest = files.measure(target) if made.format == "csv" else files.copy_tree(target, target)
            made.spec.setdefault("size", size)
            made.metadata.setdefault("hash", digest)

    def log_model(
        self,
        key: str,
        body: Any = None,
        framework: str = "",
        tag: str = "",
        model_dir: str | None = None,
        model_file: str | None = None,
        algorithm: str | None = None,
        metrics: JsonDict | None = None,
        parameters: JsonDict | None = None,
        artifact_path: str | None = None,
        upload: bool | None = True,
        labels: JsonDict | None = None,
        inputs: list[JsonDict] | None = None,
        outputs: list[JsonDict] | None = None,
        feature_vector: str | None = None,
        feature_weights: list[Any] | None = None,
        training_set: Any = None,
        label_column: str | list[str] | None = None,
        extra_data: JsonDict | None = None,
        db_key: Any = None,
        **kwargs: Any,
    ) -> art.Artifact:
        """Keep a model: its bytes as `body`, or the file `model_file` (in `model_dir`), with what is known about it."""
        art.check_artifact_key(key)
        if training_set is not None and inputs:
            raise InvalidArgument(f"log_model '{key}': give training_set or inputs, not both")
        made = art.ModelArtifact(key)
        if not self.is_logging_worker:
            return made
        source = _model_source(key, body, model_dir, model_file)
        name = os.path.basename(model_file) if model_file else (os.path.basename(source) if source else f"{key}.pkl")
        if training_set is not None:
            inputs, outputs = _features(training_set, label_column)
        made.spec.update(
            model_file=name,
            metrics=_json_dict(metrics if metrics is not None else self._results, "metric"),
            parameters=_json_dict(parameters if parameters is not None else self._parameters, "parameter"),
        )
        given: JsonDict = {"framework": framework, "algorithm": algorithm, "inputs": inputs, "outputs": outputs}
        given.update(feature_vector=feature_vector, feature_weights=feature_weights, extra_data=extra_data, **kwargs)
        made.spec.update({name: value for name, value in given.items() if value})
        folder = f"{(artifact_path or self.artifact_path).rstrip('/')}/{self.name}/{self.iteration}/{key}/"
        if upload is False and source:
            folder = files.absolute(os.path.dirname(source) or ".") + "/"
            made.spec["size"], made.metadata["hash"] = files.measure(source)
        else:
            part = art.Artifact(key, body)
            art.upload(self._self(), part, local_path=source, target_path=folder + name)
            made.spec["size"], made.metadata["hash"] = part.spec["size"], part.metadata["hash"]
            # The model's own description lies beside it (JSON is YAML), so that a folder can be read without a server.
            page = art.Artifact("model_spec", encode({"kind": "model", "metadata": {"key": key}, "spec": made.spec}))
            art.upload(self._self(), page, target_path=folder + "model_spec.yaml")
        made.target_path = folder if art.is_remote(folder) else files.absolute(art.local_file(folder))
        return self._register(made, tag, labels, db_key)

    def update_artifact(self, artifact_object: art.Artifact) -> None:
        """Store a changed artifact's record again."""
        meta = artifact_object.record["metadata"]
        meta["updated"] = art.timestamp()
        self.sink.store_artifact(
            artifact_object.db_key, artifact_object.record, tag=meta.get("tag", ""), tree=meta["tree"], iteration=meta["iter"]
        )

    def get_cached_artifact(self, key: str) -> art.Artifact:
        if key not in self._artifacts:
            raise NotFound(f"no artifact '{key}' was logged in this run")
        return self._artifacts[key]

    def _below(self, artifact_path: str | None, name: str) -> str:
        if os.path.isabs(name) or ".." in name.split("/"):
            name = os.path.basename(name)
        return f"{(artifact_path or self.artifact_path).rstrip('/')}/{self.name}/{self.iteration}/{name}"

    def _point_at(self, made: art.Artifact, path: str) -> None:
        made.target_path = path if art.is_remote(path) else files.absolute(art.local_file(path))
        if not art.is_remote(path) and os.path.isfile(made.target_path):
            made.spec["size"], made.metadata["hash"] = files.measure(made.target_path)

    def _register(self, made: art.Artifact, tag: str, labels: JsonDict | None, db_key: Any) -> art.Artifact:
        art.register(self._self(), made, tag=tag, labels=labels, db_key=db_key)
        self._artifacts[made.key] = made
        self._artifact_uris[made.key] = made.uri
        self._patch({dotted("status.artifact_uris", made.key): made.uri})
        return made

    def _self(self) -> Any:
        return self


def _as_artifact(item: Any, body: Any) -> art.Artifact:
    if isinstance(item, art.Artifact):
        if body is not None:
            item.body = body
        return item
    if isinstance(item, str):
        if hasattr(body, "savefig"):
            return art.PlotArtifact(item, body)
        if hasattr(body, "to_plotly_json") and hasattr(body, "to_html"):
            return art.PlotlyArtifact(item, body)
        return art.Artifact(item, body)
    if hasattr(item, "get_body") and hasattr(item, "key"):  # an artifact object of the mlrun package
        made = art.Artifact(str(item.key), body if body is not None else item.get_body())
        made.kind = str(getattr(item, "kind", "") or "artifact")
        made.format = str(getattr(item, "format", "") or getattr(getattr(item, "spec", None), "format", "") or "")
        return made
    raise InvalidArgumentType(f"log_artifact takes a key or an artifact, not {short(item)}")


def _changed_kind(item: art.Artifact, kind: str) -> art.Artifact:
    if item.kind == "artifact":
        made = art.DirArtifact(item.key, None, format=item.format, viewer=item.viewer, target_path=item.target_path)
        made.spec.update(item.spec)
        return made
    raise InvalidArgument(f"artifact '{item.key}' of kind {item.kind} is a folder, only kind {kind} can be one")


def _model_source(key: str, body: Any, model_dir: str | None, model_file: str | None) -> str:
    """The path of the model's file, or "" when the body is given."""
    if body is not None:
        return ""
    if not model_file and not model_dir:
        raise InvalidArgument(f"log_model '{key}' has no content: give body, model_file or model_dir")
    if not model_file:
        names = sorted(name for name in os.listdir(str(model_dir)) if os.path.isfile(os.path.join(str(model_dir), name)))
        if len(names) != 1:
            raise InvalidArgument(f"log_model '{key}': folder {short(model_dir)} holds {len(names)} files, name one as model_file")
        model_file = names[0]
    path = os.path.join(model_dir, model_file) if model_dir else model_file
    if not os.path.isfile(path):
        raise NotFound(f"log_model '{key}': no file {short(path)} (model_file)")
    return path


def _features(training_set: Any, label_column: str | list[str] | None) -> tuple[list[JsonDict], list[JsonDict]]:
    labels = [label_column] if isinstance(label_column, str) else list(label_column or [])
    features = [{"name": str(name), "value_type": str(kind)} for name, kind in zip(training_set.columns, training_set.dtypes)]
    return [f for f in features if f["name"] not in labels], [f for f in features if f["name"] in labels]


def _json_dict(values: JsonDict, what: str) -> JsonDict:
    return {str(name): to_json(value, str(name), what) for name, value in values.items()}


def _kept(value: Any, plain: Any) -> Any:
    return value if isinstance(value, float) and type(value) is float else plain
