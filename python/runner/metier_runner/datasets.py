"""Tables: how a DataFrame is written and described. pandas and polars are used when they are there, never imported here."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from .errors import InvalidArgument, InvalidArgumentType
from .log import Logger
from .sinks import JsonDict
from .values import to_json

FORMATS = ("csv", "parquet", "json")


def is_frame(value: Any) -> bool:
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
