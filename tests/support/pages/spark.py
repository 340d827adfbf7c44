"""Python of a page for whoever has Spark, which the tests have only where it was installed."""

import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

_BEFORE = """
import pyarrow.parquet
from pyspark.sql import SparkSession

spark = SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false").getOrCreate()
"""
_FOUND = "found.parquet"


def run_with_spark(lines: str, frame: str, directory: Path) -> pa.Table:
    """Run the lines as a program in a directory, where Spark looks for relative paths; what the
    ``frame`` of that name then has. Skips the test where there is no Spark, or no Java."""
    pytest.importorskip("pyspark", reason="pyspark is not installed: see CONTRIBUTING.md")
    if shutil.which("java") is None:
        pytest.skip("Spark needs Java")
    program = f"{_BEFORE}{lines}\npyarrow.parquet.write_table({frame}.toArrow(), {_FOUND!r})\n"
    subprocess.run([sys.executable, "-c", program], cwd=directory, check=True)
    return pq.read_table(directory / _FOUND)
