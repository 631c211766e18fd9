/* SPDX-License-Identifier: BSD-3-Clause */
#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "glance/time-text.h"

int64_t time_now_usec(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return (int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

void time_format(int64_t usec, char *ret)
{
	time_t sec = (time_t)(usec / 1000000);
	struct tm tm;

	if (!gmtime_r(&sec, &tm) ||
	    strftime(ret, 21, "%Y-%m-%dT%H:%M:%SZ", &tm) != 20)
		strcpy(ret, "1970-01-01T00:00:00Z");
}

/* "Z", "+HH:MM", "-HHMM", "" */
static bool parse_zone(const char *z, int64_t *ret_sec)
{
	unsigned int h, m;
	int n = 0;

	*ret_sec = 0;
	if (!*z || !strcmp(z, "Z"))
		return true;
	if ((*z != '+' && *z != '-') ||
	    (sscanf(z + 1, "%2u:%2u%n", &h, &m, &n) != 2 &&
	     sscanf(z + 1, "%2u%2u%n", &h, &m, &n) != 2) ||
	    z[1 + n] || h > 23 || m > 59)
		return false;
	*ret_sec = ((int64_t)h * 60 + m) * 60 * (*z == '-' ? -1 : 1);
	return true;
}

bool time_parse(const char *text, int64_t *ret_usec)
{
	struct tm tm = { 0 };
	int64_t usec = 0, zone, digit = 100000;
	const char *p = strptime(text, "%Y-%m-%d", &tm);
	time_t sec;

	if (!p)
		return false;
	if (*p == 'T' || *p == ' ') {
		const char *t = strptime(p + 1, "%H:%M:%S", &tm);

		p = t ? t : strptime(p + 1, "%H:%M", &tm);
		if (!p)
			return false;
		if (*p == '.')
			for (p++; isdigit((unsigned char)*p); p++) {
				usec += (*p - '0') * digit;
				digit /= 10;
			}
	}
	if (!parse_zone(p, &zone))
		return false;
	sec = timegm(&tm);
	*ret_usec = ((int64_t)sec - zone) * 1000000 + usec;
	return true;
}
