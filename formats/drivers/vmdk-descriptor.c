/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The descriptor: text of three parts, in any order.
 *
 *	# Disk DescriptorFile                  comments, empty lines
 *	version=1                              header: KEY=VALUE
 *	CID=1a2b3c4d
 *	createType="monolithicFlat"
 *	RW 4192256 FLAT "disk-flat.vmdk" 0     extents: ACCESS SECTORS TYPE ...
 *	ddb.adapterType = "ide"                disk data base: KEY = "VALUE"
 *
 * Written by many hands: CRLF, spaces around "=", tabs, values with and
 * without quotes, names in UTF-8 and in code pages. Where a key comes twice
 * the first counts. Each byte is looked at a fixed number of times, so a
 * descriptor of a million empty lines costs what any other does.
 *
 * What a damaged text has lost is not taken for something that was never
 * there: an extent of the disk, its parent. All makers write version, CID,
 * parentCID and createType, so a text without one of them is refused, and so
 * is a line that is none of the above, an extent in a comment's end (its line
 * break is gone), and a NUL with text behind it.
 */
#include <errno.h>
#include <iconv.h>
#include <inttypes.h>
#include <string.h>
#include <strings.h>

#include "formats/drivers/vmdk-inside.h"

#define CID_DIGITS 8U
static const char *const access_names[] = {
	[VMDK_RW] = "RW",
	[VMDK_RDONLY] = "RDONLY",
	[VMDK_NOACCESS] = "NOACCESS",
};

static const char *const type_names[] = {
	[VMDK_FLAT] = "FLAT",
	[VMDK_SPARSE] = "SPARSE",
	[VMDK_ZERO] = "ZERO",
	[VMDK_VMFS] = "VMFS",
	[VMDK_VMFSSPARSE] = "VMFSSPARSE",
	[VMDK_SESPARSE] = "SESPARSE",
};

const char *vmdk_type_name(enum vmdk_extent_type type)
{
	return type_names[type];
}

static bool is_blank(char c)
{
	return c == ' ' || c == '\t' || c == '\r' || c == '\v' || c == '\f';
}

static char *skip_blanks(char *p)
{
	while (is_blank(*p))
		p++;
	return p;
}

/* Cuts blanks off the end of the string that begins at @p and ends at @end. */
static char *cut_blanks(char *p, char *end)
{
	while (end > p && is_blank(end[-1]))
		end--;
	*end = 0;
	return end;
}

/* The next word of *p, cut off in place; NULL: there is none. */
static char *next_word(char **p)
{
	char *word = skip_blanks(*p), *end = word;

	if (!*word)
		return NULL;
	while (*end && !is_blank(*end))
		end++;
	*p = *end ? end + 1 : end;
	*end = 0;
	return word;
}

static int find_name(const char *const *names, size_t n, const char *name)
{
	size_t i;

	for (i = 0; i < n; i++)
		if (!strcasecmp(names[i], name))
			return (int)i;
	return -1;
}

/* A decimal number, and nothing else. */
static bool parse_u64(const char *text, uint64_t *ret)
{
	uint64_t v = 0;
	const char *p;

	if (!*text)
		return false;
	for (p = text; *p; p++) {
		unsigned int digit = (unsigned int)(*p - '0');

		if (digit > 9 || v > (UINT64_MAX - digit) / 10)
			return false;
		v = v * 10 + digit;
	}
	*ret = v;
	return true;
}

/* "CID", "parentCID": hexadecimal, with or without leading zeroes. */
static bool parse_cid(const char *text, uint32_t *ret)
{
	char *end;
	unsigned long long v;

	if (!strncasecmp(text, "0x", 2))
		text += 2;
	if (!strchr("0123456789abcdefABCDEF", *text) || !*text)
		return false;
	v = strtoull(text, &end, 16);
	if (*end || v > UINT32_MAX)
		return false;
	*ret = (uint32_t)v;
	return true;
}

/* Is the first word of @line an access mode, with something behind it? */
static bool is_extent_line(const char *line)
{
	size_t i, n;

	for (i = 0; i < ARRAY_SIZE(access_names); i++) {
		n = strlen(access_names[i]);
		if (!strncasecmp(line, access_names[i], n) && is_blank(line[n]))
			return true;
	}
	return false;
}

/*
 * The name in quotes, which may hold spaces and quotes itself: the last quote
 * of the line ends it. *p is what follows.
 */
