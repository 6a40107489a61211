/* template.c: strict text templates: {{ value | filter }}, {% if %}, {% for %}, raw
 * blocks. An undefined name is an error that names file, line and column. There are no
 * calls, assignments, arithmetic: what is more than `if` and `for` is for the runbook.
 *
 *	{{ a.b[1] | filter | filter(arg) }}      {# comment #}
 *	{% if EXPR %} {% elif EXPR %} {% else %} {% endif %}
 *	{% for x in list %} {% endfor %}         {% for k, v in map %}   (sorted keys)
 *	{% raw %} {{.Names}} {% endraw %}        {%- and -%} eat white space
 *
 * EXPR: names, "text", 'text', 12, true, false, null, == ~= != in not and
 * or ( ), defined(name). False are: false, null, "" and the empty table. In a loop:
 * loop.index, loop.length, loop.first, loop.last. A line that holds only {% %} or {# #}
 * disappears. Filters: those of text.c. A value that needs quotes must fill its place:
 * `a{{ b | yaml }}`, or "{{ b | sh }}" with quotes around it, is refused. A template into
 * which a secret was rendered is a secret. */
#include <stdlib.h>
#include <string.h>

#include "template.h"

#define MODULE "template"
#define STATE "lb.template"
#define STEPS_MAX 1000000
#define LIMIT (8 << 20)

enum kind { TEXT, OUT, IF, ELIF, ELSE, ENDIF, FOR, ENDFOR };

/* What may stand around a value in quotes (NULL: any byte), and what may not. */
static const struct place {
	const char *filter, *before, *after, *never;
	bool key; /* a `: ` may follow */
} places[] = {
	{ "raw", NULL, NULL, "", false },
	{ "url", NULL, NULL, "", false },
	{ "sh", NULL, NULL, "\"'", false },
	{ "json", NULL, NULL, "\"'", false },
	{ "env", "=", " \t\r\n", "", false },
	{ "yaml", " \t\n[{,", " \t\r\n,]}", "", true },
	{ "compose", " \t\n[{,", " \t\r\n,]}", "", true },
	{ "nginx", " \t\n{;(", " \t\r\n{;)", "", false },
};
#define PLACES (sizeof(places) / sizeof(places[0]))

/* The spec's own placeholders where a parameter is called otherwise. */
static const char *const spec_aliases[][2] = {
	{ "tenant_id", "tenant" },
	{ "selected_tools", "tools" },
};

struct node {
	enum kind kind;
	size_t start, end;   /* of the text, or of the expression */
	size_t at, next;     /* where the tag begins, and where the text goes on */
	size_t branch, done; /* IF: its next branch; its ENDIF. FOR: its ENDFOR (done) */
};

struct block {
	enum kind kind;
	size_t first, last, at;
};

struct tag {
	char type;
	size_t at, start, end, next;
	bool trim_before, trim_after;
};

struct loop {
	struct slice key, value;
	lua_Integer i, n;
	bool map;
	size_t node;
};

struct state {
	struct reader reader;
	const char *text;
	size_t len;
	struct node *nodes;
	size_t count, cap;
	struct block blocks[DEPTH_MAX];
	int open;
	struct loop loops[DEPTH_MAX];
	int depth;
	struct lb_buf out;
	size_t limit;
	long steps;
	const char *name;
	bool secret;
};

static bool
put(struct state *t, size_t at, const char *data, size_t len)
{
	if (len > t->limit - t->out.len)
		return reader_fail(&t->reader, at, "the result is larger than %zu bytes",
		    t->limit);
	return lb_buf_add(&t->out, data, len) ||
	    reader_fail(&t->reader, at, "out of memory");
}

static void
enter_tag(struct state *t, size_t start, size_t end)
{
	t->reader.pos = start;
	t->reader.end = end;
}

/* The table on top of the stack becomes the scope, within the one that was. */
static void
enter_scope(lua_State *L)
{
	lua_createtable(L, 0, 1);
	lua_pushvalue(L, AT_SCOPE);
	lua_setfield(L, -2, "__index");
	lua_setmetatable(L, -2);
	lua_replace(L, AT_SCOPE);
}

static void
leave_scope(lua_State *L)
{
	lua_getmetatable(L, AT_SCOPE);
	lua_getfield(L, -1, "__index");
	lua_replace(L, AT_SCOPE);
	lua_pop(L, 1);
}

