/* SPDX-License-Identifier: BSD-3-Clause */
/* What kind of answer a client asks for: the header Accept, RFC 9110 12.5.1. */
#ifndef GLANCE_HTTP_ACCEPT_H
#define GLANCE_HTTP_ACCEPT_H

enum accept_kind { ACCEPT_TEXT, ACCEPT_HTML, ACCEPT_JSON };

/*
 * The kind of a refusal: HTML or JSON, whichever @accept prefers, HTML where it
 * likes both as much or cannot be understood; plain text where it takes neither
 * and where there is none (NULL), as Glance has it.
 */
enum accept_kind accept_refusal(const char *accept);

#endif
