/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * libext2fs writes tables, extents and attributes; which block is whose is decided
 * here, folder and file after file as the tree has them, so that what lies side by
 * side in an archive does on the disk.
 */
#include "formats/rootfs/ext4.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "formats/rootfs/ext2fs-lib.h"
#include "iouring/util.h"

#define BLOCK	       EXT4_BLOCK_BYTES
#define INODE_BYTES    256U
#define EXTRA_BYTES    32U /* of an inode's second half, in use */
#define FAST_LINK_MAX  59U /* bytes of a target that lie in the inode */
#define EXTENT_MAX     32768U /* blocks of one */
#define FREE_BYTES_MIN (1ULL << 30) /* room to write, over the disk */
#define FREE_INODES    65536U
#define RUNS_MAX       (2U << 20)
#define FILE_BYTES_MAX ((1ULL << 32) * BLOCK - BLOCK)
#define LOST_FOUND     "lost+found"

struct maker {
	struct tree *tree;
	bool has_lost_found; /* of its own */
	int fd;
	ext2_filsys fs;
	uint64_t blocks; /* that files and folders need */
	uint32_t inodes;
	blk64_t goal; /* blocks before it are in use, mostly */
	struct ext4_disk *disk;
	size_t room; /* of disk->runs */
	struct error *err;
};

/* ---- the file, for libext2fs ---- */

/* That the one file system which this thread makes is written to. */
static _Thread_local int channel_fd;

static struct struct_io_manager manager;

static errcode_t channel_open(const char *name, int flags, io_channel *ret)
{
	io_channel c = calloc(1, sizeof(*c));
	int *fd = malloc(sizeof(*fd));

	if (c)
		c->name = strdup(name);
	if (!c || !fd || !c->name) {
		if (c)
			free(c->name);
		free(c);
		free(fd);
		return ENOMEM;
	}
	*fd = channel_fd;
	c->magic = EXT2_ET_MAGIC_IO_CHANNEL;
	c->manager = &manager;
	c->block_size = 1024;
	c->refcount = 1;
	c->private_data = fd;
	*ret = c;
	return 0;
}

static errcode_t channel_close(io_channel c)
{
	if (--c->refcount)
		return 0;
	free(c->private_data);
	free(c->name);
	free(c);
	return 0;
}

static errcode_t channel_set_blksize(io_channel c, int bytes)
{
	c->block_size = bytes;
	return 0;
}

/* @count: of blocks, or less 0, of bytes. */
static size_t channel_bytes(io_channel c, int count)
{
	return count < 0 ? (size_t)-count
			 : (size_t)count * (size_t)c->block_size;
}

static errcode_t channel_read64(io_channel c, unsigned long long block,
				int count, void *data)
{
	size_t n = channel_bytes(c, count);
	ssize_t got = pread(*(int *)c->private_data, data, n,
			    (off_t)(block * (unsigned int)c->block_size));

	if (got < 0)
		return errno;
	memset((uint8_t *)data + got, 0, n - (size_t)got);
	return 0;
}

static errcode_t channel_write64(io_channel c, unsigned long long block,
				 int count, const void *data)
{
	size_t n = channel_bytes(c, count);
	ssize_t done = pwrite(*(int *)c->private_data, data, n,
			      (off_t)(block * (unsigned int)c->block_size));

	if (done < 0)
		return errno;
	return (size_t)done == n ? 0 : EIO;
}

static errcode_t channel_read(io_channel c, unsigned long block, int count,
			      void *data)
{
	return channel_read64(c, block, count, data);
}

static errcode_t channel_write(io_channel c, unsigned long block, int count,
			       const void *data)
{
	return channel_write64(c, block, count, data);
}

static errcode_t channel_flush(io_channel c)
{
	return 0;
}

/* What was never written is a hole. */
static errcode_t channel_zeroout(io_channel c, unsigned long long block,
				 unsigned long long count)
{
	return 0;
}