/* A value in quotes must fill the place it stands in. */
static bool
fits(struct state *t, const struct node *n, struct slice filter)
{
	char before = t->out.len > 0 ? t->out.data[t->out.len - 1] : '\n';
	/* Lua ends its strings with NUL: one byte behind the text may be read. */
	const char *after = n->next < t->len ? t->text + n->next : "\n";
	bool tag = after[0] == '{' && after[1] == '%';
	bool key = after[0] == ':' && after[1] != '\0' && is_space(after[1]);
	const struct place *p = places;

	while (!slice_is(filter, p->filter))
		p++;
	if (before != '\0' && strchr(p->never, before) == NULL &&
	    strchr(p->never, *after) == NULL &&
	    (p->before == NULL || strchr(p->before, before) != NULL) &&
	    (p->after == NULL || tag || (p->key && key) ||
	    strchr(p->after, *after) != NULL))
		return true;
	return reader_fail(&t->reader, n->at, "a value in quotes (%s) must not stand "
	    "inside a word or in quotes", p->filter);
}

static bool
output(struct state *t, const struct node *n)
{
	lua_State *L = t->reader.L;
	struct slice place;
	bool quoted;
	size_t len;
	const char *s;

	t->reader.tag = n->at;
	if (!read_output(&t->reader, &place, &quoted))
		return false;
	if (t->reader.check)
		return true;
	if (quoted && !fits(t, n, place))
		return false;
	t->secret = t->secret || lb_is_secret(L, -1);
	s = lb_bytes(L, -1, &len);
	return put(t, n->at, s, len);
}

/* Loops: AT_LOOPS holds at 2d+1 the table that loop d goes through, at 2d+2 the sorted
 * keys of a map. */

static void
set_name(lua_State *L, struct slice name)
{
	lua_pushlstring(L, name.s, name.len);
	lua_insert(L, -2);
	lua_rawset(L, AT_SCOPE);
}

/* The loop's variables and `loop` in its scope. */
static void
set_variables(struct state *t)
{
	lua_State *L = t->reader.L;
	struct loop *l = &t->loops[t->depth - 1];

	lua_createtable(L, 0, 4);
	lua_pushinteger(L, l->i);
	lua_setfield(L, -2, "index");
	lua_pushinteger(L, l->n);
	lua_setfield(L, -2, "length");
	lua_pushboolean(L, l->i == 1);
	lua_setfield(L, -2, "first");
	lua_pushboolean(L, l->i == l->n);
	lua_setfield(L, -2, "last");
	set_name(L, (struct slice) { "loop", 4 });
	lua_rawgeti(L, AT_LOOPS, t->depth * 2 - 1);
	if (l->map) {
		lua_rawgeti(L, AT_LOOPS, t->depth * 2);
		lua_rawgeti(L, -1, l->i);
	} else {
		lua_pushinteger(L, l->i);
	}
	lua_pushvalue(L, -1);
	if (l->value.len > 0)
		set_name(L, l->key);
	lua_gettable(L, AT_LOOPS + 1);
	set_name(L, l->value.len > 0 ? l->value : l->key);
	lua_settop(L, AT_LOOPS);
}

/* Reads `k, v in VALUE`, the value onto the stack. */
static bool
read_for(struct reader *r, struct loop *l)
{
	*l = (struct loop) { .i = 1 };
	if (!reader_name(r, &l->key) ||
	    (reader_take(r, ",") && !reader_name(r, &l->value)))
		return reader_expected(r, "a name");
	if (!reader_word(r, "in"))
		return reader_expected(r, "in");
	return read_value(r) && reader_ended(r);
}

/* Enters the loop of node i; an empty one is passed over. */
static bool
begin_loop(struct state *t, size_t *i)
{
	lua_State *L = t->reader.L;
	struct loop l;
	const struct node *n = &t->nodes[*i];

	if (!read_for(&t->reader, &l))
		return false;
	if (!lua_istable(L, -1))
		return reader_fail(&t->reader, n->at,
		    "'for' needs a list or a map, not a %s", luaL_typename(L, -1));
	l.node = *i;
	l.n = (lua_Integer)lua_rawlen(L, -1);
	lua_pushvalue(L, -1);
	lua_rawseti(L, AT_LOOPS, t->depth * 2 + 1);
	if (l.n == 0) {
		lua_getfield(L, UP_TEXT, "keys");
		lua_insert(L, -2);
		lua_call(L, 1, 1);
		l.n = (lua_Integer)lua_rawlen(L, -1);
		l.map = true;
		lua_rawseti(L, AT_LOOPS, t->depth * 2 + 2);
	}
	lua_settop(L, AT_LOOPS);
	if (l.n == 0) {
		*i = n->done + 1;
		return true;
	}
	if (l.map && l.value.len == 0)
		return reader_fail(&t->reader, n->at, "a map needs 'for key, value in'");
	lua_newtable(L);
	enter_scope(L);
	t->loops[t->depth++] = l;
	set_variables(t);
	++*i;
	return true;
}

