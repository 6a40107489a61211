/* json.c: JSON text to Lua values and back, on cJSON.
 * cJSON does grammar, escapes and printing. What it cannot say is checked here on the raw
 * text: number literals (it keeps doubles only), UTF-8, control characters, \u0000.
 * It does not stream, and it reads and writes no files. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cjson/cJSON.h>

#include "lb.h"

#define MODULE "json"
#define TREE "lb.json.tree"
#define DEPTH_MAX 100
#define INTEGER_MAX (INT64_C(1) << 53)
#define LITERAL_MAX 60 /* cJSON cuts a number after 63 characters */

enum { UP_NULL = 1, UP_ARRAY = 2 };

struct tree {
	cJSON *root;
	char *text;
};

/* Where a text stands while it is scanned, and what was wrong with it. */
struct scan {
	const char *text;
	size_t len, pos;
	const char *code;
	char why[160];
};

/* One table on the way down to the value that is being encoded. */
struct place {
	const void *table;
	const char *key; /* NULL: an array item */
	lua_Integer index;
};

struct encoder {
	lua_State *L;
	bool sort;
	int depth;
	struct place path[DEPTH_MAX + 1];
};

static int
tree_gc(lua_State *L)
{
	struct tree *t = luaL_checkudata(L, 1, TREE);

	cJSON_Delete(t->root);
	t->root = NULL;
	cJSON_free(t->text);
	t->text = NULL;
	return 0;
}

static struct tree *
tree_new(lua_State *L)
{
	struct tree *t = lua_newuserdatauv(L, sizeof(*t), 0);

	memset(t, 0, sizeof(*t));
	luaL_setmetatable(L, TREE);
	return t;
}

/* Length of the UTF-8 sequence at s, 0 when it is not one (overlong, surrogate, cut). */
static size_t
utf8_length(const char *s, size_t left)
{
	const unsigned char *p = (const unsigned char *)s;
	unsigned long code;
	size_t need;

	if (p[0] < 0x80)
		return 1;
	if (p[0] >= 0xc2 && p[0] <= 0xdf) {
		need = 2;
		code = p[0] & 0x1fU;
	} else if ((p[0] & 0xf0) == 0xe0) {
		need = 3;
		code = p[0] & 0x0fU;
	} else if (p[0] >= 0xf0 && p[0] <= 0xf4) {
		need = 4;
		code = p[0] & 0x07U;
	} else {
		return 0;
	}
	if (left < need)
		return 0;
	for (size_t i = 1; i < need; i++) {
		if ((p[i] & 0xc0) != 0x80)
			return 0;
		code = code << 6 | (p[i] & 0x3fU);
	}
	if (need == 3 && (code < 0x800 || (code >= 0xd800 && code <= 0xdfff)))
		return 0;
	if (need == 4 && (code < 0x10000 || code > 0x10ffff))
		return 0;
	return need;
}

/* Decoding */

static bool
refuse(struct scan *s, const char *code, size_t pos, const char *why)
{
	s->code = code;
	s->pos = pos;
	snprintf(s->why, sizeof(s->why), "%s", why);
	return false;
}

static bool
is_digit(const struct scan *s, size_t pos)
{
	return pos < s->len && s->text[pos] >= '0' && s->text[pos] <= '9';
}

static size_t
digits_end(const struct scan *s, size_t pos)
{
	while (is_digit(s, pos))
		pos++;
	return pos;
}

/* The end of the number literal at pos by RFC 8259, or 0. */
static size_t
number_end(const struct scan *s, size_t pos, bool *whole)
{
	*whole = true;
	if (s->text[pos] == '-')
		pos++;
	if (!is_digit(s, pos))
		return 0;
	if (s->text[pos] == '0' && is_digit(s, pos + 1))
		return 0;
	pos = digits_end(s, pos);
	if (pos < s->len && s->text[pos] == '.') {
		*whole = false;
		if (!is_digit(s, pos + 1))
			return 0;
		pos = digits_end(s, pos + 1);
	}
	if (pos < s->len && (s->text[pos] == 'e' || s->text[pos] == 'E')) {
		*whole = false;
		pos++;
		if (pos < s->len && (s->text[pos] == '+' || s->text[pos] == '-'))
			pos++;
		if (!is_digit(s, pos))
			return 0;
		pos = digits_end(s, pos);
	}
	return pos;
}

