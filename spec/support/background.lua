-- background.lua: lbrun in the background of a spec, with --json: what it says is read as it says
-- it, and it can be killed in the middle. It asserts nothing but that what is waited for comes.
local json = require "json"
local support = require "support.lbrun"

local background = {}
background.__index = background

function background.sleep(seconds)
  os.execute(("sleep %.2f"):format(seconds))
end

-- background.start(home, words, env?) -> b; env is words before the program: "NAME=value"
function background.start(home, words, env)
  local b = setmetatable({ home = home, out = home.dir .. "/bg.out", err = home.dir .. "/bg.err", at = 0 }, background)
  support.sh("rm -f " .. b.out)
  local p = io.popen(("env HOME=%s XDG_STATE_HOME=%s/state %s %s %s >%s 2>%s </dev/null & echo $!"):format(
    home.dir, home.dir, env or "", support.binary, words, b.out, b.err))
  b.pid = p:read "l"
  p:close()
  return b
end

-- b:said() -> the lines since the last look, as tables; b.last is the newest of all, b.run the
-- run that they are of
function background:said()
  local f = io.open(self.out, "rb")
  if not f then return {} end
  f:seek("set", self.at)
  local text = f:read "a"
  f:close()
  local new = {}
  for line in text:gmatch "([^\n]*)\n" do
    self.at = self.at + #line + 1
    new[#new + 1] = json.decode(line)
    self.last = new[#new]
    self.run = self.last.run or self.run
  end
  return new
end

function background:alive()
  return (os.execute(("kill -0 %s 2>/dev/null"):format(self.pid))) == true
end

-- b:wait_for(fn) -> what fn(line) said of the first line of which it said something, or nil
-- when lbrun ended before
function background:wait_for(fn)
  for _ = 1, 30000 do
    local running = self:alive()
    for _, line in ipairs(self:said()) do
      local is = fn(line)
      if is then return is end
    end
    if not running then return nil end
    background.sleep(0.02)
  end
  error "lbrun neither ended in ten minutes nor said what was waited for"
end

-- b:finish() -> its last line
function background:finish()
  self:wait_for(function() end)
  self:said()
  return self.last
end

-- b:kill(): as by a power cut; returns when the process is gone.
function background:kill()
  os.execute("kill -9 " .. self.pid)
  for _ = 1, 1000 do
    if not self:alive() then
      self:said()
      return
    end
    background.sleep(0.05)
  end
  error("lbrun " .. self.pid .. " does not end")
end

return background