static void
next_round(struct state *t, size_t *i)
{
	struct loop *l = &t->loops[t->depth - 1];

	if (++l->i <= l->n) {
		set_variables(t);
		*i = l->node + 1;
		return;
	}
	leave_scope(t->reader.L);
	t->depth--;
	++*i;
}

/* The node that follows the first true branch of an `if`. */
static bool
choose(struct state *t, size_t *i)
{
	bool yes = false;

	while (t->nodes[*i].kind == IF || t->nodes[*i].kind == ELIF) {
		enter_tag(t, t->nodes[*i].start, t->nodes[*i].end);
		if (!read_condition(&t->reader, &yes))
			return false;
		lua_settop(t->reader.L, AT_LOOPS);
		if (yes)
			break;
		*i = t->nodes[*i].branch;
	}
	++*i;
	return true;
}

static bool
run(struct state *t)
{
	bool ok = true;

	for (size_t i = 0; ok && i < t->count;) {
		const struct node *n = &t->nodes[i];

		enter_tag(t, n->start, n->end);
		if (++t->steps > STEPS_MAX)
			return reader_fail(&t->reader, n->at,
			    "the template goes on for too long");
		if (n->kind == TEXT) {
			ok = put(t, n->at, t->text + n->start, n->end - n->start);
			i++;
		} else if (n->kind == OUT) {
			ok = output(t, n);
			lua_settop(t->reader.L, AT_LOOPS);
			i++;
		} else if (n->kind == IF) {
			ok = choose(t, &i);
		} else if (n->kind == FOR) {
			ok = begin_loop(t, &i);
		} else if (n->kind == ENDFOR) {
			next_round(t, &i);
		} else {
			i = n->kind == ENDIF ? i + 1 : n->done + 1;
		}
	}
	return ok;
}

/* Reading the template into nodes */

static bool
add(struct state *t, enum kind kind, size_t start, size_t end, const struct tag *tag)
{
	struct node *grown;
	size_t cap = t->cap > 0 ? t->cap * 2 : 64;

	if (t->count == t->cap) {
		grown = realloc(t->nodes, cap * sizeof(*grown));
		if (grown == NULL)
			return reader_fail(&t->reader, start, "out of memory");
		t->nodes = grown;
		t->cap = cap;
	}
	t->nodes[t->count] = (struct node) { .kind = kind, .start = start, .end = end,
		.at = start, .next = end };
	if (tag != NULL) {
		t->nodes[t->count].at = tag->at;
		t->nodes[t->count].next = tag->next;
	}
	t->count++;
	return true;
}

static bool
read_tag(struct state *t, struct tag *tag)
{
	const char *s = t->text;
	char close = s[tag->at + 1] == '{' ? '}' : s[tag->at + 1];

	tag->type = s[tag->at + 1];
	tag->start = tag->at + 2;
	tag->trim_before = tag->start < t->len && s[tag->start] == '-';
	tag->start += tag->trim_before;
	for (size_t i = tag->start; i + 1 < t->len; i++) {
		if (s[i] == close && s[i + 1] == '}') {
			tag->trim_after = i > tag->start && s[i - 1] == '-';
			tag->end = i - tag->trim_after;
			tag->next = i + 2;
			return true;
		}
		if (tag->type != '#' && (s[i] == '"' || s[i] == '\'')) {
			const char *e = memchr(s + i + 1, s[i], t->len - i - 1);

			if (e == NULL)
				break;
			i = (size_t)(e - s);
		}
	}
	return reader_fail(&t->reader, tag->at,
	    "a tag without an end: '{%c' without '%c}'", tag->type, close);
}

/* Does the tag stand alone on its line? Then *before and *after are the line's bounds. */
static bool
alone(const struct state *t, size_t from, const struct tag *tag, size_t *before,
    size_t *after)
{
	size_t b = tag->at, a = tag->next;

	if (tag->type == '{')
		return false;
	while (b > from && (t->text[b - 1] == ' ' || t->text[b - 1] == '\t'))
		b--;
	if (b > 0 && t->text[b - 1] != '\n')
		return false;
	while (a < t->len && (t->text[a] == ' ' || t->text[a] == '\t'))
		a++;
	if (a + 1 < t->len && t->text[a] == '\r' && t->text[a + 1] == '\n')
		a++;
	if (a < t->len && t->text[a] != '\n')
		return false;
	*before = b;
	*after = a < t->len ? a + 1 : a;
	return true;
}

