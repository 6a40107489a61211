/* mask_trie.c: the automaton of the masker, one array of nodes that is wiped when freed.
 * It does not know what the strings are, and is built anew rather than changed. */
#include "mask_trie.h"

#include <stdlib.h>
#include <string.h>

static void
nodes_free(struct mask_trie *t)
{
	if (t->nodes != NULL)
		explicit_bzero(t->nodes, t->cap * sizeof *t->nodes);
	free(t->nodes);
}

void
trie_wipe(struct mask_trie *t)
{
	nodes_free(t);
	memset(t, 0, sizeof *t);
}

static uint32_t
child_of(const struct mask_trie *t, uint32_t node, unsigned char byte)
{
	uint32_t c;

	if (node == 0)
		return t->root[byte];
	if ((t->nodes[node].flags & TRIE_CHILD) == 0)
		return 0;
	for (c = node + 1; c != 0 && t->nodes[c].byte != byte; c = t->nodes[c].sibling)
		;
	return c;
}

static bool
reserve(struct mask_trie *t)
{
	struct mask_node *grown;
	uint32_t cap;

	if (t->count < t->cap)
		return true;
	cap = t->cap == 0 ? 256 : t->cap + t->cap / 2;
	if (cap > UINT32_MAX / sizeof *grown)
		return false;
	if ((grown = malloc(cap * sizeof *grown)) == NULL)
		return false;
	if (t->count > 0)
		memcpy(grown, t->nodes, t->count * sizeof *grown);
	nodes_free(t);
	t->nodes = grown;
	t->cap = cap;
	return true;
}

bool
trie_start(struct mask_trie *t)
{
	if (!reserve(t))
		return false;
	t->nodes[0] = (struct mask_node){ 0 };
	t->count = 1;
	return true;
}

static uint32_t
add_child(struct mask_trie *t, uint32_t parent, unsigned char byte)
{
	uint32_t i = t->count, c;

	if (!reserve(t))
		return 0;
	t->count++;
	t->nodes[i] = (struct mask_node){ .byte = byte,
		.depth = t->nodes[parent].depth + 1 };
	if (parent == 0) {
		t->root[byte] = i;
	} else if ((t->nodes[parent].flags & TRIE_CHILD) == 0) {
		t->nodes[parent].flags |= TRIE_CHILD; /* i is parent + 1 */
	} else {
		for (c = parent + 1; t->nodes[c].sibling != 0; c = t->nodes[c].sibling)
			;
		t->nodes[c].sibling = i;
	}
	return i;
}

bool
trie_insert(struct mask_trie *t, const unsigned char *data, size_t len, uint16_t label)
{
	uint32_t node = 0, next;
	size_t i;

	for (i = 0; i < len; i++, node = next) {
		next = child_of(t, node, data[i]);
		if (next == 0 && (next = add_child(t, node, data[i])) == 0)
			return false;
	}
	if (t->nodes[node].label == 0)
		t->nodes[node].label = label;
	t->nodes[node].flags |= TRIE_ENDS;
	if (len > t->longest)
		t->longest = (uint32_t)len;
	return true;
}

/* Nodes in order of their depth, since a node's suffix is less deep than the node. */
bool
trie_link(struct mask_trie *t)
{
	uint32_t *queue, head = 0, tail = 0, parent, c;
	struct mask_node *n;
	int i;

	if ((queue = malloc(t->count * sizeof *queue)) == NULL)
		return false;
	for (i = 0; i < 256; i++)
		if (t->root[i] != 0)
			queue[tail++] = t->root[i];
	while (head < tail) {
		parent = queue[head++];
		if ((t->nodes[parent].flags & TRIE_CHILD) == 0)
			continue;
		for (c = parent + 1; c != 0; c = n->sibling) {
			n = &t->nodes[c];
			n->fail = trie_step(t, t->nodes[parent].fail, n->byte);
			n->flags |= t->nodes[n->fail].flags & TRIE_ENDS;
			queue[tail++] = c;
		}
	}
	free(queue);
	return true;
}

uint32_t
trie_step(const struct mask_trie *t, uint32_t node, unsigned char byte)
{
	uint32_t c;

	while ((c = child_of(t, node, byte)) == 0 && node != 0)
		node = t->nodes[node].fail;
	return c;
}

uint32_t
trie_match(const struct mask_trie *t, uint32_t node)
{
	while (t->nodes[node].label == 0)
		node = t->nodes[node].fail;
	return node;
}

uint32_t
trie_open(const struct mask_trie *t, uint32_t node)
{
	while (node != 0 && (t->nodes[node].flags & TRIE_CHILD) == 0)
		node = t->nodes[node].fail;
	return node;
}

uint32_t
trie_leaf(const struct mask_trie *t, uint32_t node)
{
	while ((t->nodes[node].flags & TRIE_CHILD) != 0)
		node++;
	return node;
}
