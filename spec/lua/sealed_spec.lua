-- sealed_spec.lua: the sealed copy of the credentials and the key pairs that are in it alone, on
-- this machine as target with /opt and /root of its own. `age` and `ssh-keygen` are the peers.
local crypto = require "crypto"
local host = require "host"
local support = require "support.lbrun"
local canary = require "support.canary"
local hubs = require "support.hub"

local book = [[
local recipients = param.list { of = param.string {}, default = {} }
return runbook { name = "keys", summary = "credentials and their sealed copy", sudo = true,
  params = { recipients = recipients, also = param.boolean { default = false }, restore = param.boolean { default = false },
    tenant = param.string { default = "acme" }, hub_url = param.string { optional = true },
    sealed_copy = param.string { default = "/opt/copy.enc" }, recovery_key = param.secret { optional = true },
    runner_token = param.secret { optional = true } },
  steps = function(p)
    local secrets = { { name = "DB_PASSWORD", kind = "password" }, { name = "API_TOKEN", kind = "token" } }
    if p.also then secrets[3] = { name = "ADMIN_PASSWORD", kind = "password" } end
    local list = {
      sealed.admin_pair { recipients = p.recipients },
      authorized_keys.present { user = "root", own = sealed.comment,
        keys = function(ctx) return { "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIPsTRdYRqTSyZ0sX3EfhgWBkxB1DZ3jpSL0CRs1lJpBn me",
          (sealed.public(ctx, "admin")) } end },
      sealed.copy { recipients = p.recipients },
      credentials.present { tool = "ghost", secrets = secrets },
    }
    if p.restore then table.insert(list, 1, sealed.opened { path = p.sealed_copy, key = "recovery_key" }) end
    local all = { step { name = "keys", class = "compensable", resources = list },
      step { name = "again", class = "compensable", resources = { sealed.copy {} } } }
    if p.hub_url then
      local part = include("provision/10-platform")({ tenant = p.tenant, tools = { "ghost" }, domain = "acme.example",
        recipients = p.recipients, hub_url = p.hub_url, models = { "a", "b" } })
      for _, one in ipairs(part) do
        if one.name == "platform/hub-key" then all[3] = one end
      end
    end
    return all
  end }
]]

