/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The server's keys, as nbdkit keeps them (nbdkit-tls(1)): a folder with
 * ca-cert.pem, ca-crl.pem (may be missing), server-cert.pem and server-key.pem; or
 * a file of GnuTLS's psktool, with a line "IDENTITY:KEY" for each client, keys in
 * hexadecimal. They are read once.
 */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/stat.h>
#include <unistd.h>

#include "nbd/server/tls-inside.h"

#define PSK_FILE_BYTES_MAX (4U << 20)
/* OpenSSL's own limits: of a key, and of an identity. */
#define KEY_BYTES_MAX	   256U
#define IDENTITY_BYTES_MAX 127U

/* Of one client, or of a connection that is idle. */
#define READ_BUFFER_BYTES (16U << 10)

#define CERTIFICATE_CIPHERS \
	"ECDHE+AESGCM:ECDHE+CHACHA20:DHE+AESGCM:DHE+CHACHA20"
#define TLS13_CIPHERS                                    \
	"TLS_AES_256_GCM_SHA384:TLS_AES_128_GCM_SHA256:" \
	"TLS_CHACHA20_POLY1305_SHA256"
#define PSK_CIPHERS                                              \
	"ECDHE-PSK-CHACHA20-POLY1305:DHE-PSK-CHACHA20-POLY1305:" \
	"DHE-PSK-AES256-GCM-SHA384:DHE-PSK-AES128-GCM-SHA256"

struct psk {
	char *identity;
	size_t key_bytes;
	uint8_t key[KEY_BYTES_MAX];
};

struct tls_keys {
	SSL_CTX *context;
	struct psk *psks; /* by their identities */
	size_t n_psks;
	struct tls_access *access;
};

const struct tls_access *tls_keys_access(const struct tls_keys *k)
{
	return k->access;
}

bool tls_options_fit(const struct tls_options *o)
{
	return !o->access || (o->required && (o->verify_peer || o->psk));
}

SSL_CTX *tls_keys_context(const struct tls_keys *k)
{
	return k->context;
}

const char *tls_reason(void)
{
	const char *text = tls_crypto.ERR_reason_error_string(
		tls_crypto.ERR_peek_last_error());

	return text ? text : "no reason is given";
}

void tls_keys_free(struct tls_keys *k)
{
	if (!k)
		return;
	tls_api.SSL_CTX_free(k->context);
	while (k->n_psks) {
		struct psk *p = &k->psks[--k->n_psks];

		tls_crypto.OPENSSL_cleanse(p->key, sizeof(p->key));
		free(p->identity);
	}
	free(k->psks);
	tls_access_free(k->access);
	free(k);
}

static void tls_keys_freep(struct tls_keys **k)
{
	tls_keys_free(*k);
}

/* ---- files ---- */

/* It is a file that can be read; @secret: by others, too? */
static int look_at(const char *path, bool secret, void (*say)(const char *line),
		   struct error *err)
{
	char line[ERROR_MSG_BYTES];
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	struct stat st;
	int r = 0;

	if (fd < 0 || fstat(fd, &st) < 0)
		r = error_set(err, -errno, 0, "%s: %s", path,
			      errno_text(errno));
	else if (!S_ISREG(st.st_mode))
		r = error_set(err, -EINVAL, 0, "%s: is no regular file", path);
	if (fd >= 0)
		close(fd);
	if (r < 0 || !secret || !(st.st_mode & (S_IROTH | S_IWOTH)))
		return r;
	snprintf(line, sizeof(line),
		 "%.600s: is secret, and every user of this machine may %s it",
		 path, st.st_mode & S_IROTH ? "read" : "write");
	say(line);
	return 0;
}

static int wrong_file(const char *path, struct error *err)
{
	return error_set(err, -EBADMSG, 0, "%s: TLS: %s", path, tls_reason());
}

/* ---- certificates ---- */

static int no_passphrase(char *buf, int bytes, int writing, void *opaque)
{
	return -1; /* nobody is there to be asked */
}

