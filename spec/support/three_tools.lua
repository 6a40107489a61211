-- three_tools.lua: rows and files of Ghost, Nextcloud and Uptime Kuma on a VPS, for specs of
-- backups: what puts them there and what reads them back. It compares nothing.
local three = {}

three.ids = { "ghost", "nextcloud", "uptime-kuma" }

-- Rows with what a dump must quote, a key between two tables, binary bytes; files of odd
-- names and modes.
local fills = {
  nextcloud = [=[
docker exec -i nextcloud-db psql -q -v ON_ERROR_STOP=1 -U nextcloud -d nextcloud <<'SQL'
insert into entries select md5(i::text) from generate_series(1, 2000) i;
create table "odd (name)" (id int primary key, body text, raw bytea);
insert into "odd (name)" values (1, E'tab\there, line\nbreak, \\.', '\x00ff27'), (2, null, null);
create table empty (id int);
SQL
v=$(docker volume inspect -f '{{.Mountpoint}}' nextcloud-html)
mkdir -p "$v/data/a b" && printf 'one\n' >"$v/data/a b/ü.txt" && ln -s "a b" "$v/data/link"
head -c 300000 /dev/urandom >"$v/data/big" && chown 33:33 "$v/data/big" && chmod 640 "$v/data/big"
]=],
  ghost = [=[
docker exec -i ghost-db sh -c 'MYSQL_PWD="$MYSQL_ROOT_PASSWORD" exec mysql -u root ghost' <<'SQL'
create table parents (id int primary key, body varchar(200)) engine=innodb;
create table children (id int primary key, parent int, raw blob, foreign key (parent) references parents (id)) engine=innodb;
insert into parents values (1, 'it''s (a) \\ "test"),(' ), (2, 'line
break; ü'), (3, null);
insert into children values (1, 1, x'00ff27'), (2, 1, null);
SQL
v=$(docker volume inspect -f '{{.Mountpoint}}' ghost-content)
mkdir -p "$v/images" && head -c 100000 /dev/urandom >"$v/images/x.png"
]=],
  ["uptime-kuma"] = [=[
for i in $(seq 1 5); do curl -sf -X POST -d "kuma$i" http://127.0.0.1:3008/ >/dev/null; done
]=],
}

local rows = {
  nextcloud = [=[
docker exec nextcloud-db psql -XAt -U nextcloud -d nextcloud -c 'select * from entries order by 1' -c 'select * from "odd (name)" order by 1' -c 'select * from empty'
]=],
  ghost = [=[
docker exec ghost-db sh -c 'MYSQL_PWD="$MYSQL_ROOT_PASSWORD" mysql -N -u root ghost -e "select * from entries; select * from parents; select id, parent, hex(raw) from children; show create table children"'
]=],
  ["uptime-kuma"] = [=[
curl -s http://127.0.0.1:3008/ | grep -o '"entries":[^]]*]'
]=],
}

-- Not what Uptime Kuma is told every few minutes, nor its database, which is its rows above.
local files = [=[
for v in %s; do
  cd "$(docker volume inspect -f '{{.Mountpoint}}' $v)"
  find . ! -name 'kuma.db*' ! -name monitors.json -printf '%%p %%y %%m %%u %%g %%l\n' | sort; find . -type f ! -name 'kuma.db*' ! -name monitors.json -print0 | sort -z | xargs -0r sha256sum
done]=]

local volumes = { nextcloud = "nextcloud-html", ghost = "ghost-content", ["uptime-kuma"] = "uptime-kuma-data" }

-- three.fill_of(ids) -> a script
function three.fill_of(ids)
  local parts = { "set -e\n" }
  for _, id in ipairs(ids) do parts[#parts + 1] = fills[id] end
  return table.concat(parts)
end

-- three.data_of(ids) -> a script that prints all rows and all bytes, as text
function three.data_of(ids)
  local parts, list = {}, {}
  for i, id in ipairs(ids) do parts[i], list[i] = rows[id], volumes[id] end
  return table.concat(parts) .. files:format(table.concat(list, " "))
end

three.fill, three.data = three.fill_of(three.ids), three.data_of(three.ids)

return three
