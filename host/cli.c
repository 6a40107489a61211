/* cli.c: parses the command line with getopt_long, and knows commands, options and help.
 * It opens no file and decides nothing about a run. */
#include "cli.h"
#include "version.h"

#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <lauxlib.h>

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

enum {
	RUN = 1 << 0,
	PLAN = 1 << 1,
	RESUME = 1 << 2,
	UNDO = 1 << 3,
	SETTLE = 1 << 4,
	ABANDON = 1 << 5,
	RUNS = 1 << 6,
	SHOW = 1 << 7,
	LOG = 1 << 8,
	EXPLAIN = 1 << 9,
	LIST = 1 << 10,
	DESCRIBE = 1 << 11,
	DOCTOR = 1 << 12,
	VERIFY = 1 << 13,
	HELP = 1 << 14,
	NETCUP = 1 << 15,
	OUTBOX = 1 << 16,
	WORKER = 1 << 17,
	ANY = -1,
	ACTS = RUN | PLAN | RESUME | UNDO, /* what talks to a target */
};

static const struct command {
	const char *name;
	int bit;
	int min, max; /* operands */
	bool params;  /* takes name=value */
	const char *usage, *needs, *summary, *examples;
} commands[] = {
	{ "run", RUN, 1, 1, true, "[run] RUNBOOK.lua [name=value ...]", "a RUNBOOK.lua",
	    "run a runbook against its targets",
	    "  lbrun provision.lua -t ssh://root@203.0.113.7 -p acme.json\n"
	    "  lbrun update.lua -t acme -t globex --parallel 2\n"
	    "  lbrun backup.lua -t acme tool=nextcloud --json\n" },
	{ "plan", PLAN, 1, 1, true, "plan RUNBOOK.lua [name=value ...]", "a RUNBOOK.lua",
	    "show what a run would change, and change nothing",
	    "  lbrun plan provision.lua -t acme\n"
	    "  lbrun plan update.lua -t acme --detailed-exitcode\n" },
	{ "resume", RESUME, 0, 1, true, "resume [RUN]", NULL,
	    "go on where a run stopped, with the code it began with",
	    "  lbrun resume\n"
	    "  lbrun resume 7f3a --yes\n" },
	{ "undo", UNDO, 1, 1, true, "undo RUN", "a RUN",
	    "undo a run's reversible effects, last first", "  lbrun undo 7f3a\n" },
	{ "settle", SETTLE, 2, 2, false,
	    "settle RUN STEP --done|--redo|--fail --reason TEXT", "a RUN and a STEP",
	    "decide a step in doubt",
	    "  lbrun settle 7f3a hub --done --reason 'the Hub lists the server'\n" },
	{ "abandon", ABANDON, 1, 1, false, "abandon RUN --reason TEXT", "a RUN",
	    "give a run up and release its locks",
	    "  lbrun abandon 7f3a --reason 'server was reinstalled'\n" },
	{ "runs", RUNS, 0, 0, false, "runs", NULL, "list the runs of the journal",
	    "  lbrun runs -t acme\n" },
	{ "show", SHOW, 1, 1, false, "show RUN", "a RUN", "one run with its steps",
	    "  lbrun show 7f3a --json\n" },
	{ "log", LOG, 1, 1, false, "log RUN", "a RUN", "the events of a run",
	    "  lbrun log 7f3a\n" },
	{ "explain", EXPLAIN, 1, 1, false, "explain RUN", "a RUN",
	    "what is done, in doubt and left, and the next command",
	    "  lbrun explain 7f3a\n" },
	{ "outbox", OUTBOX, 0, 2, true, "outbox [list|send|drop ID] [name=@FILE]", NULL,
	    "what the Hub has still to be told",
	    "  lbrun outbox\n"
	    "  lbrun outbox send runner_token=@token    the token that they need\n"
	    "  lbrun outbox drop 4be1 --reason 'the order was cancelled'\n" },
	{ "list", LIST, 0, 1, false, "list [DIR]", NULL, "runbooks with their summaries",
	    "  lbrun list\n" },
	{ "describe", DESCRIBE, 1, 1, false, "describe RUNBOOK.lua", "a RUNBOOK.lua",
	    "the parameters and steps of a runbook",
	    "  lbrun describe provision.lua\n"
	    "  lbrun describe provision.lua --json    JSON Schema of the parameters\n" },
	{ "doctor", DOCTOR, 0, 0, false, "doctor", NULL,
	    "what this machine has and lacks", "  lbrun doctor\n" },
	{ "verify-journal", VERIFY, 0, 0, false, "verify-journal", NULL,
	    "check the journal's hash chain", "  lbrun verify-journal\n" },
	{ "worker", WORKER, 0, 0, true, "worker [name=value ...]", NULL,
	    "carry on all runs that are due, and take in orders",
	    "  lbrun worker                      until it is ended, looking every 30 s\n"
	    "  lbrun worker --once               what is due now\n"
	    "  lbrun worker orders=/srv/orders hub_url=https://hub.example "
	    "runner_token=@token\n" },
	{ "netcup", NETCUP, 1, 2, false, "netcup COMMAND [ID|ZONE]",
	    "a command: login, logout, whoami, servers, server ID, snapshots ID, "
	    "metrics ID, tasks or dns ZONE",
	    "log in to netcup; its servers, tasks and DNS zones",
	    "  lbrun netcup login            a login that you allow in a browser\n"
	    "  lbrun netcup servers -v       all servers, with state and address\n"
	    "  lbrun netcup server 111007    one server, by id, name or nickname\n"
	    "  lbrun netcup snapshots wrk-02\n"
	    "  lbrun netcup metrics wrk-02 --hours 24\n"
	    "  lbrun netcup tasks --json\n"
	    "  lbrun netcup dns acme.example\n"
	    "  lbrun netcup whoami; lbrun netcup logout --revoke\n" },
	{ "help", HELP, 0, 1, false, "help [COMMAND]", NULL, "help on a command",
	    "  lbrun help run\n" },
};

