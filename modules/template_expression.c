/* template_expression.c: values and conditions, read straight from the text of a tag.
 * A literal or a path (a.b[1]), compared by == ~= != in, joined by not, and, or; a value
 * with filters. It calls nothing but those and writes nothing. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "template.h"

static const char *const place_filters[] = { "raw", "sh", "env", "json", "yaml",
	"compose", "nginx", "url", NULL };
static const char *const other_filters[] = { "lower", "upper", "join", "indent", NULL };

bool
reader_fail(struct reader *t, size_t at, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(t->why, sizeof(t->why), fmt, ap);
	va_end(ap);
	t->at = at;
	return false;
}

bool
is_space(char c)
{
	return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

static bool
is_name(char c, bool first)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' ||
	    (!first && c >= '0' && c <= '9');
}

bool
slice_is(struct slice a, const char *s)
{
	return strlen(s) == a.len && memcmp(a.s, s, a.len) == 0;
}

static void
skip(struct reader *t)
{
	while (t->pos < t->end && is_space(t->text[t->pos]))
		t->pos++;
}

bool
reader_take(struct reader *t, const char *symbol)
{
	size_t n = strlen(symbol);

	skip(t);
	if (t->end - t->pos < n || memcmp(t->text + t->pos, symbol, n) != 0)
		return false;
	t->pos += n;
	return true;
}

bool
reader_name(struct reader *t, struct slice *name)
{
	size_t p;

	skip(t);
	p = t->pos;
	while (p < t->end && is_name(t->text[p], p == t->pos))
		p++;
	*name = (struct slice) { t->text + t->pos, p - t->pos };
	t->pos = p;
	return name->len > 0;
}

bool
reader_word(struct reader *t, const char *word)
{
	size_t back = t->pos;
	struct slice name;

	if (reader_name(t, &name) && slice_is(name, word))
		return true;
	t->pos = back;
	return false;
}

bool
reader_expected(struct reader *t, const char *wanted)
{
	skip(t);
	if (t->pos >= t->end)
		return reader_fail(t, t->pos, "%s expected", wanted);
	if (t->text[t->pos] == '.')
		return reader_fail(t, t->pos, "%s expected (what is meant for another "
		    "program stands between {%% raw %%} and {%% endraw %%})", wanted);
	if ((unsigned char)t->text[t->pos] >= 0x7f)
		return reader_fail(t, t->pos, "%s expected", wanted);
	return reader_fail(t, t->pos, "%s expected near '%c'", wanted, t->text[t->pos]);
}

bool
reader_ended(struct reader *t)
{
	skip(t);
	return t->pos >= t->end || reader_expected(t, "the end of the tag");
}

/* `whole` is undefined: say so, with the nearest of the table's keys. */
static bool
undefined(struct reader *t, struct slice whole, struct slice name, int table)
{
	lua_State *L = t->L;
	const char *meant;

	if (t->soft > 0)
		return true;
	lua_getfield(L, UP_TEXT, "nearest");
	lua_pushlstring(L, name.s, name.len);
	lua_pushvalue(L, table);
	lua_call(L, 2, 1);
	meant = lua_tostring(L, -1);
	return reader_fail(t, (size_t)(whole.s - t->text), "'%.*s' is undefined%s%s%s",
	    (int)whole.len, whole.s, meant != NULL ? "; did you mean '" : "",
	    meant != NULL ? meant : "", meant != NULL ? "'?" : "");
}

/* The value of a name. A dry reading notes the names that no loop binds. */
static bool
push_root(struct reader *t, struct slice name)
{
	lua_State *L = t->L;
	bool bound;

	lua_pushlstring(L, name.s, name.len);
	bound = lua_gettable(L, AT_SCOPE) != LUA_TNIL;
	if (t->dry == 0)
		return bound || undefined(t, name, name, AT_VARS);
	lua_pop(L, 1);
	lua_pushnil(L);
	if (!bound && t->check) {
		lua_pushlstring(L, name.s, name.len);
		lua_pushboolean(L, 1);
		lua_rawset(L, AT_NAMES);
	}
	return true;
}

