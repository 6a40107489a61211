-- prelude_spec.lua: the parts of the prelude that are plain Lua: util, diff, params, target
-- addresses. Runs and targets are in engine_spec.lua and in spec/runbooks.
local host = require "host"
local json = require "json"
local util = require "lb.util"
local diff = require "lb.diff"
local params = require "lb.params"
local target = require "lb.target"
local support = require "support.lbrun"

local function raised(fn, ...)
  local fine, err = pcall(fn, ...)
  assert.is_false(fine)
  return util.as_error(err)
end

describe("util #unit", function()
  it("quotes so that a POSIX shell reads back exactly the same words", function()
    local words = { "", "plain", "with space", "it's", '"', "$HOME", "`id`", "a\\b", "new\nline", "*", "~", "-n",
      "#x", "a=b", "\t", "!", "é", "\1\127", "';rm -rf /;'" }
    local printed = {}
    for i, word in ipairs(words) do printed[i] = word .. "\n--\n" end
    assert.equal(table.concat(printed), (support.sh("printf '%s\\n--\\n' " .. util.argv(words))))
  end)

  it("leaves a word bare only when no shell would look at it twice", function()
    assert.equal("/etc/motd", util.quote("/etc/motd"))
    assert.equal("KEY=value,a:b@c-1.2+3%", util.quote("KEY=value,a:b@c-1.2+3%"))
    for _, word in ipairs { "~root", "a b", "a;b", "a&b", "{a,b}", "a?b", "[a]", "#a" } do
      assert.equal("'" .. word .. "'", util.quote(word))
    end
  end)

  it("refuses a NUL byte in a word, an empty command, and what is no string", function()
    assert.has_error(function() util.quote("a\0b") end)
    assert.has_error(function() util.argv {} end)
    assert.has_error(function() util.argv { "a", true } end)
    assert.has_error(function() util.argv { "a", host.secret("token", "12345678") } end)
  end)

  it("reads durations with and without units", function()
    for text, seconds in pairs { ["90"] = 90, ["90s"] = 90, ["1m30s"] = 90, ["2h"] = 7200, ["1d"] = 86400,
        ["250ms"] = 0.25, ["1.5m"] = 90, ["1h1m1s"] = 3661 } do
      assert.equal(seconds, util.duration(text))
    end
    assert.equal(12.5, util.duration(12.5))
  end)

  it("refuses what is no duration", function()
    for _, text in ipairs { "", "soon", "1x", "-1", "1m-", "m", " 1s", "1 s", "1s " } do
      assert.has_error(function() util.duration(text) end)
    end
    assert.has_error(function() util.duration(-1) end)
  end)

  it("turns nil, err into a typed error and passes everything else on", function()
    assert.same({ 1, nil, 3 }, { util.check(1, nil, 3) })
    assert.is_false(util.check(false))
    local err = raised(util.check, nil, { code = "not_found", message = "no such file" })
    assert.equal("not_found", err.code)
    assert.equal("internal", raised(util.check, nil, "text").code)
  end)

  it("gives each class of failure its exit code, and 1 to what is not classed", function()
    for code, exit in pairs { usage = 2, params = 2, syntax = 2, connect = 4, hostkey = 4, identity = 4, approval = 7,
        locked = 8, doubt = 9, verify = 11, key = 12, journal = 13, source = 13, steps_changed = 13, command = 1 } do
      assert.equal(exit, util.exit_of(util.error(code, "x")))
    end
    assert.equal(130, util.exit_of(util.error("interrupted", "x", { exit = 130 })))
  end)

  it("proposes the nearest name, and none for a word that is like no name", function()
    local names = { "target", "targets", "tags", "yes" }
    assert.equal(" - did you mean 'target'?", util.did_you_mean("tagret", names))
    assert.equal(" - did you mean 'yes'?", util.did_you_mean("yess", names))
    assert.equal("", util.did_you_mean("frobnicate", names))
  end)

  it("keeps the first and the last part of a long output and says how much is missing", function()
    local w = util.window(10)
    for i = 1, 100 do w.add(("%02d"):format(i % 100)) end
    assert.equal("0102030405\n[180 bytes left out]\n9697989900", w.text())
    local short = util.window(10)
    short.add("0123456789abcdefghij")
    assert.equal("0123456789abcdefghij", short.text())
  end)
end)

