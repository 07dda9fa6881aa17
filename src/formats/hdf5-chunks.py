"""Makes files with chunks of every kind, and beside each dataset its values as h5py reads them: python3 hdf5-chunks.py FOLDER. Prints, as JSON, a list of
[file, dataset, dtype, shape, file of values]. Run by hdf5-chunks.test.ts."""

import json
import os
import sys

import h5py
import numpy as np

folder = sys.argv[1]
listed = []
random = np.random.default_rng(7)


def values(shape, dtype):
    numbers = random.integers(0, 250, shape)
    return numbers.astype(dtype) if np.dtype(dtype).kind in "iu" else (numbers / 4 - 20).astype(dtype)


def save(name, make, **options):
    path = os.path.join(folder, f"{name}.h5")
    with h5py.File(path, "w", **options) as file:
        make(file)
    with h5py.File(path, "r") as file:
        for dataset in sorted(file):
            raw = os.path.join(folder, f"{name}-{dataset}.bin")
            data = file[dataset][()]
            data.tofile(raw)
            listed.append([path, dataset, data.dtype.str, list(data.shape), raw])


def common(file):
    for shape, chunks in (((13, 7), (4, 3)), ((13, 7), (13, 7)), ((3, 5, 8), (2, 2, 3)), ((3, 5, 8), (1, 5, 8)), ((40, 1), (7, 1)), ((5, 300), (2, 128))):
        name = "x".join(map(str, shape)) + "_" + "x".join(map(str, chunks))
        for filters, options in (
            ("plain", {}),
            ("gzip", {"compression": "gzip"}),
            ("all", {"compression": "gzip", "shuffle": True, "fletcher32": True}),
            ("sums", {"fletcher32": True}),
        ):
            for dtype in ("<f2", "<f8", "<i1"):
                file.create_dataset(f"{name}_{filters}_{dtype[1:]}", data=values(shape, dtype), chunks=chunks, **options)


def growing(file):
    for axes in ((0,), (1,), (0, 1), (2,), (0, 1, 2)):
        for filters, options in (("plain", {}), ("gzip", {"compression": "gzip"})):
            shape = (9, 10, 6)
            most = tuple(None if axis in axes else size + 5 for axis, size in enumerate(shape))
            name = "grow" + "".join(map(str, axes)) + filters
            dataset = file.create_dataset(name, data=values(shape, "<f4"), chunks=(2, 3, 4), maxshape=most, **options)
            dataset.resize((7, 11, 6))
            dataset[2:4, 10] = 3


def sparse(file):
    for filters, options in (("plain", {}), ("gzip", {"compression": "gzip"})):
        for fill in (0, 2.5):
            dataset = file.create_dataset(f"{filters}_{int(fill)}", shape=(50, 6), chunks=(4, 4), dtype="<f4", fillvalue=fill, **options)
            dataset[9:12, 2:5] = 7
            dataset[44] = 8
    file.create_dataset("never", shape=(6, 6), chunks=(4, 4), dtype="<f2", fillvalue=-1)


def early(file):
    """Space for all chunks in one piece: without filters and growth, no index is needed."""
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_chunk((4, 3))
    plist.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    dataset = h5py.h5d.create(file.id, b"early", h5py.h5t.IEEE_F32LE, h5py.h5s.create_simple((13, 7)), plist)
    dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, values((13, 7), "<f4"))


def masked(file):
    """A chunk that went past some of its filters."""
    dataset = file.create_dataset("masked", shape=(4, 6), chunks=(4, 3), dtype="<f4", compression="gzip", shuffle=True)
    dataset[()] = values((4, 6), "<f4")
    dataset.id.write_direct_chunk((0, 3), values((4, 3), "<f4").tobytes(), 0b11)


def many(file):
    """So many chunks that arrays have pages and super blocks, and B-trees several levels."""
    for filters, options in (("plain", {}), ("gzip", {"compression": "gzip", "compression_opts": 1})):
        fixed = file.create_dataset(f"fixed_{filters}", shape=(5000, 2), chunks=(1, 2), dtype="<i4", **options)
        fixed[100:1500] = values((1400, 2), "<i4")
        fixed[4200:4300] = values((100, 2), "<i4")
        grown = file.create_dataset(f"grown_{filters}", shape=(20000, 2), maxshape=(None, 2), chunks=(1, 2), dtype="<i4", **options)
        grown[0:3000] = values((3000, 2), "<i4")
        grown[9000:9100] = values((100, 2), "<i4")
        grown[19990:20000] = values((10, 2), "<i4")
        # Data blocks of more than a page begin past 131,060 chunks.
        far = file.create_dataset(f"far_{filters}", shape=(200000, 1), maxshape=(None, 1), chunks=(1, 1), dtype="<i4", **options)
        far[140000:140100] = values((100, 1), "<i4")
        far[150000:150050] = values((50, 1), "<i4")
        tree = file.create_dataset(f"tree_{filters}", shape=(7000, 1), maxshape=(None, None), chunks=(1, 1), dtype="<i4", **options)
        tree[0:6900] = values((6900, 1), "<i4")


def edges(file):
    """Edge chunks as they are, though the dataset has a filter: what the layout message must say for it is put in by the test."""
    data = values((5, 3), "<f4")
    dataset = file.create_dataset("edges", shape=(5, 3), chunks=(4, 3), dtype="<f4", compression="gzip")
    dataset[0:4] = data[0:4]
    padded = np.zeros((4, 3), "<f4")
    padded[0] = data[4]
    dataset.id.write_direct_chunk((4, 0), padded.tobytes(), 0)
    data.tofile(os.path.join(folder, "edges.bin"))


with h5py.File(os.path.join(folder, "edges.h5"), "w", libver="latest") as file:
    edges(file)

for version, name in (("earliest", "old"), ("latest", "new")):
    for make in (common, growing, sparse, early, masked, many):
        save(f"{name}-{make.__name__}", make, libver=version)
save("block", common, libver="latest", userblock_size=1024)
print(json.dumps(listed))
