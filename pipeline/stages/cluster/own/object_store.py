"""The size of the object store of a machine that a run starts Ray on."""

from __future__ import annotations

from pipeline.stages.allocation import GPU_BLOCK_BYTES, SMALLEST_STORE_BYTES, STORE_OF_BLOCK


def object_store_bytes(cpus: int, memory: int, shared_memory: int) -> int:
    """The object store of a machine with GPUs: so large that all of its cores can decode, of a
    machine with 16 some 8 GiB; but no more than 3 tenths of its memory, nor than /dev/shm holds.

    Memory is taken only as blocks come to lie there, which in a run that the decoding bounds are a
    few at a time.
    """
    wanted = int(GPU_BLOCK_BYTES * STORE_OF_BLOCK * (cpus + 2))
    return max(SMALLEST_STORE_BYTES, min(wanted, memory * 3 // 10, shared_memory * 9 // 10))