static struct struct_io_manager manager = {
	.magic = EXT2_ET_MAGIC_IO_MANAGER,
	.name = "platter",
	.open = channel_open,
	.close = channel_close,
	.set_blksize = channel_set_blksize,
	.read_blk = channel_read,
	.write_blk = channel_write,
	.flush = channel_flush,
	.read_blk64 = channel_read64,
	.write_blk64 = channel_write64,
	.zeroout = channel_zeroout,
};

static int failed(const struct maker *m, errcode_t code, const char *what)
{
	if (code == ENOMEM || code == EXT2_ET_NO_MEMORY)
		return error_set(m->err, -ENOMEM, 0, "out of memory");
	if (code > 0 && code < 4096)
		return error_set(m->err, -(int)code, 0, "%s: %s", what,
				 errno_text((int)code));
	return error_set(m->err, -EIO, 0, "%s: libext2fs gives error %ld", what,
			 (long)code);
}

/* ---- how much there is ---- */

static uint64_t to_blocks(uint64_t bytes)
{
	return div_round_up(bytes, BLOCK);
}

static uint32_t entry_bytes(size_t name_n)
{
	return (uint32_t)round_up(8 + name_n, 4);
}

/* Of a folder: what its names take, "." and ".." too. */
static uint64_t folder_blocks(const struct tree_node *folder, bool lost_found)
{
	uint32_t used = 2 * entry_bytes(1), n;
	const struct tree_node *c;
	uint64_t blocks = 1;

	if (lost_found)
		used += entry_bytes(strlen(LOST_FOUND));
	for (c = folder->first; c; c = c->next) {
		n = entry_bytes(strlen(c->name));
		if (used + n > BLOCK) {
			blocks++;
			used = 0;
		}
		used += n;
	}
	return blocks;
}

/* Blocks that a file's data touch: of [first, end) from run @*i on, which goes on
 * behind what it covers. False: no run is left. */
static bool next_blocks(const struct tree_file *f, size_t *i, uint64_t *ret,
			uint64_t *ret_end)
{
	const struct member_run *r = f->runs;

	while (*i < f->n_runs && !r[*i].len)
		++*i;
	if (*i == f->n_runs)
		return false;
	*ret = r[*i].at / BLOCK;
	*ret_end = to_blocks(r[*i].at + r[*i].len);
	for (++*i; *i < f->n_runs; ++*i) {
		if (r[*i].len && r[*i].at / BLOCK > *ret_end)
			break;
		if (r[*i].len)
			*ret_end = max_u64(*ret_end,
					   to_blocks(r[*i].at + r[*i].len));
	}
	return true;
}

static uint64_t file_blocks(const struct tree_file *f)
{
	uint64_t n = 0, first, end;
	size_t i = 0;

	while (next_blocks(f, &i, &first, &end))
		n += end - first + (end - first) / EXTENT_MAX / 340;
	/* Leaves of the tree of extents, at worst half full. */
	return n + f->n_runs / 100;
}

static bool has_lost_found(const struct tree *t)
{
	const struct tree_node *n;

	for (n = t->root->first; n; n = n->next)
		if (!strcmp(n->name, LOST_FOUND))
			return true;
	return false;
}

/* Numbers all files, and sums what they need. */
static int count(struct maker *m)
{
	uint32_t next = EXT2_GOOD_OLD_FIRST_INO + !m->has_lost_found;
	struct tree_node *n;

	for (n = m->tree->root; n; n = tree_next(m->tree, n)) {
		struct tree_file *f = n->file;

		if (f->ino)
			continue; /* another name */
		f->ino = n == m->tree->root ? EXT2_ROOT_INO : next++;
		if (f->bytes > FILE_BYTES_MAX)
			return error_set(m->err, -EFBIG, 0,
					 "a file of %" PRIu64 " bytes is over "
					 "the limit of 16 TiB",
					 f->bytes);
		m->blocks += f->n_xattrs ? 1 : 0;
		if (f->type == TAR_FOLDER)
			m->blocks += folder_blocks(n, true);
		else if (f->type == TAR_SYMLINK)
			m->blocks += strlen(f->target) > FAST_LINK_MAX;
		else
			m->blocks += file_blocks(f);
		if (m->blocks > UINT32_MAX / 4)
			return error_set(m->err, -EFBIG, 0,
					 "the files are over the limit of "
					 "4 TiB");
	}
	m->inodes = next;
	return 0;
}

