-- isolate_spec.lua: runbooks/isolate.lua on a VPS with Docker, ufw and two stand-in containers
-- and an address outside that all of them reach before. Netcup and the Hub are stand-ins.
local process = require "process"
local json = require "json"
local support = require "support.lbrun"
local hubs = require "support.hub"
local netcups = require "support.netcup"
local vps = require "support.vps"

local token = "isolation-canary-token-4711"

describe("isolation #vps #slow", function()
  local server, home, hub, netcup, listener, outside, bridge, before
  local function inside(line) return (server:exec(line)) end

  setup(function()
    server = vps.up("isolate", { docker = true, images = { vps.nginx } })
    home = support.home()
    bridge = server.address:gsub("%d+$", "1")
    listener = assert(process.spawn({ "python3", "-u", "-c", ([[
import socketserver, sys
class H(socketserver.BaseRequestHandler):
    def handle(self): self.request.sendall(b'here\n')
s = socketserver.ThreadingTCPServer(('%s', 0), H); print('port', s.server_address[1])
s.serve_forever()]]):format(bridge) }, { kill_on_close = true }))
    local out = ""
    while not out:find "port %d+\n" do
      local which, data = listener:read(20)
      assert(which == "out", data)
      out = out .. data
    end
    outside = bridge .. ":" .. out:match "port (%d+)"
    local _, failed, err = server:exec("apt-get -q update >/dev/null && DEBIAN_FRONTEND=noninteractive apt-get -q -y install --no-install-recommends ufw >/dev/null"
      .. " && ufw allow 22/tcp && ufw allow 80/tcp && ufw allow 443/tcp && ufw --force enable"
      .. " && docker run -d --name web --restart unless-stopped -p 80:80 " .. vps.nginx
      .. " && docker run -d --name letsbe-openclaw --restart unless-stopped " .. vps.nginx)
    assert.equal(0, failed, err)
    hub = hubs.new(home.dir .. "/hub", token).start()
    netcup = netcups.start()
    netcup.login()
    netcup.control("tasks", { scale = 0.01 })
    support.sh(("mkdir -p %s/state/lbrun && chmod 700 %s/state/lbrun && cp %s %s/state/lbrun/netcup.json"):format(home.dir, home.dir, netcup.store, home.dir))
  end)
  teardown(function()
    if hub then hub.stop() end
    if netcup then netcup.stop() end
    if listener then listener:close() end
    if server then server:down() end
    if home then home.remove() end
  end)

  local function run(more, options)
    options = options or {}
    options.env = options.env or {}
    options.env.LBRUN_NETCUP_ISSUER = netcup.base .. "/realms/scp"
    options.env.LBRUN_NETCUP_API = netcup.base .. "/scp-core/api/v1"
    return home.json(("runbooks/isolate.lua tenant=acme outside=%s -t %s -i %s -y --no-input --json %s"):format(outside, server.url, server.key, more or ""), options)
  end
  local function told(r) return ("exit %s: %s\n%s"):format(tostring(r.exit), r.last and r.last.message or "", r.err) end

  -- All that reach the address: the host, and each container in its own network.
  local function leaves()
    local reach = ("timeout 4 %%s bash -c 'exec 3<>/dev/tcp/%s/%s' 2>/dev/null && echo %%s;"):format(outside:match "(.*):(.*)")
    local line = reach:format("env", "host")
    for _, name in ipairs { "web", "letsbe-openclaw" } do
      line = line .. ("p=$(docker inspect -f '{{.State.Pid}}' %s); if [ $p != 0 ]; then "):format(name) .. reach:format("nsenter -t $p -n", name) .. " fi;"
    end
    return inside(line .. "true")
  end
  local function rules()
    return inside "for f in iptables-save ip6tables-save; do $f | grep -v '^#' | sed 's/\\[.*\\]//'; done"
  end
  local function ssh() return (server:ssh "echo in") end
  local function web() return vps.call { "outside", "--", "sh", "-c", ("timeout 4 bash -c 'exec 3<>/dev/tcp/%s/80' 2>/dev/null && echo web || echo none"):format(server.address) } end

  it("begins with a host and containers that reach an address outside", function()
    assert.equal("host\nweb\nletsbe-openclaw\n", leaves())
    assert.equal("web\n", web())
    before = rules()
  end)

  it("that is killed before the guard is confirmed is isolated, not open, and SSH comes in", function()
    local kills = 0
    for _, after in ipairs { "guard isolate: armed", "isolate.-effect.done" } do
      local line = ("runbooks/isolate.lua tenant=acme outside=%s -t %s -i %s -y --no-input --json"):format(outside, server.url, server.key)
      -- A run of its own process, ended when the journal says how far it is.
      local out = home.dir .. "/killed"
      local p = assert(process.spawn({ "sh", "-c", ("exec env -u SSH_AUTH_SOCK HOME=%s XDG_STATE_HOME=%s/state %s %s >%s 2>&1"):format(
        home.dir, home.dir, support.binary, line, out) }, { kill_on_close = true }))
      local reached
      for _ = 1, 600 do
        reached = support.sh("cat " .. out .. " 2>/dev/null"):find(after)
        if reached then break end
        os.execute "sleep 0.1"
      end
      p:close()
      assert.is_truthy(reached, after)
      kills = kills + 1
      -- What the server was doing then, it does to its end.
      os.execute "sleep 6"
      assert.equal("", leaves(), after)
      assert.equal("in\n", ssh())
      local id = home.json("runs --json").lines[1].run
      home.run(("abandon %s --reason killed -y"):format(id))
    end
    assert.equal(2, kills)
  end)

  it("cuts host and containers off, keeps SSH, takes the evidence before the runtime stops", function()
    local r = run(("netcup_server=111003 hub_url=%s runner_token=@%s reason='stolen key'"):format(hub.url, hub.token_file))
    assert.equal(0, r.exit, told(r))
    assert.equal("", leaves())
    assert.equal("in\n", ssh())
    assert.equal("none\n", web())
    assert.equal("web\n", inside "docker ps --format '{{.Names}}'")
    local calls = {}
    for i, q in ipairs(hub.requests()) do calls[i] = q.method .. " " .. q.path end
    assert.same({ "POST /api/v1/tenants/acme/key/revocation", "POST /api/v1/tenants/acme/notices" }, calls)
    -- The snapshot at netcup, and the archive with the runtime still in it.
    assert.equal("incident-" .. r.last.run, json.decode(support.sh(("env HOME=%s XDG_STATE_HOME=%s/state LBRUN_NETCUP_ISSUER=%s/realms/scp LBRUN_NETCUP_API=%s/scp-core/api/v1 %s netcup snapshots 111003 --json"):format(
      home.dir, home.dir, netcup.base, netcup.base, support.binary)):match "[^\n]+").snapshot.name)
    assert.equal("evidence.tar.gz: OK\n", inside "cd /var/lib/lbrun/isolation && sha256sum -c evidence.tar.gz.sha256")
    assert.equal("OK\n", inside "cd /var/lib/lbrun/isolation/evidence && sha256sum --quiet -c SHA256SUMS && echo OK")
    assert.matches("letsbe%-openclaw", inside "cat /var/lib/lbrun/isolation/evidence/volatile/containers")
    assert.matches("Up ", inside "grep letsbe-openclaw /var/lib/lbrun/isolation/evidence/containers")
    local sum = inside "cut -d' ' -f1 /var/lib/lbrun/isolation/evidence.tar.gz.sha256":gsub("\n", "")
    assert(home.run("log " .. r.last.run).out:find(sum, 1, true), "the journal has the archive's hash")
    assert.equal(0, home.run("verify-journal").exit)
  end)

  it("finds nothing to do the second time but the checklist, which shows the 72 hours", function()
    local r = run()
    assert.equal(3, r.exit, told(r)) -- no server at netcup is named: no snapshot, as the warning says
    assert.matches("no forensic snapshot", r.last.warnings[1])
    local shown = ""
    for _, line in ipairs(r.lines) do
      if line.type == "log" then shown = shown .. line.text .. "\n" end
    end
    assert.matches("72 hours, until .-Z, 71 h %d+ min are left", shown)
    assert.matches("still open: assess, notify%-founder, notify%-customer, remediate", shown)
  end)

  it("lasts over a reboot and a restart of Docker and ufw, and opens 80 and 443 where that is chosen", function()
    server:reboot()
    for _ = 1, 100 do
      if ssh() == "in\n" and inside "docker ps -q" ~= "" then break end
      os.execute "sleep 0.3"
    end
    assert.equal("", leaves())
    assert.equal("in\n", ssh())
    server:exec "systemctl restart docker; ufw reload"
    assert.equal("", leaves())
    local r = run "web=open"
    assert.equal(3, r.exit, told(r))
    assert.equal("web\n", web())
    assert.equal("", leaves())
    assert.equal("in\n", ssh())
  end)

  it("of a guard that nobody confirms gives inbound back, and nothing gets out", function()
    assert.equal("", (inside "sh /var/lib/lbrun/isolation/isolate.sh open-ssh"))
    assert.equal("inbound-open\nat-boot\nisolated\n", inside "sh /var/lib/lbrun/isolation/isolate.sh status")
    assert.equal("", leaves())
    assert.equal("in\n", ssh())
  end)

  it("keeps who did what and when, with the post-mortem", function()
    assert.equal(2, run("item=assess").exit)
    local r = run "item=notify-customer by=Operator note='by letter | and mail'"
    assert.equal(0, r.exit, told(r))
    local text = inside "cat /var/lib/lbrun/isolation/post-mortem.md"
    assert.matches("| x | 4%. Notify: the customer %(Art%. 33 and 34 GDPR%) | %d+%-%d+%-%d+T[%d:]+Z | Operator | by letter   and mail |", text)
    assert.matches("| x | 1%. Contain.-| run isolate%-%w+ |", text)
    assert.matches("SHA%-256 %x+", text)
    assert.matches("checklist: notify%-customer by Operator", home.run("log " .. r.last.run).out)
  end)

  it("is released to rules that are what they were, and to what ran before", function()
    local r = run "release=true"
    assert.equal(0, r.exit, told(r))
    assert.equal("host\nweb\nletsbe-openclaw\n", leaves())
    assert.equal("web\n", web())
    local function sorted(text) -- Docker's own restarts put its rules in another order
      local list = {}
      for line in text:gmatch "[^\n]+" do list[#list + 1] = line end
      table.sort(list)
      return table.concat(list, "\n")
    end
    assert.equal(sorted(before), sorted(rules()))
    assert.equal("", inside "ls /etc/systemd/system/lbrun-isolate.service 2>/dev/null")
    assert.equal(0, run("release=true").last.changed - 1) -- the checklist alone
  end)

  it("is another incident the next time: with evidence of its own, and the first one's kept", function()
    local first = inside "cat /var/lib/lbrun/isolation/evidence.tar.gz.sha256"
    local id = inside("cat /var/lib/lbrun/isolation/incident.json"):match '"incident":"([%w-]+)"'
    local r = run()
    assert.is_true(r.exit == 0 or r.exit == 3, told(r))
    assert.equal("", leaves())
    assert.equal(first, inside(("cat /var/lib/lbrun/isolation/closed-%s/evidence.tar.gz.sha256"):format(id)))
    assert.equal("evidence.tar.gz: OK\n", inside(("cd /var/lib/lbrun/isolation/closed-%s && sha256sum -c evidence.tar.gz.sha256"):format(id)))
    assert.matches("by letter", inside(("cat /var/lib/lbrun/isolation/closed-%s/post-mortem.md"):format(id)))
    assert.not_equal(first, inside "cat /var/lib/lbrun/isolation/evidence.tar.gz.sha256")
    local record = inside "cat /var/lib/lbrun/isolation/incident.json"
    assert.matches('"incident":"' .. r.last.run:gsub("%-", "%%-"), record)
    assert.is_nil(record:find("notify-customer", 1, true))
    assert.equal(0, run("release=true").exit)
  end)
end)