static char *next_name(char **p)
{
	char *name = skip_blanks(*p), *end;

	if (*name != '"')
		return next_word(p);
	end = strrchr(name, '"');
	if (end == name)
		return NULL;
	*end = 0;
	*p = end + 1;
	return name + 1;
}

static int parse_type(const char *word, uint64_t at, struct vmdk_line *line,
		      struct error *err)
{
	int type = find_name(type_names, ARRAY_SIZE(type_names), word);

	if (type < 0)
		return error_set(err, -ENOTSUP, at,
				 "extent type \"%s\" is not supported; FLAT, "
				 "SPARSE, ZERO, VMFS, VMFSSPARSE and SESPARSE "
				 "are",
				 word);
	line->type = (enum vmdk_extent_type)type;
	return 0;
}

/* ACCESS SECTORS TYPE ["NAME" [OFFSET ...]] */
static int parse_extent(struct vmdk_line *line, char *p, struct error *err)
{
	char *word = next_word(&p);
	int r;

	line->access = (enum vmdk_access)find_name(
		access_names, ARRAY_SIZE(access_names), word);
	word = next_word(&p);
	if (!word || !parse_u64(word, &line->sectors))
		return error_set(err, -EBADMSG, line->at,
				 "extent's size \"%s\" is not a number of "
				 "sectors",
				 word ? word : "");
	word = next_word(&p);
	if (!word)
		return error_set(err, -EBADMSG, line->at,
				 "extent of %" PRIu64 " sectors has no type",
				 line->sectors);
	r = parse_type(word, line->at, line, err);
	if (r < 0 || line->type == VMDK_ZERO)
		return r;
	line->name = next_name(&p);
	if (!line->name || !*line->name)
		return error_set(err, -EBADMSG, line->at,
				 "%s extent names no file",
				 type_names[line->type]);
	word = next_word(&p);
	if (word && !parse_u64(word, &line->offset))
		return error_set(err, -EBADMSG, line->at,
				 "extent's offset \"%s\" is not a number of "
				 "sectors",
				 word);
	return 0;
}

static int add_extent(struct vmdk_descriptor *d, char *p, uint64_t at,
		      struct error *err)
{
	struct vmdk_line line = { .at = at };
	int r = parse_extent(&line, p, err);

	if (r < 0)
		return r;
	if (d->n_lines == VMDK_EXTENTS_MAX)
		return error_set(err, -EFBIG, at, "more than %u extents",
				 VMDK_EXTENTS_MAX);
	if (d->n_lines == d->room) {
		size_t room = d->room ? 2 * d->room : 16;
		struct vmdk_line *grown =
			reallocarray(d->lines, room, sizeof(*grown));

		if (!grown)
			return error_set(err, -ENOMEM, 0, "out of memory");
		d->lines = grown;
		d->room = room;
	}
	d->lines[d->n_lines++] = line;
	return 0;
}

static int bad_cid(const char *key, const char *value, uint64_t at,
		   struct error *err)
{
	return error_set(err, -EBADMSG, at,
			 "%s \"%s\" is not a hexadecimal number of 32 bits",
			 key, value);
}

static int take_cid(struct vmdk_descriptor *d, const char *value, uint64_t at,
		    struct error *err)
{
	if (d->has_cid)
		return 0;
	if (!parse_cid(value, &d->cid))
		return bad_cid("CID", value, at, err);
	d->has_cid = true;
	return 0;
}

static int take_pair(struct vmdk_descriptor *d, const char *key, char *value,
		     uint64_t at, struct error *err)
{
	if (!strncasecmp(key, "ddb.", 4)) {
		if (d->n_ddb < VMDK_DDB_MAX)
			d->ddb[d->n_ddb++] = (struct vmdk_pair){ key, value };
		return 0;
	}
	if (!strcasecmp(key, "CID"))
		return take_cid(d, value, at, err);
	if (!strcasecmp(key, "version"))
		d->has_version = true;
	if (!strcasecmp(key, "parentCID") && !d->has_parent_cid) {
		d->has_parent_cid = true;
		if (!parse_cid(value, &d->parent_cid))
			return bad_cid(key, value, at, err);
	} else if (!strcasecmp(key, "createType") && !d->create_type) {
		d->create_type = value;
		d->create_type_at = at;
	} else if (!strcasecmp(key, "parentFileNameHint") && !d->parent_hint) {
		d->parent_hint = value;
		d->parent_hint_at = at;
	} else if (!strcasecmp(key, "encoding") && !d->encoding) {
		d->encoding = value;
	} else if (!strcasecmp(key, "encryptionKeys") ||
		   !strcasecmp(key, "keySafe")) {
		return error_set(err, -ENOTSUP, at,
				 "is encrypted by VMware (%s), which is not "
				 "supported",
				 key);
	}
	return 0;
}

