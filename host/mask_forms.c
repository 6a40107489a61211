/* mask_forms.c: raw, base64, hex, URL, JSON, shell and other quoted forms of a secret and
 * of its lines.
 * It keeps nothing; what it needs for a while is wiped. */
#include "mask_forms.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SHORTEST_LINE 8
#define LONGEST_ESCAPE 6 /* output for one byte of input: \u001f */

struct forms {
	bool (*add)(void *arg, enum mask_kind kind, const unsigned char *form,
	    size_t len);
	void *arg;
	unsigned char *out; /* room for every form of the whole secret */
};

/* Writes the escape of the character at data (left > 0 bytes), and how long both are. */
typedef size_t escape_fn(const unsigned char *data, size_t left, unsigned char *out,
    size_t *used, int variant);

static const char hex_digits[2][17] = { "0123456789abcdef", "0123456789ABCDEF" };

static size_t
literal(unsigned char *out, const char *text)
{
	size_t len = strlen(text);

	memcpy(out, text, len);
	return len;
}

static bool
alphanumeric(unsigned char c)
{
	return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
}

/* base64: what stands before and after the secret shares a character with its first and
 * last bits, so only the characters between those are the secret's own. */
static bool
add_base64(struct forms *f, const unsigned char *data, size_t len, const char *last_two,
    size_t align)
{
	static const char alphabet[] =
	    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
	size_t bits = 0, n = 0, i;
	size_t skip = (align * 8 + 5) / 6;
	uint32_t acc = 0;

	for (i = 0; i < align + len; i++) {
		acc = (acc << 8 | (i < align ? 0 : data[i - align])) & 0x3fff;
		for (bits += 8; bits >= 6; bits -= 6) {
			unsigned value = acc >> (bits - 6) & 63;

			f->out[n++] = (unsigned char)(value < 62 ? alphabet[value] :
			    last_two[value - 62]);
		}
	}
	return f->add(f->arg, MASK_WRAPPED, f->out + skip, n - skip);
}

static bool
add_hex(struct forms *f, const unsigned char *data, size_t len, int upper)
{
	size_t i;

	for (i = 0; i < len; i++) {
		f->out[2 * i] = (unsigned char)hex_digits[upper][data[i] >> 4];
		f->out[2 * i + 1] = (unsigned char)hex_digits[upper][data[i] & 15];
	}
	return f->add(f->arg, MASK_WRAPPED, f->out, 2 * len);
}

/* Percent encoding. Encoders differ in what they leave alone, in how they write a space
 * and in the case of their digits. */
static size_t
escape_url(const unsigned char *data, size_t left, unsigned char *out, size_t *used,
    int variant)
{
	static const char *const kept[] = { "-_.~", "-_.~/", "-_.!~*'()", "-_.*" };
	const char *digits = hex_digits[variant & 1];
	int kind = variant >> 1;

	(void)left;
	*used = 1;
	out[0] = *data;
	if (alphanumeric(*data) || (*data != 0 && strchr(kept[kind], *data) != NULL))
		return 1;
	if (kind == 3 && *data == ' ') {
		out[0] = '+';
		return 1;
	}
	out[0] = '%';
	out[1] = (unsigned char)digits[*data >> 4];
	out[2] = (unsigned char)digits[*data & 15];
	return 3;
}

/* The code point at data; *used is 0 where this is no UTF-8. */
static uint32_t
decode_utf8(const unsigned char *data, size_t left, size_t *used)
{
	static const uint32_t least[] = { 0, 0, 0x80, 0x800, 0x10000 };
	size_t n = *data >= 0xf0 ? 4 : *data >= 0xe0 ? 3 : 2, i;
	uint32_t point = *data & (0x7fu >> n);

	*used = 0;
	if (*data < 0xc0 || *data > 0xf4 || left < n)
		return 0;
	for (i = 1; i < n; i++) {
		if ((data[i] & 0xc0) != 0x80)
			return 0;
		point = point << 6 | (data[i] & 0x3f);
	}
	if (point < least[n] || point > 0x10ffff)
		return 0;
	*used = n;
	return point;
}

static size_t
write_u(unsigned char *out, uint32_t unit)
{
	char text[8];

	snprintf(text, sizeof text, "\\u%04x", (unsigned)(unit & 0xffff));
	memcpy(out, text, 6);
	return 6;
}

/* JSON. Variant 1 escapes the slash, 2 what HTML minds, 3 all that is not ASCII. */
static size_t
escape_json(const unsigned char *data, size_t left, unsigned char *out, size_t *used,
    int variant)
{
	static const char short_for[] = "\b\f\n\r\t\"\\", names[] = "bfnrt\"\\";
	const char *p;
	uint32_t point;

	*used = 1;
	out[0] = *data;
	if (*data != 0 && (p = strchr(short_for, *data)) != NULL) {
		out[0] = '\\';
		out[1] = (unsigned char)names[p - short_for];
		return 2;
	}
	if (*data < ' ')
		return write_u(out, *data);
	if (variant == 1 && *data == '/')
		return literal(out, "\\/");
	if (variant == 2 && (*data == '<' || *data == '>' || *data == '&'))
		return write_u(out, *data);
	if (variant != 3 || *data < 0x80)
		return 1;
	point = decode_utf8(data, left, used);
	if (*used == 0) {
		*used = 1;
		return 1;
	}
	if (point < 0x10000)
		return write_u(out, point);
	point -= 0x10000;
	write_u(out, 0xd800 | point >> 10);
	write_u(out + 6, 0xdc00 | (point & 0x3ff));
	return 12;
}

