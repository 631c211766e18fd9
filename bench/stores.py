# SPDX-License-Identifier: BSD-3-Clause
"""Two image services with the same images, and how each is started.

One image is made by the API, with its data; its rows are then multiplied in
the database, because Glance would take minutes to make ten thousand.
"""

import http.client
import json
import os
import random
import shutil
import socket
import sqlite3
import subprocess
import tempfile
import uuid

from rounds import ClientError
from servers import HttpServer

FIRST_TIME = 1700000000  # of the first image; each is a second younger
IMAGE = {'name': 'image', 'disk_format': 'raw', 'container_format': 'bare',
         'tags': ['bench', 'golden'], 'hw_disk_bus': 'virtio',
         'os_distro': 'debian', 'os_version': '12'}
IMAGE_BYTES = 1 << 20

GLANCE_CONF = '''[DEFAULT]
bind_host = 127.0.0.1
bind_port = %(port)d
workers = 2
node_staging_uri = file://%(store)s/staging
enabled_import_methods = []
[database]
connection = sqlite:///%(store)s/glance.sqlite
[glance_store]
filesystem_store_datadir = %(store)s/images
[paste_deploy]
config_file = /etc/glance/glance-api-paste.ini
[oslo_concurrency]
lock_path = %(store)s/lock
'''


def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]


def ask(server, method, path, body=None, kind='application/json'):
    """The body of a good answer."""
    c = http.client.HTTPConnection('127.0.0.1', server.port, timeout=60)
    try:
        c.request(method, path, body, {'Content-Type': kind} if body else {})
        r = c.getresponse()
        text = r.read()
    finally:
        c.close()
    if r.status >= 300:
        raise ClientError('%s %s: status %d' % (method, path, r.status))
    return text


def new_image(server, **fields):
    """The id of a new image without data."""
    return json.loads(ask(server, 'POST', '/v2/images',
                          json.dumps({**IMAGE, **fields})))['id']


def multiply(db, table, key, old, changed):
    """@changed: expressions over the row (t) and the new image (new)."""
    columns = [row[1] for row in db.execute('PRAGMA table_info(%s)' % table)
               if row[1] != 'id' or 'id' in changed]
    db.execute('INSERT INTO %s (%s) SELECT %s FROM new, %s t WHERE t.%s = ?'
               ' ORDER BY new.n' %
               (table, ', '.join(columns),
                ', '.join(changed.get(c, 't.' + c) for c in columns),
                table, key), (old,))


class Service:
    """@folder has a store; each start works on a copy of its index."""

    index = None  # the database file, in the store

    def __init__(self, folder, count, say):
        self.folder = os.path.join(folder, '%s-%d' % (self.name, count))
        self.count = count
        if not os.path.isdir(self.folder):
            say('making %d images for %s' % (count, self.name))
            self.make(self.folder + '.part')
            os.rename(self.folder + '.part', self.folder)

    def start(self, store):
        port = free_port()
        return HttpServer(lambda run: self.argv(store, run, port), port)

    def make(self, store):
        shutil.rmtree(store, ignore_errors=True)
        os.makedirs(store)
        self.prepare(store)
        with self.start(store) as server:
            template = new_image(server)
            ask(server, 'PUT', '/v2/images/%s/file' % template,
                bytes(IMAGE_BYTES), 'application/octet-stream')
        rng = random.Random(self.count)
        db = sqlite3.connect(os.path.join(store, self.index))
        db.execute('PRAGMA synchronous = OFF')
        db.execute('CREATE TEMP TABLE new (n INTEGER PRIMARY KEY, id, name)')
        db.executemany(
            'INSERT INTO new VALUES (?, ?, ?)',
            ((i, str(uuid.UUID(int=rng.getrandbits(128), version=4)),
              'image-%07d' % i) for i in range(1, self.count)))
        self.fill(db, template)
        db.execute('DROP TABLE new')
        db.commit()
        db.execute('PRAGMA wal_checkpoint(TRUNCATE)')
        ids = [row[0] for row in db.execute('SELECT id FROM images')]
        db.close()
        with open(os.path.join(store, 'ids'), 'w') as f:
            f.write('\n'.join(ids) + '\n')

    def prepare(self, store):
        pass

    def ids(self):
        return os.path.join(self.folder, 'ids')

    def copy(self):
        """A store for one run; who uses it removes it."""
        store = tempfile.mkdtemp(prefix='run-', dir=os.path.dirname(
            self.folder))
        shutil.copytree(self.folder, store, dirs_exist_ok=True)
        return store


class Platter(Service):
    name = 'platter'
    index = 'index.sqlite'
    program = None

    def argv(self, store, run, port):
        return [self.program, 'server', '--listen',
                'unix:' + os.path.join(run, 'nbd'), 'store=' + store, 'glance=127.0.0.1:%d' % port]

    def fill(self, db, template):
        n, = db.execute('SELECT n FROM images WHERE id = ?',
                        (template,)).fetchone()
        time = '(%d + new.n) * 1000000' % FIRST_TIME
        multiply(db, 'images', 'id', template, {
            'n': '%d + new.n' % n, 'id': 'new.id', 'name': 'new.name',
            'created_at': time, 'updated_at': time})
        for table in 'properties', 'tags', 'locations':
            multiply(db, table, 'image', n, {'image': '%d + new.n' % n,
                                             'image_created': time})


class Glance(Service):
    name = 'glance'
    index = 'glance.sqlite'

    def prepare(self, store):
        for name in 'images', 'staging', 'lock':
            os.mkdir(os.path.join(store, name))
        conf = self.write_conf(store, store, 9)
        done = subprocess.run(['glance-manage', '--config-file', conf,
                               'db_sync'], stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True)
        if done.returncode:
            raise ClientError('glance-manage db_sync: status %d: %s' % (
                done.returncode,
                (done.stdout.strip().splitlines() or ['no message'])[-1]))

    @staticmethod
    def write_conf(store, folder, port):
        path = os.path.join(folder, 'glance.conf')
        with open(path, 'w') as f:
            f.write(GLANCE_CONF % {'store': store, 'port': port})
        return path

    def argv(self, store, run, port):
        return ['glance-api', '--config-file',
                self.write_conf(store, run, port)]

    def fill(self, db, template):
        time = "strftime('%%Y-%%m-%%d %%H:%%M:%%S.000000', %d + new.n, " \
            "'unixepoch')" % FIRST_TIME
        multiply(db, 'images', 'id', template, {
            'id': 'new.id', 'name': 'new.name', 'created_at': time,
            'updated_at': time})
        for table in 'image_properties', 'image_tags', 'image_locations':
            multiply(db, table, 'image_id', template, {'image_id': 'new.id'})
