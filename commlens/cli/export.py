"""`commlens export`: the tables of a run, all ranks joined, for other tools."""

from __future__ import annotations

import enum
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    import pyarrow as pa

    from commlens.trace import Run


class Kind(str, enum.Enum):
    """A format to export to."""

    parquet = "parquet"
    csv = "csv"


def export(
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FOLDER", help="Where the files go.")],
    to: Annotated[Kind, typer.Option("--to", help="Format of the files.")],
    run: Annotated[
        Path | None,
        typer.Argument(help="Folder of a run. Default: newest in ./commlens-runs.", show_default=False),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite files in FOLDER.")] = False,
) -> None:
    """Write every table of a run, all ranks joined: FOLDER/collectives.parquet and so on."""
    from commlens.cli.output import check_free, write_file
    from commlens.cli.runs import open_chosen
    from commlens.trace.schema import TABLES

    opened = open_chosen([run] if run is not None else None)
    targets = {name: output / f"{name}.{to.value}" for name in TABLES}
    _make_folder(output)
    for path in targets.values():
        check_free(path, force)
    for name, path in targets.items():
        table = joined_table(opened, name)
        write_file(path, force, lambda part, table=table: _write(table, part, to))  # type: ignore[misc]
        typer.echo(path)
    for note in opened.notes:
        print(f"commlens: {note}", file=sys.stderr)  # noqa: T201


def joined_table(run: Run, name: str) -> pa.Table:
    """One table of all ranks, a `rank` column first, names as plain strings."""
    import pyarrow as pa

    from commlens.trace.schema import arrow_schema

    fields = [pa.field("rank", pa.int32()), *(_plain(field) for field in arrow_schema(name))]
    parts = []
    for number, rank in sorted(run.ranks.items()):
        rows = rank.table(name)
        numbers = pa.repeat(pa.scalar(number, pa.int32()), rows.num_rows)
        columns = [rows.column(f.name).cast(f.type) for f in fields[1:]]
        parts.append(pa.Table.from_arrays([numbers, *columns], schema=pa.schema(fields)))
    return pa.concat_tables(parts) if parts else pa.schema(fields).empty_table()


def _plain(field: pa.Field) -> pa.Field:
    import pyarrow as pa

    return field.with_type(pa.string()) if pa.types.is_dictionary(field.type) else field


def _make_folder(path: Path) -> None:
    from commlens.errors import WriteError

    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WriteError(f"cannot make the folder {path}: {error.strerror}") from error


def _write(table: pa.Table, path: Path, kind: Kind) -> None:
    if kind is Kind.csv:
        from pyarrow import csv

        csv.write_csv(table, path)
    else:
        from pyarrow import parquet

        parquet.write_table(table, path, compression="zstd")
