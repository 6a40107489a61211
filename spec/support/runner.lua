-- runner.lua: runs busted on the given files inside lbrun-spec and says how it went. The
-- last line is "N passed, N failed"; an error outside of a spec counts as a failed one, and
-- a run without any spec fails.

local host = require "host"

local usage = [[
lbrun-spec [options] FILE|FOLDER...
  --tags A,B          only specs with one of these tags
  --exclude-tags A,B  no specs with one of these tags
  --filter PATTERN    only specs whose full name matches
  --list              names only
  -v                  every spec with its time
lbrun-spec --script FILE ARGUMENT...
                      no specs: the file alone, as main task; it returns the exit status
]]

local function split(text)
  local list = {}
  for word in text:gmatch("[^,]+") do list[#list + 1] = word end
  return list
end

local function parse(args)
  local o = { files = {}, tags = {}, exclude = {}, filter = {} }
  local i = 1
  local function value()
    i = i + 1
    return args[i] or error(args[i - 1] .. " needs a value", 0)
  end
  while args[i] do
    local a = args[i]
    if a == "--tags" then o.tags = split(value())
    elseif a == "--exclude-tags" then o.exclude = split(value())
    elseif a == "--filter" then o.filter = { value() }
    elseif a == "--list" then o.list = true
    elseif a == "-v" then o.verbose = true
    elseif a == "-h" or a == "--help" then o.help = true
    elseif a:sub(1, 1) == "-" then error("unknown option " .. a, 0)
    else o.files[#o.files + 1] = a end
    i = i + 1
  end
  return o
end

local function first_lines(text, n)
  local out = {}
  for line in (text .. "\n"):gmatch("(.-)\n") do
    out[#out + 1] = "    " .. line
    if #out == n then break end
  end
  return table.concat(out, "\n")
end

local function run(o)
  local busted = require "busted.core"()
  local handler = {}
  local passed, failed, pending, slow = 0, 0, 0, {}
  local began, file_began, file_count, file_failed

  local function full_name(element)
    local names = { element.name or element.descriptor }
    local parent = busted.context.parent(element)
    while parent and parent.descriptor == "describe" do
      table.insert(names, 1, parent.name)
      parent = busted.context.parent(parent)
    end
    return table.concat(names, " ")
  end

  local function say(...) io.stdout:write(...) io.stdout:flush() end

  function handler.failure(element, _, message, debug)
    local trace = element.trace or debug or {}
    failed, file_failed = failed + 1, true
    local where = trace.short_src and (" (" .. trace.short_src .. ":" ..
      tostring(trace.currentline) .. ")") or ""
    say("FAIL ", full_name(element), where, "\n")
    local text = message
    if type(text) == "table" and getmetatable(text) == nil then
      text = require "pl.pretty".write(text)
    end
    say(first_lines(tostring(text), 60), "\n")
    if trace.traceback and o.verbose then say(first_lines(trace.traceback, 30), "\n") end
    return nil, true
  end

  require "busted"(busted)
  busted.subscribe({ "error" }, handler.failure)
  busted.subscribe({ "failure" }, handler.failure)
  busted.subscribe({ "file", "start" }, function()
    file_began, file_count, file_failed = host.monotonic(), 0, false
    return nil, true
  end)
  busted.subscribe({ "file", "end" }, function(file)
    say(("%-4s %-44s %4d specs %7.2f s\n"):format(file_failed and "FAIL" or "ok", file.name,
      file_count, host.monotonic() - file_began))
    return nil, true
  end)
  busted.subscribe({ "test", "start" }, function()
    began = host.monotonic()
    return nil, true
  end)
  busted.subscribe({ "test", "end" }, function(element, _, status)
    local took = host.monotonic() - began
    file_count = file_count + 1
    if status == "success" then passed = passed + 1 end
    if status == "pending" then
      pending = pending + 1
      say("skip ", full_name(element), "\n")
    end
    if o.verbose then say(("%7.3f s %s %s\n"):format(took, status, full_name(element))) end
    if took > 1 then slow[#slow + 1] = { took, full_name(element) } end
    return nil, true
  end)
  require "busted.modules.filter_loader"()(busted, {
    tags = o.tags, excludeTags = o.exclude, filter = o.filter, filterOut = {}, list = o.list,
  })
  require "busted.modules.test_file_loader"(busted, { "lua" })(o.files, { "_spec%.lua$" },
    { excludes = {}, recursive = true })
  require "busted.execute"(busted)(1, {})
  busted.publish({ "exit" })

  if o.list then return 0 end
  table.sort(slow, function(a, b) return a[1] > b[1] end)
  for i = 1, math.min(#slow, 10) do
    say(("slow %7.2f s %s\n"):format(slow[i][1], slow[i][2]))
  end
  if pending > 0 then say(("%d skipped\n"):format(pending)) end
  if passed + failed == 0 then
    failed = 1
    say("no spec ran\n")
  end
  say(("%d passed, %d failed\n"):format(passed, failed))
  return failed == 0 and 0 or 1
end

return function(args)
  if args[1] == "--script" then return assert(loadfile(args[2]))(table.unpack(args, 3)) end
  local ok, o = pcall(parse, args)
  if not ok or o.help or #o.files == 0 then
    io.stderr:write(ok and "" or "lbrun-spec: " .. o .. "\n", usage)
    return ok and o.help and 0 or 2
  end
  host.deadline(3600)
  return run(o)
end
