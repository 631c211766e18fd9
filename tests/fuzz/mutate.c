/* SPDX-License-Identifier: BSD-3-Clause */
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "iouring/util.h"
#include "tests/fuzz/mutate.h"

#define MUTANT_SECONDS 5U
#define SWEPT_BYTES    1024U /* at the beginning, and at the end */
#define RANDOM_RUNS    500U /* of each file */
#define CUTS_MAX       200U /* borders of 512 bytes that a file is cut at */
#define RSS_KIB_MAX    (256L << 10)

struct subject {
	const struct mutate_options *o;
	replay_fn *run;
	const uint8_t *sound;
	uint8_t *mutant; /* as long as @sound */
	size_t bytes;
	uint64_t random;
	uint64_t refused, damaged, taken;
};

/* What is being run, for whoever finds the process dead. */
static char now[512];

static void tell(int sig)
{
	(void)!write(STDERR_FILENO, now, strlen(now));
	signal(sig, SIG_DFL);
	raise(sig);
}

static uint64_t next_random(struct subject *s)
{
	s->random ^= s->random << 13;
	s->random ^= s->random >> 7;
	s->random ^= s->random << 17;
	return s->random;
}

/* Runs the first @bytes of the mutant, in a buffer that ends where they do. */
static void run_mutant(struct subject *s, size_t bytes)
{
	struct replay_outcome o;
	uint8_t *exact = malloc(bytes + !bytes);

	MUST(exact, "out of memory");
	memcpy(exact, s->mutant, bytes);
	alarm(MUTANT_SECONDS);
	s->run(exact, bytes, &o);
	alarm(0);
	free(exact);
	if (o.refused)
		s->refused++;
	else if (o.damaged)
		s->damaged++;
	else
		s->taken++;
}

static uint64_t load(const struct subject *s, size_t at, size_t width)
{
	uint64_t value = 0;
	size_t i;

	for (i = 0; i < width; i++) {
		size_t k = s->o->big_endian ? i : width - 1 - i;

		value = value << 8 | s->sound[at + k];
	}
	return value;
}

static void store(struct subject *s, size_t at, size_t width, uint64_t value)
{
	size_t i;

	for (i = 0; i < width; i++) {
		size_t k = s->o->big_endian ? width - 1 - i : i;

		s->mutant[at + k] = (uint8_t)(value >> 8 * i);
	}
}

static void sweep_number(struct subject *s, const char *name, size_t at,
			 size_t width)
{
	const uint64_t max = width == 8 ? UINT64_MAX : UINT32_MAX;
	uint64_t was = load(s, at, width);
	const uint64_t values[] = { 0, max, max / 2 + 1, (was + 1) & max,
				    (was - 1) & max };
	size_t i;

	for (i = 0; i < ARRAY_SIZE(values); i++) {
		if (values[i] == was)
			continue;
		snprintf(now, sizeof(now),
			 "%s: %zu bytes at %zu are 0x%" PRIx64 "\n", name,
			 width, at, values[i]);
		store(s, at, width, values[i]);
		run_mutant(s, s->bytes);
	}
	memcpy(s->mutant + at, s->sound + at, width);
}

static void sweep(struct subject *s, const char *name, size_t from, size_t to)
{
	size_t at;

	for (at = from; at + 4 <= to; at += 4)
		sweep_number(s, name, at, 4);
	for (at = from; at + 8 <= to; at += 8)
		sweep_number(s, name, at, 8);
}

static void sweep_fields(struct subject *s, const char *name)
{
	size_t head = min_size(s->bytes, s->o->skip + SWEPT_BYTES);
	size_t tail = s->bytes < SWEPT_BYTES ? 0 : s->bytes - SWEPT_BYTES;

	sweep(s, name, s->o->skip, head);
	/* At the same alignment to the end, as a footer's fields are. */
	sweep(s, name, tail > head ? tail : head, s->bytes);
}

static void cut(struct subject *s, const char *name)
{
	size_t step = 512, at;

	while (s->bytes / step > CUTS_MAX / 3)
		step *= 2;
	for (at = 0; at < s->bytes; at += step) {
		const size_t places[] = { at - 1, at, at + 1 };
		size_t i;

		for (i = !at; i < ARRAY_SIZE(places); i++) {
			snprintf(now, sizeof(now), "%s: cut at %zu\n", name,
				 places[i]);
			run_mutant(s, min_size(places[i], s->bytes));
		}
	}
}

static void scatter(struct subject *s, const char *name)
{
	unsigned int i;

	for (i = 0; i < RANDOM_RUNS; i++) {
		size_t len = 1 + next_random(s) % 8, at, k;

		at = next_random(s) % s->bytes;
		len = min_size(len, s->bytes - at);
		snprintf(now, sizeof(now),
			 "%s: %zu random bytes at %zu, the %u.\n", name, len,
			 at, i);
		for (k = 0; k < len; k++)
			s->mutant[at + k] = (uint8_t)next_random(s);
		run_mutant(s, s->bytes);
		memcpy(s->mutant + at, s->sound + at, len);
	}
}

static void mutate_file(struct subject *s, const char *folder, const char *name)
{
	char path[4096];
	uint8_t *sound;

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	sound = replay_read(path, &s->bytes);
	s->mutant = malloc(s->bytes);
	MUST(s->mutant && s->bytes, "%s is empty, or memory is out", path);
	memcpy(s->mutant, sound, s->bytes);
	s->sound = sound;
	sweep_fields(s, name);
	cut(s, name);
	scatter(s, name);
	free(s->mutant);
	free(sound);
}

static const char *sanitizer(void)
{
	const char *name = getenv("PLATTER_SANITIZE");

	return name ? name : "none";
}

static bool is_tame(const struct subject *s)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	printf("%" PRIu64 " mutants refused, %" PRIu64 " damaged, %" PRIu64
	       " taken; %ld KiB\n",
	       s->refused, s->damaged, s->taken, usage.ru_maxrss);
	/* What a sanitizer keeps is not ours. */
	if (usage.ru_maxrss > RSS_KIB_MAX && !strcmp(sanitizer(), "none"))
		return false;
	/* Neither is so with mutants that are none. */
	return s->refused && s->taken;
}

int mutate(const char *folder, const struct mutate_options *options,
	   replay_fn *run)
{
	struct subject s = { .o = options, .run = run, .random = 0x9E3779B9 };
	const int fatal[] = { SIGABRT, SIGALRM, SIGBUS, SIGSEGV };
	struct dirent **list;
	int i, n;

	for (i = 0; i < (int)ARRAY_SIZE(fatal); i++)
		signal(fatal[i], tell);
	n = scandir(folder, &list, NULL, alphasort);
	MUST(n >= 0, "%s: %s", folder, strerror(errno));
	for (i = 0; i < n; i++) {
		if (!strncmp(list[i]->d_name, "valid-", 6))
			mutate_file(&s, folder, list[i]->d_name);
		free(list[i]);
	}
	free(list);
	return !is_tame(&s);
}
