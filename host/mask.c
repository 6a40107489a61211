/* mask.c: finds all forms of all live secrets at once (Aho-Corasick) and replaces them.
 * It does not know where the text goes, nor Lua, nor what the forms are (mask_forms.c). */
#include "mask.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "mask_forms.h"

#define KEEP 4      /* idle holds back this many bytes of a possible secret, not fewer */
#define CUT_OFF 8   /* this many bytes of a secret at the end of a text are masked */
#define FEW_REGIONS 4

struct label {
	unsigned refs;
	char text[];
};

struct entry {
	struct entry *next;
	unsigned id;
	struct label *label;
	size_t len;
	unsigned char data[];
};

/* A node of the trie of all forms. Forms go in longest first, so that the first child of a
 * node, when it has one, is the next node. */
struct node {
	uint32_t fail;    /* node of the longest suffix that is in the trie too */
	uint32_t sibling; /* 0: none */
	uint32_t depth;
	uint16_t label;   /* > 0: a form ends here, labels[label - 1] */
	unsigned char byte;
	unsigned char flags;
};
enum { HAS_CHILD = 1, ENDS = 2 }; /* ENDS: a form ends here or at a suffix */

struct masker {
	struct entry *entries; /* oldest first */
	unsigned last_id, generation;
	bool stale;
	struct node *nodes; /* the root is 0 */
	uint32_t count, cap, longest;
	uint32_t root[256];
	struct label **labels;
	size_t nlabels;
};

/* A part of the text that is replaced; positions count from the start of the stream. */
struct region {
	uint64_t start, end;
	struct label *label;
	bool quiet; /* goes on from a region that is written already */
};

struct mask_stream {
	struct masker *masker;
	unsigned generation;
	uint32_t state;
	uint64_t pos;    /* end of what was fed */
	uint64_t done;   /* end of what was written, or replaced */
	uint64_t silent; /* end of the last region that idle wrote */
	unsigned char *held; /* the bytes before pos that led to the state, no more */
	size_t held_len, held_cap;
	struct region few[FEW_REGIONS], *regions;
	size_t nregions, regions_cap;
};

static void
label_unref(struct label *l)
{
	if (--l->refs == 0)
		free(l);
}

static void
wipe_free(void *data, size_t len)
{
	if (data != NULL)
		explicit_bzero(data, len);
	free(data);
}

/* Building the automaton */

struct form {
	size_t len;
	unsigned seq, label;
	unsigned char data[];
};

struct forms {
	struct form **list;
	size_t count, cap;
	unsigned label;
	const struct entry *entry;
	bool has_raw; /* the entry's first form is in the list */
};

static bool
forms_add(void *arg, const unsigned char *data, size_t len)
{
	struct forms *f = arg;
	struct form *form, **grown;
	size_t cap;

	/* most forms of most secrets are the secret itself */
	if (f->has_raw && len == f->entry->len && memcmp(data, f->entry->data, len) == 0)
		return true;
	if (f->count == f->cap) {
		cap = f->cap == 0 ? 64 : f->cap * 2;
		if ((grown = realloc(f->list, cap * sizeof *grown)) == NULL)
			return false;
		f->list = grown;
		f->cap = cap;
	}
	if ((form = malloc(sizeof *form + len)) == NULL)
		return false;
	form->len = len;
	form->seq = (unsigned)f->count;
	form->label = f->label;
	memcpy(form->data, data, len);
	f->list[f->count++] = form;
	f->has_raw = true;
	return true;
}

static void
forms_free(struct forms *f)
{
	size_t i;

	for (i = 0; i < f->count; i++)
		wipe_free(f->list[i], sizeof **f->list + f->list[i]->len);
	free(f->list);
}

/* Longest first; of the same form the oldest secret's wins. */
static int
form_order(const void *a, const void *b)
{
	const struct form *x = *(struct form *const *)a, *y = *(struct form *const *)b;

	if (x->len != y->len)
		return x->len < y->len ? 1 : -1;
	return x->seq < y->seq ? -1 : 1;
}