static int bad_line(const char *line, uint64_t at, struct error *err)
{
	return error_set(err, -EBADMSG, at,
			 "line \"%.60s\" of the descriptor is no comment, no "
			 "extent and no key with a value",
			 line);
}

/* A word, then a number, as in "RW 4192256 SPARSE", whatever the word is? */
static bool has_number_second(const char *p)
{
	while (*p && !is_blank(*p))
		p++;
	while (is_blank(*p))
		p++;
	if (!strchr("0123456789", *p) || !*p)
		return false;
	p += strspn(p, "0123456789");
	return is_blank(*p);
}

/* KEY = VALUE, KEY="VALUE" */
static int parse_pair(struct vmdk_descriptor *d, char *p, uint64_t at,
		      struct error *err)
{
	char *equals = strchr(p, '='), *value, *end;

	if (!equals || equals == p || has_number_second(p))
		return bad_line(p, at, err);
	cut_blanks(p, equals);
	value = skip_blanks(equals + 1);
	if (*value == '"') {
		value++;
		end = strrchr(value, '"');
		if (end)
			*end = 0;
	}
	return take_pair(d, p, value, at, err);
}

/*
 * An extent that was commented out begins the comment; one behind other words
 * was a line of its own.
 */
static int parse_comment(const char *p, uint64_t at, struct error *err)
{
	const char *word = p + strspn(p, "# \t");

	for (; *word; word++) {
		word += strcspn(word, "RrNn");
		if (!*word)
			break;
		if (is_extent_line(word) && has_number_second(word) &&
		    word != p + strspn(p, "# \t"))
			return error_set(err, -EBADMSG, at,
					 "there is an extent in the comment "
					 "\"%.60s\": its line break is lost",
					 p);
	}
	return 0;
}

static int parse_line(struct vmdk_descriptor *d, char *p, uint64_t at,
		      struct error *err)
{
	if (!*p)
		return 0;
	if (*p == '#')
		return parse_comment(p, at, err);
	if (is_extent_line(p))
		return add_extent(d, p, at, err);
	return parse_pair(d, p, at, err);
}

/*
 * Zeroes may follow the text, and whatever is behind those. QEMU writes a CID
 * without leading zeroes: where it had more digits before, the text's end is
 * there once more, behind its NUL.
 */
static int check_end(const char *text, size_t used, size_t len, uint64_t at,
		     struct error *err)
{
	size_t rest =
		len - used < 2 ? 0 : strnlen(text + used + 1, len - used - 1);

	if (rest < CID_DIGITS && rest <= used &&
	    !memcmp(text + used - rest, text + used + 1, rest))
		return 0;
	return error_set(err, -EBADMSG, at + used,
			 "descriptor has a NUL in its text");
}

int vmdk_descriptor_parse(struct vmdk_descriptor *ret, char *text, size_t len,
			  uint64_t at, struct error *err)
{
	char *p = text, *end = text + strnlen(text, len), *eol, *start;
	int r;

	*ret = (struct vmdk_descriptor){ .text = text,
					 .parent_cid = VMDK_NO_PARENT };
	*end = 0;
	r = check_end(text, (size_t)(end - text), len, at, err);
	if (r < 0)
		return r;
	ret->open_end = end > p && end[-1] != '\n';
	if (!strncmp(p, "\xef\xbb\xbf", 3))
		p += 3;
	for (; p < end; p = eol + 1) {
		eol = memchr(p, '\n', (size_t)(end - p));
		if (!eol)
			eol = end;
		start = p;
		while (start < eol && is_blank(*start))
			start++;
		cut_blanks(start, eol);
		r = parse_line(ret, start, at + (size_t)(start - text), err);
		if (r < 0)
			return r;
	}
	return 0;
}

int vmdk_descriptor_check(const struct vmdk_descriptor *d, struct error *err)
{
	const char *lacks = !d->has_version	 ? "version"
			    : !d->has_cid	 ? "CID"
			    : !d->has_parent_cid ? "parentCID"
			    : !d->create_type	 ? "createType"
						 : NULL;

	if (lacks)
		return error_set(err, -EBADMSG, 0,
				 "descriptor has no %s: it is damaged, or is "
				 "none",
				 lacks);
	/* The data base comes last: who lost it may have lost extents. */
	if (d->open_end && !d->n_ddb)
		return error_set(
			err, -EBADMSG, 0,
			"descriptor is cut off: it ends inside a line, "
			"and has no disk data base");
	return 0;
}

