-- sandbox_spec.lua: the sandbox keeps its promises to the other specs.
-- It provisions nothing.
local vps = require "support.vps"

local function lines(command)
  local set = {}
  local pipe = io.popen(command)
  for line in pipe:lines() do
    set[line] = true
  end
  pipe:close()
  return set
end

-- What a VPS may leave on the machine, without the counters in it.
local function traces()
  return {
    mounts = lines "cut -d ' ' -f 2-4 /proc/self/mounts",
    links = lines "ip -o link show | cut -d : -f 2 | cut -d @ -f 1",
    rules = lines "iptables-save | grep '^-A'",
    loops = lines "losetup -a",
    groups = lines "find /sys/fs/cgroup -maxdepth 2 -name 'lbr*'",
    forward = lines "cat /proc/sys/net/ipv4/ip_forward",
    processes = lines "ps -eo stat=,args= | grep -v '^Z' | grep -o 'systemd-nspawn.*--machine=.*\\|sandbox/keep .*'",
  }
end

-- Other sandbox homes may come and go meanwhile: their bridges have other names, and their
-- keepers other places.
local function news(before, after, bridge, home)
  local found = {}
  for what, set in pairs(after) do
    for line in pairs(set) do
      local other, place = line:match("lbr%d+"), line:match("sandbox/keep (/.*)")
      local foreign = other and other ~= bridge or place and place:sub(1, #home + 1) ~= home .. "/"
      if not before[what][line] and not foreign then
        found[#found + 1] = what .. ": " .. line
      end
    end
  end
  table.sort(found)
  return found
end

local function trim(s)
  return (s:gsub("%s+$", ""))
end

describe("the sandbox #vps", function()
  local home, before, bridge, v
  local ok, why = vps.available()

  if not ok then
    pending(why)
    return
  end

  setup(function()
    local pipe = io.popen("pwd; echo $$")
    local root, pid = pipe:read("l", "l")
    pipe:close()
    home = root .. "/build/sandbox-spec-" .. pid
    before = traces()
    v = vps.up("one", { home = home })
    local f = assert(io.open(home .. "/net"))
    bridge = f:read("a"):match("bridge=(%S+)")
    f:close()
  end)

  teardown(function()
    vps.call({ "down", "--all" }, { home = home })
    os.execute("rm -rf '" .. home .. "'")
  end)

  it("boots whole: systemd says running, and root gets in with the sandbox key alone", function()
    assert.equal("running", trim(v:exec "systemctl is-system-running"))
    assert.equal("0\n", (v:ssh "id -u"))
    local _, status = v:ssh("true", { user = "nobody" })
    assert.equal(255, status)
  end)

  it("hands a command's status, both its streams and its input through", function()
    local out, status, err = v:ssh("cat; echo bad >&2; exit 7", { stdin = "in\n" })
    assert.same({ "in\n", 7, "bad\n" }, { out, status, err })
    out, status, err = v:exec("cat; echo bad >&2; exit 7", { stdin = "in\n" })
    assert.same({ "in\n", 7, "bad\n" }, { out, status, err })
    assert.equal("a b $c\n", (v:ssh { "echo", "a b $c" }))
  end)

  it("gives each VPS an address, a machine-id and host keys of its own", function()
    local w = vps.up("two", { home = home })
    assert.not_equal(v.address, w.address)
    assert.not_equal((v:exec "cat /etc/machine-id"), (w:exec "cat /etc/machine-id"))
    assert.not_equal((v:exec "cat /etc/ssh/ssh_host_ed25519_key.pub"),
      (w:exec "cat /etc/ssh/ssh_host_ed25519_key.pub"))
    w:down()
    assert.equal("0\n", (v:ssh "id -u"))
  end)

  it("keeps identity, files and address over a reboot, but no process and no rule", function()
    local id = v:exec "cat /etc/machine-id /etc/ssh/*.pub"
    local boot = v:exec "cat /proc/sys/kernel/random/boot_id"
    v:exec "echo kept >/root/kept; ip route add blackhole 192.0.2.200"
    v:reboot()
    assert.equal(id, (v:exec "cat /etc/machine-id /etc/ssh/*.pub"))
    assert.not_equal(boot, (v:exec "cat /proc/sys/kernel/random/boot_id"))
    assert.equal("kept\n", (v:ssh "cat /root/kept"))
    assert.equal("", (v:exec "ip route show type blackhole"))
  end)

  it("comes back with its files after a power cut", function()
    v:exec "echo kept >/root/cut"
    v:kill()
    local _, status = v:exec "true"
    assert.equal(1, status)
    v:start()
    assert.equal("kept\n", (v:ssh "cat /root/cut"))
    assert.equal("running", trim(v:exec "systemctl is-system-running"))
  end)

  it("tells open, closed and filtered ports as another host sees them", function()
    assert.same({ [22] = "open", [80] = "closed", others = {} }, v:scan "22,80")
    v:stop()
    assert.same({ [22] = "filtered", others = {} }, v:scan "22")
    v:start()
  end)

  it("changes the host keys alone, or the machine, under the same address", function()
    local machine, keys = v:exec "cat /etc/machine-id", v:exec "cat /etc/ssh/*.pub"
    v:rekey()
    assert.equal(machine, (v:exec "cat /etc/machine-id"))
    assert.not_equal(keys, (v:exec "cat /etc/ssh/*.pub"))
    assert.equal("0\n", (v:ssh "id -u"))
    v:exec "touch /root/old"
    v:reimage()
    assert.not_equal(machine, (v:exec "cat /etc/machine-id"))
    assert.equal(v.address, vps.get("one", { home = home }).address)
    local _, status = v:ssh "test -e /root/old"
    assert.equal(1, status)
  end)

  it("gives a disk that can be full", function()
    local w = vps.up("small", { home = home, disk = "700M" })
    local _, status, err = w:ssh "head -c 900M /dev/zero >/fill"
    assert.equal(1, status)
    assert.matches("No space left", err)
    w:down()
  end)

  it("says what is wrong and leaves no VPS half made", function()
    local _, status, err = vps.call({ "up", "tiny", "--disk", "50M" }, { home = home })
    assert.equal(1, status)
    assert.matches("cannot make a disk of 50M", err)
    assert.not_matches("tiny", (vps.call({ "list" }, { home = home })))
    _, status, err = vps.call({ "up", "one" }, { home = home })
    assert.equal(1, status)
    assert.matches("there is a VPS 'one' already", err)
    _, status, err = vps.call({ "up", "x", "--release", "jessie" }, { home = home })
    assert.equal(2, status)
    assert.matches("jessie", err)
  end)

  it("leaves no mount, link, rule, loop device, control group or process behind", function()
    assert.not_same({}, news(before, traces(), bridge, home))
    v:down()
    assert.same({}, news(before, traces(), bridge, home))
  end)
end)
