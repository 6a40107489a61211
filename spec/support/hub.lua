-- hub.lua: starts the Hub's stand-in (hub.py) for a spec and reads what it was told.
-- It asserts nothing but that the stand-in comes up.
local process = require "process"
local json = require "json"
local support = require "support.lbrun"

local hub = {}

-- hub.new(dir, token, address) -> h: h.start(), h.stop(), h.fault{...}, h.requests(), h.url
function hub.new(dir, token, address)
  local h = { dir = dir, address = address or "127.0.0.1", token_file = dir .. "/runner_token" }
  support.sh("mkdir -p -m 700 " .. support.quote(dir))
  for _, name in ipairs { "token", "runner_token" } do
    support.sh(("install -m 600 /dev/null %s/%s"):format(dir, name))
    support.spit(dir .. "/" .. name, token .. "\n")
  end

  -- The port stays the same from the first start on.
  function h.start()
    h.server = assert(process.spawn({ "python3", "spec/support/hub.py", dir, h.address, h.port or "0" },
      { kill_on_close = true }))
    local out = ""
    while not out:find "port %d+\n" do
      local which, data = h.server:read(20)
      assert(which == "out", ("the Hub's stand-in does not start: %s"):format(tostring(data)))
      out = out .. data
    end
    h.port = out:match "port (%d+)"
    h.url = ("http://%s:%s"):format(h.address, h.port)
    return h
  end

  function h.stop()
    if h.server then h.server:close() end
    h.server = nil
  end

  function h.fault(fault)
    support.spit(dir .. "/fault", fault and json.encode(fault) or "")
  end

  function h.requests()
    local list, f = {}, io.open(dir .. "/requests.jsonl")
    if not f then return list end
    for line in f:lines() do list[#list + 1] = json.decode(line) end
    f:close()
    return list
  end

  -- How often each body was taken, as text: { ['{"status":"COMPLETED"}'] = 1 }; of
  -- one path, or of all
  function h.taken(path)
    local counts = {}
    for _, r in ipairs(h.requests()) do
      if r.effective and (not path or r.path == path) then
        local text = json.encode(r.body, { sort = true })
        counts[text] = (counts[text] or 0) + 1
      end
    end
    return counts
  end

  return h
end

return hub
