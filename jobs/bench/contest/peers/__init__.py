"""The same job as others would write it, a script each, as the documentation of its library has it.

Each is called with the same arguments, writes Parquet with `uri`, `label` and `score`, and imports
nothing of ours but `entry`, which says when its workers were ready and when it ended.
"""
