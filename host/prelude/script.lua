-- script.lua: the environment that runbooks and the Lua library see, and the loading of a
-- runbook in it. It executes no step.
local host = require "host"
local json = require "json"
local template = require "template"
local crypto = require "crypto"
local util = require "lb.util"
local params = require "lb.params"
local diff = require "lb.diff"
local web = require "lb.web"
local scp = require "lb.scp"

local script = {}

-- Answers of a probe.
local answer_meta = { __name = "lbrun.answer" }
local function answer(state, text)
  if text ~= nil and type(text) ~= "string" then
    error(("%s() takes a text, not a %s"):format(state, type(text)), 3)
  end
  return setmetatable({ state = state, text = text or "" }, answer_meta)
end
function script.is_answer(v)
  return getmetatable(v) == answer_meta
end
function script.answer(state, text)
  return answer(state, text)
end

local resource_meta = { __name = "lbrun.resource" }
local step_meta = { __name = "lbrun.step" }
local runbook_meta = { __name = "lbrun.runbook" }

local function expect_keys(what, given, known, level)
  for k in pairs(given) do
    if type(k) ~= "string" or not known[k] then
      error(("%s has no field '%s'%s"):format(what, tostring(k),
        util.did_you_mean(tostring(k), util.keys(known))), level + 1)
    end
  end
end

local function expect_type(what, value, want, level)
  local kind = type(value)
  for one in want:gsub("%?$", "|nil"):gmatch("[^|]+") do
    if one == kind or one == "any" then return end
    if one == "secret" and kind == "userdata" then return end
    if one == "integer" and math.type(value) == "integer" then return end
  end
  error(("%s: expected %s, got %s"):format(what, want, kind), level + 1)
end

-- Resources: resource(name, def) returns a constructor whose argument table is checked.
local def_fields = {
  args = "table?", list = "boolean?", id = "function", probe = "function", apply = "function",
  intent = "function?", before = "function?", undo = "function?", undoable = "boolean?",
  check = "function?", pure = "boolean?",
}
local function resource(name, def)
  expect_type("resource name", name, "string", 2)
  expect_keys("resource " .. name, def, def_fields, 2)
  for field, want in pairs(def_fields) do
    expect_type(("resource %s: %s"):format(name, field), def[field], want, 2)
  end
  local args = def.args or {}
  local takes_list = def.list or args.list == true
  return function(given)
    if type(given) ~= "table" then
      error(("%s takes a table, not a %s"):format(name, type(given)), 2)
    end
    local self = {}
    for k, v in pairs(given) do
      if math.type(k) == "integer" then
        if not takes_list then error(("%s takes named arguments only"):format(name), 2) end
      elseif not args[k] or args[k] == true then
        error(("%s has no argument '%s'%s"):format(name, tostring(k),
          util.did_you_mean(tostring(k), util.keys(args))), 2)
      end
      self[k] = v
    end
    for k, want in pairs(args) do
      if want ~= true then expect_type(("%s: %s"):format(name, k), given[k], want, 2) end
    end
    if def.check then def.check(self) end
    return setmetatable({ name = name, def = def, self = self,
      id = ("%s(%s)"):format(name, def.id(self)) }, resource_meta)
  end
end

local step_fields = {
  name = "string", title = "string?", class = "string?", tags = "table?", resources = "table?",
  probe = "function?", apply = "function?", verify = "function?", undo = "function?",
  before = "function?", retry = "table?", timeout = "string|number|nil", rerun = "boolean?",
  sudo = "boolean?", intent = "function?",
}
local classes = { pure = true, reversible = true, compensable = true, irreversible = true }

local function step(def)
  expect_type("step", def, "table", 2)
  expect_keys("step '" .. tostring(def.name) .. "'", def, step_fields, 2)
  for field, want in pairs(step_fields) do
    expect_type(("step '%s': %s"):format(tostring(def.name), field), def[field], want, 2)
  end
  if not def.name:match("^[%w][%w._/-]*$") then
    error(("step name '%s': use letters, digits, '.', '_', '-' and '/'"):format(def.name), 2)
  end
  local s = setmetatable({}, step_meta)
  for k, v in pairs(def) do s[k] = v end
  s.class = def.class or "reversible"
  if not classes[s.class] then
    error(("step '%s': class '%s' is not pure, reversible, compensable or irreversible")
      :format(def.name, def.class), 2)
  end
  if not def.resources and not def.apply then
    error(("step '%s' has neither resources nor apply"):format(def.name), 2)
  end
  s.resources = def.resources or {}
  if #s.resources == 0 and not def.apply and def.verify then
    error(("step '%s' has a verify, but nothing to verify"):format(def.name), 2)
  end
  if not def.apply then
    for _, field in ipairs { "probe", "before", "undo", "intent" } do
      if def[field] then
        error(("step '%s' has %s without apply: its resources bring their own"):format(def.name, field), 2)
      end
    end
  end
  util.length(s.resources, ("step '%s': resources"):format(def.name))
  local seen = {}
  for i, r in ipairs(s.resources) do
    if getmetatable(r) ~= resource_meta then
      error(("step '%s': resources[%d] is not a resource but a %s"):format(def.name, i, type(r)), 2)
    end
    if seen[r.id] then error(("step '%s': %s stands twice"):format(def.name, r.id), 2) end
    seen[r.id] = true
  end
  s.retry = {}
  for i, wait in ipairs(def.retry or {}) do s.retry[i] = util.duration(wait) end
  s.timeout = def.timeout and util.duration(def.timeout)
  s.title = def.title or def.name
  s.tags = def.tags or {}
  return s
