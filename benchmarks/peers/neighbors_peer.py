"""scikit-learn and faiss at the work of `retrack bench neighbors`: exact neighbors of random images in memory.

Both get the floats that they compute on: neither pays for a conversion from bytes.
"""

import argparse

import numpy as np

from common import emit, peak_rss_bytes, summary, timed


def parse():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("library", choices=["sklearn", "faiss"])
    parser.add_argument("--rows", type=int, required=True)
    parser.add_argument("--bytes", type=int, required=True)
    parser.add_argument("--queries", type=int, default=1)
    parser.add_argument("--neighbors", type=int, default=10)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--threads", type=int, required=True)
    return parser.parse_args()


def main():
    args = parse()
    random = np.random.default_rng(0)
    rows = random.integers(0, 256, (args.rows, args.bytes), dtype=np.uint8).astype(np.float32)
    queries = random.integers(0, 256, (args.queries, args.bytes), dtype=np.uint8).astype(np.float32)

    if args.library == "sklearn":
        from sklearn.neighbors import NearestNeighbors
        from threadpoolctl import threadpool_limits

        threadpool_limits(args.threads)

        def search():
            NearestNeighbors(n_neighbors=args.neighbors, algorithm="brute").fit(rows).kneighbors(queries)

    else:
        import faiss

        faiss.omp_set_num_threads(args.threads)
        index = faiss.IndexFlatL2(args.bytes)
        index.add(rows)

        def search():
            index.search(queries, args.neighbors)

    seconds = timed(args.repeat, search)
    emit(
        work="neighbors",
        library=args.library,
        threads=args.threads,
        repeat=args.repeat,
        seconds_per_query=summary(seconds, args.queries),
        peak_rss_bytes=peak_rss_bytes(),
    )


main()
