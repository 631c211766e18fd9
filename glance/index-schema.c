/* SPDX-License-Identifier: BSD-3-Clause */
#include "glance/index-schema.h"

/*
 * Times are microseconds since 1970, UTC. Sizes are bytes unless the name
 * says GiB or MiB. NULL is what the API shows as null.
 *
 * An image has a number for the tables' own use and an id for the world. The
 * number is never used again (AUTOINCREMENT), nor is the id: gone has those of
 * deleted images, as somebody may still trust them.
 */
static const char first[] =
	"CREATE TABLE images ("
	" n INTEGER PRIMARY KEY AUTOINCREMENT,"
	" id TEXT NOT NULL UNIQUE,"
	" name TEXT,"
	" status TEXT NOT NULL,"
	" visibility TEXT NOT NULL,"
	" owner TEXT,"
	" disk_format TEXT,"
	" container_format TEXT,"
	" size INTEGER,"
	" virtual_size INTEGER,"
	" min_disk INTEGER NOT NULL DEFAULT 0," /* GiB */
	" min_ram INTEGER NOT NULL DEFAULT 0," /* MiB */
	" protected INTEGER NOT NULL DEFAULT 0,"
	" os_hidden INTEGER NOT NULL DEFAULT 0,"
	" checksum TEXT," /* MD5 */
	" hash_algo TEXT,"
	" hash_value TEXT,"
	" created_at INTEGER NOT NULL,"
	" updated_at INTEGER NOT NULL,"
	" dialect TEXT NOT NULL DEFAULT 'v2'," /* that made it */
	/* To sort and search by: null sorts as empty, as the API has it. */
	" name_key TEXT AS (ifnull(name, '')) VIRTUAL,"
	" size_key INTEGER AS (ifnull(size, 0)) VIRTUAL,"
	" disk_key TEXT AS (ifnull(disk_format, '')) VIRTUAL,"
	" container_key TEXT AS (ifnull(container_format, '')) VIRTUAL"
	") STRICT;"
	"CREATE INDEX images_created ON images (created_at, id);"
	"CREATE INDEX images_updated ON images (updated_at, id);"
	"CREATE INDEX images_name ON images (name_key, created_at, id);"
	"CREATE INDEX images_size ON images (size_key, created_at, id);"
	"CREATE INDEX images_status ON images (status, created_at, id);"
	"CREATE INDEX images_disk ON images (disk_key, created_at, id);"
	"CREATE INDEX images_container"
	" ON images (container_key, created_at, id);"
	"CREATE INDEX images_owner ON images (owner, created_at, id);"
	"CREATE INDEX images_visibility"
	" ON images (visibility, created_at, id);"
	"CREATE INDEX images_checksum ON images (checksum)"
	" WHERE checksum IS NOT NULL;"
	"CREATE INDEX images_hash ON images (hash_value)"
	" WHERE hash_value IS NOT NULL;"
	"CREATE TABLE gone ("
	" id TEXT PRIMARY KEY,"
	" deleted_at INTEGER NOT NULL"
	") STRICT, WITHOUT ROWID;"
	"CREATE TABLE properties ("
	" image INTEGER NOT NULL REFERENCES images ON DELETE CASCADE,"
	" name TEXT NOT NULL,"
	" value TEXT NOT NULL,"
	" PRIMARY KEY (image, name)"
	") STRICT, WITHOUT ROWID;"
	"CREATE INDEX properties_value ON properties (name, value, image);"
	"CREATE TABLE tags ("
	" image INTEGER NOT NULL REFERENCES images ON DELETE CASCADE,"
	" tag TEXT NOT NULL,"
	" PRIMARY KEY (image, tag)"
	") STRICT, WITHOUT ROWID;"
	"CREATE INDEX tags_tag ON tags (tag, image);"
	"CREATE TABLE members ("
	" image INTEGER NOT NULL REFERENCES images ON DELETE CASCADE,"
	" member TEXT NOT NULL," /* a project */
	" status TEXT NOT NULL DEFAULT 'pending',"
	" can_share INTEGER NOT NULL DEFAULT 0,"
	" created_at INTEGER NOT NULL,"
	" updated_at INTEGER NOT NULL,"
	" PRIMARY KEY (image, member)"
	") STRICT, WITHOUT ROWID;"
	"CREATE INDEX members_member ON members (member, image);"
	/* Where the data lie; the first is where they are read from. */
	"CREATE TABLE locations ("
	" image INTEGER NOT NULL REFERENCES images ON DELETE CASCADE,"
	" at INTEGER NOT NULL," /* 0, 1, ... */
	" url TEXT NOT NULL,"
	" store TEXT NOT NULL," /* which store's ops read it */
	" metadata TEXT NOT NULL DEFAULT '{}'," /* JSON, the client's */
	" own INTEGER NOT NULL DEFAULT 0," /* the data are ours to delete */
	" PRIMARY KEY (image, at)"
	") STRICT, WITHOUT ROWID;"
	"CREATE INDEX locations_url ON locations (url, image);"
	/* What the format drivers found. */
	"CREATE TABLE inspections ("
	" image INTEGER PRIMARY KEY REFERENCES images ON DELETE CASCADE,"
	" format TEXT NOT NULL,"
	" report TEXT NOT NULL" /* JSON */
	") STRICT;"
	"CREATE TABLE snapshots ("
	" image INTEGER NOT NULL REFERENCES images ON DELETE CASCADE,"
	" at INTEGER NOT NULL,"
	" id TEXT NOT NULL,"
	" name TEXT NOT NULL,"
	" bytes INTEGER NOT NULL,"
	" date_sec INTEGER NOT NULL,"
	" PRIMARY KEY (image, at)"
	") STRICT, WITHOUT ROWID;"
	"CREATE TABLE layers ("
	" image INTEGER NOT NULL REFERENCES images ON DELETE CASCADE,"
	" depth INTEGER NOT NULL," /* 0: the image itself */
	" format TEXT NOT NULL,"
	" bytes INTEGER NOT NULL,"
	" file TEXT NOT NULL,"
	" PRIMARY KEY (image, depth)"
	") STRICT, WITHOUT ROWID;"
	"CREATE TABLE tasks ("
	" n INTEGER PRIMARY KEY AUTOINCREMENT,"
	" id TEXT NOT NULL UNIQUE,"
	" type TEXT NOT NULL,"
	" status TEXT NOT NULL,"
	" owner TEXT,"
	" image_id TEXT,"
	" request_id TEXT,"
	" user_id TEXT,"
	" input TEXT NOT NULL DEFAULT '{}'," /* JSON */
	" result TEXT," /* JSON */
	" message TEXT NOT NULL DEFAULT '',"
	" created_at INTEGER NOT NULL,"
	" updated_at INTEGER NOT NULL,"
	" expires_at INTEGER"
	") STRICT;"
	"CREATE INDEX tasks_created ON tasks (created_at, id);"
	"CREATE INDEX tasks_image ON tasks (image_id, created_at);";

