-- backup_hub_spec.lua: a server is backed up and a tool restored while the Hub refuses every
-- connection (checklist D13). The tool's image and the Hub are stand-ins.
local support = require "support.lbrun"
local hub = require "support.hub"
local provision = require "support.provision"
local vps = require "support.vps"

describe("backups without the Hub #vps #slow", function()
  local server, home, h
  local rows = "curl -s http://127.0.0.1:3008/ | grep -o '\"entries\":[^]]*]'"

  local function run(book, more)
    return home.json(("runbooks/%s.lua tool=uptime-kuma %s -t %s -i %s -y --no-input --json"):format(book, more, server.url, server.key))
  end
  local function told(r) return ("exit %s: %s\n%s"):format(tostring(r.exit), r.last and r.last.message or "", r.err) end

  setup(function()
    server = vps.up("backup-hub", { docker = true, images = provision.images_of { "uptime-kuma" } })
    home = support.home()
    h = hub.new(home.dir .. "/hub", "canary+Token/of=restores", (server.address:gsub("%d+$", "1"))).start()
    local made = home.json(provision.args(server, { more = "tools=uptime-kuma --tags nginx,stacks --json" }))
    assert(provision.fine(made))
    h.stop()
  end)
  teardown(function()
    h.stop()
    server:down()
    home.remove()
  end)

  it("are made and restored (3), and the Hub is told of it later, each report once", function()
    server:exec "curl -sf -X POST -d before http://127.0.0.1:3008/"
    local before = server:exec(rows)
    assert.matches("before", before)
    local made = run("backup", "recipients=" .. provision.recipient)
    assert.equal(0, made.exit, told(made))
    server:exec "curl -sf -X POST -d later http://127.0.0.1:3008/"
    local r = run("restore", ("tenant=acme hub_url=%s runner_token=@%s"):format(h.url, h.token_file))
    assert.equal(3, r.exit, told(r))
    assert.equal(before, (server:exec(rows)))
    h.start()
    for _, sent in ipairs { 2, 0 } do
      local send = home.json("outbox send --json runner_token=@" .. h.token_file)
      assert.equal(0, send.exit, send.err)
      assert.equal(sent, send.last.sent)
    end
    local states = {}
    for _, one in ipairs(h.requests()) do
      if one.path == "/api/v1/tenants/acme/restores" then states[#states + 1] = one.body.status .. " " .. one.body.tool end
    end
    assert.same({ "STARTED uptime-kuma", "COMPLETED uptime-kuma" }, states)
  end)
end)
