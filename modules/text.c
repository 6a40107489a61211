/* text.c: values made fit for the place where they will stand, and what else templates
 * ask of texts (sorted keys, the nearest name). A secret comes out as a secret of that
 * name. It knows no template and no file.
 *
 *	sh       one POSIX shell word: bare when harmless, else '...' with ' as '\''; of a
 *	         list several words
 *	env      a value in a .env file that docker compose 2, compose 1 (python-dotenv)
 *	         and, but for the escapes, sh read the same: bare when harmless; '...' is
 *	         literal in all of them; with ' or a line break "..." with \" \\ \n \r.
 *	         In "..." compose 2 expands $, and no escape of it holds in compose 1:
 *	         with $ a ' is written '...\'...'. What has no common form (${, \ at the
 *	         end, \\ with $) is refused
 *	json     a JSON value
 *	yaml     a YAML flow value, text always in "..."
 *	compose  as yaml, with $ doubled, since compose files expand it
 *	nginx    one word: bare when harmless, else "..." with \" and \\; nginx has no
 *	         escape for $: it is refused
 *	url      RFC 3986: all but A-Z a-z 0-9 - . _ ~ as %XX */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lb.h"

#define MODULE "text"
#define BUFFER "lb.text.buffer"
#define DEPTH_MAX 32
#define SIZE_LIMIT (64U << 20)

enum form { JSON, YAML, COMPOSE };

struct slice {
	const char *s;
	size_t len;
};

struct job {
	lua_State *L;
	struct lb_buf *out;
	char name[80]; /* of the first secret met; "": none so far */
	bool quoted;
	const char *why;
};

typedef bool writer(struct job *j, const char *s, size_t len);

static int
buffer_gc(lua_State *L)
{
	lb_buf_free(luaL_checkudata(L, 1, BUFFER));
	return 0;
}

static struct lb_buf *
buffer_new(lua_State *L)
{
	struct lb_buf *b = lua_newuserdatauv(L, sizeof(*b), 0);

	*b = (struct lb_buf) { 0 };
	luaL_setmetatable(L, BUFFER);
	return b;
}

static bool
refuse(struct job *j, const char *why)
{
	j->why = why;
	return false;
}

static bool
put(struct job *j, const char *data, size_t len)
{
	if (len > SIZE_LIMIT || j->out->len + len > SIZE_LIMIT)
		return refuse(j, "the result is too large");
	return lb_buf_add(j->out, data, len) || refuse(j, "out of memory");
}

static bool
puts_out(struct job *j, const char *s)
{
	return put(j, s, strlen(s));
}

static bool
has_mark(lua_State *L, int idx, const char *mark)
{
	bool yes;

	if (luaL_getmetafield(L, idx, "__name") == LUA_TNIL)
		return false;
	yes = lua_type(L, -1) == LUA_TSTRING && strcmp(lua_tostring(L, -1), mark) == 0;
	lua_pop(L, 1);
	return yes;
}

static bool
is_null(lua_State *L, int idx)
{
	return lua_isnil(L, idx) ||
	    (lua_isuserdata(L, idx) && has_mark(L, idx, "json.null"));
}

static bool
is_list(lua_State *L, int idx)
{
	return lua_rawlen(L, idx) > 0 || has_mark(L, idx, "json.array");
}

/* A string or a secret. The result takes over the name of the first secret. */
static bool
is_text(struct job *j, int idx)
{
	if (!lb_is_secret(j->L, idx))
		return lua_type(j->L, idx) == LUA_TSTRING;
	if (*j->name == '\0') {
		lua_getfield(j->L, idx, "name");
		lua_pushvalue(j->L, idx);
		lua_call(j->L, 1, 1);
		snprintf(j->name, sizeof(j->name), "%s", lua_tostring(j->L, -1));
		lua_pop(j->L, 1);
	}
	return true;
}