enum kind { FLAG, COUNTED, STRING, NUMBER, LISTED, SPLIT, WHEN, ASK_HELP, ASK_VERSION };

enum group { TARGETS, PARAMETERS, APPROVAL, DECISION, OUTPUT, GROUPS };
static const char *const group_titles[GROUPS] = { "Targets", "Parameters and steps",
	"Approval and failure", "Decision", "Output and journal" };

static const struct option_row {
	const char *name;
	int letter; /* 0: none */
	enum kind kind;
	enum group group;
	int commands;
	size_t at; /* field of struct cli */
	const char *arg, *help;
} rows[] = {
#define AT(field) offsetof(struct cli, field)
	{ "target", 't', LISTED, TARGETS, ACTS | RUNS | DOCTOR, AT(target), "URL|TENANT",
	    "ssh://user@host:port, local: or a tenant; may be repeated" },
	{ "targets", 0, STRING, TARGETS, ACTS | DOCTOR, AT(targets_file), "FILE",
	    "more targets, one a line" },
	{ "parallel", 'P', NUMBER, TARGETS, ACTS | WORKER, AT(parallel), "N",
	    "how many targets, or runs, at a time" },
	{ "identity", 'i', LISTED, TARGETS, ACTS | DOCTOR | WORKER, AT(identity), "FILE",
	    "private key to log in with; may be repeated" },
	{ "allow-local-root", 0, FLAG, TARGETS, ACTS | WORKER, AT(allow_local_root), NULL,
	    "let a runbook change this machine as root" },
	{ "params", 'p', STRING, PARAMETERS, ACTS | OUTBOX | WORKER, AT(params_file),
	    "FILE.json",
	    "parameters from a file; name=value wins over it" },
	{ "tags", 0, SPLIT, PARAMETERS, RUN | PLAN, AT(tags), "A,B",
	    "only steps with one of these tags" },
	{ "skip-tags", 0, SPLIT, PARAMETERS, RUN | PLAN, AT(skip_tags), "A,B",
	    "no steps with one of these tags" },
	{ "request-id", 0, STRING, PARAMETERS, RUN, AT(request_id), "ID",
	    "the same id and parameters give the same run" },
	{ "check", 0, FLAG, PARAMETERS, RUN | PLAN, AT(check), NULL,
	    "probe only, change nothing" },
	{ "diff", 0, FLAG, PARAMETERS, ACTS, AT(diff), NULL, "show what changes" },
	{ "detailed-exitcode", 0, FLAG, PARAMETERS, RUN | PLAN, AT(detailed_exitcode),
	    NULL, "exit 10 when a plan finds changes" },
	{ "yes", 'y', FLAG, APPROVAL, ACTS | ABANDON, AT(yes), NULL,
	    "answer yes to questions; never passes a barrier" },
	{ "confirm", 0, STRING, APPROVAL, ACTS, AT(confirm), "TENANT",
	    "pass the barrier before an irreversible step" },
	{ "no-input", 0, FLAG, APPROVAL, ANY, AT(no_input), NULL, "never ask" },
	{ "on-failure", 0, STRING, APPROVAL, RUN | RESUME | UNDO | WORKER, AT(on_failure),
	    "COMMAND", "shell command to run here when a run fails or needs somebody" },
	{ "done", 0, FLAG, DECISION, SETTLE, AT(done), NULL, "the step took effect" },
	{ "redo", 0, FLAG, DECISION, SETTLE, AT(redo), NULL, "apply the step again" },
	{ "fail", 0, FLAG, DECISION, SETTLE, AT(fail), NULL, "the step failed" },
	{ "reason", 0, STRING, DECISION, SETTLE | ABANDON | OUTBOX,
	    AT(reason), "TEXT",
	    "why; kept in the journal" },
	{ "hours", 0, NUMBER, PARAMETERS, NETCUP, AT(hours), "N",
	    "how far netcup metrics looks back; 1" },
	{ "once", 0, FLAG, PARAMETERS, WORKER, AT(once), NULL,
	    "end when nothing more is due" },
	{ "revoke", 0, FLAG, APPROVAL, NETCUP, AT(revoke), NULL,
	    "netcup logout: end the login at netcup too" },
	{ "json", 0, FLAG, OUTPUT, ANY, AT(json), NULL, "JSON lines on stdout" },
	{ "verbose", 'v', COUNTED, OUTPUT, ANY, AT(verbose), NULL,
	    "more detail; -vv and -vvv for still more" },
	{ "quiet", 'q', FLAG, OUTPUT, ANY, AT(quiet), NULL, "only results and errors" },
	{ "color", 0, WHEN, OUTPUT, ANY, AT(color), "WHEN", "auto, always or never" },
	{ "journal", 0, STRING, OUTPUT, ANY, AT(journal), "FILE",
	    "instead of $XDG_STATE_HOME/lbrun/journal.db" },
	{ "help", 'h', ASK_HELP, OUTPUT, ANY, 0, NULL,
	    "this help, or that of a command" },
	{ "version", 0, ASK_VERSION, OUTPUT, ANY, 0, NULL, "version" },
#undef AT
};