end

local runbook_fields = {
  name = "string", summary = "string", section = "string?", params = "table?",
  access = "function?", steps = "table|function", sudo = "boolean?", preflight = "function?",
  on_failure = "function?", request = "function?",
}
local function runbook(def)
  expect_type("runbook", def, "table", 2)
  expect_keys("runbook '" .. tostring(def.name) .. "'", def, runbook_fields, 2)
  for field, want in pairs(runbook_fields) do
    expect_type(("runbook '%s': %s"):format(tostring(def.name), field), def[field], want, 2)
  end
  local book = setmetatable({}, runbook_meta)
  for k, v in pairs(def) do book[k] = v end
  book.params = def.params or {}
  for name, p in pairs(book.params) do
    if type(name) ~= "string" or type(p) ~= "table" or not p.kind then
      error(("parameter '%s' is not made by param.*"):format(tostring(name)), 2)
    end
  end
  return book
end

-- What makes another value each time. A resume evaluates the steps of a runbook again and
-- must get the same ones.
local random = { random_bytes = true, token = true, password = true, bcrypt = true, argon2id = true,
  age_identity = true, age_encrypt = true, age_encrypt_file = true, ed25519_keypair = true, rsa_keypair = true,
  self_signed = true, pkcs12 = true, seal = true }

-- Native modules return nil, err; runbooks see what raises.
local function raising(module, closure)
  local wrapped = {}
  for name, value in pairs(module) do
    if type(value) == "function" then
      wrapped[name] = function(...)
        if closure and random[name] and closure.evaluating then
          error(("crypto.%s: the steps of a runbook are the same at each resume, so they are made without random values; "
            .. "make them in an apply"):format(name), 2)
        end
        return util.check(value(...))
      end
    else
      wrapped[name] = value
    end
  end
  return wrapped
end

local function located(err, closure)
  if type(err) == "table" then return err end
  local text = tostring(err)
  return util.error("runbook", text, { source = closure.main })
end