/* The end of a string whose opening quote is at pos, in a text that was checked. */
static size_t
string_end(const struct scan *s, size_t pos)
{
	for (pos++; pos < s->len && s->text[pos] != '"'; pos++) {
		if (s->text[pos] == '\\')
			pos++;
	}
	return pos + 1;
}

static bool
check_string(struct scan *s)
{
	size_t start = s->pos, n;

	for (s->pos++; s->pos < s->len; s->pos += n) {
		const char *p = s->text + s->pos;

		if (*p == '"') {
			s->pos++;
			return true;
		}
		if ((unsigned char)*p < 0x20)
			return refuse(s, "syntax", s->pos,
			    "a control character in a string");
		if (*p == '\\') {
			if (s->len - s->pos >= 6 && memcmp(p, "\\u0000", 6) == 0)
				return refuse(s, "syntax", s->pos,
				    "\\u0000 in a string (not supported)");
			n = s->len - s->pos > 1 && (unsigned char)p[1] >= 0x20 ? 2 : 1;
			if (n == 2 && (unsigned char)p[1] >= 0x80)
				n = 1;
			continue;
		}
		n = utf8_length(p, s->len - s->pos);
		if (n == 0)
			return refuse(s, "syntax", s->pos, "a string is not valid UTF-8");
	}
	return refuse(s, "syntax", start, "a string without an end");
}

/* What cJSON lets pass: loose numbers, any byte as white space, bytes that are no UTF-8,
 * strings cut at \u0000, a thousand levels. */
static bool
check_text(struct scan *s)
{
	int depth = 0;
	bool whole, comma = false;

	s->pos = s->len >= 3 && memcmp(s->text, "\xef\xbb\xbf", 3) == 0 ? 3 : 0;
	while (s->pos < s->len) {
		unsigned char c = (unsigned char)s->text[s->pos];
		size_t end;

		if (comma && (c == ']' || c == '}'))
			return refuse(s, "syntax", s->pos,
			    "a comma before the end of a list");
		if (c > 0x20)
			comma = c == ',';
		if (c == '"') {
			if (!check_string(s))
				return false;
			continue;
		}
		if (c == '-' || (c >= '0' && c <= '9')) {
			end = number_end(s, s->pos, &whole);
			if (end == 0)
				return refuse(s, "syntax", s->pos, "a malformed number");
			if (end - s->pos > LITERAL_MAX)
				return refuse(s, "range", s->pos, "a number is too long");
			s->pos = end;
			continue;
		}
		if (c < 0x20 && c != '\t' && c != '\n' && c != '\r')
			return refuse(s, "syntax", s->pos, "a control character");
		if (c >= 0x7f)
			return refuse(s, "syntax", s->pos, "an unexpected byte");
		if (c == '[' || c == '{') {
			if (++depth > DEPTH_MAX)
				return refuse(s, "syntax", s->pos, "nested too deeply");
		} else if (c == ']' || c == '}') {
			depth--;
		}
		s->pos++;
	}
	return true;
}

/* Move to the next string or number: the tree is walked in the order of the text. */
static void
next_token(struct scan *s)
{
	while (s->pos < s->len && s->text[s->pos] != '"' && s->text[s->pos] != '-' &&
	    !is_digit(s, s->pos))
		s->pos++;
}

static void
skip_string(struct scan *s)
{
	next_token(s);
	s->pos = string_end(s, s->pos);
}

static bool
push_number(lua_State *L, struct scan *s)
{
	char literal[LITERAL_MAX + 1];
	size_t start, end;
	bool whole;

	next_token(s);
	start = s->pos;
	end = number_end(s, start, &whole);
	memcpy(literal, s->text + start, end - start);
	literal[end - start] = '\0';
	s->pos = end;
	lua_stringtonumber(L, literal);
	if (!whole) {
		if (!isfinite(lua_tonumber(L, -1)))
			return refuse(s, "range", start, "a number is too large");
		return true;
	}
	if (!lua_isinteger(L, -1) || lua_tointeger(L, -1) > INTEGER_MAX ||
	    lua_tointeger(L, -1) < -INTEGER_MAX)
		return refuse(s, "range", start, "an integer beyond 2^53");
	return true;
}

static bool push_value(lua_State *L, struct scan *s, const cJSON *item);

