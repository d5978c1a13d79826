"""How many threads FAISS may use in this process."""

import faiss


def use_threads(count: int) -> None:
    """Give FAISS `count` threads: small batches on a shared machine are fastest with one."""
    faiss.omp_set_num_threads(count)