void vmdk_descriptor_done(struct vmdk_descriptor *d)
{
	free(d->text);
	free(d->lines);
	*d = (struct vmdk_descriptor){ 0 };
}

/* Does the line of @len bytes at @p set the version? */
static bool sets_version(const char *p, size_t len)
{
	size_t i = 7;

	if (len < 9 || strncasecmp(p, "version", 7))
		return false;
	while (i < len && is_blank(p[i]))
		i++;
	return i < len && p[i] == '=';
}

/* Does the comment of @len bytes at @p announce a descriptor? */
static bool announces(const char *p, size_t len)
{
	static const char title[] = "Disk DescriptorFile";

	while (len && (*p == '#' || is_blank(*p))) {
		p++;
		len--;
	}
	return len >= sizeof(title) - 1 &&
	       !strncasecmp(p, title, sizeof(title) - 1);
}

/*
 * Comments and empty lines up to the title, or up to "version=" in a text
 * that also has a content id.
 */
bool vmdk_is_descriptor(const uint8_t *head, size_t head_bytes)
{
	const char *p = (const char *)head, *eol;
	const char *end = p + strnlen(p, head_bytes);

	if (end - p >= 3 && !memcmp(p, "\xef\xbb\xbf", 3))
		p += 3;
	for (; p < end; p = eol + 1) {
		eol = memchr(p, '\n', (size_t)(end - p));
		if (!eol)
			eol = end;
		while (p < eol && is_blank(*p))
			p++;
		if (p == eol)
			continue;
		if (*p == '#') {
			if (announces(p, (size_t)(eol - p)))
				return true;
			continue;
		}
		return sets_version(p, (size_t)(eol - p)) &&
		       memmem(eol, (size_t)(end - eol), "CID", 3);
	}
	return false;
}

/*
 * Encodings that VMware's products write, by what iconv calls them. Names out
 * of files do not reach iconv_open().
 */
static const struct {
	const char *declared, *charset;
} encodings[] = {
	{ "windows-1250", "CP1250" },
	{ "windows-1251", "CP1251" },
	{ "windows-1252", "CP1252" },
	{ "windows-1253", "CP1253" },
	{ "windows-1254", "CP1254" },
	{ "windows-1255", "CP1255" },
	{ "windows-1256", "CP1256" },
	{ "windows-1257", "CP1257" },
	{ "windows-1258", "CP1258" },
	{ "windows-874", "CP874" },
	{ "windows-936", "CP936" },
	{ "windows-949", "CP949" },
	{ "windows-950", "CP950" },
	{ "windows-31j", "CP932" },
	{ "windows-932", "CP932" },
	{ "Shift_JIS", "SHIFT_JIS" },
	{ "EUC-JP", "EUC-JP" },
	{ "EUC-KR", "EUC-KR" },
	{ "GBK", "GBK" },
	{ "GB2312", "GB2312" },
	{ "GB18030", "GB18030" },
	{ "Big5", "BIG5" },
	{ "ISO-8859-1", "ISO-8859-1" },
	{ "ISO-8859-2", "ISO-8859-2" },
	{ "ISO-8859-15", "ISO-8859-15" },
	{ "KOI8-R", "KOI8-R" },
};

static const char *charset_of(const char *declared)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(encodings); i++)
		if (!strcasecmp(encodings[i].declared, declared))
			return encodings[i].charset;
	return NULL;
}

static bool is_ascii(const char *name)
{
	for (; *name; name++)
		if ((unsigned char)*name >= 0x80)
			return false;
	return true;
}

char *vmdk_name_to_utf8(const struct vmdk_descriptor *d, const char *name)
{
	const char *charset = d->encoding ? charset_of(d->encoding) : NULL;
	size_t in = strlen(name), out = 4 * in;
	char *from = (char *)(uintptr_t)name, *text, *to;
	iconv_t cd;
	size_t r;

	if (!charset || is_ascii(name))
		return NULL;
	cd = iconv_open("UTF-8", charset);
	if (cd == (iconv_t)-1)
		return NULL;
	text = to = calloc(1, out + 1);
	r = text ? iconv(cd, &from, &in, &to, &out) : (size_t)-1;
	iconv_close(cd);
	if (r == (size_t)-1) {
		free(text);
		return NULL;
	}
	return text;
}
