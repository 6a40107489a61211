-- leak_spec.lua: where output is cut or kept, no part of a secret stays: known to lbrun or
-- not. And what a run says of its secrets when it has to go on.
local host = require "host"
local support = require "support.lbrun"
local util = require "lb.util"

local local_target = "-t local: --allow-local-root"
local value = "CANARY-0123456789-abcdefghijklmnopqrstuvwxyz-ENDMARK"

-- Any eight bytes of it in a row.
local function part_of(text)
  for i = 1, #value - 7 do
    if text:find(value:sub(i, i + 7), 1, true) then return value:sub(i, i + 7) end
  end
end

describe("what is left of a secret #unit", function()
  local home
  before_each(function() home = support.home() end)
  after_each(function() home.remove() end)

  local function given()
    support.sh(("umask 077; printf %%s '%s' >%s/token"):format(value, home.work))
    return ("token=@%s/token"):format(home.work)
  end
  local function book(fields)
    return home.runbook("b", ([[return runbook { name = "b", summary = "x", params = { token = param.secret { optional = true } },
      steps = { step { name = "s", %s } } }]]):format((fields:gsub("W/", home.work .. "/"))))
  end
  local function journal()
    local text = support.slurp(home.dir .. "/state/lbrun/journal.db")
    local wal = io.open(home.dir .. "/state/lbrun/journal.db-wal", "rb")
    if wal then text = text .. wal:read "a" wal:close() end
    return text
  end

  it("is nothing where a long output is cut, wherever in it the secret stands", function()
    local _ <close> = host.secret("token", value)
    for _, before in ipairs { 0, 1, 30, 64, 100, 900 } do
      for _, behind in ipairs { 100, 500, 60000 } do
        for _, piece in ipairs { 1000000, 7 } do
          if behind < 60000 or piece > 7 then
            local w = util.window(64)
            local text = ("x"):rep(before) .. value .. ("y"):rep(behind) .. value .. ("z"):rep(before)
            for i = 1, #text, piece do w.add(text:sub(i, i + piece - 1)) end
            assert.is_nil(part_of(w.text()), ("%d before, %d between, in pieces of %d"):format(before, behind, piece))
            assert.is_true(#w.text() <= 2 * 64 + 40)
          end
        end
      end
    end
    -- What was not fetched may have begun in its middle.
    local w = util.window(64)
    w.add(("x"):rep(100000) .. value:sub(1, 20))
    w.skip(50000)
    w.add((value:sub(21) .. ("y"):rep(w.keep)):sub(1, w.keep))
    assert.is_nil(part_of(w.text()))
    assert.is_truthy(w.text():find "bytes left out")
  end)

  it("is nothing in the journal and on the terminal, where commands and jobs print it across their limits", function()
    local print_it = "head -c %d /dev/zero | tr '\\0' .; cat W/token; head -c %d /dev/zero | tr '\\0' ,; echo"
    local lines = {}
    for _, at in ipairs { 65500, 65520, 81900, 400000 } do
      local command = print_it:format(at, 200000)
      lines[#lines + 1] = ("ctx.target:run([[%s]])"):format(command)
      lines[#lines + 1] = ("ctx.target:job([[%s]])"):format(command)
      lines[#lines + 1] = ("ctx.target:job([[(%s) >&2]])"):format(command)
      command = print_it:format(at, 65500)
      lines[#lines + 1] = ("ctx.target:run([[%s]])"):format(command)
      lines[#lines + 1] = ("ctx.target:job([[(%s) >&2]], { name = 'err' })"):format(command)
    end
    local r = home.run(("%s %s %s -vvv"):format(book(("apply = function(ctx) %s end"):format(table.concat(lines, "\n"))), given(), local_target))
    assert.equal(0, r.exit, r.err)
    local all = r.out .. r.err .. home.run({ "show", r.id, "-v" }).out .. journal()
    assert.is_nil(part_of(all))
  end)

  it("is nothing in a live line, cut to the terminal's width", function()
    local path = book("apply = function(ctx) for i = 30, 70, 4 do ctx.target:job(\"printf '%\" .. i .. \"s' ''; cat W/token; echo; sleep 0.5\", "
      .. "{ name = 'j' .. i, progress = function() end }) end end")
    local typed = home.dir .. "/typed"
    local r = home.run(("%s %s %s"):format(path, given(), local_target),
      { before = ([[sh -c 'script -qec "stty cols 80; $(printf "'"%%s "'" "$@")" /dev/null >%s' sh]]):format(typed) })
    assert.equal(0, r.exit, r.err)
    local text = support.slurp(typed)
    assert.is_truthy(text:find("\27[K", 1, true), "no live line was drawn")
    assert.is_nil(part_of(text), text)
  end)

  it("that lbrun does not know is nothing in the journal, when its file is edited or read", function()
    support.sh(("umask 077; printf 'A=1\\nDB_PASSWORD=%s\\n' >%s/app.env"):format(value, home.work))
    local r = home.run(("%s %s"):format(book [[resources = { file.line { path = "W/app.env", line = "DEBUG=1" },
      file.content { path = "W/new.env", content = "B=1\n", mode = "0600" } },
      apply = function(ctx) assert(#ctx.target:read "W/app.env" > 60 and #ctx.target:get "W/app.env" > 60) end]], local_target))
    assert.equal(0, r.exit, r.err)
    assert.equal("A=1\nDB_PASSWORD=" .. value .. "\nDEBUG=1\n", support.slurp(home.work .. "/app.env"))
    assert.is_nil(part_of(r.out .. r.err .. home.run({ "show", r.id, "-v" }).out .. journal()))
  end)

  it("is asked for by name in the command that goes on", function()
    local r = home.run(("%s %s %s"):format(book [[apply = function(ctx) ctx.target:run "test -e W/ok" end]], given(), local_target))
    local command = r.out:match "next: lbrun ([^\n]*)"
    assert.equal(("resume %s token=@FILE"):format(r.id), command)
    support.spit(home.work .. "/ok", "")
    assert.equal(0, home.run((command:gsub("FILE", home.work .. "/token"))).exit)
  end)

  it("that a child was given under another name is given to it again at resume", function()
    home.runbook("child", ([[return runbook { name = "child", summary = "x", params = { b = param.secret {} }, steps = {
      step { name = "c", apply = function(ctx) ctx.target:run("test -e W/ok && cat >W/got", { stdin = ctx.secret "b" }) end } } }]])
      :gsub("W/", home.work .. "/"))
    local path = book [[apply = function(ctx) ctx.child { runbook = "child.lua", params = { b = ctx.secret "token" } } end]]
    local r = home.run(("%s %s %s"):format(path, given(), local_target))
    assert.equal(6, r.exit, r.err)
    support.spit(home.work .. "/ok", "")
    local again = home.run(("resume %s %s"):format(r.id, given()))
    assert.equal(0, again.exit, again.err)
    assert.equal(value, support.slurp(home.work .. "/got"))
  end)
end)