/* Foreign text in a message: no control characters reach the terminal, and a long word
 * is cut. Returns buf. */
static const char *
printable(const char *text, size_t len, char *buf, size_t size)
{
	size_t n = len < size - 1 ? len : size - 1;

	for (size_t i = 0; i < n; i++) {
		unsigned char c = (unsigned char)text[i];
		buf[i] = c < 0x20 || c == 0x7f ? '?' : (char)c;
	}
	buf[n] = '\0';
	return buf;
}

static enum cli_result usage(struct cli *cli, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

static enum cli_result
usage(struct cli *cli, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(cli->message, sizeof cli->message, fmt, ap);
	va_end(ap);
	if (cli->command != NULL)
		snprintf(cli->hint, sizeof cli->hint, "see lbrun help %s", cli->command);
	else
		snprintf(cli->hint, sizeof cli->hint, "see lbrun --help");
	return CLI_USAGE;
}

/* Edits (insert, delete, replace, swap of neighbours) from a to b, or a large number for
 * words too long to be anybody's typing error. */
static size_t
distance(const char *a, const char *b)
{
	size_t la = strlen(a), lb = strlen(b);
	size_t d[33][33];

	if (la > 32 || lb > 32)
		return 99;
	for (size_t i = 0; i <= la; i++)
		d[i][0] = i;
	for (size_t j = 0; j <= lb; j++)
		d[0][j] = j;
	for (size_t i = 1; i <= la; i++) {
		for (size_t j = 1; j <= lb; j++) {
			size_t best = d[i - 1][j - 1] + (a[i - 1] != b[j - 1]);
			if (d[i - 1][j] + 1 < best)
				best = d[i - 1][j] + 1;
			if (d[i][j - 1] + 1 < best)
				best = d[i][j - 1] + 1;
			if (i > 1 && j > 1 && a[i - 1] == b[j - 2] &&
			    a[i - 2] == b[j - 1] && d[i - 2][j - 2] + 1 < best)
				best = d[i - 2][j - 2] + 1;
			d[i][j] = best;
		}
	}
	return d[la][lb];
}

const char *
cli_nearest(const char *word, const char *const words[])
{
	const char *best = NULL;
	size_t len = strlen(word), limit = len < 4 ? 1 : len < 8 ? 2 : 3;
	size_t nearest = 2 * (limit + 1);

	for (size_t i = 0; words[i] != NULL; i++) {
		size_t d = distance(word, words[i]);
		/* A beginning of at least three letters counts as one edit. */
		if (len >= 3 && strncmp(word, words[i], len) == 0)
			d = 1;
		/* Of equally near words, one as long as this. */
		d = 2 * d + (strlen(words[i]) != len);
		if (d < nearest) {
			nearest = d;
			best = words[i];
		}
	}
	return best;
}

static bool
add(struct cli_list *list, const char *text, size_t len)
{
	struct cli_item *items = realloc(list->items, (list->count + 1) * sizeof *items);

	if (items == NULL)
		return false;
	items[list->count++] = (struct cli_item){ text, len };
	list->items = items;
	return true;
}

static const struct command *
command_find(const char *name)
{
	for (size_t i = 0; i < COUNT(commands); i++)
		if (strcmp(commands[i].name, name) == 0)
			return &commands[i];
	return NULL;
}

static const struct option_row *
row_of(int c)
{
	for (size_t i = 0; i < COUNT(rows); i++)
		if (c == rows[i].letter || c == 256 + (int)i)
			return &rows[i];
	return NULL;
}

/* The length of the name in "name=value", 0 when the operand is no parameter. */
static size_t
param_name(const char *s)
{
	size_t n = strspn(s,
	    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
	    "0123456789_");

	if (n == 0 || s[n] != '=' || (*s >= '0' && *s <= '9'))
		return 0;
	return n;
}

static enum cli_result
unknown_option(struct cli *cli, const char *element, int letter)
{
	const char *names[COUNT(rows) + 1], *near;
	char word[64], shown[64];

	if (letter != 0) {
		char c = (char)letter;
		printable(&c, 1, shown, sizeof shown);
		return usage(cli, "unknown option '-%s'", shown);
	}
	for (size_t i = 0; i < COUNT(rows); i++)
		names[i] = rows[i].name;
	names[COUNT(rows)] = NULL;
	snprintf(word, sizeof word, "%.*s", (int)strcspn(element + 2, "="), element + 2);
	near = cli_nearest(word, names);
	printable(element, 2 + strcspn(element + 2, "="), shown, sizeof shown);
	if (near == NULL)
		return usage(cli, "unknown option '%s'", shown);
	return usage(cli, "unknown option '%s' - did you mean '--%s'?", shown, near);
}

static enum cli_result
unknown_command(struct cli *cli, const char *word)
{
	const char *names[COUNT(commands) + 1], *near;
	char shown[64];

	for (size_t i = 0; i < COUNT(commands); i++)
		names[i] = commands[i].name;
	names[COUNT(commands)] = NULL;
	near = cli_nearest(word, names);
	printable(word, strlen(word), shown, sizeof shown);
	if (near != NULL)
		return usage(
		    cli, "unknown command '%s' - did you mean '%s'?", shown, near);
	return usage(cli, "unknown command '%s'; a runbook's name ends in .lua", shown);
}

static enum cli_result
parse_number(struct cli *cli, const struct option_row *row, const char *arg, int *to)
{
	char *end, shown[64];
	long n;

	errno = 0;
	n = strtol(arg, &end, 10);
	if (errno != 0 || end == arg || *end != '\0' || n < 1 || n > 1000)
		return usage(cli, "--%s takes a number from 1 to 1000, not '%s'",
		    row->name, printable(arg, strlen(arg), shown, sizeof shown));
	*to = (int)n;
	return CLI_OK;
}

static enum cli_result
parse_split(
    struct cli *cli, const struct option_row *row, const char *arg, struct cli_list *to)
{
	for (;;) {
		size_t n = strcspn(arg, ",");

		if (n == 0)
			return usage(
			    cli, "--%s takes names with commas between them", row->name);
		if (!add(to, arg, n))
			return CLI_MEMORY;
		if (arg[n] == '\0')
			return CLI_OK;
		arg += n + 1;
	}
}

static enum cli_result
store(struct cli *cli, const struct option_row *row, const char *arg)
{
	static const char *const whens[] = { "auto", "always", "never", NULL };
	char *field = (char *)cli + row->at, shown[64];

	if (arg != NULL && *arg == '\0')
		return usage(
		    cli, "--%s takes %s, which is empty here", row->name, row->arg);
	switch (row->kind) {
	case FLAG:
		*(bool *)(void *)field = true;
		return CLI_OK;
	case COUNTED:
		++*(int *)(void *)field;
		return CLI_OK;
	case NUMBER:
		return parse_number(cli, row, arg, (int *)(void *)field);
	case LISTED:
		return add((struct cli_list *)(void *)field, arg, strlen(arg)) ?
		    CLI_OK :
		    CLI_MEMORY;
	case SPLIT:
		return parse_split(cli, row, arg, (struct cli_list *)(void *)field);
	case WHEN:
		for (size_t i = 0; whens[i] != NULL; i++) {
			if (strcmp(arg, whens[i]) == 0) {
				cli->color = whens[i];
				return CLI_OK;
			}
		}
		return usage(cli, "--color takes auto, always or never, not '%s'",
		    printable(arg, strlen(arg), shown, sizeof shown));
	case STRING:
		*(const char **)(void *)field = arg;
		return CLI_OK;
	case ASK_HELP:
		return CLI_HELP;
	case ASK_VERSION:
		return CLI_VERSION;
	}
	return CLI_OK;
}

/* Which options were given, one bit a row. */
static enum cli_result
parse_options(struct cli *cli, int argc, char **argv, uint64_t *given)
{
	struct option longs[COUNT(rows) + 1];
	char shorts[2 * COUNT(rows) + 2], *s = shorts;
	enum cli_result asked = CLI_OK;

	*s++ = ':';
	for (size_t i = 0; i < COUNT(rows); i++) {
		longs[i] = (struct option){ rows[i].name,
			rows[i].arg != NULL ? required_argument : no_argument, NULL,
			256 + (int)i };
		if (rows[i].letter != 0) {
			*s++ = (char)rows[i].letter;
			if (rows[i].arg != NULL)
				*s++ = ':';
		}
	}
	*s = '\0';
	longs[COUNT(rows)] = (struct option){ NULL, 0, NULL, 0 };
	opterr = 0;
	optind = 0; /* glibc: forget an earlier parse, the specs do several */
	for (;;) {
		const struct option_row *row;
		enum cli_result r;
		int c = getopt_long(argc, argv, shorts, longs, NULL);

		if (c == -1)
			return asked;
		if (c == '?' && (row = row_of(optopt)) != NULL && optopt >= 256)
			return usage(cli, "--%s takes no value", row->name);
		if (c == '?')
			return unknown_option(cli, argv[optind - 1], optopt);
		row = row_of(c == ':' ? optopt : c);
		if (c == ':')
			return usage(cli, "--%s needs a value: %s", row->name, row->arg);
		if (c >= 256) {
			/* getopt takes any unambiguous beginning; an option that approves
			 * or decides something must be spelled out. */
			const char *e = argv[optind - 1];
			if (optarg != NULL && optarg == e)
				e = argv[optind - 2];
			if (strcspn(e + 2, "=") != strlen(row->name))
				return unknown_option(cli, e, 0);
		}
		r = store(cli, row, optarg);
		if (r == CLI_HELP || r == CLI_VERSION)
			asked = asked == CLI_OK ? r : asked;
		else if (r != CLI_OK)
			return r;
		*given |= UINT64_C(1) << (row - rows);
	}
}

static enum cli_result
take_param(struct cli *cli, const char *word, size_t name)
{
	for (size_t i = 0; i < cli->params.count; i++) {
		const char *other = cli->params.items[i].text;
		if (param_name(other) == name && strncmp(word, other, name) == 0)
			return usage(cli, "parameter '%.*s' is given twice",
			    name < 64 ? (int)name : 64, word);
	}
	return add(&cli->params, word, strlen(word)) ? CLI_OK : CLI_MEMORY;
}

/* The first operand names the command, or is a runbook to run. */
static enum cli_result
parse_operands(struct cli *cli, int argc, char **argv)
{
	for (int i = optind; i < argc; i++) {
		size_t len = strlen(argv[i]), name = param_name(argv[i]);
		enum cli_result r = CLI_OK;

		if (name > 0) {
			r = take_param(cli, argv[i], name);
		} else if (cli->command == NULL && command_find(argv[i]) != NULL) {
			cli->command = command_find(argv[i])->name;
		} else if (cli->command == NULL &&
		    !(len > 4 && strcmp(argv[i] + len - 4, ".lua") == 0)) {
			r = unknown_command(cli, argv[i]);
		} else {
			if (cli->command == NULL)
				cli->command = "run";
			if (!add(&cli->operands, argv[i], len))
				r = CLI_MEMORY;
		}
		if (r != CLI_OK)
			return r;
	}
	return CLI_OK;
}

static enum cli_result
check_decision(struct cli *cli, const struct command *cmd)
{
	if (cmd->bit == SETTLE && cli->done + cli->redo + cli->fail != 1)
		return usage(
		    cli, "settle needs exactly one of --done, --redo and --fail");
	if ((cmd->bit & (SETTLE | ABANDON)) != 0 && cli->reason == NULL)
		return usage(
		    cli, "%s needs --reason TEXT, which the journal keeps", cmd->name);
	return CLI_OK;
}

static enum cli_result
check(struct cli *cli, uint64_t given)
{
	const struct command *cmd;
	char shown[64];

	if (cli->command == NULL)
		return usage(cli, "no command or runbook given");
	cmd = command_find(cli->command);
	if (cli->operands.count < (size_t)cmd->min)
		return usage(cli, "%s needs %s", cmd->name, cmd->needs);
	if (cli->operands.count > (size_t)cmd->max) {
		const struct cli_item *extra = &cli->operands.items[cmd->max];
		return usage(cli, "%s does not take '%s'", cmd->name,
		    printable(extra->text, extra->len, shown, sizeof shown));
	}
	if (cli->params.count > 0 && !cmd->params) {
		const struct cli_item *extra = &cli->params.items[0];
		return usage(cli, "%s takes no parameters ('%s')", cmd->name,
		    printable(extra->text, param_name(extra->text), shown, sizeof shown));
	}
	for (size_t i = 0; i < COUNT(rows); i++)
		if ((given >> i & 1) != 0 && (rows[i].commands & cmd->bit) == 0)
			return usage(
			    cli, "%s does not take --%s", cmd->name, rows[i].name);
	return check_decision(cli, cmd);
}

enum cli_result
cli_parse(struct cli *cli, int argc, char **argv)
{
	uint64_t given = 0;
	enum cli_result r, asked;

	*cli = (struct cli){ .color = "auto" };
	asked = parse_options(cli, argc, argv, &given);
	if (asked == CLI_VERSION || asked == CLI_USAGE || asked == CLI_MEMORY)
		return asked;
	r = parse_operands(cli, argc, argv);
	if (r != CLI_OK)
		return r;
	if (asked == CLI_HELP &&
	    (cli->command == NULL || strcmp(cli->command, "help") != 0))
		return CLI_HELP;
	r = check(cli, given);
	if (r != CLI_OK)
		return r;
	if (strcmp(cli->command, "help") == 0) {
		cli->command = NULL;
		if (cli->operands.count > 0) {
			const char *topic = cli->operands.items[0].text;
			if (command_find(topic) == NULL)
				return unknown_command(cli, topic);
			cli->command = command_find(topic)->name;
		}
		return CLI_HELP;
	}
	if (strcmp(cli->command, "plan") == 0)
		cli->check = cli->diff = true;
	return CLI_OK;
}

void
cli_free(struct cli *cli)
{
	free(cli->operands.items);
	free(cli->params.items);
	free(cli->target.items);
	free(cli->identity.items);
	free(cli->tags.items);
	free(cli->skip_tags.items);
	*cli = (struct cli){ 0 };
}

static void
help_options(FILE *out, int bits)
{
	for (int g = 0; g < GROUPS; g++) {
		bool titled = false;

		for (size_t i = 0; i < COUNT(rows); i++) {
			char left[40];

			if ((int)rows[i].group != g || (rows[i].commands & bits) == 0)
				continue;
			if (!titled)
				fprintf(out, "\n%s:\n", group_titles[g]);
			titled = true;
			snprintf(left, sizeof left, "%c%c%c --%s%s%s",
			    rows[i].letter != 0 ? '-' : ' ',
			    rows[i].letter != 0 ? rows[i].letter : ' ',
			    rows[i].letter != 0 ? ',' : ' ', rows[i].name,
			    rows[i].arg != NULL ? " " : "",
			    rows[i].arg != NULL ? rows[i].arg : "");
			fprintf(out, "  %-28s %s\n", left, rows[i].help);
		}
	}
}

void
cli_help(FILE *out, const char *command)
{
	const struct command *cmd = command != NULL ? command_find(command) : NULL;

	if (cmd != NULL) {
		fprintf(out, "Examples:\n%s\nlbrun %s\n    %s\n", cmd->examples,
		    cmd->usage, cmd->summary);
		help_options(out, cmd->bit);
		return;
	}
	fputs(
	    "Examples:\n"
	    "  lbrun plan provision.lua -t ssh://root@203.0.113.7   what would it do?\n"
	    "  lbrun provision.lua -t ssh://root@203.0.113.7        do it\n"
	    "  lbrun resume                                         go on with it\n"
	    "  lbrun explain 7f3a                                   what now?\n"
	    "\nCommands:\n",
	    out);
	for (size_t i = 0; i < COUNT(commands); i++) {
		const char *words = commands[i].usage, *options = strstr(words, " --");
		size_t len = options != NULL ? (size_t)(options - words) : strlen(words);

		fprintf(out, "  %-36.*s %s\n", (int)len, words, commands[i].summary);
	}
	help_options(out, ANY & ~SETTLE & ~ABANDON & ~OUTBOX);
	fputs(
	    "\nExit: 0 done, 2 usage, 3 warnings, 4 unreachable, 5 failed cleanly,\n"
	    "6 partial, 7 needs approval, 8 locked, 9 in doubt, 10 changes pending,\n"
	    "11 not verified, 12 key or secret, 13 journal or sources, 130 and 143\n"
	    "interrupted.\n"
	    "More: lbrun help COMMAND, man lbrun\n",
	    out);
}

void
cli_version(FILE *out)
{
	fprintf(out, "lbrun %s (interface %d)\n", LBRUN_VERSION, LBRUN_INTERFACE);
}

static void
push_list(lua_State *L, const struct cli_list *list, const char *name)
{
	lua_createtable(L, (int)list->count, 0);
	for (size_t i = 0; i < list->count; i++) {
		lua_pushlstring(L, list->items[i].text, list->items[i].len);
		lua_rawseti(L, -2, (lua_Integer)i + 1);
	}
	lua_setfield(L, -2, name);
}

static void
push_options(lua_State *L, const struct cli *cli)
{
	lua_newtable(L);
	for (size_t i = 0; i < COUNT(rows); i++) {
		const char *field = (const char *)cli + rows[i].at;
		const char *text;
		char key[32], *p;

		snprintf(key, sizeof key, "%s", rows[i].name);
		for (p = key; *p != '\0'; p++)
			if (*p == '-')
				*p = '_';
		if (rows[i].at == offsetof(struct cli, targets_file) ||
		    rows[i].at == offsetof(struct cli, params_file))
			snprintf(p, sizeof key - (size_t)(p - key), "_file");
		switch (rows[i].kind) {
		case FLAG:
			lua_pushboolean(L, *(const bool *)(const void *)field);
			break;
		case COUNTED:
			lua_pushinteger(L, *(const int *)(const void *)field);
			break;
		case NUMBER:
			if (*(const int *)(const void *)field == 0)
				continue;
			lua_pushinteger(L, *(const int *)(const void *)field);
			break;
		case STRING:
		case WHEN:
			text = *(const char *const *)(const void *)field;
			if (text == NULL)
				continue;
			lua_pushstring(L, text);
			break;
		case LISTED:
		case SPLIT:
			push_list(L, (const struct cli_list *)(const void *)field, key);
			continue;
		case ASK_HELP:
		case ASK_VERSION:
			continue;
		}
		lua_setfield(L, -2, key);
	}
}

void
cli_push(lua_State *L, const struct cli *cli)
{
	luaL_checkstack(L, 6, "command line");
	lua_newtable(L);
	lua_pushstring(L, cli->command);
	lua_setfield(L, -2, "command");
	push_list(L, &cli->operands, "operands");
	lua_createtable(L, (int)cli->params.count, 0);
	for (size_t i = 0; i < cli->params.count; i++) {
		const char *text = cli->params.items[i].text;
		size_t name = param_name(text);

		lua_createtable(L, 2, 0);
		lua_pushlstring(L, text, name);
		lua_rawseti(L, -2, 1);
		lua_pushstring(L, text + name + 1);
		lua_rawseti(L, -2, 2);
		lua_rawseti(L, -2, (lua_Integer)i + 1);
	}
	lua_setfield(L, -2, "params");
	push_options(L, cli);
	lua_setfield(L, -2, "options");
}