static bool operand(struct reader *t);

/* Reads `.name`, `.1` or `[operand]` and pushes the key. */
static bool
read_key(struct reader *t, bool dotted)
{
	struct slice name;

	if (!dotted) {
		if (++t->nested > DEPTH_MAX)
			return reader_fail(t, t->pos, "nested too deeply");
		if (!operand(t))
			return false;
		t->nested--;
		return reader_take(t, "]") || reader_expected(t, "]");
	}
	if (reader_name(t, &name)) {
		lua_pushlstring(t->L, name.s, name.len);
		return true;
	}
	if (t->pos < t->end && t->text[t->pos] >= '0' && t->text[t->pos] <= '9')
		return operand(t);
	return reader_expected(t, "a name");
}

/* Replaces the table and the key on top of the stack by the part of that key. */
static bool
descend(struct reader *t, struct slice whole, size_t parent)
{
	lua_State *L = t->L;
	struct slice key = { "", 0 };
	int table = lua_gettop(L) - 1;
	size_t at = (size_t)(whole.s - t->text);

	if (t->dry > 0 || (t->soft > 0 && lua_isnil(L, table))) {
		lua_pop(L, 2);
		lua_pushnil(L);
		return true;
	}
	if (lb_is_secret(L, table) || !lua_istable(L, table))
		return reader_fail(t, at, "'%.*s' is a %s and has no parts", (int)parent,
		    whole.s, lb_is_secret(L, table) ? "secret" : luaL_typename(L, table));
	if (lua_type(L, -1) == LUA_TSTRING)
		key.s = lua_tolstring(L, -1, &key.len);
	else if (!lua_isinteger(L, -1))
		return reader_fail(t, at + parent, "this is no key");
	lua_pushvalue(L, -1);
	if (lua_gettable(L, table) == LUA_TNIL && !undefined(t, whole, key, table))
		return false;
	lua_replace(L, table);
	lua_settop(L, table);
	return true;
}

/* name { .name | .1 | [operand] } */
static bool
path(struct reader *t, struct slice name)
{
	size_t at = (size_t)(name.s - t->text);

	if (!push_root(t, name))
		return false;
	for (;;) {
		size_t parent = t->pos - at;
		bool dotted = t->pos < t->end && t->text[t->pos] == '.';

		if (!dotted && (t->pos >= t->end || t->text[t->pos] != '['))
			return true;
		t->pos++;
		if (!read_key(t, dotted) ||
		    !descend(t, (struct slice) { name.s, t->pos - at }, parent))
			return false;
	}
}

static bool
string_literal(struct reader *t, char quote)
{
	const char *s = t->text + t->pos + 1, *e;

	e = memchr(s, quote, t->end - t->pos - 1);
	if (e == NULL)
		return reader_fail(t, t->pos, "a text without an end");
	lua_pushlstring(t->L, s, (size_t)(e - s));
	t->pos += (size_t)(e - s) + 2;
	return true;
}

static bool
number_literal(struct reader *t)
{
	lua_Integer n = 0;
	size_t at = t->pos;
	bool minus = t->text[t->pos] == '-';

	for (t->pos += minus; t->pos < t->end; t->pos++) {
		char c = t->text[t->pos];

		if (c < '0' || c > '9')
			break;
		if (t->pos - at > 15)
			return reader_fail(t, at, "a number is too long");
		n = n * 10 + (c - '0');
	}
	if (t->pos == at + minus)
		return reader_expected(t, "a number");
	lua_pushinteger(t->L, minus ? -n : n);
	return true;
}

static bool
defined(struct reader *t)
{
	struct slice name;
	bool yes;

	t->soft++;
	if (!reader_name(t, &name))
		return reader_expected(t, "a name");
	if (!path(t, name))
		return false;
	t->soft--;
	yes = !lua_isnil(t->L, -1);
	lua_pop(t->L, 1);
	lua_pushboolean(t->L, yes);
	return reader_take(t, ")") || reader_expected(t, ")");
}

