# Makefile: build, test, lint, install. `make help` lists the targets.
# It installs nothing that is there already and names no package source.
MODE ?= release
B := build/$(MODE)
PREFIX ?= /usr/local
DESTDIR ?=
CC ?= gcc
PKGS := lua5.4 libssh2 libcurl libcjson libcrypto libargon2 sqlite3 libuv
VERSION := 0.1.0

# Debian's packages, for the targets named.
BUILD_PACKAGES := gcc libc6-dev binutils make pkg-config liblua5.4-dev libssh2-1-dev \
	libcurl4-openssl-dev libcjson-dev libssl-dev libargon2-dev libsqlite3-dev \
	libuv1-dev libcrypt-dev
SANDBOX_PACKAGES := $(shell cat spec/sandbox/packages)
TEST_PACKAGES := lua5.4 lua-busted age curl openssh-client openssh-server openssl pebble python3 \
	sqlite3 strace docker-compose bind9-dnsutils rclone jq
LINT_PACKAGES := lua5.4 lua-check clang-tidy cppcheck shellcheck
FMT_PACKAGES := clang-format
BENCH_PACKAGES := ansible-core

WARN := -Wall -Wextra -Wpedantic -Wshadow -Wstrict-prototypes -Wmissing-prototypes \
	-Wwrite-strings -Wformat=2 -Wvla $(WERROR)
HARDEN := -fstack-protector-strong -fPIE
LDHARDEN := -pie -Wl,-z,relro -Wl,-z,now
ifeq ($(MODE),asan)
# Under UBSan gcc 12 takes every format for a possible null pointer.
OPT := -O1 -g -fsanitize=address,undefined -fno-omit-frame-pointer -Wno-format-truncation
LDOPT := -fsanitize=address,undefined
else
OPT := -O2 -g -D_FORTIFY_SOURCE=2
endif
# Asked of pkg-config once, when something is compiled.
PKG_CFLAGS = $(eval PKG_CFLAGS := $$(shell pkg-config --cflags $(PKGS)))$(PKG_CFLAGS)
PKG_LIBS = $(eval PKG_LIBS := $$(shell pkg-config --libs $(PKGS)))$(or $(PKG_LIBS),$(error \
	a library is missing: make deps))
CFLAGS_ALL = -std=c17 -D_GNU_SOURCE $(WARN) $(OPT) $(HARDEN) -MMD -MP -Ihost -I$(B) \
	-DLBRUN_VERSION='"$(VERSION)"' -DLBRUN_PREFIX='"$(PREFIX)"' $(PKG_CFLAGS) $(CFLAGS)
LIBS = $(PKG_LIBS) -lcrypt -lm -lpthread

