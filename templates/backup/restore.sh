#!/bin/bash
# restore.sh: one tool's data out of a backup, beside the live data first, then in its place
# by rename; the old data stays until the tool is healthy on the new, and comes back if it
# is not. Each verb can be entered again. It chooses no backup and changes none.
#	VERB FROM STATE PROJECT GRACE DIR WHAT...
#	VERB: check, stage, swap, clean; ready (check, and stage when it is well); compare (file by file, between stage and swap) and again
#	(its containers anew, and healthy) are for a twin of the tool
#	PROJECT: the tool's or its twin's, whose compose file is in DIR
#	WHAT: file:PATH:SHA256, postgres:CONTAINER:DATABASE:USER:OWNER:PATH,
#	mysql:CONTAINER:DATABASE:PATH, mongo:CONTAINER:DATABASE:VOLUME:PATH, tar:VOLUME:PATH:ENTRIES, snapshot:VOLUME:PATH:ENTRIES
# shellcheck disable=SC2015
set -u -o pipefail # die and leftover do not return
umask 077
export LC_ALL=C
verb=$1 from=$2 state=$3 tool=$4 grace=$5 dir=$6
shift 6
if docker compose version >/dev/null 2>&1; then dc=(docker compose); else dc=(docker-compose); fi

die() {
	printf '%s: %s\n' "$tool" "$1" >&2
	exit "${2:-1}"
}

each() { # FUNCTION-PREFIX: calls PREFIX_KIND for each WHAT that has one
	local prefix=$1 what words
	for what in "${all[@]}"; do
		IFS=: read -ra words <<<"$what"
		if declare -F "${prefix}_${words[0]}" >/dev/null; then
			"${prefix}_${words[0]}" "${words[@]:1}" || return 1
		fi
	done
}

containers() { docker ps -a --no-trunc --filter "label=com.docker.compose.project=$tool" "$@"; }
place() { docker volume inspect -f '{{.Mountpoint}}' "$1"; }
psql_() { docker exec -i "$1" psql -XAtq -v ON_ERROR_STOP=1 -U "$2" -d postgres; }
# The password stays in the container, in its environment.
# shellcheck disable=SC2016
mysql_() { docker exec -i "$1" sh -c 'export MYSQL_PWD="$MYSQL_ROOT_PASSWORD"; exec mysql -N -B -u root "$@"' mysql "${@:2}"; }

check_file() {
	local sum
	[ -e "$from/$1" ] || die "$1 is not in the backup $from"
	sum=$(sha256sum <"$from/$1") || die "$1 cannot be read"
	[ "${sum%% *}" = "$2" ] || die "$1 is not what was backed up: its SHA-256 is ${sum%% *}, the manifest says $2"
}

check_snapshot() {
	local n
	# A volume may hold no file at all; sha256sum takes an empty list for none.
	[ ! -s "$from/$2" ] || (cd "$from/${2%.sha256}" && sha256sum --quiet --check "$from/$2") >&2 ||
		die "files of the snapshot $2 are not what was backed up"
	n=$(find "$from/${2%.sha256}" -printf . | wc -c)
	[ "$n" -eq "$3" ] || die "the snapshot $2 has $n entries, the manifest says $3"
}

# Bytes that the data takes beside the live data.
size_postgres() { docker exec -i "$1" pg_restore -f - <"$from/$5" | wc -c | awk '{ print $1 * 2 }'; }
size_mysql() { gzip -dc "$from/$3" | wc -c | awk '{ print $1 * 2 }'; }
size_mongo() { gzip -dc "$from/$4" | wc -c | awk '{ print $1 * 2 + 300000000 }'; }
size_tar() { gzip -dc "$from/$2" | wc -c; }
size_snapshot() { du -sb "$from/${2%.sha256}" | cut -f1; }

