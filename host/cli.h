/* cli.h: the command line as data. Knows no Lua state of its own and runs nothing. */
#ifndef CLI_H
#define CLI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include <lua.h>

struct cli_item {
	const char *text; /* into argv, not terminated at len */
	size_t len;
};

struct cli_list {
	struct cli_item *items;
	size_t count;
};

enum cli_result {
	CLI_OK,
	CLI_HELP,    /* print it with cli_help and leave with 0 */
	CLI_VERSION, /* print it with cli_version and leave with 0 */
	CLI_USAGE,   /* message and hint say what is wrong: leave with 2 */
	CLI_MEMORY,
};

struct cli {
	const char *command; /* "run", "plan", ...; for CLI_HELP the topic or NULL */
	struct cli_list operands, params, target, identity, tags, skip_tags;
	const char *targets_file, *params_file, *confirm, *journal, *request_id,
	    *on_failure;
	const char *reason, *color;
	int parallel, hours, verbose; /* 0 when not given */
	bool check, diff, detailed_exitcode, json, yes, no_input, allow_local_root, quiet;
	bool done, redo, fail, revoke, once;
	char message[400], hint[80];
};

/* Fills *cli, whose strings stay in argv; argv is reordered as getopt does. Call cli_free
 * whatever the result. */
enum cli_result cli_parse(struct cli *cli, int argc, char **argv);
void cli_free(struct cli *cli);

void cli_help(FILE *out, const char *command); /* NULL: the overview */
void cli_version(FILE *out);

/* Push { command, operands, params = { { name, value } ... }, options }. */
void cli_push(lua_State *L, const struct cli *cli);

/* The word of a NULL-ended list that was probably meant, or NULL. */
const char *cli_nearest(const char *word, const char *const words[]);

#endif