static bool
push_array(lua_State *L, struct scan *s, const cJSON *item)
{
	lua_Integer n = 0;

	lua_newtable(L);
	lua_pushvalue(L, lua_upvalueindex(UP_ARRAY));
	lua_setmetatable(L, -2);
	for (const cJSON *c = item->child; c != NULL; c = c->next) {
		if (!push_value(L, s, c))
			return false;
		lua_rawseti(L, -2, ++n);
	}
	return true;
}

static bool
push_object(lua_State *L, struct scan *s, const cJSON *item)
{
	lua_newtable(L);
	for (const cJSON *c = item->child; c != NULL; c = c->next) {
		size_t at;

		next_token(s);
		at = s->pos;
		s->pos = string_end(s, at);
		lua_pushstring(L, c->string);
		lua_pushvalue(L, -1);
		if (lua_rawget(L, -3) != LUA_TNIL) {
			refuse(s, "syntax", at, "");
			snprintf(s->why, sizeof(s->why), "the key \"%.80s\" stands twice",
			    c->string);
			return false;
		}
		lua_pop(L, 1);
		if (!push_value(L, s, c))
			return false;
		lua_rawset(L, -3);
	}
	return true;
}

static bool
push_value(lua_State *L, struct scan *s, const cJSON *item)
{
	luaL_checkstack(L, 8, "json.decode");
	if (cJSON_IsArray(item))
		return push_array(L, s, item);
	if (cJSON_IsObject(item))
		return push_object(L, s, item);
	if (cJSON_IsNumber(item))
		return push_number(L, s);
	if (cJSON_IsString(item)) {
		lua_pushstring(L, item->valuestring);
		skip_string(s);
	} else if (cJSON_IsBool(item)) {
		lua_pushboolean(L, cJSON_IsTrue(item));
	} else {
		lua_pushvalue(L, lua_upvalueindex(UP_NULL));
	}
	return true;
}

static int
decode_failed(lua_State *L, const struct scan *s)
{
	lua_Integer line = 1, column = 1;

	for (size_t i = 0; i < s->pos && i < s->len; i++) {
		if (s->text[i] == '\n') {
			line++;
			column = 1;
		} else if (((unsigned char)s->text[i] & 0xc0) != 0x80) {
			column++;
		}
	}
	lb_fail(L, MODULE, "decode", s->code, "line %d, column %d: %s", (int)line,
	    (int)column, s->why);
	lua_pushinteger(L, line);
	lua_setfield(L, -2, "line");
	lua_pushinteger(L, column);
	lua_setfield(L, -2, "column");
	return 2;
}

static void
refuse_grammar(struct scan *s, size_t pos)
{
	unsigned char c = pos < s->len ? (unsigned char)s->text[pos] : 0;

	if (pos >= s->len) {
		refuse(s, "syntax", s->len, "the text ends too early");
		return;
	}
	refuse(s, "syntax", pos, "unexpected text");
	if (c > 0x20 && c < 0x7f)
		snprintf(s->why, sizeof(s->why), "unexpected '%c'", c);
}

/* json.decode(text)
 *  Arrays carry a mark (see json.array), null is json.null, integers stay integers.
 *  +-> value
 *  +-> nil, err   (syntax, range; err.line, err.column)                               */
static int
json_decode(lua_State *L)
{
	struct scan s = { 0 };
	const char *end = NULL;
	struct tree *t;

	luaL_checktype(L, 1, LUA_TSTRING);
	lua_settop(L, 1);
	s.text = lua_tolstring(L, 1, &s.len);
	if (!check_text(&s))
		return decode_failed(L, &s);
	t = tree_new(L);
	t->root = cJSON_ParseWithLengthOpts(s.text, s.len + 1, &end, 1);
	if (t->root == NULL) {
		refuse_grammar(&s, end != NULL ? (size_t)(end - s.text) : s.len);
		return decode_failed(L, &s);
	}
	s.pos = 0;
	if (!push_value(L, &s, t->root)) {
		cJSON_Delete(t->root);
		t->root = NULL;
		return decode_failed(L, &s);
	}
	cJSON_Delete(t->root);
	t->root = NULL;
	return 1;
}

/* Encoding */