describe("diff #unit", function()
  local function patched(old, new)
    local dir = support.temp()
    support.spit(dir .. "/file", old)
    support.spit(dir .. "/patch", diff(old, new, { path = "/file" }))
    local out, status = support.sh(("cd %s && patch -s -p1 <patch && cat file"):format(dir))
    support.sh("rm -rf " .. dir)
    return out, status
  end

  it("is empty for equal texts and names the path on both sides otherwise", function()
    assert.equal("", diff("a\n", "a\n", { path = "/etc/motd" }))
    assert.equal("--- a/etc/motd\n+++ b/etc/motd\n@@ -1,1 +1,1 @@\n-a\n+b\n", diff("a\n", "b\n", { path = "/etc/motd" }))
  end)

  it("shows a file that is not there yet as wholly new", function()
    assert.equal("--- /dev/null\n+++ b/x\n@@ -0,0 +1,2 @@\n+a\n+b\n", diff(nil, "a\nb\n", { path = "/x" }))
  end)

  it("shows three lines around a change and joins changes that are near", function()
    local old, new = {}, {}
    for i = 1, 40 do old[i], new[i] = "line " .. i, "line " .. i end
    new[10], new[14], new[30] = "changed", "changed", "changed"
    local text = diff(table.concat(old, "\n") .. "\n", table.concat(new, "\n") .. "\n", { path = "/x" })
    local _, hunks = text:gsub("\n@@ ", "")
    assert.equal(2, hunks)
    assert.is_truthy(text:find("@@ -7,11 +7,11 @@", 1, true))
    assert.is_truthy(text:find("@@ -27,7 +27,7 @@", 1, true))
  end)

  it("is understood by patch, whatever was inserted, removed or replaced", function()
    local seed = 20241
    local function random(n)
      seed = (seed * 1103515245 + 12345) % 2147483648
      return seed // 65536 % n + 1
    end
    for _ = 1, 40 do
      local old, new = {}, {}
      for i = 1, random(30) do old[i] = "line " .. random(6) end
      for _, line in ipairs(old) do
        local what = random(6)
        if what == 1 then new[#new + 1] = "new " .. random(3)
        elseif what == 2 then new[#new + 1] = line
          new[#new + 1] = "more " .. random(3)
        elseif what ~= 3 then new[#new + 1] = line end
      end
      new[#new + 1] = "end"
      local a, b = table.concat(old, "\n") .. "\n", table.concat(new, "\n") .. "\n"
      if a ~= b then
        local out, status = patched(a, b)
        assert.equal(0, status)
        assert.equal(b, out)
      end
    end
  end)

  it("shows only the keys of an environment file when asked to", function()
    local text = diff("A=one\nB=keep\n", "A=two\nB=keep\n# note\n", { path = "/.env", keys_only = true })
    assert.is_nil(text:find("one", 1, true))
    assert.is_nil(text:find("two", 1, true))
    assert.is_nil(text:find("keep", 1, true))
    assert.is_truthy(text:find("-A=[hidden]", 1, true))
    assert.is_truthy(text:find("+A=[hidden]", 1, true))
  end)

  it("takes two large texts that have nothing in common in a time that grows with their length, not its square", function()
    local function took(lines)
      local a, b = {}, {}
      for i = 1, lines do a[i], b[i] = "a" .. i, "b" .. i end
      local began = os.clock()
      local text = diff(table.concat(a, "\n") .. "\n", table.concat(b, "\n") .. "\n", { path = "/x" })
      assert.is_truthy(text:find(("@@ -1,%d +1,%d @@"):format(lines, lines), 1, true))
      return os.clock() - began
    end
    local short = math.min(took(1000), took(1000), took(1000))
    local long = math.min(took(8000), took(8000))
    -- Eight times as long; the square would be 64.
    assert.is_true(long < 24 * math.max(short, 0.005), ("%.3f s, %.3f s"):format(short, long))
  end)
end)

describe("parameters #unit", function()
  local p = params.param

  local function read(declared, given, file)
    return params.read(declared, given or {}, file, { ask = false })
  end
  local function refused(declared, given, file)
    local err = raised(read, declared, given, file)
    return err.code, err.message
  end

  it("take each kind from the command line as a string", function()
    local values = read({
      tenant = p.string { pattern = "^[a-z]+$" }, port = p.integer { min = 1, max = 65535 }, share = p.number {},
      force = p.boolean {}, tier = p.enum { "lite", "build" }, tools = p.list { of = p.enum { "odoo", "ghost" } },
      wait = p.duration {}, file = p.path {},
    }, { { "tenant", "acme" }, { "port", "22022" }, { "share", "0.5" }, { "force", "yes" }, { "tier", "build" },
      { "tools", "odoo, ghost" }, { "wait", "1m30s" }, { "file", "/etc/passwd" } })
    assert.same("acme", values.tenant)
    assert.equal(22022, values.port)
    assert.equal("integer", math.type(values.port))
    assert.equal(0.5, values.share)
    assert.is_true(values.force)
    assert.equal("build", values.tier)
    assert.equal("ghost", values.tools[2])
    assert.equal(90, values.wait)
    assert.equal("/etc/passwd", values.file)
  end)

  it("take the same kinds from a parameter file with JSON's own types", function()
    local values = read({ port = p.integer {}, force = p.boolean {}, tools = p.list {} }, {},
      { port = 22, force = false, tools = { "a", "b" } })
    assert.equal(22, values.port)
    assert.is_false(values.force)
    assert.equal("b", values.tools[2])
  end)

  it("let name=value win over the file, and the file over the default", function()
    local declared = { a = p.string { default = "default" }, b = p.string { default = "default" }, c = p.string { default = "default" } }
    local values = read(declared, { { "a", "given" } }, { a = "file", b = "file" })
    assert.same({ a = "given", b = "file", c = "default" }, values)
  end)

  it("refuse an unknown name and propose the one that was meant", function()
    local code, message = refused({ tenant = p.string {} }, { { "tennant", "x" } })
    assert.equal("params", code)
    assert.is_truthy(message:find("unknown parameter 'tennant'", 1, true))
    assert.is_truthy(message:find("did you mean 'tenant'", 1, true))
  end)

  it("refuse a missing one, naming it and what was expected", function()
    local code, message = refused({ tier = p.enum { "lite", "build" } })
    assert.equal("params", code)
    assert.is_truthy(message:find("missing parameter 'tier': expected one of lite, build", 1, true))
  end)

  it("refuse a bad value of every kind, naming the parameter", function()
    for name, case in pairs {
      string = { p.string { pattern = "^[a-z]+$" }, "Ab" }, control = { p.string {}, "a\27b" },
      newline = { p.string { pattern = "^https://" }, "https://x\ndeb [trusted=yes] http://evil ./" }, tab = { p.string {}, "a\tb" },
      carriage = { p.string {}, "a\rb" }, delete = { p.string {}, "a\127b" }, nul = { p.string { multiline = true }, "a\0b" },
      escape = { p.string { multiline = true }, "a\27b" }, item = { p.list {}, "a,b\nc" }, part = { p.list { of = p.string {} }, "a,b\nc" },
      short = { p.string { min = 3 }, "ab" }, long = { p.string { max = 3 }, "abcd" },
      integer = { p.integer {}, "1.5" }, range = { p.integer { max = 10 }, "11" }, number = { p.number {}, "x" },
      hex = { p.integer {}, "0x10" }, boolean = { p.boolean {}, "maybe" }, enum = { p.enum { "a" }, "b" },
      list = { p.list { of = p.integer {} }, "1,x" }, twice = { p.list {}, "a,a" }, few = { p.list { min = 2 }, "a" },
      duration = { p.duration {}, "soon" }, path = { p.path {}, "/nowhere/at/all" },
      key = { p.ssh_public_key {}, "ssh-ed25519 nonsense" },
    } do
      local code, message = refused({ [name] = case[1] }, { { name, case[2] } })
      assert.equal("params", code, message)
      assert.is_truthy(message:find("parameter '" .. name .. "'", 1, true), message)
      assert.is_nil(message:find("%c"), message)
    end
  end)

  it("take lines and tabs where they are declared to, and say in the schema where not", function()
    assert.same({ text = "a\tb\nc" }, (read({ text = p.string { multiline = true } }, { { "text", "a\tb\nc" } })))
    assert.is_nil(params.schema_of(p.string { multiline = true }).pattern)
    assert.equal("^[^\\x00-\\x1f\\x7f]*$", params.schema_of(p.string {}).pattern)
  end)

  it("refuse a name that is given twice", function()
    assert.equal("params", (refused({ a = p.string {} }, { { "a", "1" }, { "a", "2" } })))
  end)

  it("take a secret from a private file and never from the command line", function()
    local dir = support.temp()
    support.spit(dir .. "/token", "canary-token-1\n")
    support.sh("chmod 600 " .. dir .. "/token")
    local _, secrets = read({ token = p.secret {} }, { { "token", "@" .. dir .. "/token" } })
    assert.equal("canary-token-1", host.reveal(secrets.token))
    assert.equal("[secret token]", tostring(secrets.token))
    support.sh("chmod 644 " .. dir .. "/token")
    assert.equal("key", (refused({ token = p.secret {} }, { { "token", "@" .. dir .. "/token" } })))
    local code, message = refused({ token = p.secret {} }, { { "token", "canary-token-1" } })
    assert.equal("params", code)
    assert.is_nil(message:find("canary", 1, true))
    support.sh("rm -rf " .. dir)
  end)

  it("refuse a secret that is too short to be masked", function()
    local dir = support.temp()
    support.spit(dir .. "/token", "seven77\n")
    support.sh("chmod 600 " .. dir .. "/token")
    assert.equal("key", (refused({ token = p.secret {} }, { { "token", "@" .. dir .. "/token" } })))
    support.sh("rm -rf " .. dir)
  end)

  it("refuse an option that a kind does not have", function()
    assert.has_error(function() p.string { patern = "x" } end)
    assert.has_error(function() p.enum {} end)
  end)

  it("come out as a JSON Schema that names types, bounds and what is required", function()
    local schema = json.decode(json.encode(params.schema({
      tier = p.enum { "lite", "build" }, port = p.integer { min = 1, max = 65535, default = 22022 },
      token = p.secret { optional = true }, tools = p.list { of = p.string {}, description = "what to install" },
    }, "provision")))
    assert.equal("object", schema.type)
    assert.is_false(schema.additionalProperties)
    assert.same({ "tier", "tools" }, { table.unpack(schema.required) })
    assert.equal(65535, schema.properties.port.maximum)
    assert.equal(22022, schema.properties.port.default)
    assert.is_true(schema.properties.token.writeOnly)
    assert.equal("what to install", schema.properties.tools.description)
    assert.equal("string", schema.properties.tools.items.type)
  end)
end)

describe("a target's address #unit", function()
  it("reads as ssh://user@host:port, with parts left out and with IPv6", function()
    for url, want in pairs {
      ["ssh://root@203.0.113.7:22"] = { "root", "203.0.113.7", 22 }, ["ssh://server"] = { nil, "server", nil },
      ["ssh://admin@server"] = { "admin", "server", nil }, ["ssh://server:2200/"] = { nil, "server", 2200 },
      ["ssh://root@[2001:db8::7]:22"] = { "root", "2001:db8::7", 22 },
    } do
      local spec = target.parse(url)
      assert.same(want, { spec.user, spec.host, spec.port })
    end
  end)

  it("shows itself in one form, whatever was typed", function()
    assert.equal("ssh://root@h:22", target.parse("ssh://root@h:22/").url)
    assert.equal("ssh://[2001:db8::7]", target.parse("ssh://[2001:db8::7]").url)
    assert.equal("local:", target.parse("local").url)
  end)

  it("takes a fingerprint and nothing else after a question mark", function()
    assert.equal("SHA256:abc+/=", target.parse("ssh://h?fingerprint=SHA256:abc+/=").fingerprint)
    assert.equal("usage", raised(target.parse, "ssh://h?password=x").code)
  end)

  it("refuses a password, a bad port and what is no address", function()
    for _, url in ipairs { "ssh://root:secret@h", "ssh://h:0", "ssh://h:70000", "ssh://", "http://h", "h", "ssh://a b" } do
      assert.equal("usage", raised(target.parse, url).code)
    end
  end)

  it("has siblings on the same host by user and port", function()
    local spec = target.parse("ssh://root@[2001:db8::7]:22")
    assert.equal("ssh://admin@[2001:db8::7]:22022", target.sibling(spec, "admin@:22022").url)
    assert.equal("runbook", raised(target.sibling, spec, "admin").code)
  end)
end)
