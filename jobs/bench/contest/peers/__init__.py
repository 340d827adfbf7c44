"""The same job as others would write it, a script each, as the documentation of its library has it.

On a GPU each uses the card as its documentation says, has computed a first batch before it is
ready, and leaves the cores to what prepares images.

Each is called with the same arguments, writes Parquet with ``uri``, ``label`` and ``score``, and
imports nothing of ours but ``entry``, which says when its workers were ready and when it ended.
"""