room() {
	local need free
	need=$(each size | awk '{ n += $1 } END { printf "%d", n / 1024 + 65536 }') || die "the backup cannot be measured"
	free=$(df -Pk "$(docker info --format '{{.DockerRootDir}}')" | awk 'NR == 2 { print $4 }')
	[ "$free" -ge "$need" ] || die "not enough free space to restore beside the live data: $((free / 1024)) MiB are free, $((need / 1024)) MiB are needed; nothing was changed" 3
}

# The database's container runs, and volumes that were deleted are there again, empty.
prepare() {
	local end=$((SECONDS + grace))
	cd "$dir" || die "it is not deployed"
	"${dc[@]}" -p "$tool" up --no-start >&2 || die "its containers cannot be created"
	# By Compose's own word: a volume may be called like that too.
	"${dc[@]}" -p "$tool" config --services | grep -qx -- "$tool-db" || return 0
	"${dc[@]}" -p "$tool" up -d "$tool-db" >&2 || die "its database does not start"
	until [ "$(docker inspect -f '{{.State.Health.Status}}' "$tool-db")" = healthy ]; do
		[ $SECONDS -lt $end ] || die "its database is not healthy"
		sleep 1
	done
}

leftover() {
	die "$1 is left of an earlier restore that was given up; see whether its data is needed, then remove it; nothing was changed"
}

rows_differ() { # NAME HAVE WANT
	die "the table $1 has ${2:-no} rows after the restore, the manifest says $3; the live data is untouched"
}

stage_postgres() {
	local c=$1 db=$2 user=$3 owner=$4 new="$2_lbrun_new" have name want words=()
	[ -z "$(psql_ "$c" "$user" <<<"select 1 from pg_database where datname = '$2_lbrun_old'")" ] || leftover "the database $2_lbrun_old"
	[ -n "$(psql_ "$c" "$user" <<<"select 1 from pg_roles where rolname = '$owner'")" ] || owner=$user
	[ "$owner" = "$user" ] || words=("--role=$owner")
	psql_ "$c" "$user" <<<"drop database if exists \"$new\" with (force)" &&
		docker exec "$c" createdb -U "$user" -O "$owner" -T template0 "$new" || die "no fresh database beside $db"
	docker exec -i "$c" pg_restore --exit-on-error --no-owner --no-acl "${words[@]}" -U "$user" -d "$new" <"$from/$5" ||
		die "pg_restore failed at its first error; the live data is untouched"
	while IFS=$'\t' read -r name want; do
		have=$(docker exec "$c" psql -XAtq -v ON_ERROR_STOP=1 -U "$user" -d "$new" -c "select count(*) from $name" </dev/null)
		[ "$have" = "$want" ] || rows_differ "$name" "$have" "$want"
	done <"$state/rows"
}

