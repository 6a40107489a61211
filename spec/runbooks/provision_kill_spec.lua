-- provision_kill_spec.lua: lbrun is killed again and again while it provisions a server,
-- inside each step and at commits of its journal. It must end as an undisturbed run does,
-- and what happened is counted on the server itself, where nothing may have happened twice.
local json = require "json"
local support = require "support.lbrun"
local vps = require "support.vps"
local provision = require "support.provision"
local background = require "support.background"

local sleep = background.sleep

-- How often the things happened that leave a trace of their own: packages by dpkg, the
-- account, containers, jobs that apt ran.
local counted = [[
awk '$3 == "install" { print "dpkg", $4 }' /var/log/dpkg.log | sort | uniq -c
journalctl -o cat _COMM=useradd | grep -c '^new user: name=letsbe-admin'
docker ps -aq | wc -l
grep -c '^Commandline: apt-get .* install' /var/log/apt/history.log
grep -c 'Written by lbrun' /etc/sudoers.d/90-lbrun-letsbe-admin
]]

describe("provisioning that is killed #vps #slow", function()
  local home, server, whole
  local seed = tonumber(os.getenv "LBRUN_SPEC_SEED") or os.time()
  math.randomseed(seed)

  local function up()
    server = vps.up("prov-kill", { images = provision.images })
    home = support.home()
  end
  local function down()
    if server then server:down() end
    if home then home.remove() end
    server, home = nil, nil
  end
  after_each(down)

  local function events(type)
    local list = {}
    for line in home.run("log --json " .. home.id).out:gmatch "[^\n]+" do
      local e = json.decode(line)
      if not type or e.type == type then list[#list + 1] = e end
    end
    return list
  end

  local function start(words, env) return background.start(home, words, env) end

  -- Waits for the effect number n of such a run, or any after it. -> its number, or nil at the end.
  local function wait_for(bg, run, n)
    local at = bg:wait_for(function(line)
      local number = line.type == "effect.begin" and run.order[line.step .. "/" .. line.effect]
      return number and number >= n and number
    end)
    home.id = bg.run or home.id
    return at
  end

  -- The server is as after that run.
  local function check_end(run, what)
    local now = provision.state(server)
    assert(now == run.state, ("%s, seed %d:\n%s"):format(what, seed, provision.difference(run.state, now)))
    local here = server:exec(counted)
    assert(here == run.count, ("%s, seed %d, counts differ:\n%s"):format(what, seed, provision.difference(run.count, here)))
    -- Each effect was settled once, and was begun again only by a resume.
    local ends, attempts, resumed = {}, {}, 0
    for _, e in ipairs(events()) do
      local name = e.data.step and e.data.effect and e.data.step .. "/" .. e.data.effect
      if e.type == "run.resume" then resumed = resumed + 1 end
      if e.type == "effect.end" then
        assert.equal("done", e.data.status, name)
        ends[name] = (ends[name] or 0) + 1
      elseif e.type == "effect.begin" then
        local last = attempts[name]
        assert(not last or last < resumed, name .. " was begun twice without a resume in between")
        attempts[name] = resumed
      end
    end
    for name in pairs(run.order) do assert.equal(1, ends[name], name) end
    assert.equal(0, home.run("verify-journal").exit)
  end

  -- An undisturbed run, for comparison: the server's state and counts after it, the number of
  -- each of its effects and the seconds that each took.
  local function undisturbed(more)
    up()
    local r = home.json(provision.args(server, { more = "--json " .. more }))
    assert(provision.fine(r))
    local run = { state = provision.state(server), count = server:exec(counted), order = {}, length = {} }
    local number, began = 0, nil
    for _, e in ipairs(r.lines) do
      local name = e.step and e.effect and e.step .. "/" .. e.effect
      if e.type == "effect.begin" then
        number = number + 1
        run.order[name], began = number, e.ts
      elseif e.type == "effect.done" and run.order[name] then
        run.length[run.order[name]] = e.ts - began
      end
    end
    assert.is_nil(run.count:find "[2-9] dpkg")
    down()
    return run
  end

  setup(function()
    whole = undisturbed ""
    assert.matches("\n1\n1\n", whole.count)
  end)

  -- Kills lbrun in two effects of each of the steps, at a random moment of each.
  local function killed_in(steps, run, more)
    up()
    local by_step, points = {}, {}
    for name, i in pairs(run.order) do
      local step = name:match "^[^/]+"
      by_step[step] = by_step[step] or {}
      table.insert(by_step[step], i)
    end
    for _, step in ipairs(steps) do
      local list = assert(by_step[step], "nothing to do in step " .. step)
      table.sort(list)
      local one, two = list[math.random(#list)], list[math.random(#list)]
      points[#points + 1] = math.min(one, two)
      if one ~= two then points[#points + 1] = math.max(one, two) end
    end
    local killed = {}
    local bg = start(provision.args(server, { more = "--json " .. more }))
    for _, point in ipairs(points) do
      local at = wait_for(bg, run, point)
      if not at then break end
      -- Not at its very end: it may take less time than it did then, and be over.
      sleep(math.random() * 0.6 * math.min(run.length[at] or 0.1, 10))
      bg:kill()
      if bg.last.type == "summary" then break end
      for name, i in pairs(run.order) do
        if i == at then killed[name:match "^[^/]+"] = true end
      end
      bg = start("resume --json")
    end
    bg:finish()
    assert.equal("summary", bg.last.type, support.slurp(bg.err))
    assert.equal("done", bg.last.status, bg.last.message)
    for _, step in ipairs(steps) do assert(killed[step], "no kill hit step " .. step .. ", seed " .. seed) end
    check_end(run, "killed in " .. table.concat(steps, ", "))
  end

  it("goes on from a kill inside each of the eight steps", function()
    local steps = {}
    for _, step in ipairs(provision.steps) do
      if step ~= "docker" then steps[#steps + 1] = step end
    end
    killed_in(steps, whole, "")
    down()
    -- The release's Docker comes with the packages of step 1: alone, step 2 has it to install.
    local alone = undisturbed "--tags docker"
    killed_in({ "docker" }, alone, "--tags docker")
  end)

  it("re-attaches to the apt-get that was running when it was killed", function()
    up()
    local function holder()
      return server:exec "pgrep -o -x apt-get || true"
    end
    local bg = start(provision.args(server, { more = "--json --tags packages" }))
    wait_for(bg, whole, whole.order["packages/apt.installed(packages of the runbook)"])
    for _ = 1, 100 do
      if holder() ~= "" and server:exec "pgrep -x dpkg || true" ~= "" then break end
      sleep(0.1)
    end
    local pid = holder()
    assert.not_equal("", pid)
    bg:kill()
    sleep(0.5)
    assert.equal(pid, holder())
    local r = home.json "resume --json"
    assert(provision.fine(r))
    local states = {}
    for _, line in ipairs(r.lines) do
      if line.type == "job.found" then states[#states + 1] = line.state end
    end
    assert.same({ "running" }, states)
    assert.is_nil(server:exec(counted):find "[2-9] dpkg")
    assert.equal("2\n", server:exec "grep -c '^Commandline: apt-get' /var/log/apt/history.log")
  end)

  it("goes on from kills at commits of the journal, torn ones too", function()
    up()
    local words, kills = provision.args(server, { more = "--json" }), 0
    local whens = { "before", "torn", "after" }
    for i = 1, 80 do
      local bg = start(words, ("LD_PRELOAD=./%s KILLAT=%d KILLAT_WHEN=%s"):format(support.killat,
        i == 1 and math.random(4, 20) or math.random(3, 14), whens[math.random(3)]))
      bg:finish()
      home.id = bg.run or home.id
      local known = home.run "runs --json"
      if bg.last and bg.last.type == "summary" then
        -- One that was killed after its last commit had ended: nothing is open then.
        local ended = bg.last.message and bg.last.message:find("no run is open", 1, true) and known.out:find('"status":"done"', 1, true)
        assert.equal("done", ended and "done" or bg.last.status, ("attempt %d, seed %d: %s"):format(i, seed, bg.last.message or ""))
        break
      end
      kills = kills + 1
      words = known.out:find('"type":"run"', 1, true) and "resume --json" or words
    end
    assert.is_true(kills > 8, kills .. " kills")
    check_end(whole, kills .. " kills at commits")
  end)
end)