/* Adds the text from `from` up to the tag; the text goes on at *next. */
static bool
add_text(struct state *t, size_t from, const struct tag *tag, size_t *next)
{
	size_t to = tag->at, before, after;

	*next = tag->next;
	if (alone(t, from, tag, &before, &after)) {
		to = before;
		*next = after;
	}
	while (tag->trim_before && to > from && is_space(t->text[to - 1]))
		to--;
	while (tag->trim_after && *next < t->len && is_space(t->text[*next]))
		++*next;
	return to == from || add(t, TEXT, from, to, NULL);
}

static bool
next_tag(const struct state *t, size_t from, struct tag *tag)
{
	const char *s = t->text + from, *end = t->text + t->len;

	for (; (s = memchr(s, '{', (size_t)(end - s))) != NULL; s++) {
		if (s + 1 < end && (s[1] == '{' || s[1] == '%' || s[1] == '#')) {
			tag->at = (size_t)(s - t->text);
			return true;
		}
	}
	return false;
}

/* The text of a raw block from `from` on; *next is behind its end. */
static bool
raw_block(struct state *t, const struct tag *opening, size_t from, size_t *next)
{
	const char *s;
	struct tag tag;

	for (size_t p = from;; p = tag.at + 2) {
		s = memmem(t->text + p, t->len - p, "{%", 2);
		if (s == NULL)
			return reader_fail(&t->reader, opening->at,
			    "a raw block without {%% endraw %%}");
		tag = (struct tag) { .type = '%', .at = (size_t)(s - t->text) };
		enter_tag(t, tag.at + 2, t->len);
		tag.trim_before = reader_take(&t->reader, "-");
		if (!reader_word(&t->reader, "endraw"))
			continue;
		tag.trim_after = reader_take(&t->reader, "-");
		if (!reader_take(&t->reader, "%}"))
			continue;
		tag.next = t->reader.pos;
		return add_text(t, from, &tag, next);
	}
}

static bool
open_block(struct state *t, enum kind kind, const struct tag *tag)
{
	if (t->open == DEPTH_MAX)
		return reader_fail(&t->reader, tag->at, "nested too deeply");
	t->blocks[t->open++] = (struct block) { kind, t->count, t->count, tag->at };
	return add(t, kind, t->reader.pos, tag->end, tag);
}

/* elif, else and endif hang themselves into the chain of the block's branches. */
static bool
continue_block(struct state *t, enum kind kind, const struct tag *tag)
{
	struct block *b = &t->blocks[t->open > 0 ? t->open - 1 : 0];
	size_t self = t->count;

	if (t->open == 0 || b->kind == FOR || (b->kind == ELSE && kind != ENDIF))
		return reader_fail(&t->reader, tag->at, "there is no 'if' for this");
	if (!add(t, kind, t->reader.pos, tag->end, tag))
		return false;
	t->nodes[b->last].branch = self;
	b->last = self;
	b->kind = kind;
	if (kind != ENDIF)
		return true;
	for (size_t i = b->first; i != self; i = t->nodes[i].branch)
		t->nodes[i].done = self;
	t->open--;
	return true;
}

static bool
end_loop(struct state *t, const struct tag *tag)
{
	if (t->open == 0 || t->blocks[t->open - 1].kind != FOR)
		return reader_fail(&t->reader, tag->at, "there is no 'for' for this");
	t->open--;
	t->nodes[t->blocks[t->open].first].done = t->count;
	leave_scope(t->reader.L);
	return add(t, ENDFOR, t->reader.pos, tag->end, tag);
}

/* While the template is read, a loop's scope says which names are bound. */
static void
bind_names(lua_State *L, const struct loop *l)
{
	const struct slice names[] = { { "loop", 4 }, l->key, l->value };

	lua_newtable(L);
	enter_scope(L);
	for (int i = 0; i < 3; i++) {
		lua_pushboolean(L, 1);
		set_name(L, names[i]);
	}
}