/* ---- blocks ---- */

/* Up to @want that lie side by side; *ret_n > 0 of them. */
static int take_blocks(struct maker *m, uint64_t want, blk64_t *ret,
		       uint64_t *ret_n)
{
	ext2_filsys fs = m->fs;
	blk64_t last = ext2fs.blocks_count(fs->super) - 1, used;
	errcode_t code = ext2fs.find_first_zero_generic_bmap(
		(ext2fs_generic_bitmap)fs->block_map, m->goal, last, ret);

	if (code)
		return failed(m, code == ENOENT ? ENOSPC : code,
			      "the file system is full");
	code = ext2fs.find_first_set_generic_bmap(
		(ext2fs_generic_bitmap)fs->block_map, *ret, last, &used);
	if (code && code != ENOENT)
		return failed(m, code, "its blocks");
	if (code)
		used = last + 1;
	*ret_n = min_u64(want, used - *ret);
	ext2fs.block_alloc_stats_range(fs, *ret, (blk_t)*ret_n, +1);
	m->goal = *ret + *ret_n;
	return 0;
}

static int write_block(struct maker *m, blk64_t block, const void *data)
{
	return channel_write64(m->fs->io, block, 1, data)
		       ? failed(m, errno, "the file system cannot be written")
		       : 0;
}

/* ---- inodes ---- */

static uint16_t mode_of(const struct tree_file *f)
{
	static const uint32_t types[] = {
		[TAR_FILE - '0'] = S_IFREG,
		[TAR_SYMLINK - '0'] = S_IFLNK,
		[TAR_CHAR_DEVICE - '0'] = S_IFCHR,
		[TAR_BLOCK_DEVICE - '0'] = S_IFBLK,
		[TAR_FOLDER - '0'] = S_IFDIR,
		[TAR_FIFO - '0'] = S_IFIFO,
	};

	return (uint16_t)(types[f->type - '0'] | f->mode);
}

static uint32_t extra_time(const struct tree_file *f)
{
	/* Bits 0 and 1 are 32 and 33 of the seconds, whose lower half has a sign. */
	int64_t epoch = (f->mtime_sec - (int32_t)f->mtime_sec) >> 32;

	return f->mtime_nsec << 2 | ((uint32_t)epoch & 3);
}

static void fill_inode(const struct tree_file *f, struct ext2_inode_large *i)
{
	*i = (struct ext2_inode_large){
		.i_mode = mode_of(f),
		.i_uid = (uint16_t)f->uid,
		.i_gid = (uint16_t)f->gid,
		.i_links_count = (uint16_t)min_u64(f->links, EXT2_LINK_MAX),
		.i_extra_isize = EXTRA_BYTES,
	};
	i->osd2.linux2.l_i_uid_high = (uint16_t)(f->uid >> 16);
	i->osd2.linux2.l_i_gid_high = (uint16_t)(f->gid >> 16);
	i->i_atime = i->i_ctime = i->i_mtime = (uint32_t)f->mtime_sec;
	i->i_atime_extra = i->i_ctime_extra = i->i_mtime_extra = extra_time(f);
}

static int write_inode(struct maker *m, uint32_t ino,
		       struct ext2_inode_large *i)
{
	errcode_t code = ext2fs.write_inode_full(
		m->fs, ino, (struct ext2_inode *)i, sizeof(*i));