/* Numbers and booleans as text: the shortest form that reads back as the same number. */
static bool
put_plain(struct job *j, int idx)
{
	lua_State *L = j->L;
	char text[48];
	double d = lua_tonumber(L, idx);

	if (lua_isboolean(L, idx))
		return puts_out(j, lua_toboolean(L, idx) ? "true" : "false");
	if (is_null(L, idx))
		return puts_out(j, "null");
	if (lua_type(L, idx) != LUA_TNUMBER)
		return refuse(j, "the value has no form as text");
	if (lua_isinteger(L, idx)) {
		snprintf(text, sizeof(text), "%lld", (long long)lua_tointeger(L, idx));
		return puts_out(j, text);
	}
	if (!isfinite(d))
		return refuse(j, "a number that is not finite");
	for (int digits = 15; digits <= 17; digits++) {
		snprintf(text, sizeof(text), "%.*g", digits, d);
		if (strtod(text, NULL) == d)
			break;
	}
	if (strpbrk(text, ".e") == NULL)
		strcat(text, ".0");
	return puts_out(j, text);
}

/* JSON and YAML */

/* One code point of UTF-8; 0: not UTF-8. */
static size_t
decode(const char *s, size_t left, unsigned *code)
{
	static const unsigned least[] = { 0, 0, 0x80, 0x800, 0x10000 };
	const unsigned char *p = (const unsigned char *)s;
	size_t n = p[0] < 0x80 ? 1 : p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : 4;

	if ((p[0] >= 0x80 && p[0] < 0xc2) || p[0] > 0xf4 || n > left)
		return 0;
	*code = n == 1 ? p[0] : p[0] & (0xffU >> (n + 1));
	for (size_t i = 1; i < n; i++) {
		if ((p[i] & 0xc0) != 0x80)
			return 0;
		*code = *code << 6 | (p[i] & 0x3fU);
	}
	if (*code < least[n] || *code > 0x10ffff || (*code >= 0xd800 && *code <= 0xdfff))
		return 0;
	return n;
}

/* The escapes that a JSON string and a YAML "..." scalar have in common. */
static bool
put_quoted(struct job *j, const char *s, size_t len, enum form form)
{
	char escape[16];
	unsigned code;

	if (!put(j, "\"", 1))
		return false;
	for (size_t i = 0, n; i < len; i += n) {
		n = decode(s + i, len - i, &code);
		if (n == 0)
			return refuse(j, "the value is not valid UTF-8");
		*escape = '\0';
		if (code == '"' || code == '\\')
			snprintf(escape, sizeof(escape), "\\%c", (char)code);
		else if (code == '\n')
			strcpy(escape, "\\n");
		else if (code == '$' && form == COMPOSE)
			strcpy(escape, "$$");
		else if (code < 0x20 || (code >= 0x7f && code < 0xa0) || code == 0x2028 ||
		    code == 0x2029 || code == 0xfeff)
			snprintf(escape, sizeof(escape), "\\u%04x", code);
		if (*escape != '\0' ? !puts_out(j, escape) : !put(j, s + i, n))
			return false;
	}
	j->quoted = true;
	return put(j, "\"", 1);
}

static int
compare_keys(const void *a, const void *b)
{
	const struct slice *x = a, *y = b;
	int d = memcmp(x->s, y->s, x->len < y->len ? x->len : y->len);

	return d != 0 ? d : (x->len > y->len) - (x->len < y->len);
}

/* Pushes the list of the map's keys, sorted by bytes; false: one of them is no text. */
static bool
push_keys(lua_State *L, int map, lua_Integer *count)
{
	size_t n = 0;
	struct slice *keys;

	for (lua_pushnil(L); lua_next(L, map); lua_pop(L, 1), n++) {
		if (lua_type(L, -2) != LUA_TSTRING)
			return false;
	}
	keys = lua_newuserdatauv(L, (n + 1) * sizeof(*keys), 0);
	n = 0;
	/* The map holds the keys' bytes meanwhile. */
	for (lua_pushnil(L); lua_next(L, map); lua_pop(L, 1), n++)
		keys[n].s = lua_tolstring(L, -2, &keys[n].len);
	qsort(keys, n, sizeof(*keys), compare_keys);
	lua_createtable(L, (int)n, 0);
	for (size_t i = 0; i < n; i++) {
		lua_pushlstring(L, keys[i].s, keys[i].len);
		lua_rawseti(L, -2, (lua_Integer)i + 1);
	}
	lua_remove(L, -2);
	*count = (lua_Integer)n;
	return true;
}