static bool
statement(struct state *t, const struct tag *tag, size_t *next)
{
	struct reader *r = &t->reader;
	struct slice word;
	struct loop loop;
	bool yes;

	if (!reader_name(r, &word))
		return reader_expected(r, "if, for or raw");
	if (slice_is(word, "if"))
		return open_block(t, IF, tag) && read_condition(r, &yes);
	if (slice_is(word, "elif"))
		return continue_block(t, ELIF, tag) && read_condition(r, &yes);
	if (slice_is(word, "for")) {
		if (!open_block(t, FOR, tag) || !read_for(r, &loop))
			return false;
		bind_names(r->L, &loop);
		return true;
	}
	if (!slice_is(word, "else") && !slice_is(word, "endif") &&
	    !slice_is(word, "endfor") && !slice_is(word, "raw"))
		return reader_fail(r, tag->at, "there is no tag '%.*s'", (int)word.len,
		    word.s);
	if (!reader_ended(r))
		return false;
	if (slice_is(word, "else"))
		return continue_block(t, ELSE, tag);
	if (slice_is(word, "endif"))
		return continue_block(t, ENDIF, tag);
	if (slice_is(word, "endfor"))
		return end_loop(t, tag);
	return raw_block(t, tag, *next, next);
}

/* All of the syntax is checked here, what a run would skip included. */
static bool
compile(struct state *t)
{
	lua_State *L = t->reader.L;
	struct tag tag = { 0 };
	size_t from = 0;

	lua_newtable(L);
	lua_replace(L, AT_SCOPE);
	t->reader.check = true;
	t->reader.dry = 1;
	while (next_tag(t, from, &tag)) {
		if (!read_tag(t, &tag) || !add_text(t, from, &tag, &from))
			return false;
		enter_tag(t, tag.start, tag.end);
		if (tag.type == '{' && (!add(t, OUT, tag.start, tag.end, &tag) ||
		    !output(t, &t->nodes[t->count - 1])))
			return false;
		if (tag.type == '%' && !statement(t, &tag, &from))
			return false;
		lua_settop(L, AT_LOOPS);
	}
	t->reader.check = false;
	t->reader.dry = 0;
	if (t->open > 0)
		return reader_fail(&t->reader, t->blocks[t->open - 1].at,
		    "a block without an end");
	return from == t->len || add(t, TEXT, from, t->len, NULL);
}

/* What Lua sees */

static int
state_gc(lua_State *L)
{
	struct state *t = luaL_checkudata(L, 1, STATE);

	free(t->nodes);
	t->nodes = NULL;
	lb_buf_free(&t->out);
	return 0;
}

/* vars[name], or vars[alias of name]: upvalues vars and aliases */
static int
root_index(lua_State *L)
{
	lua_settop(L, 2);
	lua_pushvalue(L, 2);
	if (lua_gettable(L, lua_upvalueindex(1)) != LUA_TNIL)
		return 1;
	lua_pushvalue(L, 2);
	if (lua_rawget(L, lua_upvalueindex(2)) == LUA_TSTRING)
		lua_gettable(L, lua_upvalueindex(1));
	return 1;
}

static void
push_aliases(lua_State *L)
{
	lua_newtable(L);
	for (size_t i = 0; i < sizeof(spec_aliases) / sizeof(spec_aliases[0]); i++) {
		lua_pushstring(L, spec_aliases[i][1]);
		lua_setfield(L, -2, spec_aliases[i][0]);
	}
	if (lua_isnil(L, AT_OPTS))
		return;
	if (lua_getfield(L, AT_OPTS, "aliases") != LUA_TNIL) {
		luaL_argcheck(L, lua_istable(L, -1), AT_OPTS,
		    "aliases: a map of names expected");
		for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1)) {
			luaL_argcheck(L, lua_type(L, -1) == LUA_TSTRING, AT_OPTS,
			    "aliases: a map of names expected");
			lua_pushvalue(L, -2);
			lua_pushvalue(L, -2);
			lua_rawset(L, -6);
		}
	}
	lua_pop(L, 1);
}

/* The scope outside all loops. */
static void
enter_root(struct state *t)
{
	lua_State *L = t->reader.L;

	lua_newtable(L);
	lua_createtable(L, 0, 1);
	lua_pushvalue(L, AT_VARS);
	push_aliases(L);
	lua_pushcclosure(L, root_index, 2);
	lua_setfield(L, -2, "__index");
	lua_setmetatable(L, -2);
	lua_replace(L, AT_SCOPE);
}

