/* expression.c: the values and conditions of the templates, read straight from the text.
 * A literal or a path (a.b[1]), compared by == ~= != in, joined by not, and, or. It calls
 * nothing, counts nothing and writes nothing. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "lb.h"

#define MODULE "expression"
#define DEPTH_MAX 32
#define UP_TEXT lua_upvalueindex(1) /* the module text */

/* The arguments of every function here, by their place on the stack. */
enum { AT_TEXT = 1, AT_FROM, AT_TO, AT_SCOPE, AT_NAMES, AT_DRY, AT_DEFAULT };

static const char *const place_filters[] = { "raw", "sh", "env", "json", "yaml",
	"compose", "nginx", "url", NULL };
static const char *const other_filters[] = { "lower", "upper", "join", "indent", NULL };

struct slice {
	const char *s;
	size_t len;
};

struct state {
	lua_State *L;
	const char *text;
	size_t pos, end;
	int nested;
	int dry;  /* > 0: read only; values are null */
	int soft; /* > 0: an undefined name is null */
	size_t at;
	char why[256];
};

static bool
fail(struct state *t, size_t at, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(t->why, sizeof(t->why), fmt, ap);
	va_end(ap);
	t->at = at;
	return false;
}

static bool
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

static bool
slice_is(struct slice a, const char *s)
{
	return strlen(s) == a.len && memcmp(a.s, s, a.len) == 0;
}

static void
skip(struct state *t)
{
	while (t->pos < t->end && is_space(t->text[t->pos]))
		t->pos++;
}

static bool
take(struct state *t, const char *symbol)
{
	size_t n = strlen(symbol);

	skip(t);
	if (t->end - t->pos < n || memcmp(t->text + t->pos, symbol, n) != 0)
		return false;
	t->pos += n;
	return true;
}

static bool
read_name(struct state *t, struct slice *name)
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

static bool
take_word(struct state *t, const char *word)
{
	size_t back = t->pos;
	struct slice name;

	if (read_name(t, &name) && slice_is(name, word))
		return true;
	t->pos = back;
	return false;
}

static bool
unexpected(struct state *t, const char *wanted)
{
	skip(t);
	if (t->pos >= t->end)
		return fail(t, t->pos, "%s expected", wanted);
	if (t->text[t->pos] == '.')
		return fail(t, t->pos, "%s expected (what is meant for another program "
		    "stands between {%% raw %%} and {%% endraw %%})", wanted);
	if ((unsigned char)t->text[t->pos] >= 0x7f)
		return fail(t, t->pos, "%s expected", wanted);
	return fail(t, t->pos, "%s expected near '%c'", wanted, t->text[t->pos]);
}

/* `whole` is undefined: say so, with the nearest of the table's keys. */
static bool
undefined(struct state *t, struct slice whole, struct slice name, int table)
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
	return fail(t, (size_t)(whole.s - t->text), "'%.*s' is undefined%s%s%s",
	    (int)whole.len, whole.s, meant != NULL ? "; did you mean '" : "",
	    meant != NULL ? meant : "", meant != NULL ? "'?" : "");
}

/* The value of a name. A dry reading notes the names that no loop binds. */
static bool
push_root(struct state *t, struct slice name)
{
	lua_State *L = t->L;
	bool bound;

	lua_pushlstring(L, name.s, name.len);
	bound = lua_gettable(L, AT_SCOPE) != LUA_TNIL;
	if (t->dry == 0)
		return bound || undefined(t, name, name, AT_NAMES);
	lua_pop(L, 1);
	lua_pushnil(L);
	if (!bound && lua_toboolean(L, AT_DRY)) {
		lua_pushlstring(L, name.s, name.len);
		lua_pushboolean(L, 1);
		lua_rawset(L, AT_NAMES);
	}
	return true;
}

static bool operand(struct state *t);