static uint32_t
child_of(const struct masker *m, uint32_t node, unsigned char byte)
{
	uint32_t c;

	if (node == 0)
		return m->root[byte];
	if ((m->nodes[node].flags & HAS_CHILD) == 0)
		return 0;
	for (c = node + 1; c != 0 && m->nodes[c].byte != byte; c = m->nodes[c].sibling)
		;
	return c;
}

static uint32_t
node_add(struct masker *m, uint32_t parent, unsigned char byte)
{
	uint32_t i = m->count, cap, c;
	struct node *grown;

	if (i == m->cap) {
		cap = m->cap < 512 ? 1024 : m->cap * 2;
		if (cap > UINT32_MAX / sizeof *grown ||
		    (grown = malloc(cap * sizeof *grown)) == NULL)
			return 0;
		if (m->nodes != NULL)
			memcpy(grown, m->nodes, i * sizeof *grown);
		wipe_free(m->nodes, m->cap * sizeof *grown);
		m->nodes = grown;
		m->cap = cap;
	}
	m->count++;
	m->nodes[i] = (struct node){ .byte = byte };
	if (i == 0)
		return 0;
	m->nodes[i].depth = m->nodes[parent].depth + 1;
	if (parent == 0) {
		m->root[byte] = i;
	} else if ((m->nodes[parent].flags & HAS_CHILD) == 0) {
		m->nodes[parent].flags |= HAS_CHILD; /* i is parent + 1: see struct node */
	} else {
		for (c = parent + 1; m->nodes[c].sibling != 0; c = m->nodes[c].sibling)
			;
		m->nodes[c].sibling = i;
	}
	return i;
}

static bool
insert_form(struct masker *m, const struct form *f)
{
	uint32_t node = 0, next;
	size_t i;

	for (i = 0; i < f->len; i++, node = next) {
		next = child_of(m, node, f->data[i]);
		if (next == 0 && (next = node_add(m, node, f->data[i])) == 0)
			return false;
	}
	if (m->nodes[node].label == 0)
		m->nodes[node].label = (uint16_t)(f->label + 1);
	m->nodes[node].flags |= ENDS;
	if (f->len > m->longest)
		m->longest = (uint32_t)f->len;
	return true;
}

/* The node for the longest suffix in the trie of what leads to `node` and then `byte`. */
static uint32_t
step(const struct masker *m, uint32_t node, unsigned char byte)
{
	uint32_t c;

	while ((c = child_of(m, node, byte)) == 0 && node != 0)
		node = m->nodes[node].fail;
	return c;
}

static bool
link_suffixes(struct masker *m)
{
	uint32_t *queue, head = 0, tail = 0, parent, c;
	struct node *n;
	int i;

	if ((queue = malloc(m->count * sizeof *queue)) == NULL)
		return false;
	for (i = 0; i < 256; i++)
		if (m->root[i] != 0)
			queue[tail++] = m->root[i];
	while (head < tail) {
		parent = queue[head++];
		if ((m->nodes[parent].flags & HAS_CHILD) == 0)
			continue;
		for (c = parent + 1; c != 0; c = n->sibling) {
			n = &m->nodes[c];
			n->fail = step(m, m->nodes[parent].fail, n->byte);
			n->flags |= m->nodes[n->fail].flags & ENDS;
			queue[tail++] = c;
		}
	}
	free(queue);
	return true;
}

static void
masker_forget(struct masker *m)
{
	size_t i;

	wipe_free(m->nodes, m->cap * sizeof *m->nodes);
	for (i = 0; i < m->nlabels; i++)
		label_unref(m->labels[i]);
	free(m->labels);
	m->nodes = NULL;
	m->labels = NULL;
	m->nlabels = 0;
	m->count = m->cap = m->longest = 0;
	memset(m->root, 0, sizeof m->root);
	m->stale = true;
}