-- parallel{ fn, ..., limit = N } -> list of what each fn returned. All of them end before
-- the first failure is raised.
local function parallel(list)
  local limit, next_one, results, failure = list.limit or 4, 1, {}, nil
  for i, fn in ipairs(list) do
    if type(fn) ~= "function" then error(("parallel: item %d is a %s, not a function"):format(i, type(fn)), 2) end
  end
  local function worker()
    while next_one <= #list do
      local i = next_one
      next_one = i + 1
      local fine, result = pcall(list[i])
      if fine then results[i] = result else failure = failure or result end
    end
  end
  local tasks = {}
  for i = 1, math.min(limit, #list) do tasks[i] = host.task(worker) end
  for _, task in ipairs(tasks) do
    local ok, err
    repeat
      ok, err = task:join()
    until ok or type(err) ~= "table" or err.code ~= "interrupted" or host.interrupted() >= 2
    if not ok then failure = failure or err end
  end
  if failure then error(failure, 0) end
  return results
end

-- script.environment(closure) -> env. Each library file is loaded once, when first named.
function script.environment(closure)
  local env = host.sandbox_env()
  env.runbook, env.step, env.resource = runbook, step, resource
  env.param = params.param
  env.done = function(text) return answer("done", text) end
  env.pending = function(text) return answer("pending", text or "change") end
  env.unknown = function(why) return answer("unknown", why or "no reason given") end
  env.after = function(name) return answer("after", name) end
  env.json = raising(json)
  env.template = { render = function(...) return util.check(template.render(...)) end }
  env.crypto = raising(crypto, closure)
  env.http = web.new(env)
  env.scp = scp.new(env)
  env.quote, env.argv, env.diff = util.quote, util.argv, diff
  env.duration, env.last_lines, env.did_you_mean = util.duration, util.last_lines, util.did_you_mean
  env.sorted_keys = util.keys
  env.parallel = parallel
  env.sleep = function(seconds) return util.check(host.sleep(util.duration(seconds))) end
  env.fail = function(code, message, fields)
    expect_type("fail: code", code, "string", 2)
    expect_type("fail: message", message, "string", 2)
    expect_type("fail: fields", fields, "table?", 2)
    if fields and fields.exit ~= nil then error("fail: the code decides the exit status", 2) end
    util.raise(code, message, fields)
  end

  local function load_file(name)
    local text = closure:read(name)
    if not text then return nil end
    local chunk, err = host.load(text, closure:chunkname(name), env)
    if not chunk then
      util.raise("syntax", ("%s:%s: %s"):format(err.file or name, tostring(err.line or "?"), err.message))
    end
    return chunk
  end

  local included = {}
  env.include = function(name)
    expect_type("include", name, "string", 2)
    if name:find("..", 1, true) then error("include stays inside the folder of runbooks", 2) end
    local base = closure.main:match("^(.*)/[^/]+$")
    for _, full in ipairs { base .. "/" .. name .. ".lua", base .. "/" .. name } do
      if included[full] ~= nil then return included[full] end
      local chunk = load_file(full)
      if chunk then
        included[full] = chunk() or true
        return included[full]
      end
    end
    error(("include '%s': there is no such file beside the runbook"):format(name), 2)
  end

  -- Data sees no globals, not even those of a runbook.
  env.data = function(name)
    expect_type("data", name, "string", 2)
    local full = "templates/" .. name
    local text = closure:read(full)
    if not text then return nil end
    local chunk, err = host.load(text, closure:chunkname(full), {})
    if not chunk then
      util.raise("syntax", ("%s:%s: %s"):format(err.file or full, tostring(err.line or "?"), err.message))
    end
    return chunk()
  end

  local loading = {}
  setmetatable(env, {
    __metatable = false,
    __index = function(_, name)
      if type(name) ~= "string" then return nil end
      if loading[name] then
        error(("the library files of '%s' need each other while they are loaded"):format(name), 2)
      end
      local chunk = load_file("lua/" .. name .. ".lua")
      if not chunk then return nil end
      loading[name] = true
      local value = chunk()
      loading[name] = nil
      rawset(env, name, value)
      return value
    end,
  })
  return env
end

-- script.load(closure) -> runbook, env; raises syntax or runbook with file and line.
function script.load(closure)
  local env = script.environment(closure)
  local text = closure:read(closure.main)
  if not text then util.raise("source", "the closure lacks " .. closure.main) end
  host.deadline(nil, closure.main:match("[^/]+$"))
  local chunk, err = host.load(text, closure:chunkname(closure.main), env)
  if not chunk then
    util.raise("syntax", ("%s:%s: %s"):format(err.file or closure.main, tostring(err.line or "?"), err.message))
  end
  local fine, book = pcall(chunk)
  if not fine then error(located(book, closure), 0) end
  if getmetatable(book) ~= runbook_meta then
    util.raise("runbook", ("%s does not return runbook{...}"):format(closure.paths[closure.main] or closure.main))
  end
  return book, env
end

-- script.steps(book, values, closure) -> list of steps with unique names.
function script.steps(book, values, closure)
  local list = book.steps
  if type(list) == "function" then
    closure.evaluating = true
    local fine, result = pcall(list, values)
    closure.evaluating = nil
    if not fine then error(located(result, closure), 0) end
    list = result
  end
  local file = closure.paths[closure.main] or closure.main
  if type(list) ~= "table" then
    util.raise("runbook", ("%s: steps is not a list but a %s"):format(file, type(list)))
  end
  local whole, hole = pcall(util.length, list, file .. ": steps")
  if not whole then util.raise("runbook", hole) end
  for k in pairs(list) do
    if math.type(k) ~= "integer" then
      util.raise("runbook", ("%s: steps is a list, and has no field '%s'"):format(file, tostring(k)))
    end
  end
  local seen = {}
  for i, s in ipairs(list) do
    if getmetatable(s) ~= step_meta then
      util.raise("runbook", ("%s: steps[%d] is not made by step{...} but a %s"):format(file, i, type(s)))
    end
    if seen[s.name] then util.raise("runbook", ("%s: two steps are called '%s'"):format(file, s.name)) end
    seen[s.name] = true
  end
  return list
end

-- What identifies a list of steps: names, classes and effects in their order.
function script.digest(list)
  local names = {}
  for _, s in ipairs(list) do
    names[#names + 1] = s.name .. "\t" .. s.class
    for _, r in ipairs(s.resources) do names[#names + 1] = "\t" .. r.id end
    if s.apply then names[#names + 1] = "\tapply" end
  end
  return crypto.sha256(table.concat(names, "\n"))
end

return script