	return code ? failed(m, code, "an inode") : 0;
}

static int set_size(struct maker *m, struct ext2_inode_large *i, uint64_t bytes,
		    uint64_t blocks)
{
	struct ext2_inode *inode = (struct ext2_inode *)i;
	errcode_t code =
		ext2fs.inode_size_set(m->fs, inode, (ext2_off64_t)bytes);

	if (!code)
		code = ext2fs.iblk_set(m->fs, inode, blocks);
	if (blocks) /* without, there is no tree of them */
		i->i_flags |= EXT4_EXTENTS_FL;
	return code ? failed(m, code, "an inode's size") : 0;
}

/* ---- extents ---- */

/* Where a file's blocks are written down. */
struct extents {
	ext2_extent_handle_t handle;
	uint32_t ino;
};

static int extents_begin(struct maker *m, uint32_t ino, struct extents *ret)
{
	errcode_t code = ext2fs.extent_open2(m->fs, ino, NULL, &ret->handle);

	ret->ino = ino;
	return code ? failed(m, code, "extents") : 0;
}

static int extents_add(struct maker *m, struct extents *x, uint64_t logical,
		       blk64_t physical, uint64_t n)
{
	struct ext2fs_extent e = { .e_lblk = logical, .e_pblk = physical };
	errcode_t code = 0;

	for (; n && !code; n -= e.e_len) {
		e.e_len = (uint32_t)min_u64(n, EXTENT_MAX);
		code = ext2fs.extent_insert(x->handle, EXT2_EXTENT_INSERT_AFTER,
					    &e);
		e.e_lblk += e.e_len;
		e.e_pblk += e.e_len;
	}
	return code ? failed(m, code, "extents") : 0;
}

static void extents_end(struct extents *x)
{
	ext2fs.extent_free(x->handle);
}

/* ---- data ---- */

static int add_run(struct maker *m, const struct ext4_run *r)
{
	struct ext4_disk *d = m->disk;
	struct ext4_run *last = d->n_runs ? &d->runs[d->n_runs - 1] : NULL,
			*grown;

	if (last && last->layer == r->layer && last->at + last->len == r->at &&
	    last->off + last->len == r->off) {
		last->len += r->len;
		return 0;
	}
	if (d->n_runs == m->room) {
		if (m->room >= RUNS_MAX)
			return error_set(m->err, -EFBIG, 0,
					 "more than %u runs of data", RUNS_MAX);
		m->room = m->room ? 2 * m->room : 1024;
		grown = reallocarray(d->runs, m->room, sizeof(*grown));
		if (!grown)
			return error_set(m->err, -ENOMEM, 0, "out of memory");
		d->runs = grown;
	}
	ANALYSER_ASSUME(d->runs);
	d->runs[d->n_runs++] = *r;
	return 0;
}

/* Blocks [first, end) of @f lie at @physical: what of its runs is in them? */
static int map_runs(struct maker *m, const struct tree_file *f, uint64_t first,
		    uint64_t end, blk64_t physical, size_t *i)
{
	uint64_t from = first * BLOCK, to = end * BLOCK, a, b;
	int r = 0;

	for (; *i < f->n_runs && r >= 0; ++*i) {
		const struct member_run *run = &f->runs[*i];

		a = max_u64(run->at, from);
		b = min_u64(run->at + run->len, to);
		if (a < b)
			r = add_run(m, &(struct ext4_run){
					       physical * BLOCK + (a - from),
					       b - a, run->off + (a - run->at),
					       f->layer });
		if (run->at + run->len > to)
			break; /* it goes on in the next ones */
	}
	return r;
}