static bool
masker_build(struct masker *m)
{
	struct forms f = { 0 };
	struct entry *e;
	size_t n = 0, i;
	bool ok = true;

	if (!m->stale)
		return true;
	masker_forget(m);
	for (e = m->entries; e != NULL; e = e->next)
		n++;
	/* labels are 16 bits: all secrets beyond that share the last one */
	n = n < UINT16_MAX - 1 ? n : UINT16_MAX - 1;
	if (n > 0 && (m->labels = calloc(n, sizeof *m->labels)) == NULL)
		return false;
	for (e = m->entries; e != NULL && ok; e = e->next) {
		if (m->nlabels < n) {
			e->label->refs++;
			m->labels[m->nlabels++] = e->label;
		}
		f.entry = e;
		f.has_raw = false;
		f.label = (unsigned)m->nlabels - 1;
		ok = mask_forms(e->data, e->len, forms_add, &f);
	}
	if (ok && f.count > 0)
		qsort(f.list, f.count, sizeof *f.list, form_order);
	if (ok) {
		node_add(m, 0, 0);
		ok = m->nodes != NULL;
	}
	for (i = 0; i < f.count && ok; i++)
		ok = insert_form(m, f.list[i]);
	forms_free(&f);
	if (!ok || !link_suffixes(m)) {
		masker_forget(m);
		return false;
	}
	m->stale = false;
	return true;
}

/* The masker */

struct masker *
mask_new(void)
{
	struct masker *m = calloc(1, sizeof *m);

	if (m != NULL)
		m->stale = true;
	return m;
}

static void
entry_free(struct entry *e)
{
	label_unref(e->label);
	wipe_free(e, sizeof *e + e->len);
}

void
mask_free(struct masker *m)
{
	struct entry *e;

	if (m == NULL)
		return;
	masker_forget(m);
	while ((e = m->entries) != NULL) {
		m->entries = e->next;
		entry_free(e);
	}
	free(m);
}

unsigned
mask_add(struct masker *m, const char *name, const void *data, size_t len)
{
	struct entry *e, **last;
	size_t name_len = strlen(name);

	if (len == 0 || len > UINT32_MAX / 64 || (e = malloc(sizeof *e + len)) == NULL)
		return 0;
	if ((e->label = malloc(sizeof *e->label + name_len + 1)) == NULL) {
		free(e);
		return 0;
	}
	e->label->refs = 1;
	memcpy(e->label->text, name, name_len + 1);
	e->len = len;
	memcpy(e->data, data, len);
	e->id = ++m->last_id;
	e->next = NULL;
	for (last = &m->entries; *last != NULL; last = &(*last)->next)
		;
	*last = e;
	m->stale = true;
	m->generation++;
	return e->id;
}

void
mask_remove(struct masker *m, unsigned id)
{
	struct entry *e, **p;

	for (p = &m->entries; (e = *p) != NULL && e->id != id; p = &e->next)
		;
	if (e == NULL)
		return;
	*p = e->next;
	entry_free(e);
	masker_forget(m);
	m->generation++;
}

/* Streams */

static void
stream_init(struct mask_stream *s, struct masker *m)
{
	memset(s, 0, sizeof *s);
	s->masker = m;
	s->generation = m->generation;
	s->regions = s->few;
	s->regions_cap = FEW_REGIONS;
}

static void
stream_release(struct mask_stream *s)
{
	size_t i;

	for (i = 0; i < s->nregions; i++)
		label_unref(s->regions[i].label);
	if (s->regions != s->few)
		free(s->regions);
	wipe_free(s->held, s->held_cap);
}

struct mask_stream *
mask_stream_new(struct masker *m)
{
	struct mask_stream *s = malloc(sizeof *s);

	if (s != NULL)
		stream_init(s, m);
	return s;
}

