"""Hyper-parameters: many iterations of one run inside this process, with MLRun's strategies, selector and table.

Children are iterations 1..n of the run's uid; the run itself is iteration 0 and gets the table and the best child's outputs.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from . import artifacts as art
from .conditions import Condition
from .errors import InvalidArgument
from .sinks import JsonDict, encode
from .values import short

if TYPE_CHECKING:
    from .context import Context

MAX_ITERATIONS = 100_000
MAX_TABLE = 900 * 1024
DEFAULT_RANDOM, DEFAULT_ERRORS, MAX_PARALLEL = 10, 3, 64
STRATEGIES = ("grid", "list", "random", "custom")
Parameters = dict[str, Any]
Call = Callable[["Context"], None]


class Plan:
    """What will be iterated: `count` parameter sets made one by one, and when to stop."""

    def __init__(self, options: JsonDict, table: dict[str, list[Any]], strategy: str) -> None:
        self.strategy = strategy
        self._table = table
        self.selector = parse_selector(options.get("selector"))
        text = options.get("stop_condition")
        self.stop = Condition(text) if text else None
        self.max_errors = _number(options, "max_errors", DEFAULT_ERRORS) or DEFAULT_ERRORS
        iterations = _number(options, "max_iterations", 0)
        if iterations and strategy != "random":
            raise InvalidArgument(f"max_iterations belongs to strategy random, this run's is {strategy}")
        self.parallel = _number(options, "parallel_runs", 0)
        if self.parallel > MAX_PARALLEL:
            raise InvalidArgument(f"parallel_runs {self.parallel} is more than {MAX_PARALLEL}")
        self.on_dask = "DASK_SCHEDULER_ADDRESS" in os.environ or bool(options.get("dask_cluster_uri"))
        self.teardown = self.on_dask and bool(options.get("teardown_dask"))
        if options.get("dask_cluster_uri") and not self.parallel:
            self.parallel = 4
        self.count = self._counted(iterations)

    def __iter__(self) -> Iterator[Parameters]:
        names, columns = list(self._table), list(self._table.values())
        if self.strategy == "random":
            import random

            for _ in range(self.count):
                yield {name: random.choice(column) for name, column in zip(names, columns)}
            return
        for index in range(self.count):
            if self.strategy == "list":
                yield {name: column[index] for name, column in zip(names, columns)}
                continue
            chosen, rest = {}, index
            for name, column in zip(names, columns):  # the first name varies fastest
                rest, place = divmod(rest, len(column))
                chosen[name] = column[place]
            yield chosen

    def _counted(self, iterations: int) -> int:
        for name, column in self._table.items():
            if not isinstance(column, list):
                raise InvalidArgument(f"hyper-parameter '{name}' is {short(column)}, it must be a list of values")
            if not column:
                raise InvalidArgument(f"hyper-parameter '{name}' is an empty list")
        lengths = [len(column) for column in self._table.values()]
        if self.strategy == "list":
            if len(set(lengths)) > 1:
                told = ", ".join(f"{name} {len(column)}" for name, column in self._table.items())
                raise InvalidArgument(f"strategy list pairs values by position, the lists have different lengths: {told}")
            count = lengths[0]
        elif self.strategy == "random":
            count = iterations or DEFAULT_RANDOM
        else:
            count = 1
            for length in lengths:
                count *= length
        if count > MAX_ITERATIONS:
            raise InvalidArgument(f"{count} iterations are more than {MAX_ITERATIONS}: use strategy random with max_iterations")
        return count


def plan(context: Context, handler: str = "") -> Plan | None:
    """The plan of a run, or None when it has no hyper-parameters (or its handler makes its own children)."""
    spec = context._spec
    options: JsonDict = dict(spec.get("hyper_param_options") or {})
    for old in ("param_file", "strategy", "selector"):
        if not options.get(old) and spec.get(old):
            options[old] = spec[old]
    inline, file = spec.get("hyperparams") or {}, options.get("param_file")
    strategy = options.get("strategy") or ""
    if strategy and strategy not in STRATEGIES:
        raise InvalidArgument(f"strategy {short(strategy)} is unknown, strategies are {', '.join(STRATEGIES)}")
    if context.iteration or (not inline and not file and strategy != "custom"):
        return None
    if strategy == "custom":
        if not handler:
            raise InvalidArgument("strategy custom needs a handler that makes its own child contexts")
        return None
    if inline and file:
        raise InvalidArgument("hyper-parameters are given inline and as param_file, only one of them can be used")
    if inline:
        table, default = dict(inline), "grid"
    else:
        table, default = read_param_file(context, str(file), strategy)
    strategy = strategy or default
    if strategy == "list":
        table = _upcast(table)
    return Plan(options, table, strategy)


def read_param_file(context: Context, url: str, strategy: str) -> tuple[dict[str, list[Any]], str]:
    """A param file's table and default strategy: csv rows are a list, a json object of lists is a grid."""
    text = context.get_dataitem(url).get(encoding="utf-8")
    if url.lower().split("?")[0].endswith(".csv"):
        if strategy not in ("", "list"):
            raise InvalidArgument(f"param_file {short(url)} is a csv of rows, strategy {strategy} needs a json file of lists")
        return _read_csv(text, url), "list"
    try:
        table = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"param_file {short(url)} is not JSON: {error}") from None
    if not isinstance(table, dict):
        raise InvalidArgument(f"param_file {short(url)} must hold an object of name → list")
    return table, "grid"


