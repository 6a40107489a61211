-- backup_cut_spec.lua: the connection to the remote breaks off in the middle of a day's copy, and in
-- the middle of one that is fetched for a restore. The remote is s3rver, an S3 server, behind a proxy
-- that cuts; the tool's image is a stand-in on a real SQLite database.
local json = require "json"
local process = require "process"
local support = require "support.lbrun"
local vps = require "support.vps"
local provision = require "support.provision"
local s3 = require "support.s3"
local three = require "support.three_tools"

-- More than a cut's bytes, so that the copy is in the middle of it: nothing of it can be compressed.
local big, cut_after = 24 * 1048576, 6 * 1048576

describe("a remote that breaks off in the middle #vps #long", function()
  local server, home, store, proxy, port, before, outside
  local backups, data = "/opt/letsbe/backups", three.data_of { "uptime-kuma" }

  local function inside(command) return (server:exec(command)) end
  local function told(r) return ("exit %s: %s\n%s"):format(tostring(r.exit), r.last and r.last.message or "", r.err) end
  local function run(book, more)
    return home.json(("runbooks/%s.lua tenant=acme %s -t %s -i %s -y --no-input --json"):format(book, more or "", server.url, server.key))
  end
  local function status() return json.decode(inside("cat " .. backups .. "/backup-status.json")) end
  local function published() return json.decode(inside("cat " .. backups .. "/latest/manifest.json")) end
  -- What the store has of the copies, asked without the proxy between.
  local function there()
    local list, whole = {}, {}
    for path in support.sh(("cd %s/s3/backups && find . -name '*._S3rver_object'"):format(home.dir)):gmatch "[^\n]+" do
      local name, file = path:match "^%./acme/daily/([^/]+)/(.+)%._S3rver_object$"
      if name then
        list[#list + 1] = name .. "/" .. file
        if file == "manifest.json" then whole[#whole + 1] = name end
      end
    end
    table.sort(whole)
    return list, whole
  end
  local function is_whole()
    local out, failed = server:exec(([[cd -P %s/latest && jq -e .complete manifest.json >/dev/null &&
jq -r '.parts[].files[] | .sha256 + "  " + .path' manifest.json | sha256sum --quiet -c 2>&1]]):format(backups))
    assert.equal(0, failed, out)
  end
  local function same_there(name)
    local sums = "find . -type f ! -path './.parts/*' -print0 | sort -z | xargs -0 sha256sum"
    inside(("mkdir /root/there && rclone --config /opt/letsbe/env/rclone.conf copy remote:backups/acme/daily/%s /root/there"):format(name))
    local here, far = inside(("cd -P %s/latest && %s"):format(backups, sums)), inside("cd /root/there && " .. sums)
    inside "rm -rf /root/there"
    assert.equal(here, far)
  end

  local function through(bytes)
    if proxy then proxy:close() end
    proxy = assert(process.spawn({ "python3", "spec/support/cutproxy.py", outside, port or "0", store.port, tostring(bytes) },
      { kill_on_close = true }))
    local out = ""
    while not out:find "listening on %d+\n" do
      local which, text = proxy:read(60)
      assert((which == "out" or which == "err") and text ~= "", ("the proxy does not start: %s %s"):format(tostring(which), out .. tostring(text)))
      out = out .. text
    end
    port = out:match "listening on (%d+)"
  end
  local function was_cut()
    local out = ""
    while not out:find "\n" do
      local which, text = proxy:read(60)
      assert(which == "out" and text ~= "", "the proxy did not cut: " .. out .. tostring(text))
      out = out .. text
    end
    assert.equal("cut\n", out)
  end

  setup(function()
    server = vps.up("backup-cut", { docker = true, images = provision.images_of { "uptime-kuma" } })
    home = support.home()
    outside = server.address:gsub("%d+$", "1")
    store = s3.new(home.dir .. "/s3", outside).start()
    through(0)
    support.sh(("install -m 600 /dev/null %s/rclone.conf"):format(home.dir))
    support.spit(home.dir .. "/rclone.conf", (store.config:gsub(":" .. store.port .. "\n", ":" .. port .. "\n")))
    local made = home.json(provision.args(server, { more = ("tools=uptime-kuma --tags nginx,stacks,backups remote_config=@%s/rclone.conf --json")
      :format(home.dir) }))
    assert(provision.fine(made))
    local _, failed, err = server:exec(three.fill_of { "uptime-kuma" }
      .. ([[head -c %d /dev/urandom >"$(docker volume inspect -f '{{.Mountpoint}}' uptime-kuma-data)/big"]]):format(big))
    assert.equal(0, failed, err)
    before = inside(data)
  end)
  teardown(function()
    if proxy then proxy:close() end
    store.stop()
    server:down()
    home.remove()
  end)

  it("leaves a whole day on the server and none on the remote, says so, and the run goes on to a whole copy", function()
    through(cut_after)
    local r = run("backup", "recipients=" .. provision.recipient)
    was_cut()
    assert.is_true(r.exit == 5 or r.exit == 6, told(r))
    assert.matches("the copy to remote:backups/acme broke off", r.last.message)
    assert.equal("lbrun resume " .. r.last.run, r.last.next)
    local s = status()
    assert.equal("success", s.status)
    assert.equal("failed", s.remote_sync)
    assert.equal(1, #s.errors)
    assert.matches("^remote/send: .*the copy to remote:backups/acme broke off: .+", s.errors[1])
    assert.equal(r.last.run, published().run)
    is_whole()
    -- Something had arrived, and it is called nothing.
    local list, whole = there()
    assert.is_true(#list > 0, "nothing arrived: the cut was not in the middle")
    assert.same({}, whole)
    through(0)
    local none = run("restore", "tool=uptime-kuma from=remote")
    assert.is_true(none.exit ~= 0, told(none))
    local again = home.json("resume " .. r.last.run .. " --json --no-input")
    assert.equal(0, again.exit, told(again))
    s = status()
    assert.equal("success", s.remote_sync)
    assert.same({}, s.errors)
    whole = select(2, there())
    assert.equal(1, #whole)
    same_there(whole[1])
  end)

  it("takes no copy of before away; the next run sends a whole one, and what is half there goes", function()
    local _, first = there()
    inside(([[head -c %d /dev/urandom >"$(docker volume inspect -f '{{.Mountpoint}}' uptime-kuma-data)/big"]]):format(big))
    before = inside(data)
    through(cut_after)
    local r = run "backup"
    was_cut()
    assert.is_true(r.exit == 5 or r.exit == 6, told(r))
    assert.equal("failed", status().remote_sync)
    is_whole()
    local list, whole = there()
    assert.same(first, whole)
    local halves = 0
    for _, path in ipairs(list) do
      if path:match "^[^/]+" ~= first[1] then halves = halves + 1 end
    end
    assert.is_true(halves > 0, "nothing arrived: the cut was not in the middle")
    through(0)
    home.run("abandon " .. r.last.run .. " --reason spec")
    local next_run = run "backup"
    assert.equal(0, next_run.exit, told(next_run))
    assert.equal("success", status().remote_sync)
    list, whole = there()
    assert.equal(1, #whole)
    assert.is_not.equal(first[1], whole[1])
    for _, path in ipairs(list) do assert.equal(whole[1], path:match "^[^/]+", "a half copy stayed") end
    same_there(whole[1])
  end)

  it("loses nothing on the server when it breaks off in the middle of what a restore fetches, which goes on later", function()
    inside "curl -sf -X POST -d later http://127.0.0.1:3008/"
    local live, since = inside(data), inside "docker inspect -f '{{.State.StartedAt}}' uptime-kuma"
    assert.is_not.equal(before, live)
    local day = inside(("cat %s/latest/manifest.json"):format(backups))
    through(cut_after)
    local r = run("restore", "tool=uptime-kuma from=remote")
    was_cut()
    assert.is_true(r.exit == 5 or r.exit == 6, told(r))
    assert.matches("the copy from remote:backups/acme broke off", r.last.message)
    local now = inside(data)
    assert(now == live, provision.difference(live, now))
    assert.equal(since, inside "docker inspect -f '{{.State.StartedAt}}' uptime-kuma", "the tool was stopped")
    assert.equal(day, inside(("cat %s/latest/manifest.json"):format(backups)))
    is_whole()
    through(0)
    local again = home.json("resume " .. r.last.run .. " --json --no-input")
    assert.equal(0, again.exit, told(again))
    now = inside(data)
    assert(now == before, provision.difference(before, now))
    assert.equal("", inside("ls -d " .. backups .. "/.restore* " .. backups .. "/.remote* 2>/dev/null"))
    assert.equal(0, home.run("verify-journal").exit)
  end)
end)