/*
 * What is asked for by property or tag comes newest first, without a look at
 * all that have it. An image's time of creation never changes.
 */
static const char links_by_time[] =
	"ALTER TABLE properties ADD COLUMN"
	" image_created INTEGER NOT NULL DEFAULT 0;"
	"ALTER TABLE tags ADD COLUMN"
	" image_created INTEGER NOT NULL DEFAULT 0;"
	"UPDATE properties SET image_created ="
	" (SELECT created_at FROM images WHERE n = image);"
	"UPDATE tags SET image_created ="
	" (SELECT created_at FROM images WHERE n = image);"
	"DROP INDEX properties_value;"
	"DROP INDEX tags_tag;"
	"CREATE INDEX properties_value"
	" ON properties (name, value, image_created, image);"
	"CREATE INDEX tags_tag ON tags (tag, image_created, image);";

/* An inspection holds as long as the file is the one that was inspected. */
static const char looks_of_inspected[] =
	"ALTER TABLE inspections ADD COLUMN looks TEXT NOT NULL DEFAULT '';";

/*
 * A tombstone names data that are to be removed, or were: they may be half
 * there still (tombstone.h). changed_at is when anything that is said of an
 * image was another, its members too; it never goes back, and its sidecar has
 * it (sidecar.h).
 */