static bool put_value(struct job *j, int idx, enum form form, int depth);

static bool
put_list(struct job *j, int idx, enum form form, int depth)
{
	lua_Integer n = (lua_Integer)lua_rawlen(j->L, idx);

	for (lua_Integer i = 1; i <= n; i++) {
		if (i > 1 && !puts_out(j, form == JSON ? "," : ", "))
			return false;
		lua_rawgeti(j->L, idx, i);
		if (!put_value(j, lua_gettop(j->L), form, depth))
			return false;
		lua_pop(j->L, 1);
	}
	return true;
}

static bool
put_map(struct job *j, int idx, enum form form, int depth)
{
	lua_State *L = j->L;
	lua_Integer n;
	size_t len;
	const char *s;

	if (!push_keys(L, idx, &n))
		return refuse(j, "a map has a key that is no text");
	for (lua_Integer i = 1; i <= n; i++) {
		lua_rawgeti(L, -1, i);
		s = lua_tolstring(L, -1, &len);
		if ((i > 1 && !puts_out(j, form == JSON ? "," : ", ")) ||
		    !put_quoted(j, s, len, form) ||
		    !puts_out(j, form == JSON ? ":" : ": "))
			return false;
		lua_rawget(L, idx);
		if (!put_value(j, lua_gettop(L), form, depth))
			return false;
		lua_pop(L, 1);
	}
	lua_pop(L, 1);
	return true;
}

static bool
put_value(struct job *j, int idx, enum form form, int depth)
{
	lua_State *L = j->L;
	size_t len;
	const char *s;

	luaL_checkstack(L, 10, MODULE);
	if (is_text(j, idx)) {
		s = lb_bytes(L, idx, &len);
		return put_quoted(j, s, len, form);
	}
	if (!lua_istable(L, idx))
		return put_plain(j, idx);
	if (depth >= DEPTH_MAX)
		return refuse(j, "the value is nested too deeply");
	j->quoted = true;
	if (is_list(L, idx))
		return put(j, "[", 1) && put_list(j, idx, form, depth + 1) &&
		    put(j, "]", 1);
	return put(j, "{", 1) && put_map(j, idx, form, depth + 1) && put(j, "}", 1);
}

/* Words */

static bool
harmless(const char *s, size_t len, const char *marks)
{
	for (size_t i = 0; i < len; i++) {
		char c = s[i];
		bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
		    (c >= '0' && c <= '9') || c == '_';

		if (c == '\0' || (!letter && strchr(marks, c) == NULL))
			return false;
	}
	return len > 0;
}

static bool
has(const char *s, size_t len, const char *what)
{
	return memmem(s, len, what, strlen(what)) != NULL;
}

static bool
has_nul(const char *s, size_t len)
{
	return memchr(s, '\0', len) != NULL;
}

static bool
write_sh(struct job *j, const char *s, size_t len)
{
	bool ok;

	if (harmless(s, len, "@%+=:,./-"))
		return put(j, s, len);
	if (has_nul(s, len))
		return refuse(j, "a NUL byte in a shell word");
	j->quoted = true;
	ok = put(j, "'", 1);
	for (size_t i = 0; ok && i < len; i++)
		ok = s[i] == '\'' ? puts_out(j, "'\\''") : put(j, s + i, 1);
	return ok && put(j, "'", 1);
}

/* The byte inside the quotes q of a .env file. */
static bool
put_env_byte(struct job *j, char c, char q)
{
	if (q == '"' && c == '\n')
		return puts_out(j, "\\n");
	if (q == '"' && c == '\r')
		return puts_out(j, "\\r");
	if ((c == q || (c == '\\' && q == '"')) && !put(j, "\\", 1))
		return false;
	return put(j, &c, 1);
}

