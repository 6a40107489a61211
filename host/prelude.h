/* prelude.h: the embedded Lua files, an array that ends with a NULL name. */
#ifndef PRELUDE_H
#define PRELUDE_H

#include <stddef.h>

struct prelude_file {
	const char *name; /* without folder and ".lua" */
	const unsigned char *data;
	size_t len;
};
extern const struct prelude_file prelude_files[];

#endif