static int place_data(struct maker *m, const struct tree_file *f)
{
	uint64_t first, end, n = 0;
	size_t i = 0, run = 0;
	struct extents x;
	blk64_t physical;
	int r = extents_begin(m, f->ino, &x);

	if (r < 0)
		return r;
	while (r >= 0 && next_blocks(f, &i, &first, &end))
		for (; r >= 0 && first < end; first += n) {
			r = take_blocks(m, end - first, &physical, &n);
			if (r >= 0)
				r = extents_add(m, &x, first, physical, n);
			if (r >= 0)
				r = map_runs(m, f, first, first + n, physical,
					     &run);
		}
	extents_end(&x);
	return r;
}

static uint64_t data_blocks(const struct tree_file *f)
{
	uint64_t n = 0, first, end;
	size_t i = 0;

	while (next_blocks(f, &i, &first, &end))
		n += end - first;
	return n;
}

static int make_file(struct maker *m, const struct tree_file *f,
		     struct ext2_inode_large *i)
{
	int r = set_size(m, i, f->bytes, data_blocks(f));

	if (r >= 0)
		r = write_inode(m, f->ino, i);
	return r < 0 || !f->n_runs ? r : place_data(m, f);
}

/* ---- links and devices ---- */

/* One block, with @data in it. */
static int make_block(struct maker *m, const struct tree_file *f,
		      struct ext2_inode_large *i, const void *data)
{
	struct extents x;
	blk64_t physical = 0;
	uint64_t n;
	int r = write_inode(m, f->ino, i);

	if (r >= 0)
		r = extents_begin(m, f->ino, &x);
	if (r < 0)
		return r;
	r = take_blocks(m, 1, &physical, &n);
	if (r >= 0)
		r = extents_add(m, &x, 0, physical, 1);
	extents_end(&x);
	return r < 0 ? r : write_block(m, physical, data);
}

static int make_symlink(struct maker *m, const struct tree_file *f,
			struct ext2_inode_large *i)
{
	uint8_t block[BLOCK] = { 0 };
	size_t n = strlen(f->target);
	int r;

	i->i_mode |= 0777;
	if (n <= FAST_LINK_MAX) {
		i->i_size = (uint32_t)n;
		memcpy(i->i_block, f->target, n);
		return write_inode(m, f->ino, i);
	}
	if (n >= BLOCK)
		return error_set(m->err, -EBADMSG, 0,
				 "a symbolic link of %zu bytes is over the "
				 "limit of %u",
				 n, BLOCK - 1);
	memcpy(block, f->target, n);
	r = set_size(m, i, n, 1);
	return r < 0 ? r : make_block(m, f, i, block);
}

/* As the kernel's new_encode_dev() has it. */
static int make_device(struct maker *m, const struct tree_file *f,
		       struct ext2_inode_large *i)
{
	if (f->type == TAR_FIFO)
		return write_inode(m, f->ino, i);
	if (f->major < 256 && f->minor < 256)
		i->i_block[0] = f->major << 8 | f->minor;
	else
		i->i_block[1] = (f->minor & 0xff) | f->major << 8 |
				(f->minor & ~0xffU) << 12;
	return write_inode(m, f->ino, i);
}

/* ---- folders ---- */

/* A folder's blocks, one after the other. */
struct folder {
	struct maker *m;
	struct extents x;
	uint8_t block[BLOCK];
	uint32_t used, last; /* where the last entry of the block begins */
	uint64_t logical;
};

/* The last entry goes to the block's end. */
static int put_block(struct folder *f)
{
	struct ext2_dir_entry_2 *last =
		(struct ext2_dir_entry_2 *)(f->block + f->last);
	blk64_t physical = 0;
	uint64_t n;
	int r;

	last->rec_len = (uint16_t)(BLOCK - f->last);
	r = take_blocks(f->m, 1, &physical, &n);
	if (r >= 0)
		r = extents_add(f->m, &f->x, f->logical++, physical, 1);
	if (r >= 0)
		r = write_block(f->m, physical, f->block);
	memset(f->block, 0, sizeof(f->block));
	f->used = f->last = 0;
	return r;
}

