"""Reads what the tests left in target/tmp/parquet with pyarrow, and compares it with what went in. Argument: that folder."""

import datetime
import json
import pathlib
import sys

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

folder = pathlib.Path(sys.argv[1])
expected = json.loads((folder / "expected.json").read_text())
utc = datetime.timezone.utc


def moment(milliseconds):
    return datetime.datetime.fromtimestamp(0, utc) + datetime.timedelta(milliseconds=int(milliseconds))


def typed(row):
    return {
        "email": row["email"],
        "amount": float(row["amount"]),
        "vip": row["vip"] == "true",
        "born": row["born"] and datetime.date.fromisoformat(row["born"]),
        "seen": row["seen"] and moment(row["seen"]),
        'größe, "🦀".\n': row['größe, "🦀".\n'],
    }


for name in ("none", "gzip", "zstd"):
    path = folder / f"{name}.parquet"
    table = pq.read_table(path)
    types = {field.name: field.type for field in table.schema}
    assert types["amount"] == pa.float64() and types["vip"] == pa.bool_() and types["born"] == pa.date32(), types
    assert types["seen"] == types["_created_at"] == pa.timestamp("ms", tz="UTC") and types["email"] == pa.string(), types
    rows = table.to_pylist()
    assert [row["_id"] for row in rows] == [str(n) for n in range(len(expected))]
    for row, given in zip(rows, expected, strict=True):
        want = typed(given)
        assert {key: row[key] for key in want} == want, (row, want)
    # Bounds that are wrong would make a filter lose rows.
    found = pq.read_table(path, filters=pc.field("amount") > 2490).num_rows
    assert found == sum(float(row["amount"]) > 2490 for row in expected), found
    codecs = {pq.ParquetFile(path).metadata.row_group(0).column(n).compression for n in range(len(types))}
    print(name, codecs, table.num_rows, "rows")
