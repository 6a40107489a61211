-- file_spec.lua: files and directories on a local target: what changes, what stays, undo.
local support = require "support.lbrun"

describe("files on a target", function()
  local home
  before_each(function() home = support.home() end)
  after_each(function() home.remove() end)

  local function book(resources, extra)
    return home.runbook("b", ([[
      return runbook { name = "b", summary = "files", steps = {
        step { name = "s", resources = { %s } }, %s } }]]):format(resources, extra or ""))
  end
  local function run(path, verb)
    return home.run(("%s %s -t local: --allow-local-root"):format(verb or "run", path))
  end
  local function all(r) return r.out .. r.err end
  local function write(name, text) support.spit(home.work .. "/" .. name, text) end
  local function read(name) return support.slurp(home.work .. "/" .. name) end
  local function at(name) return ("%q"):format(home.work .. "/" .. name) end
  local function stat(name) return (support.sh("stat -c '%F %a' " .. home.work .. "/" .. name):gsub("\n", "")) end

  it("a new file has the wanted content and mode, and a second run finds nothing to do", function()
    local b = book(("file.content { path = %s, content = 'hi\\n', mode = '0640' }"):format(at "a"))
    local r = run(b, "plan")
    assert.is_truthy(r.out:find("+hi", 1, true), r.out)
    assert.is_truthy(support.sh("ls " .. home.work):match "^%s*$")
    assert.are.equal(0, run(b).exit)
    assert.are.equal("hi\n", read "a")
    assert.are.equal("regular file 640", stat "a")
    assert.is_truthy(run(b).out:find("0 changed", 1, true))
  end)

  it("a replaced file keeps the mode that nobody named", function()
    write("a", "old\n")
    support.sh("chmod 600 " .. home.work .. "/a")
    assert.are.equal(0, run(book(("file.content { path = %s, content = 'new\\n' }"):format(at "a"))).exit)
    assert.are.equal("new\n", read "a")
    assert.are.equal("regular file 600", stat "a")
  end)

  it("content of any bytes arrives as it is, without a newline at its end too", function()
    local r = run(book(([[file.content { path = %s, content = "\0\1\255%%d$`\\'" }]]):format(at "a")))
    assert.are.equal(0, r.exit, all(r))
    assert.are.equal("\0\1\255%d$`\\'", read "a")
  end)

  it("undo puts the old file back with its mode, and removes what was not there", function()
    write("old", "before\n")
    support.sh("chmod 604 " .. home.work .. "/old")
    local r = run(book(([[file.content { path = %s, content = "x\n", mode = "0600" },
      file.content { path = %s, content = "y\n" }, directory.present { path = %s }]]):format(at "old", at "new", at "d/e/f")))
    assert.are.equal(0, r.exit, all(r))
    r = home.run("undo " .. r.id .. " -y --allow-local-root")
    assert.are.equal(0, r.exit, all(r))
    assert.are.equal("before\n", read "old")
    assert.are.equal("regular file 604", stat "old")
    assert.are.equal("old", (support.sh("ls " .. home.work):gsub("%s", "")))
  end)

  it("a content that does not pass its check never replaces the file", function()
    write("a", "good\n")
    local r = run(book(([[file.content { path = %s, content = "bad\n", check = 'grep -q good "$1"' }]]):format(at "a")))
    assert.are.equal(5, r.exit, all(r))
    assert.is_truthy(all(r):find("does not pass its check", 1, true))
    assert.are.equal("good\n", read "a")
  end)

  it("of a secret or an .env file only names are shown", function()
    write("app.env", "A=verysecretold\nB=same\n")
    local r = run(book(([[file.content { path = %s, content = "A=verysecretnew\nB=same\n" }]]):format(at "app.env")), "plan")
    assert.is_truthy(r.out:find("A=[hidden]", 1, true), r.out)
    assert.is_nil(r.out:find "verysecret")
  end)

  it("one line is placed once, replaces what matches and leaves the rest", function()
    write("a", "one\nkey = 1\ntwo\nkey = 2")
    local b = book(([[file.line { path = %s, line = "key = 9", match = "^key%%s*=" }, file.line { path = %s, line = "last" }]])
      :format(at "a", at "a"))
    assert.are.equal(0, run(b).exit)
    assert.are.equal("one\nkey = 9\ntwo\nlast\n", read "a")
    assert.is_truthy(run(b).out:find("0 changed", 1, true))
  end)

  it("a block is replaced between its marks and nowhere else", function()
    write("a", "top\n# BEGIN lbrun x\nold\n# END lbrun x\nbottom\n")
    assert.are.equal(0, run(book(([[file.block { path = %s, name = "x", content = "n1\nn2" }]]):format(at "a"))).exit)
    assert.are.equal("top\n# BEGIN lbrun x\nn1\nn2\n# END lbrun x\nbottom\n", read "a")
  end)

  it("a link, an absent file and an absent tree come and go with undo", function()
    write("gone", "x")
    support.sh("mkdir -p " .. home.work .. "/tree/sub; echo y >" .. home.work .. "/tree/sub/f")
    local r = run(book(([[file.link { path = %s, to = "gone" }, file.absent { path = %s },
      file.absent { path = %s, recursive = true }]]):format(at "link", at "gone", at "tree")))
    assert.are.equal(0, r.exit, all(r))
    assert.are.equal("link", (support.sh("ls " .. home.work):gsub("%s", "")))
    r = home.run("undo " .. r.id .. " -y --allow-local-root")
    assert.are.equal(0, r.exit, all(r))
    assert.are.equal("gone\ntree\n", (support.sh("ls " .. home.work)))
    assert.are.equal("y\n", read "tree/sub/f")
  end)

  it("a directory is not removed without being asked for, nor replaced by a file", function()
    support.sh("mkdir " .. home.work .. "/d")
    local r = run(book(("file.absent { path = %s }"):format(at "d")))
    assert.are.equal(5, r.exit, all(r))
    r = run(book(("file.content { path = %s, content = 'x' }"):format(at "d")))
    assert.are.equal(5, r.exit, all(r))
    assert.are.equal("directory 755", stat "d")
  end)

  it("a wrong argument is refused with its name before anything is touched", function()
    for _, case in ipairs {
      { "file.content { pth = '/x', content = '' }", "did you mean 'path'" },
      { "file.content { path = 'x', content = '' }", "not absolute" },
      { "file.content { path = '/x', content = 3 }", "content" },
      { "file.content { path = '/x', content = '', mode = '9' }", "octal" },
      { "file.absent { path = '/etc' }", "too near the root" },
      { "apt.installed {}", "at least one package" },
      { "apt.installed { 'x;y' }", "not the name of a package" },
      { "service.running { 'a b' }", "not the name of a unit" },
      { "user.present { name = 'Root' }", "not the name of a user" },
      { "ufw.allow { '80' , '99999/sctp' }", "not a port" },
      { "sudoers.present { name = 'a.b', content = '' }", "sudo skips" },
      { "timer.present { name = 't', description = 'd', exec = '/bin/true' }", "on_calendar or every" },
      { "authorized_keys.present { user = 'u', keys = { 'nonsense' } }", "public key line" },
      { "apt.repository { name = 'r', url = 'u', key = 'k', fingerprint = 'abc' }", "40 hex digits" },
      { "apt.repository { name = 'r', url = 'u\\ndeb [trusted=yes] u', key = 'k', fingerprint = ('a'):rep(40) }", "cannot" },
      { "apt.repository { name = 'r', url = 'u', suite = 'a b', key = 'k', fingerprint = ('a'):rep(40) }", "suite is 'a b'" },
      { "apt.repository { name = 'r', url = 'u', components = 'main\\ndeb', key = 'k', fingerprint = ('a'):rep(40) }", "components is" },
      { "apt.repository { name = 'r/../x', url = 'u', key = 'k', fingerprint = ('a'):rep(40) }", "name is of letters" },
    } do
      local r = run(book(case[1]))
      assert.are.equal(2, r.exit, case[1] .. all(r))
      assert.is_truthy(all(r):find(case[2], 1, true), case[1] .. all(r))
    end
  end)
end)