void
mask_stream_free(struct mask_stream *s)
{
	if (s == NULL)
		return;
	stream_release(s);
	free(s);
}

static bool
regions_grow(struct mask_stream *s)
{
	struct region *grown = malloc(2 * s->regions_cap * sizeof *grown);

	if (grown == NULL)
		return false;
	memcpy(grown, s->regions, s->nregions * sizeof *grown);
	if (s->regions != s->few)
		free(s->regions);
	s->regions = grown;
	s->regions_cap *= 2;
	return true;
}

/* Masks [start, end), which ends at or behind all regions there are. Of overlapping secrets
 * the leftmost gives the name, then the longest. */
static void
region_add(struct mask_stream *s, uint64_t start, uint64_t end, struct label *label)
{
	struct region r = { start, end, label, false }, *last;

	if (r.start < s->done) {
		r.quiet = r.start < s->silent && s->done == s->silent;
		r.start = s->done;
	}
	if (r.start >= end)
		return;
	label->refs++;
	while (s->nregions > 0) {
		last = &s->regions[s->nregions - 1];
		if (last->end <= r.start)
			break;
		if (last->start <= r.start)
			r.quiet = r.quiet || last->quiet;
		if (last->start < r.start) {
			label_unref(r.label);
			r.start = last->start;
			r.label = last->label;
		} else {
			label_unref(last->label);
		}
		s->nregions--;
	}
	if (s->nregions == s->regions_cap && !regions_grow(s)) {
		/* out of memory: rather mask what lies between than show a secret */
		s->regions[s->nregions - 1].end = end;
		label_unref(r.label);
		return;
	}
	s->regions[s->nregions++] = r;
}

/* What is fed, and behind what is held: one text that starts at `base`. */
struct text {
	uint64_t base;
	const unsigned char *held, *data;
	size_t held_len, len;
	mask_out *out;
	void *arg;
};

static void
write_raw(const struct text *t, uint64_t from, uint64_t to)
{
	uint64_t data_base = t->base + t->held_len, end;

	if (from < data_base && from < to) {
		end = to < data_base ? to : data_base;
		t->out(t->arg, (const char *)t->held + (from - t->base), (size_t)(end - from));
		from = end;
	}
	if (from < to)
		t->out(t->arg, (const char *)t->data + (from - data_base), (size_t)(to - from));
}

static void
write_first_region(struct mask_stream *s, const struct text *t)
{
	struct region r = s->regions[0];

	write_raw(t, s->done, r.start);
	if (!r.quiet) {
		t->out(t->arg, "[secret ", 8);
		t->out(t->arg, r.label->text, strlen(r.label->text));
		t->out(t->arg, "]", 1);
	}
	label_unref(r.label);
	s->done = r.end;
	s->nregions--;
	memmove(s->regions, s->regions + 1, s->nregions * sizeof *s->regions);
}

/* Writes all before `end`, which no later match can reach. */
static void
write_until(struct mask_stream *s, const struct text *t, uint64_t end)
{
	while (s->nregions > 0 && s->regions[0].end <= end)
		write_first_region(s, t);
	if (s->nregions > 0 && s->regions[0].start < end)
		end = s->regions[0].start;
	if (s->done < end) {
		write_raw(t, s->done, end);
		s->done = end;
	}
}

static void
scan(struct mask_stream *s, uint64_t pos, const unsigned char *data, size_t len)
{
	const struct masker *m = s->masker;
	uint32_t state = s->state, n;
	size_t i;

	for (i = 0; i < len; i++) {
		state = step(m, state, data[i]);
		if ((m->nodes[state].flags & ENDS) == 0)
			continue;
		for (n = state; m->nodes[n].label == 0; n = m->nodes[n].fail)
			;
		region_add(s, pos + i + 1 - m->nodes[n].depth, pos + i + 1,
		    m->labels[m->nodes[n].label - 1]);
	}
	s->state = state;
}