/* Reads `.name`, `.1` or `[operand]` and pushes the key. */
static bool
read_key(struct state *t, bool dotted)
{
	struct slice name;

	if (!dotted) {
		if (++t->nested > DEPTH_MAX)
			return fail(t, t->pos, "nested too deeply");
		if (!operand(t))
			return false;
		t->nested--;
		return take(t, "]") || unexpected(t, "]");
	}
	if (read_name(t, &name)) {
		lua_pushlstring(t->L, name.s, name.len);
		return true;
	}
	if (t->pos < t->end && t->text[t->pos] >= '0' && t->text[t->pos] <= '9')
		return operand(t);
	return unexpected(t, "a name");
}

/* Replaces the table and the key on top of the stack by the part of that key. */
static bool
descend(struct state *t, struct slice whole, size_t parent)
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
		return fail(t, at, "'%.*s' is a %s and has no parts", (int)parent,
		    whole.s, lb_is_secret(L, table) ? "secret" : luaL_typename(L, table));
	if (lua_type(L, -1) == LUA_TSTRING)
		key.s = lua_tolstring(L, -1, &key.len);
	else if (!lua_isinteger(L, -1))
		return fail(t, at + parent, "this is no key");
	lua_pushvalue(L, -1);
	if (lua_gettable(L, table) == LUA_TNIL && !undefined(t, whole, key, table))
		return false;
	lua_replace(L, table);
	lua_settop(L, table);
	return true;
}

/* name { .name | .1 | [operand] } */
static bool
path(struct state *t, struct slice name)
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
string_literal(struct state *t, char quote)
{
	const char *s = t->text + t->pos + 1, *e;

	e = memchr(s, quote, t->end - t->pos - 1);
	if (e == NULL)
		return fail(t, t->pos, "a text without an end");
	lua_pushlstring(t->L, s, (size_t)(e - s));
	t->pos += (size_t)(e - s) + 2;
	return true;
}

static bool
number_literal(struct state *t)
{
	lua_Integer n = 0;
	size_t at = t->pos;
	bool minus = t->text[t->pos] == '-';

	for (t->pos += minus; t->pos < t->end; t->pos++) {
		char c = t->text[t->pos];

		if (c < '0' || c > '9')
			break;
		if (t->pos - at > 15)
			return fail(t, at, "a number is too long");
		n = n * 10 + (c - '0');
	}
	if (t->pos == at + minus)
		return unexpected(t, "a number");
	lua_pushinteger(t->L, minus ? -n : n);
	return true;
}

static bool
defined(struct state *t)
{
	struct slice name;
	bool yes;

	t->soft++;
	if (!read_name(t, &name))
		return unexpected(t, "a name");
	if (!path(t, name))
		return false;
	t->soft--;
	yes = !lua_isnil(t->L, -1);
	lua_pop(t->L, 1);
	lua_pushboolean(t->L, yes);
	return take(t, ")") || unexpected(t, ")");
}