def parse_selector(text: Any) -> tuple[str, str]:
    """(operator, result) of ``[max.|min.]result``; empty without a selector. A result's own name may contain dots."""
    if not text:
        return "", ""
    if not isinstance(text, str):
        raise InvalidArgument(f"selector is {type(text).__name__}, it must be text like max.accuracy")
    sign, dot, name = text.partition(".")
    if not dot:
        return "max", text
    if sign not in ("max", "min") or not name:
        raise InvalidArgument(f"selector {short(text)}: operator '{sign}' is unknown, operators are max and min")
    return sign, name


def select(runs: list[JsonDict], selector: tuple[str, str]) -> int:
    """The iteration that wins, 0 when none has the result. The first of equals wins; failed iterations are ignored.

    Unlike MLRun's search for a maximum, which begins above zero, negative results can win.
    """
    sign, name = selector
    best, winner = 0.0, 0
    for run in runs if name else []:
        status = run.get("status") or {}
        value = (status.get("results") or {}).get(name)
        try:
            number = float(str(value))
        except (TypeError, ValueError):
            continue
        if status.get("state") == "error" or number != number:
            continue
        if not winner or (number > best if sign == "max" else number < best):
            best, winner = number, int(run["metadata"]["iteration"])
    return winner


def run(context: Context, plan: Plan, call: Call) -> None:
    """Run every iteration of the plan, then fold them into the run. Raises when iterations failed."""
    from .execute import IterationsFailed

    context.logger.info(f"{plan.count} iterations", strategy=plan.strategy)
    if plan.parallel > 1 and plan.on_dask:
        from .dask_hyper import run_over_dask

        runs = run_over_dask(context, plan)
    elif plan.parallel > 1:
        from .parallel import run_parallel

        runs = run_parallel(context, plan, call)
    else:
        runs = _run_one_by_one(context, plan, call)
    if plan.teardown:
        context.dask_client.shutdown()
    summarize(context, runs, selector=plan.selector)
    if context.state == "error":
        raise IterationsFailed(context.error)


def run_child(child: Context, call: Call) -> JsonDict:
    """One iteration, whose failure is its own: the answer is its run dict."""
    from . import failure

    try:
        call(child)
        child.finish()
    except KeyboardInterrupt:
        child.finish(error="KeyboardInterrupt")
        raise
    except BaseException as error:
        if failure.exit_code_of(error) == 0:
            child.finish()
        else:
            failure.print_whole(error, child)
            child.finish(error=failure.summary(failure.describe(error, child)))
    return child.to_dict(with_artifacts=True)


def _run_one_by_one(context: Context, plan: Plan, call: Call) -> list[JsonDict]:
    runs, errors = [], 0
    for parameters in plan:
        done = run_child(context.get_child_context(with_parent_params=True, **parameters), call)
        context.forget_child()
        runs.append(done)
        errors += done["status"]["state"] == "error"
        if ends_early(context, plan, done, errors):
            break
    return runs


