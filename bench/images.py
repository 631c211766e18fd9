# SPDX-License-Identifier: BSD-3-Clause
"""The disks that are measured: made once, the same on every machine.

The raw disk is a mix of words, records and noise that deflate packs about
two to one; every 64 KiB piece is stamped with its number, so that a server
that mixes clusters up is noticed. Images with a chosen placement (scattered
clusters, chains, a million extents) are written here from the qcow2
specification, because no tool lets one choose; the plain and compressed ones
come from qemu-img.
"""

import array
import contextlib
import os
import random
import struct
import subprocess
import sys

PIECE = 64 * 1024
MIB = 1024 * 1024
TIB = 1024 ** 4

COPIED = 1 << 63  # bit of an L1 or L2 entry: the refcount is exactly one


def tables_to_bytes(table):
    if sys.byteorder == 'little':
        table = array.array(table.typecode, table)
        table.byteswap()
    return table.tobytes()


def write_qcow2(path, disk_bytes, cluster_bits, order, content,
                backing=None):
    """Writes a version 3 qcow2 file.

    order: the guest clusters that are allocated, in the order in which their
    host clusters lie in the file. content(index): the bytes of one of them.
    """
    cluster = 1 << cluster_bits
    l2_entries = cluster // 8
    clusters = -(-disk_bytes // cluster)
    l1_size = -(-clusters // l2_entries)
    refcounts_per_block = cluster // 2  # refcounts of 16 bits

    l1_clusters = -(-l1_size * 8 // cluster)
    l2_idx = sorted({c // l2_entries for c in order})

    # header, L1, L2 tables and data, then what the refcounts of all need
    payload = 1 + l1_clusters + len(l2_idx) + len(order)
    blocks, table_clusters = 1, 1
    while True:
        total = payload + blocks + table_clusters
        need_blocks = -(-total // refcounts_per_block)
        need_table = -(-need_blocks * 8 // cluster)
        if need_blocks <= blocks and need_table <= table_clusters:
            break
        blocks, table_clusters = need_blocks, need_table

    reftable_at = 1
    refblock_at = reftable_at + table_clusters
    l1_at = refblock_at + blocks
    l2_at = l1_at + l1_clusters
    data_at = l2_at + len(l2_idx)

    name = backing.encode() if backing else b''
    extensions = b''
    if backing:
        extensions += struct.pack('>II8s', 0xe2792aca, 5, b'qcow2')
    extensions += struct.pack('>II', 0, 0)
    name_at = 104 + len(extensions)
    header = struct.pack('>4sIQIIQIIQQIIQQQQII',
                         b'QFI\xfb', 3, name_at if name else 0, len(name),
                         cluster_bits, disk_bytes, 0, l1_size,
                         l1_at * cluster, reftable_at * cluster,
                         table_clusters, 0, 0, 0, 0, 0, 4, 104)

    reftable = array.array('Q', bytes(table_clusters * cluster))
    for i in range(blocks):
        reftable[i] = (refblock_at + i) * cluster
    refblocks = array.array('H', bytes(blocks * cluster))
    refblocks[:total] = array.array('H', [1]) * total

    l1 = array.array('Q', bytes(l1_clusters * cluster))
    l2 = {}
    for i, idx in enumerate(l2_idx):
        l1[idx] = (l2_at + i) * cluster | COPIED
        l2[idx] = array.array('Q', bytes(cluster))
    for i, guest in enumerate(order):
        l2[guest // l2_entries][guest % l2_entries] = \
            (data_at + i) * cluster | COPIED

    with open(path, 'wb', buffering=4 * MIB) as f:
        f.write((header + extensions + name).ljust(cluster, b'\0'))
        f.write(tables_to_bytes(reftable))
        f.write(tables_to_bytes(refblocks))
        f.write(tables_to_bytes(l1))
        for idx in l2_idx:
            f.write(tables_to_bytes(l2[idx]))
        for guest in order:
            f.write(content(guest))


def words_pool(rng, length):
    """Text: words of a made-up language, the frequent ones short."""
    letters = 'etaoinshrdlucmfwypvbgkjqxz'
    words = []
    for i in range(4000):
        n = 2 + min(9, int(rng.expovariate(0.35)))
        words.append(''.join(letters[min(25, int(rng.expovariate(0.17)))]
                             for _ in range(n)))
    pool, size = [], 0
    while size < length:
        w = words[min(3999, int(rng.expovariate(0.004)))]
        if rng.random() < 0.1:
            w += rng.choice(('.\n', ', ', ';', ' = %d' % rng.randrange(9999)))
        pool.append(w)
        size += len(w) + 1
    return ' '.join(pool).encode()[:length]


def piece(rng, idx, pool):
    """One PIECE of a disk: 16 pages, each words, records or noise."""
    out = [struct.pack('<8sQ', b'platter\0', idx)]
    size = 16
    while size < PIECE:
        kind = rng.random()
        if kind < 0.50:
            at = rng.randrange(len(pool) - 4096)
            part = pool[at:at + 4096]
        elif kind < 0.93:
            base = rng.randrange(1 << 40)
            part = b''.join(struct.pack('<QIHHQ8x', base + 96 * i,
                                        rng.getrandbits(20), i & 7, 0o644,
                                        rng.getrandbits(32))
                            for i in range(128))
        else:
            part = rng.randbytes(4096)
        out.append(part)
        size += len(part)
    return b''.join(out)[:PIECE]


class ImageError(Exception):
    pass


class Images:
    """The folder of disks; each method returns a path, made when missing."""

    def __init__(self, folder, disk_bytes, say):
        self.folder = os.path.abspath(folder)
        self.disk_bytes = disk_bytes
        self.say = say
        os.makedirs(self.folder, exist_ok=True)

    def path(self, name):
        return os.path.join(self.folder, name)

    def sized(self, name):
        stem, dot, suffix = name.partition('.')
        return self.path('%s-%dM%s%s' %
                         (stem, self.disk_bytes // MIB, dot, suffix))

    def make(self, path, build, needs=0, quiet=False):
        """build(temporary name) once; the name appears when it is whole."""
        if os.path.exists(path):
            return path
        st = os.statvfs(self.folder)
        if st.f_bavail * st.f_frsize < needs + 64 * MIB:
            raise ImageError('%s: %d MiB are needed for %s, %d are free' %
                             (self.folder, needs // MIB,
                              os.path.basename(path),
                              st.f_bavail * st.f_frsize // MIB))
        if not quiet:
            self.say('making %s' % os.path.basename(path))
        part = path + '.part'
        try:
            build(part)
            os.rename(part, path)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(part)
        return path

    def tool(self, *argv):
        r = subprocess.run(argv, stdout=subprocess.PIPE,
                           stderr=subprocess.STDOUT, text=True)
        if r.returncode != 0:
            raise ImageError('%s: %s' % (' '.join(argv), r.stdout.strip()))

    def same_as_raw(self, path):
        self.tool('qemu-img', 'compare', '-f', 'qcow2', '-F', 'raw',
                  path, self.raw())

    def raw(self):
        def build(part):
            rng = random.Random(20240229)
            pool = words_pool(rng, 2 * MIB)
            with open(part, 'wb', buffering=4 * MIB) as f:
                for idx in range(self.disk_bytes // PIECE):
                    f.write(piece(rng, idx, pool))
        return self.make(self.sized('data.raw'), build, self.disk_bytes)

    def convert(self, name, *options, fmt='qcow2'):
        raw = self.raw()

        def build(part):
            self.tool('qemu-img', 'convert', '-f', 'raw', '-O', fmt,
                      *options, raw, part)
        return self.make(self.sized(name), build, self.disk_bytes)

    def plain(self):
        return self.convert('plain.qcow2')

    def zlib(self):
        return self.convert('zlib.qcow2', '-c')

    def zstd(self):
        return self.convert('zstd.qcow2', '-c', '-o', 'compression_type=zstd')

    def packed(self, platter, end):
        """By platter pack, which overwrites nothing."""
        raw = self.raw()

        def build(part):
            subprocess.run([platter, 'pack', '-q', '--overwrite', '-O', end,
                            raw, part], check=True)
        return self.make(self.sized('packed.' + end), build, 1)

    def blocks_xz(self):
        """Of the blocks that packed() has."""
        raw = self.raw()

        def build(part):
            with open(part, 'wb') as f:
                subprocess.run(['xz', '-0', '--block-size=%d' % PIECE, '-c',
                                raw], check=True, stdout=f)
        return self.make(self.sized('blocks.xz'), build, 1)

    def scattered(self):
        """Every cluster is there, none beside its neighbour."""
        raw = self.raw()

        def build(part):
            order = list(range(self.disk_bytes // PIECE))
            random.Random(1).shuffle(order)
            with open(raw, 'rb') as f:
                def content(idx):
                    f.seek(idx * PIECE)
                    return f.read(PIECE)
                write_qcow2(part, self.disk_bytes, 16, order, content)
            self.same_as_raw(part)
        return self.make(self.sized('scattered.qcow2'), build,
                         self.disk_bytes)

    def chain(self, depth):
        """Each cluster lies in one of @depth layers, at random."""
        raw = self.raw()
        folder = self.sized('chain%d' % depth)
        top = os.path.join(folder, 'layer-%03d.qcow2' % (depth - 1))
        if os.path.exists(top):
            return top
        os.makedirs(folder, exist_ok=True)
        self.say('making %s' % os.path.basename(folder))
        rng = random.Random(2)
        layers = [[] for _ in range(depth)]
        for idx in range(self.disk_bytes // PIECE):
            layers[rng.randrange(depth)].append(idx)
        with open(raw, 'rb') as f:
            def content(idx):
                f.seek(idx * PIECE)
                return f.read(PIECE)

            # The top, whose presence says that all are there, comes last.
            for i, order in enumerate(layers):
                path = os.path.join(folder, 'layer-%03d.qcow2' % i)
                below = 'layer-%03d.qcow2' % (i - 1) if i else None

                def build(part, order=order, below=below, i=i):
                    write_qcow2(part, self.disk_bytes, 16, order, content,
                                below)
                    if i == depth - 1:
                        self.same_as_raw(part)
                self.make(path, build, self.disk_bytes // depth,
                          quiet=True)
        return top

    def huge(self):
        """64 TiB with a cluster of data at the start, middle and end."""
        def build(part):
            self.tool('qemu-img', 'create', '-q', '-f', 'qcow2', part, '64T')
            self.tool('qemu-io', '-f', 'qcow2', '-c', 'write -P 1 0 64k',
                      '-c', 'write -P 2 32T 64k',
                      '-c', 'write -P 3 %d 64k' % (64 * TIB - PIECE), part)
        return self.make(self.path('huge-64T.qcow2'), build, 4 * MIB)

    def alternating(self, extents):
        """Every other 4 KiB cluster is allocated, and holds data."""
        def build(part):
            page = random.Random(3).randbytes(4096)
            write_qcow2(part, extents * 4096, 12,
                        range(0, extents, 2), lambda idx: page)
            self.tool('qemu-img', 'check', '-q', '-f', 'qcow2', part)
        return self.make(self.path('alternating-%d.qcow2' % extents), build,
                         extents // 2 * 4096)