static bool
reserve_held(struct mask_stream *s, size_t len)
{
	unsigned char *grown;
	size_t need = s->held_len + len;

	if (need > s->masker->longest)
		need = s->masker->longest;
	if (need < s->held_len)
		need = s->held_len;
	if (need <= s->held_cap)
		return true;
	need = need < 64 ? 64 : need * 2;
	if ((grown = malloc(need)) == NULL)
		return false;
	if (s->held_len > 0)
		memcpy(grown, s->held, s->held_len);
	wipe_free(s->held, s->held_cap);
	s->held = grown;
	s->held_cap = need;
	return true;
}

/* Keeps the last `depth` bytes of what was held and fed. */
static void
hold(struct mask_stream *s, const unsigned char *data, size_t len, size_t depth)
{
	size_t old;

	if (depth <= len) {
		old = s->held_len;
		if (depth > 0)
			memcpy(s->held, data + len - depth, depth);
		if (old > depth)
			explicit_bzero(s->held + depth, old - depth);
	} else {
		old = depth - len; /* of these from before */
		memmove(s->held, s->held + s->held_len - old, old);
		if (len > 0)
			memcpy(s->held + old, data, len);
		if (s->held_len > depth)
			explicit_bzero(s->held + depth, s->held_len - depth);
	}
	s->held_len = depth;
}

bool
mask_stream_feed(struct mask_stream *s, const void *data, size_t len, mask_out *out,
    void *arg)
{
	struct masker *m = s->masker;
	struct text t = { s->pos - s->held_len, NULL, data, s->held_len, len, out, arg };
	uint32_t depth;

	if (!masker_build(m) || !reserve_held(s, len))
		return false;
	t.held = s->held;
	if (s->generation != m->generation) {
		/* other secrets: look at what is held with their eyes */
		s->state = 0;
		s->generation = m->generation;
		scan(s, t.base, t.held, t.held_len);
	}
	scan(s, s->pos, data, len);
	s->pos += len;
	depth = m->nodes[s->state].depth;
	write_until(s, &t, s->pos - depth);
	hold(s, data, len, depth);
	return true;
}

bool
mask_stream_idle(struct mask_stream *s, mask_out *out, void *arg)
{
	struct text t;

	if (!mask_stream_feed(s, "", 0, out, arg))
		return false;
	t = (struct text){ s->pos - s->held_len, s->held, NULL, s->held_len, 0, out, arg };
	while (s->nregions > 0 && s->regions[0].start == s->done) {
		write_first_region(s, &t);
		s->silent = s->done;
	}
	if (s->nregions == 0 && s->held_len < KEEP)
		write_until(s, &t, s->pos);
	return true;
}

bool
mask_stream_flush(struct mask_stream *s, mask_out *out, void *arg)
{
	const struct masker *m = s->masker;
	struct text t;
	uint32_t n = s->state;

	if (!mask_stream_feed(s, "", 0, out, arg))
		return false;
	n = s->state;
	if (m->nodes[n].depth >= CUT_OFF && (m->nodes[n].flags & HAS_CHILD) != 0) {
		while ((m->nodes[n].flags & HAS_CHILD) != 0)
			n++;
		region_add(s, s->pos - s->held_len, s->pos, m->labels[m->nodes[n].label - 1]);
	}
	t = (struct text){ s->pos - s->held_len, s->held, NULL, s->held_len, 0, out, arg };
	write_until(s, &t, s->pos);
	hold(s, NULL, 0, 0);
	s->state = 0;
	s->pos = s->done = s->silent = 0;
	return true;
}

bool
mask_text(struct masker *m, const void *data, size_t len, mask_out *out, void *arg)
{
	struct mask_stream s;
	bool ok;

	stream_init(&s, m);
	ok = mask_stream_feed(&s, data, len, out, arg) && mask_stream_flush(&s, out, arg);
	stream_release(&s);
	return ok;
}