static const char nothing_lost[] = "CREATE TABLE tombstones ("
				   " id TEXT NOT NULL,"
				   " kind TEXT NOT NULL,"
				   " made_at INTEGER NOT NULL,"
				   " PRIMARY KEY (id, kind)"
				   ") STRICT, WITHOUT ROWID;"
				   "ALTER TABLE images ADD COLUMN"
				   " changed_at INTEGER NOT NULL DEFAULT 0;"
				   "UPDATE images SET changed_at = updated_at;";

/*
 * Times are microseconds since 1970. @key of an item is its name, for a tag in
 * lower case. The kinds of resources have OpenStack's names for them.
 */
#define NOW "unixepoch() * 1000000"

static const char metadef_step[] =
	"CREATE TABLE metadef_namespaces ("
	" n INTEGER PRIMARY KEY AUTOINCREMENT,"
	" namespace TEXT NOT NULL UNIQUE,"
	" display_name TEXT,"
	" description TEXT,"
	" visibility TEXT NOT NULL,"
	" protected INTEGER NOT NULL,"
	" owner TEXT,"
	" created_at INTEGER NOT NULL,"
	" updated_at INTEGER NOT NULL"
	") STRICT;"
	"CREATE INDEX metadef_namespaces_owner"
	" ON metadef_namespaces (owner, created_at);"
	"CREATE TABLE metadef_items ("
	" n INTEGER PRIMARY KEY AUTOINCREMENT,"
	" ns INTEGER NOT NULL REFERENCES metadef_namespaces"
	" ON DELETE CASCADE,"
	" kind INTEGER NOT NULL," /* enum metadef_kind */
	" key TEXT NOT NULL,"
	" name TEXT NOT NULL,"
	" body TEXT NOT NULL," /* JSON */
	" created_at INTEGER NOT NULL,"
	" updated_at INTEGER NOT NULL,"
	" UNIQUE (ns, kind, key)"
	") STRICT;"
	"CREATE TABLE metadef_types ("
	" n INTEGER PRIMARY KEY,"
	" name TEXT NOT NULL UNIQUE,"
	" created_at INTEGER NOT NULL,"
	" updated_at INTEGER NOT NULL"
	") STRICT;"
	"CREATE TABLE metadef_links ("
	" ns INTEGER NOT NULL REFERENCES metadef_namespaces"
	" ON DELETE CASCADE,"
	" type INTEGER NOT NULL REFERENCES metadef_types,"
	" prefix TEXT,"
	" properties_target TEXT,"
	" created_at INTEGER NOT NULL,"
	" updated_at INTEGER NOT NULL,"
	" PRIMARY KEY (ns, type)"
	") STRICT, WITHOUT ROWID;"
	"CREATE INDEX metadef_links_type ON metadef_links (type, ns);"
	"INSERT INTO metadef_types (name, created_at, updated_at)"
	" SELECT value, " NOW ", " NOW " FROM json_each('["
	"\"OS::Cinder::Volume\", \"OS::Glance::Image\","
	"\"OS::Nova::Aggregate\", \"OS::Nova::Flavor\","
	"\"OS::Nova::Server\", \"OS::Trove::Instance\"]');";

const char *const index_steps[] = { first,	   metadef_step,
				    links_by_time, looks_of_inspected,
				    nothing_lost,  NULL };