stage_mysql() {
	local c=$1 db=$2 new="$2_lbrun_new" have name want fixed
	[ -z "$(mysql_ "$c" <<<"select table_name from information_schema.tables where table_schema = '$2_lbrun_old'")" ] || leftover "the database $2_lbrun_old"
	mysql_ "$c" <<<"drop database if exists \`$new\`; create database \`$new\` character set utf8mb4;" || die "no fresh database beside $db"
	gzip -dc "$from/$3" | mysql_ "$c" "$new" || die "mysql failed at its first error; the live data is untouched"
	# What a rename cannot take along.
	fixed=$(mysql_ "$c" <<<"select concat('trigger ', trigger_name) from information_schema.triggers where trigger_schema in ('$db', '$new')
union select concat('view ', table_name) from information_schema.views where table_schema in ('$db', '$new')
union select concat('routine ', routine_name) from information_schema.routines where routine_schema in ('$db', '$new')
union select concat('event ', event_name) from information_schema.events where event_schema in ('$db', '$new')") || die "what MySQL holds beside tables cannot be asked; the live data is untouched"
	[ -z "$fixed" ] || die "MySQL cannot move these to another database by rename: ${fixed//$'\n'/, }; the live data is untouched"
	while IFS=$'\t' read -r name want; do
		have=$(mysql_ "$c" "$new" <<<"select count(*) from \`$name\`")
		[ "$have" = "$want" ] || rows_differ "$name" "$have" "$want"
	done <"$state/rows"
}

fresh() { # VOLUME -> sets $new
	local at
	at=$(place "$1") || die "there is no volume $1"
	[ ! -e "$at.lbrun-old" ] || leftover "$at.lbrun-old"
	new=$at.lbrun-new
	rm -rf -- "$new" && mkdir "$new" || die "no place beside the volume $1"
}

counted() { # VOLUME WANT
	local n
	n=$(find "$new" -printf . | wc -c)
	[ "$n" -eq "$2" ] || die "the volume $1 has $n entries after the restore, the manifest says $2; the live data is untouched"
	sync -f "$new"
}

# The password by a file that is a pipe, as in the dump.
# shellcheck disable=SC2016
mongo_restore='exec mongorestore --config /dev/fd/3 --username "$MONGO_INITDB_ROOT_USERNAME" --authenticationDatabase admin \
	--nsInclude "$0.*" --stopOnError --archive 3<<EOF
password: "$MONGO_INITDB_ROOT_PASSWORD"
EOF'
# shellcheck disable=SC2016
mongo_counts='db.getSiblingDB("admin").auth(process.env.MONGO_INITDB_ROOT_USERNAME, process.env.MONGO_INITDB_ROOT_PASSWORD);
const one = db.getSiblingDB("$0");
one.getCollectionNames().forEach(name => print(name + "\t" + one.getCollection(name).countDocuments({})))'

# MongoDB renames no database: a server of the same image, without a network, fills a fresh
# directory for its volume, with the password that the tool has now.
stage_mongo() {
	local c=$1-lbrun db=$2 image memory end=$((SECONDS + grace)) name want have
	fresh "$3"
	docker rm -f "$c" >/dev/null 2>&1
	read -r image memory < <(docker inspect -f '{{.Image}} {{.HostConfig.Memory}}' "$1") &&
		docker inspect -f '{{range .Config.Env}}{{println .}}{{end}}' "$1" >"$state/$c.env" &&
		docker run -d --name "$c" --network none --memory "$memory" --env-file "$state/$c.env" -v "$new:/data/db" "$image" >/dev/null
	have=$?
	rm -f "$state/$c.env"
	[ $have -eq 0 ] || die "no fresh server beside $1"
	# Its first start ends with another program than mongod at its head.
	until [ "$(docker exec "$c" cat /proc/1/comm 2>/dev/null)" = mongod ] &&
		docker exec "$c" mongosh --quiet --eval 'db.runCommand("ping").ok' >/dev/null 2>&1; do
		[ $SECONDS -lt $end ] || die "the fresh server beside $1 does not answer"
		sleep 1
	done
	gzip -dc "$from/$4" | docker exec -i "$c" sh -c "$mongo_restore" "$db" >&2 || die "mongorestore failed at its first error; the live data is untouched"
	have=$(docker exec "$c" mongosh --quiet --eval "${mongo_counts//\$0/$db}") || die "the documents of $db cannot be counted"
	while IFS=$'\t' read -r name want; do
		[ "$(awk -F '\t' -v name="$name" '$1 == name { print $2 }' <<<"$have")" = "$want" ] ||
			rows_differ "$name" "$(awk -F '\t' -v name="$name" '$1 == name { print $2 }' <<<"$have")" "$want"
	done <"$state/rows"
	docker stop -t 60 "$c" >/dev/null && docker rm -v "$c" >/dev/null && sync -f "$new" || die "the fresh server beside $1 does not end"
}

stage_tar() {
	fresh "$1"
	gzip -dc "$from/$2" | tar --numeric-owner --acls --xattrs --xattrs-include='*' -xpf - -C "$new" || die "the archive of $1 cannot be unpacked; the live data is untouched"
	counted "$1" "$3"
}

stage_snapshot() {
	fresh "$1"
	# Copied, never linked: the live tool must not write into the backup.
	rsync -aHAX --numeric-ids "$from/${2%.sha256}/" "$new/" || die "the snapshot of $1 cannot be copied; the live data is untouched"
	counted "$1" "$3"
}

# A twin alone: file by file, which a restore leaves to the sums of what it unpacks.
compare_tar() {
	local at
	at=$(place "$1") && gzip -dc "$from/$2" | tar --numeric-owner -df - -C "$at.lbrun-new" >&2 || die "the volume $1 is not what its archive holds"
}

compare_snapshot() {
	local at
	at=$(place "$1") && { [ ! -s "$from/$2" ] || (cd "$at.lbrun-new" && sha256sum --quiet --check "$from/$2") >&2; } || die "the volume $1 is not what its snapshot holds"
}

# What a restore that failed has put beside the live data.
unstage_postgres() { psql_ "$1" "$3" <<<"drop database if exists \"$2_lbrun_new\" with (force)"; }
unstage_mysql() { mysql_ "$1" <<<"drop database if exists \`$2_lbrun_new\`"; }
unstage_tar() {
	local at
	at=$(place "$1") && rm -rf -- "$at.lbrun-new"
}
unstage_snapshot() { unstage_tar "$@"; }
unstage_mongo() {
	docker rm -fv "$1-lbrun" >/dev/null 2>&1
	unstage_tar "$3"
}

exists() { psql_ "$1" "$2" <<<"select 1 from pg_database where datname = '$3'"; }

rename() { # CONTAINER USER FROM TO [FROM TO]: all of it or nothing
	local c=$1 user=$2 sql="begin;"
	shift 2
	while [ $# -gt 0 ]; do
		sql="$sql select pg_terminate_backend(pid) from pg_stat_activity where datname = '$1' and pid <> pg_backend_pid(); alter database \"$1\" rename to \"$2\";"
		shift 2
	done
	psql_ "$c" "$user" <<<"$sql commit;" >/dev/null
}

in_postgres() {
	[ -n "$(exists "$1" "$3" "$2_lbrun_new")" ] || return 0
	if [ -n "$(exists "$1" "$3" "$2")" ]; then rename "$1" "$3" "$2" "$2_lbrun_old" "$2_lbrun_new" "$2"; else rename "$1" "$3" "$2_lbrun_new" "$2"; fi
}

out_postgres() {
	[ -n "$(exists "$1" "$3" "$2_lbrun_old")" ] || return 0
	if [ -n "$(exists "$1" "$3" "$2")" ]; then rename "$1" "$3" "$2" "$2_lbrun_new" "$2_lbrun_old" "$2"; else rename "$1" "$3" "$2_lbrun_old" "$2"; fi
}

# All tables in one statement, which MySQL does as a whole or not at all.
move_tables() { # CONTAINER LIVE INCOMING OUTGOING
	local list
	mysql_ "$1" <<<"create database if not exists \`$2\` character set utf8mb4; create database if not exists \`$4\` character set utf8mb4" || return 1
	list=$(mysql_ "$1" --raw <<<"set session group_concat_max_len = 16777216;
select group_concat(concat('\`', table_schema, '\`.\`', table_name, '\` to \`', if(table_schema = '$2', '$4', '$2'), '\`.\`', table_name, '\`')
order by table_schema <> '$2' separator ', ') from information_schema.tables where table_schema in ('$2', '$3')") || return 1
	[ "$list" = NULL ] || mysql_ "$1" <<<"set foreign_key_checks = 0; rename table $list"
}

tables_of() { mysql_ "$1" <<<"select count(*) from information_schema.tables where table_schema = '$2'"; }
in_mysql() { [ "$(tables_of "$1" "$2_lbrun_new")" = 0 ] || move_tables "$1" "$2" "$2_lbrun_new" "$2_lbrun_old"; }
out_mysql() { [ "$(tables_of "$1" "$2_lbrun_old")" = 0 ] || move_tables "$1" "$2" "$2_lbrun_old" "$2_lbrun_new"; }

in_tar() {
	local at
	at=$(place "$1") || return 1
	[ -e "$at.lbrun-new" ] || return 0
	[ ! -e "$at" ] || mv -T "$at" "$at.lbrun-old" || return 1
	mv -T "$at.lbrun-new" "$at"
}

out_tar() {
	local at
	at=$(place "$1") || return 1
	[ -e "$at.lbrun-old" ] || return 0
	[ ! -e "$at" ] || mv -T "$at" "$at.lbrun-new" || return 1
	mv -T "$at.lbrun-old" "$at"
}
in_snapshot() { in_tar "$@"; }
out_snapshot() { out_tar "$@"; }
in_mongo() { in_tar "$3"; }
out_mongo() { out_tar "$3"; }

stop() {
	containers --format '{{.Names}}' | awk -v db="$running" '$0 != db' | xargs -r docker stop -t 60 >/dev/null
}

start() {
	local end=$((SECONDS + grace)) list seen
	cd "$dir" && "${dc[@]}" -p "$tool" up -d >&2 || return 1
	while :; do
		# What does one thing and ends has ended well.
		list=$(containers --format '{{.Names}} {{.State}} {{.Status}}') && [ -n "$list" ] || list="docker names no container of $tool"
		seen=$(grep -Ev ' running Up [^(]*(\(healthy\))?$| exited Exited \(0\)' <<<"$list")
		[ -n "$seen" ] || return 0
		case $seen in *'(unhealthy)'*) break ;; esac
		[ $SECONDS -lt $end ] || break
		sleep 1
	done
	printf 'not healthy: %s\n' "$seen" >&2
	return 1
}

put_back() {
	stop
	each out || die "$1, and the old data could NOT be put back; it is kept beside as *_lbrun_old and *.lbrun-old"
	: >"$state/put-back" && sync "$state/put-back"
	start || die "$1; the old data was put back, but the tool is not healthy on it either"
	die "$1; the old data was put back and the tool runs on it"
}

clean_postgres() { psql_ "$1" "$3" <<<"drop database if exists \"$2_lbrun_old\" with (force)"; }
clean_mysql() { mysql_ "$1" <<<"drop database if exists \`$2_lbrun_old\`; drop database if exists \`$2_lbrun_new\`"; }
clean_tar() {
	local at
	at=$(place "$1") && rm -rf -- "$at.lbrun-old"
}
clean_snapshot() { clean_tar "$@"; }
clean_mongo() { clean_tar "$3"; }

stage() {
	trap '[ -e "$state/staged" ] || each unstage >&2' EXIT
	prepare
	room
	each stage || exit 1
	: >"$state/staged" && sync "$state/staged" || die "no mark can be written"
}

all=("$@")
# A database that is restored as one goes on running; one that is a volume stops too.
running=""
case "$*" in *postgres:* | *mysql:*) running=$tool-db ;; esac
case $verb in
check) each check || exit 1 ;;
stage) stage ;;
ready)
	each check || exit 1
	mv -T "$state/chosen.new" "$state/chosen" && sync "$state/chosen" || die "no mark can be written"
	stage
	;;
swap)
	[ ! -e "$state/put-back" ] || put_back "this restore had failed"
	stop || die "its containers do not stop"
	each in || put_back "the data cannot be swapped"
	start || put_back "the tool is not healthy on the restored data"
	: >"$state/proved" && sync "$state/proved"
	;;
compare) each compare || exit 1 ;;
again)
	containers --format '{{.Names}}' | xargs -r docker restart -t 30 >/dev/null || die "its containers do not start again"
	start || die "it is not healthy on the restored data"
	;;
clean) each clean || die "the old data cannot be removed" ;;
esac
