/* template.h: what the two parts of the module share. It is no part of what Lua sees. */
#ifndef TEMPLATE_H
#define TEMPLATE_H

#include "lb.h"

#define DEPTH_MAX 32
#define UP_TEXT lua_upvalueindex(1) /* the module text: the filters, sorted keys */

/* Where things stand on Lua's stack: the arguments, the names that the template uses, the
 * scope of the innermost loop, and LOOPS with what the running loops go through. */
enum { AT_TEXT = 1, AT_VARS, AT_OPTS, AT_STATE, AT_NAMES, AT_SCOPE, AT_LOOPS };

struct slice {
	const char *s;
	size_t len;
};

/* A cursor on the text of a tag. Values go onto Lua's stack. */
struct reader {
	lua_State *L;
	const char *text;
	size_t pos, end;
	const char *escape; /* the filter of a value that has none for its place */
	bool check;         /* nothing is looked up: unbound names are noted */
	int dry;            /* > 0: read only, values are null */
	int soft;           /* > 0: an undefined name is null */
	int nested;
	size_t tag; /* where the tag begins */
	size_t at;  /* where it failed, and why */
	char why[256];
};

bool reader_fail(struct reader *r, size_t at, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
bool reader_expected(struct reader *r, const char *what);
bool reader_take(struct reader *r, const char *symbol);
bool reader_word(struct reader *r, const char *word);
bool reader_name(struct reader *r, struct slice *name);
bool reader_ended(struct reader *r);
bool is_space(char c);
bool slice_is(struct slice a, const char *s);

/* Each reads from the cursor on. A value; a value with its filters, as text or secret,
 * with the filter for the place that came last; a condition. */
bool read_value(struct reader *r);
bool read_output(struct reader *r, struct slice *place, bool *quoted);
bool read_condition(struct reader *r, bool *yes);
bool truth(lua_State *L, int idx);

#endif