/* Checks the arguments, makes the box and the tables that the reading needs. */
static struct state *
prepare(lua_State *L, const char *const names[], bool vars)
{
	struct state *t;
	const char *escape;
	size_t known = 0;

	luaL_checktype(L, AT_TEXT, LUA_TSTRING);
	lua_settop(L, AT_OPTS);
	if (lua_isnil(L, AT_VARS) || !vars) {
		lua_newtable(L);
		lua_replace(L, AT_VARS);
	}
	luaL_checktype(L, AT_VARS, LUA_TTABLE);
	lb_opts(L, AT_OPTS, names);
	t = lua_newuserdatauv(L, sizeof(*t), 0);
	memset(t, 0, sizeof(*t));
	luaL_setmetatable(L, STATE);
	t->reader.L = L;
	t->text = t->reader.text = lua_tolstring(L, AT_TEXT, &t->len);
	t->limit = (size_t)lb_opt_integer(L, AT_OPTS, "limit", LIMIT, 1, 1 << 30);
	t->name = lb_opt_string(L, AT_OPTS, "name", "template");
	escape = lb_opt_string(L, AT_OPTS, "escape", "raw");
	t->reader.escape = escape;
	while (known < PLACES && strcmp(places[known].filter, escape) != 0)
		known++;
	luaL_argcheck(L, known < PLACES || strcmp(escape, "demand") == 0, AT_OPTS,
	    "escape: a filter for a place, or demand, expected");
	lua_settop(L, AT_STATE);
	for (int i = AT_NAMES; i <= AT_LOOPS; i++)
		lua_newtable(L);
	return t;
}

static int
failed(const struct state *t, const char *op)
{
	lua_State *L = t->reader.L;
	lua_Integer line = 1, column = 1;

	for (size_t i = 0; i < t->reader.at && i < t->len; i++) {
		if (t->text[i] == '\n') {
			line++;
			column = 1;
		} else if (((unsigned char)t->text[i] & 0xc0) != 0x80) {
			column++;
		}
	}
	lb_fail(L, MODULE, op, "template", "%s:%d:%d: %s", t->name, (int)line,
	    (int)column, t->reader.why);
	lua_pushstring(L, t->name);
	lua_setfield(L, -2, "file");
	lua_pushinteger(L, line);
	lua_setfield(L, -2, "line");
	lua_pushinteger(L, column);
	lua_setfield(L, -2, "column");
	return 2;
}

/* template.render(text, vars, { name = "template", escape = "raw", aliases = {},
 *     limit = 8 MiB })
 *  escape names the filter of every value that has none for its place, or is "demand".
 *  +-> text   (a secret named "rendered NAME" when a secret was rendered)
 *  +-> nil, err   (template; err.file, err.line, err.column)                          */
static int
template_render(lua_State *L)
{
	static const char *const names[] = { "name", "escape", "aliases", "limit", NULL };
	struct state *t = prepare(L, names, true);
	bool ok = compile(t);

	enter_root(t);
	if (!ok || !run(t)) {
		lb_buf_free(&t->out);
		return failed(t, "render");
	}
	if (t->secret) {
		lua_pushfstring(L, "rendered %s", t->name);
		lb_secret_push(L, lua_tostring(L, -1), t->out.data, t->out.len);
	} else {
		lua_pushlstring(L, t->out.len > 0 ? t->out.data : "", t->out.len);
	}
	lb_buf_free(&t->out);
	return 1;
}

/* template.check(text, { name = "template", escape = "raw" })
 *  Checks the syntax of the whole template.
 *  +-> names   (the variables it uses, sorted)
 *  +-> nil, err   (template; err.file, err.line, err.column)                          */
static int
template_check(lua_State *L)
{
	static const char *const names[] = { "name", "escape", NULL };
	struct state *t;

	lua_settop(L, 2);
	lua_pushnil(L);
	lua_insert(L, AT_VARS);
	t = prepare(L, names, false);
	if (!compile(t))
		return failed(t, "check");
	lua_getfield(L, UP_TEXT, "keys");
	lua_pushvalue(L, AT_NAMES);
	lua_call(L, 1, 1);
	return 1;
}

int luaopen_template(lua_State *L);

int
luaopen_template(lua_State *L)
{
	static const luaL_Reg functions[] = {
		{ "render", template_render },
		{ "check", template_check },
		{ NULL, NULL },
	};

	if (luaL_newmetatable(L, STATE)) {
		lua_pushcfunction(L, state_gc);
		lua_setfield(L, -2, "__gc");
	}
	lua_pop(L, 1);
	luaL_newlibtable(L, functions);
	lua_getglobal(L, "require");
	lua_pushliteral(L, "text");
	lua_call(L, 1, 1);
	luaL_setfuncs(L, functions, 1);
	return 1;
}
