/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A tree of nodes; its leaves' cells are a use and a count in 4 bits each, until
 * a count does not fit; then the leaf has wide ones.
 */
#include <errno.h>
#include <stdlib.h>

#include "formats/drivers/ref-map.h"
#include "iouring/util.h"

#define LEAF_BITS  10U
#define LEAF_CELLS (1U << LEAF_BITS)
#define NODE_BITS  11U
#define NODE_SLOTS (1U << NODE_BITS)
#define LEVELS_MAX 5U /* enough for 2^64 bytes of 512-byte clusters */
#define NARROW_MAX 15U

struct leaf {
	uint8_t *narrow; /* NULL when there are wide ones */
	uint32_t *wide;
};

int ref_map_take(struct ref_map *m, size_t bytes, struct error *err)
{
	if (bytes > m->bytes_max - m->bytes)
		return error_set(err, -EFBIG, 0,
				 "checking needs more than the limit of %zu "
				 "MiB of memory",
				 m->bytes_max >> 20);
	m->bytes += bytes;
	return 0;
}

void *ref_map_calloc(struct ref_map *m, size_t n, size_t bytes,
		     struct error *err)
{
	void *p;

	if (ref_map_take(m, n * bytes, err) < 0)
		return NULL;
	p = calloc(n, bytes);
	if (!p)
		error_set(err, -ENOMEM, 0, "out of memory");
	return p;
}

int ref_map_init(struct ref_map *m, uint64_t highest, size_t bytes_max,
		 struct error *err)
{
	*m = (struct ref_map){ .levels = 1, .bytes_max = bytes_max };
	while (m->levels < LEVELS_MAX &&
	       highest >> (LEAF_BITS + m->levels * NODE_BITS))
		m->levels++;
	m->root = ref_map_calloc(m, NODE_SLOTS, sizeof(*m->root), err);
	return m->root ? 0 : err->code;
}

/* A slot's index at a level; the leaves' level is 0. */
static size_t slot_idx(uint64_t cluster, unsigned int level)
{
	return cluster >> (LEAF_BITS + level * NODE_BITS) & (NODE_SLOTS - 1);
}

/* NULL: nothing there is used. */
static struct leaf *leaf_find(const struct ref_map *m, uint64_t cluster)
{
	void **node = m->root;
	unsigned int level = m->levels;

	while (node && level-- > 1)
		node = node[slot_idx(cluster, level)];
	return node ? node[slot_idx(cluster, 0)] : NULL;
}

static struct leaf *leaf_make(struct ref_map *m, uint64_t cluster,
			      struct error *err)
{
	void **node = m->root, **slot;
	unsigned int level = m->levels;
	struct leaf *leaf;

	while (level-- > 1) {
		slot = &node[slot_idx(cluster, level)];
		if (!*slot)
			*slot = ref_map_calloc(m, NODE_SLOTS, sizeof(*slot),
					       err);
		if (!*slot)
			return NULL;
		node = *slot;
	}
	slot = &node[slot_idx(cluster, 0)];
	if (*slot)
		return *slot;
	leaf = ref_map_calloc(m, 1, sizeof(*leaf), err);
	if (!leaf)
		return NULL;
	leaf->narrow =
		ref_map_calloc(m, LEAF_CELLS, sizeof(*leaf->narrow), err);
	if (!leaf->narrow) {
		free(leaf);
		return NULL;
	}
	*slot = leaf;
	return leaf;
}

static struct ref_cell leaf_get(const struct leaf *leaf, uint64_t cluster)
{
	size_t i = cluster & (LEAF_CELLS - 1);
	uint32_t v;

	if (leaf->wide) {
		v = leaf->wide[i];
		return (struct ref_cell){ v >> 28, v & REF_MAP_REFS_MAX };
	}
	v = leaf->narrow[i];
	return (struct ref_cell){ v >> 4, v & NARROW_MAX };
}

static int leaf_widen(struct ref_map *m, struct leaf *leaf, struct error *err)
{
	uint32_t *wide = ref_map_calloc(m, LEAF_CELLS, sizeof(*wide), err);
	size_t i;

	if (!wide)
		return err->code;
	for (i = 0; i < LEAF_CELLS; i++) {
		struct ref_cell c = leaf_get(leaf, i);

		wide[i] = c.use << 28 | c.refs;
	}
	leaf->wide = wide;
	free(TAKE_PTR(leaf->narrow));
	m->bytes -= LEAF_CELLS * sizeof(*leaf->narrow);
	return 0;
}

struct ref_cell ref_map_get(const struct ref_map *m, uint64_t cluster)
{
	const struct leaf *leaf = leaf_find(m, cluster);

	return leaf ? leaf_get(leaf, cluster) : (struct ref_cell){ 0 };
}

int ref_map_set(struct ref_map *m, uint64_t cluster, struct ref_cell c,
		struct error *err)
{
	struct leaf *leaf = leaf_make(m, cluster, err);
	size_t i = cluster & (LEAF_CELLS - 1);
	int r;

	if (!leaf)
		return err->code;
	if (!leaf->wide && c.refs > NARROW_MAX) {
		r = leaf_widen(m, leaf, err);
		if (r < 0)
			return r;
	}
	if (leaf->wide)
		leaf->wide[i] = c.use << 28 | c.refs;
	else
		leaf->narrow[i] = (uint8_t)(c.use << 4 | c.refs);
	return 0;
}

uint64_t ref_map_next(const struct ref_map *m, uint64_t cluster, uint64_t end,
		      uint64_t *ret_stop)
{
	*ret_stop = end;
	while (cluster < end) {
		unsigned int level = m->levels - 1;
		void **node = m->root;

		while (node[slot_idx(cluster, level)]) {
			if (!level) {
				*ret_stop = min_u64(
					end, round_down(cluster, LEAF_CELLS) +
						     LEAF_CELLS);
				return cluster;
			}
			node = node[slot_idx(cluster, level--)];
		}
		/* Nothing in this slot: on to where the next one begins. */
		cluster = (cluster >> (LEAF_BITS + level * NODE_BITS)) + 1;
		cluster <<= LEAF_BITS + level * NODE_BITS;
	}
	return end;
}

/* Four levels at most: the depth is ours, not the file's. */
static void node_free(void **node, unsigned int levels)
{
	size_t i;

	for (i = 0; node && i < NODE_SLOTS; i++) {
		struct leaf *leaf = node[i];

		if (levels > 1) {
			node_free(node[i], levels - 1);
		} else if (leaf) {
			free(leaf->narrow);
			free(leaf->wide);
			free(leaf);
		}
	}
	free(node);
}

void ref_map_done(struct ref_map *m)
{
	node_free(m->root, m->levels);
	m->root = NULL;
}
