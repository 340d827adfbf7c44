"""``images.sql``: the images that are there now, and what people said of them, for DuckDB."""

from __future__ import annotations

from pipeline.contract import layout
from pipeline.contract.corrections import write_corrections
from pipeline.contract.schema import Status
from pipeline.storage.store import Store


def write_view(store: Store) -> None:
    """Write the view, and the header alone of corrections, without which it would find no file as
    long as there are none. Both are always the same, whoever writes them."""
    store.write_bytes(layout.CORRECTION_COLUMNS, write_corrections([]))
    store.write_bytes(layout.VIEW, _view(store).encode("utf-8", "backslashreplace"))


def _view(store: Store) -> str:
    rows, corrections = (
        store.locate(name).replace("'", "''")
        for name in (f"{layout.DATA}/**/*.parquet", layout.CORRECTION_FILES)
    )
    return f"""\
-- The newest row of every image that is there, and what people said of it last:
-- duckdb -init images.sql
CREATE OR REPLACE VIEW corrections AS
SELECT uri, label AS corrected_label, coalesce(verdict, 'label') AS corrected_verdict,
    who AS corrected_by
FROM read_csv(
    '{corrections}', header = true, all_varchar = true, union_by_name = true,
    delim = ',', quote = '"', escape = '"', filename = true
)
WHERE label <> '' OR verdict <> ''
QUALIFY row_number() OVER (PARTITION BY uri ORDER BY "when" DESC, filename DESC) = 1;

CREATE OR REPLACE VIEW images AS
FROM (
    FROM read_parquet('{rows}', hive_partitioning = true, union_by_name = true)
    QUALIFY row_number() OVER (PARTITION BY uri ORDER BY run DESC) = 1
    AND status <> '{Status.VANISHED.value}'
) LEFT JOIN corrections USING (uri);
"""