describe("the sealed copy of the credentials #unit", function()
  if not support.root then
    pending "needs root"
    return
  end
  local home, mine, other, dir

  before_each(function()
    home = support.home()
    -- What a runbook includes stands in the folder of its own name.
    support.sh(("mkdir -p %s/opt %s/root; cp -r runbooks/provision %s/keys"):format(home.dir, home.dir, home.dir))
    home.runbook("keys", (book:gsub('include%("provision/', 'include("keys/')))
    dir = home.dir .. "/opt/letsbe/env"
    mine, other = crypto.age_identity { name = "mine" }, crypto.age_identity { name = "other" }
    for name, id in pairs { mine = mine, other = other } do
      support.sh(("install -m 600 /dev/null %s/%s"):format(home.dir, name))
      support.spit(home.dir .. "/" .. name, host.reveal(id.identity) .. "\n")
    end
  end)
  after_each(function() home.remove() end)

  local function run(words, verb)
    local before = ("sh -c 'mount --bind %s/opt /opt && mount --bind %s/root /root && exec \"$@\"' sh"):format(home.dir, home.dir)
    return home.json(("%s %s/keys.lua -t local: --allow-local-root --json --no-input -y %s"):format(verb or "run", home.dir, words or ""),
      { before = before })
  end
  local function open(path, who)
    return support.sh(("age -d -i %s/%s %s"):format(home.dir, who or "mine", path))
  end
  local function value(text, name)
    return (text:match("\n" .. name .. "=([^\n]*)"))
  end
  local function sealed_key(text, name)
    support.spit(home.dir .. "/inner", crypto.unbase64(value(text, name)))
    return open(home.dir .. "/inner")
  end
  local function authorized() return support.slurp(home.dir .. "/root/.ssh/authorized_keys") end

  it("opens with the recipient's key alone, and holds what the store holds", function()
    local r = run("recipients=" .. mine.recipient)
    assert.equal(0, r.exit, r.err)
    local store, text = support.slurp(dir .. "/credentials.env"), open(dir .. "/credentials.enc")
    for _, name in ipairs { "GHOST_DB_PASSWORD", "GHOST_API_TOKEN" } do
      assert.is_string(value(store, name))
      assert.equal(value(store, name), value(text, name))
    end
    local _, status = open(dir .. "/credentials.enc", "other")
    assert.not_equal(0, status)
    assert.equal("600\n", support.sh("stat -c %a " .. dir .. "/credentials.enc"))
    assert.equal(0, run("recipients=" .. mine.recipient).last.changed)
  end)

  it("is made anew with each new credential, for whom the server knows", function()
    run("recipients=" .. mine.recipient)
    local r = run "also=true"
    assert.equal(0, r.exit, r.err)
    local text = open(dir .. "/credentials.enc")
    assert.is_string(value(text, "GHOST_ADMIN_PASSWORD"))
    assert.equal(value(support.slurp(dir .. "/credentials.env"), "GHOST_ADMIN_PASSWORD"), value(text, "GHOST_ADMIN_PASSWORD"))
    -- Also where other hands changed the store, or the copy.
    support.sh(("echo GHOST_RELAY=relay-word-4711 >>%s/credentials.env"):format(dir))
    assert.equal(0, run("also=true").exit)
    assert.equal("relay-word-4711", value(open(dir .. "/credentials.enc"), "GHOST_RELAY"))
    support.spit(dir .. "/credentials.enc", "broken")
    assert.equal(0, run("also=true").exit)
    assert.equal("relay-word-4711", value(open(dir .. "/credentials.enc"), "GHOST_RELAY"))
    assert.equal(0, run("also=true").last.changed)
  end)

  it("alone has the private half of the emergency pair, whose public half may log in", function()
    local r = run("recipients=" .. mine.recipient)
    local key = sealed_key(open(dir .. "/credentials.enc"), "SEALED_ADMIN_KEY")
    support.sh(("install -m 600 /dev/null %s/key"):format(home.dir))
    support.spit(home.dir .. "/key", key)
    local public = support.sh(("ssh-keygen -y -f %s/key"):format(home.dir)):match "^%S+ %S+"
    assert.is_truthy(authorized():find(public, 1, true), authorized())
    assert.equal(2, select(2, authorized():gsub("ssh%-ed25519", "")))
    local line = key:match "\n([%w+/=]+)\n"
    local everything = r.out .. r.err .. support.sh(("cat $(find %s/opt %s/root %s/var -type f)"):format(home.dir, home.dir, home.dir))
    for name in support.sh(("ls %s/state/lbrun"):format(home.dir)):gmatch "%S+" do
      everything = everything .. support.slurp(home.dir .. "/state/lbrun/" .. name)
    end
    assert.same({}, canary.find(everything, { key = line }))
  end)

  it("is another one, with another emergency pair, for other recipients", function()
    run("recipients=" .. mine.recipient)
    local before = authorized()
    local r = run("recipients=" .. other.recipient)
    assert.equal(0, r.exit, r.err)
    local _, status = open(dir .. "/credentials.enc")
    assert.not_equal(0, status)
    assert.is_string(value(open(dir .. "/credentials.enc", "other"), "GHOST_DB_PASSWORD"))
    assert.equal(before:match "^[^\n]+", authorized():match "^[^\n]+")
    assert.not_equal(before, authorized())
    assert.equal(2, select(2, authorized():gsub("ssh%-ed25519", "")))
  end)

  it("is not made where there are no recipients; what is none is refused before a change", function()
    local r = run ""
    assert.equal(0, r.exit, r.err)
    assert.equal("credentials.env\n", support.sh("ls " .. dir))
    assert.equal(1, select(2, authorized():gsub("ssh%-ed25519", "")))
    r = run "recipients=age1nonsense"
    assert.not_equal(0, r.exit)
    assert.equal("credentials.env\n", support.sh("ls " .. dir))
  end)

  it("gives a new server the same credentials and the same emergency pair", function()
    run("also=true recipients=" .. mine.recipient)
    local store, keys = support.slurp(dir .. "/credentials.env"), authorized()
    support.sh(("mv %s/credentials.enc %s/copy.enc; rm -rf %s/opt/letsbe %s/root/.ssh; mv %s/copy.enc %s/opt/copy.enc"):format(
      dir, home.dir, home.dir, home.dir, home.dir, home.dir))
    local given = ("also=true restore=true recipients=%s recovery_key=@%s/"):format(mine.recipient, home.dir)
    local r = run(given .. "other")
    assert.equal(12, r.exit, r.err)
    assert.matches("/opt/copy.enc cannot be opened", r.last.message, 1, true)
    assert.equal("copy.enc\n", support.sh(("ls %s/opt"):format(home.dir)))
    r = run(given .. "mine")
    assert.equal(0, r.exit, r.err)
    assert.equal(store, support.slurp(dir .. "/credentials.env"))
    assert.equal(keys, authorized())
    assert.equal(0, run(given .. "mine").last.changed)
    support.sh("rm " .. dir .. "/keys/admin.pub")
    assert.equal(1, run(given .. "mine").last.changed)
    assert.equal(keys, authorized())
    assert.is_string(sealed_key(open(dir .. "/credentials.enc"), "SEALED_ADMIN_KEY"):match "BEGIN OPENSSH")
    local found = canary.find(r.out .. r.err, { identity = host.reveal(mine.identity), password = value(store, "GHOST_DB_PASSWORD") })
    assert.same({}, found)
  end)

  it("does not go over the credentials of another server (12)", function()
    run("recipients=" .. mine.recipient)
    support.sh(("mv %s/credentials.enc %s/opt/copy.enc; rm -rf %s/opt/letsbe"):format(dir, home.dir, home.dir))
    run ""
    local store = support.slurp(dir .. "/credentials.env")
    local r = run(("restore=true recovery_key=@%s/mine"):format(home.dir))
    assert.equal(12, r.exit, r.err)
    assert.matches("has another GHOST_", r.last.message, 1, true)
    assert.equal(store, support.slurp(dir .. "/credentials.env"))
  end)

  it("has the private half of the Hub's pair, as the Hub itself has; a silent Hub gets another pair by the next run", function()
    local hub = hubs.new(home.dir .. "/hub", "canary+Token/of=the-runner").start()
    local words = ("recipients=%s hub_url=%s runner_token=@%s"):format(mine.recipient, hub.url, hub.token_file)
    hub.stop()
    local silent = run(words)
    assert.equal(3, silent.exit, silent.err)
    assert.matches("did not take its key", table.concat(silent.last.warnings, "\n"), 1, true)
    local first = sealed_key(open(dir .. "/credentials.enc"), "SEALED_HUB_KEY")
    assert.matches("BEGIN OPENSSH", first)
    hub.start()
    local r = run(words)
    assert.equal(0, r.exit, r.err)
    local second = sealed_key(open(dir .. "/credentials.enc"), "SEALED_HUB_KEY")
    assert.not_equal(first, second)
    local requests = hub.requests()
    hub.stop()
    assert.equal(1, #requests)
    assert.same({ "PUT", "/api/v1/tenants/acme/key", "right" }, { requests[1].method, requests[1].path, requests[1].token })
    assert.equal(second, requests[1].body.private_key)
    support.sh(("install -m 600 /dev/null %s/key"):format(home.dir))
    support.spit(home.dir .. "/key", second)
    assert.equal(requests[1].body.public_key:match "^%S+ %S+", support.sh(("ssh-keygen -y -f %s/key"):format(home.dir)):match "^%S+ %S+")
    assert.equal(0, run(words).last.changed)
    local line = second:match "\n([%w+/=]+)\n"
    local everything = r.out .. r.err .. support.sh(("cat $(find %s/opt %s/var %s/state -type f)"):format(home.dir, home.dir, home.dir))
    assert.same({}, canary.find(everything, { key = line }))
  end)
end)
