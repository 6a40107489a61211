-- cli_spec.lua: the command line: every option, refusal and hint, and what the program prints.

local cli = require "spec.cli"
local program = require "support.program"

local function parse(...) return (assert(cli.parse { ... })) end

local function refused(...)
  local parsed, result, message, hint = cli.parse { ... }
  assert.is_nil(parsed)
  assert.equal("usage", result)
  return message, hint
end

local function pairs_of(params)
  local out = {}
  for _, p in ipairs(params) do out[#out + 1] = p[1] .. "=" .. p[2] end
  return out
end

describe("command line #unit", function()
  describe("commands", function()
    it("takes a first operand that ends in .lua as the runbook to run", function()
      local c = parse("provision.lua", "tenant=acme")
      assert.equal("run", c.command)
      assert.same({ "provision.lua" }, c.operands)
      assert.same({ "tenant=acme" }, pairs_of(c.params))
    end)

    it("knows every command of the contract", function()
      for _, words in ipairs {
        { "run", "a.lua" }, { "plan", "a.lua" }, { "resume" }, { "resume", "7f" }, { "undo", "7f" },
        { "settle", "7f", "hub", "--done", "--reason", "seen" }, { "abandon", "7f", "--reason", "gone" },
        { "runs" }, { "show", "7f" }, { "log", "7f" }, { "explain", "7f" }, { "list" },
        { "list", "books" }, { "describe", "a.lua" }, { "doctor" }, { "verify-journal" },
      } do
        local c = assert(cli.parse(words))
        assert.equal(words[1], c.command)
      end
    end)

    it("makes a plan a checked run with diffs", function()
      local o = parse("plan", "a.lua").options
      assert.is_true(o.check)
      assert.is_true(o.diff)
    end)

    it("names the command that was probably meant", function()
      assert.equal("unknown command 'rusn' - did you mean 'runs'?", (refused("rusn")))
      assert.equal("unknown command 'explian' - did you mean 'explain'?", (refused("explian", "7f")))
      assert.equal("unknown command 'verify' - did you mean 'verify-journal'?", (refused("verify")))
    end)

    it("says how a runbook is named when a word is like no command", function()
      assert.equal("unknown command 'xyzzy'; a runbook's name ends in .lua", (refused("xyzzy")))
      assert.equal("unknown command '.lua'; a runbook's name ends in .lua", (refused(".lua")))
    end)

    it("refuses no command, too few operands and too many", function()
      assert.equal("no command or runbook given", (refused()))
      assert.equal("run needs a RUNBOOK.lua", (refused("run")))
      assert.equal("settle needs a RUN and a STEP", (refused("settle", "7f", "--done", "--reason", "x")))
      assert.equal("show does not take '8a'", (refused("show", "7f", "8a")))
      assert.equal("runs does not take 'x'", (refused("runs", "x")))
    end)

    it("points to the help of the command it was about", function()
      local _, hint = refused("show")
      assert.equal("see lbrun help show", hint)
      _, hint = refused("--tagret", "x")
      assert.equal("see lbrun --help", hint)
    end)
  end)

  describe("parameters", function()
    it("may stand anywhere and keep their order", function()
      local c = parse("a=1", "run", "b=2", "x.lua", "--json", "c=3")
      assert.same({ "a=1", "b=2", "c=3" }, pairs_of(c.params))
      assert.same({ "x.lua" }, c.operands)
    end)

    it("keep everything after the first equals sign", function()
      local c = parse("x.lua", "url=https://a/?b=c", "empty=", "text=two words\n")
      assert.same({ "url=https://a/?b=c", "empty=", "text=two words\n" }, pairs_of(c.params))
    end)

    it("are refused when one is given twice", function()
      assert.equal("parameter 'a' is given twice", (refused("x.lua", "a=1", "a=2")))
    end)

    it("are refused by commands that take none", function()
      assert.equal("show takes no parameters ('a')", (refused("show", "7f", "a=1")))
    end)

    it("are not what begins with a digit, a path or a dash in its name", function()
      assert.same({ "./a=b.lua" }, parse("./a=b.lua").operands)
      assert.equal("run does not take '1a=2'", (refused("x.lua", "1a=2")))
      assert.equal("run does not take 'a-b=2'", (refused("x.lua", "a-b=2")))
    end)

    it("may look like options after --", function()
      assert.same({ "-x.lua" }, parse("--", "-x.lua").operands)
    end)
  end)

  describe("options", function()
    it("have these values when none is given", function()
      assert.same({
        target = {}, identity = {}, tags = {}, skip_tags = {}, check = false, diff = false,
        detailed_exitcode = false, json = false, yes = false, no_input = false,
        allow_local_root = false, quiet = false, done = false, redo = false, revoke = false, once = false, fail = false,
        verbose = 0, color = "auto",
      }, parse("x.lua").options)
    end)

    it("arrive with their values, in every form", function()
      local o = parse("x.lua", "-t", "ssh://root@h", "--target=acme", "-tlocal:", "--targets", "t.txt",
        "-P", "3", "-i", "key1", "--identity", "key2", "-p", "p.json", "--check", "--diff",
        "--detailed-exitcode", "--json", "-y", "--confirm", "acme", "--no-input", "--journal=j.db",
        "--tags", "a,b", "--tags", "c", "--skip-tags=d", "--request-id", "r1", "--on-failure",
        "mail me", "--allow-local-root", "-vv", "-v", "-q", "--color", "never").options
      assert.same({
        target = { "ssh://root@h", "acme", "local:" }, targets_file = "t.txt", parallel = 3,
        identity = { "key1", "key2" }, params_file = "p.json", check = true, diff = true,
        detailed_exitcode = true, json = true, yes = true, confirm = "acme", no_input = true,
        journal = "j.db", tags = { "a", "b", "c" }, skip_tags = { "d" }, request_id = "r1",
        on_failure = "mail me", allow_local_root = true, verbose = 3, quiet = true,
        color = "never", done = false, redo = false, revoke = false, once = false, fail = false,
      }, o)
    end)

    it("of settle and abandon arrive too", function()
      for _, verdict in ipairs { "done", "redo", "fail" } do
        local o = parse("settle", "7f", "hub", "--" .. verdict, "--reason", "seen").options
        assert.is_true(o[verdict])
        assert.equal("seen", o.reason)
      end
      assert.equal("gone", parse("abandon", "7f", "--reason", "gone").options.reason)
    end)

    it("may stand before the command", function()
      local c = parse("--json", "-t", "acme", "plan", "x.lua")
      assert.equal("plan", c.command)
      assert.same({ "acme" }, c.options.target)
    end)

    it("name the option that was probably meant", function()
      assert.equal("unknown option '--tagret' - did you mean '--target'?", (refused("x.lua", "--tagret", "a")))
      assert.equal("unknown option '--tag' - did you mean '--tags'?", (refused("x.lua", "--tag=a")))
      assert.equal("unknown option '--jsno' - did you mean '--json'?", (refused("x.lua", "--jsno")))
      assert.equal("unknown option '--detailed-exit-code' - did you mean '--detailed-exitcode'?",
        (refused("x.lua", "--detailed-exit-code")))
      assert.equal("unknown option '--frobnicate'", (refused("x.lua", "--frobnicate")))
      assert.equal("unknown option '-z'", (refused("x.lua", "-z")))
      assert.equal("unknown option '-z'", (refused("x.lua", "-vz")))
    end)

    it("must be spelled out", function()
      assert.equal("unknown option '--conf' - did you mean '--confirm'?", (refused("x.lua", "--conf", "acme")))
      assert.equal("unknown option '--ye' - did you mean '--yes'?", (refused("x.lua", "--ye")))
      assert.equal("unknown option '--jour' - did you mean '--journal'?", (refused("x.lua", "--jour=x")))
    end)

    it("are taken literally where they are the value of another", function()
      assert.equal("--yes", parse("abandon", "7f", "--reason", "--yes").options.reason)
    end)

    it("say what value they need", function()
      assert.equal("--target needs a value: URL|TENANT", (refused("x.lua", "-t")))
      assert.equal("--confirm needs a value: TENANT", (refused("x.lua", "--confirm")))
      assert.equal("--journal takes FILE, which is empty here", (refused("x.lua", "--journal=")))
      assert.equal("--json takes no value", (refused("x.lua", "--json=yes")))
    end)

    it("check numbers, lists and words", function()
      for _, bad in ipairs { "0", "-1", "1001", "two", "2x", "99999999999999999999" } do
        assert.equal(("--parallel takes a number from 1 to 1000, not '%s'"):format(bad),
          (refused("x.lua", "-P", bad)))
      end
      assert.equal("--tags takes names with commas between them", (refused("x.lua", "--tags", "a,,b")))
      assert.equal("--tags takes names with commas between them", (refused("x.lua", "--tags", "a,")))
      assert.equal("--color takes auto, always or never, not 'blue'", (refused("x.lua", "--color", "blue")))
    end)

    it("are refused where they would be ignored", function()
      assert.equal("show does not take --yes", (refused("show", "7f", "--yes")))
      assert.equal("run does not take --reason", (refused("x.lua", "--reason", "x")))
      assert.equal("resume does not take --tags", (refused("resume", "--tags", "a")))
      assert.equal("plan does not take --request-id", (refused("plan", "x.lua", "--request-id", "a")))
    end)

    it("need exactly one verdict and a reason to settle", function()
      local want = "settle needs exactly one of --done, --redo and --fail"
      assert.equal(want, (refused("settle", "7f", "hub", "--reason", "x")))
      assert.equal(want, (refused("settle", "7f", "hub", "--done", "--fail", "--reason", "x")))
      assert.equal("settle needs --reason TEXT, which the journal keeps",
        (refused("settle", "7f", "hub", "--done")))
      assert.equal("abandon needs --reason TEXT, which the journal keeps", (refused("abandon", "7f")))
    end)

    it("let no control character of a wrong word reach the terminal", function()
      assert.equal("unknown command '?[31mred?'; a runbook's name ends in .lua", (refused("\27[31mred\7")))
      assert.is_nil(refused("x.lua", "--\27]0;title\7"):find "%c")
      assert.is_true(#refused(("x"):rep(10000)) < 200)
    end)
  end)

  describe("help and version", function()
    it("win over what else is wrong with the operands", function()
      for _, words in ipairs { { "--help" }, { "-h" }, { "help" }, { "show", "--help" }, { "x.lua", "-h" } } do
        local _, result = cli.parse(words)
        assert.equal("help", result)
      end
      local _, result = cli.parse { "x.lua", "--version" }
      assert.equal("version", result)
    end)

    it("of a command name it", function()
      for _, words in ipairs { { "help", "settle" }, { "settle", "--help" } } do
        local _, result, topic = cli.parse(words)
        assert.equal("help", result)
        assert.equal("settle", topic)
      end
      assert.equal("unknown command 'setle' - did you mean 'settle'?", (refused("help", "setle")))
    end)
  end)
end)

describe("program #unit", function()
  it("prints its version and the interface's", function()
    local r = program.run "--version"
    assert.equal("lbrun 0.1.0 (interface 1)\n", r.out)
    assert.equal("", r.err)
    assert.equal(0, r.status)
  end)

  it("begins its help with examples and fits 100 columns", function()
    local r = program.run "--help"
    assert.equal(0, r.status)
    assert.is_truthy(r.out:find "^Examples:\n")
    for line in r.out:gmatch "[^\n]+" do assert.is_true(#line <= 100, line) end
    for _, word in ipairs { "plan", "resume", "settle", "verify%-journal", "%-%-target", "%-%-json" } do
      assert.is_truthy(r.out:find(word), word)
    end
  end)

  it("shows in the help of a command only the options it takes", function()
    local r = program.run("help", "settle")
    assert.is_truthy(r.out:find("--redo", 1, true))
    assert.is_nil(r.out:find("--target", 1, true))
    r = program.run("show", "--help")
    assert.is_nil(r.out:find("--yes", 1, true))
  end)

  it("answers a wrong line with two lines on stderr and exit 2", function()
    local r = program.run("x.lua", "--tagret", "a")
    assert.equal(2, r.status)
    assert.equal("", r.out)
    assert.equal("lbrun: unknown option '--tagret' - did you mean '--target'?\nsee lbrun --help\n", r.err)
  end)

  it("says so when its help cannot be written", function()
    local r = program.sh('"$@" --help >/dev/full', program.lbrun)
    assert.equal(1, r.status)
    assert.equal("lbrun: cannot write to standard output: No space left on device\n", r.err)
  end)

  it("is quiet when nobody reads its help", function()
    local r = program.sh('(sleep 0.2; "$@" --help; echo $? >&2) | true', program.lbrun)
    assert.equal("141\n", r.err)
  end)

  it("starts with closed standard descriptors", function()
    assert.equal(0, program.sh('"$@" --help >&-', program.lbrun).status)
    assert.equal(2, program.sh('"$@" --nonsense >&- 2>&- <&-', program.lbrun).status)
  end)

  it("tells its version in under 10 ms, or as soon as curl does where this machine is slow", function()
    if program.lbrun:find("/asan/", 1, true) then return pending "sanitizers start slowly" end
    local host = require "host"
    -- In turns, so that a busy moment of the machine is one for all of them.
    local commands, best = { ":", program.lbrun .. " --version", "curl --version" }, { 1, 1, 1 }
    for _ = 1, 30 do
      for i, command in ipairs(commands) do
        local began = host.monotonic()
        os.execute(command .. " >/dev/null")
        best[i] = math.min(best[i], host.monotonic() - began)
      end
    end
    local took, curl = best[2] - best[1], best[3] - best[1]
    -- Both load libcurl, OpenSSL and what these need.
    assert.is_true(took < math.max(0.01, 1.5 * curl), ("%.4f s, curl %.4f s"):format(took, curl))
  end)
end)