struct folder_reader {
	struct tls_keys *keys;
	const char *folder;
	void (*say)(const char *line);
	struct error *err;
};

static int read_file(const struct folder_reader *f, const char *name,
		     bool secret,
		     int (*take)(SSL_CTX *context, const char *path))
{
	CLEANUP(freep) char *path = NULL;
	int r;

	if (asprintf(&path, "%s/%s", f->folder, name) < 0) {
		path = NULL;
		return error_set(f->err, -ENOMEM, 0, "out of memory");
	}
	r = look_at(path, secret, f->say, f->err);
	if (r < 0)
		return r;
	tls_crypto.ERR_clear_error();
	return take(f->keys->context, path) == 1 ? 0 : wrong_file(path, f->err);
}

static int take_certificate(SSL_CTX *context, const char *path)
{
	return tls_api.SSL_CTX_use_certificate_chain_file(context, path);
}

static int take_key(SSL_CTX *context, const char *path)
{
	int r = tls_api.SSL_CTX_use_PrivateKey_file(context, path,
						    SSL_FILETYPE_PEM);

	return r == 1 ? tls_api.SSL_CTX_check_private_key(context) : r;
}

/* Whose clients are let in; their names are told to them. */
static int take_authority(SSL_CTX *context, const char *path)
{
	STACK_OF(X509_NAME) *names = tls_api.SSL_load_client_CA_file(path);

	if (!names)
		return 0;
	tls_api.SSL_CTX_set_client_CA_list(context, names);
	return tls_api.SSL_CTX_load_verify_file(context, path);
}

static int take_revoked(SSL_CTX *context, const char *path)
{
	X509_STORE *store = tls_api.SSL_CTX_get_cert_store(context);
	X509_LOOKUP *lookup = tls_crypto.X509_STORE_add_lookup(
		store, tls_crypto.X509_LOOKUP_file());

	if (!lookup ||
	    tls_crypto.X509_load_crl_file(lookup, path, X509_FILETYPE_PEM) < 1)
		return 0;
	return tls_crypto.X509_STORE_set_flags(store, X509_V_FLAG_CRL_CHECK);
}

