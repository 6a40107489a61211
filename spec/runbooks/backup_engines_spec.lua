-- backup_engines_spec.lua: ten tools of all engines are backed up, damaged and restored, with rows and
-- bytes compared: PostgreSQL, MySQL (MariaDB), SQLite, and those that keep files of their own. All
-- images are stand-ins; their PostgreSQL, MariaDB and SQLite are real ones, MongoDB is not, and
-- RocksDB and Bolt are files that SQLite keeps.
local json = require "json"
local support = require "support.lbrun"
local vps = require "support.vps"
local provision = require "support.provision"

local env = require "lb.script".environment(require "lb.sources".collect "runbooks/backup.lua")
local ids = { "nextcloud", "n8n", "gitea", "ghost", "wordpress", "librechat", "uptime-kuma", "vikunja", "stalwart", "portainer" }

local function databases(engine)
  local list = {}
  for _, id in ipairs(ids) do
    local db = env.backup.database(env.stack.get(id))
    if db and db.engine == engine then list[#list + 1] = db end
  end
  return list
end

local function volumes()
  local list = {}
  for _, id in ipairs(ids) do
    for _, word in ipairs(env.backup.parts(env.stack.get(id))) do
      list[#list + 1] = word:match "^volume:%a+:([^:]+):"
    end
  end
  return list
end

local in_mysql = [[docker exec -i %s sh -c 'MYSQL_PWD="$MYSQL_ROOT_PASSWORD" exec %s']]

-- Three rows by each tool's own door, a thousand in its database beside them, files in its volumes.
local function fill()
  local parts = { "set -e\n" }
  for _, id in ipairs(ids) do
    parts[#parts + 1] = ("for i in 1 2 3; do curl -sf -o /dev/null -H 'X-Forwarded-Proto: https' -X POST -d %s$i http://127.0.0.1:%d/; done\n")
      :format((id:gsub("%-", "")), env.catalog.get(id).port)
  end
  for _, db in ipairs(databases "postgres") do
    parts[#parts + 1] = ([[docker exec -i %s psql -q -v ON_ERROR_STOP=1 -U %s -d %s <<'SQL'
create table "many (of them)" (id serial primary key, body text not null, raw bytea, made timestamptz default '2026-02-26 02:15:00Z');
insert into "many (of them)" (body, raw) select md5(i::text) || E'\t\\\n', decode(md5(i::text), 'hex') from generate_series(1, 1000) i;
create view the_first as select id from "many (of them)" where id < 10;
create index on "many (of them)" (body);
SQL
]]):format(db.container, db.user, db.name)
  end
  for _, db in ipairs(databases "mysql") do
    parts[#parts + 1] = ("%s <<'SQL'\n%s\nSQL\n"):format(in_mysql:format(db.container, "mysql -u root " .. db.name), [[
create table many (id int auto_increment primary key, body varchar(300) not null, raw varbinary(40), key (body)) engine=innodb;
insert into many (body, raw) select concat(md5(seq), '''\\ (),;
'), unhex(md5(seq)) from seq_1_to_1000;]])
  end
  for i, name in ipairs(volumes()) do
    parts[#parts + 1] = ([[v=$(docker volume inspect -f '{{.Mountpoint}}' %s)
mkdir -p "$v/of the spec/ü" && head -c %d /dev/urandom >"$v/of the spec/ü/x.bin" && ln -s ü "$v/of the spec/link"
chown %d:%d "$v/of the spec/ü/x.bin" && chmod 0640 "$v/of the spec/ü/x.bin"
]]):format(name, 50000 + 3000 * i, 1000 + i, 2000 + i)
  end
  return table.concat(parts)
end

-- All rows and all bytes, as text. A SQLite file is its rows: its bytes are others after a copy.
local function data()
  local parts = {}
  for _, db in ipairs(databases "postgres") do
    parts[#parts + 1] = ("docker exec %s pg_dump -U %s --inserts %s | grep -vE '^--|^$|restrict '\n"):format(db.container, db.user, db.name)
  end
  for _, db in ipairs(databases "mysql") do
    parts[#parts + 1] = in_mysql:format(db.container, "mysqldump -u root --skip-extended-insert --skip-comments --hex-blob --order-by-primary " .. db.name) .. "\n"
  end
  for _, id in ipairs(ids) do
    parts[#parts + 1] = ("curl -s -H 'X-Forwarded-Proto: https' http://127.0.0.1:%d/ | grep -o '\"entries\":[^]]*]'\n"):format(env.catalog.get(id).port)
  end
  parts[#parts + 1] = ([[
for v in %s; do
  echo "volume $v"; cd "$(docker volume inspect -f '{{.Mountpoint}}' $v)"
  find . ! -name '*.db-*' ! -name '*.db' -printf '%%p %%y %%m %%u %%g %%l\n' | sort
  find . -type f ! -name '*.db-*' ! -name '*.db' -print0 | sort -z | xargs -0r sha256sum
  find . -type f -name '*.db' | sort | while read -r f; do sqlite3 "$f" .dump; done
done]]):format(table.concat(volumes(), " "))
  return table.concat(parts)
end

-- Whole databases dropped, rows deleted, volumes deleted, files corrupted and emptied.
local damage = [[
docker stop nextcloud nextcloud-cron >/dev/null; docker exec nextcloud-db dropdb -U nextcloud --force nextcloud
docker exec n8n-db psql -q -U n8n -d n8n -c 'drop view the_first' -c 'drop table "many (of them)"' -c 'delete from entries'
docker rm -f gitea >/dev/null && docker volume rm gitea-data >/dev/null
]] .. in_mysql:format("ghost-db", "mysql -u root -e \"drop database ghost\"") .. "\n" .. in_mysql:format("wordpress-db",
  "mysql -u root wordpress -e \"delete from many where id > 3; update entries set body = 1\"") .. "\n" .. [[
at() { docker volume inspect -f '{{.Mountpoint}}' $1; }
printf x | dd of="$(at wordpress-html)/of the spec/ü/x.bin" bs=1 seek=777 conv=notrunc 2>/dev/null
docker rm -f librechat librechat-db >/dev/null && docker volume rm librechat-db >/dev/null; rm -rf "$(at librechat-uploads)/of the spec"
docker stop uptime-kuma >/dev/null && head -c 4096 /dev/urandom >"$(at uptime-kuma-data)/kuma.db"
docker stop vikunja >/dev/null && rm -f "$(at vikunja-db)"/vikunja.db*
docker rm -f stalwart portainer >/dev/null && docker volume rm stalwart-data stalwart-etc portainer-data >/dev/null]]

describe("backup and restore of ten tools of all engines #vps #long", function()
  local server, home, before
  local function inside(command) return (server:exec(command)) end
  local function told(r) return ("exit %s: %s\n%s"):format(tostring(r.exit), r.last and r.last.message or "", r.err) end
  local function run(book, more)
    return home.json(("runbooks/%s.lua %s -t %s -i %s -y --no-input --json"):format(book, more, server.url, server.key))
  end
  local function same(what)
    local now = inside(data())
    assert(now == before, what .. ":\n" .. provision.difference(before, now):sub(1, 4000))
  end

  setup(function()
    server = vps.up("engines", { docker = true, images = provision.images_of(ids) })
    home = support.home()
    local made = home.json(provision.args(server, { more = ("tools=%s --tags nginx,stacks,backups tier=scale --json"):format(table.concat(ids, ",")) }))
    assert(made.exit == 0 or made.exit == 3, told(made))
    local _, failed, err = server:exec(fill())
    assert.equal(0, failed, err)
    before = inside(data())
    for _, what in ipairs { "nextcloud3", "librechat3", "stalwart3", "INSERT INTO `many`", "INSERT INTO public." } do
      assert.is_true(before:find(what, 1, true) ~= nil, what)
    end
  end)
  teardown(function()
    server:down()
    home.remove()
  end)

  it("counts what it dumped, and changes nothing", function()
    local r = run("backup", "recipients=" .. provision.recipient)
    assert.equal(0, r.exit, told(r))
    local at = "/opt/letsbe/backups/"
    local m = json.decode(inside("cat " .. at .. "latest/manifest.json"))
    local engines, rows = {}, {}
    for _, id in ipairs(ids) do
      for _, db in ipairs(m.parts[id].databases) do
        engines[id], rows[id] = db.engine, 0
        for _, t in ipairs(db.tables) do rows[id] = rows[id] + t.rows end
      end
    end
    assert.same({ nextcloud = "postgres", n8n = "postgres", gitea = "postgres", ghost = "mysql", wordpress = "mysql", librechat = "mongo" }, engines)
    assert.same({ nextcloud = 1004, n8n = 1004, gitea = 1004, ghost = 1004, wordpress = 1004, librechat = 4 }, rows)
    assert.equal(" 6d e2 99 81\n", inside("gzip -dc " .. at .. "latest/librechat.archive.gz | head -c 4 | od -An -tx1"), "mongodump's archive")
    local s = json.decode(inside("cat " .. at .. "backup-status.json"))
    assert.same({ "success", 6 }, { s.status, s.databases_backed_up })
    same "the backup changed the data"
  end)

  it("brings back dropped databases, deleted volumes and corrupt files, row by row and byte by byte", function()
    local _, failed, err = server:exec("set -e\n" .. damage)
    assert.equal(0, failed, err)
    local r = run("restore", "all=true")
    assert.is_true(r.exit == 0, told(r))
    same "after the restore"
    assert.equal("", inside [[ls -d /var/lib/docker/volumes/*/_data.lbrun* /opt/letsbe/backups/.restore* 2>/dev/null
docker ps -a --format '{{.Names}} {{.State}}' | grep -v ' running$'; docker ps -a --format '{{.Names}}' | grep lbrun]])
  end)

  it("proves each of them in a container of its own, and shows MongoDB's documents beside production", function()
    local r = run("restore-test", "all=true")
    assert.is_true(r.exit == 0 or r.exit == 3, told(r))
    local results = {}
    for _, one in ipairs(json.decode(inside "cat /opt/letsbe/backups/restore-evidence.json").tests) do results[one.tool] = one.result .. (one.why or "") end
    for _, id in ipairs(ids) do
      assert.is_true(results[id] == "ok" or id == "portainer" and results[id]:find "^unverified" ~= nil, id .. ": " .. tostring(results[id]))
    end
    r = run("restore", "tool=librechat as=temp")
    assert.equal(0, r.exit, told(r))
    assert.matches("librechat3", inside([[docker exec librechat-temp-db mongosh --quiet LibreChat --eval '
db.getSiblingDB("admin").auth(process.env.MONGO_INITDB_ROOT_USERNAME, process.env.MONGO_INITDB_ROOT_PASSWORD); db.entries.find()']]))
    r = run("restore", "tool=librechat as=temp remove=true")
    assert.equal(0, r.exit, told(r))
    same "after all of it"
  end)
end)
