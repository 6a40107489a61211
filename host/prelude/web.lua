-- web.lua: `http` as runbooks see it: what raises, writes no file here and puts no secret
-- into a URL; a plan only reads. The requests themselves are the native module's.
local host = require "host"
local http = require "http"
local util = require "lb.util"

local web = {}

local reading = setmetatable({}, { __mode = "k" }) -- environments whose requests only read
local safe = { GET = true, HEAD = true }

-- From now on the runbook of this environment makes GET and HEAD requests only.
function web.read_only(env)
  reading[env] = true
end
function web.reading(env)
  return reading[env] or false
end

local function ask(env, o)
  if type(o) ~= "table" then util.misuse(("http takes a table of options, not a %s"):format(type(o))) end
  if o.output_path ~= nil then util.misuse("http: 'output_path' is not for runbooks, which write no files here") end
  local body = o.body ~= nil or o.json ~= nil
  local method = o.method or body and "POST" or "GET"
  if reading[env] and (body or not safe[method]) then
    util.misuse(("a plan makes GET requests only, not %s"):format(tostring(method)))
  end
  if type(o.url) == "string" and host.mask(o.url) ~= o.url then
    util.misuse("http: the URL holds a secret: send it in a header or in the body")
  end
  local response, err = http.request(o)
  if response then
    response.ok = response.status >= 200 and response.status < 300
    return response
  end
  if err.code == "interrupted" then util.raise("interrupted", "interrupted during a request") end
  return nil, err
end

-- web.new(env) -> { request, try }
function web.new(env)
  return {
    request = function(o)
      local response, err = ask(env, o)
      if response then return response end
      util.raise("http", ("%s: %s"):format(tostring(o.url), err.message), { why = err.code })
    end,
    try = function(o)
      local response, err = ask(env, o)
      return response or { ok = false, status = 0, why = err.code, message = err.message }
    end,
  }
end

return web