HOST := $(patsubst host/%.c,$(B)/host/%.o,$(filter-out host/main.c,$(wildcard host/*.c)))
STEMS := $(basename $(notdir $(wildcard modules/*.c)))
MODULES := $(foreach m,$(STEMS),$(if $(findstring _,$(m)),,$(m)))
MODS := $(MODULES:%=$(B)/native/%.o)
OBJS := $(HOST) $(MODS) $(B)/prelude.o $(B)/modules.o
NATIVE := $(patsubst luaopen_%,%,$(sort $(shell grep -ho '^luaopen_[a-z0-9_]*' host/*.c modules/*.c)))

.PHONY: all binaries deps deps-build deps-test deps-lint check test test-all lint fmt asan \
	bench demo docs install uninstall help clean FORCE
.DELETE_ON_ERROR:
# One line a file; make V=1 shows the commands.
ifeq ($(V),)
Q := @
say = @echo "  $(1) $(patsubst $(B)/%,%,$(2))"
endif

all: $(B)/lbrun $(if $(filter release,$(MODE)),lbrun) ## build ./lbrun (release)

lbrun: $(B)/lbrun
	@ln -sf build/release/lbrun $@

# By rename: what runs meanwhile keeps the file it has.
$(B)/lbrun: $(B)/host/main.o $(OBJS)
	$(call say,LD,$@)
	$(Q)$(CC) $(LDHARDEN) $(LDOPT) -o $@.tmp $^ $(LIBS) && mv $@.tmp $@

# The specs' own main: the same objects, all of Lua's libraries, busted inside.
$(B)/lbrun-spec: $(B)/spec/spec_main.o $(OBJS)
	$(call say,LD,$@)
	$(Q)$(CC) $(LDHARDEN) $(LDOPT) -o $@.tmp $^ $(LIBS) && mv $@.tmp $@

# Preloaded by specs: to kill lbrun at a journal commit, to let allocations fail, to move time.
PRELOADED := $(B)/killat.so $(B)/failalloc.so $(B)/clockat.so
$(B)/lbrun-spec: | $(PRELOADED)
$(PRELOADED): $(B)/%.so: spec/support/%.c
	@mkdir -p $(@D)
	$(call say,CC,$@)
	$(Q)$(CC) -std=c17 -D_GNU_SOURCE $(WARN) -O2 -fPIC -shared -o $@ $< -ldl

$(B)/%.o: %.c
	@mkdir -p $(@D)
	$(call say,CC,$@)
	$(Q)$(CC) $(CFLAGS_ALL) -c -o $@ $<

$(B)/spec/%.o: spec/support/%.c
	@mkdir -p $(@D)
	$(call say,CC,$@)
	$(Q)$(CC) $(CFLAGS_ALL) -c -o $@ $<

# A native module is modules/NAME.c with its parts NAME_*.c, made into one object that
# exports luaopen_NAME alone.
define native
$(B)/native/$(1).o: $(patsubst modules/%.c,$(B)/modules/%.o,$(wildcard modules/$(1).c modules/$(1)_*.c))
	@mkdir -p $$(@D)
	$$(call say,LD,$$@)
	$(Q)$(CC) -r -nostdlib -o $$@ $$^ && objcopy --keep-global-symbol=luaopen_$(1) $$@
endef
$(foreach m,$(MODULES),$(eval $(call native,$(m))))

# The prelude is embedded as bytes: `const struct prelude_file prelude_files[]` of prelude.h.
$(B)/prelude.c: host/embed.sh $(wildcard host/prelude/*.lua)
	@mkdir -p $(@D)
	$(Q)sh host/embed.sh $(sort $(wildcard host/prelude/*.lua)) > $@.tmp && mv $@.tmp $@

# What require finds: every luaopen_NAME there is.
$(B)/modules.c: FORCE
	@mkdir -p $(@D)
	@{ echo '#include "modules.h"'; \
	for m in $(NATIVE); do echo "int luaopen_$$m(lua_State *L);"; done; \
	echo 'const luaL_Reg native_modules[] = {'; \
	for m in $(NATIVE); do echo "{ \"$$m\", luaopen_$$m },"; done; \
	echo '{ NULL, NULL } };'; } > $@.tmp
	@cmp -s $@.tmp $@ && rm $@.tmp || mv $@.tmp $@

$(B)/prelude.o $(B)/modules.o: %.o: %.c
	$(call say,CC,$@)
	$(Q)$(CC) $(CFLAGS_ALL) -c -o $@ $<

binaries: all $(B)/lbrun-spec

# need PACKAGES: installs those that are missing, and asks nothing when none is.
SUDO = $(if $(filter-out 0,$(shell id -u)),sudo)
define need
@command -v dpkg-query >/dev/null || { echo "not a Debian system; needed here: $(1)"; exit 0; }; \
have=" $$(dpkg-query -W -f '$${db:Status-Status}=$${Package} ' $(1) 2>/dev/null)"; missing=; \
for p in $(1); do case "$$have" in *" installed=$$p "*) ;; *) missing="$$missing $$p" ;; esac; done; \
[ -z "$$missing" ] && exit 0; echo "installing:$$missing"; \
$(SUDO) apt-get -q update </dev/null && \
$(SUDO) env DEBIAN_FRONTEND=noninteractive NEEDRESTART_MODE=a apt-get -y -q \
	-o DPkg::Lock::Timeout=300 install --no-install-recommends $$missing </dev/null
endef

deps: ## install the Debian packages that building, testing and linting need
	$(call need,$(sort $(BUILD_PACKAGES) $(TEST_PACKAGES) $(SANDBOX_PACKAGES) $(LINT_PACKAGES) $(FMT_PACKAGES)))
deps-build:
	$(call need,$(BUILD_PACKAGES))
deps-test: build/peers/node_modules/.bin/s3rver
	$(call need,$(sort $(BUILD_PACKAGES) $(TEST_PACKAGES) $(SANDBOX_PACKAGES)))
# Peers that Debian does not have. Some packages of nodejs bring npm along.
build/peers/node_modules/.bin/s3rver:
	$(if $(shell command -v npm),,$(call need,nodejs npm))
	npm install --silent --no-audit --no-fund --prefix build/peers s3rver@3.7.1
deps-lint:
	$(call need,$(sort $(BUILD_PACKAGES) $(LINT_PACKAGES)))

check: lint docs test ## lint, docs and test

test: deps-test ## all specs but the slow and the long ones, a real VPS included
	@$(MAKE) --no-print-directory binaries
	@spec/support/run.sh $(MODE) --exclude-tags slow,long

test-all: deps-test ## every spec
	@$(MAKE) --no-print-directory binaries
	@spec/support/run.sh $(MODE)

test-%: deps-test ## make test-NAME: specs whose file or tag is NAME (test-ssh, test-slow)
	@$(MAKE) --no-print-directory binaries
	@spec/support/run.sh $(MODE) --match $*

# Servers get the release's program: they have no libraries of the sanitizers.
asan: ## every spec under AddressSanitizer and UndefinedBehaviorSanitizer
	@$(MAKE) --no-print-directory all
	@LBRUN_SERVER_PROGRAM=$(CURDIR)/build/release/lbrun $(MAKE) --no-print-directory MODE=asan test-all

lint: deps-lint ## luacheck, clang-tidy, cppcheck, shellcheck and the layer rules
	@$(MAKE) --no-print-directory binaries
	@spec/support/lint.sh $(B) $(PKG_CFLAGS)

docs: deps-lint ## fail when a function that Lua sees lacks its reference or a spec
	@lua5.4 spec/support/docs.lua $(B)/reference.md

fmt: ## format the C sources in place
	$(call need,$(FMT_PACKAGES))
	clang-format -i $(wildcard host/*.[ch] modules/*.[ch] spec/support/*.c)

bench: deps-test ## the ratios of README's table, measured now
	$(call need,$(BENCH_PACKAGES))
	@$(MAKE) --no-print-directory all
	@spec/bench/bench.py

demo: deps-test ## a throwaway VPS on this machine, provisioned by runbooks/provision.lua
	@$(MAKE) --no-print-directory all
	@spec/sandbox/demo.sh

SHARE := $(DESTDIR)$(PREFIX)/share
install: all ## to DESTDIR and PREFIX
	install -d $(DESTDIR)$(PREFIX)/bin $(SHARE)/lbrun/modules $(SHARE)/man/man1 \
		$(SHARE)/bash-completion/completions $(SHARE)/zsh/site-functions
	install -m 0755 build/release/lbrun $(DESTDIR)$(PREFIX)/bin/lbrun
	rm -rf $(SHARE)/lbrun/modules/lua $(SHARE)/lbrun/runbooks $(SHARE)/lbrun/templates
	cp -R modules/lua $(SHARE)/lbrun/modules/lua
	cp -R runbooks templates $(SHARE)/lbrun/
	chmod -R u=rwX,go=rX $(SHARE)/lbrun
	install -m 0644 host/lbrun.1 $(SHARE)/man/man1/lbrun.1
	install -m 0644 host/completion.bash $(SHARE)/bash-completion/completions/lbrun
	install -m 0644 host/completion.zsh $(SHARE)/zsh/site-functions/_lbrun

uninstall: ## what install has put there
	rm -rf $(SHARE)/lbrun
	rm -f $(DESTDIR)$(PREFIX)/bin/lbrun $(SHARE)/man/man1/lbrun.1 \
		$(SHARE)/bash-completion/completions/lbrun $(SHARE)/zsh/site-functions/_lbrun

clean: ## remove what was built (VPSs: spec/sandbox/vps down --all)
	@[ ! -d build/sandbox/vps ] || { echo "VPSs are up: spec/sandbox/vps down --all" >&2; exit 1; }
	rm -rf build lbrun

help: ## this list
	@sed -n 's/^\([a-z%-]*\):.*## \(.*\)/\1\t\2/p' Makefile | \
		awk -F '\t' '{ printf "make %-12s %s\n", $$1, $$2 }'

-include $(shell find $(B) -name '*.d' -type f 2>/dev/null)
