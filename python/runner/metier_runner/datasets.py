"""Tables: how a DataFrame is written and described. pandas and polars are used when they are there, never imported here."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from .errors import InvalidArgument, InvalidArgumentType
from .log import Logger
from .sinks import JsonDict
from .values import to_json

FORMATS = ("csv", "parquet", "json")


def is_spark_frame(value: Any) -> bool:
    """A DataFrame of PySpark, classic or Connect."""
    return type(value).__module__.startswith("pyspark.sql.") and hasattr(value, "toPandas")


def gathered(value: Any) -> Any:
    """A table that can be written here: Spark's is collected by its driver, which refuses what is past spark.driver.maxResultSize."""
    if not is_spark_frame(value):
        return value
    frame = value.toPandas()
    if getattr(frame, "attrs", None):
        frame.attrs = {}  # Spark Connect keeps objects of its plan there, and pandas would write them into Parquet as JSON
    return frame


def is_frame(value: Any) -> bool:
    if is_spark_frame(value):
        return True
    return hasattr(value, "columns") and (hasattr(value, "to_csv") or hasattr(value, "write_csv"))


def serialize(df: Any, key: str, format: str, explicit: bool, logger: Logger) -> tuple[bytes, str]:
    """The bytes of a table and their format; Parquet unless another is asked for or it cannot be written here."""
    if not is_frame(df):
        raise InvalidArgumentType(f"dataset '{key}' is {type(df).__name__}, it must be a pandas or polars DataFrame")
    format = {"pq": "parquet"}.get(format, format)
    if format and format not in FORMATS:
        if explicit:
            raise InvalidArgument(f"dataset '{key}': format '{format}' is unknown, formats are {', '.join(FORMATS)}")
        format = ""
    polars = hasattr(df, "write_csv")
    parquet = polars or find_spec("pyarrow") is not None or find_spec("fastparquet") is not None
    if not format:
        format = "parquet" if parquet else "csv"
        if not parquet:
            logger.warning(f"dataset '{key}' is kept as CSV: neither pyarrow nor fastparquet is installed")
    if format == "parquet" and not parquet:
        raise InvalidArgument(f"dataset '{key}': Parquet needs pyarrow or fastparquet, neither is installed (add pyarrow, or format='csv')")
    import io

    if format == "parquet":
        binary = io.BytesIO()
        df.write_parquet(binary) if polars else _named(df).to_parquet(binary, index=_has_index(df))
        return binary.getvalue(), format
    if polars:
        text = df.write_csv() if format == "csv" else df.write_json()
    else:
        text = df.to_csv(index=_has_index(df)) if format == "csv" else df.to_json(orient="records")
    return str(text).encode("utf-8"), format


def is_parts(value: Any) -> bool:
    """A frame in parts (Dask): its partitions are computed and written where they are, never collected here."""
    return is_frame(value) and hasattr(value, "npartitions") and hasattr(value, "compute")


def parts_format(key: str, format: str, explicit: bool) -> str:
    """The format that a frame in parts is kept in: a folder of Parquet files, or one CSV file. Raises InvalidArgument."""
    format = {"pq": "parquet", "": "parquet"}.get(format, format)
    if format == "csv":
        return format
    if format != "parquet" and explicit:
        raise InvalidArgument(f"dataset '{key}': a Dask frame is kept as parquet or csv, not as {format}")
    if find_spec("pyarrow") is None:
        raise InvalidArgument(f"dataset '{key}': Parquet needs pyarrow, which is not installed (add pyarrow, or format='csv')")
    return "parquet"


def write_parts(df: Any, target: str, format: str) -> None:
    """Let the workers write their partitions: files below the folder `target`, or the one CSV file `target`."""
    index = bool(getattr(df.index, "name", None))
    if format == "csv":
        df.to_csv(target, single_file=True, index=index)
    else:
        df.to_parquet(target, write_index=index, overwrite="://" not in target)


def describe_parts(df: Any, preview: int, stats: bool) -> JsonDict:
    """What `describe` says, of a frame in parts: its head is computed, its length counted by the workers."""
    spec = describe(df.head(max(preview, 1), npartitions=-1), preview=preview, stats=False)
    spec["length"] = int(df.shape[0].compute()) if hasattr(df.shape[0], "compute") else int(df.shape[0])
    if stats:
        table = df.describe().compute().astype(object).to_dict()
        spec["stats"] = {str(name): {str(k): to_json(v, "stats") for k, v in column.items()} for name, column in table.items()}
    return spec


def describe(df: Any, preview: int, stats: bool) -> JsonDict:
    """header, length, schema, preview (rows as lists) and statistics as MLRun's dataset records have them."""
    spec: JsonDict = {"header": [str(name) for name in df.columns], "length": int(df.shape[0])}
    head = df.head(max(preview, 0))
    if hasattr(df, "write_csv"):
        spec["schema"] = {"fields": [{"name": str(n), "type": str(t)} for n, t in zip(df.columns, df.dtypes)]}
        spec["preview"] = [[to_json(v, "preview") for v in row] for row in head.rows()]
        return spec
    fields = [{"name": str(name), "type": _field_type(kind)} for name, kind in zip(df.columns, df.dtypes)]
    spec["schema"] = {"fields": fields, "pandas_version": "1.4.0"}
    spec["preview"] = [[to_json(v, "preview") for v in row] for row in head.astype(object).values.tolist()]
    if stats:
        table = df.describe(include="all").astype(object).to_dict()
        spec["stats"] = {str(name): {str(k): to_json(v, "stats") for k, v in column.items()} for name, column in table.items()}
    return spec


def _field_type(kind: Any) -> str:
    code = getattr(kind, "kind", "O")
    return {"i": "integer", "u": "integer", "f": "number", "b": "boolean", "M": "datetime", "m": "duration"}.get(str(code), "string")


def _has_index(df: Any) -> bool:
    return type(df.index).__name__ != "RangeIndex"


def _named(df: Any) -> Any:
    return df if all(isinstance(name, str) for name in df.columns) else df.rename(columns=str)