static void
push_path(struct encoder *e, int depth)
{
	luaL_Buffer b;

	if (depth == 0) {
		lua_pushliteral(e->L, "the value");
		return;
	}
	luaL_buffinit(e->L, &b);
	for (int i = 0; i < depth; i++) {
		char item[96];

		if (e->path[i].key == NULL)
			snprintf(item, sizeof(item), "[%lld]",
			    (long long)e->path[i].index);
		else
			snprintf(item, sizeof(item), "%s%.80s", i > 0 ? "." : "",
			    e->path[i].key);
		luaL_addstring(&b, item);
	}
	luaL_pushresult(&b);
}

static void
cannot(struct encoder *e, const char *why)
{
	push_path(e, e->depth);
	luaL_error(e->L, "json.encode: %s: %s", lua_tostring(e->L, -1), why);
}

static void
no_memory(struct encoder *e)
{
	luaL_error(e->L, "json.encode: out of memory");
}

static const char *
string_problem(const char *s, size_t len)
{
	for (size_t i = 0; i < len;) {
		size_t n = utf8_length(s + i, len - i);

		if (s[i] == '\0')
			return "a NUL byte in a string";
		if (n == 0)
			return "a string is not valid UTF-8";
		i += n;
	}
	return NULL;
}

static const char *
checked_string(struct encoder *e, int idx)
{
	size_t len;
	const char *s = lua_tolstring(e->L, idx, &len), *why = string_problem(s, len);

	if (why != NULL)
		cannot(e, why);
	return s;
}

static cJSON *
make_number(struct encoder *e, int idx)
{
	char text[48];
	double d;

	if (lua_isinteger(e->L, idx)) {
		lua_Integer n = lua_tointeger(e->L, idx);

		if (n > INTEGER_MAX || n < -INTEGER_MAX)
			cannot(e, "an integer beyond 2^53");
		snprintf(text, sizeof(text), "%lld", (long long)n);
		return cJSON_CreateRaw(text);
	}
	d = lua_tonumber(e->L, idx);
	if (!isfinite(d))
		cannot(e, isnan(d) ? "not a number" : "an infinite number");
	for (int digits = 15; digits <= 17; digits++) {
		snprintf(text, sizeof(text), "%.*g", digits, d);
		if (strtod(text, NULL) == d)
			break;
	}
	/* A float stays a float when it is read again. */
	if (strpbrk(text, ".e") == NULL)
		strcat(text, ".0");
	return cJSON_CreateRaw(text);
}

static bool
has_field(lua_State *L, int mt, const char *name)
{
	bool yes;

	lua_pushstring(L, name);
	yes = lua_rawget(L, mt) != LUA_TNIL;
	lua_pop(L, 1);
	return yes;
}

/* Is the table marked as an array? A table that answers by a metamethod would come out
 * empty: it is refused. */
static bool
is_marked(struct encoder *e, int idx)
{
	lua_State *L = e->L;
	bool marked;

	if (!lua_getmetatable(L, idx))
		return false;
	marked = lua_rawequal(L, -1, lua_upvalueindex(UP_ARRAY));
	if (!marked && (has_field(L, lua_gettop(L), "__index") ||
	    has_field(L, lua_gettop(L), "__pairs")))
		cannot(e, "a table with __index or __pairs");
	lua_pop(L, 1);
	return marked;
}

/* Counts the keys; an array has exactly 1..n, an object only strings. */
static bool
is_array(struct encoder *e, int idx, size_t *count)
{
	lua_State *L = e->L;
	bool marked = is_marked(e, idx);
	lua_Integer n = 0, top = 0, strings = 0;

	for (lua_pushnil(L); lua_next(L, idx); lua_pop(L, 1)) {
		if (lua_type(L, -2) == LUA_TSTRING)
			strings++;
		else if (lua_isinteger(L, -2) && lua_tointeger(L, -2) >= 1) {
			n++;
			if (lua_tointeger(L, -2) > top)
				top = lua_tointeger(L, -2);
		} else
			cannot(e, "a key that is neither a string nor a list index");
	}
	if (strings > 0 && (n > 0 || marked))
		cannot(e, marked ? "an array with a named key" :
		    "a table that is list and map");
	if (top != n)
		cannot(e, "a list with holes");
	*count = (size_t)(n + strings);
	return n > 0 || marked;
}