/* A literal or a path. */
static bool
operand(struct reader *t)
{
	struct slice name;
	char c;

	luaL_checkstack(t->L, 10, "template");
	skip(t);
	c = t->pos < t->end ? t->text[t->pos] : '\0';
	if (c == '"' || c == '\'')
		return string_literal(t, c);
	if (c == '-' || (c >= '0' && c <= '9'))
		return number_literal(t);
	if (!reader_name(t, &name))
		return reader_expected(t, "a name");
	if (slice_is(name, "true") || slice_is(name, "false"))
		lua_pushboolean(t->L, name.len == 4);
	else if (slice_is(name, "null"))
		lua_pushnil(t->L);
	else if (slice_is(name, "defined") && reader_take(t, "("))
		return defined(t);
	else
		return path(t, name);
	return true;
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

bool
truth(lua_State *L, int idx)
{
	if (lua_isboolean(L, idx))
		return lua_toboolean(L, idx);
	if (lua_type(L, idx) == LUA_TSTRING)
		return lua_rawlen(L, idx) > 0;
	if (lua_istable(L, idx)) {
		idx = lua_absindex(L, idx);
		lua_pushnil(L);
		if (lua_next(L, idx) == 0)
			return false;
		lua_pop(L, 2);
		return true;
	}
	return !is_null(L, idx);
}

static bool
equal(lua_State *L, int a, int b)
{
	return lua_rawequal(L, a, b) || (is_null(L, a) && is_null(L, b));
}

/* needle in list (a value), in map (a key), in text (a part) */
static bool
contains(struct reader *t, size_t at, bool *yes)
{
	lua_State *L = t->L;
	int needle = lua_gettop(L) - 1, hay = lua_gettop(L);

	*yes = false;
	if (lua_type(L, hay) == LUA_TSTRING && lua_type(L, needle) == LUA_TSTRING) {
		size_t hn, nn;
		const char *h = lua_tolstring(L, hay, &hn);
		const char *n = lua_tolstring(L, needle, &nn);

		*yes = memmem(h, hn, n, nn) != NULL;
		return true;
	}
	if (!lua_istable(L, hay))
		return reader_fail(t, at, "'in' needs a list, a map or a text");
	if (lua_type(L, needle) == LUA_TSTRING) {
		lua_pushvalue(L, needle);
		*yes = lua_gettable(L, hay) != LUA_TNIL;
		lua_pop(L, 1);
	}
	for (lua_Integer i = 1; !*yes && i <= (lua_Integer)lua_rawlen(L, hay); i++) {
		lua_rawgeti(L, hay, i);
		*yes = equal(L, needle, -1);
		lua_pop(L, 1);
	}
	return true;
}

static bool chain(struct reader *t, bool *yes, bool any);

static bool
comparison(struct reader *t, bool *yes)
{
	lua_State *L = t->L;
	int top = lua_gettop(L);
	size_t at;
	bool not_equal = false, in = false;

	if (reader_take(t, "(")) {
		if (++t->nested > DEPTH_MAX)
			return reader_fail(t, t->pos, "nested too deeply");
		if (!chain(t, yes, true))
			return false;
		t->nested--;
		return reader_take(t, ")") || reader_expected(t, ")");
	}
	if (!operand(t))
		return false;
	skip(t);
	at = t->pos;
	if (reader_take(t, "~=") || reader_take(t, "!="))
		not_equal = true;
	else if (reader_word(t, "in"))
		in = true;
	else if (!reader_take(t, "==")) {
		*yes = t->dry == 0 && truth(L, -1);
		lua_settop(L, top);
		return true;
	}
	if (!operand(t))
		return false;
	if (t->dry > 0)
		*yes = false;
	else if (lb_is_secret(L, -1) || lb_is_secret(L, -2))
		return reader_fail(t, at, "a secret cannot be compared");
	else if (!in)
		*yes = equal(L, -1, -2) != not_equal;
	else if (!contains(t, at, yes))
		return false;
	lua_settop(L, top);
	return true;
}

static bool
negation(struct reader *t, bool *yes)
{
	bool invert = false;

	while (reader_word(t, "not"))
		invert = !invert;
	if (!comparison(t, yes))
		return false;
	*yes = *yes != invert;
	return true;
}

/* What a short cut skips is still read, dry, so that the cursor moves on. */
static bool
chain(struct reader *t, bool *yes, bool any)
{
	bool right;

	if (!(any ? chain(t, yes, false) : negation(t, yes)))
		return false;
	while (reader_word(t, any ? "or" : "and")) {
		bool cut = *yes == any;

		t->dry += cut;
		if (!(any ? chain(t, &right, false) : negation(t, &right)))
			return false;
		t->dry -= cut;
		if (!cut)
			*yes = right;
	}
	return true;
}


static bool
is_one_of(struct slice name, const char *const names[])
{
	while (*names != NULL && !slice_is(name, *names))
		names++;
	return *names != NULL;
}

/* Replaces the value on top of the stack by text.FILTER(value, arg). */
static bool
apply(struct reader *t, struct slice filter, int args, bool *quoted)
{
	lua_State *L = t->L;

	lua_pushlstring(L, filter.s, filter.len);
	lua_gettable(L, UP_TEXT);
	lua_insert(L, -2 - args);
	lua_call(L, 1 + args, 2);
	if (lua_isnil(L, -2)) {
		lua_getfield(L, -1, "message");
		return reader_fail(t, t->at, "%.*s: %s", (int)filter.len, filter.s,
		    lua_tostring(L, -1));
	}
	*quoted = lua_toboolean(L, -1);
	lua_pop(L, 1);
	return true;
}

/* Reads `name` or `name(arg)`, the argument onto the stack. */
static bool
read_filter(struct reader *t, struct slice *name, int *args)
{
	int type;

	skip(t);
	t->at = t->pos;
	if (!reader_name(t, name))
		return reader_expected(t, "a filter");
	if (!is_one_of(*name, place_filters) && !is_one_of(*name, other_filters))
		return reader_fail(t, t->at, "there is no filter '%.*s'", (int)name->len,
		    name->s);
	type = slice_is(*name, "join") ? LUA_TSTRING : LUA_TNUMBER;
	*args = slice_is(*name, "join") || slice_is(*name, "indent");
	if (*args == 0)
		return true;
	if (!reader_take(t, "("))
		return reader_expected(t, "(");
	if (!operand(t))
		return false;
	if (t->dry == 0 && lua_type(t->L, -1) != type)
		return reader_fail(t, t->at, "%.*s(%s) is expected", (int)name->len,
		    name->s, type == LUA_TSTRING ? "text" : "number");
	return reader_take(t, ")") || reader_expected(t, ")");
}

bool
read_value(struct reader *t)
{
	t->nested = 0;
	return operand(t);
}

bool
read_condition(struct reader *t, bool *yes)
{
	t->nested = 0;
	return chain(t, yes, true) && reader_ended(t);
}

/* VALUE { "|" FILTER }. *place is the last filter for a place, or the default one. */
bool
read_output(struct reader *t, struct slice *place, bool *quoted)
{
	struct slice name, def;
	bool marks;
	int args = 0;

	*place = (struct slice) { NULL, 0 };
	*quoted = false;
	t->nested = 0;
	t->at = t->tag;
	if (!operand(t))
		return false;
	while (reader_take(t, "|")) {
		if (!read_filter(t, &name, &args))
			return false;
		if (t->dry == 0 && !apply(t, name, args, &marks))
			return false;
		if (!is_one_of(name, place_filters))
			continue;
		*place = name;
		*quoted = t->dry == 0 && marks;
	}
	if (!reader_ended(t))
		return false;
	if (place->s != NULL)
		return true;
	def = (struct slice) { t->escape, strlen(t->escape) };
	if (slice_is(def, "demand"))
		return reader_fail(t, t->pos, "a filter for the place is demanded (sh, "
		    "env, yaml ... or raw)");
	*place = def;
	return t->dry > 0 || apply(t, def, 0, quoted);
}
