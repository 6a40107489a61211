#!/bin/bash
# part.sh: one tool's part of a backup, into a directory that is not published yet: dumps,
# archives, and last of all its list (.parts/TOOL), which says that the part is whole. It
# decides nothing about what is backed up, publishes nothing and removes no older backup.
#	WORK TOOL PREVIOUS WHAT...
#	WHAT: postgres:CONTAINER:DATABASE:USER, mysql:CONTAINER:DATABASE,
#	mongo:CONTAINER:DATABASE:VOLUME, volume:tar|stop|sqlite|snapshot:VOLUME:TO, folder:FOLDER:TO, copy:FILE:TO (of an age file),
#	sealed:TO:RECIPIENT,...
# shellcheck disable=SC2015,SC2016
set -u -o pipefail # fail does not return
umask 077
export LC_ALL=C
work=$1 tool=$2 previous=$3
shift 3
list=$work/.parts/.$tool.new
marker=/opt/letsbe/backups/.stopped-$tool
made=()

# A tool that was stopped here runs again however this ends; after a reboot the next
# attempt, or the next backup, finds the marker.
start_again() {
	[ -e "$marker" ] || return 0
	xargs -r docker start <"$marker" >/dev/null && rm -f "$marker"
}

fail() {
	start_again
	[ ${#made[@]} -eq 0 ] || rm -rf -- "${made[@]}"
	rm -f "$list" "$list.rows"
	printf '%s: %s\n' "$tool" "$1" >&2
	exit 1
}

stop_tool() {
	local names
	[ ! -e "$marker" ] || return 0
	names=$(docker ps --filter "label=com.docker.compose.project=$tool" --format '{{.Names}}') || fail "what runs of it cannot be asked"
	names=$(grep -vx -- "$tool-db" <<<"$names")
	[ -n "$names" ] || return 0
	printf '%s\n' "$names" >"$marker.new" && sync "$marker.new" && mv -T "$marker.new" "$marker" || fail "what is stopped cannot be noted"
	xargs -r docker stop -t 60 <"$marker" >/dev/null || fail "its containers do not stop"
}

# begin TO: nothing of an earlier attempt is left there.
begin() {
	mkdir -p "$(dirname "$work/$1")" && rm -rf -- "${work:?}/$1" || fail "no place for $1"
	made+=("$work/$1")
}

# one file of the backup: path, kind, entries, of which volume
note() {
	local size sum
	size=$(stat -c %s "$work/$1") && sum=$(sha256sum <"$work/$1") || fail "$1 cannot be read back"
	printf 'file\t%s\t%s\t%s\t%s\t%s\t%s\n' "$1" "$size" "${sum%% *}" "$2" "$3" "$4" >>"$list" || fail "its list cannot be written"
}

rows_of_copy='
copying { if ($0 == "\\.") { copying = 0; print "table\t" name "\t" n } else n++; next }
/^COPY .* FROM stdin;$/ {
	name = $0; sub(/^COPY /, "", name); sub(/ FROM stdin;$/, "", name); sub(/ \([^()]*\)$/, "", name)
	copying = 1; n = 0
}
/^-- PostgreSQL database dump complete/ { whole = 1 }
END { exit whole ? 0 : 1 }'

# The list of a dump stands at its beginning: only reading all of it shows that it is whole.
postgres() {
	local to=$tool.dump owner
	begin "$to"
	docker exec "$1" pg_dump --format=custom --compress=1 -U "$3" -d "$2" >"$work/$to" || fail "pg_dump of the database $2 failed (status $?)"
	docker exec -i "$1" pg_restore --list <"$work/$to" >/dev/null || fail "pg_restore --list refuses the dump of $2"
	docker exec -i "$1" pg_restore -f - <"$work/$to" | awk "$rows_of_copy" >"$list.rows" || fail "the dump of $2 cannot be read to its end"
	owner=$(docker exec "$1" psql -XAtq -v ON_ERROR_STOP=1 -U "$3" -d "$2" -c "select tableowner from pg_tables where schemaname = 'public'
group by 1 order by count(*) desc limit 1") || fail "the owner of the tables of $2 cannot be asked"
	printf 'database\tpostgres\t%s\t%s\t%s\n' "$2" "${owner:-$3}" "$to" >>"$list"
	cat "$list.rows" >>"$list" || fail "its list cannot be written"
	note "$to" postgres 0 -
}

# Rows are counted in the dump itself, so that they are those of its moment: escapes and
# strings are taken out of a statement, and each row has one parenthesis left.
rows_of_insert='
if (/^CREATE TABLE `(.+?)`/) { $n{$1} //= 0 }
if (/^INSERT INTO `(.+?)`/) { $t = $1; $in = 1; s/^.*? VALUES//; }
if ($in) { s/\\.//g; s/\x27[^\x27]*\x27//g; $n{$t} += tr/(//; $in = 0 if /;$/ }
$whole = /^-- Dump completed/ if /\S/;
END { print "table\t$_\t$n{$_}\n" for sort keys %n; exit($whole ? 0 : 1) }'

# The password stays in the container, in its environment.
mysql_dump='export MYSQL_PWD="$MYSQL_ROOT_PASSWORD"
exec mysqldump -u root --single-transaction --routines --triggers --events --no-tablespaces --hex-blob --default-character-set=utf8mb4 "$0"'

mysql() {
	local to=$tool.sql.gz
	begin "$to"
	docker exec "$1" sh -c "$mysql_dump" "$2" | gzip -1 >"$work/$to" || fail "mysqldump of the database $2 failed (status $?)"
	gzip -dc "$work/$to" | perl -ne "$rows_of_insert" >"$list.rows" || fail "the dump of $2 has no end"
	printf 'database\tmysql\t%s\t%s\t%s\n' "$2" "$2" "$to" >>"$list"
	cat "$list.rows" >>"$list" || fail "its list cannot be written"
	note "$to" mysql 0 -
}

# The password by a file that is a pipe; the other ways would show it among the processes.
mongo_dump='exec mongodump --config /dev/fd/3 --username "$MONGO_INITDB_ROOT_USERNAME" --authenticationDatabase admin --db "$0" --archive 3<<EOF
password: "$MONGO_INITDB_ROOT_PASSWORD"
EOF'

# Documents are counted by mongodump as it writes them.
mongo() { # CONTAINER DATABASE VOLUME
	local to=$tool.archive.gz
	begin "$to"
	docker exec "$1" sh -c "$mongo_dump" "$2" 2>"$list.rows" | gzip -1 >"$work/$to" || {
		tail -n 3 "$list.rows" >&2
		fail "mongodump of the database $2 failed"
	}
	printf 'database\tmongo\t%s\t%s\t%s\n' "$2" "$2" "$to" >>"$list"
	tr -d '`' <"$list.rows" | sed -n 's/^.*done dumping [^ .]*\.\(.*\) (\([0-9]*\) documents\{0,1\})$/table\t\1\t\2/p' >>"$list" ||
		fail "its list cannot be written"
	note "$to" mongo 0 "$3"
}

# archive FROM TO LIVE VOLUME [TAR'S WORDS...]: tar's status 1, a file that changed while it
# was read, is taken of a running tool alone.
archive() {
	local from=$1 to=$2 live=$3 volume=$4 status entries
	shift 4
	begin "$to"
	tar --numeric-owner --acls --xattrs "$@" -C "$from" -cf - . | gzip -1 >"$work/$to"
	status=("${PIPESTATUS[@]}")
	[ "${status[1]}" -eq 0 ] || fail "the archive of $from cannot be written"
	[ "${status[0]}" -eq 0 ] || { [ "${status[0]}" -eq 1 ] && [ "$live" = live ]; } || fail "tar of $from failed (status ${status[0]})"
	entries=$(gzip -dc "$work/$to" | tar -tf - | wc -l) || fail "the archive of $from cannot be read back"
	note "$to" tar "$entries" "$volume"
}

snapshot() {
	local volume=$1 from=$2 to=$3 link=() status
	begin "$to"
	begin "$to.sha256"
	begin "$to.meta"
	mkdir -p "$work/$to" || fail "no place for $to"
	[ -z "$previous" ] || [ ! -d "$previous/$to" ] || link=("--link-dest=$previous/$to")
	# By content: a file of the day before that has rotted is not carried on. Sockets and pipes
	# are of a run, not of the data.
	rsync -aHAX --no-specials --no-devices --numeric-ids --checksum "${link[@]}" "$from/" "$work/$to/"
	status=$?
	[ $status -eq 0 ] || [ $status -eq 24 ] || fail "rsync of the volume $volume failed (status $status)"
	(cd "$work/$to" && find . -type f -print0 | sort -z | xargs -0r sha256sum) >"$work/$to.sha256" || fail "the snapshot of $volume cannot be read back"
	# For a copy in a store that keeps names and bytes alone.
	find "$work/$to" -printf '%y %m %U %G %T@\0%P\0%l\0' >"$work/$to.meta" || fail "the snapshot of $volume cannot be listed"
	note "$to.sha256" snapshot "$(find "$work/$to" -printf . | wc -c)" "$volume"
	note "$to.meta" meta 0 -
}

# Of a running tool that keeps SQLite files: those by SQLite's backup API, the others as they
# are. A copy of a file that is being written to would not do.
sqlite() { # VOLUME FROM TO
	local copy=$work/.copy-$1 file status
	begin ".copy-$1"
	mkdir "$copy" || fail "no place for a copy of $1"
	rsync -aHAX --numeric-ids "$2/" "$copy/"
	status=$?
	[ $status -eq 0 ] || [ $status -eq 24 ] || fail "rsync of the volume $1 failed (status $status)"
	while IFS= read -r -d '' file; do
		[ "$(head -c 15 "$2/$file" | tr -d '\0')" = 'SQLite format 3' ] || continue
		case $file in *[\'\"\\]*) fail "$file of $1 has a name that sqlite3 cannot be told" ;; esac
		rm -f -- "$copy/$file" "$copy/$file-wal" "$copy/$file-shm" "$copy/$file-journal"
		sqlite3 -bail "$2/$file" '.timeout 60000' ".backup '$copy/$file'" || fail "SQLite cannot copy $file of $1"
		[ "$(sqlite3 -bail "$copy/$file" 'pragma integrity_check')" = ok ] || fail "$file of $1 is no whole SQLite file"
		chown --reference="$2/$file" "$copy/$file" && chmod --reference="$2/$file" "$copy/$file" || fail "the owner of $file cannot be kept"
	done < <(cd "$2" && find . -xdev -type f -size +0 ! -name '*-wal' ! -name '*-shm' -print0)
	archive "$copy" "$3" still "$1"
	rm -rf -- "$copy"
}

volume() {
	local from
	from=$(docker volume inspect -f '{{.Mountpoint}}' "$2") || fail "there is no volume $2"
	case $1 in
	snapshot | sqlite) "$1" "$2" "$from" "$3" ;;
	tar) archive "$from" "$3" live "$2" ;;
	stop)
		stop_tool
		archive "$from" "$3" still "$2"
		;;
	*) fail "there is no way '$1' to back up the volume $2" ;;
	esac
}

is_sealed() {
	[ "$(head -c 21 "$work/$1")" = age-encryption.org/v1 ] || fail "$1 is no age file"
}

copy() {
	begin "$2"
	cp -- "$1" "$work/$2" || fail "$1 cannot be copied"
	is_sealed "$2"
	note "$2" age 1 -
}

# What opens everything else never stands here unsealed.
sealed() {
	local to=$1 words=() folders=() each f
	IFS=, read -ra each <<<"$2"
	for f in "${each[@]}"; do words+=(-r "$f"); done
	for f in opt/letsbe/env opt/letsbe/stacks opt/letsbe/nginx/conf etc/letsencrypt; do [ ! -e "/$f" ] || folders+=("$f"); done
	begin "$to"
	tar --numeric-owner -C / -cf - "${folders[@]}" | age "${words[@]}" >"$work/$to" || fail "the credentials cannot be sealed (status $?)"
	is_sealed "$to"
	note "$to" age "${#folders[@]}" -
}

mkdir -p "$work/.parts" || fail "no place for its list"
: >"$list" || fail "its list cannot be written"
start_again || fail "its containers do not start again"
docker ps -a --filter "label=com.docker.compose.project=$tool" --format '{{.Names}}' | while read -r name; do
	docker inspect -f "{{printf \"image\t%s\t%s\t%s\" \"$name\" .Config.Image .Image}}" "$name"
done >>"$list" || fail "its images cannot be asked"

# Databases come first: a file that is newer than its row does no harm, a row without its
# file does.
for what; do
	IFS=: read -ra words <<<"$what"
	case ${words[0]} in
	postgres | mysql | mongo | volume | copy | sealed) "${words[@]}" ;;
	folder) archive "${words[1]}" "${words[2]}" live - --exclude=*.pem ;;
	*) fail "there is no way to back up '${words[0]}'" ;;
	esac
done
start_again || fail "it does not start again"
rm -f "$list.rows"
sync -f "$work" && mv -T "$list" "$work/.parts/$tool" && sync -f "$work" || fail "its list cannot be written"