static int read_peers(const struct folder_reader *f)
{
	CLEANUP(freep) char *revoked = NULL;
	int r = read_file(f, "ca-cert.pem", false, take_authority);

	if (asprintf(&revoked, "%s/ca-crl.pem", f->folder) < 0) {
		revoked = NULL;
		return error_set(f->err, -ENOMEM, 0, "out of memory");
	}
	/* One that is there and cannot be read is not passed over. */
	if (r >= 0 && (!access(revoked, F_OK) || errno != ENOENT))
		r = read_file(f, "ca-crl.pem", false, take_revoked);
	tls_api.SSL_CTX_set_verify(
		f->keys->context,
		SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
	return r;
}

/* Where nbdkit looks; NULL: nowhere is one, or no memory. To be freed. */
static char *find_folder(void)
{
	static const char *const folders[] = { ".pki", ".config/pki" };
	const char *home = geteuid() ? getenv("HOME") : NULL;
	char *path;
	size_t i;

	for (i = 0; home && i < ARRAY_SIZE(folders); i++) {
		if (asprintf(&path, "%s/%s/nbdkit", home, folders[i]) < 0)
			return NULL;
		if (!access(path, X_OK))
			return path;
		free(path);
	}
	return strdup("/etc/pki/nbdkit");
}

static int read_folder(const struct tls_options *o, struct tls_keys *k,
		       void (*say)(const char *line), struct error *err)
{
	CLEANUP(freep)
	char *folder =
		o->certificates ? strdup(o->certificates) : find_folder();
	const struct folder_reader f = { k, folder, say, err };
	int r;

	if (!folder)
		return error_set(err, -ENOMEM, 0, "out of memory");
	tls_api.SSL_CTX_set_default_passwd_cb(k->context, no_passphrase);
	r = read_file(&f, "server-cert.pem", false, take_certificate);
	if (r >= 0)
		r = read_file(&f, "server-key.pem", true, take_key);
	if (r >= 0 && o->verify_peer)
		r = read_peers(&f);
	if (r >= 0 && tls_api.SSL_CTX_set_cipher_list(k->context,
						      CERTIFICATE_CIPHERS) != 1)
		r = wrong_file(folder, err);
	return r;
}

/* ---- keys that both have ---- */

static int by_identity(const void *a, const void *b)
{
	const struct psk *x = a, *y = b;

	return strcmp(x->identity, y->identity);
}

static unsigned int find_psk(SSL *ssl, const char *identity, uint8_t *ret,
			     unsigned int ret_bytes)
{
	struct tls_peer *peer = tls_api.SSL_get_ex_data(ssl, 0);
	const struct psk wanted = { .identity = (char *)identity }, *p;

	p = identity ? bsearch(&wanted, peer->keys->psks, peer->keys->n_psks,
			       sizeof(wanted), by_identity)
		     : NULL;
	if (!p || p->key_bytes > ret_bytes)
		return 0;
	memcpy(ret, p->key, p->key_bytes);
	text_escape(peer->name, sizeof(peer->name), p->identity);
	return (unsigned int)p->key_bytes;
}

static int hex_digit(char c)
{
	if (!isxdigit((unsigned char)c))
		return -1;
	return isdigit((unsigned char)c) ? c - '0'
					 : tolower((unsigned char)c) - 'a' + 10;
}

/* False: it is no key. */
static bool take_hex(const char *text, struct psk *ret)
{
	size_t n = strlen(text), i;

	if (!n || n % 2 || n / 2 > sizeof(ret->key))
		return false;
	for (i = 0; i < n / 2; i++) {
		int hi = hex_digit(text[2 * i]),
		    lo = hex_digit(text[2 * i + 1]);

		if (hi < 0 || lo < 0)
			return false;
		ret->key[i] = (uint8_t)(hi << 4 | lo);
	}
	ret->key_bytes = n / 2;
	return true;
}

static int take_line(struct tls_keys *k, char *line, struct error *err)
{
	char *colon = strrchr(line, ':');
	struct psk p = { 0 }, *grown;

	if (!*line || *line == '#')
		return 0;
	if (!colon || colon == line ||
	    colon - line > (ptrdiff_t)IDENTITY_BYTES_MAX ||
	    !take_hex(colon + 1, &p))
		return error_set(err, -EBADMSG, 0,
				 "is no IDENTITY:KEY of at most %u bytes and "
				 "%u hexadecimal digits",
				 IDENTITY_BYTES_MAX, 2 * KEY_BYTES_MAX);
	*colon = '\0';
	grown = reallocarray(k->psks, k->n_psks + 1, sizeof(*grown));
	if (grown)
		k->psks = grown;
	p.identity = strdup(line);
	if (!grown || !p.identity) {
		free(p.identity);
		return error_set(err, -ENOMEM, 0, "out of memory");
	}
	k->psks[k->n_psks++] = p;
	return 0;
}

static int take_lines(struct tls_keys *k, FILE *fp, const char *path,
		      struct error *err)
{
	CLEANUP(freep) char *line = NULL;
	size_t room = 0, number = 0, bytes = 0;
	ssize_t n;
	int r = 0;

	while (!r && (n = getline(&line, &room, fp)) > 0) {
		number++;
		bytes += (size_t)n;
		line[strcspn(line, "\r\n")] = '\0';
		if (bytes > PSK_FILE_BYTES_MAX)
			return error_set(err, -EFBIG, 0,
					 "%s: has more than %u bytes", path,
					 PSK_FILE_BYTES_MAX);
		r = take_line(k, line, err);
		if (r < 0)
			error_prefix(err, "%s: line %zu", path, number);
	}
	if (line)
		tls_crypto.OPENSSL_cleanse(line, room);
	if (!r && !k->n_psks)
		return error_set(err, -EINVAL, 0, "%s: no key is in it", path);
	return r;
}

static int read_psks(const struct tls_options *o, struct tls_keys *k,
		     void (*say)(const char *line), struct error *err)
{
	int r = look_at(o->psk, true, say, err);
	FILE *fp = r < 0 ? NULL : fopen(o->psk, "re");

	if (r < 0)
		return r;
	if (!fp)
		return error_set(err, -errno, 0, "%s: %s", o->psk,
				 errno_text(errno));
	r = take_lines(k, fp, o->psk, err);
	fclose(fp);
	if (r < 0)
		return r;
	qsort(k->psks, k->n_psks, sizeof(*k->psks), by_identity);
	tls_api.SSL_CTX_set_psk_server_callback(k->context, find_psk);
	return tls_api.SSL_CTX_set_cipher_list(k->context, PSK_CIPHERS) == 1
		       ? 0
		       : wrong_file(o->psk, err);
}

/* ---- */

/* Does the processor have instructions for it? */
static bool has_aes(void)
{
#if defined(__x86_64__) || defined(__i386__)
	return __builtin_cpu_supports("aes");
#elif defined(__aarch64__)
	return getauxval(AT_HWCAP) & HWCAP_AES;
#else
	return false;
#endif
}

/*
 * GnuTLS puts ChaCha20 before the one suite with AES that a pre-shared key allows,
 * at half the speed; and the kernel may not have it. Who puts ChaCha20 before all
 * has no such instructions, and gets it.
 */
static void prefer_aes(SSL_CTX *c)
{
	tls_api.SSL_CTX_set_options(c, SSL_OP_CIPHER_SERVER_PREFERENCE |
					       SSL_OP_PRIORITIZE_CHACHA);
	tls_api.SSL_CTX_set_ciphersuites(c, TLS13_CIPHERS);
}

static int new_context(struct tls_keys *k, struct error *err)
{
	SSL_CTX *c = tls_api.SSL_CTX_new(tls_api.TLS_server_method());

	if (!c)
		return error_set(err, -ENOMEM, 0, "TLS: %s", tls_reason());
	k->context = c;
	tls_api.SSL_CTX_set_options(
		c, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION |
			   SSL_OP_NO_TICKET | SSL_OP_ENABLE_KTLS);
	if (has_aes())
		prefer_aes(c);
	tls_api.SSL_CTX_ctrl(c, SSL_CTRL_SET_MIN_PROTO_VERSION, TLS1_2_VERSION,
			     NULL);
	tls_api.SSL_CTX_ctrl(c, SSL_CTRL_MODE,
			     SSL_MODE_ENABLE_PARTIAL_WRITE |
				     SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
				     SSL_MODE_RELEASE_BUFFERS,
			     NULL);
	tls_api.SSL_CTX_ctrl(c, SSL_CTRL_SET_SESS_CACHE_MODE,
			     SSL_SESS_CACHE_OFF, NULL);
	tls_api.SSL_CTX_ctrl(c, SSL_CTRL_SET_DH_AUTO, 1, NULL);
	tls_api.SSL_CTX_ctrl(c, SSL_CTRL_SET_READ_AHEAD, 1, NULL);
	tls_api.SSL_CTX_set_default_read_buffer_len(c, READ_BUFFER_BYTES);
	tls_api.SSL_CTX_set_num_tickets(c, 0);
	return 0;
}

int tls_keys_read(const struct tls_options *o, void (*say)(const char *line),
		  struct tls_keys **ret, struct error *err)
{
	CLEANUP(tls_keys_freep) struct tls_keys *k = NULL;
	int r;

	*ret = NULL;
	if (!o->offered)
		return 0;
	r = tls_library_load(err);
	if (r < 0)
		return r;
	k = calloc(1, sizeof(*k));
	if (!k)
		return error_set(err, -ENOMEM, 0, "out of memory");
	r = new_context(k, err);
	if (r >= 0)
		r = o->psk ? read_psks(o, k, say, err)
			   : read_folder(o, k, say, err);
	if (r >= 0 && o->access)
		r = tls_access_read(o->access, &k->access, err);
	if (r >= 0)
		*ret = TAKE_PTR(k);
	return r;
}
