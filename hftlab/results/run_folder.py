"""Results on disk that appear whole or not at all.

Everything is written beside its target under a hidden name, forced to the disk, then renamed. A full
disk, an error or Ctrl-C in the middle leaves nothing that could be mistaken for a result.

    with RunWriter("run") as run:            # a run folder, table by table, chunk by chunk
        run.append("fills", fills)
        run.commit(manifest(digest=..., counts=..., wall_time_s=..., input_path=...))

    with new_file("flow.parquet") as path:   # a single file
        pq.write_table(table, path)
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from hftlab.files import (
    COMPRESSION,
    beside,
    check_target,
    cpu_name,
    force_to_disk,
    output_errors,
    remove,
    remove_abandoned,
    sha256_of,
    versions,
)

MANIFEST = "manifest.json"


class RunWriter:
    """A run folder being written; it appears under its name when `commit` returns.

    ``append(name, table)`` adds rows to ``name.parquet`` (an empty table makes an empty file), so a
    chunked replay never holds its results. Dictionary columns stay dictionaries. Leaving the ``with``
    block without ``commit``, for whatever reason, removes everything.

    Raises OutputError when the target exists already or can't be written.
    """

    def __init__(self, target: str | Path) -> None:
        self.target = Path(target)
        check_target(self.target)
        self._partial = beside(self.target)
        self._writers: dict[str, pq.ParquetWriter] = {}
        self._rows: dict[str, int] = {}

    def __enter__(self) -> Self:
        check_target(self.target)
        with output_errors(self.target):
            remove_abandoned(self.target)
            remove(self._partial)  # left by a killed process that had our process id
            self._partial.mkdir()
        return self

    def append(self, name: str, table: pa.Table) -> None:
        """Add the rows of a table; every table of one name has the same schema."""
        with output_errors(self.target):
            if name not in self._writers:
                path = self._partial / f"{name}.parquet"
                self._writers[name] = pq.ParquetWriter(
                    path, table.schema, compression=COMPRESSION, write_page_checksum=True
                )
                self._rows[name] = 0
            self._writers[name].write_table(table)
        self._rows[name] += table.num_rows

    def missing(self, name: str) -> bool:
        """Whether nothing has been appended to a table."""
        return name not in self._rows

    def commit(self, manifest: Mapping[str, Any]) -> None:
        """Finish the tables, write the manifest (with each table's row count) and give it its name."""
        with output_errors(self.target):
            self._close()
            text = json.dumps({**manifest, "tables": self._rows}, indent=2, default=str)
            (self._partial / MANIFEST).write_text(text + "\n", encoding="utf-8")
            # contents first, then names, so that a crash can't leave a named folder with empty files
            for path in self._partial.iterdir():
                force_to_disk(path)
            force_to_disk(self._partial)
            check_target(self.target)  # it may have appeared meanwhile, and an empty one would be replaced
            self._partial.rename(self.target)
            force_to_disk(self.target.parent)

    def _close(self) -> None:
        while self._writers:
            self._writers.popitem()[1].close()

    def __exit__(self, *_: object) -> None:
        while self._writers:
            try:
                self._close()
            except (OSError, pa.ArrowException):  # the disk is still full: the file goes anyway
                continue
        remove(self._partial)


def write_run(
    target: str | Path, tables: Mapping[str, pa.Table | Iterable[pa.Table]], manifest: Mapping[str, Any]
) -> None:
    """Write a run folder in one go: a Parquet file per table (given whole or in parts) and the manifest.

    Raises OutputError when the target exists already or can't be written.
    """
    with RunWriter(target) as run:
        for name, parts in tables.items():
            for part in [parts] if isinstance(parts, pa.Table) else parts:
                run.append(name, part)
        run.commit(manifest)


def manifest(
    *,
    digest: str,
    counts: Mapping[str, Any],
    wall_time_s: Mapping[str, float],
    input_path: str | Path | None = None,
    config: Any = None,
) -> dict[str, Any]:
    """Where a run came from: input and its hash, settings, versions, machine, counts, digest.

    ``input_path`` is None for a table in memory; ``config`` is anything JSON can hold.
    """
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "input": None if input_path is None else _describe(Path(input_path)),
        "config": config,
        "digest": digest,
        "counts": dict(counts),
        "wall_time_s": dict(wall_time_s),
        "versions": versions(),
        "cpu": cpu_name(),
    }


def _describe(path: Path) -> dict[str, Any]:
    return {"path": str(path), "bytes": path.stat().st_size, "sha256": sha256_of(path)}