def ends_early(context: Context, plan: Plan, done: JsonDict, errors: int) -> bool:
    if errors > plan.max_errors:
        context.logger.error(f"stopped after {errors} failed iterations", max_errors=plan.max_errors)
        return True
    if plan.stop is not None and done["status"]["state"] != "error" and plan.stop.holds(done["status"].get("results") or {}):
        context.logger.info("the stop condition holds", iteration=done["metadata"]["iteration"], condition=plan.stop.text)
        return True
    return False


def summarize(context: Context, runs: list[JsonDict], *, selector: tuple[str, str] = ("", ""), best: int = 0) -> None:
    """The table of iterations, its artifacts, the best child's outputs, and the run's state."""
    from . import hyper_report

    runs = sorted(runs, key=lambda one: int(one["metadata"]["iteration"]))
    table = hyper_report.table_of(runs)
    context._iterations = table
    best = best or select(runs, selector)
    if best:
        context.log_result("best_iteration", best)
        _take_best(context, next(one for one in runs if one["metadata"]["iteration"] == best))
    elif selector[1]:
        context.logger.warning(f"no iteration has a number as result '{selector[1]}', there is no best iteration")
    context.log_artifact(art.TableArtifact("iteration_results", table[1:], header=[str(name) for name in table[0]]))
    context.log_artifact(
        # Kind plot, not plotly: the SDK cannot even read a plotly artifact's record where that package is missing.
        art.PlotArtifact("parallel_coordinates", hyper_report.parallel_coordinates(table, context.name)),
    )
    failed = sum(1 for one in runs if one["status"]["state"] == "error")
    if failed:
        context.set_state(error=f"{failed} of {len(runs)} iterations failed, their errors are in the log", commit=False)
    if len(encode(table)) < MAX_TABLE:  # the artifact has all of a larger one
        context._patch({"status.iterations": table})


def _take_best(context: Context, run: JsonDict) -> None:
    results = run["status"].get("results") or {}
    if results:
        context.log_results(results)
    for record in run["status"].get("artifacts") or []:
        meta, spec = record["metadata"], record["spec"]
        link = art.LinkArtifact(meta["key"], target_path=spec["target_path"])
        link.spec.update(link_iteration=meta["iter"], link_key=spec["db_key"], link_tree=meta["tree"])
        art.register(context, link, tag=meta.get("tag", ""))
        context._artifact_uris[meta["key"]] = link.uri
        context._patch({"status.artifact_uris." + f"\\{meta['key']}\\": link.uri})


def _number(options: JsonDict, name: str, default: int) -> int:
    value = options.get(name)
    if value is None or value == "":
        return default
    try:
        number = int(value)
    except (TypeError, ValueError):
        raise InvalidArgument(f"{name} is {short(value)}, it must be a whole number") from None
    if number < 0 or isinstance(value, bool) or number > MAX_ITERATIONS:
        raise InvalidArgument(f"{name} is {short(value)}, it must be between 0 and {MAX_ITERATIONS}")
    return number


def _upcast(table: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """Rows go through a table in MLRun: when every column is a number and one is a float, all are floats."""
    columns = [column for column in table.values() if isinstance(column, list)]
    numbers = all(type(value) in (int, float) for column in columns for value in column)
    if numbers and any(type(value) is float for column in columns for value in column):
        return {name: [float(value) for value in column] for name, column in table.items()}
    return table


def _read_csv(text: str, url: str) -> dict[str, list[Any]]:
    import csv
    import io

    rows = [row for row in csv.reader(io.StringIO(text)) if row]
    if len(rows) < 2:
        raise InvalidArgument(f"param_file {short(url)} needs a line of names and at least one line of values")
    if len(rows) - 1 > MAX_ITERATIONS:
        raise InvalidArgument(f"param_file {short(url)} has {len(rows) - 1} rows, at most {MAX_ITERATIONS} iterations are run")
    width = len(rows[0])
    for number, row in enumerate(rows[1:], 2):
        if len(row) != width:
            raise InvalidArgument(f"param_file {short(url)}: row {number} has {len(row)} values, the names are {width}")
    return {name.strip(): _typed([row[place].strip() for row in rows[1:]]) for place, name in enumerate(rows[0])}


def _typed(column: list[str]) -> list[Any]:
    """A column of numbers or truth values where every value is one, else text."""
    for kind in (int, float):
        try:
            return [kind(value) for value in column]
        except ValueError:
            continue
    if all(value in ("True", "False", "true", "false") for value in column):
        return [value.lower() == "true" for value in column]
    return list(column)