/* A literal or a path. */
static bool
operand(struct state *t)
{
	struct slice name;
	char c;

	luaL_checkstack(t->L, 10, MODULE);
	skip(t);
	c = t->pos < t->end ? t->text[t->pos] : '\0';
	if (c == '"' || c == '\'')
		return string_literal(t, c);
	if (c == '-' || (c >= '0' && c <= '9'))
		return number_literal(t);
	if (!read_name(t, &name))
		return unexpected(t, "a name");
	if (slice_is(name, "true") || slice_is(name, "false"))
		lua_pushboolean(t->L, name.len == 4);
	else if (slice_is(name, "null"))
		lua_pushnil(t->L);
	else if (slice_is(name, "defined") && take(t, "("))
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

static bool
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
contains(struct state *t, size_t at, bool *yes)
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
		return fail(t, at, "'in' needs a list, a map or a text");
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

static bool chain(struct state *t, bool *yes, bool any);

static bool
comparison(struct state *t, bool *yes)
{
	lua_State *L = t->L;
	int top = lua_gettop(L);
	size_t at;
	bool not_equal = false, in = false;

	if (take(t, "(")) {
		if (++t->nested > DEPTH_MAX)
			return fail(t, t->pos, "nested too deeply");
		if (!chain(t, yes, true))
			return false;
		t->nested--;
		return take(t, ")") || unexpected(t, ")");
	}
	if (!operand(t))
		return false;
	skip(t);
	at = t->pos;
	if (take(t, "~=") || take(t, "!="))
		not_equal = true;
	else if (take_word(t, "in"))
		in = true;
	else if (!take(t, "==")) {
		*yes = t->dry == 0 && truth(L, -1);
		lua_settop(L, top);
		return true;
	}
	if (!operand(t))
		return false;
	if (t->dry > 0)
		*yes = false;
	else if (lb_is_secret(L, -1) || lb_is_secret(L, -2))
		return fail(t, at, "a secret cannot be compared");
	else if (!in)
		*yes = equal(L, -1, -2) != not_equal;
	else if (!contains(t, at, yes))
		return false;
	lua_settop(L, top);
	return true;
}

static bool
negation(struct state *t, bool *yes)
{
	bool invert = false;

	while (take_word(t, "not"))
		invert = !invert;
	if (!comparison(t, yes))
		return false;
	*yes = *yes != invert;
	return true;
}

/* What a short cut skips is still read, dry, so that the cursor moves on. */
static bool
chain(struct state *t, bool *yes, bool any)
{
	bool right;

	if (!(any ? chain(t, yes, false) : negation(t, yes)))
		return false;
	while (take_word(t, any ? "or" : "and")) {
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
apply(struct state *t, struct slice filter, int args, bool *quoted)
{
	lua_State *L = t->L;

	lua_pushlstring(L, filter.s, filter.len);
	lua_gettable(L, UP_TEXT);
	lua_insert(L, -2 - args);
	lua_call(L, 1 + args, 2);
	if (lua_isnil(L, -2)) {
		lua_getfield(L, -1, "message");
		return fail(t, t->at, "%.*s: %s", (int)filter.len, filter.s,
		    lua_tostring(L, -1));
	}
	*quoted = lua_toboolean(L, -1);
	lua_pop(L, 1);
	return true;
}

/* Reads `name` or `name(arg)`, the argument onto the stack. */
static bool
read_filter(struct state *t, struct slice *name, int *args)
{
	int type;

	skip(t);
	t->at = t->pos;
	if (!read_name(t, name))
		return unexpected(t, "a filter");
	if (!is_one_of(*name, place_filters) && !is_one_of(*name, other_filters))
		return fail(t, t->at, "there is no filter '%.*s'", (int)name->len,
		    name->s);
	type = slice_is(*name, "join") ? LUA_TSTRING : LUA_TNUMBER;
	*args = slice_is(*name, "join") || slice_is(*name, "indent");
	if (*args == 0)
		return true;
	if (!take(t, "("))
		return unexpected(t, "(");
	if (!operand(t))
		return false;
	if (t->dry == 0 && lua_type(t->L, -1) != type)
		return fail(t, t->at, "%.*s(%s) is expected", (int)name->len, name->s,
		    type == LUA_TSTRING ? "text" : "number");
	return take(t, ")") || unexpected(t, ")");
}

/* VALUE { "|" FILTER }. *place is the last filter for a place, or the default one. */
static bool
filtered(struct state *t, struct slice *place, bool *quoted)
{
	struct slice name, def;
	bool marks;
	int args = 0;

	*place = (struct slice) { NULL, 0 };
	if (!operand(t))
		return false;
	while (take(t, "|")) {
		if (!read_filter(t, &name, &args))
			return false;
		if (t->dry == 0 && !apply(t, name, args, &marks))
			return false;
		if (!is_one_of(name, place_filters))
			continue;
		*place = name;
		*quoted = t->dry == 0 && marks;
	}
	if (place->s != NULL)
		return true;
	def.s = luaL_checklstring(t->L, AT_DEFAULT, &def.len);
	if (slice_is(def, "demand"))
		return fail(t, t->pos, "a filter for the place is demanded (sh, env, "
		    "yaml ... or raw)");
	*place = def;
	*quoted = false;
	return t->dry > 0 || apply(t, def, 0, quoted);
}

/* The arguments: text, from, to (bytes, 0-based, end excluded), scope, names, dry. */
static struct state
begin(lua_State *L)
{
	struct state t = { .L = L };
	size_t len;
	lua_Integer from = luaL_checkinteger(L, AT_FROM);
	lua_Integer to = luaL_checkinteger(L, AT_TO);

	luaL_checktype(L, AT_TEXT, LUA_TSTRING);
	t.text = lua_tolstring(L, AT_TEXT, &len);
	luaL_argcheck(L, from >= 0 && from <= to, AT_FROM, "out of the text");
	luaL_argcheck(L, to <= (lua_Integer)len, AT_TO, "out of the text");
	luaL_checktype(L, AT_SCOPE, LUA_TTABLE);
	luaL_checktype(L, AT_NAMES, LUA_TTABLE);
	lua_settop(L, AT_DEFAULT);
	t.pos = t.at = (size_t)from;
	t.end = (size_t)to;
	t.dry = lua_toboolean(L, AT_DRY);
	return t;
}

static int
failed(const struct state *t, const char *op)
{
	lb_fail(t->L, MODULE, op, "expression", "%s", t->why);
	lua_pushinteger(t->L, (lua_Integer)t->at);
	lua_setfield(t->L, -2, "at");
	return 2;
}

/* expression.value(text, from, to, scope, names, dry)
 *  Reads one literal or path of text[from..to) (bytes, from 0). Names are looked up in
 *  `scope`; `names` holds what an undefined one may have meant. A dry reading looks
 *  nothing up and adds the names that `scope` does not have to `names`.
 *  +-> position behind it, value
 *  +-> nil, err   (expression; err.at)                                                */
static int
expression_value(lua_State *L)
{
	struct state t = begin(L);

	if (!operand(&t))
		return failed(&t, "value");
	lua_pushinteger(L, (lua_Integer)t.pos);
	lua_insert(L, -2);
	return 2;
}

/* expression.output(text, from, to, scope, names, dry, default)
 *  Reads a value and its filters, those of the module text. `default` is the filter of a
 *  value that has none for its place, or "demand".
 *  +-> position behind it, text | secret, filter for the place, quoted
 *  +-> nil, err   (expression; err.at)                                                */
static int
expression_output(lua_State *L)
{
	struct state t = begin(L);
	struct slice place;
	bool quoted = false;

	if (!filtered(&t, &place, &quoted))
		return failed(&t, "output");
	lua_pushinteger(L, (lua_Integer)t.pos);
	lua_insert(L, -2);
	lua_pushlstring(L, place.s, place.len);
	lua_pushboolean(L, quoted);
	return 4;
}

/* expression.test(text, from, to, scope, names, dry)
 *  Reads a whole condition.
 *  +-> position behind it, boolean
 *  +-> nil, err   (expression; err.at)                                                */
static int
expression_test(lua_State *L)
{
	struct state t = begin(L);
	bool yes;

	if (!chain(&t, &yes, true))
		return failed(&t, "test");
	lua_pushinteger(L, (lua_Integer)t.pos);
	lua_pushboolean(L, yes);
	return 2;
}

int luaopen_expression(lua_State *L);

int
luaopen_expression(lua_State *L)
{
	static const luaL_Reg functions[] = {
		{ "value", expression_value },
		{ "output", expression_output },
		{ "test", expression_test },
		{ NULL, NULL },
	};

	luaL_newlibtable(L, functions);
	lua_getglobal(L, "require");
	lua_pushliteral(L, "text");
	lua_call(L, 1, 1);
	luaL_setfuncs(L, functions, 1);
	return 1;
}
