-- sources.lua: the closure of a run: the runbook, the folder of its name, those of other
-- runbooks that it includes from, the Lua library and the templates, read once from disk or
-- from the journal. It runs nothing.
local host = require "host"
local crypto = require "crypto"
local util = require "lb.util"

local sources = {}
sources.__index = sources

local limit = 4 * 1024 * 1024

local function read(self, name, path)
  local text, err = host.read_file(path, { max = limit })
  if not text then util.raise("source", ("cannot read %s: %s"):format(path, tostring(err))) end
  self.files[name] = text
  self.paths[name] = path
end

local function tree(self, name, path, depth)
  if depth > 8 then util.raise("source", path .. " is nested more than 8 folders deep") end
  local list, err = host.list(path)
  if not list then util.raise("source", ("cannot list %s: %s"):format(path, tostring(err))) end
  for _, entry in ipairs(list) do
    local is_hidden = entry.name:sub(1, 1) == "."
    if entry.type == "directory" and not is_hidden then
      tree(self, name .. "/" .. entry.name, path .. "/" .. entry.name, depth + 1)
    elseif entry.type == "file" and not is_hidden and not entry.name:match("~$") then
      read(self, name .. "/" .. entry.name, path .. "/" .. entry.name)
    end
  end
end

-- sources.collect(path) -> closure of the runbook at `path`.
function sources.collect(path)
  local self = setmetatable({ files = {}, paths = {} }, sources)
  local real = host.realpath(path)
  if not real then
    util.raise("usage", ("there is no runbook %s; `lbrun list` shows those there are"):format(path))
  end
  local dir, base = real:match("^(.*)/([^/]+)$")
  self.main = "runbooks/" .. base
  read(self, self.main, real)
  self.paths[self.main] = path
  local folders = { [base:gsub("%.lua$", "")] = true }
  for name in self.files[self.main]:gmatch('include%s*%(?%s*"([%w_-]+)/') do folders[name] = true end
  for _, name in ipairs(util.keys(folders)) do
    local folder = dir .. "/" .. name
    local seen = host.stat(folder)
    if seen and seen.type == "directory" and folder ~= real then tree(self, "runbooks/" .. name, folder, 0) end
  end
  local data = host.data_dirs()
  tree(self, "lua", data.lua, 0)
  tree(self, "templates", data.templates, 0)
  return self
end

-- sources.stored(journal, run, main) -> the closure that a run began with.
function sources.stored(journal, run)
  local self = setmetatable({ files = {}, paths = {}, stored = true, main = run.runbook }, sources)
  for _, file in ipairs(util.check(journal:sources(run.id))) do
    local body = util.check(journal:source(run.id, file.path))
    if crypto.sha256(body) ~= file.sha256 then
      util.raise("source", ("the journal's copy of %s does not match its checksum"):format(file.path))
    end
    self.files[file.path] = body
  end
  return self
end

function sources:list()
  local list = {}
  for _, name in ipairs(util.keys(self.files)) do
    list[#list + 1] = { path = name, body = self.files[name] }
  end
  return list
end

function sources:read(name)
  return self.files[name]
end

-- The names of the files that differ from another closure.
function sources:changed(other)
  local names = {}
  for name, body in pairs(self.files) do
    if other.files[name] ~= body then names[#names + 1] = name end
  end
  for name in pairs(other.files) do
    if not self.files[name] then names[#names + 1] = name end
  end
  table.sort(names)
  return names
end

function sources:chunkname(name)
  return "@" .. (self.paths[name] or name)
end

return sources