static bool
write_env(struct job *j, const char *s, size_t len)
{
	bool line = has(s, len, "\n") || has(s, len, "\r"), ok;
	/* Where '...' is not literal in all of the parsers. */
	bool slash = has(s, len, "\\\\") || has(s, len, "\\'");
	char q = line || slash || has(s, len, "'") ? '"' : '\'';

	if (harmless(s, len, "@%+=:,./-"))
		return put(j, s, len);
	if (has_nul(s, len))
		return refuse(j, "a NUL byte in an environment variable");
	if (len > 0 && s[len - 1] == '\\')
		return refuse(j, "a value that ends in \\ is misread by compose 1");
	if (has(s, len, "$") && !line && !slash)
		q = '\'';
	if (has(s, len, "${") || (has(s, len, "$") && q == '"'))
		return refuse(j, "a value with ${, or with $ beside \\ or a line break, "
		    "is not read the same by docker compose 1 and 2");
	j->quoted = true;
	ok = put(j, &q, 1);
	for (size_t i = 0; ok && i < len; i++)
		ok = put_env_byte(j, s[i], q);
	return ok && put(j, &q, 1);
}

static bool
write_nginx(struct job *j, const char *s, size_t len)
{
	bool ok;

	if (harmless(s, len, "@%+=:,./*-"))
		return put(j, s, len);
	if (has(s, len, "$"))
		return refuse(j, "nginx has no escape for $");
	if (has_nul(s, len))
		return refuse(j, "a NUL byte in a configuration of nginx");
	j->quoted = true;
	ok = put(j, "\"", 1);
	for (size_t i = 0; ok && i < len; i++) {
		if (s[i] == '"' || s[i] == '\\')
			ok = put(j, "\\", 1);
		ok = ok && put(j, s + i, 1);
	}
	return ok && put(j, "\"", 1);
}

static bool
write_url(struct job *j, const char *s, size_t len)
{
	char code[4];

	for (size_t i = 0; i < len; i++) {
		if (harmless(s + i, 1, "-.~")) {
			if (!put(j, s + i, 1))
				return false;
			continue;
		}
		snprintf(code, sizeof(code), "%%%02X", (unsigned)(unsigned char)s[i]);
		if (!puts_out(j, code))
			return false;
	}
	return true;
}

static bool
write_as_is(struct job *j, const char *s, size_t len)
{
	return put(j, s, len);
}

static bool
write_lower(struct job *j, const char *s, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		char c = s[i] >= 'A' && s[i] <= 'Z' ? (char)(s[i] | 0x20) : s[i];

		if (!put(j, &c, 1))
			return false;
	}
	return true;
}

static bool
write_upper(struct job *j, const char *s, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		char c = s[i] >= 'a' && s[i] <= 'z' ? (char)(s[i] & ~0x20) : s[i];

		if (!put(j, &c, 1))
			return false;
	}
	return true;
}

/* Filters */

static struct job
begin(lua_State *L)
{
	struct job j = { .L = L };

	luaL_checkany(L, 1);
	j.out = buffer_new(L);
	return j;
}

static int
finish(struct job *j, const char *op, bool ok)
{
	lua_State *L = j->L;

	if (!ok) {
		lb_buf_free(j->out);
		return lb_fail(L, MODULE, op, "value", "%s", j->why);
	}
	if (*j->name != '\0')
		lb_secret_push(L, j->name, j->out->data, j->out->len);
	else
		lua_pushlstring(L, j->out->len > 0 ? j->out->data : "", j->out->len);
	lb_buf_free(j->out);
	lua_pushboolean(L, j->quoted);
	return 2;
}

static bool
write_scalar(struct job *j, int idx, writer *write)
{
	size_t len;
	const char *s;

	if (is_null(j->L, idx) || lua_istable(j->L, idx))
		return refuse(j, "null, or a table, where text is expected");
	if (!is_text(j, idx))
		return put_plain(j, idx);
	s = lb_bytes(j->L, idx, &len);
	return write(j, s, len);
}