static uint8_t kind_of(enum tar_type type)
{
	static const uint8_t kinds[] = {
		[TAR_FILE - '0'] = EXT2_FT_REG_FILE,
		[TAR_SYMLINK - '0'] = EXT2_FT_SYMLINK,
		[TAR_CHAR_DEVICE - '0'] = EXT2_FT_CHRDEV,
		[TAR_BLOCK_DEVICE - '0'] = EXT2_FT_BLKDEV,
		[TAR_FOLDER - '0'] = EXT2_FT_DIR,
		[TAR_FIFO - '0'] = EXT2_FT_FIFO,
	};

	return kinds[type - '0'];
}

static int put_name(struct folder *f, const char *name, uint32_t ino,
		    enum tar_type type)
{
	struct ext2_dir_entry_2 *e;
	size_t n = strlen(name);
	int r = f->used + entry_bytes(n) > BLOCK ? put_block(f) : 0;

	e = (struct ext2_dir_entry_2 *)(f->block + f->used);
	e->inode = ino;
	e->rec_len = (uint16_t)entry_bytes(n);
	e->name_len = (uint8_t)n;
	e->file_type = kind_of(type);
	memcpy(e->name, name, n);
	f->last = f->used;
	f->used += entry_bytes(n);
	return r;
}

static int put_names(struct folder *f, const struct tree_node *n, uint32_t ino,
		     bool lost_found)
{
	const struct tree_node *c;
	int r = put_name(f, ".", ino, TAR_FOLDER);

	if (r >= 0)
		r = put_name(f, "..", n ? n->parent->file->ino : EXT2_ROOT_INO,
			     TAR_FOLDER);
	if (r >= 0 && lost_found)
		r = put_name(f, LOST_FOUND, EXT2_GOOD_OLD_FIRST_INO,
			     TAR_FOLDER);
	for (c = n ? n->first : NULL; c && r >= 0; c = c->next)
		r = put_name(f, c->name, c->file->ino, c->file->type);
	return r < 0 ? r : put_block(f);
}

/* @n: the folder; NULL: lost+found. */
static int make_folder(struct maker *m, const struct tree_node *n, uint32_t ino,
		       struct ext2_inode_large *i)
{
	bool lost_found = n == m->tree->root && !m->has_lost_found;
	struct folder f = { .m = m };
	const struct tree_node *c;
	uint64_t blocks = n ? folder_blocks(n, lost_found) : 1;
	uint32_t links = 2 + lost_found;
	int r;

	for (c = n ? n->first : NULL; c; c = c->next)
		links += tree_is_folder(c);
	i->i_links_count = (uint16_t)(links < EXT2_LINK_MAX ? links : 1);
	r = set_size(m, i, blocks * BLOCK, blocks);
	if (r >= 0)
		r = write_inode(m, ino, i);
	if (r >= 0)
		r = extents_begin(m, ino, &f.x);
	if (r < 0)
		return r;
	r = put_names(&f, n, ino, lost_found);
	extents_end(&f.x);
	return r;
}

/* ---- attributes ---- */

static int set_xattrs(struct maker *m, const struct tree_file *f)
{
	struct ext2_xattr_handle *h;
	errcode_t code = ext2fs.xattrs_open(m->fs, f->ino, &h);
	size_t i;

	if (code)
		return failed(m, code, "extended attributes");
	for (i = 0; i < f->n_xattrs && !code; i++)
		code = ext2fs.xattr_set(h, f->xattrs[i].name,
					f->xattrs[i].value, f->xattrs[i].bytes);
	ext2fs.xattrs_close(&h);
	if (code == EXT2_ET_EA_NO_SPACE)
		return error_set(m->err, -EFBIG, 0,
				 "extended attributes of a file are more than "
				 "a block of %u bytes has room for",
				 BLOCK);
	return code ? failed(m, code, "extended attributes") : 0;
}

/* ---- all of it ---- */