static int
compare_keys(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static void make_value(struct encoder *e, cJSON *parent);

static void
fill_array(struct encoder *e, cJSON *node, size_t count)
{
	struct place *at = &e->path[e->depth - 1];

	for (size_t i = 1; i <= count; i++) {
		at->key = NULL;
		at->index = (lua_Integer)i;
		lua_rawgeti(e->L, -1, at->index);
		make_value(e, node);
		lua_pop(e->L, 1);
	}
}

static void
fill_object(struct encoder *e, cJSON *node, size_t count)
{
	lua_State *L = e->L;
	struct place *at = &e->path[e->depth - 1];
	int table = lua_gettop(L);
	const char **keys = lua_newuserdatauv(L, (count + 1) * sizeof(*keys), 0);
	size_t n = 0;

	/* The keys' bytes stay where they are: the table holds them. */
	for (lua_pushnil(L); lua_next(L, table); lua_pop(L, 1)) {
		at->key = "";
		at->key = checked_string(e, -2);
		keys[n++] = at->key;
	}
	if (e->sort)
		qsort(keys, n, sizeof(*keys), compare_keys);
	for (size_t i = 0; i < n; i++) {
		at->key = keys[i];
		lua_pushstring(L, keys[i]);
		lua_rawget(L, table);
		make_value(e, node);
		lua_pop(L, 1);
	}
	lua_pop(L, 1);
}

/* A node is hung into the tree as soon as it is made, so that an error leaks nothing. */
static cJSON *
hang(struct encoder *e, cJSON *parent, cJSON *node)
{
	bool ok;

	if (node == NULL)
		no_memory(e);
	if (parent == NULL) {
		((struct tree *)lua_touserdata(e->L, 2))->root = node;
		return node;
	}
	if (cJSON_IsArray(parent))
		ok = cJSON_AddItemToArray(parent, node);
	else
		ok = cJSON_AddItemToObject(parent, e->path[e->depth - 1].key, node);
	if (!ok) {
		cJSON_Delete(node);
		no_memory(e);
	}
	return node;
}

static void
make_table(struct encoder *e, cJSON *parent)
{
	const void *self = lua_topointer(e->L, -1);
	size_t count;
	bool array;
	cJSON *node;

	for (int i = 0; i < e->depth; i++) {
		if (e->path[i].table == self)
			cannot(e, "a table that contains itself");
	}
	if (e->depth >= DEPTH_MAX)
		cannot(e, "nested too deeply");
	array = is_array(e, lua_gettop(e->L), &count);
	node = hang(e, parent, array ? cJSON_CreateArray() : cJSON_CreateObject());
	e->path[e->depth].table = self;
	e->depth++;
	if (array)
		fill_array(e, node, count);
	else
		fill_object(e, node, count);
	e->depth--;
}

/* Encodes the value on top of the stack. */
static void
make_value(struct encoder *e, cJSON *parent)
{
	lua_State *L = e->L;
	char why[96];

	luaL_checkstack(L, 12, "json.encode");
	if (lua_type(L, -1) == LUA_TTABLE) {
		make_table(e, parent);
	} else if (lua_type(L, -1) == LUA_TSTRING) {
		hang(e, parent, cJSON_CreateString(checked_string(e, -1)));
	} else if (lua_type(L, -1) == LUA_TNUMBER) {
		hang(e, parent, make_number(e, -1));
	} else if (lua_type(L, -1) == LUA_TBOOLEAN) {
		hang(e, parent, cJSON_CreateBool(lua_toboolean(L, -1)));
	} else if (lua_rawequal(L, -1, lua_upvalueindex(UP_NULL))) {
		hang(e, parent, cJSON_CreateNull());
	} else if (lb_is_secret(L, -1)) {
		cannot(e, "a secret has no JSON form (render it with a template)");
	} else {
		snprintf(why, sizeof(why), "a %s has no JSON form", luaL_typename(L, -1));
		cannot(e, why);
	}
}

static void
add_line(luaL_Buffer *b, int depth)
{
	luaL_addchar(b, '\n');
	for (int i = 0; i < depth; i++)
		luaL_addlstring(b, "  ", 2);
}

/* Lays cJSON's compact text out in two spaces a level (its own layout uses tabs). */
static void
push_pretty(lua_State *L, const char *s)
{
	luaL_Buffer b;
	int depth = 0;

	luaL_buffinit(L, &b);
	for (; *s != '\0'; s++) {
		if (*s == '"') {
			const char *start = s;

			for (s++; *s != '"'; s++) {
				if (*s == '\\')
					s++;
			}
			luaL_addlstring(&b, start, (size_t)(s - start) + 1);
		} else if (*s == '[' || *s == '{') {
			luaL_addchar(&b, *s);
			if (s[1] == ']' || s[1] == '}')
				luaL_addchar(&b, *++s);
			else
				add_line(&b, ++depth);
		} else if (*s == ']' || *s == '}') {
			add_line(&b, --depth);
			luaL_addchar(&b, *s);
		} else {
			luaL_addchar(&b, *s);
			if (*s == ',')
				add_line(&b, depth);
			else if (*s == ':')
				luaL_addchar(&b, ' ');
		}
	}
	luaL_pushresult(&b);
}

/* json.encode(value, { pretty = false, sort = true })
 *  A list is an array, an empty table an object unless json.array marked it. Raises for
 *  what JSON cannot hold (functions, secrets, NaN, cycles, integers beyond 2^53).
 *  +-> text                                                                           */
static int
json_encode(lua_State *L)
{
	static const char *const names[] = { "pretty", "sort", NULL };
	struct encoder e = { .L = L };
	struct tree *t;
	bool pretty;

	luaL_checkany(L, 1);
	lb_opts(L, 2, names);
	pretty = lb_opt_boolean(L, 2, "pretty", false);
	e.sort = lb_opt_boolean(L, 2, "sort", true);
	lua_settop(L, 1);
	t = tree_new(L);
	lua_pushvalue(L, 1);
	make_value(&e, NULL);
	t->text = cJSON_PrintUnformatted(t->root);
	cJSON_Delete(t->root);
	t->root = NULL;
	if (t->text == NULL)
		no_memory(&e);
	if (pretty)
		push_pretty(L, t->text);
	else
		lua_pushstring(L, t->text);
	cJSON_free(t->text);
	t->text = NULL;
	return 1;
}

/* json.array([list])
 *  Marks the table as an array, so that it is one also when it is empty. Raises when it
 *  has another metatable.
 *  +-> list                                                                           */
static int
json_array(lua_State *L)
{
	if (lua_isnone(L, 1))
		lua_newtable(L);
	luaL_checktype(L, 1, LUA_TTABLE);
	lua_settop(L, 1);
	if (lua_getmetatable(L, 1)) {
		luaL_argcheck(L, lua_rawequal(L, -1, lua_upvalueindex(UP_ARRAY)), 1,
		    "the table has a metatable of its own");
		lua_pop(L, 1);
	}
	lua_pushvalue(L, lua_upvalueindex(UP_ARRAY));
	lua_setmetatable(L, 1);
	return 1;
}

/* json.is_array(value)
 *  +-> true | false   (true only for marked tables)                                   */
static int
json_is_array(lua_State *L)
{
	luaL_checkany(L, 1);
	if (!lua_istable(L, 1) || !lua_getmetatable(L, 1))
		lua_pushnil(L);
	lua_pushboolean(L, lua_rawequal(L, -1, lua_upvalueindex(UP_ARRAY)));
	return 1;
}

static int
null_tostring(lua_State *L)
{
	lua_pushliteral(L, "null");
	return 1;
}

static void
push_null(lua_State *L)
{
	lua_newuserdatauv(L, 0, 0);
	lua_createtable(L, 0, 3);
	lua_pushcfunction(L, null_tostring);
	lua_setfield(L, -2, "__tostring");
	lua_pushliteral(L, "json.null");
	lua_setfield(L, -2, "__name");
	lua_pushboolean(L, 0);
	lua_setfield(L, -2, "__metatable");
	lua_setmetatable(L, -2);
}

int luaopen_json(lua_State *L);

int
luaopen_json(lua_State *L)
{
	static const luaL_Reg functions[] = {
		{ "decode", json_decode },
		{ "encode", json_encode },
		{ "array", json_array },
		{ "is_array", json_is_array },
		{ NULL, NULL },
	};

	if (luaL_newmetatable(L, TREE)) {
		lua_pushcfunction(L, tree_gc);
		lua_setfield(L, -2, "__gc");
	}
	lua_pop(L, 1);
	luaL_newlibtable(L, functions);
	push_null(L);
	lua_pushvalue(L, -1);
	lua_setfield(L, -3, "null");
	lua_createtable(L, 0, 2);
	lua_pushliteral(L, "json.array");
	lua_setfield(L, -2, "__name");
	lua_pushboolean(L, 0);
	lua_setfield(L, -2, "__metatable");
	luaL_setfuncs(L, functions, 2);
	return 1;
}