/* Shell. Variants 0 and 1 end the single quotes for a quote, 2 is backslashes, 3 the
 * inner part of double quotes. */
static size_t
escape_shell(const unsigned char *data, size_t left, unsigned char *out, size_t *used,
    int variant)
{
	bool escape;

	(void)left;
	*used = 1;
	out[0] = *data;
	if (variant < 2)
		return *data != '\'' ? 1 :
		    literal(out, variant == 0 ? "'\\''" : "'\"'\"'");
	if (variant == 2)
		escape = !alphanumeric(*data) && *data > ' ' && *data < 0x7f &&
		    strchr("-_./,:=+@%", *data) == NULL;
	else
		escape = *data != 0 && strchr("\"\\$`", *data) != NULL;
	if (!escape && !(variant == 2 && *data == ' '))
		return 1;
	out[0] = '\\';
	out[1] = *data;
	return 2;
}

/* Other quotings, each a set of characters and what is written for them; the rest stays.
 * Compose doubles the dollar, in whatever quotes the value stands; YAML, SQL and CSV
 * double the quote; PHP, Python and JavaScript escape the quote alone, and the dollar is
 * bare. */
static const struct {
	const char *doubled, *slashed, *closed;
} quotings[] = {
	{ "$", "", "" },       /* compose, bare or in an environment file */
	{ "'", "", "" },       /* YAML or SQL, single quotes */
	{ "'$", "", "" },      /* compose, in single quotes */
	{ "\"", "", "" },      /* CSV */
	{ "$", "\"\\", "" },   /* compose, in double quotes */
	{ "$", "", "'" },      /* compose, a shell's single quotes */
	{ "", "'", "" },       /* one quote escaped, nothing else */
	{ "", "'\\", "" },     /* PHP, Python or JavaScript, single quotes */
	{ "", "'\"\\", "" },   /* SQL of MySQL, addslashes */
	{ "'", "\\", "" },     /* SQL that doubles the quote and knows the backslash */
	{ "", "'$\"\\`", "" }, /* all that a shell or PHP minds */
};
#define QUOTINGS ((int)(sizeof quotings / sizeof quotings[0]))

static size_t
escape_quoted(const unsigned char *data, size_t left, unsigned char *out, size_t *used,
    int variant)
{
	(void)left;
	*used = 1;
	out[0] = out[1] = *data;
	if (*data == 0)
		return 1;
	if (strchr(quotings[variant].doubled, *data) != NULL)
		return 2;
	if (strchr(quotings[variant].closed, *data) != NULL)
		return literal(out, "'\\''");
	if (strchr(quotings[variant].slashed, *data) == NULL)
		return 1;
	out[0] = '\\';
	return 2;
}

static bool
add_escaped(struct forms *f, const unsigned char *data, size_t len, escape_fn *escape,
    int variants)
{
	size_t i, n, used;
	int variant;

	for (variant = 0; variant < variants; variant++) {
		for (i = n = 0; i < len; i += used)
			n += escape(data + i, len - i, f->out + n, &used, variant);
		if (n == len && memcmp(f->out, data, len) == 0)
			continue; /* nothing to escape: it is the raw form */
		if (!f->add(f->arg, MASK_PLAIN, f->out, n))
			return false;
	}
	return true;
}

static bool
add_forms(struct forms *f, const unsigned char *data, size_t len)
{
	size_t align;

	if (!f->add(f->arg, MASK_PLAIN, data, len))
		return false;
	for (align = 0; align < 3; align++)
		if (!add_base64(f, data, len, "+/", align) ||
		    !add_base64(f, data, len, "-_", align))
			return false;
	return add_hex(f, data, len, 0) && add_hex(f, data, len, 1) &&
	    add_escaped(f, data, len, escape_url, 8) &&
	    add_escaped(f, data, len, escape_json, 4) &&
	    add_escaped(f, data, len, escape_shell, 4) &&
	    add_escaped(f, data, len, escape_quoted, QUOTINGS);
}

/* The first and last line of a PEM file are no secret, and stand in many texts. */
static bool
armour(const unsigned char *line, size_t len)
{
	static const char begin[] = "-----BEGIN ", end[] = "-----END ";

	return (len > strlen(begin) && memcmp(line, begin, strlen(begin)) == 0) ||
	    (len > strlen(end) && memcmp(line, end, strlen(end)) == 0);
}

static bool
add_lines(struct forms *f, const unsigned char *data, size_t len)
{
	const unsigned char *end = data + len, *line = data, *next;
	size_t n;

	if (memchr(data, '\n', len) == NULL)
		return true;
	for (; line < end; line = next) {
		next = memchr(line, '\n', (size_t)(end - line));
		next = next == NULL ? end : next + 1;
		n = (size_t)(next - line);
		while (n > 0 && (line[n - 1] == '\n' || line[n - 1] == '\r'))
			n--;
		if (n >= SHORTEST_LINE && n < len && !armour(line, n) &&
		    !add_forms(f, line, n))
			return false;
	}
	return true;
}

bool
mask_forms(const unsigned char *data, size_t len,
    bool (*add)(void *arg, enum mask_kind kind, const unsigned char *form, size_t len),
    void *arg)
{
	struct forms f = { add, arg, NULL };
	size_t room;
	bool ok;

	if (len > SIZE_MAX / 16)
		return false;
	room = len * LONGEST_ESCAPE + 16;
	if ((f.out = malloc(room)) == NULL)
		return false;
	ok = add_forms(&f, data, len) && add_lines(&f, data, len);
	explicit_bzero(f.out, room);
	free(f.out);
	return ok;
}