static int make_one(struct maker *m, const struct tree_node *n)
{
	const struct tree_file *f = n->file;
	struct ext2_inode_large i;
	int r;

	fill_inode(f, &i);
	ext2fs.inode_alloc_stats2(m->fs, f->ino, +1, f->type == TAR_FOLDER);
	switch (f->type) {
	case TAR_FOLDER:
		r = make_folder(m, n, f->ino, &i);
		break;
	case TAR_SYMLINK:
		r = make_symlink(m, f, &i);
		break;
	case TAR_CHAR_DEVICE:
	case TAR_BLOCK_DEVICE:
	case TAR_FIFO:
		r = make_device(m, f, &i);
		break;
	default:
		r = make_file(m, f, &i);
		break;
	}
	if (r >= 0 && f->n_xattrs)
		r = set_xattrs(m, f);
	return r;
}

static int make_lost_found(struct maker *m)
{
	const struct tree_file f = { .type = TAR_FOLDER, .mode = 0700 };
	struct ext2_inode_large i;

	fill_inode(&f, &i);
	ext2fs.inode_alloc_stats2(m->fs, EXT2_GOOD_OLD_FIRST_INO, +1, 1);
	return make_folder(m, NULL, EXT2_GOOD_OLD_FIRST_INO, &i);
}

static int make_all(struct maker *m)
{
	struct tree_node *n;
	uint32_t done = EXT2_ROOT_INO, i;
	int r;

	for (i = 1; i < EXT2_GOOD_OLD_FIRST_INO; i++)
		if (i != EXT2_ROOT_INO)
			ext2fs.inode_alloc_stats2(m->fs, i, +1, 0);
	r = make_one(m, m->tree->root);
	if (r >= 0 && !m->has_lost_found)
		r = make_lost_found(m);
	for (n = tree_next(m->tree, m->tree->root); n && r >= 0;
	     n = tree_next(m->tree, n))
		/* In their order: another name of one that is done is not. */
		if (n->file->ino > done) {
			done = n->file->ino;
			r = make_one(m, n);
		}
	return r;
}

/* From what the files are, as there is no other: no two trees share it. */
static void set_uuid(const struct maker *m)
{
	const struct tree_node *n;
	uint64_t a = 0xcbf29ce484222325ULL, b = 0;
	const char *s;

	for (n = m->tree->root; n;
	     n = tree_next(m->tree, (struct tree_node *)n)) {
		for (s = n->name; *s; s++)
			a = (a ^ (uint8_t)*s) * 0x100000001b3ULL;
		a = (a ^ n->file->bytes) * 0x100000001b3ULL;
		b = (b ^ (uint64_t)n->file->mtime_sec ^ a) * 0x100000001b3ULL;
	}
	memcpy(m->fs->super->s_uuid, &a, sizeof(a));
	memcpy(m->fs->super->s_uuid + 8, &b, sizeof(b));
	/* RFC 4122: version 4, in form. */
	m->fs->super->s_uuid[6] =
		(uint8_t)((m->fs->super->s_uuid[6] & 0xf) | 0x40);
	m->fs->super->s_uuid[8] =
		(uint8_t)((m->fs->super->s_uuid[8] & 0x3f) | 0x80);
}

static int is_no_size(const struct maker *m, uint64_t bytes, uint64_t min)
{
	return error_set(m->err, -EINVAL, 0,
			 "size: the disk cannot have %" PRIu64
			 " bytes: %" PRIu64 " to %" PRIu64 " can be",
			 bytes, min * BLOCK, (uint64_t)UINT32_MAX * BLOCK);
}