/* Each item of the list at 1, with `sep` between. */
static bool
write_list(struct job *j, writer *write, const char *sep, size_t seplen)
{
	lua_Integer n = (lua_Integer)lua_rawlen(j->L, 1);

	lua_pushnil(j->L);
	if (n == 0 && lua_next(j->L, 1) != 0)
		return refuse(j, "a map where a list is expected");
	for (lua_Integer i = 1; i <= n; i++) {
		if (i > 1 && !put(j, sep, seplen))
			return false;
		lua_rawgeti(j->L, 1, i);
		if (!write_scalar(j, lua_gettop(j->L), write))
			return false;
		lua_pop(j->L, 1);
	}
	return true;
}

static int
filter(lua_State *L, const char *op, writer *write)
{
	struct job j;

	lua_settop(L, lua_isnone(L, 1) ? 0 : 1);
	j = begin(L);
	return finish(&j, op, write_scalar(&j, 1, write));
}

static int
structure(lua_State *L, const char *op, enum form form)
{
	struct job j;

	lua_settop(L, lua_isnone(L, 1) ? 0 : 1);
	j = begin(L);
	return finish(&j, op, put_value(&j, 1, form, 0));
}

/* text.sh(value)
 *  One word of a POSIX shell; of a list one word an item. The second result of this and
 *  of the other filters says whether quotes were needed.
 *  +-> text, quoted
 *  +-> nil, err   (value)                                                             */
static int
text_sh(lua_State *L)
{
	struct job j;

	if (!lua_istable(L, 1))
		return filter(L, "sh", write_sh);
	lua_settop(L, 1);
	j = begin(L);
	return finish(&j, "sh", write_list(&j, write_sh, " ", 1));
}

/* text.env(value)
 *  The value of a variable in a .env file.
 *  +-> text, quoted
 *  +-> nil, err   (value)                                                             */
static int
text_env(lua_State *L)
{
	return filter(L, "env", write_env);
}

/* text.nginx(value)
 *  One word of nginx's configuration.
 *  +-> text, quoted
 *  +-> nil, err   (value)                                                             */
static int
text_nginx(lua_State *L)
{
	return filter(L, "nginx", write_nginx);
}

/* text.url(value)
 *  Percent-encoded for any part of a URL.
 *  +-> text, quoted
 *  +-> nil, err   (value)                                                             */
static int
text_url(lua_State *L)
{
	return filter(L, "url", write_url);
}

/* text.json(value)
 *  A JSON value, keys sorted; unlike json.encode it takes secrets.
 *  +-> text, quoted
 *  +-> nil, err   (value)                                                             */
static int
text_json(lua_State *L)
{
	return structure(L, "json", JSON);
}

/* text.yaml(value)
 *  A YAML flow value on one line.
 *  +-> text, quoted
 *  +-> nil, err   (value)                                                             */
static int
text_yaml(lua_State *L)
{
	return structure(L, "yaml", YAML);
}

/* text.compose(value)
 *  A YAML flow value for a compose file: $ is doubled.
 *  +-> text, quoted
 *  +-> nil, err   (value)                                                             */
static int
text_compose(lua_State *L)
{
	return structure(L, "compose", COMPOSE);
}

/* text.raw(value)
 *  The scalar as it is.
 *  +-> text, quoted
 *  +-> nil, err   (value)                                                             */
static int
text_raw(lua_State *L)
{
	return filter(L, "raw", write_as_is);
}

/* text.lower(value)
 *  +-> text, quoted
 *  +-> nil, err   (value)                                                             */
static int
text_lower(lua_State *L)
{
	return filter(L, "lower", write_lower);
}

/* text.upper(value)
 *  +-> text, quoted
 *  +-> nil, err   (value)                                                             */
static int
text_upper(lua_State *L)
{
	return filter(L, "upper", write_upper);
}

/* text.join(list, separator)
 *  +-> text, quoted
 *  +-> nil, err   (value)                                                             */
static int
text_join(lua_State *L)
{
	size_t len;
	const char *sep = luaL_checklstring(L, 2, &len);
	struct job j;

	if (!lua_istable(L, 1))
		return lb_fail(L, MODULE, "join", "value", "a list is expected");
	lua_settop(L, 2);
	j = begin(L);
	return finish(&j, "join", write_list(&j, write_as_is, sep, len));
}