static int begin(struct maker *m, uint64_t bytes)
{
	uint64_t room = max_u64(m->blocks / 2, FREE_BYTES_MIN / BLOCK);
	uint64_t inodes = m->inodes + FREE_INODES;
	uint64_t blocks = m->blocks + room + inodes * INODE_BYTES / BLOCK;
	struct ext2_super_block p = {
		.s_rev_level = EXT2_DYNAMIC_REV,
		.s_inode_size = INODE_BYTES,
		.s_log_block_size = 2,
		.s_log_cluster_size = 2,
		.s_inodes_count = (uint32_t)inodes,
		.s_log_groups_per_flex = 4,
		.s_feature_compat = EXT2_FEATURE_COMPAT_EXT_ATTR,
		.s_feature_incompat = EXT2_FEATURE_INCOMPAT_FILETYPE |
				      EXT3_FEATURE_INCOMPAT_EXTENTS |
				      EXT4_FEATURE_INCOMPAT_FLEX_BG,
		.s_feature_ro_compat = EXT2_FEATURE_RO_COMPAT_SPARSE_SUPER |
				       EXT2_FEATURE_RO_COMPAT_LARGE_FILE |
				       EXT4_FEATURE_RO_COMPAT_HUGE_FILE |
				       EXT4_FEATURE_RO_COMPAT_DIR_NLINK |
				       EXT4_FEATURE_RO_COMPAT_EXTRA_ISIZE,
	};
	errcode_t code;

	/* What groups have of their own is a few thousandths. */
	blocks += blocks / 64 + 1024;
	if (bytes) {
		uint64_t min = blocks - room;

		blocks = bytes / BLOCK;
		if (blocks < min || blocks > UINT32_MAX)
			return is_no_size(m, bytes, min);
	}
	p.s_blocks_count = (uint32_t)blocks;
	channel_fd = m->fd;
	code = ext2fs.initialize("image", EXT2_FLAG_64BITS, &p, &manager,
				 &m->fs);
	if (code)
		return failed(m, code, "a file system cannot be made");
	m->fs->now = 1;
	m->fs->super->s_lastcheck = m->fs->super->s_mkfs_time = 1;
	m->fs->super->s_want_extra_isize = m->fs->super->s_min_extra_isize =
		EXTRA_BYTES;
	m->fs->super->s_max_mnt_count = -1;
	m->fs->super->s_first_data_block = 0;
	set_uuid(m);
	code = ext2fs.allocate_tables(m->fs);
	return code ? failed(m, code, "a file system cannot be made") : 0;
}

static int compare_runs(const void *a, const void *b)
{
	const struct ext4_run *x = a, *y = b;

	return x->at < y->at ? -1 : x->at > y->at;
}

static int finish(struct maker *m)
{
	errcode_t code;

	m->disk->bytes = ext2fs.blocks_count(m->fs->super) * BLOCK;
	m->fs->super->s_state = EXT2_VALID_FS;
	code = ext2fs.close_free(&m->fs);
	if (code)
		return failed(m, code, "the file system cannot be written");
	if (m->disk->n_runs)
		qsort(m->disk->runs, m->disk->n_runs, sizeof(*m->disk->runs),
		      compare_runs);
	return ftruncate(m->fd, (off_t)m->disk->bytes) < 0
		       ? failed(m, errno, "the file system cannot be written")
		       : 0;
}

int ext4_make(struct tree *t, uint64_t bytes, int fd, struct ext4_disk *ret,
	      struct error *err)
{
	struct error own = { 0 };
	struct maker m = {
		.tree = t, .fd = fd, .disk = ret, .err = err ? err : &own
	};
	int r = ext2fs_load(m.err);

	*ret = (struct ext4_disk){ 0 };
	m.has_lost_found = has_lost_found(t);
	if (r >= 0)
		r = count(&m);
	if (r >= 0)
		r = begin(&m, bytes);
	if (r >= 0)
		r = make_all(&m);
	if (r >= 0)
		r = finish(&m);
	if (m.fs)
		ext2fs.free(m.fs);
	if (r >= 0)
		return 0;
	free(ret->runs);
	*ret = (struct ext4_disk){ 0 };
	return r;
}