static bool
indent(struct job *j, lua_Integer n)
{
	size_t len;
	const char *s;

	if (!is_text(j, 1))
		return refuse(j, "text is expected");
	s = lb_bytes(j->L, 1, &len);
	for (size_t i = 0; i < len; i++) {
		if (!put(j, s + i, 1))
			return false;
		if (s[i] != '\n' || i + 1 == len || s[i + 1] == '\n')
			continue;
		for (lua_Integer k = 0; k < n; k++) {
			if (!put(j, " ", 1))
				return false;
		}
	}
	return true;
}

/* text.indent(text, n)
 *  n spaces before every line but the first and the empty ones.
 *  +-> text, quoted
 *  +-> nil, err   (value)                                                             */
static int
text_indent(lua_State *L)
{
	lua_Integer n = luaL_checkinteger(L, 2);
	struct job j;

	luaL_argcheck(L, n >= 0 && n <= 100, 2, "0 to 100 expected");
	lua_settop(L, 2);
	j = begin(L);
	return finish(&j, "indent", indent(&j, n));
}

/* text.keys(map)
 *  The keys, sorted. Raises when one of them is no string.
 *  +-> list                                                                           */
static int
text_keys(lua_State *L)
{
	lua_Integer n;

	luaL_checktype(L, 1, LUA_TTABLE);
	luaL_argcheck(L, push_keys(L, 1, &n), 1, "a key is no text");
	return 1;
}

/* Edit distance, for names up to 40 characters. */
static int
distance(struct slice a, struct slice b)
{
	int row[41];

	if (a.len > 40 || b.len > 40)
		return 99;
	for (size_t k = 0; k <= b.len; k++)
		row[k] = (int)k;
	for (size_t i = 1; i <= a.len; i++) {
		int corner = row[0];

		row[0] = (int)i;
		for (size_t k = 1; k <= b.len; k++) {
			int best = corner + (a.s[i - 1] != b.s[k - 1]);

			corner = row[k];
			if (row[k] + 1 < best)
				best = row[k] + 1;
			if (row[k - 1] + 1 < best)
				best = row[k - 1] + 1;
			row[k] = best;
		}
	}
	return row[b.len];
}

/* text.nearest(name, map)
 *  The key of the map that was probably meant, at most two letters away.
 *  +-> key
 *  +-> nil                                                                            */
static int
text_nearest(lua_State *L)
{
	struct slice name, key, best = { NULL, 0 };
	int least;

	luaL_checktype(L, 1, LUA_TSTRING);
	luaL_checktype(L, 2, LUA_TTABLE);
	name.s = lua_tolstring(L, 1, &name.len);
	least = name.len > 3 ? 2 : 1;
	for (lua_pushnil(L); lua_next(L, 2); lua_pop(L, 1)) {
		int d;

		if (lua_type(L, -2) != LUA_TSTRING)
			continue;
		key.s = lua_tolstring(L, -2, &key.len);
		d = distance(name, key);
		if (d < least || (d == least &&
		    (best.s == NULL || compare_keys(&key, &best) < 0))) {
			least = d;
			best = key;
		}
	}
	if (best.s == NULL)
		lua_pushnil(L);
	else
		lua_pushlstring(L, best.s, best.len);
	return 1;
}

int luaopen_text(lua_State *L);

int
luaopen_text(lua_State *L)
{
	static const luaL_Reg functions[] = {
		{ "sh", text_sh },
		{ "env", text_env },
		{ "nginx", text_nginx },
		{ "url", text_url },
		{ "json", text_json },
		{ "yaml", text_yaml },
		{ "compose", text_compose },
		{ "raw", text_raw },
		{ "lower", text_lower },
		{ "upper", text_upper },
		{ "join", text_join },
		{ "indent", text_indent },
		{ "keys", text_keys },
		{ "nearest", text_nearest },
		{ NULL, NULL },
	};

	if (luaL_newmetatable(L, BUFFER)) {
		lua_pushcfunction(L, buffer_gc);
		lua_setfield(L, -2, "__gc");
	}
	lua_pop(L, 1);
	luaL_newlib(L, functions);
	return 1;
}
